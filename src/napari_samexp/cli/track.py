"""``napari-samexp track``: a prior's objects in a video become labels on disk."""

from __future__ import annotations

import json as to_json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import typer

from napari_samexp._text import one_line
from napari_samexp.cli.arguments import (
    DEFAULTS,
    Device,
    Dtype,
    Graphs,
    Json,
    KeepAspect,
    Sha256,
    Side,
    frame_numbers,
    frame_slice,
    knob,
    require_one_of,
)  # fmt: skip
from napari_samexp.cli.models import load, name_for, pinned
from napari_samexp.cli.outputs import Outputs
from napari_samexp.cli.progress import Stopped, interruptible, progress
from napari_samexp.cli.tables import columns
from napari_samexp.errors import SettingsError
from napari_samexp.tracking.forecast import ENOUGH, Forecast, Work, proposed_side, time_words
from napari_samexp.tracking.settings import TrackSettings

if TYPE_CHECKING:
    from napari_samexp.io.labels import LabelStore
    from napari_samexp.io.video import LazyVideo
    from napari_samexp.sam.models import Sam2
    from napari_samexp.tracking.prior import PriorMemory
    from napari_samexp.tracking.tracker import Tracker

__all__ = ["model_facts", "summary", "text", "track", "track_frames"]

WORTH_SAYING_S = 20.0


def track(
    video: Annotated[
        Path,
        typer.Argument(
            metavar="VIDEO", help="A video file, a folder of images, or a TIFF stack.", show_default=False
        ),
    ],
    prior: Annotated[Path, typer.Option(metavar="PRIOR", help="What `record` wrote.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(metavar="LABELS", help="The labels, a new zarr folder (T, Y, X).", show_default=False),
    ],
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A model's name or path; by default the one that made the prior."),
    ] = None,
    sha256: Sha256 = None,
    frames: Annotated[
        str | None,
        typer.Option(metavar="A:B", help="Frames A to B - 1; negative numbers count from the end."),
    ] = None,
    side: Side = None,
    keep_aspect: KeepAspect = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    graphs: Graphs = False,
    recent: Annotated[int, knob("recent", "--recent")] = DEFAULTS.recent,
    pointers: Annotated[int, knob("pointers", "--pointers")] = DEFAULTS.pointers,
    prior_time: Annotated[Literal["fixed", "elapsed"], knob("prior_time", "--prior-time")] = "fixed",
    memories: Annotated[bool, knob("store_memories", "--memories/--no-memories")] = True,
    keep_lost: Annotated[bool, knob("keep_lost", "--keep-lost")] = False,
    backward: Annotated[bool, knob("direction", "--backward/--forward")] = False,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="IMAGE", help="A recorded image, to use the prior with another model; repeat."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the same run was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the label store.")] = False,
    scores: Annotated[
        Path | None,
        typer.Option(metavar="S.csv", help="Also write presence and IoU of each frame, a CSV file."),
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(metavar="O.mp4", help="Also write the video with its labels, an MP4 file.")
    ] = None,
    json: Json = False,
) -> None:
    """Find a prior's objects in a video that was never prompted.

    Each finished frame is on disk at once: after Ctrl-C or a kill, the same command with --resume goes on.
    """
    require_one_of("--resume", "--overwrite", resume and overwrite)
    if sha256 is not None and model is None:
        raise SettingsError("--sha256 says what the file of --model must be; give both.")
    model = None if model is None else pinned(model, sha256)
    wanted = frame_slice(frames)
    settings = TrackSettings(
        recent=recent, pointers=pointers, store_memories=memories, keep_lost=keep_lost, side=side,
        square=not keep_aspect, prior_time=prior_time, direction="backward" if backward else "forward",
    )  # fmt: skip
    outputs = Outputs(out, scores, overlay)
    inputs = {"the prior": prior} | ({} if model is None else {"the weights": Path(model)})
    inputs |= {f"the image {reference}": _file_of(reference) for reference in image or ()}
    outputs.check(video, inputs, resume=resume, overwrite=overwrite)

    from napari_samexp.io.video import open_video
    from napari_samexp.tracking.prior import PriorMemory
    from napari_samexp.tracking.run import open_store
    from napari_samexp.tracking.tracker import Tracker

    recorded = PriorMemory.load(prior)
    # frames are read once and in order; only the other way round, a group of images has to be kept
    kept = 2**28 if backward else 2**26
    with open_video(video, cache_bytes=kept) as source:
        chosen = frame_numbers(wanted, len(source), backward=backward)
        name = name_for(recorded, model, again=bool(image))
        images = _images(image or ())
        ready = load(name, device=device, dtype=dtype, graphs=graphs, quiet=json)
        usable = _usable(recorded, ready, images)
        tracker = Tracker(ready, usable, settings)  # the last to find fault before anything is written
        with open_store(out, ready, usable, settings, source, resume=resume, overwrite=overwrite) as store:
            with _kept(store, chosen):
                facts = track_frames(store, tracker, source, chosen, quiet=json)
                outputs.write(store, source, chosen, quiet=json)
            facts |= summary(store, chosen) | model_facts(ready) | outputs.paths
    typer.echo(to_json.dumps(facts, indent=1) if json else text(facts))


def _file_of(reference: str) -> Path:
    """Return the image or the video of ``VIDEO@FRAME``."""
    path = Path(reference)
    return path if path.exists() else Path(reference.rpartition("@")[0] or reference)


def _images(references: Sequence[str]) -> dict[str, npt.NDArray[np.uint8]]:
    """Return the recorded images by their hash, so that their names do not matter."""
    from napari_samexp.io.video import read_frame
    from napari_samexp.tracking.recording import image_hash

    return {image_hash(image): image for image in map(read_frame, references)}


def _usable(prior: PriorMemory, model: Sam2, images: Mapping[str, npt.NDArray[np.uint8]]) -> PriorMemory:
    """Return the prior for this model, encoded again from the images if another one made it."""
    own = prior.recordings[0].weights == model.weights_sha256
    return prior if own or not images else prior.encoded_again(model, images)


def track_frames(
    store: LabelStore, tracker: Tracker, video: LazyVideo, frames: Sequence[int], *, quiet: bool
) -> dict[str, Any]:
    """Track what the store lacks of `frames`, and return how long it took."""
    from napari_samexp.tracking.run import track_into

    missing = set(store.missing(frames))
    forecast = _forecast(tracker, video, len(frames) - len(missing))
    done, total, began = 0, len(missing), time.monotonic()
    last, expected = began, None
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
            if interrupt.asked:
                raise KeyboardInterrupt
    seconds = time.monotonic() - began
    return {
        "tracked": done,
        "seconds": round(seconds, 3),
        "expected_seconds": expected,  # after the first three frames
        "frames_per_s": round(done / seconds, 3),
    }


def _forecast(tracker: Tracker, video: LazyVideo, seen: int) -> Forecast:
    height, width = video.shape[1:3]
    work = Work(tracker.model.variant, tracker.settings, (height, width), tracker.recorded)
    return Forecast(work, seen)


def _expectation(forecast: Forecast, frames: int, seconds: float | None, device: str) -> str:
    """Return what a run takes, in words; nothing if that is soon over."""
    if seconds is None or seconds < WORTH_SAYING_S:
        return ""
    work = forecast.work
    text = f"about {time_words(seconds)} for {frames} frames at {work.side}"
    side = proposed_side(forecast, work, frames, device)
    smaller = None if side is None else forecast.seconds(work.at(side), frames)
    return text if smaller is None else f"{text}; --side {side} would take about {time_words(smaller)}"


@contextmanager
def _kept(store: LabelStore, frames: Sequence[int]) -> Iterator[None]:
    """Turn Ctrl-C in the block into `Stopped`, with what was kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        done = f"{len(frames) - len(store.missing(frames))} of {len(frames)} frames"
        raise Stopped(
            f"Stopped: {done} are in {store.path}; the same command with --resume goes on."
        ) from None


def summary(store: LabelStore, frames: Sequence[int]) -> dict[str, Any]:
    """Return how many of `frames` are done, and for each label in how many it is lost and its mean scores."""
    every = store.scores
    done = [every[index] for index in frames if index in every]
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
    """Return what tracked."""
    return {
        "model": one_line(model.variant.name),
        "device": str(model.device),
        "dtype": model.compute_dtype,
    }


def text(facts: dict[str, Any]) -> str:
    """Return what a run's facts say, for people."""
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
