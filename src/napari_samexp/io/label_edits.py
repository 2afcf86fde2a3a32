"""Labels for a viewer: readable while a run writes them, and painted by hand without conflicts with the run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import StoreError
from napari_samexp.io.atomic import (
    absolute_path,
    os_errors_as_store_errors,
    patiently,
    write_atomic,
)
from napari_samexp.io.chunk_files import labels_readable
from napari_samexp.io.guarded import NotOrdinaryError, read_whole
from napari_samexp.io.label_header import StoreHeader, require_there

__all__ = ["EditableLabels", "TooManyLabelsError", "edited_frames"]

MAX_REQUEST_BYTES = 2**30
_EDITED = "edited.json"
_MAX_BYTES = 256 * 2**20


class TooManyLabelsError(StoreError, MemoryError):
    """A request for more frames at once than may be in memory; also a `MemoryError`, from which napari recovers."""


def edited_frames(path: str | os.PathLike[str]) -> frozenset[int]:
    """Return the frames of a store that a person painted.

    Raises
    ------
    StoreError
        If the list of them in the store cannot be read.
    """
    file = Path(path) / _EDITED
    try:
        frames = json.loads(read_whole(file, _MAX_BYTES))["frames"]
        return frozenset(index for index in frames if type(index) is int and index >= 0)
    except FileNotFoundError:
        return frozenset()
    except NotOrdinaryError as error:
        raise StoreError(error, code=error.code) from error
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreError(
            f"{file} does not say which frames were painted ({error}); delete it to track all again."
        ) from None


class EditableLabels:
    """The labels of a store as a writable array (T, Y, X), as napari's Labels layer takes it.

    Painting needs no lock on the store, since each frame is a file of its own that is replaced atomically. A
    frame is noted as painted before it is written, and runs leave such frames alone.

    A run in another process that is just finishing a frame could overwrite a stroke on it. While `guarding` is
    set, strokes are therefore kept in memory until the run confirms that it leaves the frame alone
    (`settle`); `repair` writes them again.

    Parameters
    ----------
    path : path
        The store's folder.
    on_edit : callable, optional
        Called with the frames that will be painted for the first time.

    Attributes
    ----------
    guarding : bool
        Whether a run is writing to the store.
    """

    ndim = 3

    def __init__(
        self, path: str | os.PathLike[str], on_edit: Callable[[frozenset[int]], None] | None = None
    ) -> None:
        self._path = absolute_path(path)
        header = StoreHeader.read(self._path)
        self.shape = header.shape
        self.names = header.names
        self.dtype: np.dtype[Any] = np.dtype(header.dtype)
        self.guarding = False
        self._array = header.open_array(self._path, writable=True)
        self._on_edit = on_edit
        self._edited = edited_frames(self._path)
        self._unsettled: dict[int, npt.NDArray[Any] | None] = {}

    @property
    def path(self) -> Path:
        """The store's folder."""
        return self._path

    @property
    def size(self) -> int:
        """Number of values in all frames."""
        return math.prod(self.shape)

    @property
    def edited(self) -> frozenset[int]:
        """The frames that a person painted."""
        return self._edited

    def mark(self, frames: Collection[int]) -> None:
        """Note frames as painted, so that no run overwrites them."""
        new = frozenset(frames) - self._edited
        if new:
            self._note(self._edited | new)
            if self.guarding:
                self._unsettled |= dict.fromkeys(new)
            if self._on_edit is not None:
                self._on_edit(new)

    def unmark(self, frames: Collection[int]) -> None:
        """Let runs write these frames again; their labels stay until one does."""
        if not self._edited.isdisjoint(frames):
            self._note(self._edited - frozenset(frames))

    def settle(self, frames: Collection[int]) -> None:
        """Note that the run leaves these frames alone from now on."""
        for index in frames:
            self._unsettled.pop(index, None)

    def repair(self, index: int) -> bool:
        """Write a painted frame again if the run has just overwritten it; return whether it did."""
        painted = self._unsettled.get(index)
        if painted is not None:
            self._write(index, painted)
        return painted is not None

    def stop_guarding(self) -> None:
        """Write all painted frames again that a run may have overwritten, now that it has ended."""
        for index in list(self._unsettled):
            self.repair(index)
        self._unsettled.clear()
        self.guarding = False

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        frames = _frames_of(key, self.shape[0])
        nbytes = len(frames) * math.prod(self.shape[1:]) * self.dtype.itemsize
        if nbytes > MAX_REQUEST_BYTES:
            raise TooManyLabelsError(
                f"{len(frames)} frames of {self._path} take {nbytes / 2**30:.1f} GiB, more than may be read "
                "at once; read frame by frame."
            )
        with labels_readable(f"The labels in {self._path}"):
            return self._array[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        frames = _frames_of(key, self.shape[0])
        self.mark(frames)
        with labels_readable(f"The labels in {self._path}"):  # the unpainted pixels of the chunk
            self._write(key, value)
        for index in self._unsettled.keys() & frames:
            self._unsettled[index] = np.asarray(self._array[index])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("Labels have to be read from the disk, which copies; leave out copy=False.")
        return np.asarray(self[:], dtype)

    def _write(self, key: Any, value: Any) -> None:
        with os_errors_as_store_errors("paint labels in", self._path):
            require_there(self._path)
            patiently(lambda: self._array.__setitem__(key, value))

    def _note(self, edited: frozenset[int]) -> None:
        text = json.dumps({"frames": sorted(edited)})
        with os_errors_as_store_errors("note painted frames in", self._path):
            # a viewer cannot wait for the disk at each stroke, and a power failure loses the stroke as well
            write_atomic(self._path / _EDITED, text.encode(), durable=False)
        self._edited = edited


def _frames_of(key: Any, count: int) -> Collection[int]:
    """Return the frames that a numpy key selects."""
    first = key[0] if isinstance(key, tuple) and key else key
    if first is Ellipsis or isinstance(first, tuple):
        return range(count)
    if isinstance(first, slice):
        return range(*first.indices(count))
    numbers = np.asarray(first)
    if numbers.dtype == np.bool_:
        numbers = np.flatnonzero(numbers.reshape(len(numbers), -1).any(axis=1))
    frames = {int(index) for index in np.unique(numbers)}
    if any(not -count <= index < count for index in frames):
        raise IndexError(f"there are frames 0 to {count - 1}, not {max(frames, key=abs)}")
    return {index % count for index in frames}
