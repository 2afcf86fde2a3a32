"""The Compare priors and videos dock: a matrix; a click on a cell opens its video and labels."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_samexp._qt.background import in_background
from napari_samexp._qt.controls import named
from napari_samexp._qt.napari_internals import unwrapped
from napari_samexp._qt.shown_video import ShownVideo, layer_settings
from napari_samexp._qt.text import PlainLabel, confirmed, for_napari, tooltip
from napari_samexp._qt.tracking.run_labels import labels_settings
from napari_samexp._text import clean_name
from napari_samexp.errors import SamexpError
from napari_samexp.io.elsewhere import other_computer
from napari_samexp.io.label_edits import EditableLabels
from napari_samexp.io.video import open_video
from napari_samexp.measure.comparison import MEASURES, Cell, Comparison
from napari_samexp.render.charts import shade

__all__ = ["ComparisonDock"]

_OTHER_COMPUTER = (
    "The comparison names files on the computer {host}. Opening them contacts it, on Windows with your "
    "login name. Open them?"
)
_HOW = "Open a comparison.json written by `napari-samexp compare`."


class ComparisonDock(QWidget):
    """Shows one measure of a comparison as a table; a click on a cell opens its video and labels.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._viewer = unwrapped(napari_viewer)
        self._layers: list[Any] = []
        self._pending: Cell | None = None  # the cell being opened
        self.comparison: Comparison | None = None
        self._file, self._trusted = "", set[str]()  # computers that a person confirmed to contact
        self.open_button = QPushButton("Open…")
        self.measure = QComboBox()
        self.table = QTableWidget()
        self.status = PlainLabel(_HOW)
        self._build()
        self.open_button.clicked.connect(self._choose_file)
        self.measure.currentIndexChanged.connect(self._fill_table)
        self.table.cellClicked.connect(self.open_cell)

    def load(self, path: str) -> None:
        """Show a comparison; an invalid file is reported, and changes nothing."""
        try:
            comparison = Comparison.load(path)
        except SamexpError as error:
            self.status.setText(str(error))
            return
        self.comparison, self._file, self._trusted = comparison, path, set()
        self.measure.blockSignals(True)
        self.measure.clear()
        for name in comparison.measures:
            self.measure.addItem(MEASURES[name], name)
        self.measure.blockSignals(False)
        self.status.setText("Click on a cell to open its video and labels.")
        self._fill_table()

    def open_cell(self, row: int, column: int) -> None:
        """Show a cell's video and labels, replacing those of the last cell."""
        if self.comparison is None:
            return
        cell = self.comparison.cell(row, column)
        if cell.error:
            self.status.setText(cell.error)
            return
        if not self._may_open(cell):
            return
        self._pending = cell
        self.status.setText(f"Opening {cell.row} > {cell.column}…")
        # slow: opening a video reads the whole file
        in_background(
            partial(open_video, cell.video), partial(self._opened, cell), partial(self._failed, cell)
        )

    def _may_open(self, cell: Cell) -> bool:
        """Ask before a path in a file leads to another computer."""
        hosts = {other_computer(path, self._file) for path in (cell.video, cell.store)} - {"", *self._trusted}
        for host in sorted(hosts):
            if not confirmed(self, _OTHER_COMPUTER.format(host=clean_name(host))):
                self.status.setText(f"Not opened: it is on the computer {host}.")
                return False
            self._trusted.add(host)
        return True

    def _opened(self, cell: Cell, video: Any) -> None:
        if cell is not self._pending:  # another cell was clicked meanwhile
            video.close()
            return
        try:
            labels = EditableLabels(cell.store)
        except SamexpError as error:
            self._failed(cell, error)
            return
        self._close_layers()
        name = f"{cell.row} > {cell.column}"
        image = self._viewer.add_image(
            ShownVideo(video, Path(cell.video)), **layer_settings(video, cell.column)
        )
        # frames skipped at the start are not in the video
        settings = {**labels_settings(labels), "name": for_napari(name), "translate": (-cell.skip, 0, 0)}
        self._layers = [image, self._viewer.add_labels(labels, **settings)]
        self._viewer.dims.set_point(0, max(0, (cell.best or 0) - cell.skip))
        self.status.setText(f"{name}: the frame with the highest presence.")

    def _failed(self, cell: Cell, error: BaseException) -> None:
        if cell is self._pending:
            self.status.setText(str(error))

    def _close_layers(self) -> None:
        for layer in self._layers:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._layers = []

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a comparison", "", "Comparison (*.json)")
        if path:
            self.load(path)

    def _fill_table(self) -> None:
        comparison, name = self.comparison, self.measure.currentData()
        if comparison is None or name is None:
            return
        values = comparison.matrix(name)
        self.table.setRowCount(len(comparison.rows))
        self.table.setColumnCount(len(comparison.columns))
        self.table.setHorizontalHeaderLabels(list(comparison.columns))
        self.table.setVerticalHeaderLabels(list(comparison.rows))
        low, high = _limits(name, values.ravel().tolist())
        for row in range(len(comparison.rows)):
            for column in range(len(comparison.columns)):
                item = _item(float(values[row, column]), low, high)
                item.setToolTip(tooltip(_summary(comparison.cell(row, column))))
                self.table.setItem(row, column, item)
        self.table.resizeColumnsToContents()

    def _build(self) -> None:
        named(self.open_button, "open_comparison", _HOW)
        named(self.measure, "measure", "The measure that the cells show.")
        named(
            self.table,
            "matrix",
            "Rows are priors, columns are videos. Click on a cell to open its video and labels.",
        )
        named(self.status, "comparison_status", "What was opened, and what went wrong.")
        self.status.setWordWrap(True)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        top = QHBoxLayout()
        top.addWidget(self.open_button)
        top.addWidget(self.measure, 1)
        layout = QVBoxLayout(self)
        layout.addLayout(top)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.status)


def _item(value: float, low: float, high: float) -> QTableWidgetItem:
    known = math.isfinite(value)
    item = QTableWidgetItem(f"{value:.2f}" if known else "–")
    item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
    if known:
        colour = shade((value - low) / (high - low))
        item.setBackground(QBrush(QColor(*colour)))
        item.setForeground(QBrush(QColor("black" if sum(colour) > 380 else "white")))
    return item


def _limits(measure: str, values: list[float]) -> tuple[float, float]:
    known = [value for value in values if math.isfinite(value)]
    if measure != "presence" or not known:
        return 0.0, 1.0
    return min(0.0, *known), max(1.0, *known)


def _summary(cell: Cell) -> str:
    if cell.error:
        return cell.error
    parts = [
        f"{MEASURES[name]}: {getattr(cell, name):.3f}"
        for name in MEASURES
        if math.isfinite(getattr(cell, name))
    ]
    return "\n".join([f"{cell.row} > {cell.column}, {cell.frames} frames", *parts])
