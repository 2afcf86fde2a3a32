"""Procedurally drawn scenes that teach a small model to find a known object in an unrelated clip.

An example is a *prior picture* that shows an object among others, and a *clip* in which the same object
turns up elsewhere: moved, turned, scaled, lit differently, among other things, at times occluded or absent.
An object's identity is its outline together with its surface (pattern and colours); nothing else is shared
between the prior and an unrelated clip, so place and surroundings cannot be used to find it.

Everything is drawn from ``numpy.random.default_rng(seed)``: one seed and one configuration always give the
same bytes. Seeds below 1,000,000 are held out (`HELD_OUT_SEEDS`); training uses those from
`FIRST_TRAINING_SEED` on, so that no scene is ever both learnt and measured.

Each thing is drawn once, as a small sprite of colour and signed distance to its edge; a frame then costs one
affine look-up per thing, which is what keeps a frame near a millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

__all__ = [
    "FIRST_TRAINING_SEED",
    "HELD_OUT_SEEDS",
    "Example",
    "SceneConfig",
    "make_batch",
    "make_example",
    "render_sheet",
]

HELD_OUT_SEEDS = range(0, 1_000_000)
"""Seeds for measuring only; never train on them."""

FIRST_TRAINING_SEED = 1_000_000
"""Training seeds start here."""

OBJECT_ID = 1
"""The object's number in every instance map."""

_ANGLES = 512  # entries of an outline's radius table
_SMALLEST_PRIOR = 0.12  # diameter / side: a disc of this size covers 1.13 % of the picture
_NOISE_SIDE = 384


@dataclass(frozen=True)
class SceneConfig:
    """What scenes look like.

    Attributes
    ----------
    side
        Height and width of every picture in pixels.
    frames
        Number of frames of the clip.
    distractors
        Fewest and most other things in a picture.
    scale
        Smallest and largest mean diameter (of a disc of the same area) of a thing, relative to `side`.
    motion
        Strength of movement, turning, scaling and camera drift inside a clip.
    unrelated
        Share of examples whose clip has another ground, other places and other things than the prior
        picture; the rest carry the prior's own scene on in small motion.
    absent
        Probability that the object is in no frame of the clip.
    occlusion
        Probability that something passes in front of the object.
    appearance
        Strength of the change of light, tint, scale, tilt and rotation between prior and clip.
    hard
        Share of distractors that copy the object's surface or its outline (never both).
    microscopy
        Share of gray scenes of bright cells; their clip always carries the prior's scene on.
    leaving
        Share of clips of three frames or more in which the object goes out of the picture, or comes into it.
        At 0 nothing is drawn for it: scenes are those of the configurations that do not know of it.
    """

    side: int = 128
    frames: int = 4
    distractors: tuple[int, int] = (1, 4)
    scale: tuple[float, float] = (0.12, 0.5)
    motion: float = 1.0
    unrelated: float = 1.0
    absent: float = 0.1
    occlusion: float = 0.3
    appearance: float = 1.0
    hard: float = 0.3
    microscopy: float = 0.15
    leaving: float = 0.0


@dataclass
class Example:
    """One prior picture and one clip with their truth.

    Attributes
    ----------
    prior
        (H, W, 3) uint8.
    prior_mask
        (H, W) bool, the object in the prior picture.
    frames
        (T, H, W, 3) uint8.
    masks
        (T, H, W) bool, the visible part of the object; all False where it is absent or hidden.
    prior_instances
        (H, W) uint8: 0 is ground, 1 the object, 2 and up the other visible things, without gaps.
    frame_instances
        (T, H, W) uint8: 0 is ground, 1 always the object, 2 and up the others, the same in every frame.
    """

    prior: np.ndarray
    prior_mask: np.ndarray
    frames: np.ndarray
    masks: np.ndarray
    prior_instances: np.ndarray
    frame_instances: np.ndarray


def _between(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Clip in place; on small arrays numpy's own costs several times as much."""
    np.maximum(values, np.float32(low), out=values)
    np.minimum(values, np.float32(high), out=values)
    return values


# --- outlines ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Outline:
    """A shape as radius over angle, scaled so that its area is that of a disc of radius one."""

    kind: str
    radius: np.ndarray
    steep: np.ndarray  # turns a radial distance into a distance to the edge
    hole: float  # inner edge as a fraction of the outer one; 0 is solid
    bite: tuple[float, float, float] | None  # a disc (x, y, r) cut out
    reach: float

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Approximate signed distance to the edge, positive inside."""
        rho = np.sqrt(x * x + y * y)
        index = (np.arctan2(y, x) * np.float32(_ANGLES / (2 * math.pi))).astype(np.intp) & (_ANGLES - 1)
        radius, steep = self.radius[index], self.steep[index]
        inside = (radius - rho) * steep
        if self.hole:
            inside = np.minimum(inside, (rho - self.hole * radius) * steep)
        if self.bite is not None:
            bx, by, br = self.bite
            inside = np.minimum(inside, np.hypot(x - np.float32(bx), y - np.float32(by)) - np.float32(br))
        return inside


@cache
def _theta() -> np.ndarray:
    return np.arange(_ANGLES) * (2 * math.pi / _ANGLES)


@cache
def _cosine() -> np.ndarray:
    return np.cos(_theta())


@cache
def _sine_table() -> np.ndarray:
    return np.sin(_theta())


def _through(corners: Sequence[tuple[float, float]]) -> np.ndarray:
    """Radius table of a polygon that is star-shaped around the origin."""
    points = np.asarray(corners, dtype=np.float64)
    start = np.arctan2(points[:, 1], points[:, 0]) % (2 * math.pi)
    order = np.argsort(start)
    points, start = points[order], start[order]
    edge = np.roll(points, -1, axis=0) - points
    # The ray of an angle meets the edge between the two corners around it; before the first corner that is
    # the last edge, which index -1 says by itself.
    mine = np.searchsorted(start, _theta(), side="right") - 1
    cross = points[:, 0] * edge[:, 1] - points[:, 1] * edge[:, 0]
    facing = _cosine() * edge[mine, 1] - _sine_table() * edge[mine, 0]
    return np.asarray(cross[mine] / facing)


def _blob(dice: np.ndarray) -> np.ndarray:
    table = np.ones(_ANGLES)
    for k in range(2, 7):
        table += (0.36 / math.sqrt(k)) * (dice[k] - 0.35) * np.cos(k * _theta() + 6.28 * dice[8 + k])
    return np.maximum(table, 0.3)


def _ellipse(dice: np.ndarray) -> np.ndarray:
    aspect = 1.35 + 0.9 * dice[0]
    return 1 / np.hypot(_cosine() / aspect, _sine_table())


def _disc(dice: np.ndarray) -> np.ndarray:
    return np.ones(_ANGLES)


def _star(dice: np.ndarray) -> np.ndarray:
    tips, depth = 4 + int(dice[0] * 5), 0.38 + 0.25 * dice[1]
    spin = np.arange(2 * tips) * math.pi / tips
    length = np.where(np.arange(2 * tips) % 2, depth, 1.0)
    return _through(list(zip(length * np.cos(spin), length * np.sin(spin))))


def _flower(dice: np.ndarray) -> np.ndarray:
    return 0.55 + 0.2 * dice[1] + 0.5 * np.abs(np.cos((3 + int(dice[0] * 4)) / 2 * _theta()))


def _gear(dice: np.ndarray) -> np.ndarray:
    teeth = 6 + int(dice[0] * 5)
    return 1 + (0.16 + 0.08 * dice[1]) * np.clip(4 * np.sin(teeth * _theta()), -1, 1)


def _regular(dice: np.ndarray) -> np.ndarray:
    corners = (3, 3, 5, 6)[int(dice[0] * 4)]
    spin = np.arange(corners) * 2 * math.pi / corners
    return _through(list(zip(np.cos(spin), np.sin(spin))))


def _irregular(dice: np.ndarray) -> np.ndarray:
    corners = 5 + int(dice[0] * 3)
    spin = (np.arange(corners) + 0.5 * dice[1 : corners + 1]) * 2 * math.pi / corners
    length = 0.45 + 0.75 * dice[16 : 16 + corners]
    return _through(list(zip(length * np.cos(spin), length * np.sin(spin))))


def _box(dice: np.ndarray) -> np.ndarray:
    w = 1 + 0.9 * dice[0]
    return _through([(w, 1), (-w, 1), (-w, -1), (w, -1)])


def _bar(dice: np.ndarray) -> np.ndarray:
    w = 3.2 + 2 * dice[0]
    return _through([(w, 1), (-w, 1), (-w, -1), (w, -1)])


def _cross(dice: np.ndarray) -> np.ndarray:
    a = 0.28 + 0.14 * dice[0]
    arm = [(1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a), (-a, -1), (a, -1)]
    return _through([*arm, (a, -a)])


def _tee(dice: np.ndarray) -> np.ndarray:
    a = 0.3 + 0.1 * dice[0]
    top = [(1, -0.2), (1, 0.4), (-1, 0.4), (-1, -0.2)]
    return _through([*top, (-a, -0.2), (-a, -1.5), (a, -1.5), (a, -0.2)])


def _arrow(dice: np.ndarray) -> np.ndarray:
    a = 0.25 + 0.12 * dice[0]
    head = [(1.2, 0), (0, 0.9), (-0.1, a), (-1.2, a), (-1.2, -a), (-0.1, -a), (0, -0.9)]
    return _through(head)


def _corner(dice: np.ndarray) -> np.ndarray:
    # An L around a point inside its bend: both arms can be seen from there.
    a, b = 1.3 + 0.5 * dice[0], 1.3 + 0.5 * dice[1]
    return _through([(a, -0.35), (a, 0.35), (0.35, 0.35), (0.35, b), (-0.35, b), (-0.35, -0.35)])


def _drop(dice: np.ndarray) -> np.ndarray:
    off = np.abs((_theta() + math.pi) % (2 * math.pi) - math.pi)
    return 1 + (0.9 + 0.5 * dice[0]) * np.exp(-((off / 0.42) ** 1.2))


_SHAPES = {
    "blob": _blob, "ellipse": _ellipse, "disc": _disc, "star": _star, "flower": _flower, "gear": _gear,
    "regular": _regular, "irregular": _irregular, "box": _box, "bar": _bar, "cross": _cross, "tee": _tee,
    "arrow": _arrow, "corner": _corner, "drop": _drop, "ring": _disc, "frame": _box, "crescent": _disc,
    "eyelet": _regular,
}  # fmt: skip

# Kinds of one group can look alike once turned and tilted; a distractor never shares the object's group
# unless it copies the object's very outline.
_GROUPS = (
    ("blob", "irregular"),
    ("ellipse", "disc", "drop"),
    ("star", "cross"),
    ("flower", "gear"),
    ("regular", "box"),
    ("bar",),
    ("tee", "arrow", "corner"),
    ("ring", "frame", "eyelet"),
    ("crescent",),
)
_CELLS = ("disc", "ellipse", "blob")


def _draw_outline(rng: np.random.Generator, avoid: str = "", among: Sequence[str] = ()) -> _Outline:
    groups = [tuple(among)] if among else [group for group in _GROUPS if avoid not in group]
    group = groups[int(rng.integers(len(groups)))]
    kind = group[int(rng.integers(len(group)))]
    return _outline(kind, rng.random(32))


def _outline(kind: str, dice: np.ndarray) -> _Outline:
    radius = _SHAPES[kind](dice)
    hole = 0.5 + 0.22 * dice[30] if kind in ("ring", "frame", "eyelet") else 0.0
    bite = (0.55 + 0.2 * dice[30], 0.0, 0.75 + 0.15 * dice[31]) if kind == "crescent" else None
    fraction = 1 - hole * hole if bite is None else _left_of_disc(bite)
    unit = math.sqrt(float((radius**2).mean()) * fraction)
    radius = radius / unit
    if bite is not None:
        bite = (bite[0] / unit, 0.0, bite[2] / unit)
    closed = np.concatenate([radius[-1:], radius, radius[:1]])
    slope = (closed[2:] - closed[:-2]) * (_ANGLES / (4 * math.pi))
    steep = np.maximum(1 / np.hypot(1, slope / radius), 0.25)
    return _Outline(
        kind, radius.astype(np.float32), steep.astype(np.float32), float(hole), bite, float(radius.max())
    )


def _left_of_disc(bite: tuple[float, float, float]) -> float:
    """Share of the unit disc that a bite on the x axis leaves."""
    d, _, r = bite
    a = d * d + 1 - r * r
    b = d * d + r * r - 1
    lens = math.acos(a / (2 * d)) + r * r * math.acos(b / (2 * d * r))
    lens -= 0.5 * math.sqrt((1 - d + r) * (1 + d - r) * (d + r - 1) * (d + r + 1))
    return 1 - lens / math.pi


# --- surfaces ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Surface:
    """A pattern, the numbers that fix it, and its three colours (two of the pattern, one accent)."""

    kind: str
    dice: np.ndarray
    colours: np.ndarray
    accent: str = "none"


def _sine(x: np.ndarray, y: np.ndarray, turn: float, wave: float, shift: float) -> np.ndarray:
    k, angle = 2 * math.pi / wave, 2 * math.pi * turn
    return np.asarray(
        np.sin(
            np.float32(k * math.cos(angle)) * x
            + np.float32(k * math.sin(angle)) * y
            + np.float32(2 * math.pi * shift)
        )
    )


def _stripes(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    return 4 * _sine(x, y, d[0], 0.5 + 0.6 * d[1], d[2])


def _checks(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    wave = 0.7 + 0.7 * d[1]
    return 10 * _sine(x, y, d[0], wave, d[2]) * _sine(x, y, d[0] + 0.25, wave, d[3])


def _dots(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    wave = 0.55 + 0.45 * d[1]
    both = _sine(x, y, d[0], wave, d[2]) + _sine(x, y, d[0] + 0.25, wave, d[3])
    return 4 * (both - np.float32(0.5))


def _waves(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    bend = np.float32(0.18 + 0.2 * d[3]) * _sine(x, y, d[0] + 0.25, 1.0 + 0.8 * d[4], d[5])
    return 4 * _sine(x + bend, y + bend, d[0], 0.55 + 0.5 * d[1], d[2])


def _plasma(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    total = _sine(x, y, d[0], 0.7 + d[1], d[2])
    for k in (3, 6, 9):
        total = total + _sine(x, y, d[k], 0.7 + d[k + 1], d[k + 2])
    return np.float32(0.8 + 1.5 * d[12]) * total


def _plaid(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    one = np.clip(3 * _sine(x, y, d[0], 0.6 + 0.5 * d[1], d[2]), -1, 1)
    two = np.clip(3 * _sine(x, y, d[0] + 0.25, 0.6 + 0.5 * d[3], d[4]), -1, 1)
    return np.float32(0.5) * (one + two)


def _patches(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Smoothed random values on an 8 x 8 grid that repeats."""
    grid = d[32:96].astype(np.float32)
    density = np.float32(1.4 + 1.4 * d[0])
    u, v = x * density + 64, y * density + 64
    iu, iv = u.astype(np.intp), v.astype(np.intp)
    fu, fv = u - iu.astype(np.float32), v - iv.astype(np.float32)
    fu, fv = fu * fu * (3 - 2 * fu), fv * fv * (3 - 2 * fv)
    left, right, top, low = iu & 7, (iu + 1) & 7, (iv & 7) * 8, ((iv + 1) & 7) * 8
    a = grid[top + left]
    a = a + fu * (grid[top + right] - a)
    b = grid[low + left]
    b = b + fu * (grid[low + right] - b)
    return np.float32(3 + 5 * d[1]) * (a + fv * (b - a) - np.float32(0.5))


def _spots(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    """A few blots of different sizes in fixed places; they tell one side of a thing from the other."""
    nearest = np.full(x.shape, -9, np.float32)
    for k in range(4 + int(4 * d[0])):
        cx, cy = 2.2 * d[1 + 3 * k] - 1.1, 2.2 * d[2 + 3 * k] - 1.1
        size = 0.18 + 0.2 * d[3 + 3 * k]
        dx, dy = x - np.float32(cx), y - np.float32(cy)
        np.maximum(nearest, np.float32(size * size) - dx * dx - dy * dy, out=nearest)
    return nearest * 12


def _rings(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    dx, dy = x - np.float32(0.5 * d[0] - 0.25), y - np.float32(0.5 * d[1] - 0.25)
    return 4 * np.sin(np.sqrt(dx * dx + dy * dy) * np.float32(2 * math.pi / (0.5 + 0.5 * d[2])))


def _sectors(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Halves, quarters or wedges around a point near the middle."""
    dx, dy = x - np.float32(0.4 * d[0] - 0.2), y - np.float32(0.4 * d[1] - 0.2)
    return 6 * np.sin((1 + int(d[2] * 4)) * np.arctan2(dy, dx) + np.float32(6.28 * d[3]))


def _shaded(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    return _sine(x, y, d[0], 4 + 2 * d[1], d[2])


_PATTERNS = {
    "stripes": _stripes, "checks": _checks, "dots": _dots, "waves": _waves, "plasma": _plasma,
    "plaid": _plaid, "patches": _patches, "spots": _spots, "rings": _rings, "sectors": _sectors,
    "shaded": _shaded,
}  # fmt: skip
_GROUND_PATTERNS = ("stripes", "checks", "dots", "waves", "plasma", "plaid", "patches", "shaded")
_CELL_PATTERNS = ("patches", "spots", "shaded", "plasma")
_ACCENTS = ("none", "none", "none", "rim", "eye", "cap")


def _colour(
    surface: _Surface, x: np.ndarray, y: np.ndarray, out: np.ndarray, inside: np.ndarray | None = None
) -> None:
    """Write the colours at the given places to `out`, a list of planes.

    `inside`, the distance to the edge, is what a rim goes by. Planes, because a loop over three numbers for
    every pixel is many times slower than three loops over all pixels.
    """
    value = _between(np.float32(0.5) * _PATTERNS[surface.kind](x, y, surface.dice) + np.float32(0.5), 0, 1)
    where = None if inside is None else _accent(surface, x, y, inside)
    for plane, one, two, three in zip(out, *surface.colours):
        np.multiply(value, two - one, out=plane)
        plane += one
        if where is not None:
            plane[where] = three


def _accent(surface: _Surface, x: np.ndarray, y: np.ndarray, inside: np.ndarray) -> np.ndarray | None:
    d = surface.dice
    if surface.accent == "rim":
        return np.asarray(inside < np.float32(0.12 + 0.1 * d[100]))
    if surface.accent == "eye":
        dx, dy = x - np.float32(d[101] - 0.5), y - np.float32(d[102] - 0.5)
        return np.asarray(dx * dx + dy * dy < (0.3 + 0.15 * d[103]) ** 2)
    if surface.accent == "cap":
        return np.asarray(_sine(x, y, d[101], 6.0, 0) > 0.25 + 0.3 * d[102])
    return None


# --- colours ----------------------------------------------------------------------------------------------

_EYE = np.array([0.9, 1.2, 0.6], np.float32)  # how much a difference in red, green, blue counts


def _apart(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Distances between all colours of `one` (..., N, 3) and `two` (M, 3)."""
    difference = one[..., :, None, :] - two
    return np.sqrt((difference * difference * _EYE).sum(-1))


def _rainbow(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    wheel = np.abs((hue[..., None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    return (value[..., None] * (1 - saturation[..., None] * (1 - np.clip(wheel, 0, 1)))).astype(np.float32)


def _draw_colours(
    rng: np.random.Generator, avoid: np.ndarray, floor: float, calm: bool = False
) -> np.ndarray:
    """Three colours, at least `floor` from those to avoid if any of the drawn candidates is.

    `calm` colours stay near one another, as a ground's do.
    """
    n = 20
    hue = rng.random((n, 1)) + np.array([0, 1, 1]) * rng.choice([0.0, 0.08, 0.3, 0.5], (n, 3))
    saturation = np.clip(rng.random((n, 1)) ** 0.7 + 0.5 * (rng.random((n, 3)) - 0.5), 0, 1)
    value = 0.12 + 0.86 * rng.random((n, 3))
    if calm:
        hue = hue[:, :1] + 0.12 * (rng.random((n, 3)) - 0.5)
        value = np.clip(value[:, :1] + 0.35 * (rng.random((n, 3)) - 0.5), 0.08, 1)
        saturation = np.clip(0.8 * saturation[:, :1] + 0.2 * (rng.random((n, 3)) - 0.5), 0, 1)
    colours = _rainbow(hue, saturation, value)
    score = _apart(colours, avoid).min(axis=(1, 2)) if len(avoid) else np.full(n, 9.0, np.float32)
    if not calm:
        # A pattern whose two colours are alike is no pattern.
        pair = colours[:, 0] - colours[:, 1]
        score = np.minimum(score, np.sqrt((pair * pair * _EYE).sum(-1)) * (floor / 0.3))
    good = np.flatnonzero(score >= floor)
    return colours[good[0] if len(good) else int(score.argmax())]


def _draw_surface(rng: np.random.Generator, avoid: np.ndarray, not_kind: str = "") -> _Surface:
    kinds = [kind for kind in _PATTERNS if kind != not_kind]
    kind = kinds[int(rng.integers(len(kinds)))]
    accent = _ACCENTS[int(rng.integers(len(_ACCENTS)))]
    return _Surface(kind, rng.random(104), _draw_colours(rng, avoid, 0.26), accent)


def _draw_ground(rng: np.random.Generator, avoid: np.ndarray) -> _Surface:
    kind = _GROUND_PATTERNS[int(rng.integers(len(_GROUND_PATTERNS)))]
    return _Surface(kind, rng.random(104), _draw_colours(rng, avoid, 0.3, calm=True))


def _draw_cell(rng: np.random.Generator) -> _Surface:
    """A cell's surface: gray, bright, with a dimmer or brighter inside."""
    bright = 0.4 + 0.5 * rng.random()
    levels = np.array([bright, np.clip(bright + rng.uniform(-0.25, 0.25), 0.33, 1), min(bright + 0.25, 1)])
    kind = _CELL_PATTERNS[int(rng.integers(len(_CELL_PATTERNS)))]
    accent = ("none", "rim", "eye")[int(rng.integers(3))]
    return _Surface(kind, rng.random(104), np.repeat(levels[:, None], 3, 1).astype(np.float32), accent)


def _cell_ground(rng: np.random.Generator) -> _Surface:
    dark = 0.05 + 0.12 * rng.random()
    levels = np.array([dark, dark + 0.02 + 0.05 * rng.random(), dark])
    colours = np.repeat(levels[:, None], 3, 1).astype(np.float32)
    return _Surface("patches" if rng.random() < 0.5 else "shaded", rng.random(104), colours)


# --- things and their paths -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Path:
    """Where a thing is in every frame: place and radius in pixels, angle in radians, tilt as an aspect."""

    place: np.ndarray  # (T, 2) x, y
    angle: np.ndarray  # (T,)
    radius: np.ndarray  # (T,)
    tilt: float


@dataclass(eq=False)
class _Thing:
    outline: _Outline
    surface: _Surface
    size: float  # typical radius in pixels
    levels: list[tuple[float, np.ndarray]] = field(default_factory=list)  # (texels per unit, sprite)


def _draw_sprite(thing: _Thing, radius: float) -> None:
    """Draw the thing once, fine enough for `radius` pixels, with halved copies for smaller sizes."""
    half = thing.outline.reach + 2 / radius
    n = 4 * max(3, math.ceil(half * radius * 1.2 / 2))
    axis = ((np.arange(n, dtype=np.float32) + 0.5) * (2 / n) - 1) * np.float32(half)
    x, y = np.tile(axis, (n, 1)), np.repeat(axis, n).reshape(n, n)
    inside = thing.outline.distance(x, y)
    sprite = np.empty((n, n, 4), np.float32)
    _colour(thing.surface, x, y, np.moveaxis(sprite, 2, 0), inside)
    sprite[..., 3] = inside
    thing.levels = [(n / (2 * half), sprite)]
    while n >= 24 and n % 4 == 0:
        quarters = sprite[0::2, 0::2] + sprite[1::2, 0::2] + sprite[0::2, 1::2] + sprite[1::2, 1::2]
        sprite = quarters * np.float32(0.25)
        n //= 2
        thing.levels.append((n / (2 * half), sprite))


def _stamp(canvas: np.ndarray, ids: np.ndarray, thing: _Thing, path: _Path, t: int, number: int) -> int:
    """Paint a thing onto a frame; the number of pixels it covers."""
    side = len(ids)
    (cx, cy), radius, tilt = path.place[t], float(path.radius[t]), path.tilt
    far = thing.outline.reach * radius * max(tilt, 1 / tilt) + 1.5
    x0, x1 = max(0, math.floor(cx - far)), min(side, math.ceil(cx + far) + 1)
    y0, y1 = max(0, math.floor(cy - far)), min(side, math.ceil(cy + far) + 1)
    if x0 >= x1 or y0 >= y1:
        return 0
    # The coarsest copy that still has a texel for every pixel: nearest look-up is then sharp and free of
    # shimmer.
    texels, sprite = next((lv for lv in reversed(thing.levels) if lv[0] >= 0.95 * radius), thing.levels[0])
    n = len(sprite)
    step, c, s = texels / radius, math.cos(path.angle[t]), math.sin(path.angle[t])
    dx = np.arange(x0, x1, dtype=np.float32) + np.float32(0.5 - cx)
    dy = (np.arange(y0, y1, dtype=np.float32) + np.float32(0.5 - cy))[:, None]
    u = dx * np.float32(step * c / tilt) + (dy * np.float32(step * s / tilt) + np.float32(n / 2))
    v = dx * np.float32(-step * s * tilt) + (dy * np.float32(step * c * tilt) + np.float32(n / 2))
    index = _between(v, 0, n - 1).astype(np.intp)
    index *= n
    index += _between(u, 0, n - 1).astype(np.intp)
    # Four float32 move as one 16-byte item: one look-up for colour and distance.
    texel = sprite.view(np.complex128).reshape(-1)[index].view(np.float32).reshape(*index.shape, 4)
    cover = _between(texel[..., 3] * np.float32(radius) + np.float32(0.5), 0, 1)
    for k in range(3):
        region = canvas[k, y0:y1, x0:x1]
        region += cover * (texel[..., k] - region)
    solid = cover > 0.5
    ids[y0:y1, x0:x1][solid] = number
    return int(np.count_nonzero(solid))


def _draw_size(rng: np.random.Generator, config: SceneConfig, most: float) -> float:
    """A radius in pixels, small ones as likely as large ones per octave."""
    low, high = config.scale
    high = max(low, min(high, most))
    return 0.5 * config.side * low * (high / low) ** float(rng.random())


def _draw_path(
    rng: np.random.Generator, config: SceneConfig, frames: int, radius: float, place: np.ndarray, at: int,
    angle: float, tilt: float, pace: float = 1.0,
) -> _Path:  # fmt: skip
    """A smooth path that is at `place` in frame `at`.

    Slow sines rather than straight lines, so that long clips stay near the picture while short ones look
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
    return _Path(place + moved, angle + turning * t, radius * growth, tilt)


def _crossing(rng: np.random.Generator, config: SceneConfig, path: _Path, size: float, lead: int) -> _Path:
    """The path of something that passes in front of what follows `path`, not before frame `lead`."""
    frames = len(path.angle)
    middle = rng.uniform(min(lead, frames - 1), frames - 1)
    away = (size + float(path.radius.mean())) * rng.uniform(0.5, 0.9) * max(config.motion, 0.25)
    heading = rng.uniform(0, 2 * math.pi)
    step = away * np.array([math.cos(heading), math.sin(heading)])
    aside = rng.uniform(-0.5, 0.5) * size * np.array([-math.sin(heading), math.cos(heading)])
    t = np.arange(frames)[:, None] - middle
    turn = rng.uniform(0, 6.28) + rng.uniform(-0.1, 0.1) * config.motion * t[:, 0]
    return _Path(path.place + t * step + aside, turn, np.full(frames, size), 1.0)


def _excursion(rng: np.random.Generator, config: SceneConfig, path: _Path, far: float, lead: int) -> _Path:
    """The path with a way out over the nearest border and back, so that what leaves may be found again."""
    frames, side = len(path.angle), config.side
    peak = rng.uniform(min(lead + 1, frames - 1), frames - 1)
    # What must stand still in the prior picture's frame is not under way before it.
    half = rng.uniform(2.0, 6.0) if lead == 0 else min(rng.uniform(2.0, 6.0), peak)
    x, y = path.place[round(peak)]
    room, way = min((x, (-1.0, 0.0)), (side - x, (1.0, 0.0)), (y, (0.0, -1.0)), (side - y, (0.0, 1.0)))
    t = np.clip((np.arange(frames) - peak) / half, -1, 1)
    # A tenth more than needed: out of sight for a frame or a few around the peak.
    out = max(0.0, room + 1.2 * far) * 1.1 * np.cos(t * math.pi / 2) ** 2
    return replace(path, place=path.place + out[:, None] * np.array(way))


# --- scenes -----------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Scene:
    """Everything that stands still or moves in a row of frames; `cast` is in order of depth, nearest last."""

    ground: np.ndarray  # (3, H + margin, W + margin)
    drift: np.ndarray  # (T, 2) where the frame's corner is on the ground
    light: np.ndarray  # (3, H, W) gain
    flicker: np.ndarray  # (T,)
    grain: float
    gray: bool
    offsets: np.ndarray  # (T, 2) into the bank of noise
    cast: list[tuple[int, _Thing, _Path]]


@cache
def _noise_bank() -> np.ndarray:
    """Noise that every scene cuts its grain from; drawing it anew would cost more than all the rest."""
    return np.random.default_rng(7).standard_normal((3, 2 * _NOISE_SIDE, 2 * _NOISE_SIDE), dtype=np.float32)


def _noise(gray: bool, offset: np.ndarray, side: int) -> np.ndarray:
    bank = _noise_bank()[: 1 if gray else 3]
    if side > _NOISE_SIDE:
        repeats = -(-side // (2 * _NOISE_SIDE)) + 1
        bank = np.tile(bank, (1, repeats, repeats))
    return bank[:, offset[0] : offset[0] + side, offset[1] : offset[1] + side]


def _paint(scene: _Scene, t: int) -> tuple[np.ndarray, np.ndarray, int]:
    """A frame, its instance map, and how many pixels the object would show with nothing before it."""
    side = scene.light.shape[-1]
    x, y = scene.drift[t]
    canvas = scene.ground[:, y : y + side, x : x + side].copy()
    ids = np.zeros((side, side), np.uint8)
    alone = 0
    for number, thing, path in scene.cast:
        covered = _stamp(canvas, ids, thing, path, t, number)
        if number == OBJECT_ID:
            alone = covered
    canvas *= scene.light * np.float32(255 * scene.flicker[t])
    canvas += np.float32(scene.grain * 255) * _noise(scene.gray, scene.offsets[t], side)
    _between(canvas, 0, 255)
    picture = np.empty((side, side, 3), np.uint8)
    for k in range(3):
        picture[..., k] = canvas[k]
    return picture, ids, alone


def _spread_ground(
    rng: np.random.Generator, surface: _Surface, other: _Surface | None, side: int, margin: int
) -> np.ndarray:
    """Ground a little larger than the picture, so that the camera can drift over it."""
    n = side + margin
    unit = n * (0.1 + 0.25 * rng.random())
    axis = (np.arange(n, dtype=np.float32) - n / 2) / np.float32(unit)
    x, y = np.tile(axis, (n, 1)), np.repeat(axis, n).reshape(n, n)
    rgb = np.empty((3, n, n), np.float32)
    _colour(surface, x, y, rgb)
    # A slow change of colour, towards the pattern's own third colour.
    slow = _sine(x, y, float(rng.random()), n / unit * (0.8 + rng.random()), float(rng.random()))
    slow = np.float32(0.2) + np.float32(0.2) * slow
    for plane, colour in zip(rgb, surface.colours[2]):
        plane += slow * (colour - plane)
    if other is not None:
        turn = float(rng.random())
        bend = np.float32(0.3) * _sine(x, y, turn + 0.25, 2 + 2 * float(rng.random()), float(rng.random()))
        across = np.float32(math.cos(2 * math.pi * turn)) * x + np.float32(math.sin(2 * math.pi * turn)) * y
        beyond = across + bend > rng.uniform(-1, 1)
        part = np.empty((3, np.count_nonzero(beyond)), np.float32)
        _colour(other, x[beyond], y[beyond], part)
        rgb[:, beyond] = part
    return rgb


def _draw_light(rng: np.random.Generator, config: SceneConfig, gray: bool) -> np.ndarray:
    strength = config.appearance
    gain = math.exp(0.3 * strength * rng.uniform(-1, 0.6))
    tint = np.ones(3) if gray else np.exp(0.12 * strength * rng.uniform(-1, 1, 3))
    axis = np.linspace(-1, 1, config.side, dtype=np.float32)
    heading, slope = rng.uniform(0, 2 * math.pi), 0.2 * min(strength, 1.5) * rng.random()
    plane = 1 + np.float32(slope * math.cos(heading)) * axis[None, :]
    plane = plane + np.float32(slope * math.sin(heading)) * axis[:, None]
    return np.stack([plane * np.float32(gain * t) for t in tint])


def _draw_stage(
    rng: np.random.Generator, config: SceneConfig, frames: int, grounds: Sequence[_Surface], gray: bool
) -> _Scene:
    """A scene with no things in it yet."""
    margin = max(2, config.side // 6)
    t = np.arange(frames)[:, None]
    speed = 0.02 * margin * config.motion * rng.uniform(-1, 1, 2) * (rng.random() < 0.6)
    phase = rng.uniform(0, 2 * math.pi, 2)
    drift = np.rint((np.sin(phase + speed * t) + 1) / 2 * margin).astype(int)
    return _Scene(
        _spread_ground(rng, grounds[0], grounds[1] if len(grounds) > 1 else None, config.side, margin),
        drift,
        _draw_light(rng, config, gray),
        1 + 0.02 * config.motion * rng.uniform(-1, 1, frames),
        float(rng.uniform(0.0, 0.03)),
        gray,
        rng.integers(0, _NOISE_SIDE, (frames, 2)),
        [],
    )


def _find_place(
    rng: np.random.Generator, side: int, far: float, taken: Sequence[tuple[np.ndarray, float]], tries: int
) -> np.ndarray:
    """Of a few random places, the one with most room to the things already there."""
    low = min(far, side / 2)
    places = low + rng.random((tries, 2)) * (side - 2 * low)
    room = np.full(tries, np.inf)
    for place, radius in taken:
        room = np.minimum(room, np.hypot(*(places - place).T) - radius)
    return np.asarray(places[int(room.argmax())])


def _draw_target(rng: np.random.Generator) -> _Thing:
    return _Thing(_draw_outline(rng), _draw_surface(rng, np.empty((0, 3), np.float32)), 0.0)


def _most(config: SceneConfig, outline: _Outline) -> float:
    """The largest radius that still fits the picture; a long bar of the largest area would not."""
    return 0.5 * config.side / outline.reach


def _prior_size(rng: np.random.Generator, config: SceneConfig, outline: _Outline, most: float) -> float:
    """The object's radius in the prior picture, never so small that it is hard to see."""
    size = min(_draw_size(rng, config, most), _most(config, outline))
    return max(size, 0.5 * config.side * _SMALLEST_PRIOR)


def _draw_others(
    rng: np.random.Generator, config: SceneConfig, target: _Thing, grounds: np.ndarray, count: int
) -> list[_Thing]:
    """Distractors: mostly other outline and other surface, a hard share with one of them copied."""
    things = []
    for _ in range(count):
        size = _draw_size(rng, config, 0.36)
        copied = rng.random() < config.hard
        if copied and rng.random() < 0.5:
            surface, outline = target.surface, _draw_outline(rng, avoid=target.outline.kind)
        else:
            avoid = np.concatenate([grounds, target.surface.colours])
            surface = _draw_surface(rng, avoid, target.surface.kind)
            outline = target.outline if copied else _draw_outline(rng, avoid=target.outline.kind)
        things.append(_Thing(outline, surface, size))
    return things


def _draw_cells(rng: np.random.Generator, config: SceneConfig, target: _Thing, count: int) -> list[_Thing]:
    """Other cells: most of the object's own type, with an outline of their own."""
    things = []
    for _ in range(count):
        surface = target.surface if rng.random() < 0.5 else _draw_cell(rng)
        size = target.size * math.exp(rng.uniform(-0.4, 0.3))
        things.append(_Thing(_draw_outline(rng, among=_CELLS), surface, size))
    return things


def _cast(
    rng: np.random.Generator, config: SceneConfig, scene: _Scene, target: _Thing | None, radius: float,
    others: Sequence[_Thing], first: int, pace: float, occluder: _Thing | None, lead: int = 0,
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
        path = _draw_path(rng, config, frames, radius, place, first, _turn(rng, config), tilt(), pace)
        if frames > 2 and config.leaving and rng.random() < config.leaving:
            path = _excursion(rng, config, path, radius * target.outline.reach, lead)
        taken.append((place, 1.5 * radius))
    for number, thing in enumerate(others, OBJECT_ID + 1):
        place = _find_place(rng, config.side, 0.8 * thing.size, taken, 6)
        spin = rng.uniform(0, 2 * math.pi)
        walk = _draw_path(rng, config, frames, thing.size, place, first, spin, tilt(), pace)
        taken.append((place, thing.size))
        cast.append((number, thing, walk))
    if target is not None and path is not None:
        cast.insert(int(rng.integers(len(cast) + 1)), (OBJECT_ID, target, path))
        if occluder is not None:
            over = _crossing(rng, config, path, occluder.size, lead)
            cast.append((len(cast) + 1, occluder, over))
    scene.cast = cast
    for _, thing, walk in cast:
        needed = float(walk.radius.max())
        if not thing.levels or thing.levels[0][0] < 0.95 * needed:
            _draw_sprite(thing, needed)


def _turn(rng: np.random.Generator, config: SceneConfig) -> float:
    return float(rng.uniform(-math.pi, math.pi)) * min(config.appearance, 1.0)


def _lift(scene: _Scene, over_all: bool) -> None:
    """Bring the object to the front, or just behind the last thing."""
    mine = next(entry for entry in scene.cast if entry[0] == OBJECT_ID)
    rest = [entry for entry in scene.cast if entry[0] != OBJECT_ID]
    scene.cast = [*rest, mine] if over_all or not rest else [*rest[:-1], mine, rest[-1]]


def _paint_prior(scene: _Scene, occluded: bool) -> tuple[np.ndarray, np.ndarray]:
    """The prior picture, with the object brought forward if too little of it shows."""
    for attempt in range(3):
        picture, ids, alone = _paint(scene, 0)
        if np.count_nonzero(ids == OBJECT_ID) >= 0.92 * alone:
            break
        _lift(scene, over_all=attempt > 0 or not occluded)
    return picture, ids


def _close_ranks(ids: np.ndarray) -> np.ndarray:
    """Number the visible things 1, 2, 3 ... without gaps; the object stays first."""
    table = np.zeros(256, np.uint8)
    seen = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)[1:]) + 1
    table[seen] = np.arange(1, len(seen) + 1)
    return table[ids]


def _paint_clip(scene: _Scene, start: int) -> tuple[np.ndarray, np.ndarray]:
    painted = [_paint(scene, t)[:2] for t in range(start, len(scene.drift))]
    return np.stack([p for p, _ in painted]), np.stack([i for _, i in painted])


def _count(rng: np.random.Generator, config: SceneConfig) -> int:
    return int(rng.integers(config.distractors[0], config.distractors[1] + 1))


def _continued(
    rng: np.random.Generator, config: SceneConfig, gray: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The clip carries the prior picture's scene on."""
    if gray:
        target = _Thing(_draw_outline(rng, among=_CELLS), _draw_cell(rng), 0.0)
        target.size = _prior_size(rng, config, target.outline, 0.3)
        grounds = [_cell_ground(rng)]
        others = _draw_cells(rng, config, target, 2 * _count(rng, config))
    else:
        target = _draw_target(rng)
        target.size = _prior_size(rng, config, target.outline, 1.0)
        grounds = _draw_grounds(rng, target)
        others = _draw_others(rng, config, target, _colours_of(grounds), _count(rng, config))
    scene = _draw_stage(rng, config, config.frames + 1, grounds, gray)
    over = _draw_occluder(rng, config, target, target.size, grounds, gray)
    _cast(rng, config, scene, target, target.size, others, 0, 0.6, over, lead=2)
    prior, prior_ids = _paint_prior(scene, over is not None)
    if rng.random() < config.absent:
        scene.cast = [entry for entry in scene.cast if entry[0] != OBJECT_ID]
    return prior, prior_ids, *_paint_clip(scene, 1)


def _unrelated(
    rng: np.random.Generator, config: SceneConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The clip shares nothing with the prior picture but the object, and sometimes one other thing."""
    target = _draw_target(rng)
    size = target.size = _prior_size(rng, config, target.outline, 1.0)
    grounds = _draw_grounds(rng, target)
    others = _draw_others(rng, config, target, _colours_of(grounds), _count(rng, config))
    scene = _draw_stage(rng, config, 1, grounds, gray=False)
    _cast(rng, config, scene, target, size, others, 0, 1.0, None)
    prior, prior_ids = _paint_prior(scene, occluded=False)

    absent = rng.random() < config.absent
    grounds = _draw_grounds(rng, target)
    # One more thing where the object is absent, so that the number of things does not give it away.
    new = _draw_others(rng, config, target, _colours_of(grounds), _count(rng, config) + int(absent))
    if others and new and rng.random() < 0.3:
        # Something else from the prior picture: being known from there must not be enough.
        new[0] = others[0]
    scene = _draw_stage(rng, config, config.frames, grounds, gray=False)
    low, high = (0.5 * config.side * s for s in config.scale)
    again = float(np.clip(size * math.exp(0.7 * config.appearance * rng.uniform(-1, 1)), low, high))
    again = min(again, _most(config, target.outline))
    over = None if absent else _draw_occluder(rng, config, target, again, grounds, gray=False)
    first = int(rng.integers(config.frames))
    _cast(rng, config, scene, None if absent else target, again, new, first, 1.0, over)
    return prior, prior_ids, *_paint_clip(scene, 0)


def _draw_grounds(rng: np.random.Generator, target: _Thing) -> list[_Surface]:
    """One or two grounds that the object stands out from."""
    return [_draw_ground(rng, target.surface.colours) for _ in range(1 + int(rng.random() < 0.25))]


def _colours_of(grounds: Sequence[_Surface]) -> np.ndarray:
    return np.concatenate([ground.colours for ground in grounds])


def _draw_occluder(
    rng: np.random.Generator, config: SceneConfig, target: _Thing, radius: float,
    grounds: Sequence[_Surface], gray: bool,
) -> _Thing | None:  # fmt: skip
    if rng.random() >= config.occlusion:
        return None
    if gray:
        over = _draw_cells(rng, config, target, 1)[0]
    else:
        over = _draw_others(rng, replace(config, hard=0.0), target, _colours_of(grounds), 1)[0]
    over.size = radius * rng.uniform(0.7, 1.2)
    return over


def make_example(config: SceneConfig, seed: int) -> Example:
    """Draw the scene of one seed.

    Parameters
    ----------
    config
        What scenes look like.
    seed
        Below 1,000,000 for measuring, from there on for training.

    Returns
    -------
    Example
        The same bytes for the same configuration and seed.
    """
    rng = np.random.default_rng(seed)
    gray = rng.random() < config.microscopy
    if gray or rng.random() >= config.unrelated:
        prior, prior_ids, frames, ids = _continued(rng, config, gray)
    else:
        prior, prior_ids, frames, ids = _unrelated(rng, config)
    return Example(prior, prior_ids == OBJECT_ID, frames, ids == OBJECT_ID, _close_ranks(prior_ids), ids)


def make_batch(config: SceneConfig, seeds: Iterable[int]) -> dict[str, np.ndarray]:
    """Draw one example per seed and stack each field under its name."""
    examples = [make_example(config, seed) for seed in seeds]
    names = ("prior", "prior_mask", "frames", "masks", "prior_instances", "frame_instances")
    return {name: np.stack([getattr(example, name) for example in examples]) for name in names}


def _outlined(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with a bright line just outside the mask."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    shown = picture.copy()
    shown[grown & ~mask] = (255, 0, 255)
    return shown


def render_sheet(examples: Sequence[Example], outlined: bool = True) -> np.ndarray:
    """Lay examples out as one picture.

    Parameters
    ----------
    examples
        One row each: the prior picture, a gap, the frames of the clip.
    outlined
        Draw a line around the object where it is visible.

    Returns
    -------
    numpy.ndarray
        (H, W, 3) uint8.
    """
    rows = []
    for example in examples:
        cells = [(example.prior, example.prior_mask), *zip(example.frames, example.masks)]
        tiles = [_outlined(p, m) if outlined else p for p, m in cells]
        tiles = [np.pad(tile, ((0, 3), (0, 3), (0, 0)), constant_values=255) for tile in tiles]
        gap = np.full((tiles[0].shape[0], 6, 3), 255, np.uint8)
        rows.append(np.concatenate([tiles[0], gap, *tiles[1:]], axis=1))
    return np.concatenate(rows)
