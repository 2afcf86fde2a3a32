"""Connections, and calls on the window's thread."""

from __future__ import annotations

import threading

import pytest
from psygnal import Signal
from qtpy.QtWidgets import QApplication

from napari_samexp._qt.connections import Connections, WindowThread


class Sender:
    said = Signal(int)


def test_everything_is_undone(qtbot):
    sender, heard, undone = Sender(), [], []
    connections = Connections()
    connections.add(sender.said, heard.append)
    connections.later(lambda: undone.append(1))
    sender.said.emit(1)
    connections.undo()
    sender.said.emit(2)
    assert (heard, undone, len(connections)) == ([1], [1], 0)


def test_calls_come_to_the_windows_thread_in_order(qtbot):
    window, heard = WindowThread(), []

    def send():
        for number in range(20):
            window(lambda number=number: heard.append((number, threading.current_thread())))

    thread = threading.Thread(target=send)
    thread.start()
    thread.join()
    qtbot.waitUntil(lambda: len(heard) == 20)
    assert heard == [(number, threading.main_thread()) for number in range(20)]


def test_a_call_that_lets_qt_go_on_is_finished_first(qtbot):
    window, heard = WindowThread(), []

    def slow():
        heard.append("begins")
        window(lambda: heard.append("next"))
        QApplication.processEvents()
        heard.append("ends")

    window(slow)
    qtbot.waitUntil(lambda: "next" in heard)
    assert heard == ["begins", "ends", "next"]


@pytest.mark.parametrize("kind", [RuntimeError, SystemError, TypeError])
def test_what_is_gone_hinders_no_other_from_being_undone(kind):
    """PyQt and PySide say in their own ways that Qt's half of an object has been deleted."""

    class Gone:
        def connect(self, call):
            pass

        def disconnect(self, call):
            raise kind("already deleted")

    undone = []
    connections = Connections()
    connections.later(lambda: undone.append("first"))
    connections.add(Gone(), print)
    connections.undo()
    assert undone == ["first"]
