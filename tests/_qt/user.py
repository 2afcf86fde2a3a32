"""What a person does with mouse and keyboard in a real napari window."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

NO_KEY = Qt.KeyboardModifier.NoModifier
MODEL_S = 120_000  # a worker starts and loads a model on a machine that does other things as well


class Waiter:
    """As pytest-qt's robot, where there is no pytest."""

    def waitUntil(self, so: Callable[[], bool], timeout: int) -> None:
        end = time.monotonic() + timeout / 1000
        while not so():
            if time.monotonic() > end:
                raise TimeoutError
            QTest.qWait(10)


class User:
    """Clicks, types and waits; touches neither the session nor the layers.

    Parameters
    ----------
    viewer : napari.Viewer
    dock : PriorTracking
    qtbot : pytestqt.qtbot.QtBot
    """

    def __init__(self, viewer: Any, dock: Any, qtbot: Any) -> None:
        self.viewer, self.dock, self.qtbot = viewer, dock, qtbot
        self.gone = False

    def leave(self) -> None:
        """Close the window, unless that was done before."""
        if not self.gone:
            self.gone = True
            self.viewer.close()

    @property
    def canvas(self) -> Any:
        return self.viewer.window._qt_viewer.canvas.native

    def until(self, so: Callable[[], bool], what: str = "", timeout: int = MODEL_S) -> None:
        try:
            self.qtbot.waitUntil(so, timeout=timeout)
        except Exception as error:
            raise AssertionError(f"{what or so} did not come; the dock says {self.says!r}") from error

    @property
    def says(self) -> str:
        return str(self.dock.panel.hint.text())

    def control(self, name: str) -> Any:
        found = self.dock.findChildren(QWidget, name)
        assert len(found) == 1, name
        return found[0]

    def press(self, name: str) -> None:
        """Press a button of the dock."""
        button = self.control(name)
        self.until(button.isEnabled, f"{name} being enabled", 20_000)
        self._bring_into_view(button)
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)

    def tick(self, name: str) -> None:
        """Click on the square of a checkbox."""
        box = self.control(name)
        self._bring_into_view(box)
        QTest.mouseClick(box, Qt.MouseButton.LeftButton, NO_KEY, QPoint(8, box.height() // 2))

    def choose(self, name: str, text: str) -> None:
        """Choose an entry of a combo box with the keyboard."""
        combo = self.control(name)
        self._bring_into_view(combo)
        assert combo.findText(text) >= 0, [combo.itemText(i) for i in range(combo.count())]
        combo.setFocus()
        while combo.currentIndex() != combo.findText(text):
            down = combo.currentIndex() < combo.findText(text)
            QTest.keyClick(combo, Qt.Key.Key_Down if down else Qt.Key.Key_Up)

    def type_into(self, name: str, text: str) -> None:
        """Replace what a field says."""
        field = self.control(name)
        self._bring_into_view(field)
        field.setFocus()
        field.selectAll()
        QTest.keyClicks(field, text)
        QTest.keyClick(field, Qt.Key.Key_Return)

    def click(
        self, x: float, y: float, *, button: Any = Qt.MouseButton.LeftButton, keys: Any = NO_KEY
    ) -> None:
        """Click on the canvas at a place of the world, as the camera shows it now."""
        place = self.place(x, y)
        QTest.mouseMove(self.canvas, place)
        QTest.mouseClick(self.canvas, button, keys, place)
        QApplication.processEvents()

    def drag(self, *places: tuple[float, float]) -> None:
        """Press at the first (x, y), move over the others, and let go at the last."""
        points = [self.place(*place) for place in places]
        QTest.mousePress(self.canvas, Qt.MouseButton.LeftButton, NO_KEY, points[0])
        for point in points[1:]:
            QTest.mouseMove(self.canvas, point)
            QTest.qWait(20)
        QTest.mouseRelease(self.canvas, Qt.MouseButton.LeftButton, NO_KEY, points[-1])
        QApplication.processEvents()

    def hover(self, x: float, y: float) -> None:
        """Move the mouse."""
        QTest.mouseMove(self.canvas, self.place(x, y))
        QApplication.processEvents()

    def key(self, key: Any, modifier: Any = NO_KEY) -> None:
        """Press a key with the mouse over the canvas."""
        self.canvas.setFocus()
        QTest.keyClick(self.canvas, key, modifier)
        QApplication.processEvents()

    def scrub(self, frame: int) -> None:
        """Move the slider of time."""
        self.viewer.dims.set_current_step(self.viewer.dims.ndim - 3, frame)
        QApplication.processEvents()

    def place(self, x: float, y: float) -> QPoint:
        """Where a place of the world is on the canvas, in Qt's pixels."""
        camera = self.viewer.camera
        centre = np.array(camera.center)[-2:]
        size = np.array([self.canvas.height(), self.canvas.width()])
        row, column = (np.array([y, x]) - centre) * camera.zoom / self.canvas.devicePixelRatioF() + size / 2
        assert 0 <= row < size[0] and 0 <= column < size[1], "that place is not on the canvas"
        return QPoint(round(column), round(row))

    def click_on(self, name: str, share: float) -> None:
        """Click on a control of the dock, at a share of its width."""
        control = self.control(name)
        self._bring_into_view(control)
        place = QPoint(round(share * control.width()), control.height() // 2)
        QTest.mouseClick(control, Qt.MouseButton.LeftButton, NO_KEY, place)
        QApplication.processEvents()

    def _bring_into_view(self, control: Any) -> None:
        area = self.dock.scroll_area
        area.ensureWidgetVisible(control)
        QApplication.processEvents()
