"""What a dock says to somebody who sees it for the first time."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QRectF, Qt, Signal
from qtpy.QtGui import QPainter, QPalette
from qtpy.QtWidgets import QFrame, QHBoxLayout, QPushButton, QToolButton, QVBoxLayout

from napari_samexp._qt.text import PlainLabel, tooltip

__all__ = ["Welcome"]

WORDS = (
    "<b>New here?</b> Click on an object in an image and record it, open a video, and press Track. "
    "The numbers below are the steps."
)
_FAINT = 70


class Welcome(QFrame):
    """A frame that is put away once and for all.

    Signals
    -------
    sample_asked, tutorial_asked, dismissed
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
        self.sample = _button("Open the sample", "welcome_sample", "Open the bundled image and clip.")
        self.tutorial = _button("Tutorial", "welcome_tutorial", "Read the first steps.")
        self.close_button = QToolButton()
        self.close_button.setText("✕")
        self.close_button.setAutoRaise(True)
        self.close_button.setObjectName("welcome_close")
        self.close_button.setToolTip("Do not show this again; the ? above has the same.")
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
        """Draw a thin line around it, in napari's theme, which draws none around frames."""
        super().paintEvent(event)
        colour = self.palette().color(QPalette.ColorRole.WindowText)
        colour.setAlpha(_FAINT)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(colour)
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)


def _button(text: str, name: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setObjectName(name)
    button.setToolTip(tooltip(tip))
    return button
