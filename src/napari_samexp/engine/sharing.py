"""Arrays in shared memory: the viewer's process owns every block, the worker only opens it."""

from __future__ import annotations

import errno
import math
import os
import secrets
import weakref
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp._children import keep_tracker
from napari_samexp.engine.messages.base import ArrayRef, ImageRef
from napari_samexp.errors import ImageError, SamexpError

__all__ = ["SharedImage", "SharedArray", "read_shared", "write_shared"]

PREFIX = "smx"  # short: macOS allows 31 characters
_SPARE = 16 * 2**20  # bytes that others may need at the same time


class SharedArray:
    """An array that another process can read, until `release` or the end of this object.

    Parameters
    ----------
    shape, dtype
        As numpy takes them.

    Raises
    ------
    SamexpError
        If the system has no room for it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        kind = np.dtype(dtype)
        nbytes = max(1, math.prod(shape) * kind.itemsize)
        self._memory = _create(nbytes)
        # also at the end of the interpreter: the name must go even if nobody calls `release`
        self._release = weakref.finalize(self, _drop, self._memory)
        self.nbytes = nbytes
        self.ref = ArrayRef(self._memory.name, shape, kind.str)

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> SharedArray:
        """Return a shared copy of an array."""
        shared = cls(array.shape, array.dtype)
        np.copyto(shared._view(shared.ref), array)
        return shared

    def read(self, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return a copy of the block's first values in another shape."""
        return self._view(ArrayRef("", shape, self.ref.dtype)).copy()

    def fill(self, array: npt.NDArray[Any]) -> None:
        """Overwrite with an array of the same shape and dtype."""
        np.copyto(self._view(self.ref), array)

    def release(self) -> None:
        """Free the memory and its name; a second call does nothing."""
        self._release()

    def _view(self, ref: ArrayRef) -> npt.NDArray[Any]:
        return np.ndarray(ref.shape, ref.dtype, self._memory.buf)


class SharedImage:
    """A copy of an image for the worker.

    Parameters
    ----------
    pixels : array
        As `to_rgb8` takes it, of any numeric dtype.
    limits : (low, high), optional
        The values for black and white.

    Raises
    ------
    ImageError
        If there are no pixels, or no room for them.
    """

    def __init__(
        self, pixels: npt.ArrayLike, name: str = "", limits: tuple[float, float] | None = None
    ) -> None:
        array = np.asarray(pixels)
        if array.dtype.kind not in "buif" or array.size == 0 or array.ndim not in (2, 3):
            raise ImageError(
                f"The image has shape {array.shape} and type {array.dtype}; expected numbers of shape "
                "(H, W), (H, W, 3) or (H, W, 4)."
            )
        try:
            self._shared = SharedArray.of(array)
        except SamexpError as error:
            raise ImageError(error, code=error.code) from None
        self.hw = (array.shape[0], array.shape[1])
        self.ref = ImageRef(secrets.token_hex(8), name, self._shared.ref, limits)

    def release(self) -> None:
        """Free the memory; waiting requests with this image fail."""
        self._shared.release()


def read_shared(ref: ArrayRef) -> npt.NDArray[Any]:
    """Return a copy of an array that another process shares.

    Raises
    ------
    SamexpError
        If it is gone.
    MemoryError
        If this process has no room for it.
    """
    memory = _attach(ref)
    try:
        return np.ndarray(ref.shape, ref.dtype, memory.buf).copy()
    finally:
        memory.close()


def write_shared(ref: ArrayRef, array: npt.NDArray[Any], offset: int = 0) -> None:
    """Write an array into a block that another process shares, from a byte on; raises as `read_shared`."""
    memory = _attach(ref)
    try:
        np.copyto(np.ndarray(array.shape, array.dtype, memory.buf, offset), array)
    finally:
        memory.close()


def _attach(ref: ArrayRef) -> SharedMemory:
    # Before Python 3.13 this registers the name again with the resource tracker. Worker processes inherit the
    # owner's tracker, which keeps a set, so this does no harm.
    keep_tracker()
    try:
        return SharedMemory(ref.block)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENOMEM:  # the block exists, but this process has no room
            raise MemoryError from error
        raise SamexpError("The pixels that were shared are no longer there; try again.") from error


def _create(nbytes: int) -> SharedMemory:
    # A file system in memory promises more than it has, and kills the process that uses what is missing.
    free = _free_bytes()
    if free is not None and nbytes + _SPARE > free:
        raise SamexpError(
            f"Shared memory of {nbytes / 2**20:.0f} MB is needed and {free / 2**20:.0f} MB are free; close "
            "other programs, or give this machine or container a larger /dev/shm.",
            code="shared-memory-full",
        )
    keep_tracker()
    while True:
        try:
            name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
            return SharedMemory(name, create=True, size=nbytes)
        except FileExistsError:
            continue
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or "no memory"
            raise SamexpError(
                f"Shared memory of {nbytes / 2**20:.0f} MB is not available ({reason}); close other programs.",
                code="shared-memory-full",
            ) from error


def _free_bytes() -> int | None:
    with suppress(OSError, AttributeError):  # only Linux shows it as a folder
        status = os.statvfs("/dev/shm")
        return status.f_bavail * status.f_frsize
    return None


def _drop(memory: SharedMemory) -> None:
    with suppress(BufferError):  # a view still exists; remove the name all the same
        memory.close()
    keep_tracker()
    with suppress(OSError):
        memory.unlink()
