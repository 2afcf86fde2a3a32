"""How weights are measured: figures, real images, features, learning curve."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_samexp.sam import load_model
from training import evaluate, learning_curve, measure, real_images, scenes, tell_apart


@pytest.fixture
def disc():
    y, x = np.mgrid[:64, :64]
    return (x - 40) ** 2 + (y - 20) ** 2 < 100


def test_times_of_return_are_found():
    shown = np.array([0, 0.1, 0.1, 0, 0, 0.1, 0.1, 0.1, 0.0002, 0.1, 0.1, 0.1, 0, 0.1])
    # it comes for the first time; it is back; it was never quite out of sight; it is back for one frame only
    assert measure.returns(shown) == [slice(5, 8)]


def test_the_most_overlapped_thing():
    things = np.zeros((10, 10), int)
    things[:, :5], things[:2, 5:] = 1, 2
    found = np.zeros((10, 10), bool)
    found[:2] = True
    assert measure.most_overlapped(found, things) == 2
    found[:, :5] = True
    assert measure.most_overlapped(found, things) == 1
    assert measure.most_overlapped(np.zeros((10, 10), bool), things) == 0


def test_the_next_point_corrects(disc):
    rng = np.random.default_rng(0)
    (x, y), label = measure.next_point(np.zeros_like(disc), disc, rng)
    assert label == 1 and np.hypot(x - 40, y - 20) < 4
    spilled = disc.copy()
    spilled[40:60, 10:30] = True
    (x, y), label = measure.next_point(spilled, disc, rng)
    assert label == 0 and 40 <= y < 60 and 10 <= x < 30
    (x, y), label = measure.next_point(disc, disc, rng)
    assert label == 1 and disc[int(y), int(x)]


class Perfect:
    """Stands for the model and the tracker; it knows the ground truth, or takes another thing for the object."""

    def __init__(self, example, thing):
        self.example, self.thing = example, thing

    def encode(self, image, side):
        return None

    def segment(self, features, prompt):
        return self

    def mask(self):
        return self.example.prior_mask

    def step(self, frame, t):
        found = self.example.frame_instances[t] == self.thing
        score = type("Score", (), {"lost": not found.any(), "iou": 0.9})
        return type("Result", (), {"labels": found.astype(np.uint16), "scores": {1: score}})


@pytest.mark.parametrize("thing, right", [(1, 1.0), (2, 0.0)])
def test_figures_of_a_perfect_and_of_a_mistaken_tracker(monkeypatch, thing, right):
    config = replace(scenes.SceneConfig(side=64, frames=4, distractors=(1, 1)), absent=0.0, occlusion=0.0)
    example = next(
        e
        for e in (scenes.make_example(config, seed) for seed in range(50))
        if all((e.frame_instances == k).any((1, 2)).all() for k in (1, 2))
    )
    model = Perfect(example, thing)
    monkeypatch.setattr(measure, "record", lambda *_: ())
    monkeypatch.setattr(
        measure, "PriorMemory", lambda: type("P", (), {"with_recording": lambda self: self})()
    )
    monkeypatch.setattr(measure, "Tracker", lambda *_: model)
    settings = type("S", (), {"side": None})
    got = measure.measure_clip(model, example, np.random.default_rng(0), settings)
    assert got.points == {1: [1.0], 2: [1.0], 3: [1.0]}
    assert np.mean(got.right) == right and len(got.tracked) == 4
    assert np.mean(got.tracked) == right  # another thing has no pixel in common
    assert got.iou_error == pytest.approx([abs(0.9 - right)] * 4)


def test_the_table_tells_reached_from_missed():
    text = evaluate.table({"one-point J": 0.86, "encode, ms": 70.0, "predicted IoU, mean error": 0.09})
    one, encode, error = text.splitlines()
    assert one.endswith("reached") and encode.endswith("missed") and error.endswith("reached")


def test_coins_are_told_apart_from_the_ground():
    pytest.importorskip("skimage")
    image, parts = real_images.coins()
    assert image.shape == parts.shape
    assert len(np.unique(parts)) - 1 == 24  # as one counts in the image
    assert image[parts > 0].mean() > image[parts == 0].mean() + 40


def test_the_cell_is_told_apart_from_its_halo():
    pytest.importorskip("skimage")
    image, mask = real_images.cell()
    assert image.shape == mask.shape
    rows, columns = np.nonzero(mask)
    size = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert size == pytest.approx((122, 124), abs=4)  # as one measures in the image
    assert mask.sum() == pytest.approx(np.pi / 4 * size[0] * size[1], rel=0.03)  # it is round


def test_all_figures_of_two_small_clips():
    pytest.importorskip("skimage")
    words = (
        "--clips 2 --kept-out-clips 1 --hidden-clips 1 --frames 3 --image 64 --threads 1 --pairs 0 --no-speed"
    )
    figures = evaluate.evaluate(evaluate.parse(words.split()))
    missing = set(evaluate.TARGETS) - set(figures)
    assert missing == {"frames/s, one label", "encode, ms"}
    assert 0 < figures["one-point J"] <= 1 and 0 < figures["coins, one-click J"] <= 1


def test_logs_join_and_later_lines_of_a_step_hold(tmp_path):
    one, two = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    one.write_text('{"step": 10, "J": 0.1}\n{"step": 20, "J": 0.2}\n{"step": 20, "J": 0.3}\n')
    two.write_text('{"step": 5, "K": 0.7}\n')
    steps, values = learning_curve.curve([learning_curve.read_log(path) for path in (one, two)], ("J", "K"))
    assert steps.tolist() == [10, 20, 25]
    assert values.tolist() == [0.1, 0.3, 0.7]
    assert learning_curve.smooth(np.array([1.0, np.nan, 3.0]), 3)[0] == 1.0
    names = ["run-10-b.jsonl", "run-9.jsonl", "run-1-c.jsonl", "run-1-a.jsonl"]
    assert sorted(map(Path, names), key=learning_curve.in_order) == [Path(names[k]) for k in (3, 2, 1, 0)]


# ---- what features tell apart


def test_the_most_similar_thing_is_taken():
    first = functional.normalize(torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 1, 0]]), dim=1)
    second = first[[0, 1, 1, 3]] + 0.05
    means, areas = torch.stack((first, second))[None], torch.full((1, 2, 4), 5.0)
    assert tell_apart.chosen(means, areas) == [(1, 1, 3), (2, 3, 3), (3, 3, 3)]
    areas[0, 0, 1] = 0  # is not in the first image
    assert [number for number, _, _ in tell_apart.chosen(means, areas)] == [2, 3]
    areas[0, 1, 2:] = 0  # nothing to choose among
    assert tell_apart.chosen(means, areas) == []


def test_surfaces_are_told_and_chance_is_named():
    """The starter tells surfaces apart; a model that knows nothing is right as often as chance."""
    told = tell_apart.told_apart("starter", 6, 256)
    chance = {name.split(", ")[1]: value for name, value in told.items() if "chance" in name}
    right = {name.split(", ")[1]: value for name, value in told.items() if "chance" not in name}
    assert set(chance) == {"one surface", "three surfaces", "elsewhere", "cells"}
    assert all(0 < value < 0.6 for value in chance.values())
    assert right["surface of three"] > 0.8
    assert right["three surfaces"] <= min(right["surface of three"], right["outline of three"])
    assert right["cells"] > 3 * chance["cells"]


def test_places_are_weighed_by_what_covers_them():
    """A thing's mean does not change with what else the image shows where its features do not."""
    model = load_model("starter", device="cpu")
    images = np.random.default_rng(0).integers(0, 255, (1, 2, 64, 64, 3), np.uint8)
    instances = np.zeros((1, 2, 64, 64), np.uint8)
    instances[:, :, :32, :32] = 1
    alone, areas = tell_apart.mean_tokens(model, images, instances, 64)
    instances[:, :, 32:, 32:] = 2
    beside, more = tell_apart.mean_tokens(model, images, instances, 64)
    assert torch.allclose(alone[:, :, 1], beside[:, :, 1], atol=1e-6)
    assert areas[0, 0].tolist() == [12, 4] and more[0, 0].tolist() == [8, 4, 4]
