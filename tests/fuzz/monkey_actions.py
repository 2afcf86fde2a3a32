"""What `monkey.py` does to a window: every action draws all that it needs, so that its number is enough to repeat it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLineEdit,
    QListWidget,
    QTableWidget,
    QWidget,
)

from benchmarks.feel.feel_tools import canvas_of
from napari_samexp._qt.posenc.encoding_frame import grid_of
from tests.fuzz.monkey_layers import HOSTILE, KINDS, NAMES

DOCKS = ("Prior tracking", "Position encodings", "Compare priors and videos", "Measure labels")
BUTTONS = (Qt.MouseButton.LeftButton,) * 5 + (Qt.MouseButton.RightButton,)
MODIFIERS = (Qt.KeyboardModifier.NoModifier,) * 4 + (
    Qt.KeyboardModifier.AltModifier,
    Qt.KeyboardModifier.ControlModifier,
    Qt.KeyboardModifier.ShiftModifier,
)
KEYS = [
    getattr(Qt.Key, f"Key_{name}")
    for name in ["R", "X", "N", "T", "W", "A", "S", "D", "Z", "1", "2", "3", "4", "5"]
]
KEYS += [
    getattr(Qt.Key, f"Key_{name}")
    for name in ["Left", "Right", "Up", "Down", "Delete", "Backspace", "Escape", "Space"]
]
MOST_LAYERS = 9
# official models would be downloaded
UNTOUCHED = ("MB ·",)


class Window:
    """A viewer, its docks, and files to open.

    Parameters
    ----------
    files : list of Path
        What file dialogs are answered with, and what is dropped.
    scratch : Path
        Where files are saved to.
    """

    def __init__(self, viewer: Any, files: list[Path], scratch: Path) -> None:
        self.viewer, self.files, self.scratch = viewer, files, scratch
        self.docks: dict[str, Any] = {}
        self.chance = Random(0)  # of the action that is on: dialogs ask in the middle of it

    def widgets(self, kind: Any) -> list[Any]:
        """Return the controls of a kind that a person could use now."""
        docks = [dock for dock in self.docks.values() if dock is not None]
        found = [widget for dock in docks for widget in dock.findChildren(kind)]
        return [widget for widget in found if widget.isVisible() and widget.isEnabled()]

    def some_path(self) -> str:
        """Return a path that a person might choose."""
        return str(self.chance.choice(self.files))

    def new_path(self) -> str:
        """Return a path to save at, which may be there already."""
        ending = self.chance.choice((".safetensors", ".tif", ".csv", ".png", ".npy", ".zarr", ""))
        return str(self.scratch / f"saved{self.chance.randrange(5)}{ending}")

    @property
    def layers(self) -> list[Any]:
        return list(self.viewer.layers)


Action = Callable[[Window, Random], str]


# ---- layers


def add_layer(window: Window, chance: Random) -> str:
    if len(window.layers) >= MOST_LAYERS:
        return remove_layer(window, chance)
    name, kind = chance.choice(NAMES), chance.choice(sorted(KINDS))
    rng = np.random.default_rng(chance.randrange(2**32))
    shape = tuple(chance.choice(((1, 1), (48, 64), (64, 48), (5, 90), (96, 96))))
    shape = tuple(chance.choice((1, 2, 6)) for _ in range(chance.choice((0, 0, 1, 1, 2, 3)))) + shape
    KINDS[kind](window.viewer, rng, shape, name)
    return f"{kind} {shape} {name[:20]!r}"


def remove_layer(window: Window, chance: Random) -> str:
    if not window.layers:
        return ""
    layer = chance.choice(window.layers)
    window.viewer.layers.remove(layer)
    return str(layer.name)[:20]


def change_layer(window: Window, chance: Random) -> str:
    """Rename, hide, select, move, or place a layer elsewhere."""
    if not window.layers:
        return ""
    layer, what = (
        chance.choice(window.layers),
        chance.choice(("name", "hide", "select", "move", "lies", "copy")),
    )
    if what == "name":
        layer.name = chance.choice(NAMES)
    elif what == "hide":
        layer.visible = not layer.visible
    elif what == "select":
        window.viewer.layers.selection = {layer}
        window.viewer.layers.selection.active = layer
    elif what == "move":
        window.viewer.layers.move(
            chance.randrange(len(window.layers)), chance.randrange(len(window.layers) + 1)
        )
    elif what == "lies":
        layer.scale = [chance.choice((0.5, 1.0, 3.0)) for _ in range(layer.ndim)]
        layer.translate = [chance.choice((0.0, -20.0, 7.5)) for _ in range(layer.ndim)]
    elif len(window.layers) < MOST_LAYERS:
        window.viewer.add_layer(type(layer).create(*layer.as_layer_data_tuple()))
    return f"{what} of {layer.name[:20]!r}"


def clear_layers(window: Window, chance: Random) -> str:
    if chance.random() < 0.7:
        return ""
    window.viewer.layers.clear()
    return "all"


# ---- the viewer


def look_elsewhere(window: Window, chance: Random) -> str:
    viewer, what = (
        window.viewer,
        chance.choice(("step", "step", "step", "3D", "order", "grid", "theme", "size", "home")),
    )
    if viewer.dims.ndisplay == 3 and chance.random() < 0.5:  # which software draws slowly
        what = "home"
    if what == "step":
        axis = chance.randrange(viewer.dims.ndim)
        viewer.dims.set_current_step(axis, chance.randrange(max(1, int(viewer.dims.nsteps[axis]))))
    elif what == "3D":
        viewer.dims.ndisplay = 5 - viewer.dims.ndisplay
    elif what == "order":
        viewer.dims.order = chance.sample(range(viewer.dims.ndim), viewer.dims.ndim)
    elif what == "grid":
        grid = grid_of(viewer)
        grid.enabled = not grid.enabled
    elif what == "theme":
        viewer.theme = chance.choice(("dark", "light"))
    elif what == "size":
        viewer.window.resize(chance.randrange(400, 1000), chance.randrange(300, 700))
    else:
        viewer.dims.ndisplay = 2
        viewer.dims.order = range(viewer.dims.ndim)
        viewer.reset_view()
    return what


def click_canvas(window: Window, chance: Random) -> str:
    canvas, button, held = canvas_of(window.viewer), chance.choice(BUTTONS), chance.choice(MODIFIERS)
    place, moved = (QPoint(chance.randrange(canvas.width()), chance.randrange(canvas.height())) for _ in "ab")
    QTest.mouseMove(canvas, place)
    QTest.mousePress(canvas, button, held, place)
    if chance.random() < 0.3:
        QTest.mouseMove(canvas, moved)
        place = moved
    QTest.mouseRelease(canvas, button, held, place)
    return f"{place.x()}, {place.y()}"


def press_key(window: Window, chance: Random) -> str:
    key = chance.choice(KEYS)
    targets = [
        canvas_of(window.viewer),
        *window.widgets(QListWidget),
        *_named(window, "timeline", "frequencies"),
    ]
    target = chance.choice(targets)
    target.setFocus()
    QTest.keyClick(target, key, chance.choice(MODIFIERS))
    return f"{key} on {target.objectName()}"


def _named(window: Window, *names: str) -> list[QWidget]:
    return [widget for widget in window.widgets(QWidget) if widget.objectName() in names]


# ---- docks


def open_or_close_dock(window: Window, chance: Random) -> str:
    name = chance.choice(DOCKS + DOCKS[:2])
    if window.docks.get(name) is not None and chance.random() < 0.6:  # docks stay for a while
        return ""
    return toggle_dock(window, name)


def toggle_dock(window: Window, name: str) -> str:
    """Open a dock, or close it."""
    dock = window.docks.get(name)
    if dock is None:
        _, window.docks[name] = window.viewer.window.add_plugin_dock_widget("napari-samexp", name)
        return f"open {name}"
    window.docks[name] = None
    window.viewer.window.remove_dock_widget(dock)
    return f"close {name}"


def press_button(window: Window, chance: Random) -> str:
    buttons = window.widgets(QAbstractButton)
    if not buttons:
        return ""
    button = chance.choice(buttons)
    name = f"{button.objectName()} {button.text()[:20]!r}"
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    return name


def choose(window: Window, chance: Random) -> str:
    combos = window.widgets(QComboBox)
    if not combos:
        return ""
    combo = chance.choice(combos)
    places = [i for i in range(combo.count()) if not any(word in combo.itemText(i) for word in UNTOUCHED)]
    if not places:
        return ""
    place = chance.choice(places)
    combo.setCurrentIndex(place)
    combo.activated.emit(place)
    return f"{combo.objectName()}: {combo.itemText(place)[:20]!r}"


def type_text(window: Window, chance: Random) -> str:
    fields = [each for each in window.widgets(QLineEdit) if not each.isReadOnly()]
    if not fields:
        return ""
    field, text = chance.choice(fields), chance.choice([*HOSTILE, "1", "64", "128", "-5", "1e9", "nan"])
    field.setFocus()
    field.selectAll()
    field.insert(text)
    QTest.keyClick(field, Qt.Key.Key_Return)
    return f"{field.objectName()}: {text[:20]!r}"


def spin(window: Window, chance: Random) -> str:
    boxes = window.widgets(QAbstractSpinBox)
    if not boxes:
        return ""
    box = chance.choice(boxes)
    box.stepBy(chance.choice((-1000, -1, 1, 7, 1000)))
    return str(box.objectName())


def click_item(window: Window, chance: Random) -> str:
    """Click, tick or rename something in a list, or click on a cell of a table."""
    lists = [each for each in window.widgets((QListWidget, QTableWidget)) if each.model().rowCount()]
    if not lists:
        return ""
    view = chance.choice(lists)
    if isinstance(view, QTableWidget):
        row, column = chance.randrange(view.rowCount()), chance.randrange(max(1, view.columnCount()))
        view.cellClicked.emit(row, column)
        return f"cell {row}, {column}"
    item = view.item(chance.randrange(view.count()))
    view.setCurrentItem(item)
    what = chance.choice(("click", "tick", "rename", "menu"))
    if what == "tick":
        item.setCheckState(chance.choice((Qt.CheckState.Checked, Qt.CheckState.Unchecked)))
    elif what == "rename":
        item.setText(chance.choice(HOSTILE))
    elif what == "menu":
        view.customContextMenuRequested.emit(QPoint(5, 5))
    return what


def open_file(window: Window, chance: Random) -> str:
    """Open or drop a file in the way that is meant for it, or in another."""
    path = window.some_path()
    prior, compared = window.docks.get(DOCKS[0]), window.docks.get(DOCKS[2])
    if prior is not None and path.endswith(".safetensors"):
        prior.panel.recordings.dropped.emit(path)
    elif prior is not None and chance.random() < 0.4:
        prior.open_video_from(path)
    elif compared is not None and path.endswith(".json"):
        compared.load(path)
    elif len(window.layers) < MOST_LAYERS:
        window.viewer.open(path, plugin="napari-samexp")
    return Path(path).name[:30]


def go_on_with_a_run(window: Window, chance: Random) -> str:
    """Take the next step to a run with the tiny model, or trouble the one that is on."""
    dock = window.docks.get(DOCKS[0])
    if dock is None:
        return ""
    by_name = {path.name: str(path) for path in window.files}
    if dock.session.models.state.name != by_name["tiny.safetensors"]:
        dock.session.load_model(by_name["tiny.safetensors"])
        return "model"
    if not dock.session.recordings.labels:
        dock.panel.recordings.dropped.emit(
            by_name[chance.choice(("prior.safetensors", "hostile.safetensors"))]
        )
        return "prior"
    if dock.videos.current is None:
        dock.open_video_from(by_name[chance.choice(("clip.mp4", "stack.tif", "images"))])
        return "video"
    names = (
        "track",
        "track",
        "pause",
        "cancel",
        "remember_frame",
        "reset_memory",
        "use_side",
        "record",
        "next_lost",
    )
    button = getattr(dock.panel, chance.choice(names))
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    return f"{button.objectName()} {dock.session.tracking.job.state}"


def wait(window: Window, chance: Random) -> str:
    QTest.qWait(chance.choice((20, 200, 800)))
    return ""


def hover(window: Window, chance: Random) -> str:
    """Rest over something, so that its tooltip comes."""
    targets = window.widgets(QWidget)
    target = chance.choice(targets) if targets else canvas_of(window.viewer)
    place = QPoint(chance.randrange(max(1, target.width())), chance.randrange(max(1, target.height())))
    QTest.mouseMove(target, place)
    from qtpy.QtGui import QHelpEvent

    event = QHelpEvent(QHelpEvent.Type.ToolTip, place, target.mapToGlobal(place))
    QApplication.sendEvent(getattr(target, "viewport", lambda: target)(), event)
    return str(target.objectName())


ACTIONS: dict[Action, int] = {
    add_layer: 9, remove_layer: 5, change_layer: 9, clear_layers: 1, look_elsewhere: 9, click_canvas: 12,
    press_key: 6, open_or_close_dock: 6, press_button: 16, choose: 8, type_text: 6, spin: 4, click_item: 7, open_file: 6,
    hover: 4, wait: 4, go_on_with_a_run: 14,
}  # fmt: skip
