"""The docks that compare and measure: what is clicked on is what is shown."""

import os
from dataclasses import replace

import numpy as np
import pytest

from napari_samexp._qt.measure import comparison
from napari_samexp._qt.measure.comparison import ComparisonDock
from napari_samexp._qt.measure.measuring import MeasuringDock, masks_of
from napari_samexp.errors import VideoError
from napari_samexp.io import elsewhere
from napari_samexp.io.label_edits import EditableLabels
from napari_samexp.io.labels import LabelStore
from napari_samexp.measure.comparison import Cell, Comparison, compare_column, measure_cell
from napari_samexp.render.mp4 import write_mp4
from napari_samexp.types import FrameResult, ObjectScore, RunIdentity

SHAPE = (5, 40, 60)


def make_store(path, skip=0):
    shape = (SHAPE[0] + skip, *SHAPE[1:])
    identity = RunIdentity("v", str(path), "m", "s")
    with LabelStore.create(path, shape=shape, labels={1: "cat"}, identity=identity) as store:
        for index in range(shape[0]):
            labels = np.zeros(SHAPE[1:], np.uint16)
            labels[10:20, 5 * index : 5 * index + 10] = 1
            store.write(FrameResult(index, labels, {1: ObjectScore(1.0 + (index == 3 + skip), 0.5)}))
    return str(path)


@pytest.fixture
def saved(tmp_path):
    cells = []
    for column in ("one", "two"):
        write_mp4(
            tmp_path / f"{column}.mp4", [np.full((*SHAPE[1:], 3), 40 * t, np.uint8) for t in range(5)], 5
        )
        for skip, row in ((0, "cat"), (2, "dog")):
            store = make_store(tmp_path / f"{row}-{column}.zarr", skip)
            cells.append(Cell(row, column, str(tmp_path / f"{column}.mp4"), store, skip=skip))
    cells[3] = Cell("dog", "two", cells[3].video, "none.zarr", error="it broke")
    first, table = compare_column([measure_cell(cell) for cell in cells[:2]])
    second = [measure_cell(cell) for cell in cells[2:]]
    ordered = (first[0], second[0], first[1], second[1])
    made = Comparison(("cat", "dog"), ("one", "two"), ordered, {"one": table})
    made.save(tmp_path / "comparison.json")
    return str(tmp_path / "comparison.json")


@pytest.fixture
def dock(qtbot, viewer, saved):
    widget = ComparisonDock(viewer)
    qtbot.addWidget(widget)
    widget.load(saved)
    return widget


def test_the_table_shows_the_chosen_measure(dock):
    assert [dock.measure.itemData(n) for n in range(dock.measure.count())] == [
        "presence",
        "found",
        "iou",
        "agreement",
    ]
    assert dock.table.item(0, 0).text() == "1.20" and dock.table.item(1, 1).text() == "–"
    dock.measure.setCurrentIndex(2)
    assert dock.table.item(0, 0).text() == "0.50"
    assert "mean presence: 1.200" in dock.table.item(0, 0).toolTip()
    assert dock.table.item(1, 1).toolTip() == "it broke"


def test_a_click_opens_the_video_with_its_labels(dock, viewer, qtbot):
    dock.table.cellClicked.emit(0, 1)
    qtbot.waitUntil(lambda: len(viewer.layers) == 2)
    assert [layer.name for layer in viewer.layers] == ["two", "cat > two"]
    assert viewer.dims.current_step[0] == 3  # of the highest presence
    assert (np.asarray(viewer.layers[1].data[3])[10:20, 15:25] == 1).all()
    dock.table.cellClicked.emit(1, 0)
    qtbot.waitUntil(lambda: viewer.layers[-1].name == "dog > one")
    assert len(viewer.layers) == 2  # in the place of the first
    assert viewer.layers[1].translate[0] == -2 and viewer.dims.point[0] == 3


def test_a_cell_without_labels_says_why(dock, viewer):
    dock.table.cellClicked.emit(1, 1)
    assert dock.status.text() == "it broke" and not len(viewer.layers)


def test_a_video_that_has_gone_is_a_sentence(dock, viewer, qtbot, tmp_path):
    (tmp_path / "one.mp4").unlink()
    dock.table.cellClicked.emit(0, 0)
    qtbot.waitUntil(lambda: "one.mp4" in dock.status.text() and "exist" in dock.status.text())
    assert not len(viewer.layers)


def test_a_file_that_is_no_comparison_changes_nothing(dock, tmp_path):
    (tmp_path / "other.json").write_text("{}")
    dock.load(str(tmp_path / "other.json"))
    assert "no comparison" in dock.status.text() and dock.table.rowCount() == 2


def test_a_cell_on_another_computer_is_opened_once_a_person_agrees(dock, viewer, qtbot, monkeypatch):
    asked, opened = [], []
    monkeypatch.setattr(elsewhere, "WINDOWS", True)
    monkeypatch.setattr(comparison, "open_video", lambda path: opened.append(path) or refuse())
    monkeypatch.setattr(
        comparison, "confirmed", lambda parent, question: asked.append(question) or len(asked) > 1
    )

    def refuse():
        raise VideoError("not there")

    cells = [replace(cell, video="//host/share/one.mp4") for cell in dock.comparison.cells]
    dock.comparison = replace(dock.comparison, cells=tuple(cells))
    dock.table.cellClicked.emit(0, 0)
    assert "host" in asked[0] and "host" in dock.status.text() and not opened
    dock.table.cellClicked.emit(0, 0)
    qtbot.waitUntil(lambda: dock.status.text() == "not there")
    dock.table.cellClicked.emit(0, 1)
    qtbot.waitUntil(lambda: len(opened) == 2)
    assert len(asked) == 2  # not again for the same computer
    qtbot.waitUntil(lambda: dock.status.text() == "not there")


# ---- measuring


@pytest.fixture
def measuring(qtbot, viewer, tmp_path):
    labels = EditableLabels(make_store(tmp_path / "found.zarr"))
    viewer.add_labels(labels, name="found")
    viewer.add_labels((np.stack([labels[t] for t in range(5)])).astype(np.uint8), name="truth")
    widget = MeasuringDock(viewer)
    qtbot.addWidget(widget)
    widget.labels.setCurrentText("found")
    widget.ground_truth.setCurrentText("truth")
    return widget


def test_evaluation_of_two_layers(measuring, viewer, qtbot):
    viewer.layers["truth"].data[0] = 0
    measuring.evaluate.click()
    qtbot.waitUntil(lambda: measuring.evaluation is not None)
    assert measuring.evaluation.labels[0].j.mean == 0.8
    assert "cat: J 0.800" in measuring.status.text() and not measuring.chart.pixmap().isNull()


def test_a_layer_against_itself_is_refused(measuring):
    measuring.ground_truth.setCurrentText("found")
    measuring.evaluate.click()
    assert measuring.status.text() == "Choose two Labels layers."


def test_layers_of_other_sizes_are_a_sentence(measuring, viewer, qtbot):
    viewer.add_labels(np.ones((2, 3, 4), np.uint8), name="small")
    assert measuring.labels.currentText() == "found"
    measuring.ground_truth.setCurrentText("small")
    measuring.evaluate.click()
    qtbot.waitUntil(lambda: "ground truth of this video" in measuring.status.text())


def test_centroids_become_tracks_and_features(measuring, viewer, qtbot):
    measuring.tracks.click()
    qtbot.waitUntil(lambda: "found centroids" in viewer.layers)
    tracks = viewer.layers["found centroids"]
    assert tracks.data.tolist() == [[1, t, 14.5, 5 * t + 4.5] for t in range(5)]
    assert tracks.features["area"].tolist() == [100] * 5
    features = viewer.layers["found"].features
    assert features["index"].tolist() == [1] and features["mean area"].tolist() == [100]


def test_labels_of_a_run_have_scores(measuring, viewer):
    assert masks_of(viewer.layers["found"]).scores[0][1].presence == 1.0
    assert masks_of(viewer.layers["truth"]).scores is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes among its files")
def test_a_comparison_that_cannot_be_read_is_told_and_changes_nothing(dock, tmp_path):
    before = dock.comparison
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "odd.json").write_text('{"version": 1, "rows": 5, "columns": 5, "cells": 5, "agreement": 5}')
    for name, words in (("pipe", "a pipe or a device"), ("odd.json", "rows are no list of names")):
        dock.load(str(tmp_path / name))
        assert words in dock.status.text() and dock.comparison is before
