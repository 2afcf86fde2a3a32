"""Labels of any origin, read frame by frame: label stores, TIFF stacks, DAVIS folders, zarr and other arrays."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import ImageError, StoreError
from napari_samexp.io._paths import existing_path, files_of_folder, readable_file
from napari_samexp.io.chunk_files import ChunkFiles, labels_readable, require_plain_codecs
from napari_samexp.io.guarded import kind_at
from napari_samexp.io.image import opened_image
from napari_samexp.io.label_edits import edited_frames
from napari_samexp.io.labels import LabelStore
from napari_samexp.types import ObjectScore

__all__ = ["Masks", "array_masks", "open_masks", "store_masks"]

_EXPECTED = "a label store, a TIFF stack, a folder of PNG masks, a zarr array or a single mask image"
MAX_FRAME_BYTES = 2**30
_MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")

Labels = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """Labels (T, Y, X), read frame by frame on request.

    Parameters
    ----------
    shape : (int, int, int)
        (T, Y, X).
    read : callable
        From the index of a frame to its labels, (Y, X) integers.
    names : dict of int to str
        The labels that are known without reading, and their names.
    scores : mapping of int to dict of int to ObjectScore, or None
        The model's scores of each finished frame, by label; None if there are no scores.
    edited : callable
        Returns the frames that a person painted, whose labels are not the model's. A function, since it
        reads a file that is needed for nothing else.
    """

    shape: tuple[int, int, int]
    read: Callable[[int], Labels]
    names: Mapping[int, str] = field(default_factory=dict)
    scores: Mapping[int, Mapping[int, ObjectScore]] | None = None
    edited: Callable[[], frozenset[int]] = frozenset

    @property
    def frames(self) -> list[int]:
        """The frames that have labels: those that a run has finished, or all."""
        return list(range(self.shape[0])) if self.scores is None else sorted(self.scores)

    def frame(self, index: int) -> Labels:
        """Return the labels of a frame, (Y, X) integers."""
        return self.read(index)

    def __getitem__(self, index: int) -> Labels:
        return self.read(index)


@contextmanager
def open_masks(path: str | os.PathLike[str]) -> Iterator[Masks]:
    """Open labels for reading.

    Parameters
    ----------
    path : path
        A label store; a TIFF with one page for each frame; a folder of PNG files whose palette indices (DAVIS)
        or gray values are the labels; a zarr array (T, Y, X); or one image, for a single frame.

    Raises
    ------
    StoreError
        If it is none of these, or damaged.
    """
    found = existing_path(path, StoreError, _EXPECTED)
    if found.is_dir() and not (found / "zarr.json").exists() and not (found / ".zarray").exists():
        yield _folder(found)
    elif found.is_dir():
        with _opened_zarr(found) as masks:
            yield masks
    else:
        readable_file(found, StoreError, _EXPECTED)
        with _opened_file(found) as masks:
            yield masks


def store_masks(store: LabelStore) -> Masks:
    """Return the labels and scores of an open store."""
    return Masks(store.shape, store.frame, store.names, store.scores, partial(edited_frames, store.path))


def array_masks(array: Any, name: str = "an array") -> Masks:
    """Return the labels in an array-like (T, Y, X), or (Y, X) for one frame.

    Raises
    ------
    StoreError
        If it has another number of axes, or another dtype than integers or bool.
    """
    if not all(hasattr(array, attribute) for attribute in ("shape", "dtype", "__getitem__")):
        raise StoreError(
            f"The labels are a {type(array).__name__}; expected an array (T, Y, X) of whole numbers."
        )
    shape = tuple(int(n) for n in array.shape)
    if len(shape) not in (2, 3) or np.dtype(array.dtype).kind not in "bui":
        raise StoreError(
            f"The labels are {shape} {array.dtype}; expected whole numbers of shape (T, Y, X) or (Y, X)."
        )
    if 0 in shape:
        raise StoreError(
            f"The labels of shape {shape} are empty; give some with at least one frame and pixel."
        )
    if (nbytes := math.prod(shape[-2:]) * np.dtype(array.dtype).itemsize) > MAX_FRAME_BYTES:
        raise StoreError(
            f"A frame of the labels takes {nbytes / 2**30:.1f} GiB, more than can be read at once."
        )

    def read(index: int) -> Labels:
        with labels_readable(f"The labels of frame {index} of {name}"):
            return np.asarray(array[index] if len(shape) == 3 else array[:])

    return Masks((1, *shape) if len(shape) == 2 else (shape[0], shape[1], shape[2]), read)


@contextmanager
def _opened_zarr(path: Path) -> Iterator[Masks]:
    import zarr

    # files of another program's array may be links, as in data archives; those of a store may not
    if kind_at(path / "zarr.json") == "file" or os.path.lexists(path / "scores.jsonl"):
        try:
            with LabelStore.open(path, mode="r") as store:
                yield store_masks(store)
                return
        except StoreError as error:
            if "is not a label store" not in str(error):
                raise
    require_plain_codecs(path)
    files = ChunkFiles(path, read_only=True)
    try:
        node = zarr.open(files, mode="r")
        array: Any = node if isinstance(node, zarr.Array) else node["0"]  # the full size of an OME-Zarr
        files.chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize
    except Exception as error:  # zarr raises many kinds
        raise StoreError(f"{path} is no zarr array that can be read; give {_EXPECTED}.") from error
    yield array_masks(array, str(path))


@contextmanager
def _opened_file(path: Path) -> Iterator[Masks]:
    from contextlib import closing

    from napari_samexp.io._tiff import TiffStack, is_tiff

    if not is_tiff(path):
        image = _image(path)
        yield Masks((1, *image.shape), lambda index: image)
        return
    try:
        stack = TiffStack(path)
    except ImageError as error:
        raise StoreError(f"The labels cannot be read: {error}") from error
    with closing(stack):
        if len(stack.frame_shape) != 2:
            raise StoreError(f"{path} holds colours, which are no labels; give {_EXPECTED}.")
        yield Masks((stack.count, stack.frame_shape[0], stack.frame_shape[1]), stack.frame)


def _folder(path: Path) -> Masks:
    files, _ = files_of_folder(path, _MASK_SUFFIXES, StoreError)
    if not files:
        raise StoreError(f"The folder {path} holds no mask images; give {_EXPECTED}.")
    return Masks((len(files), *_image(files[0]).shape), _reader(files))


def _reader(files: Sequence[Path]) -> Callable[[int], Labels]:
    return lambda index: _image(files[index])


def _image(path: Path) -> npt.NDArray[Any]:
    """Return the labels in an image: its palette indices, or its gray values."""
    try:
        with opened_image(path) as image:
            if image.mode not in ("P", "L", "1", "I") and not image.mode.startswith("I;16"):
                raise StoreError(f"{path} holds colours, which are no labels; give {_EXPECTED}.")
            values = np.array(image)
    except ImageError as error:
        raise StoreError(f"The mask cannot be read: {error}") from error
    return values.astype(np.uint8) if values.dtype == np.bool_ else values
