"""Videos of any kind as lazy stacks of frames: files, folders of images, TIFF stacks and arrays."""

from __future__ import annotations

import math
import os
import re
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import VideoError
from napari_samexp.images import to_rgb8
from napari_samexp.io._indexing import FrameIndexError, FrameNotWanted, OnWay, frame_number, frame_request
from napari_samexp.io._source import EXPECTED, FrameSource, source_at
from napari_samexp.io._stack import StackSource, array_stack
from napari_samexp.io.image import read_image

__all__ = [
    "MAX_REQUEST_BYTES",
    "FrameIndexError",
    "FrameNotWanted",
    "LazyVideo",
    "TooManyFramesError",
    "open_video",
    "read_frame",
]

CACHE_BYTES = 256 * 2**20
MAX_REQUEST_BYTES = 2**30

_REFERENCE = re.compile(r"(?P<path>.+)@(?P<frame>[+-]?[0-9]{1,12})", re.DOTALL)

Limits = tuple[float, float]
Frame = npt.NDArray[np.uint8]


class TooManyFramesError(VideoError, MemoryError):
    """A request for more frames at once than `MAX_REQUEST_BYTES`; also a `MemoryError`, from which napari recovers."""


def open_video(source: Any, *, cache_bytes: int = CACHE_BYTES, limits: Limits | None = None) -> LazyVideo:
    """Open a video without reading its frames.

    Opening a video file reads it once from end to end, but decodes only its first frame.

    Parameters
    ----------
    source : str, Path or array
        A video file (mp4, mov, avi, mkv, webm, gif and whatever else FFmpeg decodes); a folder of
        images of one size, in natural order of their names; a TIFF file with one image a frame; or
        an array (numpy, dask, zarr, a memory map) of shape (T, Y, X) or (T, Y, X, C), C of 1, 3 or 4.
    cache_bytes : int
        Memory for the frames decoded last.
    limits : (low, high), optional
        The values that become black and white. By default 8-bit frames are not changed, and other types use
        limits from a few frames spread over the video, the same for all frames, so that brightness does not flicker.

    Returns
    -------
    LazyVideo

    Raises
    ------
    VideoError
        If the source is missing, empty, broken or something else.
    """
    if isinstance(source, LazyVideo):
        return source
    if isinstance(cache_bytes, bool) or not isinstance(cache_bytes, int) or cache_bytes < 0:
        raise VideoError(f"cache_bytes is {cache_bytes!r}; give a whole number of bytes, 0 or more.")
    limits = _checked_limits(limits)
    if isinstance(source, str | os.PathLike):
        return LazyVideo(source_at(source, cache_bytes, limits))
    if not all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__")):
        raise VideoError(f"A {type(source).__name__} is not a video; give {EXPECTED}.")
    return LazyVideo(StackSource(array_stack(source), cache_bytes=cache_bytes, limits=limits))


def read_frame(reference: str | os.PathLike[str]) -> Frame:
    """Return an image, or one frame of a video, as (H, W, 3) uint8 RGB.

    Parameters
    ----------
    reference : str
        The path of an image, or ``VIDEO@FRAME``: the path of a video and a frame's index, such as
        ``clip.mp4@12``; -1 is the last. A file whose own name has an @ in it is taken as it is.

    Raises
    ------
    ImageError
        If the image cannot be read.
    VideoError
        If the video or the frame cannot be read.
    """
    text = os.fspath(reference)
    match = None if _exists(text) else _REFERENCE.fullmatch(text)
    if match is None:
        return np.array(to_rgb8(read_image(text)))
    with open_video(match["path"], cache_bytes=0) as video:  # no other frame will be read
        return video.frame(int(match["frame"]))


class LazyVideo:
    """A video as an array (T, Y, X, 3) of uint8 RGB, decoded frame by frame on request; made by `open_video`.

    Frames are exact in whatever order they are read: frame t is the t-th that a player would show. The
    object is thread-safe, and a context manager.

    ``video[t]``, ``video[t:t + 1, :, :]`` and all other ways to index one axis at a time return new numpy
    arrays. A request for more than `MAX_REQUEST_BYTES` of frames raises `TooManyFramesError`.
    """

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._lock = threading.RLock()
        self._close = weakref.finalize(self, source.close)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, Y, X, 3)."""
        return self._source.shape

    @property
    def size(self) -> int:
        """Number of values in the whole video."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole video, decoded."""
        return self.size

    @property
    def name(self) -> str:
        """The name of the file or folder, or ``"array"``."""
        return self._source.name

    @property
    def fps(self) -> float | None:
        """Mean frame rate in frames a second, or None if the source has no timestamps."""
        return self._source.fps

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """Time of each frame in seconds from the first, (T,) float64; the frame index if there are no timestamps."""
        return self._source.times.copy()

    @property
    def fingerprint(self) -> str:
        """A hash of the content, independent of where the file is."""
        with self._lock:
            self._require_open()
            try:
                return self._source.fingerprint
            except OSError as error:
                raise VideoError(
                    f"{self.name} can no longer be read ({error.strerror}); open it again."
                ) from error

    def frame(self, index: int, *, on_way: OnWay | None = None) -> Frame:
        """Return exactly frame `index` as a new array (Y, X, 3) of uint8 RGB.

        Parameters
        ----------
        index : int
            0 to T - 1, or negative to count from the end.
        on_way : callable, optional
            Called for each frame that has to be decoded before this one, with its index and a function that
            returns its image; return False to give up.

        Raises
        ------
        FrameNotWanted
            If `on_way` gave up. It is a `VideoError`.
        FrameIndexError
            If there is no such frame. It is a `VideoError` and an `IndexError`.
        VideoError
            If the frame cannot be decoded, or the video was closed.
        """
        number = frame_number(index, len(self))
        with self._lock:
            self._require_open()
            return self._source.frame(number, on_way)

    def close(self) -> None:
        """Close the file and drop the cached frames; the video cannot be read afterwards."""
        with self._lock:
            self._close()

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(index) for index in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        request = frame_request(key, self.shape)
        self._require_few(len(request.frames))
        if request.single:
            return self.frame(request.frames[0])[request.rest]
        if len(request.frames) == 1:
            return np.asarray(self.frame(request.frames[0])[request.rest])[None]
        out = np.empty((len(request.frames), *request.rest_shape), np.uint8)
        for place, index in enumerate(request.frames):
            out[place] = self.frame(index)[request.rest]
        return out

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("The frames of a video have to be decoded, which copies; leave out copy=False.")
        frames = self[:]
        return np.asarray(frames, dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        count, height, width, _ = self.shape
        rate = "" if self.fps is None else f", {self.fps:.4g} frames a second"
        return f"<LazyVideo {self.name}: {count} frames, {width} wide and {height} high{rate}>"

    def _require_open(self) -> None:
        if not self._close.alive:
            raise VideoError(f"{self.name} was closed; open it again with open_video.")

    def _require_few(self, count: int) -> None:
        nbytes = count * math.prod(self.shape[1:])
        if nbytes > MAX_REQUEST_BYTES:
            raise TooManyFramesError(
                f"{count} frames of {self.name} take {nbytes / 2**30:.1f} GiB, more than the "
                f"{MAX_REQUEST_BYTES / 2**30:.0f} GiB that may be read at once; read frame by frame: "
                "for frame in video, or video[t]."
            )


def _checked_limits(limits: Any) -> Limits | None:
    if limits is None:
        return None
    try:
        low, high = (float(value) for value in limits)
    except (TypeError, ValueError):
        raise VideoError(f"The limits are {limits!r}; give two numbers, for black and for white.") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise VideoError(
            f"The limits are {low:g} and {high:g}; give a lower number for black than for white."
        )
    return low, high


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False
