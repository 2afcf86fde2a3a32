"""``napari-samexp record``: a prompt on an image becomes a prior's recording."""

from __future__ import annotations

import json as to_json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from napari_samexp._text import one_line
from napari_samexp.cli.arguments import prompt_of, require_memory, require_one_of, require_output
from napari_samexp.cli.model import load, pinned
from napari_samexp.cli.options import Device, DeviceOptions, Dtype, Json, KeepAspect, Sha256, Side
from napari_samexp.cli.tables import columns
from napari_samexp.errors import PriorError
from napari_samexp.sam.weights.catalogue import STARTER

if TYPE_CHECKING:
    from napari_samexp.sam.features import MaskPrediction, Memory
    from napari_samexp.sam.sam2 import Sam2
    from napari_samexp.tracking.prior import PriorMemory
    from napari_samexp.tracking.recording import Recording
    from napari_samexp.types import Prompt

__all__ = ["record"]


@dataclass(frozen=True, slots=True)
class PromptOptions:
    """What is prompted, and what the recording of it is called."""

    point: Annotated[
        list[str] | None, typer.Option(metavar="X,Y", help="A pixel on the object; may be repeated.")
    ] = None
    background: Annotated[
        list[str] | None, typer.Option(metavar="X,Y", help="A pixel beside the object; may be repeated.")
    ] = None
    box: Annotated[
        str | None,
        typer.Option(metavar="X0,Y0,X1,Y1", help="A box around the object: left, top, right, bottom."),
    ] = None
    label: Annotated[
        int, typer.Option(metavar="N", min=1, max=65535, help="The object's number in the labels.")
    ] = 1
    name: Annotated[str, typer.Option(metavar="TEXT", help="The object's name.", show_default=False)] = ""
    mask_index: Annotated[
        int | None,
        typer.Option(metavar="K", min=0, max=3, help="The mask to record; by default the best."),
    ] = None


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """The model that encodes the image, and how."""

    model: Annotated[str, typer.Option(metavar="MODEL", help="A model's name, or a weights file.")] = STARTER
    sha256: Sha256 = None
    side: Side = None
    keep_aspect: KeepAspect = False
    device: Device = "auto"
    dtype: Dtype = "auto"


def record(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE", help="An image, or VIDEO@FRAME such as clip.mp4@12.", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="PRIOR", help="The prior, a safetensors file.", show_default=False)
    ],
    *,
    prompted: PromptOptions,
    encoding: EncodeOptions,
    append: Annotated[bool, typer.Option("--append", help="Add to the prior if it exists.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the prior if it exists.")] = False,
    json: Json = False,
) -> None:
    """Record what a prompt on an image shows, as a prior to track with.

    Prints the predicted IoU of each mask, and which one is recorded. Coordinates are pixels, x to the
    right and y down, from 0.
    """
    require_one_of("--append", "--overwrite", append and overwrite)
    require_memory(encoding.model)
    model = pinned(encoding.model, encoding.sha256)
    prompt = prompt_of(prompted.point or (), prompted.background or (), prompted.box)
    prior = _prior_at(out, append=append, overwrite=overwrite)

    from napari_samexp.io.video import read_frame

    pixels = read_frame(image)
    prompt.require_inside(pixels.shape[:2])
    loaded = load(model, DeviceOptions(encoding.device, encoding.dtype), quiet=json)
    recording, memory, prediction = _recorded(loaded, image, pixels, prompt, prompted, encoding)
    prior = prior.with_recording(recording, memory)
    prior.save(out.resolve())
    facts = _facts(out, prior, recording, prediction)
    typer.echo(to_json.dumps(facts, indent=1) if json else _text(facts))


def _recorded(
    model: Sam2,
    image: str,
    pixels: npt.NDArray[np.uint8],
    prompt: Prompt,
    prompted: PromptOptions,
    encoding: EncodeOptions,
) -> tuple[Recording, Memory, MaskPrediction]:
    from napari_samexp.tracking.recording import record as record_prompt

    side, square = encoding.side, not encoding.keep_aspect
    features = model.encode(pixels, side=side, square=square)
    prediction = model.segment(features, prompt)
    recording, memory = record_prompt(
        model, pixels, features, prompt, prediction, label=prompted.label, name=prompted.name,
        image_name=Path(image).name,  # without its folders, which may be private
        mask_index=prompted.mask_index, side=side, square=square,
    )  # fmt: skip
    return recording, memory, prediction


def _prior_at(out: Path, *, append: bool, overwrite: bool) -> PriorMemory:
    """Return the prior to add to, an empty one for a new file; raise if `out` must not be replaced."""
    from napari_samexp.tracking.prior import PriorMemory

    require_output("--out", out, {})
    if not out.exists():
        return PriorMemory()
    if not (append or overwrite):
        raise PriorError(
            f"{out} exists; give --append to add to it, --overwrite to replace it, or another --out."
        )
    try:
        old = PriorMemory.load(out)
    except PriorError as error:
        raise PriorError(
            f"{out} exists and is no prior file, so it is not replaced; choose another --out."
        ) from error
    return old if append else PriorMemory()


def _facts(out: Path, prior: PriorMemory, recording: Recording, prediction: MaskPrediction) -> dict[str, Any]:
    recorded = prediction.require_choice(recording.mask_index)
    return {
        "prior": str(out),
        "recordings": len(prior.recordings),
        "label": recording.label,
        "name": recording.name,
        "image": recording.image_name,
        "image_hw": list(recording.image_hw),
        "model": one_line(recording.model),
        "weights_sha256": recording.weights,
        "presence": round(recording.presence, 4),
        "taken": recorded,
        "masks": [
            {
                "index": index,
                "predicted_iou": round(float(iou), 4),
                "area": round(float(prediction.mask(index).mean()), 6),
                "taken": index == recorded,
            }
            for index, iou in enumerate(prediction.iou)
        ],
    }


def _text(facts: dict[str, Any]) -> str:
    label = f"label {facts['label']}" + (f" ({one_line(facts['name'])})" if facts["name"] else "")
    height, width = facts["image_hw"]
    rows = [
        (m["index"], f"{m['predicted_iou']:.2f}", f"{m['area']:.1%}", "taken" if m["taken"] else "")
        for m in facts["masks"]
    ]
    advice = "" if facts["presence"] > 0 else ": the model sees no object there, so try other points"
    total = facts["recordings"]
    lines = [
        f"Recorded {label} on {one_line(facts['image'])}, {width} x {height}, with {facts['model']}",
        "",
        *columns(("mask", "predicted IoU", "share of image", ""), rows),
        "",
        f"presence {facts['presence']:.2f}{advice}",
        f"{one_line(facts['prior'])}: {total} recording{'s' if total > 1 else ''}",
    ]
    return "\n".join(lines)
