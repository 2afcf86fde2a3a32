"""A form for the fields of a dataclass whose metadata says what they are and how far they go."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QSpinBox, QWidget

__all__ = ["SettingsForm"]


class SettingsForm(QWidget):
    """One control a field, with the field's name as its ``objectName`` and its help as its tooltip.

    Parameters
    ----------
    kind : type
        A dataclass with fields of bool, int, ``int | None`` or ``Literal``.
    names : tuple of str, optional
        Which fields, in which order; by default all.
    choices : mapping, optional
        For text fields that have a few good values.
    """

    edited = Signal(str, object)

    def __init__(
        self,
        kind: type,
        names: tuple[str, ...] | None = None,
        choices: Mapping[str, tuple[str, ...]] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        hints = get_type_hints(kind)
        known = {field.name: field for field in fields(kind)}
        self.controls: dict[str, QWidget] = {}
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        for name in names or tuple(known):
            options = (choices or {}).get(name, _options(hints[name]))
            control = self._control(name, hints[name], options, known[name])
            control.setObjectName(name)
            control.setToolTip(str(known[name].metadata["help"]))
            self.controls[name] = control
            words = name.replace("_", " ")
            form.addRow("" if isinstance(control, QCheckBox) else words, control)
            label = form.labelForField(control)
            if label is not None:
                label.setToolTip(control.toolTip())

    def show_values(self, values: Any) -> None:
        """Show the values of an object with these fields, without saying that they were edited."""
        for name, control in self.controls.items():
            control.blockSignals(True)
            _show(control, getattr(values, name))
            control.blockSignals(False)

    def _control(self, name: str, hint: Any, options: tuple[str, ...], field: Field[Any]) -> QWidget:
        if hint is bool:
            box = QCheckBox(name.replace("_", " "))
            box.toggled.connect(lambda value: self.edited.emit(name, value))
            return box
        if options:
            combo = QComboBox()
            combo.addItems(options)
            combo.currentTextChanged.connect(lambda value: self.edited.emit(name, value))
            return combo
        return self._spin(name, hint, field)

    def _spin(self, name: str, hint: Any, field: Field[Any]) -> QSpinBox:
        spin = QSpinBox()
        spin.setKeyboardTracking(False)  # half a number typed is no number
        low, high = int(field.metadata["min"]), int(field.metadata["max"])
        optional = _is_optional(hint)
        spin.setRange(low - optional, high)
        if optional:
            spin.setSpecialValueText("the model's own")
            spin.setProperty("none", low - 1)
        spin.valueChanged.connect(
            lambda value: self.edited.emit(name, None if optional and value < low else value)
        )
        return spin


def _show(control: Any, value: Any) -> None:
    if isinstance(control, QCheckBox):
        control.setChecked(value)
    elif isinstance(control, QComboBox):
        if control.findText(value) < 0:
            control.addItem(value)
        control.setCurrentText(value)
    else:
        control.setValue(control.property("none") if value is None else value)


def _options(hint: Any) -> tuple[str, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()


def _is_optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)
