"""Examples: a prior image, and a clip in which its object turns up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace

import numpy as np

from training.scenes.camera import Images, draw_scene, paint_clip
from training.scenes.cells import CELL_SHAPES, draw_cell_ground, draw_cell_surface, draw_cells
from training.scenes.config import OBJECT_ID, Example, Rng, SceneConfig
from training.scenes.layout import (
    colours_of,
    draw_count,
    draw_grounds,
    draw_occluder,
    draw_others,
    draw_target,
    draw_vividness,
    paint_prior,
    place_all,
    prior_size,
    renumber,
    size_again,
)
from training.scenes.shapes import draw_outline
from training.scenes.textures import Surface
from training.scenes.things import Thing

Drawn = tuple[Images, np.ndarray, np.ndarray, Thing]  # prior images, frames and their instances, the object


def make_example(config: SceneConfig, seed: int) -> Example:
    """Draw the scene of one seed; the same configuration and seed give the same bytes.

    Parameters
    ----------
    config
        What scenes look like.
    seed
        Below 1,000,000 for measuring, from there on for training.
    """
    rng = np.random.default_rng(seed)
    cells = rng.random() < config.microscopy
    related = cells or rng.random() >= config.unrelated
    drawn = _continued(rng, config, cells) if related else _unrelated(rng, config)
    ((prior, prior_ids), *more), frames, ids, target = drawn
    size = (len(more), *ids.shape[1:])
    return Example(
        prior,
        prior_ids == OBJECT_ID,
        frames,
        ids == OBJECT_ID,
        renumber(prior_ids),
        ids,
        np.array([image for image, _ in more], np.uint8).reshape(*size, 3),
        np.array([numbers == OBJECT_ID for _, numbers in more], bool).reshape(size),
        {
            "scene": "cells" if cells else "continued" if related else "unrelated",
            "shape": target.outline.kind,
            "texture": target.surface.kind,
        },
    )


def make_batch(config: SceneConfig, seeds: Iterable[int]) -> dict[str, np.ndarray]:
    """Draw one example per seed and stack each array under its name."""
    examples = [make_example(config, seed) for seed in seeds]
    names = [field.name for field in fields(Example) if field.name != "facts"]
    return {name: np.stack([getattr(example, name) for example in examples]) for name in names}


def _continued(rng: Rng, config: SceneConfig, cells: bool) -> Drawn:
    """The clip continues the scene of the prior image."""
    vivid = draw_vividness(rng, config)
    draw = _cell_field if cells else _still_life
    target, grounds, others = draw(rng, config, vivid)
    before = config.priors
    scene = draw_scene(rng, config, config.frames + before, grounds, cells or not vivid)
    over, covers = draw_occluder(rng, config, target, target.size, grounds, cells, vivid)
    place_all(rng, config, scene, target, target.size, others, 0, 0.6, over, lead=before + 1, covers=covers)
    priors = [paint_prior(scene, over is not None, t) for t in range(before)]
    if rng.random() < config.absent:
        scene.cast = [entry for entry in scene.cast if entry[0] != OBJECT_ID]
    return priors, *paint_clip(scene, before), target


def _cell_field(rng: Rng, config: SceneConfig, _: float) -> tuple[Thing, list[Surface], list[Thing]]:
    """A cell, the ground, and other cells."""
    phase = bool(config.effects) and rng.random() < 0.4
    target = Thing(draw_outline(rng, among=config.shapes or CELL_SHAPES), draw_cell_surface(rng, phase), 0.0)
    if config.effects:
        target.soft = 1.0 + config.side / 48 * rng.random()
        target.halo = rng.uniform(0.1, 0.4) if phase else 0.0
        target.halo_width = config.side / 128 * rng.uniform(1, 2.5)
    target.size = prior_size(rng, config, target.outline, 0.3)
    ground = draw_cell_ground(rng, phase)
    if config.halos and not phase and rng.random() < config.halos:
        target.halo = -rng.uniform(0.15, 0.35)
        target.halo_width = target.size * rng.uniform(0.1, 0.5)
        ground = replace(ground, colours=ground.colours + np.float32(rng.uniform(0.1, 0.3)))
    others = draw_cells(rng, target, int(rng.integers(2, 5)) * draw_count(rng, config), phase)
    return target, [ground], others


def _still_life(rng: Rng, config: SceneConfig, vivid: float) -> tuple[Thing, list[Surface], list[Thing]]:
    """A thing, grounds, and other things."""
    target = draw_target(rng, config, vivid)
    target.size = prior_size(rng, config, target.outline, 1.0)
    grounds = draw_grounds(rng, target, vivid)
    others = draw_others(rng, config, target, colours_of(grounds), draw_count(rng, config), vivid)
    return target, grounds, others


def _unrelated(rng: Rng, config: SceneConfig) -> Drawn:
    """The clip shares nothing with the prior image but the object, and sometimes one other thing."""
    vivid = draw_vividness(rng, config)
    target = draw_target(rng, config, vivid)
    size = target.size = prior_size(rng, config, target.outline, 1.0)
    priors, others = [], []
    for k in range(config.priors):
        grounds = draw_grounds(rng, target, vivid)
        others = draw_others(rng, config, target, colours_of(grounds), draw_count(rng, config), vivid)
        scene = draw_scene(rng, config, 1, grounds, not vivid)
        shown = size if k == 0 else size_again(rng, config, target, size)
        place_all(rng, config, scene, target, shown, others, 0, 1.0, None)
        priors.append(paint_prior(scene, occluded=False))
    return priors, *_elsewhere(rng, config, target, size, others, vivid), target


def _elsewhere(
    rng: Rng, config: SceneConfig, target: Thing, size: float, known: list[Thing], vivid: float
) -> tuple[np.ndarray, np.ndarray]:
    """A clip on another ground and among other things than the prior's; `known` are those."""
    absent = rng.random() < config.absent
    grounds = draw_grounds(rng, target, vivid)
    # One more thing where the object is absent, so that the number of things does not give it away.
    count = draw_count(rng, config) + int(absent)
    new = draw_others(rng, config, target, colours_of(grounds), count, vivid)
    if known and new and rng.random() < 0.3:
        # Something else from the prior image: being known from there must not be enough.
        new[0] = known[0]
    scene = draw_scene(rng, config, config.frames, grounds, not vivid)
    again = size_again(rng, config, target, size)
    over, covers = None, False
    if not absent:
        over, covers = draw_occluder(rng, config, target, again, grounds, False, vivid)
    first = int(rng.integers(config.frames))
    place_all(rng, config, scene, None if absent else target, again, new, first, 1.0, over, covers=covers)
    return paint_clip(scene, 0)
