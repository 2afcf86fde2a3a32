"""``napari-samexp track``: a prior's objects in a video become labels on disk."""

from __future__ import annotations

import json as to_json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from napari_samexp._text import one_line
from napari_samexp.cli.arguments import frame_numbers, frame_slice
from napari_samexp.cli.model import load, name_for, pinned
from napari_samexp.cli.options import (
    DeviceOptions,
    Frames,
    Json,
    ModelName,
    RecordedImages,
    Sha256,
    TrackingOptions,
)
from napari_samexp.cli.outputs import Outputs
from napari_samexp.cli.progress import Stopped, interruptible, progress
from napari_samexp.cli.tables import columns
from napari_samexp.errors import SettingsError
from napari_samexp.tracking.forecast import ENOUGH, Forecast, Work, proposed_side, time_words

if TYPE_CHECKING:
    from napari_samexp.io.labels import LabelStore
    from napari_samexp.io.video import LazyVideo
    from napari_samexp.sam.sam2 import Sam2
    from napari_samexp.tracking.prior import PriorMemory
    from napari_samexp.tracking.settings import TrackSettings
    from napari_samexp.tracking.tracker import Tracker

__all__ = ["model_facts", "summary", "text", "track", "track_frames"]

SHORT_RUN_S = 20.0  # shorter ones are not announced
CACHE_BYTES = 2**26  # frames are read once and in order
BACKWARD_CACHE_BYTES = 2**28  # a whole GOP is kept


def track(
    video: Annotated[
        Path,
        typer.Argument(
            metavar="VIDEO", help="A video file, a folder of images, or a TIFF stack.", show_default=False
        ),
    ],
    prior: Annotated[Path, typer.Option(metavar="PRIOR", help="What `record` wrote.", show_default=False)],
    *,
    outputs: Outputs,
    model: ModelName = None,
    sha256: Sha256 = None,
    image: RecordedImages = None,
    frames: Frames = None,
    hardware: DeviceOptions,
    tracking: TrackingOptions,
    json: Json = False,
) -> None:
    """Find a prior's objects in a video that was never prompted.

    Each finished frame is on disk at once: after Ctrl-C or a kill, the same command with --resume goes on.
    """
    if sha256 is not None and model is None:
        raise SettingsError("--sha256 is the hash of the file that --model names; give both.")
    model = None if model is None else pinned(model, sha256)
    images, requested = image or (), frame_slice(frames)
    outputs.check(video, _inputs(prior, model, images))

    from napari_samexp.io.video import open_video
    from napari_samexp.tracking.prior import PriorMemory

    recorded = PriorMemory.load(prior)
    with open_video(video, cache_bytes=BACKWARD_CACHE_BYTES if tracking.backward else CACHE_BYTES) as source:
        chosen = frame_numbers(requested, len(source), backward=tracking.backward)
        name = name_for(recorded, model, again=bool(images))
        pixels = _images_by_hash(images)
        loaded = load(name, hardware, quiet=json)
        usable = _encoded_for(loaded, recorded, pixels)
        facts = _run(loaded, usable, tracking.settings, source, chosen, outputs, quiet=json)
    typer.echo(to_json.dumps(facts, indent=1) if json else text(facts))


def _run(
    model: Sam2,
    prior: PriorMemory,
    settings: TrackSettings,
    video: LazyVideo,
    frames: Sequence[int],
    outputs: Outputs,
    *,
    quiet: bool,
) -> dict[str, Any]:
    from napari_samexp.tracking.run import open_store
    from napari_samexp.tracking.tracker import Tracker

    tracker = Tracker(model, prior, settings)  # the last that can fail before anything is written
    with open_store(
        outputs.out, model, prior, settings, video, resume=outputs.resume, overwrite=outputs.overwrite
    ) as store:
        with _resumable(store, frames):
            facts = track_frames(store, tracker, video, frames, quiet=quiet)
            outputs.write(store, video, frames, quiet=quiet)
        return facts | summary(store, frames) | model_facts(model) | outputs.paths


def _inputs(prior: Path, model: str | None, images: Sequence[str]) -> dict[str, Path]:
    """Return the files that no output may overwrite, by what messages call them."""
    inputs = {"the prior": prior} | ({} if model is None else {"the weights": Path(model)})
    return inputs | {f"the image {reference}": _file_of(reference) for reference in images}


def _file_of(reference: str) -> Path:
    """Return the path of an image, or of the video in ``VIDEO@FRAME``."""
    path = Path(reference)
    return path if path.exists() else Path(reference.rpartition("@")[0] or reference)


def _images_by_hash(references: Sequence[str]) -> dict[str, npt.NDArray[np.uint8]]:
    """Return the recorded images by their hash: their names do not matter."""
    from napari_samexp.io.video import read_frame
    from napari_samexp.tracking.recording import image_hash

    return {image_hash(image): image for image in map(read_frame, references)}


def _encoded_for(model: Sam2, prior: PriorMemory, images: Mapping[str, npt.NDArray[np.uint8]]) -> PriorMemory:
    """Return the prior for a model, encoded again from the images if another model made it."""
    own = prior.recordings[0].weights == model.weights_sha256
    return prior if own or not images else prior.encoded_again(model, images)


def track_frames(
    store: LabelStore, tracker: Tracker, video: LazyVideo, frames: Sequence[int], *, quiet: bool
) -> dict[str, Any]:
    """Track those of `frames` that the store lacks, and return how long it took."""
    from napari_samexp.tracking.run import track_into

    missing = set(store.missing(frames))
    forecast = _forecast(tracker, video, len(frames) - len(missing))
    done, total, expected = 0, len(missing), None
    began = last = time.monotonic()
    with interruptible() as interrupt, progress(one_line(video.name), "frames", quiet=quiet) as update:
        for done, _ in enumerate(track_into(store, tracker, video, frames), start=1):
            now = time.monotonic()
            forecast.observe(now - last)
            last, note = now, ""
            if done == ENOUGH and total > ENOUGH:
                left = forecast.left(total - done)
                expected = None if left is None else round(now - began + left, 3)
                note = _expectation(forecast, total, expected, str(tracker.model.device))
            update(done, total, note)
            if interrupt.requested:
                raise KeyboardInterrupt
    seconds = time.monotonic() - began
    return {
        "tracked": done,
        "seconds": round(seconds, 3),
        "expected_seconds": expected,  # after the first three frames
        "frames_per_s": round(done / seconds, 3),
    }


def _forecast(tracker: Tracker, video: LazyVideo, tracked: int) -> Forecast:
    height, width = video.shape[1:3]
    work = Work(tracker.model.variant, tracker.settings, (height, width), tracker.recorded)
    return Forecast(work, tracked)


def _expectation(forecast: Forecast, frames: int, seconds: float | None, device: str) -> str:
    """Return how long a run will take, in words; an empty text if it is short."""
    if seconds is None or seconds < SHORT_RUN_S:
        return ""
    work = forecast.work
    text = f"about {time_words(seconds)} for {frames} frames at {work.side}"
    side = proposed_side(forecast, work, frames, device)
    smaller = None if side is None else forecast.seconds(work.at(side), frames)
    return text if smaller is None else f"{text}; --side {side} would take about {time_words(smaller)}"


@contextmanager
def _resumable(store: LabelStore, frames: Sequence[int]) -> Iterator[None]:
    """Turn Ctrl-C in the block into `Stopped`, which says what is on disk and how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        done = f"{len(frames) - len(store.missing(frames))} of {len(frames)} frames"
        raise Stopped(
            f"Stopped: {done} are in {store.path}; the same command with --resume goes on."
        ) from None


def summary(store: LabelStore, frames: Sequence[int]) -> dict[str, Any]:
    """Return how many of `frames` are done, and for each label in how many it is lost and its mean scores."""
    scores_of = store.scores
    done = [scores_of[index] for index in frames if index in scores_of]
    return {
        "frames": len(frames),
        "done": len(done),
        "objects": {
            str(label): {
                "name": name,
                "lost": sum(scores[label].lost for scores in done),
                "presence": _mean([scores[label].presence for scores in done]),
                "iou": _mean([scores[label].iou for scores in done]),
            }
            for label, name in store.names.items()
        },
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def model_facts(model: Sam2) -> dict[str, str]:
    """Return what tracked: model, device and dtype."""
    return {
        "model": one_line(model.variant.name),
        "device": str(model.device),
        "dtype": model.compute_dtype,
    }


def text(facts: dict[str, Any]) -> str:
    """Return a run's facts as text for people."""
    before = facts["done"] - facts["tracked"]
    scores = [
        (label, entry["lost"], f"{entry['presence']:.2f}", f"{entry['iou']:.2f}", entry["name"])
        for label, entry in facts["objects"].items()
    ]
    speed = f"{facts['frames_per_s']:.3g} frames/s"
    lines = [
        f"{facts['tracked']} frames tracked in {facts['seconds']:.1f} s, {speed}",
        f"with {facts['model']} on {facts['device']}, {facts['dtype']}",
        *([f"{before} frames had been tracked before"] if before else []),
        "",
        *columns(("label", "frames lost", "mean presence", "mean IoU", "name"), scores),
        "",
        *(f"{name:<9}{one_line(facts[name])}" for name in ("labels", "scores", "overlay") if name in facts),
    ]
    return "\n".join(lines)
