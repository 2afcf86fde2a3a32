"""Connections that are undone together, and calls on the window's thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from qtpy.QtCore import QObject, Qt, Signal

__all__ = ["Connections", "WindowThread"]


class Connections:
    """Connections of signals (Qt, psygnal or napari events) to callables, to be undone together."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], Any]] = []

    def __len__(self) -> int:
        return len(self._undo)

    def add(self, signal: Any, call: Callable[..., Any]) -> None:
        """Connect `signal` to `call`."""
        signal.connect(call)
        self._undo.append(lambda: signal.disconnect(call))

    def later(self, undo: Callable[[], Any]) -> None:
        """Register something else to be undone."""
        self._undo.append(undo)

    def undo(self) -> None:
        """Undo everything, the newest first."""
        while self._undo:
            # a layer, or the C++ object, may be deleted already; PySide then wraps the RuntimeError in a
            # SystemError
            with suppress(ValueError, TypeError, RuntimeError, KeyError, SystemError):
                self._undo.pop()()


class WindowThread(QObject):
    """Runs calls from any thread on the window's thread, in order."""

    _called = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = False
        self._called.connect(self._run, Qt.ConnectionType.QueuedConnection)

    def __call__(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the C++ object is deleted, so nobody needs the call
            self._called.emit(call)

    def _run(self, call: Callable[[], None]) -> None:
        self._waiting.append(call)
        if self._running:
            return  # napari's progress bars process events; a nested call would reverse the order
        self._running = True
        try:
            while self._waiting:
                self._waiting.popleft()()
        finally:
            self._running = False
