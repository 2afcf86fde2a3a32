"""The timeline: presence and predicted IoU over time, and where an object was lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_samexp._qt.colours import faint, legible, over
from napari_samexp._qt.text import tooltip
from napari_samexp._qt.tracking.scores import Floats, Scores, columns_of, next_lost, runs

__all__ = ["Timeline"]

PRESENCE_RANGE = 12.0  # logits drawn on either side of zero
_MARGIN = 4
_RUG = 5  # pixels of each label's row of lost frames
_GAP = 3
_MAX_RUGS = 6
_LANE, _LINE, _WORDS = 14, 150, 190  # opacity of 255: background of a curve, its zero line, its name
_RED = QColor(231, 76, 60)


class Timeline(QWidget):
    """Curves of presence (above) and predicted IoU (below).

    Lost frames are shaded, and marked per label in rows at the bottom, unless a person painted them.

    Signals
    -------
    frame_chosen : int
        The frame that was clicked on.
    """

    frame_chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._count = 0
        self._scores: dict[int, Scores] = {}
        self._names: dict[int, str] = {}
        self._colours: dict[int, QColor] = {}
        self._current = 0
        self._measured: dict[int, Floats] = {}
        self._painted = np.zeros(0, np.bool_)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumHeight(96)
        self.setAccessibleName("Scores over time")

    # ---- what it shows

    def reset(self, count: int, names: Mapping[int, str], colours: Mapping[int, Any]) -> None:
        """Show a run of `count` frames without scores; colours are (r, g, b[, a]) from 0 to 1."""
        self._count = count
        self._names = dict(names)
        self._scores = {label: Scores.empty(count) for label in names}
        self._measured = {}
        self._painted = np.zeros(count, np.bool_)
        self._colours = {label: _colour(colours.get(label)) for label in names}
        self.update()

    def set_score(self, index: int, label: int, presence: float, iou: float) -> None:
        """Set the scores of a label in one frame."""
        if label in self._scores and 0 <= index < self._count:
            self._scores[label].presence[index] = presence
            self._scores[label].iou[index] = iou
            self.update()

    def set_measured(self, j: Mapping[int, Floats]) -> None:
        """Show J against ground truth next to the predicted IoU.

        Parameters
        ----------
        j : mapping of int to array, shape (T,), float32
            By label; NaN where nothing was measured.
        """
        self._measured = {label: values for label, values in j.items() if len(values) == self._count}
        self.update()

    def set_painted(self, frames: Collection[int]) -> None:
        """Mark frames that a person painted; nothing counts as lost there."""
        self._painted[:] = False
        self._painted[[index for index in frames if index < self._count]] = True
        self.update()

    def set_current(self, index: int) -> None:
        """Mark the frame in view."""
        if index != self._current:
            self._current = index
            self.update()

    @property
    def count(self) -> int:
        """Frames shown."""
        return self._count

    @property
    def scores(self) -> dict[int, Scores]:
        """Scores by label."""
        return self._scores

    def next_lost(self, index: int, step: int) -> int | None:
        """Return the next (step 1) or previous (-1) frame where an object was lost, or None."""
        return next_lost(self._scores.values(), self._painted, index, step)

    # ---- Qt

    def sizeHint(self) -> QSize:
        """Return the preferred size."""
        return QSize(280, 96)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw everything; a column of pixels stands for many frames, so this is cheap for long videos."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(QPalette.ColorRole.WindowText)
        if not self._count or not self._scores:
            painter.setPen(faint(text, _WORDS))
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, "scores appear here while tracking")
            return
        ground = self._ground
        upper, lower, rugs = self._lanes()
        doubtful = {label: self._doubtful(scores) for label, scores in self._scores.items()}
        self._paint_lost(painter, upper.united(lower), np.fmin.reduce(list(doubtful.values())))
        self._paint_lane(painter, upper, "presence", 0.5, text)
        below = "predicted IoU, and measured J (dots)" if self._measured else "predicted IoU"
        self._paint_lane(painter, lower, below, None, text)
        for row, (label, scores) in enumerate(self._scores.items()):
            clipped = np.clip(scores.presence, -PRESENCE_RANGE, PRESENCE_RANGE) / (2 * PRESENCE_RANGE) + 0.5
            colour = legible(self._colours[label], ground)
            self._paint_curve(painter, upper, clipped, colour)
            self._paint_curve(painter, lower, scores.iou, colour)
            if label in self._measured:
                self._paint_curve(painter, lower, self._measured[label], text, Qt.PenStyle.DotLine)
            if row < _MAX_RUGS:
                self._paint_rug(painter, rugs, row, doubtful[label], colour)
        self._paint_current(painter, text)

    def mousePressEvent(self, event: Any) -> None:
        """Choose the frame under the mouse."""
        if event.button() == Qt.MouseButton.LeftButton and self._count:
            self.frame_chosen.emit(self._frame_at(_x_of(event)))

    def mouseMoveEvent(self, event: Any) -> None:
        """Choose the frame under the mouse while dragging."""
        if event.buttons() & Qt.MouseButton.LeftButton and self._count:
            self.frame_chosen.emit(self._frame_at(_x_of(event)))

    def keyPressEvent(self, event: Any) -> None:
        """Step with the arrow keys."""
        step = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}.get(event.key())
        if step is None or not self._count:
            super().keyPressEvent(event)
        else:
            self.frame_chosen.emit(min(max(self._current + step, 0), self._count - 1))

    def event(self, event: QEvent) -> bool:
        """Show the scores of the frame under the mouse as a tooltip."""
        if event.type() == QEvent.Type.ToolTip and self._count and self._scores:
            words = self._describe(self._frame_at(event.pos().x()))
            QToolTip.showText(event.globalPos(), tooltip(words), self)
            return True
        return bool(super().event(event))

    # ---- parts

    @property
    def _ground(self) -> QColor:
        """The background of the curves in the current theme."""
        text = self.palette().color(QPalette.ColorRole.WindowText)
        return over(self.palette().color(QPalette.ColorRole.Window), faint(text, _LANE))

    def _lanes(self) -> tuple[QRectF, QRectF, QRectF]:
        rugs = (_RUG + 1) * min(len(self._scores), _MAX_RUGS)
        width = self.width() - 2 * _MARGIN
        lane = (self.height() - rugs - 2 * _GAP - 2 * _MARGIN) / 2
        upper = QRectF(_MARGIN, _MARGIN, width, lane)
        lower = QRectF(_MARGIN, upper.bottom() + _GAP, width, lane)
        return upper, lower, QRectF(_MARGIN, lower.bottom() + _GAP, width, rugs)

    def _doubtful(self, scores: Scores) -> Floats:
        """Return presence by frame, negative only where the object is lost and nobody painted."""
        return np.where(self._painted, np.abs(scores.presence), scores.presence)

    def _paint_lost(self, painter: QPainter, area: QRectF, least: Floats) -> None:
        _fill_columns(painter, area, columns_of(least, int(area.width())) < 0, faint(_RED, 60))

    def _paint_lane(
        self, painter: QPainter, area: QRectF, name: str, zero: float | None, text: QColor
    ) -> None:
        painter.fillRect(area, faint(text, _LANE))
        if zero is not None:  # below this line the object is lost
            painter.setPen(QPen(faint(text, _LINE), 1, Qt.PenStyle.DashLine))
            y = area.bottom() - zero * area.height()
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
        font = painter.font()
        font.setPixelSize(10)
        painter.setFont(font)
        painter.setPen(faint(text, _WORDS))
        painter.drawText(
            area.adjusted(4, 1, -4, -1), Qt.AlignmentFlag.AlignBottom | Qt.AlignmentFlag.AlignRight, name
        )

    def _paint_curve(
        self,
        painter: QPainter,
        area: QRectF,
        values: Floats,
        colour: QColor,
        style: Qt.PenStyle = Qt.PenStyle.SolidLine,
    ) -> None:
        painter.setPen(QPen(colour, 1.5, style))
        width = int(area.width())
        columns = columns_of(values, width)
        y = area.bottom() - np.clip(columns, 0, 1) * area.height()
        for run in runs(np.isfinite(columns)):
            points = [QPointF(area.left() + x, float(y[x])) for x in run]
            if len(points) == 1:
                points.append(points[0] + QPointF(1, 0))
            painter.drawPolyline(QPolygonF(points))

    def _paint_rug(self, painter: QPainter, area: QRectF, row: int, doubtful: Floats, colour: QColor) -> None:
        line = QRectF(area.left(), area.top() + row * (_RUG + 1), area.width(), _RUG)
        width = int(area.width())
        columns = columns_of(doubtful, width)
        _fill_columns(painter, line, np.isfinite(columns), faint(colour, 70))
        _fill_columns(painter, line, columns < 0, legible(_RED, self._ground))

    def _paint_current(self, painter: QPainter, text: QColor) -> None:
        x = self._x_at(self._current)
        painter.setPen(QPen(text, 1.5))
        painter.drawLine(QPointF(x, 0), QPointF(x, self.height()))

    def _x_at(self, index: int) -> float:
        width = self.width() - 2 * _MARGIN
        return float(_MARGIN + (index + 0.5) * width / max(1, self._count))

    def _frame_at(self, x: float) -> int:
        width = max(1, self.width() - 2 * _MARGIN)
        return min(max(int((x - _MARGIN) * self._count / width), 0), self._count - 1)

    def _describe(self, index: int) -> str:
        painted = bool(self._painted[index])
        lines = [f"frame {index}, painted by hand" if painted else f"frame {index}"]
        for label, scores in self._scores.items():
            presence, iou = float(scores.presence[index]), float(scores.iou[index])
            name = self._names.get(label) or f"label {label}"
            lost = ", lost" if presence < 0 and not painted else ""
            known = np.isfinite(presence)
            j = float(self._measured[label][index]) if label in self._measured else np.nan
            words = (
                f"{name}: presence {presence:.1f}{lost}, IoU {iou:.2f}" if known else f"{name}: not tracked"
            )
            lines.append(words + (f", J {j:.2f}" if np.isfinite(j) else ""))
        return "\n".join(lines)


def _fill_columns(painter: QPainter, area: QRectF, flags: npt.NDArray[np.bool_], colour: QColor) -> None:
    for run in runs(flags):
        painter.fillRect(QRectF(area.left() + run.start, area.top(), len(run), area.height()), colour)


def _colour(values: Any) -> QColor:
    if values is None:
        return QColor(90, 160, 250)
    red, green, blue = (float(value) for value in list(values)[:3])
    return QColor.fromRgbF(red, green, blue)


def _x_of(event: Any) -> float:
    return float(event.position().x())
