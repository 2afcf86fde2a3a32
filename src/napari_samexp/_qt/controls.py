"""Controls that all docks share: named, with a tooltip, and narrow enough for a dock."""

from __future__ import annotations

from typing import Any, TypeVar

from qtpy.QtCore import Qt
from qtpy.QtGui import QFontMetrics
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_samexp._qt.text import tooltip

__all__ = ["Section", "button", "form", "holder", "make_bold", "named", "row", "shrinkable"]

Control = TypeVar("Control", bound=QWidget)


class Section(QWidget):
    """A heading that folds the rows below it."""

    def __init__(self, title: str, name: str, tip: str, *, folded: bool = False) -> None:
        super().__init__()
        self.head = named(QToolButton(), name, tip)
        self.head.setText(title)
        self.head.setCheckable(True)
        self.head.setAutoRaise(True)
        self.head.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.head.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        make_bold(self.head)
        self.body = QWidget()
        self.rows = QVBoxLayout(self.body)
        self.rows.setContentsMargins(2, 0, 2, 4)
        self.rows.setSpacing(4)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addWidget(self.head)
        column.addWidget(self.body)
        self.head.toggled.connect(self._fold)
        self.head.setChecked(not folded)
        self._fold(not folded)

    def _fold(self, is_open: bool) -> None:
        self.head.setArrowType(Qt.ArrowType.DownArrow if is_open else Qt.ArrowType.RightArrow)
        self.body.setVisible(is_open)


def named(control: Control, name: str, tip: str) -> Control:
    """Give a control its name and tooltip, and return it."""
    control.setObjectName(name)
    control.setToolTip(tooltip(tip))
    control.setAccessibleName(name.replace("_", " "))
    return control


def button(text: str, name: str, tip: str) -> QPushButton:
    """Return a named button; a narrow dock shrinks it rather than showing a scroll bar."""
    made = named(QPushButton(text), name, tip)
    made.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    made.setMinimumWidth(QFontMetrics(made.font()).horizontalAdvance(text) + 14)
    return made


def make_bold(button: Any) -> None:
    """Show the text in bold."""
    font = button.font()
    font.setBold(True)
    button.setFont(font)


def shrinkable(combo: Any) -> None:
    """Keep a long layer name from widening the dock."""
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(10)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)


def row(*widgets: QWidget, stretch: int | None = None) -> QWidget:
    """Return the widgets next to each other; the one at index `stretch` takes the spare width."""
    holder = QWidget()
    layout = QHBoxLayout(holder)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for place, widget in enumerate(widgets):
        layout.addWidget(widget, int(stretch == place) if stretch is not None else 0)
    return holder


def form() -> QFormLayout:
    """Return a form without margins whose fields take the whole width."""
    layout = QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setVerticalSpacing(4)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return layout


def holder(layout: Any) -> QWidget:
    """Return a widget with a layout."""
    widget = QWidget()
    layout.setContentsMargins(2, 0, 2, 0)
    widget.setLayout(layout)
    return widget
