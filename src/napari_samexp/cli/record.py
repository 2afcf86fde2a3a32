"""``napari-samexp record``: a prompt on an image becomes a prior's recording."""

from __future__ import annotations

import json as to_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_samexp._text import one_line
from napari_samexp.cli.arguments import (
    Device,
    Dtype,
    Json,
    KeepAspect,
    Sha256,
    Side,
    prompt_of,
    require_memory,
    require_one_of,
    require_output,
)  # fmt: skip
from napari_samexp.cli.models import load, pinned
from napari_samexp.cli.tables import columns
from napari_samexp.errors import PriorError
from napari_samexp.sam.weights.catalogue import STARTER

if TYPE_CHECKING:
    from napari_samexp.sam.features import MaskPrediction
    from napari_samexp.tracking.prior import PriorMemory
    from napari_samexp.tracking.recording import Recording

__all__ = ["record"]


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
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="A model's name, or the path of a weights file.")
    ] = STARTER,
    point: Annotated[
        list[str] | None, typer.Option(metavar="X,Y", help="A pixel on the object; may be repeated.")
    ] = None,
    background: Annotated[
        list[str] | None, typer.Option(metavar="X,Y", help="A pixel that is not on it; may be repeated.")
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="A box around it: left, top, right, bottom.")
    ] = None,
    label: Annotated[
        int, typer.Option(metavar="N", min=1, max=65535, help="The object's number in the labels.")
    ] = 1,
    name: Annotated[
        str, typer.Option(metavar="TEXT", help="What the object is called.", show_default=False)
    ] = "",
    mask_index: Annotated[
        int | None,
        typer.Option(
            metavar="K", min=0, max=3, help="The mask choice to record; by default the model's best."
        ),
    ] = None,
    side: Side = None,
    keep_aspect: KeepAspect = False,
    sha256: Sha256 = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    append: Annotated[bool, typer.Option("--append", help="Add to the prior if it exists.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the prior if it exists.")] = False,
    json: Json = False,
) -> None:
    """Record what a prompt on an image shows, as a prior to track with.

    Prints how good the model thinks each of its mask choices is (predicted IoU), and which one it took.
    Coordinates are pixels, x to the right and y down, from 0.
    """
    require_one_of("--append", "--overwrite", append and overwrite)
    require_memory(model)
    model = pinned(model, sha256)
    prompt = prompt_of(point or (), background or (), box)
    prior = _prior_at(out, append=append, overwrite=overwrite)

    from napari_samexp.io.video import read_frame
    from napari_samexp.tracking.recording import record as remember

    pixels = read_frame(image)
    prompt.require_inside(pixels.shape[:2])
    ready = load(model, device=device, dtype=dtype, quiet=json)
    features = ready.encode(pixels, side=side, square=not keep_aspect)
    prediction = ready.segment(features, prompt)
    recording, memory = remember(
        ready, pixels, features, prompt, prediction, label=label, name=name, image_name=_file_name(image),
        mask_index=mask_index, side=side, square=not keep_aspect,
    )  # fmt: skip
    prior = prior.with_recording(recording, memory)
    prior.save(out.resolve())
    facts = _facts(out, prior, recording, prediction)
    typer.echo(to_json.dumps(facts, indent=1) if json else _text(facts))


def _prior_at(out: Path, *, append: bool, overwrite: bool) -> PriorMemory:
    """Return the prior to add to, empty for a new one; raise if `out` holds what must not be replaced."""
    from napari_samexp.tracking.prior import PriorMemory

    require_output("--out", out, {})
    if not out.exists():
        return PriorMemory()
    if not (append or overwrite):
        raise PriorError(
            f"{out} exists; give --append to add to it, --overwrite to replace it, or another --out."
        )
    try:
        there = PriorMemory.load(out)
    except PriorError as error:
        kept = "exists and is no prior that can be read, so it is kept"
        raise PriorError(f"{out} {kept}; choose another --out.") from error
    return there if append else PriorMemory()


def _file_name(image: str) -> str:
    return Path(image).name  # the folders are nobody's business whom the prior is given to


def _facts(out: Path, prior: PriorMemory, recording: Recording, prediction: MaskPrediction) -> dict[str, Any]:
    taken = prediction.require_choice(recording.mask_index)
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
        "taken": taken,
        "masks": [
            {
                "index": index,
                "predicted_iou": round(float(iou), 4),
                "area": round(float(prediction.mask(index).mean()), 6),
                "taken": index == taken,
            }
            for index, iou in enumerate(prediction.iou)
        ],
    }


def _text(facts: dict[str, Any]) -> str:
    called = f"label {facts['label']}" + (f" ({one_line(facts['name'])})" if facts["name"] else "")
    height, width = facts["image_hw"]
    rows = [
        (m["index"], f"{m['predicted_iou']:.2f}", f"{m['area']:.1%}", "taken" if m["taken"] else "")
        for m in facts["masks"]
    ]
    seen = "" if facts["presence"] > 0 else ": the model sees no object there, so try other points"
    total = facts["recordings"]
    lines = [
        f"Recorded {called} on {one_line(facts['image'])}, {width} x {height}, with {facts['model']}",
        "",
        *columns(("mask", "predicted IoU", "share of image", ""), rows),
        "",
        f"presence {facts['presence']:.2f}{seen}",
        f"{one_line(facts['prior'])}: {total} recording{'s' if total > 1 else ''}",
    ]
    return "\n".join(lines)
