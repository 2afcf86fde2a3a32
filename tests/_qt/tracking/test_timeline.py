"""The score timeline."""

from __future__ import annotations

import time

import numpy as np
import pytest
from napari.utils.colormaps import label_colormap
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QColor, QPalette

from napari_samexp._qt.colours import CONTRAST, contrast, legible
from napari_samexp._qt.tracking.scores import columns_of
from napari_samexp._qt.tracking.timeline import Timeline


@pytest.fixture
def timeline(qtbot):
    widget = Timeline()
    qtbot.addWidget(widget)
    widget.resize(208, 100)
    widget.show()
    widget.reset(100, {1: "cat"}, {1: (0.2, 0.6, 0.3, 1)})
    return widget


def test_no_lost_frame_falls_between_two_pixels():
    values = np.ones(100_000, np.float32)
    values[54_321] = -3
    columns = columns_of(values, 300)
    assert (columns < 0).sum() == 1


def test_columns_without_a_number_stay_so():
    values = np.full(10, np.nan, np.float32)
    values[9] = 1
    assert np.isnan(columns_of(values, 5)[:4]).all()
    assert columns_of(values, 5)[4] == 1


def test_few_values_fill_many_columns():
    np.testing.assert_array_equal(columns_of(np.float32([1, 2]), 4), [1, 1, 2, 2])


def test_a_click_asks_for_the_frame_under_it(qtbot, timeline):
    with qtbot.waitSignal(timeline.frame_chosen) as asked:
        qtbot.mouseClick(timeline, Qt.MouseButton.LeftButton, pos=QPoint(4 + 100, 50))
    assert asked.args == [50]


def test_arrow_keys_step(qtbot, timeline):
    timeline.set_current(10)
    with qtbot.waitSignal(timeline.frame_chosen) as asked:
        qtbot.keyClick(timeline, Qt.Key.Key_Left)
    assert asked.args == [9]


def test_lost_stretches_are_found_in_both_directions(timeline):
    for index in (20, 21, 22, 60):
        timeline.set_score(index, 1, -1.0, 0.1)
    timeline.set_score(23, 1, 4.0, 0.9)
    assert timeline.next_lost(0, 1) == 20
    assert timeline.next_lost(20, 1) == 60
    assert timeline.next_lost(60, 1) is None
    assert timeline.next_lost(60, -1) == 20
    assert timeline.next_lost(20, -1) is None


def test_lost_frames_are_shaded(timeline):
    for index in range(100):
        timeline.set_score(index, 1, -5.0 if 40 <= index < 60 else 5.0, 0.8)
    image = timeline.grab().toImage()
    bottom = image.height() - 8
    lost, found = image.pixelColor(4 + 100, bottom), image.pixelColor(4 + 20, bottom)
    assert lost.red() > lost.green() + 80
    assert lost != found


def test_nothing_is_lost_where_a_person_painted(timeline):
    for index in range(100):
        timeline.set_score(index, 1, -5.0 if 40 <= index < 60 else 5.0, 0.8)
    before = timeline.grab().toImage()
    timeline.set_painted({45, 46, 300})
    image = timeline.grab().toImage()
    for row in (20, image.height() - 8):  # the shade, and the label's row
        assert image.pixelColor(4 + 91, row) == before.pixelColor(4 + 20, row)
        assert image.pixelColor(4 + 100, row) == before.pixelColor(4 + 100, row)
    assert [timeline.next_lost(index, 1) for index in (0, 40, 47)] == [40, 47, None]
    assert timeline.next_lost(47, -1) == 40
    assert timeline._describe(45) == "frame 45, painted by hand\ncat: presence -5.0, IoU 0.80"
    timeline.set_painted({45})
    assert timeline._describe(46) == "frame 46\ncat: presence -5.0, lost, IoU 0.80"
    timeline.reset(100, {1: "cat"}, {})
    assert timeline._describe(45) == "frame 45\ncat: not tracked"


def test_long_videos_draw_quickly(timeline):
    count = 100_000
    timeline.reset(count, {1: "cat", 2: ""}, {})
    for scores in timeline.scores.values():
        scores.presence[:] = np.random.default_rng(0).normal(size=count)
        scores.iou[:] = 0.5
    timeline.grab()
    began = time.process_time()
    timeline.grab()
    assert time.process_time() - began < 0.1


def test_scores_outside_are_left_out(timeline):
    timeline.set_score(1000, 1, 1.0, 1.0)
    timeline.set_score(1, 7, 1.0, 1.0)
    assert np.isnan(timeline.scores[1].presence).all()


def test_measured_j_is_drawn_and_said(timeline):
    timeline.set_score(40, 1, 3.0, 0.9)
    before = timeline.grab().toImage()
    timeline.set_measured({1: np.full(100, 0.25, np.float32)})
    assert timeline.grab().toImage() != before
    assert timeline._describe(40) == "frame 40\ncat: presence 3.0, IoU 0.90, J 0.25"
    timeline.set_measured({1: np.full(99, 0.25, np.float32)})  # of another run
    assert "J" not in timeline._describe(40)
    timeline.set_measured({1: np.full(100, 0.25, np.float32)})
    timeline.reset(100, {1: "cat"}, {})
    assert "J" not in timeline._describe(40)


THEMES = {"dark": ("#23242b", "#f0f1f2"), "light": ("#ebe7e6", "#1e1e21")}  # napari's ground and text


@pytest.mark.parametrize(("window", "text"), THEMES.values(), ids=THEMES)
def test_every_labels_curve_stands_out_in_both_themes(timeline, window, text):
    palette = timeline.palette()
    palette.setColor(QPalette.ColorRole.Window, QColor(window))
    palette.setColor(QPalette.ColorRole.WindowText, QColor(text))
    timeline.setPalette(palette)
    own = label_colormap(49, seed=0.46)
    timeline.reset(10, dict.fromkeys(range(1, 50), ""), {label: own.map(label) for label in range(1, 50)})
    ground = timeline._ground
    painted = timeline.grab().toImage().pixelColor(20, 8)
    assert contrast(painted, ground) < 1.07  # a screen of 16 bits rounds colours
    for label, colour in timeline._colours.items():
        assert contrast(legible(colour, ground), ground) >= CONTRAST, label


@pytest.mark.parametrize(("window", "text"), THEMES.values(), ids=THEMES)
def test_the_curve_that_is_drawn_stands_out(timeline, window, text):
    palette = timeline.palette()
    palette.setColor(QPalette.ColorRole.Window, QColor(window))
    palette.setColor(QPalette.ColorRole.WindowText, QColor(text))
    timeline.setPalette(palette)
    timeline.reset(100, {1: ""}, {1: (0.95, 0.95, 0.2, 1)})  # the first label's yellow
    ground = timeline.grab().toImage().pixelColor(20, 8)
    for index in range(100):
        timeline.set_score(index, 1, 6, 0.5)
    image = timeline.grab().toImage()
    column = [image.pixelColor(40, y) for y in range(4, 40)]
    assert max(contrast(colour, ground) for colour in column if colour.saturation() > 100) >= 3


def test_contrast_is_that_of_wcag():
    assert contrast(QColor("white"), QColor("black")) == pytest.approx(21)
    assert contrast(QColor("#777777"), QColor("white")) == pytest.approx(4.48, abs=0.01)
