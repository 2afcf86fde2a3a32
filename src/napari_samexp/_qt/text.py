"""Text from outside, as a window may show it: never taken for HTML, and never longer than can be read.

Qt guesses of labels, tooltips and message boxes whether they are HTML, and HTML may open any file or nest tables
until the window hangs. Names come from files that people proxy, so nothing here is left to a guess.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QLabel, QMessageBox, QWidget

from napari_samexp._text import clean_name
from napari_samexp.errors import SamexpError

__all__ = ["PlainLabel", "agreed", "button_text", "for_napari", "plain_errors", "readable", "tooltip"]

LONGEST = 4000  # characters
MOST_LINES = 200
WIDEST, WIDEST_NEEDED = 600, 160  # pixels of a label


def readable(text: str) -> str:
    """Return a text without control characters but line breaks, cut to what fits on a screen."""
    lines = text[:LONGEST].split("\n")[:MOST_LINES]
    cut = "…" if len(text) > LONGEST or text.count("\n") >= MOST_LINES else ""
    return "\n".join(clean_name(line, LONGEST) for line in lines) + cut


def tooltip(text: str) -> str:
    """Return a text as a tooltip shows it, in which nothing is a tag.

    Qt offers no plain tooltips: what it could take for HTML is made HTML that says the same.
    """
    plain = readable(text)
    if not {"<", "&"} & set(plain):
        return plain
    return f"<qt>{html.escape(plain).replace(chr(10), '<br>')}</qt>"


def button_text(text: str) -> str:
    """Return a text for a button or a menu, where a single & would underline the next letter."""
    return readable(text).replace("&", "&&")


def for_napari(text: str) -> str:
    """Return a text that napari may show anywhere, as the name of a layer or among its features.

    napari's status bar, tooltips and notifications guess as Qt does, so what opens a tag is replaced by a sign
    that looks like it.
    """
    return clean_name(text.replace("<", "‹").replace("&lt;", "‹"))


@contextmanager
def plain_errors() -> Iterator[None]:
    """Have napari, which shows the errors of readers and writers in a notification, show them as text."""
    try:
        yield
    except SamexpError as error:
        error.args = (str(error).replace("<", "‹").replace("&lt;", "‹"),)
        raise


def agreed(parent: QWidget, question: str) -> bool:
    """Ask a person a question, and return whether the answer was yes."""
    box = QMessageBox(parent)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(readable(question))
    box.setStandardButtons(QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No)
    box.setDefaultButton(QMessageBox.StandardButton.No)
    return bool(box.exec() == QMessageBox.StandardButton.Yes)


class PlainLabel(QLabel):
    """A label whose text is shown letter by letter."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.setText(text)

    def setText(self, text: str | None) -> None:
        """Show a text."""
        self.setTextFormat(Qt.TextFormat.PlainText)
        super().setText(readable(text or ""))

    def sizeHint(self) -> QSize:
        """Return the size it would like, which no word of any length makes wider than a dock may be."""
        return self._bounded(super().sizeHint(), WIDEST)

    def minimumSizeHint(self) -> QSize:
        """Return the least size, which a long word, as Qt does not break it, leaves as it is."""
        return self._bounded(super().minimumSizeHint(), WIDEST_NEEDED)

    def _bounded(self, size: QSize, width: int) -> QSize:
        return size.boundedTo(QSize(width, size.height())) if self.pixmap().isNull() else size

    def set_own_html(self, text: str) -> None:
        """Show HTML of ours, in which everything from outside is escaped."""
        self.setTextFormat(Qt.TextFormat.RichText)
        super().setText(text)
