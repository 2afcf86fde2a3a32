"""Videos that are stacks of images: a folder, a TIFF file, or an array of any kind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import ImageError, VideoError
from napari_samexp.images import to_rgb8, value_limits
from napari_samexp.io._cache import FrameCache
from napari_samexp.io._indexing import OnWay
from napari_samexp.io._paths import content_digest, files_of_folder
from napari_samexp.io._tiff import TiffStack
from napari_samexp.io.image import IMAGE_SUFFIXES, image_size, read_image

__all__ = ["Stack", "StackSource", "array_stack", "folder_stack", "image_stack", "tiff_stack"]

_SAMPLES = 8  # frames that decide black and white, and an array's fingerprint
_SAMPLED_VALUES = 1 << 26  # of all samples together; larger frames are subsampled
_DECODED_VALUES = 1 << 27  # of all samples together; of larger frames fewer are decoded, but always two
_HASHED_FILES = 16
_HASHED_BYTES = 1 << 16

AnyArray = npt.NDArray[Any]
Limits = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Stack:
    """Images of one size, by index.

    Parameters
    ----------
    name : str
        For people.
    shape : (T, Y, X)
    read : callable
        Returns image `index` in its own dtype; may raise `ImageError`.
    digest : callable
        Returns a hash of the content.
    label : callable
        Returns the name of image `index` for error messages.
    in_memory : bool
        Whether the images are in memory already, so that caching would only double them.
    close : callable
    """

    name: str
    shape: tuple[int, int, int]
    read: Callable[[int], AnyArray]
    digest: Callable[[], str]
    label: Callable[[int], str]
    in_memory: bool = False
    close: Callable[[], None] = lambda: None


class StackSource:
    """A stack as 8-bit RGB frames, with the same black and white for all.

    Parameters
    ----------
    stack : Stack
    cache_bytes : int
        Memory for the images read last.
    limits : (low, high), optional
        The values that become black and white. By default 8-bit images are not changed, and others use
        the `value_limits` of a few images spread over the stack.
    """

    def __init__(self, stack: Stack, *, cache_bytes: int, limits: Limits | None) -> None:
        self._stack = stack
        self._given = limits
        self._cache: FrameCache[AnyArray] = FrameCache(0 if stack.in_memory else cache_bytes)
        self.name = stack.name
        self.shape = (*stack.shape, 3)
        self.fps: float | None = None
        self.times = np.arange(stack.shape[0], dtype=np.float64)
        self._dtype = self._raw(0).dtype

    def frame(self, index: int, on_way: OnWay | None = None) -> npt.NDArray[np.uint8]:
        """Return frame `index`, 0 to T - 1, as a new (Y, X, 3) uint8 array; `on_way` is never called."""
        try:
            raw = self._checked(index)
            rgb = to_rgb8(raw, self._limits)
            return rgb.copy() if np.may_share_memory(rgb, raw) else rgb
        except ImageError as error:
            raise self._error(index, error) from error

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the content, and of the limits if given."""
        return hashlib.sha256(f"{self._stack.digest()} {self.shape} {self._given}".encode()).hexdigest()

    def close(self) -> None:
        """Close the file and drop the cached frames."""
        self._cache.clear()
        self._stack.close()

    @cached_property
    def _limits(self) -> Limits | None:
        if self._given is not None or self._dtype == np.uint8:
            return self._given
        size = self._raw(0).size
        chosen = spread(self.shape[0], max(2, min(_SAMPLES, _DECODED_VALUES // size)))
        step = 1 + len(chosen) * size // _SAMPLED_VALUES
        samples = [self._checked(int(i)).ravel()[::step].copy() for i in chosen]
        return value_limits(np.concatenate(samples))

    def _checked(self, index: int) -> AnyArray:
        raw = self._raw(index)
        size, expected = raw.shape[:2], self.shape[1:3]
        if size != expected:
            raise VideoError(
                f"{self._stack.label(index)} is {size[1]} wide and {size[0]} high, but the first is "
                f"{expected[1]} wide and {expected[0]} high; give images of one size."
            )
        if raw.dtype != self._dtype:
            raise VideoError(
                f"{self._stack.label(index)} has type {raw.dtype}, but the first has {self._dtype}; "
                "give images of one type."
            )
        return raw

    def _raw(self, index: int) -> AnyArray:
        raw = self._cache.get(index)
        if raw is None:
            try:
                raw = self._stack.read(index)
            except (VideoError, MemoryError):
                raise
            except Exception as error:  # a lazy array may raise anything
                raise self._error(index, error) from error
            self._cache.put(index, raw, raw.nbytes)
        return raw

    def _error(self, index: int, error: Exception) -> VideoError:
        label = self._stack.label(index)
        return VideoError(
            str(error)
            if isinstance(error, ImageError)
            else f"{label} cannot be read: {error}; check its source."
        )


def array_stack(array: Any, name: str = "array") -> Stack:
    """Return the stack of anything with a shape and ``[]``: numpy, dask, zarr, a memory map.

    Raises
    ------
    VideoError
        Unless it is bool, integer or float of shape (T, Y, X) or (T, Y, X, C) with C of 1, 3 or 4.
    """
    shape, dtype = tuple(array.shape), np.dtype(array.dtype)
    if len(shape) == 3 and shape[-1] in (3, 4):
        raise VideoError(
            f"The array has shape {shape}, one image; for a video of one frame give array[None]."
        )
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3, 4)):
        raise VideoError(
            f"The array has shape {shape}; expected (T, Y, X) or (T, Y, X, C) with C of 1, 3 or 4."
        )
    if 0 in shape:
        raise VideoError(f"The array of shape {shape} is empty; give one with at least one frame.")
    if dtype.kind not in "buif":
        raise VideoError(f"The array has type {dtype}; expected bool, integer or float.")
    return Stack(
        name=name,
        shape=(int(shape[0]), int(shape[1]), int(shape[2])),
        read=lambda index: np.asarray(array[index]),
        digest=lambda: _array_digest(array, shape, dtype),
        label=lambda index: f"Frame {index} of the array",
        in_memory=isinstance(array, np.ndarray),
    )


def folder_stack(folder: Path) -> Stack:
    """Return the stack of a folder's images, in natural order: "2.png" before "10.png".

    Raises
    ------
    VideoError
        If there is no image, or one that is broken, of another size or no ordinary file.
    """
    images, others = files_of_folder(folder, IMAGE_SUFFIXES, VideoError)
    if not images:
        found = f"other files: {len(others)}, such as {others[0].name}" if others else "it has no files"
        raise VideoError(f"The folder {folder} has no images ({found}); give one with png, jpg or tif files.")
    return image_stack(folder.name, images)


def image_stack(name: str, files: list[Path]) -> Stack:
    """Return the stack of image files, whose sizes are compared now and whose pixels are read later."""
    try:
        sizes = [image_size(file) for file in files]
    except ImageError as error:
        raise VideoError(str(error)) from error
    for file, size in zip(files, sizes):
        if size != sizes[0]:
            raise VideoError(
                f"The image {file} is {size[1]} wide and {size[0]} high, but {files[0].name} is "
                f"{sizes[0][1]} wide and {sizes[0][0]} high; give images of one size."
            )
    return Stack(
        name=name,
        shape=(len(files), *sizes[0]),
        read=lambda index: read_image(files[index]),
        digest=lambda: _files_digest(files),
        label=lambda index: f"The image {files[index]}",
    )


def tiff_stack(path: Path) -> Stack:
    """Return the stack of a TIFF file's pages; `VideoError` if it is broken or has other axes."""
    try:
        tiff = TiffStack(path)
    except ImageError as error:
        raise VideoError(str(error)) from error
    return Stack(
        name=path.name,
        shape=(tiff.count, tiff.frame_shape[0], tiff.frame_shape[1]),
        read=tiff.frame,
        digest=lambda: content_digest(path),
        label=lambda index: f"Frame {index} of {path}",
        close=tiff.close,
    )


def spread(count: int, most: int) -> npt.NDArray[np.int64]:
    """Return at most `most` of the indices 0 to `count` - 1, evenly spread and with both ends."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _array_digest(array: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    digest = hashlib.sha256(f"{shape} {dtype.str}".encode())
    for index in spread(shape[0], _SAMPLES):
        digest.update(np.asarray(array[int(index)]).tobytes())
    return digest.hexdigest()


def _files_digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    for index in spread(len(files), _HASHED_FILES):
        digest.update(content_digest(files[index], _HASHED_BYTES).encode())
    return digest.hexdigest()
