"""Untrusted text in widgets: never interpreted as HTML, and of limited length.

Qt guesses whether labels, tooltips and message boxes are HTML, and HTML may open any file or nest tables until the
window hangs. Names come from files that people exchange, so nothing is left to that guess.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QLabel, QMessageBox, QWidget

from napari_samexp._text import clean_name
from napari_samexp.errors import SamexpError

__all__ = ["PlainLabel", "button_text", "confirmed", "for_napari", "plain_errors", "readable", "tooltip"]

LONGEST = 4000  # characters
MOST_LINES = 200
MAX_WIDTH, MAX_MIN_WIDTH = 600, 160  # pixels of a label


def readable(text: str) -> str:
    """Return a text without control characters (except line breaks), cut to what fits on a screen."""
    lines = text[:LONGEST].split("\n")[:MOST_LINES]
    cut = "…" if len(text) > LONGEST or text.count("\n") >= MOST_LINES else ""
    return "\n".join(clean_name(line, LONGEST) for line in lines) + cut


def tooltip(text: str) -> str:
    """Return a text for a tooltip in which nothing is a tag.

    Qt has no plain-text tooltips, so what it could take for HTML is escaped as HTML.
    """
    plain = readable(text)
    if not {"<", "&"} & set(plain):
        return plain
    return f"<qt>{html.escape(plain).replace(chr(10), '<br>')}</qt>"


def button_text(text: str) -> str:
    """Return a text for a button or menu, with & escaped: a single one underlines the next letter."""
    return readable(text).replace("&", "&&")


def for_napari(text: str) -> str:
    """Return a text that napari may show anywhere, such as a layer's name or features.

    napari's status bar, tooltips and notifications leave the guess to Qt, so < is replaced by a lookalike.
    """
    return clean_name(text.replace("<", "‹").replace("&lt;", "‹"))


@contextmanager
def plain_errors() -> Iterator[None]:
    """Escape errors of readers and writers, which napari shows in a notification."""
    try:
        yield
    except SamexpError as error:
        error.args = (str(error).replace("<", "‹").replace("&lt;", "‹"),)
        raise


def confirmed(parent: QWidget, question: str) -> bool:
    """Ask a yes/no question, and return whether the answer was yes."""
    box = QMessageBox(parent)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(readable(question))
    box.setStandardButtons(QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No)
    box.setDefaultButton(QMessageBox.StandardButton.No)
    return bool(box.exec() == QMessageBox.StandardButton.Yes)


class PlainLabel(QLabel):
    """A label that shows its text literally."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.setText(text)

    def setText(self, text: str | None) -> None:
        """Show a text."""
        self.setTextFormat(Qt.TextFormat.PlainText)
        super().setText(readable(text or ""))

    def sizeHint(self) -> QSize:
        """Return the preferred size; a long word makes it no wider than a dock may be."""
        return self._bounded(super().sizeHint(), MAX_WIDTH)

    def minimumSizeHint(self) -> QSize:
        """Return the minimum size; a long word, which Qt does not break, does not widen it."""
        return self._bounded(super().minimumSizeHint(), MAX_MIN_WIDTH)

    def _bounded(self, size: QSize, width: int) -> QSize:
        return size.boundedTo(QSize(width, size.height())) if self.pixmap().isNull() else size

    def set_own_html(self, text: str) -> None:
        """Show trusted HTML, in which untrusted text is escaped."""
        self.setTextFormat(Qt.TextFormat.RichText)
        super().setText(text)
