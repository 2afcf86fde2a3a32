"""Requests that wait for a busy worker, and whether the viewer's process still exists."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from napari_samexp.engine.errors import Cancelled
from napari_samexp.engine.messages.base import CANCEL, STOP, Control, Request
from napari_samexp.engine.messages.tracking import FrameReady

__all__ = ["Inbox"]

PARENT_CHECK_S = 1.0  # how often to check that the viewer's process is still the parent
LAST_FRAME_S = 1.5  # what the current frame may take once the viewer's process is gone


class Inbox:
    """Receives requests on a thread, and ends the process when no more can come.

    Parameters
    ----------
    connection : Connection
        Gives pairs of a number and a `Request`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, Request]] = deque()
        self._frames: deque[FrameReady] = deque()
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def get(self, *, block: bool) -> tuple[int, Request] | None:
        """Take the next request, controls first; None if there is none and `block` is off."""
        with self._changed:
            if block:
                self._changed.wait_for(lambda: self._waiting)
            found = next((item for item in self._waiting if isinstance(item[1], Control)), None)
            if found is None and self._waiting:
                found = self._waiting[0]
            if found is not None:
                self._waiting.remove(found)
            return found

    @property
    def cancelled(self) -> bool:
        """Whether "cancel" or "stop" waits."""
        with self._changed:
            return self._is_cancelled()

    def take(self, *kinds: type[Request]) -> list[tuple[int, Request]]:
        """Take all waiting requests of some kinds."""
        with self._changed:
            taken = [item for item in self._waiting if isinstance(item[1], kinds)]
            for item in taken:
                self._waiting.remove(item)
        return taken

    def has(self, kind: type[Request]) -> bool:
        """Whether a request of a kind waits."""
        with self._changed:
            return any(isinstance(request, kind) for _, request in self._waiting)

    def frame(self, request: Callable[[], None], stream: int, index: int) -> FrameReady:
        """Request a frame and wait for it.

        Raises
        ------
        Cancelled
            If the run is cancelled first.
        """
        with self._changed:
            self._frames.clear()  # of a wait that was cancelled
        request()
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._frames or self._is_cancelled())
                if not self._frames:
                    raise Cancelled
                found = self._frames.popleft()
                if (found.stream, found.index) == (stream, index):
                    return found

    def _is_cancelled(self) -> bool:
        return any(request in (CANCEL, STOP) for _, request in self._waiting)

    def _read(self) -> None:
        family = os.getppid()
        parent = multiprocessing.parent_process()
        watched: list[Any] = [self._connection] if parent is None else [self._connection, parent.sentinel]
        try:
            while True:
                ready = wait(watched, PARENT_CHECK_S)
                if self._connection in ready:
                    self._put(*self._connection.recv())
                # the pipes of a parent that was killed stay open while a process that it forked lives
                elif ready or os.getppid() != family:
                    break
        except (EOFError, OSError):
            pass
        self._put(0, STOP)
        end = threading.Timer(LAST_FRAME_S, os._exit, (0,))
        end.daemon = True
        end.start()

    def _put(self, number: int, request: Request) -> None:
        with self._changed:
            if isinstance(request, FrameReady):
                self._frames.append(request)
            else:
                self._waiting.append((number, request))
            self._changed.notify_all()
