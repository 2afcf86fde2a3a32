"""Frames of videos that only the viewer's process can read: arrays of its layers, lazy or not."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Callable

from napari_samexp.engine.messages.base import VideoRef
from napari_samexp.engine.messages.tracking import FrameReady, FrameWanted
from napari_samexp.engine.sharing import SharedArray
from napari_samexp.errors import SamexpError, VideoError
from napari_samexp.types import VideoSource

__all__ = ["FrameServer"]

_log = logging.getLogger(__name__)


class FrameServer:
    """Reads frames on a thread of its own, one at a time into one block of shared memory.

    A video of any length takes the memory of one frame, and a lazy one is computed where its data are.

    Parameters
    ----------
    reply : callable
        Called with each `FrameReady`, on that thread.
    """

    def __init__(self, reply: Callable[[FrameReady], object]) -> None:
        self._reply = reply
        self._numbers = itertools.count(1)
        self._sources: dict[int, VideoSource] = {}
        self._wanted: queue.SimpleQueue[FrameWanted | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._slot: SharedArray | None = None

    def add(self, source: VideoSource) -> VideoRef:
        """Return the reference by which the worker requests this source's frames."""
        number = next(self._numbers)
        self._sources[number] = source
        return VideoRef(getattr(source, "name", "array"), source.shape, stream=number, fps=source.fps)

    def remove(self, ref: VideoRef) -> None:
        """Forget a source."""
        if ref.stream is not None:
            self._sources.pop(ref.stream, None)

    def serve(self, wanted: FrameWanted) -> None:
        """Read a frame and reply with it, on the thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="napari-samexp frames", daemon=True)
            self._thread.start()
        self._wanted.put(wanted)

    def close(self, patience_s: float = 1.0) -> None:
        """End the thread, unless a frame takes longer than that, and release the memory."""
        self._wanted.put(None)
        if self._thread is not None:
            self._thread.join(patience_s)
        if self._slot is not None:
            self._slot.release()
        self._sources.clear()

    def _work(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            try:
                reply = self._read(wanted)
            except SamexpError as error:
                reply = FrameReady(wanted.stream, wanted.index, error=str(error), code=error.code)
            except Exception as error:  # whatever a lazy array computes
                _log.exception("frame %d could not be read", wanted.index)
                sentence = f"Frame {wanted.index} cannot be read ({type(error).__name__}: {error})."
                reply = FrameReady(wanted.stream, wanted.index, error=sentence, code="video-unreadable")
            self._reply(reply)

    def _read(self, wanted: FrameWanted) -> FrameReady:
        source = self._sources.get(wanted.stream)
        if source is None:
            raise VideoError("The video was closed in the viewer; open it again.")
        if wanted.index < 0:
            return FrameReady(wanted.stream, wanted.index, text=source.fingerprint)
        frame = source.frame(wanted.index)
        if self._slot is None or self._slot.ref.shape != frame.shape:
            if self._slot is not None:
                self._slot.release()
            self._slot = SharedArray(frame.shape, frame.dtype)
        self._slot.fill(frame)
        return FrameReady(wanted.stream, wanted.index, self._slot.ref)
