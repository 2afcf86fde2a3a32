"""The controls of the dock "Position encodings": names, words and places. No state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QProgressBar, QSizePolicy, QVBoxLayout, QWidget
from superqt import QLabeledSlider

from napari_samexp._qt.hint_line import HintLine, header_row, help_button
from napari_samexp._qt.posenc.spectrum_view import FrequencyPlot, SpectrumView
from napari_samexp._qt.text import PlainLabel, tooltip
from napari_samexp._qt.tracking.panel import Section, _button, _form, _make_bold, _named, _row, _shrinkable
from napari_samexp.sam.encoding_spec import MAP_DTYPES, EncodingSpec

__all__ = ["CONTRASTS", "EncodingPanel"]

CONTRASTS = ("global", "per channel")
DTYPE_WORDS = {
    "float32": "float32",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "bfloat16-error": "bfloat16 − float32",
    "float16-error": "float16 − float32",
}


class EncodingPanel(QWidget):
    """Every control of the dock, as attributes that are called as their ``objectName``."""

    def __init__(self) -> None:
        super().__init__()
        self.hint, self.help = HintLine(), help_button()
        self.status = _named(
            PlainLabel(" "), "status", "The channel, the place under the pointer and its value."
        )
        self.status.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.status.setAlignment(Qt.AlignmentFlag.AlignTop)
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 6, 6, 6)
        column.setSpacing(4)
        column.addWidget(header_row(self.hint, self.help))
        for section in (self._what(), self._grid(), self._look()):
            column.addWidget(section)
        column.addWidget(self._buttons())
        column.addWidget(self.status)
        column.addWidget(self._spectrum())
        column.addStretch(1)

    def showEvent(self, event: Any) -> None:
        """Leave room for two lines, so that nothing jumps; napari's font is known only now."""
        for label in (self.hint, self.status):
            label.setMinimumHeight(2 * label.fontMetrics().lineSpacing())
        super().showEvent(event)

    def show_part(self, part: EncodingSpec) -> None:
        """Set the controls to what a part can be, on its own grid, without saying that they were changed."""
        self.part.setToolTip(tooltip(part.help))
        self.window_tile.setEnabled(part.tiled)
        self.native_grid.setEnabled(part.resizable)
        for slider, size in zip((self.grid_height, self.grid_width), part.grid_hw):
            slider.blockSignals(True)
            slider.setRange(min(2, size), max(2 * size, 16))
            slider.setValue(size)
            slider.setEnabled(part.resizable)
            slider.blockSignals(False)

    def show_download(self, done: int, total: int | None) -> None:
        """Show how far a download is; `total` is None where unknown."""
        self.download.show()
        self.progress.setMaximum(1000 if total else 0)
        self.progress.setValue(round(1000 * done / total) if total else 0)
        self.progress.setFormat(f"{done / 1e6:.0f} of {(total or 0) / 1e6:.0f} MB")

    def show_second(self, wanted: bool) -> None:
        """Show or hide what only a comparison needs."""
        self.compare_dtype.setVisible(wanted)
        self._compare_dtype_label.setVisible(wanted)

    def say_where(self, lines: Sequence[str]) -> None:
        """Show what is under the pointer, a line a map, each cut to the dock's width."""
        metrics, width = self.status.fontMetrics(), self.status.width()
        self.status.setText(
            "\n".join(metrics.elidedText(line, Qt.TextElideMode.ElideRight, width) for line in lines)
        )

    def _what(self) -> Section:
        section = Section("Encoding", "Which model's encoding is shown, and which of its parts.")
        self.model = _named(
            QComboBox(), "model", "The model. Only its tables are read; official files are downloaded once."
        )
        self.part = _named(QComboBox(), "part", "Which of the model's encodings.")
        self.part.setMaxVisibleItems(24)
        self.dtype = _dtypes("dtype", "The numbers that the model computes in, or what their rounding does.")
        self.progress = _named(QProgressBar(), "progress", "How much of the weights is downloaded.")
        self.progress.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.cancel = _button("Cancel", "cancel", "Stop the download; it goes on from there the next time.")
        self.download = _row(self.progress, self.cancel, stretch=0)
        self.download.hide()
        for combo in (self.model, self.part):
            _shrinkable(combo)
        form = _form()
        form.addRow("model", self.model)
        form.addRow("part", self.part)
        form.addRow("numbers", self.dtype)
        section.rows.addLayout(form)
        section.rows.addWidget(self.download)
        return section

    def _grid(self) -> Section:
        section = Section("Grid", "For how many tokens the encoding is computed.")
        self.grid_height = _slider("grid_height", "Rows of tokens. (W more, S fewer)")
        self.grid_width = _slider("grid_width", "Columns of tokens. (D more, A fewer)")
        self.window_tile = _named(
            QCheckBox("window tile"), "window_tile", "Add SAM 2's window table, tiled over the grid. (T)"
        )
        self.window_tile.setChecked(True)
        self.native_grid = _button(
            "Model's own grid", "native_grid", "Go back to the grid that the model has."
        )
        form = _form()
        form.addRow("height", self.grid_height)
        form.addRow("width", self.grid_width)
        section.rows.addLayout(form)
        section.rows.addWidget(_row(self.window_tile, self.native_grid))
        return section

    def _look(self) -> Section:
        section = Section("Look", "What is shown of the encoding, and beside which other.")
        self.contrast = _named(
            QComboBox(),
            "contrast",
            "Dark and bright: the 1st and 99th percentile of all channels, or of each channel by itself.",
        )
        self.contrast.addItems(list(CONTRASTS))
        self.show_norm = _named(
            QCheckBox("L2 norm"), "show_norm", "Show the length of every token's vector beside the map."
        )
        self.show_norm.setChecked(True)
        self.similarity = _named(
            QCheckBox("similarity"),
            "similarity",
            "Show the cosine of every token with the one under the pointer. A click holds a token, "
            "the next click lets it go.",
        )
        self.compare = _named(
            QComboBox(),
            "compare",
            "Show a second model beside the first, in napari's grid view. Both go through their channels "
            "together, from first to last.",
        )
        _shrinkable(self.compare)
        self.compare_dtype = _dtypes("compare_dtype", "The numbers that the second model computes in.")
        form = _form()
        form.addRow("contrast", self.contrast)
        form.addRow("beside it", _row(self.show_norm, self.similarity))
        form.addRow("compare with", self.compare)
        form.addRow("its numbers", self.compare_dtype)
        self._compare_dtype_label = form.labelForField(self.compare_dtype)
        self.show_second(False)
        section.rows.addLayout(form)
        return section

    def _buttons(self) -> QWidget:
        self.add_layers = _button(
            "Add layers",
            "add_layers",
            "Show the encoding in the viewer, and have it follow these controls. Pressed again, what is there "
            "stays as it is, and new layers follow.",
        )
        self.export = _button(
            "Export…",
            "export",
            "Save the map as a TIFF stack or NumPy array, or some channels as a PNG sheet.",
        )
        _make_bold(self.add_layers)
        return _row(self.add_layers, self.export)

    def _spectrum(self) -> Section:
        section = Section("Spectrum", "How fast each channel changes over the grid.")
        self.spectrum = _named(
            SpectrumView(),
            "spectrum",
            "Fourier magnitude of the channel in view, frequency 0 in the middle, brighter is more (log).",
        )
        self.frequencies = _named(
            FrequencyPlot(),
            "frequencies",
            "The strongest frequency of each channel, in cycles across the map; click to go to a channel.",
        )
        section.rows.addWidget(self.spectrum)
        section.rows.addWidget(self.frequencies)
        return section


def _slider(name: str, tip: str) -> QLabeledSlider:
    slider = _named(QLabeledSlider(Qt.Orientation.Horizontal), name, tip)
    slider.setRange(2, 128)
    return slider


def _dtypes(name: str, tip: str) -> QComboBox:
    combo = _named(QComboBox(), name, tip)
    for dtype in MAP_DTYPES:
        combo.addItem(DTYPE_WORDS[dtype], dtype)
    return combo
