"""The welcome box of a dock that is opened for the first time."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QRectF, Qt, Signal
from qtpy.QtGui import QPainter, QPalette
from qtpy.QtWidgets import QFrame, QHBoxLayout, QToolButton, QVBoxLayout

from napari_samexp._qt.controls import button, named
from napari_samexp._qt.text import PlainLabel

__all__ = ["Welcome"]

WORDS = (
    "<b>New here?</b> Click on an object in an image and record it, open a video, and press Track. "
    "The numbers below are the steps."
)
_FAINT = 70


class Welcome(QFrame):
    """A frame that is closed once and for all.

    Signals
    -------
    sample_asked, tutorial_asked, dismissed : no value
    """

    sample_asked = Signal()
    tutorial_asked = Signal()
    dismissed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("welcome")
        words = PlainLabel()
        words.set_own_html(WORDS)
        words.setWordWrap(True)
        self.sample = button("Open the sample", "welcome_sample", "Open the bundled image and clip.")
        self.tutorial = button("Tutorial", "welcome_tutorial", "Read the first steps.")
        self.close_button = named(QToolButton(), "welcome_close", "Do not show this again; ? opens the help.")
        self.close_button.setText("✕")
        self.close_button.setAutoRaise(True)
        top = QHBoxLayout()
        top.addWidget(words, 1)
        top.addWidget(self.close_button)
        top.setAlignment(self.close_button, Qt.AlignmentFlag.AlignTop)
        bottom = QHBoxLayout()
        bottom.addWidget(self.sample)
        bottom.addWidget(self.tutorial)
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 6, 6, 8)
        column.addLayout(top)
        column.addLayout(bottom)
        self.sample.clicked.connect(lambda: self.sample_asked.emit())
        self.tutorial.clicked.connect(lambda: self.tutorial_asked.emit())
        self.close_button.clicked.connect(lambda: self.dismissed.emit())

    def paintEvent(self, event: Any) -> None:
        """Draw a thin border, which napari's theme omits."""
        super().paintEvent(event)
        colour = self.palette().color(QPalette.ColorRole.WindowText)
        colour.setAlpha(_FAINT)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(colour)
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)
