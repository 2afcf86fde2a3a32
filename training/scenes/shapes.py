"""Outlines, as radius over angle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from training.scenes.config import Rng

_ANGLES = 512  # entries of an outline's radius table


@dataclass(frozen=True, eq=False)
class Outline:
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


SHAPES = {
    "blob": _blob, "ellipse": _ellipse, "disc": _disc, "star": _star, "flower": _flower, "gear": _gear,
    "regular": _regular, "irregular": _irregular, "box": _box, "bar": _bar, "cross": _cross, "tee": _tee,
    "arrow": _arrow, "corner": _corner, "drop": _drop, "ring": _disc, "frame": _box, "crescent": _disc,
    "eyelet": _regular, "rod": _rod, "hoop": _disc, "bean": _bean, "heart": _heart, "pinwheel": _pinwheel,
}  # fmt: skip

# Kinds of one group can look alike once rotated and tilted; a distractor never shares the object's group
# unless it copies the object's very outline.
GROUPS = (
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
KINDS = tuple(kind for group in GROUPS for kind in group)  # that training may see


def draw_outline(rng: Rng, avoid: str = "", among: Sequence[str] = ()) -> Outline:
    """An outline of one of the groups, which have none that is kept out, or of the kinds named in `among`."""
    groups = [tuple(among)] if among else [group for group in GROUPS if avoid not in group]
    group = groups[int(rng.integers(len(groups)))]
    kind = group[int(rng.integers(len(group)))]
    return make_outline(kind, rng.random(32))


def make_outline(kind: str, dice: np.ndarray) -> Outline:
    """An outline of a kind; `dice`, 32 numbers from 0 to 1, fix its proportions."""
    radius = SHAPES[kind](dice)
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
    return Outline(
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
