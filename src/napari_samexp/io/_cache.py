"""A cache of the frames decoded last, limited in bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["FrameCache"]

Frame = TypeVar("Frame")


class FrameCache(Generic[Frame]):
    """Frames by index; the least recently used are dropped first.

    Parameters
    ----------
    limit_bytes : int
        Limit for all frames together; a frame that is larger by itself is not stored.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._frames: OrderedDict[int, tuple[Frame, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._frames)

    def __contains__(self, index: int) -> bool:
        return index in self._frames

    def get(self, index: int) -> Frame | None:
        """Return frame `index`, or None if it is not cached."""
        if index not in self._frames:
            return None
        self._frames.move_to_end(index)
        return self._frames[index][0]

    def put(self, index: int, frame: Frame, nbytes: int) -> None:
        """Store `frame`, which takes `nbytes`, and drop older ones as needed."""
        if nbytes > self.limit_bytes:
            return
        if index in self._frames:
            self.used_bytes -= self._frames.pop(index)[1]
        self._frames[index] = frame, nbytes
        self.used_bytes += nbytes
        while self.used_bytes > self.limit_bytes:
            self.used_bytes -= self._frames.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Drop every frame."""
        self._frames.clear()
        self.used_bytes = 0
