"""Things, drawn once as sprites, and the paths that they take."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from training.scenes.config import Rng, SceneConfig
from training.scenes.shapes import Outline
from training.scenes.textures import Surface, clip_in_place, paint_surface


@dataclass(frozen=True, eq=False)
class Path:
    """Where a thing is in every frame: place and radius in pixels, angle in radians, tilt as an aspect.

    What rotates out of the plane is foreshortened; what bends has its middle line follow a sine.
    """

    place: np.ndarray  # (T, 2) x, y
    angle: np.ndarray  # (T,)
    radius: np.ndarray  # (T,)
    tilt: np.ndarray  # (T,)
    bend: np.ndarray | None = None  # (T, 2) strength in radii, phase in radians


@dataclass(eq=False)
class Thing:
    """What a thing looks like; it is drawn once, at the largest size that it is shown in."""

    outline: Outline
    surface: Surface
    size: float  # typical radius in pixels
    soft: float = 1.0  # width of the edge in pixels
    halo: float = 0.0  # light added just outside of the edge
    halo_width: float = 2.0  # pixels
    shade: tuple[float, float] = (0.0, 0.0)  # change of brightness per radius to the right and down
    levels: list[tuple[float, np.ndarray]] = field(default_factory=list)  # (texels per unit, sprite)


def draw_sprite(thing: Thing, radius: float) -> None:
    """Draw the thing once, fine enough for `radius` pixels, with halved copies for smaller sizes."""
    half = thing.outline.reach + (1 + thing.soft + (3 * thing.halo_width if thing.halo else 0)) / radius
    n = 4 * max(3, math.ceil(half * radius * 1.2 / 2))
    axis = ((np.arange(n, dtype=np.float32) + 0.5) * (2 / n) - 1) * np.float32(half)
    x, y = np.tile(axis, (n, 1)), np.repeat(axis, n).reshape(n, n)
    inside = thing.outline.distance(x, y)
    sprite = np.empty((n, n, 4), np.float32)
    paint_surface(thing.surface, x, y, np.moveaxis(sprite, 2, 0), inside)
    sprite[..., 3] = inside
    thing.levels = [(n / (2 * half), sprite)]
    while n >= 24 and n % 4 == 0:
        quarters = sprite[0::2, 0::2] + sprite[1::2, 0::2] + sprite[0::2, 1::2] + sprite[1::2, 1::2]
        sprite = quarters * np.float32(0.25)
        n //= 2
        thing.levels.append((n / (2 * half), sprite))


def stamp(canvas: np.ndarray, ids: np.ndarray, thing: Thing, path: Path, t: int, number: int) -> int:
    """Paint a thing onto a frame (3, H, W) and its number into `ids` (H, W); return how many pixels it covers."""
    side = len(ids)
    (cx, cy), radius, tilt = path.place[t], float(path.radius[t]), float(path.tilt[t])
    bend = 0.0 if path.bend is None else path.bend[t][0]
    edge = 0.5 + thing.soft + (3 * thing.halo_width if thing.halo else 0)
    far = (thing.outline.reach + abs(bend)) * radius * max(tilt, 1 / tilt) + edge
    x0, x1 = max(0, math.floor(cx - far)), min(side, math.ceil(cx + far) + 1)
    y0, y1 = max(0, math.floor(cy - far)), min(side, math.ceil(cy + far) + 1)
    if x0 >= x1 or y0 >= y1:
        return 0
    dx = np.arange(x0, x1, dtype=np.float32) + np.float32(0.5 - cx)
    dy = (np.arange(y0, y1, dtype=np.float32) + np.float32(0.5 - cy))[:, None]
    texel = _look_up(thing, path, t, dx, dy)
    inside = texel[..., 3] * np.float32(radius)
    cover = clip_in_place(inside * np.float32(1 / thing.soft) + np.float32(0.5), 0, 1)
    light = np.float32(1)
    if thing.shade != (0.0, 0.0):
        right, down = (np.float32(part / radius) for part in thing.shade)
        light = clip_in_place(1 + right * dx + down * dy, 0.4, 1.6)
    glow = _glow(thing, inside, cover) if thing.halo else None
    for k in range(3):
        region = canvas[k, y0:y1, x0:x1]
        region += cover * (texel[..., k] * light - region)
        if glow is not None:
            region += glow
    solid = inside > 0
    ids[y0:y1, x0:x1][solid] = number
    return int(np.count_nonzero(solid))


def _look_up(thing: Thing, path: Path, t: int, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Colour and distance to the edge (h, w, 4) at offsets (w,) and (h, 1) in pixels from where the thing is."""
    radius, tilt = float(path.radius[t]), float(path.tilt[t])
    bend, phase = (0.0, 0.0) if path.bend is None else path.bend[t]
    # the coarsest copy that still has a texel for every pixel: nearest look-up is then sharp and free of shimmer
    texels, sprite = next((lv for lv in reversed(thing.levels) if lv[0] >= 0.95 * radius), thing.levels[0])
    n = len(sprite)
    step, c, s = texels / radius, math.cos(path.angle[t]), math.sin(path.angle[t])
    u = dx * np.float32(step * c / tilt) + (dy * np.float32(step * s / tilt) + np.float32(n / 2))
    v = dx * np.float32(-step * s * tilt) + (dy * np.float32(step * c * tilt) + np.float32(n / 2))
    if bend:
        # As wide as the thing is long, so that it bends once and not many times.
        u += np.float32(bend * texels) * np.sin(v * np.float32(1.6 / texels) + np.float32(phase))
    index = clip_in_place(v, 0, n - 1).astype(np.intp)
    index *= n
    index += clip_in_place(u, 0, n - 1).astype(np.intp)
    # four float32 move as one 16-byte item: one look-up for colour and distance
    return sprite.view(np.complex128).reshape(-1)[index].view(np.float32).reshape(*index.shape, 4)


def _glow(thing: Thing, inside: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """The light of the halo just outside of the edge."""
    glow = np.float32(thing.halo) * np.exp(np.minimum(inside, 0) * np.float32(1 / thing.halo_width))
    glow *= 1 - cover
    # texels at the sprite's border stand for all that lies beyond; they must not glow
    glow[inside < -2.9 * thing.halo_width] = 0
    return glow


def draw_path(
    rng: Rng, config: SceneConfig, frames: int, radius: float, place: np.ndarray, at: int,
    angle: float, tilt: float, pace: float = 1.0,
) -> Path:  # fmt: skip
    """A smooth path that is at `place` in frame `at`.

    Slow sines rather than straight lines, so that long clips stay near the image while short ones look
    like steady motion.
    """
    t = np.arange(frames) - at
    side, motion = config.side, config.motion * pace
    swing = side * rng.uniform(0.12, 0.4, 2)
    rate = side * 0.06 * motion * rng.random(2) / swing
    phase = rng.uniform(0, 2 * math.pi, 2)
    moved = swing * (np.sin(t[:, None] * rate + phase) - np.sin(phase))
    turning = rng.uniform(-0.15, 0.15) * motion
    beat, shift = rng.uniform(0.05, 0.2), rng.uniform(0, 2 * math.pi)
    growth = np.exp(min(0.15 * motion, 0.3) * (np.sin(beat * t + shift) - math.sin(shift)))
    tilts, bend = np.full(frames, tilt), None
    if config.deform and rng.random() < 0.5:
        rate, shift = rng.uniform(0.1, 0.4) * motion, rng.uniform(0, 2 * math.pi)
        tilts = tilts * np.exp(-0.35 * config.deform * rng.random() * (1 + np.sin(rate * t + shift)))
    if config.deform and rng.random() < 0.35:
        rate, shift = rng.uniform(0.1, 0.5) * motion, rng.uniform(0, 2 * math.pi, 2)
        strength = 0.3 * config.deform * rng.uniform(0.3, 1) * np.sin(rate * t + shift[0])
        bend = np.stack((strength, shift[1] + 0.5 * rate * t), 1)
    return Path(place + moved, angle + turning * t, radius * growth, tilts, bend)


def crossing(rng: Rng, config: SceneConfig, path: Path, size: float, lead: int, covers: bool) -> Path:
    """The path of something that passes in front of what follows `path`, not before frame `lead`."""
    frames = len(path.angle)
    middle = rng.uniform(min(lead, frames - 1), frames - 1)
    away = (size + float(path.radius.mean())) * rng.uniform(0.5, 0.9) * max(config.motion, 0.25)
    heading = rng.uniform(0, 2 * math.pi)
    step = away * np.array([math.cos(heading), math.sin(heading)])
    aside = rng.uniform(-0.5, 0.5) * size * np.array([-math.sin(heading), math.cos(heading)])
    late = np.arange(frames)[:, None] - middle
    t = late
    if covers:
        # It comes, stays on the object for a few frames and goes on.
        stay = rng.uniform(0.6, 0.5 + 0.12 * frames)
        t, aside = np.sign(late) * np.maximum(np.abs(late) - stay, 0), 0 * aside
    turn = rng.uniform(0, 6.28) + rng.uniform(-0.1, 0.1) * config.motion * late[:, 0]
    return Path(path.place + t * step + aside, turn, np.full(frames, size), np.ones(frames))


def excursion(rng: Rng, config: SceneConfig, path: Path, far: float, lead: int) -> Path:
    """The path with a way out over the nearest border and back, so that what leaves may be found again."""
    frames, side = len(path.angle), config.side
    peak = rng.uniform(min(lead + 1, frames - 1), frames - 1)
    # What must stand still in the prior image's frame is not under way before it.
    half = rng.uniform(2.0, 6.0) if lead == 0 else min(rng.uniform(2.0, 6.0), peak)
    x, y = path.place[round(peak)]
    room, way = min((x, (-1.0, 0.0)), (side - x, (1.0, 0.0)), (y, (0.0, -1.0)), (side - y, (0.0, 1.0)))
    t = np.clip((np.arange(frames) - peak) / half, -1, 1)
    # A tenth more than needed: out of sight for a frame or a few around the peak.
    out = max(0.0, room + 1.2 * far) * 1.1 * np.cos(t * math.pi / 2) ** 2
    return replace(path, place=path.place + out[:, None] * np.array(way))
