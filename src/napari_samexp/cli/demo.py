"""``napari-samexp demo``: record and track the bundled sample, with nothing to download."""

from __future__ import annotations

import filecmp
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import typer

from napari_samexp._children import SAFE_PATH
from napari_samexp._text import one_line
from napari_samexp.cli.model import load
from napari_samexp.cli.options import DeviceOptions
from napari_samexp.cli.outputs import Outputs
from napari_samexp.cli.track import model_facts, summary, text, track_frames
from napari_samexp.errors import SettingsError
from napari_samexp.sam.weights.catalogue import STARTER

if TYPE_CHECKING:
    from napari_samexp.io.labels import LabelStore
    from napari_samexp.sam.sam2 import Sam2
    from napari_samexp.samples import Sample
    from napari_samexp.tracking.prior import PriorMemory
    from napari_samexp.types import VideoSource

__all__ = ["demo"]

PRIOR_IMAGE, PRIOR, CLIP, SHEET = "prior.png", "prior.safetensors", "clip.mp4", "contact_sheet.png"
LABELS, SCORES, OVERLAY = "labels.zarr", "scores.csv", "overlay.mp4"
FILES = (PRIOR_IMAGE, PRIOR, CLIP, SHEET, LABELS, SCORES, OVERLAY)
HOME = "settings"  # of the demo's window; your own stay as they are
WINDOW_RUNS = "clip.labels*.zarr"  # tracked in the demo's window
WINDOW = "napari_samexp._qt.tracking.demo_window"
BINDINGS = ("PyQt6", "PySide6")
NAME = "the object"
FRAMES_PER_LINE = 12  # of J

Mask = npt.NDArray[np.bool_]


def demo(
    headless: Annotated[bool, typer.Option("--headless", help="Open no window.")] = False,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder to write to; an older demo there is replaced.")
    ] = Path("napari-samexp-demo"),
) -> None:
    """Track a bundled clip, in napari where there is a screen.

    Records a click on the bundled image of a drawn object with the bundled weights. On a screen, opens
    napari with the image, a clip that was never prompted, and the recording, ready to be tracked.
    Without one, tracks the clip, writes the prior, the labels, the scores, an overlay video and a contact
    sheet, and prints J (intersection over union with the ground truth) of each frame.
    """
    _require_own(out)
    obstacle = "" if headless else why_no_window()
    if obstacle:
        typer.echo(f"{obstacle}; the demo runs without a window.", err=True)
    if headless or obstacle:
        _without_window(out)
    else:
        _in_window(out)


def why_no_window() -> str:
    """Return why napari's window cannot open here; an empty text if it can."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "There is no screen"
    if not any(importlib.util.find_spec(name) for name in BINDINGS):
        return "No Qt binding is installed (pip install 'napari-samexp[all]' brings one)"
    return ""


def _in_window(out: Path) -> None:
    from napari_samexp.io.atomic import write_atomic
    from napari_samexp.render.overlay import write_png
    from napari_samexp.samples import load_sample

    sample, model = load_sample(), load(STARTER, DeviceOptions(dtype="float32"), quiet=False)
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / HOME, ignore_errors=True)
    write_atomic(out / CLIP, sample.clip_path.read_bytes())
    write_png(out / PRIOR_IMAGE, sample.prior)
    _recorded(model, sample)[0].save(out / PRIOR)
    typer.echo("napari opens with an image, a recording of the object in it, and a clip: press Track there.")
    # a process of its own: napari's never imports torch
    window = subprocess.run(
        [sys.executable, "-P", "-m", WINDOW, str(out)],
        env={**os.environ, **SAFE_PATH, "NAPARI_SAMEXP_HOME": str((out / HOME).absolute())},
        check=False,
    )
    if window.returncode:
        raise SettingsError(
            f"napari's window ended with status {window.returncode}; give --headless to run without it."
        )


def _without_window(out: Path) -> None:
    from napari_samexp.io.atomic import write_atomic
    from napari_samexp.io.video import open_video
    from napari_samexp.samples import load_sample
    from napari_samexp.tracking.run import open_store
    from napari_samexp.tracking.settings import TrackSettings
    from napari_samexp.tracking.tracker import Tracker

    sample, model = load_sample(), load(STARTER, DeviceOptions(dtype="float32"), quiet=False)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / CLIP, sample.clip_path.read_bytes())
    prior, mask = _recorded(model, sample)
    prior.save(out / PRIOR)
    settings, outputs = (
        TrackSettings(),
        Outputs(out / LABELS, overwrite=True, scores=out / SCORES, overlay=out / OVERLAY),
    )
    with (
        open_video(out / CLIP) as video,
        open_store(outputs.out, model, prior, settings, video, overwrite=True) as store,
    ):
        frames = range(len(video))
        facts = track_frames(store, Tracker(model, prior, settings), video, frames, quiet=False)
        outputs.write(store, video, frames, quiet=False)
        _write_images(out, sample, mask, video, store)
        facts |= summary(store, frames) | model_facts(model) | outputs.paths
        report = _report(out, sample, mask, store)
    typer.echo(f"{text(facts)}\n{report}")


def _require_own(out: Path) -> None:
    """Raise unless the folder is new, or holds only what a demo writes and may replace."""
    if not out.exists():
        return
    if not out.is_dir():
        raise SettingsError(f"--out {out} is a file; give a folder.")
    entries = sorted(out.iterdir())
    others = [entry.name for entry in entries if not _is_ours(entry)]
    replaced = [entry.name for entry in entries if entry.name in (*FILES, HOME)]
    if not _is_sample(out / CLIP):  # scores.csv may be somebody else's
        others += replaced
    if others:
        raise SettingsError(
            f"The folder {out} also holds {others[0]}, which no demo wrote; choose another --out."
        )


def _is_ours(entry: Path) -> bool:
    """Whether a demo writes an entry of this name and kind; it writes no links."""
    from napari_samexp.io.atomic import PARTIAL
    from napari_samexp.io.guarded import kind_at

    if entry.name in (HOME, LABELS) or entry.match(WINDOW_RUNS):
        return kind_at(entry) == "folder"
    return kind_at(entry) == "file" and (entry.name in FILES or bool(PARTIAL.fullmatch(entry.name)))


def _is_sample(clip: Path) -> bool:
    from napari_samexp.samples import load_sample

    return clip.exists() and filecmp.cmp(clip, load_sample().clip_path, shallow=False)


def _recorded(model: Sam2, sample: Sample) -> tuple[PriorMemory, Mask]:
    """Return the prior that the sample's clicks make, and the recorded mask."""
    from napari_samexp.tracking.prior import PriorMemory
    from napari_samexp.tracking.recording import record
    from napari_samexp.types import Prompt

    prompt = Prompt(sample.points_xy, sample.labels)
    features = model.encode(sample.prior)
    prediction = model.segment(features, prompt)
    made = record(model, sample.prior, features, prompt, prediction, name=NAME, image_name=PRIOR_IMAGE)
    return PriorMemory().with_recording(*made), prediction.mask()


def _jaccard(found: Mask, ground_truth: Mask) -> float:
    """Return intersection over union; 1 where both are empty."""
    union = np.count_nonzero(found | ground_truth)
    return np.count_nonzero(found & ground_truth) / union if union else 1.0


def _scores(store: LabelStore, sample: Sample) -> list[float]:
    """Return J of each frame."""
    return [
        _jaccard(store.frame(index) == 1, ground_truth)
        for index, ground_truth in enumerate(sample.ground_truth)
    ]


def _write_images(out: Path, sample: Sample, mask: Mask, video: VideoSource, store: LabelStore) -> None:
    from PIL import Image, ImageDraw

    from napari_samexp.render.overlay import contact_sheet, paint, write_png

    image = Image.fromarray(paint(sample.prior, mask.astype(np.uint8)))
    draw = ImageDraw.Draw(image)
    for (x, y), label in zip(sample.points_xy.tolist(), sample.labels.tolist()):
        draw.circle((x, y), 5, fill=(255, 255, 255) if label else (200, 0, 0), outline=(0, 0, 0), width=2)
    scores = enumerate(_scores(store, sample))
    notes = {index: f"J {score:.2f}" for index, score in scores if sample.ground_truth[index].any()}
    sheet = contact_sheet(video, store, count=23, notes=notes, lead=[(np.asarray(image), "the prompt")])
    write_png(out / PRIOR_IMAGE, sample.prior)
    write_png(out / SHEET, sheet)


def _report(out: Path, sample: Sample, mask: Mask, store: LabelStore) -> str:
    scores, recorded = _scores(store, sample), store.scores
    visible = [bool(ground_truth.any()) for ground_truth in sample.ground_truth]
    shown = [f"{score:.2f}" if is_visible else "   -" for score, is_visible in zip(scores, visible)]
    found = [score for score, is_visible in zip(scores, visible) if is_visible]
    right = sum(recorded[index][1].lost != is_visible for index, is_visible in enumerate(visible))
    lines = [
        f"prior    {one_line(out / PRIOR)}",
        f"sheet    {one_line(out / SHEET)}",
        "",
        "frame  J, intersection over union with the ground truth; - where the object is out of sight",
        *(
            f"{i:>5}  {' '.join(shown[i : i + FRAMES_PER_LINE])}"
            for i in range(0, len(shown), FRAMES_PER_LINE)
        ),
        "",
        f"mean J {sum(found) / len(found):.3f} over the {len(found)} frames that show the object",
        f"J {_jaccard(mask, sample.prior_mask):.3f} on the image with the click",
        f"presence is right in {right} of {len(visible)} frames",
    ]
    return "\n".join(lines)
