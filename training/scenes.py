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
    "KEPT_OUT_SHAPES",
    "KEPT_OUT_TEXTURES",
    "Example",
    "SceneConfig",
    "make_batch",
    "make_example",
    "make_shared",
    "render_sheet",
]

HELD_OUT_SEEDS = range(0, 1_000_000)
"""Seeds for measuring only; never train on them."""

FIRST_TRAINING_SEED = 1_000_000
"""Training seeds start here."""

KEPT_OUT_SHAPES = ("heart", "pinwheel")
"""Outlines that are only drawn where a configuration names them: training never sees them."""

KEPT_OUT_TEXTURES = ("bricks", "honeycomb")
"""Patterns that are only drawn where a configuration names them: training never sees them."""

OBJECT_ID = 1
"""The object's number in every instance map."""

_ANGLES = 512  # entries of an outline's radius table
_SMALLEST_PRIOR = 0.12  # diameter / side: a disc of this size covers 1.13 % of the picture
_SMALLEST = 0.03  # the same of a thing that is meant to be small
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
        Share of gray scenes of cells, bright on dark or gray with halos; their clip always carries the
        prior's scene on.
    halos
        Share of the scenes of bright cells in which a dark halo, up to half a radius wide, is around each.
    leaving
        Share of clips of three frames or more in which the object goes out of the picture, or comes into it.
    priors
        Number of pictures that show the object to begin with.
    small
        Share of things that are smaller than `scale` says, down to a diameter of 0.03 of the side.
    hiding
        Share of the occluders that cover all of the object for a few frames before it returns.
    deform
        Strength of bending, swelling and turning out of the plane.
    effects
        Strength of what a camera does: blur, soft edges, shading, shadows, shake, photon noise, low contrast.
    gray
        Share of the other scenes that have no colour.
    shapes, textures
        What the object's outline and pattern are drawn from; empty for those that training may see.
    """

    side: int = 128
    frames: int = 4
    distractors: tuple[int, int] = (1, 4)
    scale: tuple[float, float] = (0.12, 0.6)
    motion: float = 1.0
    unrelated: float = 1.0
    absent: float = 0.125
    occlusion: float = 0.35
    appearance: float = 1.0
    hard: float = 0.3
    microscopy: float = 0.2
    halos: float = 0.0
    leaving: float = 0.12
    priors: int = 1
    small: float = 0.08
    hiding: float = 0.4
    deform: float = 1.0
    effects: float = 1.0
    gray: float = 0.15
    shapes: tuple[str, ...] = ()
    textures: tuple[str, ...] = ()


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
    more_priors, more_prior_masks
        (P - 1, H, W, 3) uint8 and (P - 1, H, W) bool: the other pictures that show the object to begin with.
    facts
        What was drawn: the kind of scene, the object's outline and pattern.
    """

    prior: np.ndarray
    prior_mask: np.ndarray
    frames: np.ndarray
    masks: np.ndarray
    prior_instances: np.ndarray
    frame_instances: np.ndarray
    more_priors: np.ndarray
    more_prior_masks: np.ndarray
    facts: dict[str, str]


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


def _rod(dice: np.ndarray) -> np.ndarray:
    w = 6 + 3 * dice[0]
    return _through([(w, 1), (-w, 1), (-w, -1), (w, -1)])


def _bean(dice: np.ndarray) -> np.ndarray:
    off = np.abs((_theta() + math.pi) % (2 * math.pi) - math.pi)
    return _ellipse(dice)[np.arange(_ANGLES) - _ANGLES // 4] * (
        1 - (0.3 + 0.25 * dice[2]) * np.exp(-((off / 0.7) ** 2))
    )


def _heart(dice: np.ndarray) -> np.ndarray:
    notch, low = 0.25 + 0.3 * dice[0], 1.0 + 0.4 * dice[1]
    half = [(0.35, 0.85), (0.75, 0.85), (1.05, 0.5), (1.0, 0.1)]
    return _through([(0, notch), *half, (0, -low), *((-x, y) for x, y in half)])


def _pinwheel(dice: np.ndarray) -> np.ndarray:
    blades = 3 + int(dice[0] * 4)
    return 0.5 + (0.5 + 0.3 * dice[1]) * ((blades * _theta() / (2 * math.pi)) % 1)


_SHAPES = {
    "blob": _blob, "ellipse": _ellipse, "disc": _disc, "star": _star, "flower": _flower, "gear": _gear,
    "regular": _regular, "irregular": _irregular, "box": _box, "bar": _bar, "cross": _cross, "tee": _tee,
    "arrow": _arrow, "corner": _corner, "drop": _drop, "ring": _disc, "frame": _box, "crescent": _disc,
    "eyelet": _regular, "rod": _rod, "hoop": _disc, "bean": _bean, "heart": _heart, "pinwheel": _pinwheel,
}  # fmt: skip

# Kinds of one group can look alike once turned and tilted; a distractor never shares the object's group
# unless it copies the object's very outline.
_GROUPS = (
    ("blob", "irregular"),
    ("ellipse", "disc", "drop", "bean"),
    ("star", "cross"),
    ("flower", "gear"),
    ("regular", "box"),
    ("bar", "rod"),
    ("tee", "arrow", "corner"),
    ("ring", "frame", "eyelet", "hoop"),
    ("crescent",),
)
KINDS = tuple(kind for group in _GROUPS for kind in group)  # that training may see
LINEUP = 9  # things of a line-up
_CELLS = ("disc", "ellipse", "blob", "bean")


def _draw_outline(rng: np.random.Generator, avoid: str = "", among: Sequence[str] = ()) -> _Outline:
    """An outline of one of the groups, which have none that is kept out, or of the kinds named in `among`."""
    groups = [tuple(among)] if among else [group for group in _GROUPS if avoid not in group]
    group = groups[int(rng.integers(len(groups)))]
    kind = group[int(rng.integers(len(group)))]
    return _outline(kind, rng.random(32))


def _outline(kind: str, dice: np.ndarray) -> _Outline:
    radius = _SHAPES[kind](dice)
    hole = 0.5 + 0.22 * dice[30] if kind in ("ring", "frame", "eyelet") else 0.0
    hole = 0.74 + 0.1 * dice[30] if kind == "hoop" else hole
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


def _plain(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    return np.full(x.shape, 2 * d[0] - 1, np.float32)


def _speckle(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Noise of a grain that is fixed to the thing."""
    return np.float32(0.4 + 0.8 * d[1]) * _from_bank(x, y, 5 + 12 * d[0], 5 + 12 * d[0], d)


def _fibres(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    c, s = np.float32(math.cos(6.28 * d[2])), np.float32(math.sin(6.28 * d[2]))
    return np.float32(0.7) * _from_bank(c * x + s * y, c * y - s * x, 7 + 8 * d[0], 0.7 + d[1], d)


def _from_bank(x: np.ndarray, y: np.ndarray, across: float, along: float, d: np.ndarray) -> np.ndarray:
    bank = _noise_bank()[0]
    u = (x * np.float32(across) + np.float32(64 + 300 * d[3])).astype(np.intp) % len(bank)
    v = (y * np.float32(along) + np.float32(64 + 300 * d[4])).astype(np.intp) % len(bank)
    return np.asarray(bank[v, u])


def _bricks(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Rows of bricks, each shifted by half a brick; the joints are of the other colour."""
    c, s = np.float32(math.cos(6.28 * d[0])), np.float32(math.sin(6.28 * d[0]))
    high = np.float32(2.2 + 1.5 * d[1])
    v = (c * y - s * x) * high + 64
    row = np.floor(v)
    u = (c * x + s * y) * high * np.float32(0.5) + np.float32(0.5) * (row % 2) + 64
    joint = np.minimum(np.minimum(v - row, row + 1 - v), 2 * np.minimum(u % 1, 1 - u % 1))
    return (joint - np.float32(0.13 + 0.06 * d[2])) * 12


def _honeycomb(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    wave = 0.5 + 0.3 * d[1]
    waves = [_sine(x, y, d[0] + k / 3, wave, 0.25) for k in range(3)]
    return np.float32(3) * (waves[0] + waves[1] + waves[2] + np.float32(0.6))


_PATTERNS = {
    "stripes": _stripes, "checks": _checks, "dots": _dots, "waves": _waves, "plasma": _plasma,
    "plaid": _plaid, "patches": _patches, "spots": _spots, "rings": _rings, "sectors": _sectors,
    "shaded": _shaded, "plain": _plain, "speckle": _speckle, "fibres": _fibres, "bricks": _bricks,
    "honeycomb": _honeycomb,
}  # fmt: skip
_GROUND_PATTERNS = (
    "stripes", "checks", "dots", "waves", "plasma", "plaid", "patches", "shaded", "plain", "speckle", "fibres",
)  # fmt: skip
_CELL_PATTERNS = ("patches", "spots", "shaded", "plasma", "speckle")
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
    rng: np.random.Generator, avoid: np.ndarray, floor: float, calm: bool = False, vivid: float = 1.0
) -> np.ndarray:
    """Three colours, at least `floor` from those to avoid if any of the drawn candidates is.

    `calm` colours stay near one another, as a ground's do; at `vivid` 0 they are grays.
    """
    n = 20
    hue = rng.random((n, 1)) + np.array([0, 1, 1]) * rng.choice([0.0, 0.08, 0.3, 0.5], (n, 3))
    saturation = np.clip(rng.random((n, 1)) ** 0.7 + 0.5 * (rng.random((n, 3)) - 0.5), 0, 1)
    value = 0.12 + 0.86 * rng.random((n, 3))
    if calm:
        hue = hue[:, :1] + 0.12 * (rng.random((n, 3)) - 0.5)
        value = np.clip(value[:, :1] + 0.35 * (rng.random((n, 3)) - 0.5), 0.08, 1)
        saturation = np.clip(0.8 * saturation[:, :1] + 0.2 * (rng.random((n, 3)) - 0.5), 0, 1)
    colours = _rainbow(hue, saturation * vivid, value)
    score = _apart(colours, avoid).min(axis=(1, 2)) if len(avoid) else np.full(n, 9.0, np.float32)
    if not calm:
        # A pattern whose two colours are alike is no pattern.
        pair = colours[:, 0] - colours[:, 1]
        score = np.minimum(score, np.sqrt((pair * pair * _EYE).sum(-1)) * (floor / 0.3))
    good = np.flatnonzero(score >= floor)
    return colours[good[0] if len(good) else int(score.argmax())]


def _draw_surface(
    rng: np.random.Generator,
    avoid: np.ndarray,
    not_kind: str = "",
    among: Sequence[str] = (),
    vivid: float = 1.0,
) -> _Surface:
    kinds = among or [kind for kind in _PATTERNS if kind not in (not_kind, *KEPT_OUT_TEXTURES)]
    kind = kinds[int(rng.integers(len(kinds)))]
    accent = _ACCENTS[int(rng.integers(len(_ACCENTS)))]
    return _Surface(kind, rng.random(104), _draw_colours(rng, avoid, 0.26, vivid=vivid), accent)


def _draw_ground(rng: np.random.Generator, avoid: np.ndarray, vivid: float = 1.0) -> _Surface:
    kind = _GROUND_PATTERNS[int(rng.integers(len(_GROUND_PATTERNS)))]
    return _Surface(kind, rng.random(104), _draw_colours(rng, avoid, 0.3, calm=True, vivid=vivid))


def _draw_cell(rng: np.random.Generator, phase: bool = False) -> _Surface:
    """A cell's surface: bright with a dimmer or brighter inside; in `phase` contrast near the ground's gray."""
    bright = 0.4 + 0.5 * rng.random()
    inner, most = np.clip(bright + rng.uniform(-0.25, 0.25), 0.33, 1), min(bright + 0.25, 1)
    if phase:
        bright = 0.48 - 0.3 * rng.random()
        inner, most = (
            np.clip(bright + rng.uniform(-0.12, 0.12), 0.1, 0.5),
            bright + 0.25 * rng.uniform(-0.5, 1),
        )
    kind = _CELL_PATTERNS[int(rng.integers(len(_CELL_PATTERNS)))]
    accent = ("none", "rim", "eye")[int(rng.integers(3))]
    levels = np.array([bright, inner, most])
    return _Surface(kind, rng.random(104), np.repeat(levels[:, None], 3, 1).astype(np.float32), accent)


def _cell_ground(rng: np.random.Generator, phase: bool = False) -> _Surface:
    dark = 0.52 + 0.12 * rng.random() if phase else 0.05 + 0.12 * rng.random()
    levels = np.array([dark, dark + 0.02 + 0.05 * rng.random(), dark])
    colours = np.repeat(levels[:, None], 3, 1).astype(np.float32)
    return _Surface("patches" if rng.random() < 0.5 else "shaded", rng.random(104), colours)


# --- things and their paths -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Path:
    """Where a thing is in every frame: place and radius in pixels, angle in radians, tilt as an aspect.

    Something that turns out of the plane is foreshortened, one that bends has its middle line follow a sine.
    """

    place: np.ndarray  # (T, 2) x, y
    angle: np.ndarray  # (T,)
    radius: np.ndarray  # (T,)
    tilt: np.ndarray  # (T,)
    bend: np.ndarray | None = None  # (T, 2) strength in radii, phase in radians


@dataclass(eq=False)
class _Thing:
    outline: _Outline
    surface: _Surface
    size: float  # typical radius in pixels
    soft: float = 1.0  # width of the edge in pixels
    halo: float = 0.0  # light added just outside of the edge
    halo_width: float = 2.0  # pixels
    shade: tuple[float, float] = (0.0, 0.0)  # change of brightness per radius to the right and down
    levels: list[tuple[float, np.ndarray]] = field(default_factory=list)  # (texels per unit, sprite)


def _draw_sprite(thing: _Thing, radius: float) -> None:
    """Draw the thing once, fine enough for `radius` pixels, with halved copies for smaller sizes."""
    half = thing.outline.reach + (1 + thing.soft + (3 * thing.halo_width if thing.halo else 0)) / radius
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
    (cx, cy), radius, tilt = path.place[t], float(path.radius[t]), float(path.tilt[t])
    bend, phase = (0.0, 0.0) if path.bend is None else path.bend[t]
    edge = 0.5 + thing.soft + (3 * thing.halo_width if thing.halo else 0)
    far = (thing.outline.reach + abs(bend)) * radius * max(tilt, 1 / tilt) + edge
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
    if bend:
        # As wide as the thing is long, so that it bends once and not many times.
        u += np.float32(bend * texels) * np.sin(v * np.float32(1.6 / texels) + np.float32(phase))
    index = _between(v, 0, n - 1).astype(np.intp)
    index *= n
    index += _between(u, 0, n - 1).astype(np.intp)
    # Four float32 move as one 16-byte item: one look-up for colour and distance.
    texel = sprite.view(np.complex128).reshape(-1)[index].view(np.float32).reshape(*index.shape, 4)
    inside = texel[..., 3] * np.float32(radius)
    cover = _between(inside * np.float32(1 / thing.soft) + np.float32(0.5), 0, 1)
    light = np.float32(1)
    if thing.shade != (0.0, 0.0):
        right, down = (np.float32(part / radius) for part in thing.shade)
        light = _between(1 + right * dx + down * dy, 0.4, 1.6)
    glow = None
    if thing.halo:
        glow = np.float32(thing.halo) * np.exp(np.minimum(inside, 0) * np.float32(1 / thing.halo_width))
        glow *= 1 - cover
        # Texels at the sprite's border stand for all that lies beyond; they must not glow.
        glow[inside < -2.9 * thing.halo_width] = 0
    for k in range(3):
        region = canvas[k, y0:y1, x0:x1]
        region += cover * (texel[..., k] * light - region)
        if glow is not None:
            region += glow
    solid = inside > 0
    ids[y0:y1, x0:x1][solid] = number
    return int(np.count_nonzero(solid))


def _draw_size(rng: np.random.Generator, config: SceneConfig, most: float) -> float:
    """A radius in pixels, small ones as likely as large ones per octave."""
    low, high = config.scale
    high = max(low, min(high, most))
    if config.small and rng.random() < config.small:
        low, high = _SMALLEST, low
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
    tilts, bend = np.full(frames, tilt), None
    if config.deform and rng.random() < 0.5:
        rate, shift = rng.uniform(0.1, 0.4) * motion, rng.uniform(0, 2 * math.pi)
        tilts = tilts * np.exp(-0.35 * config.deform * rng.random() * (1 + np.sin(rate * t + shift)))
    if config.deform and rng.random() < 0.35:
        rate, shift = rng.uniform(0.1, 0.5) * motion, rng.uniform(0, 2 * math.pi, 2)
        strength = 0.3 * config.deform * rng.uniform(0.3, 1) * np.sin(rate * t + shift[0])
        bend = np.stack((strength, shift[1] + 0.5 * rate * t), 1)
    return _Path(place + moved, angle + turning * t, radius * growth, tilts, bend)


def _crossing(
    rng: np.random.Generator, config: SceneConfig, path: _Path, size: float, lead: int, covers: bool
) -> _Path:
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
    return _Path(path.place + t * step + aside, turn, np.full(frames, size), np.ones(frames))


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


@dataclass(frozen=True, eq=False)
class _Lens:
    """What a camera makes of the light that reaches it."""

    blur: int = 0  # passes of a narrow blur
    smear: tuple[int, int, int] = (0, 0, 0)  # step to the right and down in pixels, number of steps
    curve: float = 0.0  # contrast in the middle tones
    black: float = 0.0
    white: float = 1.0
    photons: float = 0.0  # noise that grows with the root of the light
    levels: int = 255  # of the sensor, before black and white are stretched

    def look(self, canvas: np.ndarray, gray: bool, noise: np.ndarray) -> np.ndarray:
        """(3, H, W) light of about 0 to 1 to the same; `noise` has one or three planes."""
        if gray:
            canvas = canvas[:1]
        for _ in range(self.blur):
            _blur(canvas)
        right, down, steps = self.smear
        if steps:
            total = canvas.copy()
            for k in range(-(steps // 2), steps - steps // 2 + 1):
                if k:
                    total += np.roll(canvas, (k * down, k * right), (1, 2))
            canvas = total * np.float32(1 / (steps + 1))
        if self.curve:
            _between(canvas, 0, 1)
            canvas = canvas + np.float32(self.curve) * canvas * (1 - canvas)
        if self.photons:
            canvas = canvas + np.float32(self.photons) * np.sqrt(_between(canvas, 0, 2)) * noise
        if self.levels < 255:
            canvas = np.rint(canvas * np.float32(self.levels)) * np.float32(1 / self.levels)
        if (self.black, self.white) != (0.0, 1.0):
            canvas = np.float32(self.black) + np.float32(self.white - self.black) * canvas
        return canvas


def _blur(canvas: np.ndarray) -> None:
    """Blur (C, H, W) in place by 1 2 1 along both axes; the border stays."""
    for axis in (1, 2):
        x = np.swapaxes(canvas, axis, 2)
        middle = x[..., :-2] + x[..., 2:]
        x[..., 1:-1] *= np.float32(0.5)
        x[..., 1:-1] += np.float32(0.25) * middle


def _draw_lens(rng: np.random.Generator, config: SceneConfig, gray: bool) -> _Lens:
    strength = config.effects
    if not strength:
        return _Lens()
    blur = int(rng.integers(1, 1 + max(1, round(config.side / 64)))) if rng.random() < 0.35 * strength else 0
    smear = (0, 0, 0)
    if rng.random() < 0.12 * strength:
        steps = int(rng.integers(1, 2 + config.side // 64))
        smear = (int(rng.integers(-1, 2)), int(rng.integers(-1, 2)), steps)
    curve = 0.5 * strength * rng.uniform(-1, 1) if rng.random() < 0.5 else 0.0
    low, high, levels = 0.0, 1.0, 255
    if rng.random() < (0.4 if gray else 0.2) * strength:
        span = rng.uniform(0.3 if gray else 0.6, 0.95)
        low = rng.uniform(0, 1 - span)
        high = low + span
    photons = 0.02 + 0.1 * rng.random() ** 2 if rng.random() < (0.6 if gray else 0.2) * strength else 0.0
    if gray and rng.random() < 0.3:
        levels = int(rng.integers(24, 128))  # eight bits that the picture hardly used, stretched later
    return _Lens(blur, smear, curve, low, high, photons * min(strength, 1.0), levels)


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
    lens: _Lens
    carried: bool  # whether things move with the ground when the camera does
    shake: np.ndarray  # (T, 2) pixels
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
    x, y = scene.drift[t] + scene.shake[t]
    canvas = scene.ground[:, y : y + side, x : x + side].copy()
    ids = np.zeros((side, side), np.uint8)
    alone = 0
    for number, thing, path in scene.cast:
        covered = _stamp(canvas, ids, thing, path, t, number)
        if number == OBJECT_ID:
            alone = covered
    canvas *= scene.light * np.float32(scene.flicker[t])
    noise = _noise(scene.gray, scene.offsets[t], side)
    canvas = np.broadcast_to(scene.lens.look(canvas, scene.gray, noise), canvas.shape) * np.float32(255)
    canvas += np.float32(scene.grain * 255) * noise
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
    if config.effects and rng.random() < 0.4:
        # A lamp, the dark corners of a lens, or the edge of a shadow.
        kind, strong = rng.random(), min(config.effects, 1.0) * rng.uniform(0.1, 0.5)
        at = rng.uniform(-0.8, 0.8, 2)
        far = (axis[None, :] - np.float32(at[0])) ** 2 + (axis[:, None] - np.float32(at[1])) ** 2
        if kind < 0.6:
            plane = plane * (1 + np.float32(strong) * (np.exp(-2 * far) - np.float32(0.5)))
        else:
            turn, sharp = rng.uniform(0, 2 * math.pi), np.float32(rng.uniform(3, 30))
            across = np.float32(math.cos(turn)) * (axis[None, :] - np.float32(at[0]))
            across = across + np.float32(math.sin(turn)) * (axis[:, None] - np.float32(at[1]))
            plane = plane * (1 - np.float32(strong) * _between(across * sharp, 0, 1))
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
    shake = np.zeros((frames, 2), int)
    if config.effects and config.motion and rng.random() < 0.25:
        most = max(1, config.side // 64)
        shake = np.clip(drift + rng.integers(-most, most + 1, (frames, 2)), 0, margin) - drift
    return _Scene(
        _spread_ground(rng, grounds[0], grounds[1] if len(grounds) > 1 else None, config.side, margin),
        drift,
        _draw_light(rng, config, gray),
        1 + 0.02 * config.motion * rng.uniform(-1, 1, frames),
        float(rng.uniform(0.0, 0.03)),
        gray,
        rng.integers(0, _NOISE_SIDE, (frames, 2)),
        _draw_lens(rng, config, gray),
        bool(config.effects and rng.random() < 0.5),
        shake,
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


def _draw_target(rng: np.random.Generator, config: SceneConfig, vivid: float) -> _Thing:
    nothing = np.empty((0, 3), np.float32)
    outline = _draw_outline(rng, among=config.shapes)
    return _finish(rng, config, _Thing(outline, _draw_surface(rng, nothing, "", config.textures, vivid), 0.0))


def _finish(rng: np.random.Generator, config: SceneConfig, thing: _Thing) -> _Thing:
    """Give a thing the edge and the shading that light and focus make, which are no part of what it is."""
    if config.effects:
        if rng.random() < 0.3 * config.effects:
            thing.soft = 1.0 + config.side / 64 * rng.random()
        if rng.random() < 0.35 * config.effects:
            turn, strong = rng.uniform(0, 2 * math.pi), 0.35 * rng.random()
            thing.shade = (strong * math.cos(turn), strong * math.sin(turn))
    return thing


def _most(config: SceneConfig, outline: _Outline) -> float:
    """The largest radius that still fits the picture; a long bar of the largest area would not."""
    return 0.5 * config.side / outline.reach


def _prior_size(rng: np.random.Generator, config: SceneConfig, outline: _Outline, most: float) -> float:
    """The object's radius in the prior picture, never so small that it is hard to see."""
    size = min(_draw_size(rng, config, most), _most(config, outline))
    # A thing that is meant to be small is shown a little larger than it may become.
    least = min(_SMALLEST_PRIOR, 2 * size / config.side * 1.5) if config.small else _SMALLEST_PRIOR
    return max(size, 0.5 * config.side * max(least, 2 * _SMALLEST))


def _draw_beside(
    rng: np.random.Generator,
    model: _Thing,
    grounds: np.ndarray,
    same_surface: bool,
    same_outline: bool,
    vivid: float,
) -> tuple[_Surface, _Outline]:
    """A surface and an outline, one of which may be another thing's; the rest is unlike it."""
    if same_surface:
        return model.surface, _draw_outline(rng, avoid=model.outline.kind)
    avoid = np.concatenate([grounds, model.surface.colours])
    surface = _draw_surface(rng, avoid, model.surface.kind, vivid=vivid)
    return surface, model.outline if same_outline else _draw_outline(rng, avoid=model.outline.kind)


def _draw_others(
    rng: np.random.Generator, config: SceneConfig, target: _Thing, grounds: np.ndarray, count: int,
    vivid: float = 1.0,
) -> list[_Thing]:  # fmt: skip
    """Distractors: mostly other outline and other surface, a hard share with one of them copied.

    Now and then one is there twice, so that being one of a kind does not make the object.
    """
    things: list[_Thing] = []
    for _ in range(count):
        size = _draw_size(rng, config, 0.36)
        copied = rng.random() < config.hard
        if things and rng.random() < 0.15:
            surface, outline = things[-1].surface, things[-1].outline
        else:
            same_surface = copied and rng.random() < 0.5
            surface, outline = _draw_beside(rng, target, grounds, same_surface, copied, vivid)
        things.append(_finish(rng, config, _Thing(outline, surface, size)))
    return things


def _draw_cells(
    rng: np.random.Generator, config: SceneConfig, target: _Thing, count: int, phase: bool = False
) -> list[_Thing]:
    """Other cells: most of the object's own type, with an outline of their own."""
    things = []
    for _ in range(count):
        surface = target.surface if rng.random() < 0.5 else _draw_cell(rng, phase)
        size = target.size * math.exp(rng.uniform(-0.4, 0.3))
        cell = _Thing(
            _draw_outline(rng, among=_CELLS), surface, size, target.soft, target.halo, target.halo_width
        )
        things.append(cell)
    return things


def _cast(
    rng: np.random.Generator, config: SceneConfig, scene: _Scene, target: _Thing | None, radius: float,
    others: Sequence[_Thing], first: int, pace: float, occluder: _Thing | None, lead: int = 0,
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
            over = _crossing(rng, config, path, occluder.size, lead, covers)
            cast.append((len(cast) + 1, occluder, over))
    if scene.carried:
        steady = scene.drift - scene.drift[first] + scene.shake
        cast = [(number, thing, replace(walk, place=walk.place - steady)) for number, thing, walk in cast]
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


def _paint_prior(scene: _Scene, occluded: bool, t: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A prior picture, with the object brought forward if too little of it shows."""
    for attempt in range(3):
        picture, ids, alone = _paint(scene, t)
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


_Pictures = list[tuple[np.ndarray, np.ndarray]]  # with the instance map of each


def _continued(
    rng: np.random.Generator, config: SceneConfig, cells: bool
) -> tuple[_Pictures, np.ndarray, np.ndarray, _Thing]:
    """The clip carries the prior picture's scene on."""
    vivid, phase = _vividness(rng, config), False
    if cells:
        phase = bool(config.effects) and rng.random() < 0.4
        target = _Thing(_draw_outline(rng, among=config.shapes or _CELLS), _draw_cell(rng, phase), 0.0)
        if config.effects:
            target.soft = 1.0 + config.side / 48 * rng.random()
            target.halo = rng.uniform(0.1, 0.4) if phase else 0.0
            target.halo_width = config.side / 128 * rng.uniform(1, 2.5)
        target.size = _prior_size(rng, config, target.outline, 0.3)
        grounds = [_cell_ground(rng, phase)]
        if config.halos and not phase and rng.random() < config.halos:
            target.halo = -rng.uniform(0.15, 0.35)
            target.halo_width = target.size * rng.uniform(0.1, 0.5)
            grounds = [replace(grounds[0], colours=grounds[0].colours + np.float32(rng.uniform(0.1, 0.3)))]
        others = _draw_cells(rng, config, target, int(rng.integers(2, 5)) * _count(rng, config), phase)
    else:
        target = _draw_target(rng, config, vivid)
        target.size = _prior_size(rng, config, target.outline, 1.0)
        grounds = _draw_grounds(rng, target, vivid)
        others = _draw_others(rng, config, target, _colours_of(grounds), _count(rng, config), vivid)
    before = config.priors
    scene = _draw_stage(rng, config, config.frames + before, grounds, cells or not vivid)
    over, covers = _draw_occluder(rng, config, target, target.size, grounds, cells, vivid)
    _cast(rng, config, scene, target, target.size, others, 0, 0.6, over, lead=before + 1, covers=covers)
    priors = [_paint_prior(scene, over is not None, t) for t in range(before)]
    if rng.random() < config.absent:
        scene.cast = [entry for entry in scene.cast if entry[0] != OBJECT_ID]
    return priors, *_paint_clip(scene, before), target


def _unrelated(
    rng: np.random.Generator, config: SceneConfig
) -> tuple[_Pictures, np.ndarray, np.ndarray, _Thing]:
    """The clip shares nothing with the prior picture but the object, and sometimes one other thing."""
    vivid = _vividness(rng, config)
    target = _draw_target(rng, config, vivid)
    size = target.size = _prior_size(rng, config, target.outline, 1.0)
    priors, others = [], []
    for k in range(config.priors):
        grounds = _draw_grounds(rng, target, vivid)
        others = _draw_others(rng, config, target, _colours_of(grounds), _count(rng, config), vivid)
        scene = _draw_stage(rng, config, 1, grounds, not vivid)
        shown = size if k == 0 else _size_again(rng, config, target, size)
        _cast(rng, config, scene, target, shown, others, 0, 1.0, None)
        priors.append(_paint_prior(scene, occluded=False))

    absent = rng.random() < config.absent
    grounds = _draw_grounds(rng, target, vivid)
    # One more thing where the object is absent, so that the number of things does not give it away.
    new = _draw_others(rng, config, target, _colours_of(grounds), _count(rng, config) + int(absent), vivid)
    if others and new and rng.random() < 0.3:
        # Something else from the prior picture: being known from there must not be enough.
        new[0] = others[0]
    scene = _draw_stage(rng, config, config.frames, grounds, not vivid)
    again = _size_again(rng, config, target, size)
    over, covers = None, False
    if not absent:
        over, covers = _draw_occluder(rng, config, target, again, grounds, False, vivid)
    first = int(rng.integers(config.frames))
    _cast(rng, config, scene, None if absent else target, again, new, first, 1.0, over, covers=covers)
    return priors, *_paint_clip(scene, 0), target


def _vividness(rng: np.random.Generator, config: SceneConfig) -> float:
    return 0.0 if config.gray and rng.random() < config.gray else 1.0


def _size_again(rng: np.random.Generator, config: SceneConfig, target: _Thing, size: float) -> float:
    """A radius that the object may have in another picture."""
    low, high = (0.5 * config.side * s for s in config.scale)
    again = float(
        np.clip(size * math.exp(0.7 * config.appearance * rng.uniform(-1, 1)), min(low, size), high)
    )
    return min(again, _most(config, target.outline))


def _draw_grounds(rng: np.random.Generator, target: _Thing, vivid: float) -> list[_Surface]:
    """One or two grounds that the object stands out from."""
    return [_draw_ground(rng, target.surface.colours, vivid) for _ in range(1 + int(rng.random() < 0.25))]


def _colours_of(grounds: Sequence[_Surface]) -> np.ndarray:
    return np.concatenate([ground.colours for ground in grounds])


def _draw_occluder(
    rng: np.random.Generator, config: SceneConfig, target: _Thing, radius: float,
    grounds: Sequence[_Surface], cells: bool, vivid: float,
) -> tuple[_Thing | None, bool]:  # fmt: skip
    """Something to pass in front of the object, if anything does, and whether it covers all of it."""
    if rng.random() >= config.occlusion:
        return None, False
    if cells:
        over = _draw_cells(rng, config, target, 1)[0]
    else:
        over = _draw_others(rng, replace(config, hard=0.0), target, _colours_of(grounds), 1, vivid)[0]
    over.size = radius * rng.uniform(0.7, 1.2)
    covers = config.frames > 3 and config.hiding > 0 and rng.random() < config.hiding
    if covers:
        # Solid and roundish: a ring would show what it passes.
        over.outline = _draw_outline(rng, among=("disc", "box", "ellipse", "regular"))
        over.size = min(1.5 * radius * target.outline.reach, 0.35 * config.side)
    return over, covers


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
    cells = rng.random() < config.microscopy
    related = cells or rng.random() >= config.unrelated
    made = _continued(rng, config, cells) if related else _unrelated(rng, config)
    (prior, prior_ids), more = made[0][0], made[0][1:]
    frames, ids, target = made[1:]
    size = (len(more), *ids.shape[1:])
    return Example(
        prior,
        prior_ids == OBJECT_ID,
        frames,
        ids == OBJECT_ID,
        _close_ranks(prior_ids),
        ids,
        np.array([picture for picture, _ in more], np.uint8).reshape(*size, 3),
        np.array([numbers == OBJECT_ID for _, numbers in more], bool).reshape(size),
        {
            "scene": "cells" if cells else "continued" if related else "unrelated",
            "shape": target.outline.kind,
            "texture": target.surface.kind,
        },
    )


def _draw_family(
    rng: np.random.Generator,
    config: SceneConfig,
    target: _Thing,
    grounds: np.ndarray,
    count: int,
    vivid: float,
) -> list[_Thing]:
    """The object and others, all different; a hard share have the surface or the outline of one before."""
    things = [target]
    for _ in range(count):
        copied, model = rng.random() < config.hard, things[int(rng.integers(len(things)))]
        same_surface = copied and rng.random() < 0.55
        surface, outline = _draw_beside(rng, model, grounds, same_surface, copied, vivid)
        large = rng.random() < 0.6
        size = _prior_size(rng, config, outline, 0.36) if large else _draw_size(rng, config, 0.36)
        things.append(_Thing(outline, surface, size))
    return things


def _show(
    rng: np.random.Generator, config: SceneConfig, scene: _Scene, things: Sequence[_Thing], order: np.ndarray
) -> _Pictures:
    """Pictures of some of the things, numbered from one by their place among all."""
    _cast(rng, config, scene, None, 0.0, [things[k] for k in order], 0, 1.0, None)
    numbers = np.zeros(256, np.uint8)
    numbers[OBJECT_ID + 1 : OBJECT_ID + 1 + len(order)] = order + 1
    painted = [_paint(scene, t)[:2] for t in range(len(scene.drift))]
    return [(picture, numbers[ids]) for picture, ids in painted]


def make_lineup(config: SceneConfig, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw nine things twice, on different grounds and in other places, that their outlines tell apart.

    Parameters
    ----------
    config
        What scenes look like; nothing is missing and nothing is a cell.
    seed
        As of `make_example`.

    Returns
    -------
    pictures : numpy.ndarray, shape (2, H, W, 3), uint8
        In six of ten line-ups all things have one surface, and outlines of different groups. In the rest each of three outlines
        comes with each of three surfaces.
    instances : numpy.ndarray, shape (2, H, W), uint8
        0 is ground, 1 to 9 are the things.
    kinds : numpy.ndarray, shape (10,), int64
        Of each number the place of its outline's kind in `KINDS`; -1 for ground.
    """
    rng = np.random.default_rng(seed)
    vivid = _vividness(rng, config)
    target = _draw_target(rng, config, vivid)
    surfaces, several = [target.surface], rng.random() < 0.4
    while several and len(surfaces) < 3:
        avoid = np.concatenate([surface.colours for surface in surfaces])
        surfaces.append(_draw_surface(rng, avoid, vivid=vivid))
    groups = [_GROUPS[k] for k in rng.permutation(len(_GROUPS))[: LINEUP // len(surfaces)]]
    outlines = [_draw_outline(rng, among=group) for group in groups]
    things = []
    for outline in outlines:
        for surface in surfaces:
            size = 0.5 * config.side * math.exp(rng.uniform(math.log(0.1), math.log(0.28)))
            things.append(_Thing(outline, surface, min(size, _most(config, outline))))
    painted: _Pictures = []
    for _ in range(2):
        grounds = _draw_grounds(rng, target, vivid)
        scene = _draw_stage(rng, config, 1, grounds, not vivid)
        sizes = [each.size * math.exp(0.35 * config.appearance * rng.uniform(-1, 1)) for each in things]
        shown = [
            _finish(rng, config, _Thing(each.outline, each.surface, size))
            for each, size in zip(things, sizes)
        ]
        painted += _show(rng, config, scene, shown, rng.permutation(len(things)))
    kinds = np.array([-1, *(KINDS.index(each.outline.kind) for each in things)])
    return np.stack([picture for picture, _ in painted]), np.stack([ids for _, ids in painted]), kinds


def make_shared(config: SceneConfig, seed: int, frames: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Draw a picture and a clip elsewhere that show the same things, so that each of them can be looked for.

    Parameters
    ----------
    config
        What scenes look like. In place of `distractors` there are three to six things, and `hard` is the share of them that
        copy the surface or the outline of another. In seven of ten scenes one or two are in both and each other one is
        only in the picture or, more often, only in the clip: a thing must be told from those that were not seen before,
        too. In the rest most are in both. Cells go on from the picture to the clip, as in `make_example`.
    seed
        As of `make_example`.
    frames
        Number of frames of the clip.

    Returns
    -------
    pictures : numpy.ndarray, shape (1 + frames, H, W, 3), uint8
        The picture, then the clip.
    instances : numpy.ndarray, shape (1 + frames, H, W), uint8
        0 is ground; a number is the same thing wherever it is.
    """
    rng = np.random.default_rng(seed)
    if rng.random() < config.microscopy:
        gap = int(rng.integers(1, 6))
        only = replace(config, microscopy=1.0, absent=0.0, frames=gap + frames)
        cells = make_example(only, seed)
        seen = [0, *range(gap, gap + frames)]
        return cells.frames[seen], cells.frame_instances[seen]
    vivid = _vividness(rng, config)
    target = _draw_target(rng, config, vivid)
    target.size = _prior_size(rng, config, target.outline, 0.6)
    grounds = _draw_grounds(rng, target, vivid)
    things = _draw_family(rng, config, target, _colours_of(grounds), int(rng.integers(2, 6)), vivid)
    shuffled = rng.permutation(len(things))
    both, others = np.split(shuffled, [int(rng.integers(1, 3))])
    strange, later = rng.random() < 0.7, rng.random(len(others)) < 0.65
    painted: _Pictures = []
    for elsewhere in (False, True):
        if elsewhere:
            grounds = _draw_grounds(rng, target, vivid)
        length = frames if elsewhere else 1
        scene = _draw_stage(rng, config, length, grounds, not vivid)
        shown = [_finish(rng, config, _Thing(each.outline, each.surface, each.size)) for each in things]
        if elsewhere:
            for each in shown:
                each.size = _size_again(rng, config, each, each.size)
        order = rng.permutation(len(things))
        if strange:
            order = rng.permutation(np.concatenate((both, others[later == elsewhere])))
        elif len(order) > 2 and rng.random() < (0.6 if elsewhere else 0.3):
            missing = int(rng.integers(1, len(order))) if elsewhere else 1
            order = order[: len(order) - missing]
        painted += _show(rng, config, scene, shown, order)
    return np.stack([picture for picture, _ in painted]), np.stack([ids for _, ids in painted])


_ARRAYS = (
    "prior", "prior_mask", "frames", "masks", "prior_instances", "frame_instances", "more_priors",
    "more_prior_masks",
)  # fmt: skip


def make_batch(config: SceneConfig, seeds: Iterable[int]) -> dict[str, np.ndarray]:
    """Draw one example per seed and stack each field under its name."""
    examples = [make_example(config, seed) for seed in seeds]
    return {name: np.stack([getattr(example, name) for example in examples]) for name in _ARRAYS}


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
