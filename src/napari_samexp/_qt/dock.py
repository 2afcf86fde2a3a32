"""What every dock does: it scrolls, it is as wide as its controls, and it ends when napari takes it away."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_samexp._qt.connections import Connections
from napari_samexp._qt.help_pages import TROUBLESHOOTING, TUTORIAL
from napari_samexp._qt.help_window import HelpWindow

__all__ = ["Dock", "let_go", "unwrapped"]


def unwrapped(napari_viewer: Any) -> Any:
    """Return the viewer itself.

    napari hands plugins a proxy, whose layers are new proxies at each look: none is ever the same object.
    """
    return getattr(napari_viewer, "__wrapped__", napari_viewer)


def let_go(session: Any, connections: Connections, *_: Any) -> None:
    """Undo all connections and close a session, which ends its worker."""
    connections.undo()
    # joining a thread that may be delivering could take a moment
    threading.Thread(target=session.close, name="napari-samexp closing").start()


class Dock(QWidget):
    """A widget for napari's docks, around a panel of controls.

    `end` is called once the dock is closed, by napari or with the window.
    """

    tutorial = TUTORIAL

    def __init__(self, panel: Any) -> None:
        super().__init__()
        self.panel: Any = panel
        self._docked = False
        self._help: HelpWindow | None = None
        panel.help.clicked.connect(lambda: self.show_help())
        panel.hint.explained.connect(lambda anchor: self.show_help(TROUBLESHOOTING, anchor))
        self._area = area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(panel)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(area)

    def show_help(self, page: str = "", anchor: str = "") -> HelpWindow:
        """Open the window of help with a page, by default the tutorial."""
        if self._help is None:
            self._help = HelpWindow(self, self.tutorial)
        self._help.open(page or self.tutorial, anchor)
        return self._help

    def end(self) -> None:
        """Let go of everything; a second call does nothing."""
        raise NotImplementedError

    def end_with_window(self, session: Any, connections: Connections) -> None:
        """Also let go where a viewer that is closed destroys its docks without a word to them."""
        self.destroyed.connect(partial(let_go, session, connections))

    def showEvent(self, event: Any) -> None:
        """Be wide enough for all controls; napari's style, which makes them larger, is known only now."""
        bar = self._area.verticalScrollBar().sizeHint().width()
        self._area.setMinimumWidth(self.panel.minimumSizeHint().width() + bar)
        super().showEvent(event)

    def event(self, event: QEvent) -> bool:
        """Notice that napari has taken the dock away."""
        if event.type() == QEvent.Type.ParentChange:
            self._docked = self._docked or self.parentWidget() is not None
            if self._docked and self.parentWidget() is None:
                # docking again takes the widget out first, and puts it back at once
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
