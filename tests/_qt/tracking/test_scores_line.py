"""The scores of the frame in view: all of them can be read in a narrow dock, and nothing moves."""

import numpy as np
import pytest
from qtpy.QtGui import QColor, QPalette

from napari_samexp._qt.colours import CONTRAST, contrast
from napari_samexp._qt.posenc.spectrum_view import COLOURS, FrequencyPlot, Series
from napari_samexp._qt.tracking.panel import MOST_SCORES, Panel
from napari_samexp._qt.tracking.timeline_control import score_lines
from napari_samexp.types import ObjectScore


@pytest.fixture
def panel(qtbot):
    made = Panel()
    qtbot.addWidget(made)
    return made


def _scores(count):
    return {label: ObjectScore(presence=3.25, iou=0.5) for label in range(1, count + 1)}


def test_each_object_has_a_line():
    scores = {1: ObjectScore(presence=3.25, iou=0.5), 2: ObjectScore(presence=-2.0, iou=0.1)}
    assert score_lines(scores, {1: "cat"}) == [
        "cat: IoU 0.50, presence 3.2",
        "object 2: lost, presence -2.0",
    ]
    assert score_lines({2: scores[2]}, {}, painted=True) == ["object 2: painted, presence -2.0"]
    (line,) = score_lines(_scores(1), {1: "a name that nobody would give to a label"})
    assert line == "a name that nob…: IoU 0.50, presence 3.2"
    assert score_lines({}, {}) == ["this frame is not tracked yet"]


@pytest.mark.parametrize("count", [1, 2, MOST_SCORES, MOST_SCORES + 1, 20])
def test_what_has_no_line_is_in_the_tooltip(panel, count):
    lines = score_lines(_scores(count), {})
    panel.show_scores(lines, count)
    shown = panel.scores_line.text().split("\n")
    assert len(shown) == min(count, MOST_SCORES)
    if count > MOST_SCORES:
        assert shown[-1] == f"and {count - MOST_SCORES + 1} more"
        assert panel.scores_line.toolTip().endswith(lines[-1])
    else:
        assert shown == lines and lines[-1] not in panel.scores_line.toolTip()


def test_lines_fit_a_narrow_dock_and_keep_their_room(panel, qtbot):
    panel.resize(300, 900)
    panel.show()
    panel.show_scores(score_lines(_scores(2), {1: "a long name of a cell", 2: "b"}), 2)
    label = panel.scores_line
    assert max(label.fontMetrics().horizontalAdvance(line) for line in label.text().split("\n")) <= 260
    qtbot.wait(10)
    room = label.sizeHint().expandedTo(label.minimumSize()).height()
    panel.show_scores(score_lines({}, {}), 2)
    assert label.sizeHint().expandedTo(label.minimumSize()).height() == room


@pytest.mark.parametrize("window", ["#23242b", "#ebe7e6"], ids=["dark", "light"])
def test_models_colours_can_be_read_in_both_themes(qtbot, window):
    plot = FrequencyPlot()
    qtbot.addWidget(plot)
    palette = plot.palette()
    palette.setColor(QPalette.ColorRole.Window, QColor(window))
    plot.setPalette(palette)
    plot.resize(260, 120)
    for place in range(len(COLOURS)):
        assert contrast(plot._colour_of(place), QColor(window)) >= CONTRAST
        plot.set_series(place, Series("model", np.linspace(0, 4, 20, dtype=np.float32)))
    image = plot.grab().toImage()
    words = [image.pixelColor(x, y) for x in range(4, 60) for y in range(12)]
    assert max(contrast(colour, QColor(window)) for colour in words) >= 3  # the smoothed edge of letters
