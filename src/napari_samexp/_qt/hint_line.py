"""The line at the top of a dock: what to do next, or what went wrong, with a link to what explains it."""

from __future__ import annotations

import html
from typing import Any

from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QHBoxLayout, QToolButton, QWidget

from napari_samexp._qt.help_pages import slug
from napari_samexp._qt.text import PlainLabel, readable
from napari_samexp._qt.troubles import TROUBLES

__all__ = ["HintLine", "header_row", "help_button"]


class HintLine(PlainLabel):
    """A label of a few lines.

    Signals
    -------
    explained : str
        The address of an entry of the troubleshooting page that somebody wants to read.
    """

    explained = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._error = ("", "")  # sentence and code, if an entry explains it
        self.setWordWrap(True)
        self.setObjectName("hint")
        self.setToolTip("What to do next, and what went wrong.")
        self.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.setTextInteractionFlags(
            Qt.TextInteractionFlag.LinksAccessibleByMouse | Qt.TextInteractionFlag.LinksAccessibleByKeyboard
        )
        self.linkActivated.connect(self.explained)

    def tell(self, step: str) -> None:
        """Show what to do next."""
        self._error = ("", "")
        self.setText(step)

    def say(self, sentence: str, code: str = "") -> bool:
        """Show what happened; return whether an entry of the troubleshooting page explains the code."""
        title = TROUBLES.get(code)
        if title is None:
            self.tell(sentence)
            return False
        self._error = (sentence, code)
        # Qt's own colour of links can hardly be read on a dark ground
        colour = self.palette().color(QPalette.ColorRole.WindowText).name()
        link = f'<a href="{slug(title)}" style="color: {colour}">{html.escape(title, quote=False)}</a>'
        self.set_own_html(f"{html.escape(readable(sentence), quote=False)} Help: {link}.")
        return True

    def changeEvent(self, event: Any) -> None:
        """Follow napari's theme."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange and self._error[1]:
            self.say(*self._error)


def help_button() -> QToolButton:
    """Return the button that opens the pages of help."""
    button = QToolButton()
    button.setText("?")
    button.setAutoRaise(True)
    button.setObjectName("help")
    button.setAccessibleName("help")
    button.setToolTip("Tutorial, keys and troubleshooting.")
    font = button.font()
    font.setBold(True)
    button.setFont(font)
    return button


def header_row(hint: HintLine, button: QToolButton) -> QWidget:
    """Return both beside each other, the button in the corner."""
    holder = QWidget()
    row = QHBoxLayout(holder)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(4)
    row.addWidget(hint, 1)
    row.addWidget(button, 0, Qt.AlignmentFlag.AlignTop)
    return holder
