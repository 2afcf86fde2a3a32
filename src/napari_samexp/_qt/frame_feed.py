"""Frames to display, decoded in a background thread, the newest request first. No Qt."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import SamexpError
from napari_samexp.io._cache import FrameCache
from napari_samexp.io.video import FrameNotWanted, LazyVideo

__all__ = ["FrameFeed"]

logger = logging.getLogger(__name__)

Frame = npt.NDArray[np.uint8]

CACHE_BYTES = 192 * 2**20
_AHEAD = 8  # frames prefetched in the direction of the last step
_BEHIND = 2
_NEAR = 2  # frames; a larger step is a jump
_QUICK_S = 0.02
_FAR = 40  # frames still to decode before an intermediate one is worth drawing
_CACHED_S = 0.006  # longer than it takes to get a frame that the video still has
_IDLE_S = 5.0  # after which the thread ends by itself


class FrameFeed:
    """Decodes the latest requested frame, then prefetches its neighbours, in its own thread.

    Do not read `video` on the window's thread meanwhile: only one thread decodes at a time, and a far jump
    may take a second.

    Parameters
    ----------
    video : LazyVideo
    cache_bytes : int
        Size of the cache of decoded frames.
    """

    def __init__(self, video: LazyVideo, cache_bytes: int = CACHE_BYTES) -> None:
        self._video = video
        frame_bytes = max(1, int(np.prod(video.shape[1:])))
        # the frame shown must fit, however large it is
        self._cache: FrameCache[Frame] = FrameCache(max(cache_bytes, frame_bytes))
        # so must its neighbours, or frames would evict each other and be decoded forever
        room = cache_bytes // frame_bytes
        self._ahead = min(_AHEAD, room // 2)
        self._behind = max(0, min(_BEHIND, room - 1 - self._ahead))
        self._changed = threading.Condition()
        self._indices: set[int] = set()
        self._request: int | None = None
        self._here = 0
        self._step = 1
        self._jumped = False  # whether the last request was beyond the neighbours
        self._quick = True  # whether the last jump took less than `_QUICK_S`
        self._thread: threading.Thread | None = None
        self._bad: dict[int, str] = {}
        self.on_frame: Callable[[int], None] = lambda index: None

    def get(self, index: int) -> Frame | None:
        """Return a frame if it is decoded, else None."""
        with self._changed:
            return self._cache.get(index)

    def request(self, index: int, patience_s: float = 0.0) -> Frame | None:
        """Request a frame, wait up to `patience_s` if that is likely to help, and return it if it is decoded by then.

        For a frame that is decoded later, `on_frame` is called in the feed's thread.
        """
        with self._changed:
            self._jumped = abs(index - self._here) > _NEAR
            if self._jumped and not self._quick:
                patience_s = min(patience_s, _CACHED_S)
            if index != self._here:
                self._step = 1 if index > self._here else -1
            self._here = self._request = index
            self._ensure_thread()
            self._changed.notify_all()
            frame = self._cache.get(index)
            if frame is None and patience_s > 0:
                self._changed.wait_for(lambda: index in self._cache or index in self._bad, patience_s)
                frame = self._cache.get(index)
            return frame

    def nearest(self, index: int) -> tuple[int, Frame] | None:
        """Return the index and pixels of the decoded frame nearest in time."""
        with self._changed:
            close = min(self._ready(), key=lambda other: abs(other - index), default=None)
            frame = None if close is None else self._cache.get(close)
            return None if close is None or frame is None else (close, frame)

    def problem(self, index: int) -> str | None:
        """Return why a frame cannot be decoded, or None."""
        return self._bad.get(index)

    def put(self, index: int, frame: Frame) -> None:
        """Add a frame that was decoded elsewhere."""
        with self._changed:
            self._store(index, frame)

    def _store(self, index: int, frame: Frame) -> None:
        frame.flags.writeable = False
        self._cache.put(index, frame, frame.nbytes)
        self._indices.add(index)

    def _ready(self) -> set[int]:
        self._indices = {index for index in self._indices if index in self._cache}
        return self._indices

    def _ensure_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="samexp frames", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while (index := self._next()) is not None:
            self._decode(index)

    def _next(self) -> int | None:
        """Wait for the next frame to decode and return it; None after `_IDLE_S` without work."""
        with self._changed:
            while True:
                latest = self._request
                if latest is not None and latest not in self._cache and latest not in self._bad:
                    return latest
                self._request = None
                for index in self._neighbours():
                    if index not in self._cache and index not in self._bad:
                        return index
                if not self._changed.wait(_IDLE_S):
                    self._thread = None
                    return None

    def _neighbours(self) -> Iterator[int]:
        count = len(self._video)
        if not self._ahead:
            return
        ahead = [self._step * k for k in range(1, self._ahead + 1)]
        offsets = ahead + [-self._step * k for k in range(1, self._behind + 1)]
        yield from (self._here + offset for offset in offsets if 0 <= self._here + offset < count)

    def _decode(self, index: int) -> None:
        start = time.perf_counter()
        try:
            frame = self._video.frame(index, on_way=partial(self._continue_past, index))
        except FrameNotWanted:
            self._quick = False
            return
        except (SamexpError, MemoryError) as error:
            logger.warning("frame %d cannot be shown: %s", index, error)
            with self._changed:
                self._bad[index] = str(error)
                self._changed.notify_all()
            self.on_frame(index)
            return
        with self._changed:
            if index == self._request and self._jumped:
                self._quick = time.perf_counter() - start < _QUICK_S
            self._store(index, frame)
            self._changed.notify_all()
        self.on_frame(index)

    def _continue_past(self, target: int, passed: int, image: Callable[[], Frame]) -> bool:
        """Return whether to go on decoding to the target; publish a passed frame if it is a better placeholder."""
        with self._changed:
            if self._request not in (None, target):
                return False
            far = self._request == target and target - passed >= _FAR
            better = far and self._is_nearer(passed, target)
        if better:
            with suppress(SamexpError):  # an error in that frame does not concern the target
                self.put(passed, image())
                self.on_frame(passed)
        return True

    def _is_nearer(self, passed: int, target: int) -> bool:
        """Return whether a frame is at least twice as near as any decoded one, so that drawing it is worth it."""
        nearest = min((abs(index - target) for index in self._ready()), default=len(self._video))
        return 2 * abs(passed - target) < nearest
