"""What is in a scene, how large it is and where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from training.scenes.camera import Scene, paint_frame
from training.scenes.cells import draw_cells
from training.scenes.config import OBJECT_ID, SMALLEST, SMALLEST_PRIOR, Rng, SceneConfig
from training.scenes.shapes import Outline, draw_outline
from training.scenes.textures import Surface, draw_ground, draw_surface
from training.scenes.things import Thing, crossing, draw_path, draw_sprite, excursion


def draw_size(rng: Rng, config: SceneConfig, most: float) -> float:
    """A radius in pixels, small ones as likely as large ones per octave."""
    low, high = config.scale
    high = max(low, min(high, most))
    if config.small and rng.random() < config.small:
        low, high = SMALLEST, low
    return 0.5 * config.side * low * (high / low) ** float(rng.random())


def _find_place(
    rng: Rng, side: int, far: float, taken: Sequence[tuple[np.ndarray, float]], tries: int
) -> np.ndarray:
    """Of a few random places, the one with most room to the things already there."""
    low = min(far, side / 2)
    places = low + rng.random((tries, 2)) * (side - 2 * low)
    room = np.full(tries, np.inf)
    for place, radius in taken:
        room = np.minimum(room, np.hypot(*(places - place).T) - radius)
    return np.asarray(places[int(room.argmax())])


def draw_target(rng: Rng, config: SceneConfig, vivid: float) -> Thing:
    """The object, as yet without a size."""
    nothing = np.empty((0, 3), np.float32)
    outline = draw_outline(rng, among=config.shapes)
    surface = draw_surface(rng, nothing, "", config.textures, vivid)
    return add_shading(rng, config, Thing(outline, surface, 0.0))


def add_shading(rng: Rng, config: SceneConfig, thing: Thing) -> Thing:
    """Give a thing the edge and the shading that light and focus make, which are no part of what it is."""
    if config.effects:
        if rng.random() < 0.3 * config.effects:
            thing.soft = 1.0 + config.side / 64 * rng.random()
        if rng.random() < 0.35 * config.effects:
            turn, strong = rng.uniform(0, 2 * math.pi), 0.35 * rng.random()
            thing.shade = (strong * math.cos(turn), strong * math.sin(turn))
    return thing


def largest_radius(config: SceneConfig, outline: Outline) -> float:
    """The largest radius that still fits the image; a long bar of the largest area would not."""
    return 0.5 * config.side / outline.reach


def prior_size(rng: Rng, config: SceneConfig, outline: Outline, most: float) -> float:
    """The object's radius in the prior image, never so small that it is hard to see."""
    size = min(draw_size(rng, config, most), largest_radius(config, outline))
    # A thing that is meant to be small is shown a little larger than it may become.
    least = min(SMALLEST_PRIOR, 2 * size / config.side * 1.5) if config.small else SMALLEST_PRIOR
    return max(size, 0.5 * config.side * max(least, 2 * SMALLEST))


def draw_unlike(
    rng: Rng, model: Thing, grounds: np.ndarray, same_surface: bool, same_outline: bool, vivid: float
) -> tuple[Surface, Outline]:
    """A surface and an outline, one of which may be another thing's; the rest is unlike it."""
    if same_surface:
        return model.surface, draw_outline(rng, avoid=model.outline.kind)
    avoid = np.concatenate([grounds, model.surface.colours])
    surface = draw_surface(rng, avoid, model.surface.kind, vivid=vivid)
    return surface, model.outline if same_outline else draw_outline(rng, avoid=model.outline.kind)


def draw_others(
    rng: Rng, config: SceneConfig, target: Thing, grounds: np.ndarray, count: int, vivid: float = 1.0
) -> list[Thing]:
    """Distractors: mostly other outline and other surface, a hard share with one of them copied.

    Now and then one is there twice, so that being one of a kind does not make the object.
    """
    things: list[Thing] = []
    for _ in range(count):
        size = draw_size(rng, config, 0.36)
        copied = rng.random() < config.hard
        if things and rng.random() < 0.15:
            surface, outline = things[-1].surface, things[-1].outline
        else:
            same_surface = copied and rng.random() < 0.5
            surface, outline = draw_unlike(rng, target, grounds, same_surface, copied, vivid)
        things.append(add_shading(rng, config, Thing(outline, surface, size)))
    return things


def place_all(
    rng: Rng, config: SceneConfig, scene: Scene, target: Thing | None, radius: float,
    others: Sequence[Thing], first: int, pace: float, occluder: Thing | None, lead: int = 0,
    covers: bool = False,
) -> None:  # fmt: skip
    """Give everything a path and a depth.

    `first` is the frame in which places are drawn, `lead` the first one the occluder may reach its goal in.
    """
    frames, taken, cast = len(scene.drift), [], []
    tilt = lambda: math.exp(0.15 * min(config.appearance, 2) * rng.uniform(-1, 1))  # noqa: E731
    path = None
    if target is not None:
        far = radius * target.outline.reach * 1.1
        place = _find_place(rng, config.side, far, [], 1)
        path = draw_path(rng, config, frames, radius, place, first, _turn(rng, config), tilt(), pace)
        if frames > 2 and config.leaving and rng.random() < config.leaving:
            path = excursion(rng, config, path, radius * target.outline.reach, lead)
        taken.append((place, 1.5 * radius))
    for number, thing in enumerate(others, OBJECT_ID + 1):
        place = _find_place(rng, config.side, 0.8 * thing.size, taken, 6)
        spin = rng.uniform(0, 2 * math.pi)
        walk = draw_path(rng, config, frames, thing.size, place, first, spin, tilt(), pace)
        taken.append((place, thing.size))
        cast.append((number, thing, walk))
    if target is not None and path is not None:
        cast.insert(int(rng.integers(len(cast) + 1)), (OBJECT_ID, target, path))
        if occluder is not None:
            over = crossing(rng, config, path, occluder.size, lead, covers)
            cast.append((len(cast) + 1, occluder, over))
    if scene.carried:
        steady = scene.drift - scene.drift[first] + scene.shake
        cast = [(number, thing, replace(walk, place=walk.place - steady)) for number, thing, walk in cast]
    scene.cast = cast
    for _, thing, walk in cast:
        needed = float(walk.radius.max())
        if not thing.levels or thing.levels[0][0] < 0.95 * needed:
            draw_sprite(thing, needed)


def _turn(rng: Rng, config: SceneConfig) -> float:
    return float(rng.uniform(-math.pi, math.pi)) * min(config.appearance, 1.0)


def _lift(scene: Scene, over_all: bool) -> None:
    """Bring the object to the front, or just behind the last thing."""
    mine = next(entry for entry in scene.cast if entry[0] == OBJECT_ID)
    rest = [entry for entry in scene.cast if entry[0] != OBJECT_ID]
    scene.cast = [*rest, mine] if over_all or not rest else [*rest[:-1], mine, rest[-1]]


def paint_prior(scene: Scene, occluded: bool, t: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A prior image, with the object brought forward if too little of it shows."""
    for attempt in range(3):
        image, ids, alone = paint_frame(scene, t)
        if np.count_nonzero(ids == OBJECT_ID) >= 0.92 * alone:
            break
        _lift(scene, over_all=attempt > 0 or not occluded)
    return image, ids


def renumber(ids: np.ndarray) -> np.ndarray:
    """Number the visible things 1, 2, 3 ... without gaps; the object stays first."""
    table = np.zeros(256, np.uint8)
    seen = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)[1:]) + 1
    table[seen] = np.arange(1, len(seen) + 1)
    return table[ids]


def draw_count(rng: Rng, config: SceneConfig) -> int:
    """How many other things an image has."""
    return int(rng.integers(config.distractors[0], config.distractors[1] + 1))


def draw_vividness(rng: Rng, config: SceneConfig) -> float:
    """How much colour a scene has: 0 for gray."""
    return 0.0 if config.gray and rng.random() < config.gray else 1.0


def size_again(rng: Rng, config: SceneConfig, target: Thing, size: float) -> float:
    """A radius that the object may have in another image."""
    low, high = (0.5 * config.side * s for s in config.scale)
    again = size * math.exp(0.7 * config.appearance * rng.uniform(-1, 1))
    return min(float(np.clip(again, min(low, size), high)), largest_radius(config, target.outline))


def draw_grounds(rng: Rng, target: Thing, vivid: float) -> list[Surface]:
    """One or two grounds that the object stands out from."""
    return [draw_ground(rng, target.surface.colours, vivid) for _ in range(1 + int(rng.random() < 0.25))]


def colours_of(grounds: Sequence[Surface]) -> np.ndarray:
    """All colours (N, 3) of some surfaces."""
    return np.concatenate([ground.colours for ground in grounds])


def draw_occluder(
    rng: Rng, config: SceneConfig, target: Thing, radius: float,
    grounds: Sequence[Surface], cells: bool, vivid: float,
) -> tuple[Thing | None, bool]:  # fmt: skip
    """Something to pass in front of the object, if anything does, and whether it covers all of it."""
    if rng.random() >= config.occlusion:
        return None, False
    if cells:
        over = draw_cells(rng, target, 1)[0]
    else:
        over = draw_others(rng, replace(config, hard=0.0), target, colours_of(grounds), 1, vivid)[0]
    over.size = radius * rng.uniform(0.7, 1.2)
    covers = config.frames > 3 and config.hiding > 0 and rng.random() < config.hiding
    if covers:
        # Solid and roundish: a ring would show what it passes.
        over.outline = draw_outline(rng, among=("disc", "box", "ellipse", "regular"))
        over.size = min(1.5 * radius * target.outline.reach, 0.35 * config.side)
    return over, covers
