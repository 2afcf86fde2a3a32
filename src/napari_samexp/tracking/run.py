"""A tracking run into a label store: stopping it at any moment loses no finished frame, and it can be resumed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_samexp.errors import PriorError, StoreError
from napari_samexp.io.atomic import os_errors_as_store_errors
from napari_samexp.io.guarded import require_ordinary
from napari_samexp.io.labels import LabelStore
from napari_samexp.sam.features import Memory
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.tracking.prefetch import Prefetcher
from napari_samexp.tracking.prior import PriorMemory
from napari_samexp.tracking.recording import Recording
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.tracking.tracker import Tracker
from napari_samexp.types import FrameResult, RunIdentity, VideoSource

__all__ = ["Run", "add_to_run", "identity_of", "open_store", "run_prior", "track_into"]

# in the store's folder: the prior the run started with, and what was recorded during the run
_PRIOR, _ADDED = "prior.safetensors", "added.safetensors"


def identity_of(model: Sam2, prior: PriorMemory, settings: TrackSettings, video: VideoSource) -> RunIdentity:
    """Return the identity of a run; the direction is not part of it, so a store may be filled from both ends."""
    values = json.loads(settings.to_json())
    del values["direction"]
    return RunIdentity(
        video=video.fingerprint,
        prior=prior.fingerprint,
        model=f"{model.variant.name} {model.weights_sha256} {model.compute_dtype}",
        settings=json.dumps(values, sort_keys=True),
    )


def open_store(
    path: str | Path,
    model: Sam2,
    prior: PriorMemory,
    settings: TrackSettings,
    video: VideoSource,
    *,
    resume: bool = False,
    overwrite: bool = False,
    details: Mapping[str, Any] = MappingProxyType({}),
) -> LabelStore:
    """Return a store for a run, open for writing: a new one, or with `resume` that of the same run.

    Parameters
    ----------
    path : path
        The store's folder.
    model, prior, settings, video : Sam2, PriorMemory, TrackSettings, VideoSource
        The inputs of the run, which the store notes.
    resume : bool
        Whether to continue a store that exists; without one, a new one is created.
    overwrite : bool
        Whether to replace a store that exists.
    details : mapping
        More to keep in a new store, besides the settings and the video's name.

    Raises
    ------
    StoreError
        If there is a store already and neither `resume` nor `overwrite` is given, it is of another run, or it
        cannot be written.
    """
    identity = identity_of(model, prior, settings, video)
    if resume and Path(path).exists():
        return _resumed(LabelStore.open(path, identity=identity), video)
    store = LabelStore.create(
        path,
        shape=video.shape[:3],
        labels=prior.names,
        identity=identity,
        details={"settings": json.loads(settings.to_json()), "video": getattr(video, "name", ""), **details},
        overwrite=overwrite,
    )
    try:
        prior.save(store.path / _PRIOR)
    except BaseException:
        store.close()
        raise
    return store


def _resumed(store: LabelStore, video: VideoSource) -> LabelStore:
    """Return the store if it has the video's size; its identity says so, unless the header is damaged."""
    if store.shape != tuple(video.shape[:3]):
        store.close()
        raise StoreError(
            f"The label store {store.path} has the shape {store.shape} (frames, height, width) but the video "
            f"{tuple(video.shape[:3])}: its header is damaged. Track into a new store.",
            code="labels-of-another-run",
        )
    return store


def run_prior(path: str | Path) -> PriorMemory | None:
    """Return the prior that the run of a store started with, or None if the store has none.

    Raises
    ------
    PriorError
        If the store's prior is damaged.
    """
    return _load_existing(Path(path) / _PRIOR)


def track_into(
    store: LabelStore, tracker: Tracker, video: VideoSource, frames: Sequence[int]
) -> Iterator[FrameResult]:
    """Track those of `frames` that are missing in a store, and yield each result once it is on disk.

    Parameters
    ----------
    store : LabelStore
        From `open_store`, with the same model, prior, settings and video.
    tracker : Tracker
    video : VideoSource
    frames : sequence of int
        All frames of the run in the order of tracking, also those that an earlier part of it has finished.

    Raises
    ------
    VideoError
        If a frame cannot be read.
    StoreError
        If the disk refuses.
    """
    yield from Run(store, tracker, video, frames)


class Run:
    """A run over the frames missing in a store; iterating tracks them and yields each result once it is on disk.

    Memory is written first, then labels, then scores and the done flag, so a killed run resumes as if it had
    not been stopped. Frames that are done already are not tracked again.

    Parameters
    ----------
    store, tracker, video : LabelStore, Tracker, VideoSource
    frames : sequence of int
        All frames of the run in the order of tracking, also those that an earlier part of it has finished.
    keep : collection of int
        Frames to leave alone, such as those that a person painted.

    Attributes
    ----------
    keep : set of int
        Frames may be added between two steps.
    todo : list of int
        The frames to track, without those in `keep` when the run was created.
    """

    def __init__(
        self,
        store: LabelStore,
        tracker: Tracker,
        video: VideoSource,
        frames: Sequence[int],
        keep: Collection[int] = (),
    ) -> None:
        self._store, self._tracker, self._video = store, tracker, video
        self.keep = set(keep)
        missing = set(store.missing(frames)) - self.keep
        self.todo = [index for index in frames if index in missing]
        self._others: set[int] = set()
        if self.todo:
            # two runs in both directions from one frame must not see or remove each other's memories
            self._name = f"{frames[0]} backward" if frames[-1] < frames[0] else str(frames[0])
            self._restore(frames[0], frames[: list(frames).index(self.todo[0])])

    def __iter__(self) -> Iterator[FrameResult]:
        with Prefetcher(self._video) as prefetcher:
            for place, index in enumerate(self.todo):
                if index not in self.keep:
                    following = (i for i in islice(self.todo, place + 1, None) if i not in self.keep)
                    yield self._step(index, prefetcher.frame(index, next(following, None)))

    def reset_recent(self) -> None:
        """Remove all recent memories, also on disk; the next frame attends to the prior only."""
        self._tracker.reset_recent()
        self._store.prune_memories(self._others)

    def remember(self, recording: Recording, memory: Memory) -> None:
        """Add a memory to the prior for the rest of the run, also after it is resumed.

        Raises
        ------
        PriorError
            If the run does not track the recording's label, or the disk refuses.
        """
        if add_to_run(self._store, recording, memory):
            self._tracker.add_prior(recording.label, memory)

    def _step(self, index: int, frame: npt.NDArray[np.uint8]) -> FrameResult:
        result = self._tracker.step(frame, index)
        if self._tracker.last_memories:
            self._store.save_memory(index, _to_arrays(self._tracker.last_memories), {"run": self._name})
        self._store.write(result)
        self._others.discard(index)
        self._store.prune_memories(self._tracker.remembered | self._others)
        return result

    def _restore(self, first: int, done: Sequence[int]) -> None:
        """Restore the tracker's state after the frames `done`, and note which memories other runs need."""
        saved = self._store.load_memories()
        own = {
            index: _from_arrays(index, arrays)
            for index, (arrays, meta) in saved.items()
            if meta.get("run") == self._name
        }
        known = [index for index in done if index in own]
        self._tracker.restore(first, own, known)
        for recording, memory in _pairs(_load_existing(self._store.path / _ADDED)):
            self._tracker.add_prior(recording.label, memory)
        self._others = set(saved) - set(known)  # also of later frames that were done before


def add_to_run(store: LabelStore, recording: Recording, memory: Memory) -> bool:
    """Save one more memory for a store's run; return False if the run has it already.

    Raises
    ------
    PriorError
        If the run does not track the recording's label, or the disk refuses.
    """
    if recording.label not in store.labels:
        known = ", ".join(map(str, store.labels))
        raise PriorError(
            f"This run tracks the labels {known} and not {recording.label}; start a new run to add it."
        )
    path = store.path / _ADDED
    added = _load_existing(path) or PriorMemory()
    for other, known_memory in _pairs(added):
        if other.label == recording.label and torch.equal(known_memory.spatial, memory.spatial.cpu()):
            return False
    added.with_recording(recording, memory).save(path)
    return True


def _load_existing(path: Path) -> PriorMemory | None:
    """Return the prior in a file of a store, or None if there is no such file."""
    with os_errors_as_store_errors("read", path):
        exists = require_ordinary(path, "file")
    return PriorMemory.load(path) if exists else None


def _pairs(prior: PriorMemory | None) -> list[tuple[Recording, Memory]]:
    return [] if prior is None else list(zip(prior.recordings, prior.memories))


def _to_arrays(memories: Mapping[int, Memory]) -> dict[str, npt.NDArray[np.float32]]:
    # float32 represents every bfloat16 and float16 value exactly, and numpy has no bfloat16
    return {
        f"{label}.{part}": getattr(memory, part).float().cpu().numpy()
        for label, memory in memories.items()
        for part in ("spatial", "pointer")
    }


def _from_arrays(index: int, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[int, Memory]:
    try:
        labels = sorted({int(key.split(".")[0]) for key in arrays})
        return {
            label: Memory(
                torch.from_numpy(arrays[f"{label}.spatial"]), torch.from_numpy(arrays[f"{label}.pointer"])
            )
            for label in labels
        }
    except (KeyError, ValueError, TypeError) as error:
        raise StoreError(
            f"The stored memory of frame {index} is damaged ({error}); start the run again with overwrite."
        ) from None
