"""Plots of the Fourier spectrum of one channel, and of the dominant frequencies of all channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent, QPalette, QPen
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_samexp._qt.colours import faint, legible
from napari_samexp._qt.text import tooltip
from napari_samexp.posenc.map import PosencMap, frequency_order
from napari_samexp.posenc.sheet import viridis

__all__ = ["FrequencyPlot", "Series", "SpectrumView", "spectrum_image"]

Floats = npt.NDArray[np.float32]
COLOURS = (QColor(64, 160, 255), QColor(255, 153, 51))  # of the first and the second model
_MARGIN, _LINE = 4, 14
MAX_PIXELS = 118  # per side
_DECADES = 3.0  # of magnitude, from dark to bright


def spectrum_image(magnitude: Floats) -> npt.NDArray[np.uint8]:
    """Return a magnitude (h, w) as colours (h, w, 3): three decades from dark to bright, all zeros dark.

    Above `MAX_PIXELS` per side, blocks are reduced to their maximum, so that no peak is lost.
    """
    magnitude = _peaks(magnitude)
    most = float(magnitude.max())
    if most <= 0:
        return viridis(np.zeros_like(magnitude), (0, 1))
    return viridis(np.log10(np.maximum(magnitude / most, 1e-9)).astype(np.float32), (-_DECADES, 0))


def _peaks(magnitude: Floats) -> Floats:
    """Return the maxima of square blocks."""
    factor = -(-max(magnitude.shape) // MAX_PIXELS)
    height, width = (-(-size // factor) * factor for size in magnitude.shape)
    padded = np.zeros((height, width), np.float32)
    padded[: magnitude.shape[0], : magnitude.shape[1]] = magnitude
    blocks = padded.reshape(height // factor, factor, width // factor, factor)
    return np.asarray(blocks.max(axis=(1, 3)))


class _Plot(QWidget):
    def __init__(self, height: int, name: str) -> None:
        super().__init__()
        self._size = QSize(260, height)
        self.setMinimumHeight(height)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(name)

    def sizeHint(self) -> QSize:
        """Return the preferred size."""
        return self._size

    def _begin(self) -> tuple[QPainter, QColor]:
        painter = QPainter(self)
        font = painter.font()
        font.setPixelSize(11)
        painter.setFont(font)
        return painter, self.palette().color(QPalette.ColorRole.WindowText)

    def _colour_of(self, place: int) -> QColor:
        """Return the first or second model's colour, legible in the current theme."""
        return legible(COLOURS[place % 2], self.palette().color(QPalette.ColorRole.Window))


class SpectrumView(_Plot):
    """The Fourier magnitude of one channel of each map, side by side."""

    def __init__(self) -> None:
        super().__init__(132, "Spectrum")
        self.images: list[tuple[str, QImage]] = []

    def show_channels(self, shown: Sequence[tuple[PosencMap, int]]) -> None:
        """Show one channel of each map."""
        self.images = [
            (f"channel {channel}", _image(spectrum_image(each.spectrum(channel)))) for each, channel in shown
        ]
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the spectra as large as they fit."""
        painter, text = self._begin()
        if not self.images:
            painter.setPen(faint(text, 150))
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, "the spectrum appears here")
            return
        width = (self.width() - _MARGIN) / len(self.images)
        for place, (name, image) in enumerate(self.images):
            cell = QRectF(_MARGIN + place * width, 0, width - _MARGIN, self.height())
            painter.drawImage(_fitted(cell.adjusted(0, _LINE, 0, 0), image), image)
            painter.setPen(text if len(self.images) == 1 else self._colour_of(place))
            painter.drawText(cell, Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignHCenter, name)


@dataclass(frozen=True, eq=False)
class Series:
    """The dominant frequencies of a map's channels, (C,)."""

    name: str
    values: Floats


class FrequencyPlot(_Plot):
    """A scatter plot: channel index to the right, dominant frequency upwards."""

    channel_chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__(120, "Dominant frequencies")
        self.series: dict[int, Series] = {}
        self._current = 0
        self.setMouseTracking(True)

    def set_series(self, place: int, series: Series | None) -> None:
        """Show the frequencies of the first (0) or second (1) model, or none."""
        self.series.pop(place, None)
        if series is not None:
            self.series[place] = series
        self.update()

    def set_current(self, channel: int) -> None:
        """Mark a channel of the first model."""
        if channel != self._current:
            self._current = channel
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw axes, dots and the current channel."""
        painter, text = self._begin()
        area = self._area()
        painter.fillRect(area, faint(text, 14))
        if not self.series:
            painter.setPen(faint(text, 150))
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, "dominant frequency of each channel")
            return
        highest = max(1.0, *(float(series.values.max()) for series in self.series.values()))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for place, series in sorted(self.series.items()):
            self._paint_dots(painter, area, series.values, highest, self._colour_of(place))
        self._paint_labels(painter, area, highest, text)
        if 0 in self.series:
            x = area.left() + _across(self._current, len(self.series[0].values)) * area.width()
            painter.setPen(QPen(text, 1.2))
            painter.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()))

    def mousePressEvent(self, event: Any) -> None:
        """Choose the channel under the mouse."""
        if event.button() == Qt.MouseButton.LeftButton and 0 in self.series:
            self.channel_chosen.emit(self._channel_at(event.position().x()))

    def mouseMoveEvent(self, event: Any) -> None:
        """Choose the channel under the mouse while dragging."""
        if event.buttons() & Qt.MouseButton.LeftButton and 0 in self.series:
            self.channel_chosen.emit(self._channel_at(event.position().x()))

    def event(self, event: QEvent) -> bool:
        """Show the frequency of the channel under the mouse as a tooltip."""
        if event.type() == QEvent.Type.ToolTip and 0 in self.series:
            channel = self._channel_at(event.pos().x())
            cycles = float(self.series[0].values[channel])
            words = f"channel {channel}: {cycles:.3g} cycles across"
            QToolTip.showText(event.globalPos(), tooltip(words), self)
            return True
        return bool(super().event(event))

    # ---- parts

    def _area(self) -> QRectF:
        lines = _LINE * max(1, len(self.series))
        return QRectF(_MARGIN, lines, self.width() - 2 * _MARGIN, self.height() - lines - _LINE)

    def _paint_dots(
        self, painter: QPainter, area: QRectF, values: Floats, highest: float, colour: QColor
    ) -> None:
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(faint(colour, 190))
        for channel, value in enumerate(values):
            x = area.left() + _across(channel, len(values)) * area.width()
            y = area.bottom() - 2 - float(value) / highest * (area.height() - 4)
            painter.drawEllipse(QPointF(x, y), 1.6, 1.6)

    def _paint_labels(self, painter: QPainter, area: QRectF, highest: float, text: QColor) -> None:
        for line, (place, series) in enumerate(sorted(self.series.items())):
            painter.setPen(self._colour_of(place))
            order = f"order {frequency_order(series.values):+.2f}"
            row = QRectF(area.left(), line * _LINE, area.width(), _LINE)
            painter.drawText(row, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, order)
            room = row.width() - painter.fontMetrics().horizontalAdvance(order) - 8
            name = painter.fontMetrics().elidedText(series.name, Qt.TextElideMode.ElideRight, int(room))
            painter.drawText(row, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, name)
        painter.setPen(faint(text, 160))
        corner = Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft
        painter.drawText(area.adjusted(3, 0, -3, 0), corner, f"{highest:.3g} cycles")
        below = QRectF(area.left(), area.bottom(), area.width(), _LINE)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, "first channel")
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, "last channel")

    def _channel_at(self, x: float) -> int:
        count = len(self.series[0].values)
        share = (x - _MARGIN) / max(1, self.width() - 2 * _MARGIN)
        return min(max(int(share * count), 0), count - 1)


def _across(channel: int, count: int) -> float:
    return (channel + 0.5) / count


def _image(colours: npt.NDArray[np.uint8]) -> QImage:
    height, width, _ = colours.shape
    data = np.ascontiguousarray(colours)
    return QImage(data.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888).copy()


def _fitted(cell: QRectF, image: QImage) -> QRectF:
    scale = min(cell.width() / image.width(), cell.height() / image.height())
    width, height = image.width() * scale, image.height() * scale
    return QRectF(cell.center().x() - width / 2, cell.top(), width, height)
