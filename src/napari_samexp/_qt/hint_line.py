"""The line at the top of a dock: the next step, or what went wrong with a link to its explanation."""

from __future__ import annotations

import html
from typing import Any

from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QToolButton, QWidget

from napari_samexp._qt.controls import make_bold, named, row
from napari_samexp._qt.help_pages import slug
from napari_samexp._qt.text import PlainLabel, readable
from napari_samexp._qt.troubles import TROUBLES

__all__ = ["HintLine", "header_row", "help_button"]


class HintLine(PlainLabel):
    """A label of a few lines.

    Signals
    -------
    explained : str
        The anchor of the troubleshooting entry whose link was clicked.
    """

    explained = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._error = ("", "")  # sentence and code, if help explains the code
        self.setWordWrap(True)
        self.setObjectName("hint")
        self.setToolTip("What to do next, and what went wrong.")
        self.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.setTextInteractionFlags(
            Qt.TextInteractionFlag.LinksAccessibleByMouse | Qt.TextInteractionFlag.LinksAccessibleByKeyboard
        )
        self.linkActivated.connect(self.explained)

    def show_hint(self, step: str) -> None:
        """Show the next step."""
        self._error = ("", "")  # sentence and code, if help explains the code
        self.setText(step)

    def show_message(self, sentence: str, code: str = "") -> bool:
        """Show what happened; return whether the code adds a link to the troubleshooting page."""
        title = TROUBLES.get(code)
        if title is None:
            self.show_hint(sentence)
            return False
        self._error = (sentence, code)
        # Qt's own link colour is hard to read on a dark background
        colour = self.palette().color(QPalette.ColorRole.WindowText).name()
        link = f'<a href="{slug(title)}" style="color: {colour}">{html.escape(title, quote=False)}</a>'
        self.set_own_html(f"{html.escape(readable(sentence), quote=False)} Help: {link}.")
        return True

    def changeEvent(self, event: Any) -> None:
        """Follow napari's theme."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange and self._error[1]:
            self.show_message(*self._error)


def help_button() -> QToolButton:
    """Return the button that opens the help window."""
    button = named(QToolButton(), "help", "Tutorial, keys and troubleshooting.")
    button.setText("?")
    button.setAutoRaise(True)
    make_bold(button)
    return button


def header_row(hint: HintLine, button: QToolButton) -> QWidget:
    """Return both in a row, the button in the corner."""
    header = row(hint, button, stretch=0)
    header.layout().setAlignment(button, Qt.AlignmentFlag.AlignTop)
    return header
