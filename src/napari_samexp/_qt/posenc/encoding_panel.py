"""The controls of the Position encodings dock: names, texts and layout. No state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QProgressBar, QSizePolicy, QVBoxLayout, QWidget
from superqt import QLabeledSlider

from napari_samexp._qt.controls import Section, button, form, make_bold, named, row, shrinkable
from napari_samexp._qt.hint_line import HintLine, header_row, help_button
from napari_samexp._qt.posenc.spectrum_view import FrequencyPlot, SpectrumView
from napari_samexp._qt.text import PlainLabel, tooltip
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
    """Every control of the dock, as an attribute named like its ``objectName``."""

    def __init__(self) -> None:
        super().__init__()
        self.hint, self.help = HintLine(), help_button()
        self.status = named(
            PlainLabel(" "), "status", "The channel, the token under the pointer and its value."
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
        """Reserve room for two lines; napari's font is only known now."""
        for label in (self.hint, self.status):
            label.setMinimumHeight(2 * label.fontMetrics().lineSpacing())
        super().showEvent(event)

    def show_part(self, part: EncodingSpec) -> None:
        """Set the controls to a part's own grid and what it supports, without emitting changes."""
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
        """Show the progress of a download; `total` is None if unknown."""
        self.download.show()
        self.progress.setMaximum(1000 if total else 0)
        self.progress.setValue(round(1000 * done / total) if total else 0)
        self.progress.setFormat(f"{done / 1e6:.0f} of {(total or 0) / 1e6:.0f} MB")

    def show_second(self, shown: bool) -> None:
        """Show or hide the controls of the second model."""
        self.compare_dtype.setVisible(shown)
        self._compare_dtype_label.setVisible(shown)

    def show_pointer(self, lines: Sequence[str]) -> None:
        """Show what is under the pointer, one line per map, each elided to the dock's width."""
        metrics, width = self.status.fontMetrics(), self.status.width()
        self.status.setText(
            "\n".join(metrics.elidedText(line, Qt.TextElideMode.ElideRight, width) for line in lines)
        )

    def _what(self) -> Section:
        section = Section("Encoding", "section_encoding", "Which of a model's position encodings is shown.")
        self.model = named(
            QComboBox(), "model", "The model. Only its tables are read; official files are downloaded once."
        )
        self.part = named(QComboBox(), "part", "Which of the model's encodings to show.")
        self.part.setMaxVisibleItems(24)
        self.dtype = _dtypes(
            "dtype", "The dtype in which the encoding is computed, or the rounding error against float32."
        )
        self.progress = named(QProgressBar(), "progress", "How much of the weights has been downloaded.")
        self.progress.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.cancel = button("Cancel", "cancel", "Stop the download; the next one continues from there.")
        self.download = row(self.progress, self.cancel, stretch=0)
        self.download.hide()
        for combo in (self.model, self.part):
            shrinkable(combo)
        layout = form()
        layout.addRow("model", self.model)
        layout.addRow("part", self.part)
        layout.addRow("dtype", self.dtype)
        section.rows.addLayout(layout)
        section.rows.addWidget(self.download)
        return section

    def _grid(self) -> Section:
        section = Section("Grid", "section_grid", "The grid of tokens on which the encoding is computed.")
        self.grid_height = _slider("grid_height", "Rows of tokens. (W more, S fewer)")
        self.grid_width = _slider("grid_width", "Columns of tokens. (D more, A fewer)")
        self.window_tile = named(
            QCheckBox("window tile"), "window_tile", "Add SAM 2's window table, tiled over the grid. (T)"
        )
        self.window_tile.setChecked(True)
        self.native_grid = button("Model's own grid", "native_grid", "Go back to the model's own grid.")
        layout = form()
        layout.addRow("height", self.grid_height)
        layout.addRow("width", self.grid_width)
        section.rows.addLayout(layout)
        section.rows.addWidget(row(self.window_tile, self.native_grid))
        return section

    def _look(self) -> Section:
        section = Section("Display", "section_display", "What is shown, and which model it is compared with.")
        self.contrast = named(
            QComboBox(),
            "contrast",
            "Contrast limits: the 1st and 99th percentile over all channels, or of each channel.",
        )
        self.contrast.addItems(list(CONTRASTS))
        self.show_norm = named(
            QCheckBox("L2 norm"), "show_norm", "Show the L2 norm of each token's vector next to the map."
        )
        self.show_norm.setChecked(True)
        self.similarity = named(
            QCheckBox("similarity"),
            "similarity",
            "Show the cosine similarity of every token to the one under the pointer. A click holds a token, "
            "the next click releases it.",
        )
        self.compare = named(
            QComboBox(),
            "compare",
            "Show a second model next to the first, in napari's grid view. The slider goes through the "
            "channels of both, from first to last.",
        )
        shrinkable(self.compare)
        self.compare_dtype = _dtypes("compare_dtype", "The dtype of the second model's encoding.")
        layout = form()
        layout.addRow("contrast", self.contrast)
        layout.addRow("also show", row(self.show_norm, self.similarity))
        layout.addRow("compare with", self.compare)
        layout.addRow("its dtype", self.compare_dtype)
        self._compare_dtype_label = layout.labelForField(self.compare_dtype)
        self.show_second(False)
        section.rows.addLayout(layout)
        return section

    def _buttons(self) -> QWidget:
        self.add_layers = button(
            "Add layers",
            "add_layers",
            "Show the encoding in the viewer; it follows these controls. Press again to keep these layers as "
            "they are and add new ones.",
        )
        self.export = button(
            "Export…",
            "export",
            "Save the map as a TIFF stack or NumPy array, or a contact sheet of channels as PNG.",
        )
        make_bold(self.add_layers)
        return row(self.add_layers, self.export)

    def _spectrum(self) -> Section:
        section = Section("Spectrum", "section_spectrum", "The spatial frequencies of each channel.")
        self.spectrum = named(
            SpectrumView(),
            "spectrum",
            "Fourier magnitude of the channel in view: frequency 0 in the middle, log scale.",
        )
        self.frequencies = named(
            FrequencyPlot(),
            "frequencies",
            "The dominant frequency of each channel, in cycles across the map; click to go to a channel.",
        )
        section.rows.addWidget(self.spectrum)
        section.rows.addWidget(self.frequencies)
        return section


def _slider(name: str, tip: str) -> QLabeledSlider:
    slider = named(QLabeledSlider(Qt.Orientation.Horizontal), name, tip)
    slider.setRange(2, 128)
    return slider


def _dtypes(name: str, tip: str) -> QComboBox:
    combo = named(QComboBox(), name, tip)
    for dtype in MAP_DTYPES:
        combo.addItem(DTYPE_WORDS[dtype], dtype)
    return combo
