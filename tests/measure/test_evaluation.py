"""An evaluation of masks whose scores are known, and its files."""

import csv
import math

import numpy as np
import pytest

from napari_samexp.errors import StoreError
from napari_samexp.measure.davis import contour_accuracy
from napari_samexp.measure.evaluation import evaluate_masks
from napari_samexp.measure.masks import Masks, array_masks
from napari_samexp.render.evaluation import evaluation_chart
from napari_samexp.types import ObjectScore

TRUTH = np.zeros((4, 40, 40), np.uint8)
TRUTH[:3, 10:20, 10:20] = 1
TRUTH[:, 25:35, 25:35] = 2
FOUND = TRUTH.copy()
FOUND[1, 10:20, 10:15] = 0  # half of label 1 missed
FOUND[2][FOUND[2] == 1] = 0  # all of it
FOUND[3, 10:20, 10:20] = 1  # seen where it is not


def test_scores_of_each_frame_and_label():
    made = evaluate_masks(array_masks(FOUND), array_masks(TRUTH))
    one, two = made.labels
    assert [score.j for score in made.of_label(1)] == [1, 0.5, 0, 0]
    assert made.of_label(1)[1].f == contour_accuracy(FOUND[1] == 1, TRUTH[1] == 1)
    assert (one.j.mean, one.j_seen, one.presence, one.frames) == (0.375, 0.5, 0.5, 4)
    assert (two.j.mean, two.f.mean, two.jf, two.presence) == (1, 1, 1, 1)
    assert made.jf == pytest.approx((one.jf + 1) / 2)
    assert [(s.there, s.found) for s in made.of_label(1)] == [
        (True, True), (True, True), (True, False), (False, True)
    ]  # fmt: skip


def test_an_object_never_found_counts_as_missed():
    found = np.where(FOUND == 2, 0, FOUND)
    made = evaluate_masks(array_masks(found), array_masks(TRUTH))
    assert [label.label for label in made.labels] == [1, 2]
    assert made.labels[1].j.mean == 0


def test_presence_is_what_the_scores_say():
    scores = {frame: {1: ObjectScore(presence, 0.5)} for frame, presence in enumerate((1, 1, 1, -1))}
    masks = Masks(FOUND.shape, lambda index: FOUND[index], {1: "cat"}, scores)
    made = evaluate_masks(masks, array_masks(TRUTH))
    assert made.labels[0].presence == 1 and made.labels[0].name == "cat"


def test_presence_of_painted_frames_is_what_was_painted():
    scores = {frame: {1: ObjectScore(-1.0, 0.5)} for frame in range(4)}
    labels = np.where(np.isin(np.arange(4), (0, 3))[:, None, None], FOUND, 0)
    masks = Masks(labels.shape, lambda index: labels[index], {1: "cat"}, scores, lambda: frozenset({0, 3}))
    made = evaluate_masks(masks, array_masks(TRUTH))
    assert [s.there for s in made.frames] == [True, True, True, False]
    assert [s.found for s in made.frames] == [True, False, False, True]


def test_frames_that_are_not_finished_are_left_out_and_counted():
    scores = {frame: {1: ObjectScore(1.0, 0.5)} for frame in (0, 1)}
    masks = Masks(FOUND.shape, lambda index: FOUND[index], {1: "cat"}, scores)
    made = evaluate_masks(masks, array_masks(TRUTH))
    assert made.left_out == 2 and made.labels[0].j.mean == 0.75


def test_one_label_each_belong_together_whatever_their_numbers():
    made = evaluate_masks(array_masks((FOUND == 2) * np.uint8(7)), array_masks((TRUTH == 2) * np.uint8(255)))
    assert [(label.label, label.j.mean) for label in made.labels] == [(7, 1)]


def test_pairs_may_be_given():
    made = evaluate_masks(array_masks(FOUND * 5), array_masks(TRUTH), pairs={10: 2})
    assert [(label.label, label.j.mean) for label in made.labels] == [(10, 1)]
    crossed = evaluate_masks(array_masks(FOUND), array_masks(TRUTH), pairs={1: 2}).labels[0]
    assert (crossed.j.mean, crossed.presence) == (0, 0.75)


def test_void_pixels_do_not_count():
    ground_truth = TRUTH.copy()
    ground_truth[1, 10:20, 10:15] = 255  # what was missed
    made = evaluate_masks(array_masks(FOUND), array_masks(ground_truth), void=255)
    assert [label.label for label in made.labels] == [1, 2]
    assert made.of_label(1)[1].j == made.of_label(1)[1].f == 1


def test_what_does_not_fit_together():
    with pytest.raises(StoreError, match="ground truth of this video"):
        evaluate_masks(array_masks(FOUND), array_masks(TRUTH[:2]))
    with pytest.raises(StoreError, match="belongs to which"):
        evaluate_masks(array_masks(FOUND * 3), array_masks(TRUTH * 20))
    with pytest.raises(StoreError, match="no finished frame"):
        evaluate_masks(array_masks(FOUND), array_masks(TRUTH), frames=[])


def test_tables(tmp_path):
    made = evaluate_masks(array_masks(FOUND), array_masks(TRUTH))
    made.write_frames_csv(tmp_path / "f.csv")
    made.write_labels_csv(tmp_path / "l.csv")
    frames = list(csv.DictReader((tmp_path / "f.csv").read_text().splitlines()))
    assert len(frames) == 8 and frames[2]["label"] == "1" and float(frames[2]["j"]) == 0.5
    assert frames[6]["there"] == "false" and frames[6]["found"] == "true"
    labels = list(csv.DictReader((tmp_path / "l.csv").read_text().splitlines()))
    assert float(labels[0]["j_mean"]) == 0.375 and float(labels[1]["jf"]) == 1


def test_the_chart_shows_the_curve():
    made = evaluate_masks(array_masks((FOUND == 1) * np.uint8(1)), array_masks((TRUTH == 1) * np.uint8(1)))
    perfect = evaluate_masks(array_masks(TRUTH), array_masks(TRUTH))
    assert evaluation_chart(made).shape[2] == 3
    assert (evaluation_chart(made) != evaluation_chart(perfect)).any()
    assert not math.isnan(made.jf)
