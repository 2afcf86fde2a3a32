"""A run: a tracker, a video and a label store, so that a stop at any moment loses no finished frame."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from napari_samexp.io.labels import LabelStore
from napari_samexp.sam.features import Memory
from napari_samexp.sam.models import Sam2
from napari_samexp.tracking.prior import PriorMemory
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.tracking.tracker import Tracker
from napari_samexp.types import FrameResult, RunIdentity, StoreError, VideoSource

__all__ = ["identity_of", "open_store", "track_into"]


def identity_of(model: Sam2, prior: PriorMemory, settings: TrackSettings, video: VideoSource) -> RunIdentity:
    """Return what tells this run from others. The direction is no part: a store may be filled from both ends."""
    values = json.loads(settings.to_json())
    del values["direction"]
    return RunIdentity(
        video=video.fingerprint,
        prior=prior.fingerprint,
        model=f"{model.variant.name} {model.weights_sha256} {str(model.dtype).removeprefix('torch.')}",
        settings=json.dumps(values, sort_keys=True),
    )


def open_store(
    path: str | Path, model: Sam2, prior: PriorMemory, settings: TrackSettings, video: VideoSource,
    *, resume: bool = False, overwrite: bool = False,
) -> LabelStore:  # fmt: skip
    """Return a store for a run: a new one, or with `resume` the one that the same run left.

    Raises
    ------
    StoreError
        If there is a store already and neither `resume` nor `overwrite` is given, or it is of another run.
    """
    identity = identity_of(model, prior, settings, video)
    if resume and Path(path).exists():
        return LabelStore.open(path, identity=identity)
    return LabelStore.create(
        path,
        shape=video.shape[:3],
        labels=prior.names,
        identity=identity,
        details={"settings": json.loads(settings.to_json()), "video": getattr(video, "name", "")},
        overwrite=overwrite,
    )


def track_into(store: LabelStore, tracker: Tracker, video: VideoSource, frames: Sequence[int]) -> Iterator[FrameResult]:
    """Track those of `frames` that the store lacks, and yield each result once it is safe on disk.

    The order on disk is memory, labels, scores and flag; so what a killed run left continues as if
    it had not been stopped. Frames that are done already are neither tracked nor remembered anew.

    Parameters
    ----------
    frames : sequence of int
        All frames of the run in their order, also those that an earlier part of it has finished.
    """
    missing = set(store.missing(frames))
    todo = [index for index in frames if index in missing]
    if not todo:
        return
    done = frames[: list(frames).index(todo[0])]
    run = str(frames[0])
    others = _restore(store, tracker, run, done)
    for index in todo:
        result = tracker.step(video.frame(index), index)
        if tracker.last_memories:
            store.save_memory(index, _to_arrays(tracker.last_memories), {"run": run})
        store.write(result)
        store.prune_memories(tracker.remembered | others)
        yield result


def _restore(store: LabelStore, tracker: Tracker, run: str, done: Sequence[int]) -> set[int]:
    """Give the tracker the memories of the frames `done`; return the frames that other runs still need."""
    saved = store.load_memories()
    own = {index: _from_arrays(index, arrays) for index, (arrays, meta) in saved.items() if meta.get("run") == run}
    tracker.restore(int(run), own, [index for index in done if index in own])
    return set(saved) - set(own)


def _to_arrays(memories: dict[int, Memory]) -> dict[str, object]:
    # float32 holds every bfloat16 and float16 number exactly, and numpy has no bfloat16
    return {
        f"{label}.{part}": getattr(memory, part).float().cpu().numpy()
        for label, memory in memories.items()
        for part in ("spatial", "pointer")
    }


def _from_arrays(index: int, arrays: dict[str, object]) -> dict[int, Memory]:
    try:
        labels = sorted({int(key.split(".")[0]) for key in arrays})
        return {
            label: Memory(torch.from_numpy(arrays[f"{label}.spatial"]), torch.from_numpy(arrays[f"{label}.pointer"]))
            for label in labels
        }
    except (KeyError, ValueError, TypeError) as error:
        raise StoreError(f"The stored memory of frame {index} is damaged ({error}); start the run again with overwrite.") from None
