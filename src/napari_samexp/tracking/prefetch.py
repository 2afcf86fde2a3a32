"""The next frame of a video is decoded while the model looks at this one."""

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
    """Reads one frame ahead, on a thread of its own, where a video may be read on any thread.

    Only our own `LazyVideo` promises that; of other sources each frame is read when it is asked for. As a
    context manager it ends the thread, and forgets a frame that nobody asked for.
    """

    def __init__(self, video: VideoSource) -> None:
        self._video = video
        self._pool = ThreadPoolExecutor(1, "samexp prefetch") if isinstance(video, LazyVideo) else None
        self._pending: tuple[int, Future[Pixels]] | None = None

    def frame(self, index: int, following: int | None) -> Pixels:
        """Return a frame, and begin to read the one that will be asked for next.

        Raises
        ------
        VideoError
            If this frame cannot be read; that of the following one is told when that is asked for.
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
