"""Where a video's frames come from: a video file through PyAV, a folder of images, a TIFF stack, one image."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import VideoError
from napari_samexp.io._indexing import OnWay
from napari_samexp.io._paths import existing_path, readable_file
from napari_samexp.io._stack import StackSource, folder_stack, image_stack, tiff_stack
from napari_samexp.io._tiff import is_tiff
from napari_samexp.io.image import IMAGE_SUFFIXES

__all__ = ["EXPECTED", "FrameSource", "source_at"]

EXPECTED = "a video file (mp4, mov, avi, mkv, webm, gif), a folder of images, a TIFF stack or an array"

Limits = tuple[float, float]
Frame = npt.NDArray[np.uint8]


class FrameSource(Protocol):
    """Where a `LazyVideo` reads its frames; called by one thread at a time."""

    name: str
    shape: tuple[int, int, int, int]
    times: npt.NDArray[np.float64]

    @property
    def fps(self) -> float | None:
        """Mean frames a second, or None."""

    @property
    def fingerprint(self) -> str:
        """A hash of the content."""

    def frame(self, index: int, on_way: OnWay | None = None) -> Frame:
        """Return frame `index`, 0 to T - 1, as a new array."""

    def close(self) -> None:
        """Close files and drop cached frames."""


def source_at(path: str | os.PathLike[str], cache_bytes: int, limits: Limits | None) -> FrameSource:
    """Return the source of the frames at a path.

    Parameters
    ----------
    path : path
    cache_bytes : int
        What the frames decoded last may take in memory.
    limits : (low, high) or None
        The values that become black and white.

    Raises
    ------
    VideoError
        If there is nothing at the path that can be read as a video.
    """
    found = existing_path(path, VideoError, EXPECTED)
    if found.is_dir():
        return StackSource(folder_stack(found), cache_bytes=cache_bytes, limits=limits)
    readable_file(found, VideoError, EXPECTED)
    if is_tiff(found):
        return StackSource(tiff_stack(found), cache_bytes=cache_bytes, limits=limits)
    if found.suffix.lower() in IMAGE_SUFFIXES:
        return StackSource(image_stack(found.name, [found]), cache_bytes=cache_bytes, limits=limits)
    # imported late: it takes a third of the time in which the dock opens, and few sessions begin with a video
    from napari_samexp.io._av import AvSource

    return AvSource(found, cache_bytes=cache_bytes, limits=limits)
