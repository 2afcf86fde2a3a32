"""A form for a dataclass whose field metadata has help texts and ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import psygnal
from magicgui.widgets import CheckBox, create_widget
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QSpinBox, QWidget

from napari_samexp._qt.text import tooltip

__all__ = ["SettingsForm"]

_OWN = "the model's own"


class SettingsForm(QWidget):
    """One control per field, chosen by magicgui; the field's name is its ``objectName``, its help the tooltip.

    Parameters
    ----------
    kind : type
        A dataclass with fields of bool, int, ``int | None`` or ``Literal``.
    names : tuple of str, optional
        The fields to show, in order; by default all.
    choices : mapping, optional
        Values of text fields.
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
        hints, known = get_type_hints(kind), {field.name: field for field in fields(kind)}
        self._widgets: dict[str, Any] = {}
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        for name in names or tuple(known):
            metadata = known[name].metadata
            self._widgets[name] = self._control(name, hints[name], metadata, (choices or {}).get(name))
            self._add_row(form, name, str(metadata["help"]))

    @property
    def controls(self) -> dict[str, QWidget]:
        """The Qt widget of each field."""
        return {name: widget.native for name, widget in self._widgets.items()}

    def show_values(self, values: Any) -> None:
        """Show the values of an object with these fields, without emitting `edited`."""
        for name, widget in self._widgets.items():
            value = getattr(values, name)
            with widget.changed.blocked():
                if hasattr(widget, "choices") and value not in widget.choices:
                    widget.choices = (*widget.choices, value)  # such as a device that this computer lacks
                widget.value = value

    def _control(self, name: str, hint: Any, metadata: Mapping[str, Any], choices: Any) -> Any:
        numbers = {key: int(metadata[key]) for key in ("min", "max") if metadata.get(key) is not None}
        widget: Any
        if type(None) in get_args(hint):
            widget = _OptionalNumber(name, numbers["min"], numbers["max"], metadata.get("presets") or ())
        else:
            options: dict[str, Any] = {"choices": list(choices)} if choices else dict(numbers)
            label = name.replace("_", " ")
            widget = create_widget(name=name, annotation=hint, label=label, options=options)
        if isinstance(widget.native, QSpinBox):
            widget.native.setKeyboardTracking(False)  # emit only complete numbers
        widget.changed.connect(lambda value: self.edited.emit(name, value))
        return widget

    def _add_row(self, form: QFormLayout, name: str, tip: str) -> None:
        widget = self._widgets[name]
        control = widget.native
        control.setObjectName(name)
        control.setToolTip(tooltip(tip))
        if isinstance(widget, CheckBox):
            control.setText(widget.label)
        form.addRow("" if isinstance(widget, CheckBox) else widget.label, control)
        label = form.labelForField(control)
        if label is not None:
            label.setToolTip(tooltip(tip))


class _OptionalNumber:
    """An integer or None, to choose or to type: an editable combo box with magicgui's interface, which has none."""

    changed = psygnal.Signal(object)

    def __init__(self, name: str, low: int, high: int, presets: Sequence[int]) -> None:
        self.label = name.replace("_", " ")
        self._low, self._high = low, high
        self._value: int | None = None
        self.native = QComboBox()
        self.native.setEditable(True)
        self.native.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        for text in (_OWN, *map(str, presets)):
            self.native.addItem(text)
        self.native.activated.connect(self._entered)
        self.native.lineEdit().editingFinished.connect(self._entered)

    @property
    def value(self) -> int | None:
        return self._value

    @value.setter
    def value(self, value: int | None) -> None:
        self._value = value
        self.native.setEditText(_OWN if value is None else str(value))

    def _entered(self, *_: Any) -> None:
        before, text = self._value, self.native.currentText().strip()
        if text.isdecimal() and self._low <= int(text) <= self._high:
            self.value = int(text)
        else:  # empty is the model's own; an invalid number changes nothing
            self.value = None if text in ("", _OWN) else before
        if self._value != before:
            self.changed.emit(self._value)
