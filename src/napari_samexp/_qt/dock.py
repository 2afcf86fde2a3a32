"""What the large docks share: scrolling, messages, help, and an orderly end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_samexp._qt.connections import Connections, WindowThread
from napari_samexp._qt.help_pages import TROUBLESHOOTING, TUTORIAL
from napari_samexp._qt.help_window import HelpWindow
from napari_samexp._qt.napari_internals import unwrapped
from napari_samexp.errors import SamexpError

__all__ = ["Dock", "close_session", "one_shot_timer"]

MESSAGE_MS = 8000
LINK_MS = 30_000  # a message with a link stays long enough to be clicked


def close_session(session: Any, connections: Connections, *_: Any) -> None:
    """Undo all connections and close a session, which ends its worker."""
    connections.undo()
    # joining a thread that is delivering may take a moment
    threading.Thread(target=session.close, name="napari-samexp closing").start()


def one_shot_timer(parent: QObject) -> QTimer:
    """Return a timer that fires once per start."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    return timer


class Dock(QWidget):
    """A dock widget around a panel of controls; `end` is called when it is closed.

    Parameters
    ----------
    panel : QWidget
        With a `hint` line and a `help` button.
    napari_viewer : napari.Viewer

    Attributes
    ----------
    viewer : napari.Viewer
    session : Session or EncodingSession
        None after `end`.
    connections : Connections
        Everything to disconnect at the end.
    window_thread : WindowThread
    """

    tutorial = TUTORIAL

    def __init__(self, panel: Any, napari_viewer: Any) -> None:
        super().__init__()
        self.panel: Any = panel
        self.viewer = unwrapped(napari_viewer)
        self.session: Any = None
        self.connections = Connections()
        self.window_thread = WindowThread(self)
        self._docked = False
        self._message = ""
        self._message_timer = one_shot_timer(self)
        self._message_timer.timeout.connect(self.clear_message)
        self._help: HelpWindow | None = None
        panel.help.clicked.connect(lambda: self.show_help())
        panel.hint.explained.connect(lambda anchor: self.show_help(TROUBLESHOOTING, anchor))
        self.scroll_area = QScrollArea()
        self.scroll_area.setWidgetResizable(True)
        self.scroll_area.setFrameShape(QFrame.Shape.NoFrame)
        self.scroll_area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.scroll_area.setWidget(panel)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.scroll_area)

    def refresh(self) -> None:
        """Show the next step, and enable the controls that can be used now."""
        raise NotImplementedError

    def end(self) -> None:
        """Undo every connection and end the worker; a second call does nothing."""
        self._message_timer.stop()
        session, self.session = self.session, None
        if session is not None:
            close_session(session, self.connections)

    def notify(self, sentence: str, code: str = "") -> None:
        """Show a message for a while instead of the next step; an error's code may link it to help."""
        self._message = sentence
        has_link = self.panel.hint.show_message(sentence, code)
        self._message_timer.start(LINK_MS if has_link else MESSAGE_MS)

    def clear_message(self) -> None:
        """Show the next step again."""
        self._message = ""
        self.refresh()

    def show_hint(self, hint: str) -> None:
        """Show the next step, unless a message is shown."""
        if not self._message:
            self.panel.hint.show_hint(hint)

    @contextmanager
    def errors_shown(self) -> Iterator[None]:
        """Show a `SamexpError` raised in the block as a message."""
        try:
            yield
        except SamexpError as error:
            self.notify(str(error), error.code)

    def show_help(self, page: str = "", anchor: str = "") -> HelpWindow:
        """Open the help window with a page, by default the tutorial."""
        if self._help is None:
            self._help = HelpWindow(self, self.tutorial)
        self._help.open(page or self.tutorial, anchor)
        return self._help

    def end_with_window(self) -> None:
        """End also when napari destroys the dock without closing it first."""
        self.destroyed.connect(partial(close_session, self.session, self.connections))

    def showEvent(self, event: Any) -> None:
        """Be wide enough for all controls; napari's style, which enlarges them, is only known now."""
        bar = self.scroll_area.verticalScrollBar().sizeHint().width()
        self.scroll_area.setMinimumWidth(self.panel.minimumSizeHint().width() + bar)
        super().showEvent(event)

    def event(self, event: QEvent) -> bool:
        """Notice that napari has removed the dock."""
        if event.type() == QEvent.Type.ParentChange:
            self._docked = self._docked or self.parentWidget() is not None
            if self._docked and self.parentWidget() is None:
                # re-docking also removes the widget, and puts it back at once
                QTimer.singleShot(0, self._end_if_undocked)
        return bool(super().event(event))

    def closeEvent(self, event: Any) -> None:
        """End with the window."""
        self.end()
        super().closeEvent(event)

    def _end_if_undocked(self) -> None:
        if self.parentWidget() is None:
            self.end()
            self.deleteLater()
