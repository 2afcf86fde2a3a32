"""Labels of a tracking run on disk: finished frames survive a kill, and the run resumes where it stopped."""

from __future__ import annotations

import operator
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import zarr

from napari_samexp.errors import StoreError
from napari_samexp.io import frame_memory
from napari_samexp.io.atomic import absolute_path, os_errors_as_store_errors, patiently, remove_partials, sync
from napari_samexp.io.chunk_files import labels_readable
from napari_samexp.io.frame_memory import FrameMemory
from napari_samexp.io.guarded import require_ordinary
from napari_samexp.io.label_header import StoreHeader, require_replaceable, require_there
from napari_samexp.io.lock import StoreLock, swap_was_interrupted
from napari_samexp.io.score_journal import ScoreJournal
from napari_samexp.io.store_files import MEMORY
from napari_samexp.types import FrameResult, ObjectScore, RunIdentity

__all__ = ["LabelStore"]


class LabelStore:
    """The labels that one tracking run gave one video, in a folder that is also a zarr array (T, Y, X).

    Made by `create` or `open`, which can also be used as context managers. One process may write at a
    time; any number may read. The folder holds::

        zarr.json    the array; its attribute "napari_samexp" has the version, labels and identity
        c.7.0.0      the labels of frame 7, zstd; absent if all are 0
        scores.jsonl one line for each finished frame, see `ScoreJournal`
        memory/      what the tracker needs to resume, see `save_memory`
    """

    def __init__(self, path: Path, lock: StoreLock | None) -> None:
        self._path = path
        self._lock = lock
        self._header = StoreHeader.read(path)
        self._array = self._header.open_array(path, writable=lock is not None)
        if lock is not None:
            with os_errors_as_store_errors("tidy up", path):
                remove_partials(path)
                remove_partials(path / MEMORY)
                require_ordinary(path / "scores.jsonl", "file", alone=True)
        self._journal = ScoreJournal(path / "scores.jsonl", self.shape[0], self.labels)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        shape: Sequence[int],
        labels: Sequence[int] | Mapping[int, str],
        identity: RunIdentity,
        details: Mapping[str, Any] = MappingProxyType({}),
        overwrite: bool = False,
    ) -> LabelStore:
        """Make an empty store and open it for writing.

        Parameters
        ----------
        path : path
            The new folder; missing parents are created.
        shape : sequence of int
            (T, Y, X) of the video.
        labels : sequence of int, or mapping of int to str
            Every label that frames can have, 1 to 65535; a mapping also gives the objects' names.
        identity : RunIdentity
            What the run is made from; compared by `open`.
        details : mapping, optional
            Anything else to keep that JSON can hold.
        overwrite : bool
            Whether to replace a label store at `path`, once the new one is complete. Other files and
            folders are never replaced.

        Raises
        ------
        StoreError
            If `path` exists and may not be replaced, another process writes it, the disk refuses, or an
            argument is out of range; nothing is changed then.
        """
        header = StoreHeader.of(shape, labels, identity, details)
        folder = absolute_path(path)
        require_replaceable(folder, overwrite)
        lock = StoreLock(folder)
        try:
            require_replaceable(folder, overwrite)  # again, now that we hold the lock
            with os_errors_as_store_errors("create the label store", folder):
                patiently(lambda: header.build(lock.building))
                ScoreJournal.start(lock.building / "scores.jsonl")
                sync(lock.building / "zarr.json")
                lock.install()
            return cls(folder, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        identity: RunIdentity | None = None,
        mode: Literal["a", "r"] = "a",
    ) -> LabelStore:
        """Open a store to continue writing, or to read while another process may be writing.

        Parameters
        ----------
        path : path
            The store's folder.
        identity : RunIdentity, optional
            The run to continue; the store must be of the same one.
        mode : {"a", "r"}
            "a" to read and write, "r" to read. A reader sees new labels at once, but `done` and the
            scores are those of the moment it was opened.

        Raises
        ------
        StoreError
            If there is no store, it is damaged or of another run, or another process writes it.
        """
        if mode not in ("a", "r"):
            raise StoreError(f"A label store has no mode {mode!r}; use 'a' to write or 'r' to read.")
        folder = absolute_path(path)
        if swap_was_interrupted(folder):
            StoreLock(folder).release()
        StoreHeader.read(folder, identity)
        if mode == "r":
            return cls(folder, None)
        lock = StoreLock(folder)
        try:
            StoreHeader.read(folder, identity)  # again, now that we hold the lock
            return cls(folder, lock)
        except BaseException:
            lock.release()
            raise

    def write(self, result: FrameResult) -> None:
        """Write a frame's labels, then its scores and its done flag.

        A frame that is flagged as done has its own labels and scores, whenever the process is killed.

        Parameters
        ----------
        result : FrameResult
            Labels (Y, X) uint16 with no values but 0 and the store's labels, and a finite score for each
            label. A frame that is done already is replaced.

        Raises
        ------
        StoreError
            If the result does not fit the store, and nothing is written; or if the disk refuses, and the
            frame is not done; other frames are unchanged.
        """
        self._require_writer()
        index = self._index(result.index)
        self._header.require_labels(result.labels, index, self._path)
        self._journal.require_complete(index, result.scores)
        if self._journal.done[index]:
            self.forget([index])  # else a kill before the scores would leave new labels with old scores
        with os_errors_as_store_errors(f"write frame {index} to", self._path):
            require_there(self._path)
            labels = result.labels.astype(self._header.dtype)
            patiently(lambda: self._array.__setitem__(index, labels))
            self._sync_chunk(index)
            self._journal.record(index, result.scores)

    def forget(self, frames: Iterable[int]) -> None:
        """Flag frames as not done, so that they are tracked again; their labels stay until then."""
        self._require_writer()
        indices = [self._index(index) for index in frames]
        if indices:
            with os_errors_as_store_errors("write scores to", self._path):
                self._journal.forget(indices)

    def missing(self, frames: Iterable[int] | None = None) -> list[int]:
        """Return which of `frames` (by default, of all) are not done, in order."""
        if frames is None:
            return [int(index) for index in np.flatnonzero(~self._journal.done)]
        return [index for index in map(self._index, frames) if not self._journal.done[index]]

    def frame(self, index: int) -> npt.NDArray[Any]:
        """Return the labels of a frame, (Y, X) uint8 or uint16; all 0 if it was never written.

        Raises
        ------
        StoreError
            If there is no such frame, or its file cannot be read or is damaged.
        """
        index = self._index(index)
        with labels_readable(f"The labels of frame {index} in {self._path}"):
            return np.asarray(self._array[index])

    def write_scores_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV table of all done frames: frame, label, name, presence, iou, lost (true or false)."""
        self._journal.write_csv(absolute_path(path), self._header.names)

    def save_memory(
        self, index: int, arrays: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, str]
    ) -> None:
        """Save the tracker's memory of a frame, before `write`, for resuming; see `frame_memory.save_memory`."""
        self._require_writer()
        frame_memory.save_memory(self._path / MEMORY, self._index(index), arrays, meta)

    def load_memories(self, frames: Collection[int] | None = None) -> dict[int, FrameMemory]:
        """Return the saved memories by frame, or only those of `frames`; see `frame_memory.load_memories`."""
        return frame_memory.load_memories(self._path / MEMORY, frames)

    def prune_memories(self, keep: Collection[int]) -> None:
        """Delete the saved memories of all frames except `keep`."""
        self._require_writer()
        frame_memory.prune_memories(self._path / MEMORY, keep)

    def close(self) -> None:
        """Release the lock, so that others can write; reading still works."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The store's folder."""
        return self._path

    @property
    def array(self) -> zarr.Array[Any]:
        """The labels as a zarr array, (T, Y, X) uint8 or uint16, one frame a chunk; for napari's Labels layer."""
        return self._array

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, Y, X)."""
        return self._header.shape

    @property
    def labels(self) -> tuple[int, ...]:
        """Every label that frames can have, except 0."""
        return tuple(self._header.names)

    @property
    def names(self) -> dict[int, str]:
        """The objects' names by label."""
        return dict(self._header.names)

    @property
    def identity(self) -> RunIdentity:
        """What the run was made from."""
        return self._header.identity

    @property
    def details(self) -> dict[str, Any]:
        """The `details` given to `create`."""
        return dict(self._header.details)

    @property
    def done(self) -> npt.NDArray[np.bool_]:
        """Which frames are finished, (T,) bool, a copy."""
        return self._journal.done.copy()

    @property
    def scores(self) -> dict[int, dict[int, ObjectScore]]:
        """The scores of each finished frame by label; a new dict each time."""
        return dict(self._journal.scores())

    def _require_writer(self) -> None:
        if self._lock is None:
            raise StoreError(f"The label store {self._path} is not open for writing; open it with mode 'a'.")

    def _index(self, index: int) -> int:
        try:
            number = operator.index(index)
        except TypeError:
            number = -1
        if not 0 <= number < self.shape[0]:
            raise StoreError(f"{self._path} has no frame {index!r}; its frames are 0 to {self.shape[0] - 1}.")
        return number

    def _sync_chunk(self, index: int) -> None:
        # zarr leaves to the system when the file reaches the disk, and the done flag must not be there first
        chunk = self._path / f"c.{index}.0.0"
        if chunk.exists():
            sync(chunk)
        sync(self._path)
