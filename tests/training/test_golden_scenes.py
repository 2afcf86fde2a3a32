"""Scenes are those that the figures, and the bundled sample, are of."""

import json
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from napari_samexp.samples import load_sample
from training import scenes
from training.make_sample import CONFIG, deepest_point

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "training" / "scenes.json").read_text())
GOLDEN_CONFIG = scenes.SceneConfig(side=96, frames=3, priors=2)
GOLDEN_EXAMPLES = {
    "unrelated": GOLDEN_CONFIG,
    "continued": replace(GOLDEN_CONFIG, unrelated=0.0),
    "cells": replace(GOLDEN_CONFIG, microscopy=1.0, halos=0.5),
    "kept out": replace(
        GOLDEN_CONFIG, shapes=scenes.KEPT_OUT_SHAPES, textures=scenes.KEPT_OUT_TEXTURES, microscopy=0.0
    ),
    "hidden": replace(GOLDEN_CONFIG, frames=6, occlusion=1.0, hiding=1.0, absent=0.0),
    "leaving": replace(GOLDEN_CONFIG, frames=6, leaving=1.0),
}
SHARED = scenes.SceneConfig(side=96, halos=0.5, hard=0.6)


def _check(images, instances, golden):
    """Colours and areas are as they were; processors differ in the last bit of a sine."""
    assert images.mean((1, 2)) == pytest.approx(np.array(golden["colours"]), abs=0.05)
    for ids, areas in zip(instances, golden["areas"], strict=True):
        assert np.bincount(ids.ravel(), minlength=len(areas)) == pytest.approx(np.array(areas), abs=3)


@pytest.mark.parametrize("name", GOLDEN_EXAMPLES)
def test_examples_are_those_that_the_figures_are_of(name):
    """One number more, drawn anywhere, would change all that comes after it."""
    for seed in (10_000, 10_001, 10_002):
        e = scenes.make_example(GOLDEN_EXAMPLES[name], seed)
        images = np.concatenate((e.prior[None], e.more_priors, e.frames))
        ids = [e.prior_instances, *e.more_prior_masks.astype(np.uint8), *e.frame_instances]
        _check(images, ids, GOLDEN[f"{name} {seed}"])


@pytest.mark.parametrize("seed", [600_000, 600_001, 600_002])
def test_lineups_and_shared_scenes_are_those_that_the_figures_are_of(seed):
    _check(*scenes.make_lineup(SHARED, seed)[:2], GOLDEN[f"lineup {seed}"])
    _check(*scenes.make_shared(replace(SHARED, microscopy=0.0), seed, 2), GOLDEN[f"shared {seed}"])
    _check(*scenes.make_shared(replace(SHARED, microscopy=1.0), seed, 2), GOLDEN[f"shared cells {seed}"])


def test_the_bundled_sample_is_drawn_again():
    sample = load_sample()
    with resources.files("napari_samexp.samples").joinpath("sample.json").open() as file:
        facts = json.load(file)
    config = {key: value for key, value in asdict(CONFIG).items() if key in facts["config"]}
    assert json.loads(json.dumps(config)) == facts["config"]
    example = scenes.make_example(CONFIG, facts["seed"])
    assert np.abs(example.prior.astype(int) - sample.prior).mean() < 0.01
    assert (example.prior_mask != sample.prior_mask).mean() < 1e-3
    assert (example.masks != sample.ground_truth).mean() < 1e-3
    assert [list(deepest_point(example.prior_mask))] == facts["points_xy"]
