"""Scenes whose images share several things."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from training.scenes.camera import Images, Scene, draw_scene, paint_frame
from training.scenes.config import OBJECT_ID, Rng, SceneConfig
from training.scenes.examples import make_example
from training.scenes.layout import (
    add_shading,
    colours_of,
    draw_grounds,
    draw_size,
    draw_target,
    draw_unlike,
    draw_vividness,
    largest_radius,
    place_all,
    prior_size,
    size_again,
)
from training.scenes.shapes import GROUPS, KINDS, draw_outline
from training.scenes.textures import Surface, draw_surface
from training.scenes.things import Thing

LINEUP = 9
"""Things of a line-up."""


def make_lineup(config: SceneConfig, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw nine things twice, on different grounds and in other places, that their outlines tell apart.

    In six of ten line-ups all things have one surface, and outlines of different groups. In the rest each of three
    outlines comes with each of three surfaces.

    Parameters
    ----------
    config
        What scenes look like; nothing is missing and nothing is a cell.
    seed
        As of `make_example`.

    Returns
    -------
    images : numpy.ndarray, shape (2, H, W, 3), uint8
    instances : numpy.ndarray, shape (2, H, W), uint8
        0 is ground, 1 to 9 are the things.
    kinds : numpy.ndarray, shape (10,), int64
        Of each number the place of its outline's kind in `KINDS`; -1 for ground.
    """
    rng = np.random.default_rng(seed)
    vivid = draw_vividness(rng, config)
    target = draw_target(rng, config, vivid)
    things = _draw_contestants(rng, config, target.surface, vivid)
    painted: Images = []
    for _ in range(2):
        grounds = draw_grounds(rng, target, vivid)
        scene = draw_scene(rng, config, 1, grounds, not vivid)
        sizes = [each.size * math.exp(0.35 * config.appearance * rng.uniform(-1, 1)) for each in things]
        shown = [
            add_shading(rng, config, Thing(each.outline, each.surface, size))
            for each, size in zip(things, sizes)
        ]
        painted += _show(rng, config, scene, shown, rng.permutation(len(things)))
    kinds = np.array([-1, *(KINDS.index(each.outline.kind) for each in things)])
    return np.stack([image for image, _ in painted]), np.stack([ids for _, ids in painted]), kinds


def make_shared(config: SceneConfig, seed: int, frames: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Draw an image and a clip elsewhere that show the same things, so that each of them can be looked for.

    In place of `distractors` there are three to six things, and `hard` is the share of them that copy the surface or
    the outline of another. In seven of ten scenes one or two are in both, and each other one is only in the image or,
    more often, only in the clip: a thing must be told from those that were not seen before, too. In the rest most
    are in both. Cells continue from the image to the clip, as in `make_example`.

    Parameters
    ----------
    config
        What scenes look like.
    seed
        As of `make_example`.
    frames
        Number of frames of the clip.

    Returns
    -------
    images : numpy.ndarray, shape (1 + frames, H, W, 3), uint8
        The image, then the clip.
    instances : numpy.ndarray, shape (1 + frames, H, W), uint8
        0 is ground; a number is the same thing wherever it is.
    """
    rng = np.random.default_rng(seed)
    if rng.random() < config.microscopy:
        return _shared_cells(rng, config, seed, frames)
    vivid = draw_vividness(rng, config)
    target = draw_target(rng, config, vivid)
    target.size = prior_size(rng, config, target.outline, 0.6)
    grounds = draw_grounds(rng, target, vivid)
    things = _draw_family(rng, config, target, colours_of(grounds), int(rng.integers(2, 6)), vivid)
    both, others = np.split(rng.permutation(len(things)), [int(rng.integers(1, 3))])
    strange, later = rng.random() < 0.7, rng.random(len(others)) < 0.65
    painted: Images = []
    for elsewhere in (False, True):
        if elsewhere:
            grounds = draw_grounds(rng, target, vivid)
        scene = draw_scene(rng, config, frames if elsewhere else 1, grounds, not vivid)
        shown = [add_shading(rng, config, Thing(each.outline, each.surface, each.size)) for each in things]
        for each in shown if elsewhere else ():
            each.size = size_again(rng, config, each, each.size)
        order = rng.permutation(len(things))
        if strange:
            order = rng.permutation(np.concatenate((both, others[later == elsewhere])))
        else:
            order = _leave_out(rng, order, elsewhere)
        painted += _show(rng, config, scene, shown, order)
    return np.stack([image for image, _ in painted]), np.stack([ids for _, ids in painted])


def _leave_out(rng: Rng, order: np.ndarray, elsewhere: bool) -> np.ndarray:
    """All things but, at times, one of the image or some of the clip."""
    if len(order) > 2 and rng.random() < (0.6 if elsewhere else 0.3):
        return order[: len(order) - (int(rng.integers(1, len(order))) if elsewhere else 1)]
    return order


def _shared_cells(rng: Rng, config: SceneConfig, seed: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame of a clip of cells, and some frames a little later."""
    gap = int(rng.integers(1, 6))
    cells = make_example(replace(config, microscopy=1.0, absent=0.0, frames=gap + frames), seed)
    seen = [0, *range(gap, gap + frames)]
    return cells.frames[seen], cells.frame_instances[seen]


def _draw_contestants(rng: Rng, config: SceneConfig, surface: Surface, vivid: float) -> list[Thing]:
    """The nine things of a line-up; those of one outline come one after the other."""
    surfaces, several = [surface], rng.random() < 0.4
    while several and len(surfaces) < 3:
        avoid = np.concatenate([each.colours for each in surfaces])
        surfaces.append(draw_surface(rng, avoid, vivid=vivid))
    groups = [GROUPS[k] for k in rng.permutation(len(GROUPS))[: LINEUP // len(surfaces)]]
    things = []
    for outline in [draw_outline(rng, among=group) for group in groups]:
        for each in surfaces:
            size = 0.5 * config.side * math.exp(rng.uniform(math.log(0.1), math.log(0.28)))
            things.append(Thing(outline, each, min(size, largest_radius(config, outline))))
    return things


def _draw_family(
    rng: Rng, config: SceneConfig, target: Thing, grounds: np.ndarray, count: int, vivid: float
) -> list[Thing]:
    """The object and others, all different; a hard share have the surface or the outline of one before."""
    things = [target]
    for _ in range(count):
        copied, model = rng.random() < config.hard, things[int(rng.integers(len(things)))]
        same_surface = copied and rng.random() < 0.55
        surface, outline = draw_unlike(rng, model, grounds, same_surface, copied, vivid)
        large = rng.random() < 0.6
        size = prior_size(rng, config, outline, 0.36) if large else draw_size(rng, config, 0.36)
        things.append(Thing(outline, surface, size))
    return things


def _show(rng: Rng, config: SceneConfig, scene: Scene, things: Sequence[Thing], order: np.ndarray) -> Images:
    """Images of some of the things, numbered from one by their place among all."""
    place_all(rng, config, scene, None, 0.0, [things[k] for k in order], 0, 1.0, None)
    numbers = np.zeros(256, np.uint8)
    numbers[OBJECT_ID + 1 : OBJECT_ID + 1 + len(order)] = order + 1
    painted = [paint_frame(scene, t)[:2] for t in range(len(scene.drift))]
    return [(image, numbers[ids]) for image, ids in painted]
