"""Decode the next frame of a video while the model works on the current one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp.io.video import LazyVideo
from napari_samexp.types import VideoSource

__all__ = ["Prefetcher"]

Pixels = npt.NDArray[np.uint8]


class Prefetcher:
    """Reads one frame ahead on its own thread.

    Only for a `LazyVideo`, which is thread-safe; frames of other sources are read on request. Leaving the
    context ends the thread and drops a frame that was not requested.
    """

    def __init__(self, video: VideoSource) -> None:
        self._video = video
        self._pool = ThreadPoolExecutor(1, "samexp prefetch") if isinstance(video, LazyVideo) else None
        self._pending: tuple[int, Future[Pixels]] | None = None

    def frame(self, index: int, following: int | None) -> Pixels:
        """Return a frame, (Y, X, 3) uint8 RGB, and start reading the one that follows.

        Parameters
        ----------
        index : int
        following : int or None
            The frame that will be requested next, if any.

        Raises
        ------
        VideoError
            If this frame cannot be read; an error of the following one is raised when that is requested.
        """
        pending, self._pending = self._pending, None
        ready = pending is not None and pending[0] == index
        frame = pending[1].result() if pending is not None and ready else self._video.frame(index)
        if self._pool is not None and following is not None:
            self._pending = following, self._pool.submit(self._video.frame, following)
        return frame

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
