"""The list of recordings: thumbnail, name, label, scores and a checkbox each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from qtpy.QtCore import QPoint, QSize, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QKeySequence, QPainter, QPalette, QPixmap, QShortcut
from qtpy.QtWidgets import (
    QAbstractItemView,
    QInputDialog,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QSizePolicy,
    QWidget,
)

from napari_samexp._qt.shortcuts import TRACKING, shown
from napari_samexp._qt.text import tooltip
from napari_samexp.engine.messages.prompts import RecordingInfo

__all__ = ["RecordingsList"]

_KEY = Qt.ItemDataRole.UserRole
_ICON = 40


class RecordingsList(QListWidget):
    """A list of recordings; edits are requested by signals.

    Signals
    -------
    switched : key, bool
    renamed : key, str
    relabelled : key, int
    removed : key
    undone
    dropped : str
        A file that was dropped here.
    """

    switched = Signal(str, bool)
    renamed = Signal(str, str)
    relabelled = Signal(str, int)
    removed = Signal(str)
    undone = Signal()
    dropped = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._infos: dict[str, RecordingInfo] = {}
        self._undoable = False
        self.setIconSize(QSize(_ICON, _ICON))
        self.setUniformItemSizes(True)
        self.setWordWrap(False)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked | QAbstractItemView.EditTrigger.EditKeyPressed
        )
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setAcceptDrops(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.customContextMenuRequested.connect(self._open_menu)
        self.itemChanged.connect(self._item_changed)
        self._shortcut("remove_recording", self.remove_current)
        self._shortcut("undo_recording", self.undone.emit)

    def show_recordings(self, infos: Sequence[RecordingInfo], undoable: bool = False) -> None:
        """Show these recordings, and keep the selection."""
        current = self.current_key()
        self._infos = {info.key: info for info in infos}
        self._undoable = undoable
        self.blockSignals(True)
        self.clear()
        for info in infos:
            item = _item(info)
            self.addItem(item)
            if info.key == current:
                self.setCurrentItem(item)
        self.blockSignals(False)

    def current_key(self) -> str | None:
        """Return the key of the selected recording, or None."""
        item = self.currentItem()
        return None if item is None else str(item.data(_KEY))

    def remove_current(self) -> None:
        """Request the removal of the selected recording."""
        key = self.current_key()
        if key is not None:
            self.removed.emit(key)

    def relabel_current(self) -> None:
        """Ask for a new label of the selected recording."""
        key = self.current_key()
        if key is None:
            return
        value, accepted = QInputDialog.getInt(
            self, "Label", "Label of this recording:", self._infos[key].label, 1, 65535
        )
        if accepted:
            self.relabelled.emit(key, value)

    def rename_current(self) -> None:
        """Edit the selected recording's name in place."""
        if self.currentItem() is not None:
            self.editItem(self.currentItem())

    # ---- Qt

    def paintEvent(self, event: Any) -> None:
        """Show a placeholder text while the list is empty."""
        super().paintEvent(event)
        if not self.count():
            painter = QPainter(self.viewport())
            colour = self.palette().color(QPalette.ColorRole.WindowText)
            colour.setAlpha(150)
            painter.setPen(colour)
            painter.drawText(self.viewport().rect(), Qt.AlignmentFlag.AlignCenter, "recordings appear here")

    def sizeHint(self) -> QSize:
        """Return room for two recordings."""
        return QSize(220, 2 * (_ICON + 6))

    def dragEnterEvent(self, event: Any) -> None:
        """Accept prior files."""
        if _prior_in(event) is None:
            super().dragEnterEvent(event)
        else:
            event.acceptProposedAction()

    def dragMoveEvent(self, event: Any) -> None:
        """Accept prior files."""
        if _prior_in(event) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Request that a prior file is loaded."""
        path = _prior_in(event)
        if path is not None:
            event.acceptProposedAction()
            self.dropped.emit(path)

    def _shortcut(self, name: str, call: Callable[[], Any]) -> None:
        shortcut = QShortcut(QKeySequence(shown(TRACKING[name].keys)), self)
        shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
        shortcut.activated.connect(call)

    def _item_changed(self, item: QListWidgetItem) -> None:
        info = self._infos.get(str(item.data(_KEY)))
        if info is None:
            return
        enabled = item.checkState() == Qt.CheckState.Checked
        if enabled != info.enabled:
            self.switched.emit(info.key, enabled)
        elif item.text() != _title(info):
            self.renamed.emit(info.key, item.text().partition(" · ")[0].strip())

    def _open_menu(self, place: QPoint) -> None:
        menu = QMenu(self)
        chosen = self.currentItem() is not None
        for text, call, usable in (
            ("Rename", self.rename_current, chosen),
            ("Change label…", self.relabel_current, chosen),
            ("Remove", self.remove_current, chosen),
            ("Undo", self.undone.emit, self._undoable),
        ):
            action = menu.addAction(text)
            action.setEnabled(usable)
            action.triggered.connect(lambda checked=False, call=call: call())
        menu.exec(self.mapToGlobal(place))


def _item(info: RecordingInfo) -> QListWidgetItem:
    item = QListWidgetItem(_icon(info.thumbnail), _title(info))
    item.setData(_KEY, info.key)
    item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEditable)
    item.setCheckState(Qt.CheckState.Checked if info.enabled else Qt.CheckState.Unchecked)
    how = "painted" if info.painted else f"{len(info.prompt.points_xy)} clicks"
    notes = [
        f"{_name(info)}, label {info.label}, from {info.image_name or 'an image'} ({how})",
        f"predicted IoU {info.iou:.2f}, presence {info.presence:.1f}, model {info.model}",
        "Ticked recordings are used. Double-click renames; right-click for more.",
    ]
    if not info.usable:
        notes.insert(0, "Recorded with another model, so it is not used; choose that model, or record again.")
    item.setToolTip(tooltip("\n".join(notes)))
    return item


def _name(info: RecordingInfo) -> str:
    return info.name or f"object {info.label}"


def _title(info: RecordingInfo) -> str:
    other = "" if info.usable else " · other model"
    return f"{_name(info)} · label {info.label} · IoU {info.iou:.2f}{other}"


def _icon(pixels: Any) -> QIcon:
    rgb = np.ascontiguousarray(pixels, np.uint8)
    height, width = rgb.shape[:2]
    image = QImage(rgb.data, width, height, 3 * width, QImage.Format.Format_RGB888)
    return QIcon(QPixmap.fromImage(image.copy()))  # a copy, because QImage does not own the array


def _prior_in(event: Any) -> str | None:
    """Return the first prior file of a drag."""
    paths = [url.toLocalFile() for url in event.mimeData().urls()]
    return next((path for path in paths if path.lower().endswith(".safetensors")), None)
