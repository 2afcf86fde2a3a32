"""Frames for the eye: decoded beside the window, the newest request first. No Qt."""

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
_AHEAD = 8
_BEHIND = 2
_NEAR = 2
_QUICK_S = 0.02
_LONG_WAY = 40  # frames still to decode before it is worth drawing one that is passed
_AT_ONCE_S = 0.006  # a frame that the video still has takes no longer
_IDLE_S = 5.0  # a thread that has nothing to do ends, so that nobody has to end it


class FrameFeed:
    """Decodes the frame that was requested for last, then its neighbours, in a thread of its own.

    Nobody else should read `video` on the window's thread while this works: a video is decoded by one
    thread at a time, and a far jump can take a second.

    Parameters
    ----------
    video : LazyVideo
    cache_bytes : int
        What the frames ready to be shown may take.
    """

    def __init__(self, video: LazyVideo, cache_bytes: int = CACHE_BYTES) -> None:
        self._video = video
        frame_bytes = max(1, int(np.prod(video.shape[1:])))
        # the frame that is shown must fit, however large it is
        self._cache: FrameCache[Frame] = FrameCache(max(cache_bytes, frame_bytes))
        # with its neighbours it must fit too, or they would push each other out and be decoded for ever
        room = cache_bytes // frame_bytes
        self._ahead = min(_AHEAD, room // 2)
        self._behind = max(0, min(_BEHIND, room - 1 - self._ahead))
        self._changed = threading.Condition()
        self._indices: set[int] = set()
        self._request: int | None = None
        self._here = 0
        self._step = 1
        self._jumped = False  # whether the request was for a frame beyond the neighbours
        self._quick = True  # whether the last jump was
        self._thread: threading.Thread | None = None
        self._bad: dict[int, str] = {}
        self.on_frame: Callable[[int], None] = lambda index: None

    def get(self, index: int) -> Frame | None:
        """Return a frame if it is ready."""
        with self._changed:
            return self._cache.get(index)

    def request(self, index: int, patience_s: float = 0.0) -> Frame | None:
        """Ask for a frame, wait a moment where that is likely to help, and return it if it is ready by then.

        A frame that comes later is announced by `on_frame`, called in the feed's thread.
        """
        with self._changed:
            self._jumped = abs(index - self._here) > _NEAR
            if self._jumped and not self._quick:
                patience_s = min(patience_s, _AT_ONCE_S)
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
        """Return the ready frame that is nearest in time, and its index."""
        with self._changed:
            close = min(self._ready(), key=lambda other: abs(other - index), default=None)
            frame = None if close is None else self._cache.get(close)
            return None if close is None or frame is None else (close, frame)

    def problem(self, index: int) -> str | None:
        """Return why a frame cannot be decoded, or None."""
        return self._bad.get(index)

    def put(self, index: int, frame: Frame) -> None:
        """Add a frame that somebody else has decoded."""
        with self._changed:
            self._keep(index, frame)

    def _keep(self, index: int, frame: Frame) -> None:
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
        """Return the frame to decode now; None once there has been nothing to do for a while."""
        with self._changed:
            while True:
                wanted = self._request
                if wanted is not None and wanted not in self._cache and wanted not in self._bad:
                    return wanted
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
        began = time.perf_counter()
        try:
            frame = self._video.frame(index, on_way=partial(self._goes_on, index))
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
                self._quick = time.perf_counter() - began < _QUICK_S
            self._keep(index, frame)
            self._changed.notify_all()
        self.on_frame(index)

    def _goes_on(self, sought: int, passed: int, image: Callable[[], Frame]) -> bool:
        """Return whether to decode on past a frame to the one that is sought; show it if it is a better stand-in."""
        with self._changed:
            if self._request not in (None, sought):
                return False
            far = self._request == sought and sought - passed >= _LONG_WAY
            better = far and self._is_nearer(passed, sought)
        if better:
            with suppress(SamexpError):  # that frame's trouble is not the sought one's
                self.put(passed, image())
                self.on_frame(passed)
        return True

    def _is_nearer(self, passed: int, sought: int) -> bool:
        """Return whether a frame is so much nearer than what is ready that drawing once more is worth it."""
        nearest = min((abs(index - sought) for index in self._ready()), default=len(self._video))
        return 2 * abs(passed - sought) < nearest
