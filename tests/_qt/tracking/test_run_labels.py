"""The Labels layer over a run."""

from __future__ import annotations

import numpy as np

from napari_samexp._qt.tracking.run_labels import RunLabels
from napari_samexp.types import ObjectScore


def test_scores_enter_the_features_once_the_slider_rests(qtbot, viewer):
    labels = RunLabels(viewer)
    labels.layer = viewer.add_labels(np.zeros((9, 8, 8), np.uint8))
    told = []
    labels.layer.events.features.connect(lambda event: told.append(event))
    for step in range(5):
        labels.show_scores({1: ObjectScore(float(step), 0.5)}, {1: "cat"})
    assert not told
    qtbot.waitUntil(lambda: bool(told))
    features = labels.layer.features
    assert list(features["presence"][1:]) == [4.0]
    assert list(features["name"]) == ["", "cat"]
    qtbot.wait(200)
    assert len(told) == 1
    labels.show_scores({1: ObjectScore(-1.0, 0.5)}, {1: "cat"})
    qtbot.waitUntil(lambda: labels.layer.features["lost"][1])
    labels.show_scores({1: ObjectScore(-1.0, 0.5)}, {1: "cat"}, painted=True)
    qtbot.waitUntil(lambda: not labels.layer.features["lost"][1])


def test_scores_of_a_layer_that_is_gone_are_dropped(qtbot, viewer):
    labels = RunLabels(viewer)
    labels.layer = layer = viewer.add_labels(np.zeros((9, 8, 8), np.uint8))
    before = layer.features
    labels.show_scores({1: ObjectScore(1.0, 0.5)}, {1: "cat"})
    viewer.layers.remove(layer)
    qtbot.wait(250)
    assert list(layer.features.columns) == list(before.columns)
