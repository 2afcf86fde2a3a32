"""The help window: tutorial, keys and troubleshooting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import (
    QDesktopServices,
    QPalette,
    QTextBlock,
    QTextBlockFormat,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
    QTextLength,
    QTextTable,
)
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QPushButton, QTextBrowser, QVBoxLayout, QWidget

from napari_samexp._qt.help_pages import TROUBLESHOOTING, TUTORIAL, page, slug
from napari_samexp._qt.shortcuts import as_markdown
from napari_samexp._qt.text import tooltip

__all__ = ["KEYS", "HelpWindow"]

KEYS = "keys"
SIZE = (620, 640)
_MARGIN = 12
_CELL = 3


class HelpWindow(QWidget):
    """Shows the help pages of a dock in a window of its own.

    Parameters
    ----------
    parent : QWidget
        The dock.
    tutorial : str
        The page of the first button.
    """

    def __init__(self, parent: QWidget, tutorial: str = TUTORIAL) -> None:
        super().__init__(parent, Qt.WindowType.Window)
        self.setObjectName("help_window")
        self.setWindowTitle("Help: SAM experiments")
        self._name = ""
        self.browser = _Browser()
        self.browser.setObjectName("help_text")
        self.browser.setOpenLinks(False)
        self.browser.document().setDocumentMargin(_MARGIN)
        self.browser.anchorClicked.connect(self._follow)
        self._group = QButtonGroup(self)
        row = QHBoxLayout()
        self._buttons: dict[str, QPushButton] = {}
        for text, name, tip in (
            ("Tutorial", tutorial, "The first steps."),
            ("Keys", KEYS, "What keys and clicks do."),
            ("Troubleshooting", TROUBLESHOOTING, "What messages mean, and what to do."),
        ):
            button = QPushButton(text)
            button.setCheckable(True)
            button.setObjectName(f"help_{text.lower()}")
            button.setToolTip(tooltip(tip))
            button.clicked.connect(lambda checked=False, name=name: self.show_page(name))
            self._group.addButton(button)
            self._buttons[name] = button
            row.addWidget(button)
        column = QVBoxLayout(self)
        column.addLayout(row)
        column.addWidget(self.browser)
        self.resize(*SIZE)

    @property
    def name(self) -> str:
        """The page shown."""
        return self._name

    def open(self, name: str, anchor: str = "") -> None:
        """Show the window in front, with a page."""
        self.show()
        self.raise_()
        self.activateWindow()
        self.show_page(name, anchor)

    def show_page(self, name: str, anchor: str = "") -> None:
        """Show a page from its top, or from a heading."""
        if name != self._name:
            self._name = name
            self.browser.setMarkdown(as_markdown() if name == KEYS else page(name))
            self._lay_out()
            self._follow_theme()
        self._group.setExclusive(False)
        for owner, button in self._buttons.items():
            button.setChecked(owner == name)
        self._group.setExclusive(True)
        self._go_to(anchor)

    def changeEvent(self, event: Any) -> None:
        """Follow napari's theme."""
        super().changeEvent(event)
        if event.type() == event.Type.PaletteChange and self._name:
            self._follow_theme()

    def keyPressEvent(self, event: Any) -> None:
        """Close with Escape."""
        if event.key() == Qt.Key.Key_Escape:
            self.close()
        else:
            super().keyPressEvent(event)

    # ---- inside

    def _follow(self, url: QUrl) -> None:
        if url.scheme():
            QDesktopServices.openUrl(url)
        else:
            self.show_page(url.path() or self._name, url.fragment())

    def _go_to(self, anchor: str) -> None:
        block = self._heading(anchor)
        bar = self.browser.verticalScrollBar()
        if block is None:
            bar.setValue(0)
            return
        self.browser.setTextCursor(QTextCursor(block))
        place = self.browser.document().documentLayout().blockBoundingRect(block)
        bar.setValue(round(place.top()) - _CELL)

    def _heading(self, anchor: str) -> QTextBlock | None:
        heads = (block for block in _blocks(self.browser.document()) if block.blockFormat().headingLevel())
        return next((block for block in heads if anchor and slug(block.text()) == anchor), None)

    def _lay_out(self) -> None:
        """Wrap code, and show tables at full width without cell borders."""
        cursor = QTextCursor(self.browser.document())
        wrapped = QTextBlockFormat()
        wrapped.setNonBreakableLines(False)
        cursor.select(QTextCursor.SelectionType.Document)
        cursor.mergeBlockFormat(wrapped)
        for frame in self.browser.document().rootFrame().childFrames():
            if isinstance(frame, QTextTable):
                look = frame.format()
                look.setBorder(0)
                look.setCellPadding(_CELL)
                look.setCellSpacing(0)
                look.setWidth(QTextLength(QTextLength.Type.PercentageLength, 100))
                frame.setFormat(look)

    def _follow_theme(self) -> None:
        """Show links in the text colour: Qt's own is hard to read on a dark background."""
        look = QTextCharFormat()
        look.setForeground(self.browser.palette().color(QPalette.ColorRole.Text))
        look.setFontUnderline(True)
        for start, length in _links(self.browser.document()):
            cursor = QTextCursor(self.browser.document())
            cursor.setPosition(start)
            cursor.setPosition(start + length, QTextCursor.MoveMode.KeepAnchor)
            cursor.mergeCharFormat(look)


class _Browser(QTextBrowser):
    """Shows the given pages, and opens no file or address that they name."""

    def loadResource(self, kind: int, name: QUrl) -> Any:
        """Load nothing: the pages are text."""
        return None


def _blocks(document: QTextDocument) -> Iterator[QTextBlock]:
    block = document.begin()
    while block.isValid():
        yield block
        block = block.next()


def _links(document: QTextDocument) -> list[tuple[int, int]]:
    """Return the start and length of each link."""
    places = []
    for block in _blocks(document):
        pieces = block.begin()
        while not pieces.atEnd():
            piece = pieces.fragment()
            if piece.charFormat().isAnchor():
                places.append((piece.position(), piece.length()))
            pieces += 1
    return places
