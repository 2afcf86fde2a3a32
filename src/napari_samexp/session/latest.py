"""The newest request wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Latest"]

T = TypeVar("T")


class Latest(Generic[T]):
    """Works on one request at a time; of those made meanwhile, only the newest is kept.

    Any thread may call any method.

    Parameters
    ----------
    start : callable
        Starts the work of a request. `done` has to be called when that has ended.
    """

    def __init__(self, start: Callable[[T], None]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._pending: tuple[T, ...] = ()  # at most one
        self._busy = False

    def request(self, request: T) -> None:
        """Start a request now, or after the current one if no newer request has come by then."""
        with self._lock:
            self._pending = (request,)
        self._start_pending()

    def drop_pending(self) -> None:
        """Forget the request that waits, if any."""
        with self._lock:
            self._pending = ()

    def done(self) -> bool:
        """Start the request that waits, if any; return whether none did, so that the ended one was the newest."""
        with self._lock:
            self._busy, newest = False, not self._pending
        self._start_pending()
        return newest

    def _start_pending(self) -> None:
        with self._lock:
            if self._busy or not self._pending:
                return
            (request,), self._pending, self._busy = self._pending, (), True
        self._start(request)
