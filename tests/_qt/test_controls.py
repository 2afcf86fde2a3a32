"""Every control of every dock can be found by its name, and explains itself."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QListWidget,
    QProgressBar,
    QTableWidget,
    QWidget,
)
from superqt import QLabeledSlider

from napari_samexp._qt.controls import named
from napari_samexp._qt.help_window import HelpWindow
from napari_samexp._qt.measure.comparison import ComparisonDock
from napari_samexp._qt.measure.measuring import MeasuringDock
from napari_samexp._qt.posenc.encoding_panel import EncodingPanel
from napari_samexp._qt.posenc.spectrum_view import FrequencyPlot, SpectrumView
from napari_samexp._qt.text import PlainLabel
from napari_samexp._qt.tracking.panel import Panel
from napari_samexp._qt.tracking.timeline import Timeline

WHOLE = (QComboBox, QAbstractSpinBox, QLabeledSlider)  # their inner buttons and fields are Qt's
INTERACTIVE = (QAbstractButton, QLineEdit, QProgressBar, QListWidget, QTableWidget, Timeline, *WHOLE)
PLOTS = (SpectrumView, FrequencyPlot)


def is_control(widget: QWidget) -> bool:
    """Whether a person uses or reads a widget, and it is not part of another control."""
    parents, parent = [], widget.parentWidget()
    while parent is not None:
        parents.append(parent)
        parent = parent.parentWidget()
    inner = any(isinstance(parent, WHOLE) or parent.objectName().startswith("qt_") for parent in parents)
    line = isinstance(widget, PlainLabel) and bool(widget.objectName())  # what a dock reports
    own = not inner and not widget.objectName().startswith("qt_")
    return own and (line or isinstance(widget, (*INTERACTIVE, *PLOTS)))


def unexplained(root: QWidget) -> list[str]:
    """Return the controls without a name or without a tooltip."""
    controls = [widget for widget in root.findChildren(QWidget) if is_control(widget)]
    assert controls
    return [
        f"{type(control).__name__} {control.objectName()!r}: {control.toolTip()!r}"
        for control in controls
        if not control.objectName() or not control.toolTip()
    ]


def make(kind: str, viewer: Any) -> QWidget:
    return {
        "prior tracking": Panel,
        "position encodings": EncodingPanel,
        "help": lambda: HelpWindow(None),
        "measure": lambda: MeasuringDock(viewer),
        "compare": lambda: ComparisonDock(viewer),
    }[kind]()


@pytest.mark.parametrize("kind", ["prior tracking", "position encodings", "help", "measure", "compare"])
def test_every_control_has_a_name_and_a_tooltip(qtbot: Any, viewer: Any, kind: str) -> None:
    root = make(kind, viewer)
    qtbot.addWidget(root)
    assert unexplained(root) == []


@pytest.mark.parametrize("kind", ["prior tracking", "position encodings", "help", "measure", "compare"])
def test_no_two_controls_of_a_dock_have_one_name(qtbot: Any, viewer: Any, kind: str) -> None:
    root = make(kind, viewer)
    qtbot.addWidget(root)
    names = [widget.objectName() for widget in root.findChildren(QWidget) if is_control(widget)]
    assert len(names) == len(set(names))


def test_a_control_without_a_name_or_a_tooltip_would_be_found(qtbot: Any) -> None:
    root = QWidget()
    qtbot.addWidget(root)
    QLineEdit(root)
    named(QLineEdit(root), "silent", "")
    named(QLineEdit(root), "fine", "A field.")
    named(QLabel(root), "words", "")
    assert [line.split(":")[0] for line in unexplained(root)] == ["QLineEdit ''", "QLineEdit 'silent'"]
