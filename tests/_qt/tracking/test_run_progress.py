"""A run in the dock's bar and in napari's activity dock."""

from __future__ import annotations

from typing import ClassVar

import pytest
from qtpy.QtWidgets import QProgressBar

from napari_samexp._qt.tracking import run_progress
from napari_samexp._qt.tracking.run_progress import RunProgress
from napari_samexp.session.jobs import JobState


class Bar:
    """What napari's progress would be told."""

    made: ClassVar[list[Bar]] = []

    def __init__(self, total, desc):
        self.total, self.n, self.updates, self.closed = total, 0, 0, False
        self.made.append(self)

    def update(self, count):
        self.n += count
        self.updates += 1

    def close(self):
        self.closed = True


@pytest.fixture
def shown(qtbot, monkeypatch):
    """Show a run at a given second."""
    bar = QProgressBar()
    qtbot.addWidget(bar)
    seconds = [0.0]
    Bar.made = []
    monkeypatch.setattr(run_progress, "progress", Bar)
    monkeypatch.setattr(run_progress.time, "monotonic", lambda: seconds[0])
    progress = RunProgress(bar)

    def show(second, done, state="tracking"):
        seconds[0] = 100 + second
        progress.show(JobState(state, "store", done, 100))
        return bar.value()

    return show


def test_a_short_run_leaves_the_activity_dock_alone(shown):
    assert shown(0, 1) == 1
    assert shown(0.5, 50) == 50
    shown(0.9, 100, "finished")
    assert not Bar.made


def test_the_activity_dock_is_told_once_a_second(shown):
    for tenth in range(36):
        shown(tenth / 10 + 0.01 * tenth, tenth)
    assert [bar.updates for bar in Bar.made] == [3]
    assert 25 < Bar.made[0].n < 36
    shown(9, 100, "finished")
    assert Bar.made[0].closed


def test_a_second_run_gets_a_bar_of_its_own(shown):
    for run in (0, 10):
        shown(run, 1)
        shown(run + 2, 20)
        shown(run + 3, 100, "finished")
    assert [bar.n for bar in Bar.made] == [20, 20]
