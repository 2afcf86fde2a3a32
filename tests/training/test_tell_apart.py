"""What the encoder tells things apart by."""

import numpy as np
import pytest
import torch
from torch.nn import functional


@pytest.fixture(scope="module")
def tell(parts):
    return parts["tell_apart"]


def test_the_most_similar_thing_is_taken(tell):
    first = functional.normalize(torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 1, 0]]), dim=1)
    second = first[[0, 1, 1, 3]] + 0.05
    means, areas = torch.stack((first, second))[None], torch.full((1, 2, 4), 5.0)
    assert tell.chosen(means, areas) == [(1, 1, 3), (2, 3, 3), (3, 3, 3)]
    areas[0, 0, 1] = 0  # is not in the first picture
    assert [number for number, _, _ in tell.chosen(means, areas)] == [2, 3]
    areas[0, 1, 2:] = 0  # nothing to choose among
    assert tell.chosen(means, areas) == []


def test_surfaces_are_told_and_chance_is_named(tell, train, parts):
    """The starter tells surfaces apart; a model that knows nothing is right as often as chance."""
    model = train.Starter()
    train.load_exported(model, parts["export"].BUNDLED)
    told = tell.figures(model.sam, 6, 256)
    assert set(told) == {"one surface", "three surfaces", "elsewhere", "cells"}
    assert all(0 < each["chance"] < 0.6 and each["things"] > 3 for each in told.values())
    three = told["three surfaces"]
    assert three["right surface"] > 0.8
    assert three["right"] <= min(three["right surface"], three["right outline"])
    assert told["cells"]["right"] > 3 * told["cells"]["chance"]


def test_places_are_weighed_by_what_covers_them(tell, train, parts):
    """A thing's mean does not change with what else the picture shows where its features do not."""
    model = train.Starter()
    train.load_exported(model, parts["export"].BUNDLED)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (1, 2, 64, 64, 3), np.uint8)
    things = np.zeros((1, 2, 64, 64), np.uint8)
    things[:, :, :32, :32] = 1
    alone, areas = tell.means_of(model.sam, pictures, things, 64)
    things[:, :, 32:, 32:] = 2
    beside, more = tell.means_of(model.sam, pictures, things, 64)
    assert torch.allclose(alone[:, :, 1], beside[:, :, 1], atol=1e-6)
    assert areas[0, 0].tolist() == [12, 4] and more[0, 0].tolist() == [8, 4, 4]
