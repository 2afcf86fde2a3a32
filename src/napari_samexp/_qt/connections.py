"""What is connected, so that it can be undone in one place."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from qtpy.QtCore import QObject, Qt, Signal

__all__ = ["Connections", "WindowThread"]


class Connections:
    """A list of connections between signals (Qt, psygnal, or napari's events) and what they call."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], Any]] = []

    def __len__(self) -> int:
        return len(self._undo)

    def add(self, signal: Any, call: Callable[..., Any]) -> None:
        """Connect `signal` to `call`."""
        signal.connect(call)
        self._undo.append(lambda: signal.disconnect(call))

    def later(self, undo: Callable[[], Any]) -> None:
        """Note something else that has to be undone."""
        self._undo.append(undo)

    def undo(self) -> None:
        """Undo everything, the newest first."""
        while self._undo:
            # what is connected to may be gone already: a layer, or Qt's half of an object, for which PySide
            # gives a SystemError around the RuntimeError
            with suppress(ValueError, TypeError, RuntimeError, KeyError, SystemError):
                self._undo.pop()()


class WindowThread(QObject):
    """Runs calls on the window's thread, whichever thread they come from, in their order."""

    _called = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = False
        self._called.connect(self._run, Qt.ConnectionType.QueuedConnection)

    def __call__(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # Qt's half is gone: nobody is there to be told
            self._called.emit(call)

    def _run(self, call: Callable[[], None]) -> None:
        self._waiting.append(call)
        if self._running:
            return  # napari's progress bars let Qt go on; a call within a call would turn their order around
        self._running = True
        try:
            while self._waiting:
                self._waiting.popleft()()
        finally:
            self._running = False
