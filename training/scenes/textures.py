"""Surfaces: patterns and the colours that they come in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from training.scenes.config import KEPT_OUT_TEXTURES, Rng

NOISE_SIDE = 384  # the bank of noise is twice as large


def clip_in_place(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Clip in place; on small arrays numpy's own costs several times as much."""
    np.maximum(values, np.float32(low), out=values)
    np.minimum(values, np.float32(high), out=values)
    return values


@cache
def noise_bank() -> np.ndarray:
    """Noise that every scene cuts its grain from; drawing it anew would cost more than all the rest."""
    return np.random.default_rng(7).standard_normal((3, 2 * NOISE_SIDE, 2 * NOISE_SIDE), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Surface:
    """A pattern, the numbers that fix it, and its three colours (two of the pattern, one accent)."""

    kind: str
    dice: np.ndarray
    colours: np.ndarray
    accent: str = "none"


def sine(x: np.ndarray, y: np.ndarray, turn: float, wave: float, shift: float) -> np.ndarray:
    """A plane wave; direction and phase are shares of a whole rotation."""
    k, angle = 2 * math.pi / wave, 2 * math.pi * turn
    return np.asarray(
        np.sin(
            np.float32(k * math.cos(angle)) * x
            + np.float32(k * math.sin(angle)) * y
            + np.float32(2 * math.pi * shift)
        )
    )


def _stripes(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    return 4 * sine(x, y, d[0], 0.5 + 0.6 * d[1], d[2])


def _checks(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    wave = 0.7 + 0.7 * d[1]
    return 10 * sine(x, y, d[0], wave, d[2]) * sine(x, y, d[0] + 0.25, wave, d[3])


def _dots(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    wave = 0.55 + 0.45 * d[1]
    both = sine(x, y, d[0], wave, d[2]) + sine(x, y, d[0] + 0.25, wave, d[3])
    return 4 * (both - np.float32(0.5))


def _waves(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    bend = np.float32(0.18 + 0.2 * d[3]) * sine(x, y, d[0] + 0.25, 1.0 + 0.8 * d[4], d[5])
    return 4 * sine(x + bend, y + bend, d[0], 0.55 + 0.5 * d[1], d[2])


def _plasma(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    total = sine(x, y, d[0], 0.7 + d[1], d[2])
    for k in (3, 6, 9):
        total = total + sine(x, y, d[k], 0.7 + d[k + 1], d[k + 2])
    return np.float32(0.8 + 1.5 * d[12]) * total


def _plaid(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    one = np.clip(3 * sine(x, y, d[0], 0.6 + 0.5 * d[1], d[2]), -1, 1)
    two = np.clip(3 * sine(x, y, d[0] + 0.25, 0.6 + 0.5 * d[3], d[4]), -1, 1)
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
    return sine(x, y, d[0], 4 + 2 * d[1], d[2])


def _plain(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    return np.full(x.shape, 2 * d[0] - 1, np.float32)


def _speckle(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Noise of a grain that is fixed to the thing."""
    return np.float32(0.4 + 0.8 * d[1]) * _from_bank(x, y, 5 + 12 * d[0], 5 + 12 * d[0], d)


def _fibres(x: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    c, s = np.float32(math.cos(6.28 * d[2])), np.float32(math.sin(6.28 * d[2]))
    return np.float32(0.7) * _from_bank(c * x + s * y, c * y - s * x, 7 + 8 * d[0], 0.7 + d[1], d)


def _from_bank(x: np.ndarray, y: np.ndarray, across: float, along: float, d: np.ndarray) -> np.ndarray:
    bank = noise_bank()[0]
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
    waves = [sine(x, y, d[0] + k / 3, wave, 0.25) for k in range(3)]
    return np.float32(3) * (waves[0] + waves[1] + waves[2] + np.float32(0.6))


PATTERNS = {
    "stripes": _stripes, "checks": _checks, "dots": _dots, "waves": _waves, "plasma": _plasma,
    "plaid": _plaid, "patches": _patches, "spots": _spots, "rings": _rings, "sectors": _sectors,
    "shaded": _shaded, "plain": _plain, "speckle": _speckle, "fibres": _fibres, "bricks": _bricks,
    "honeycomb": _honeycomb,
}  # fmt: skip
_GROUND_PATTERNS = (
    "stripes", "checks", "dots", "waves", "plasma", "plaid", "patches", "shaded", "plain", "speckle", "fibres",
)  # fmt: skip
_ACCENTS = ("none", "none", "none", "rim", "eye", "cap")


def paint_surface(
    surface: Surface, x: np.ndarray, y: np.ndarray, out: np.ndarray, inside: np.ndarray | None = None
) -> None:
    """Write the colours at the given places to `out`, a list of planes.

    `inside`, the distance to the edge, is what a rim goes by. Planes, because a loop over three numbers for
    every pixel is many times slower than three loops over all pixels.
    """
    value = clip_in_place(
        np.float32(0.5) * PATTERNS[surface.kind](x, y, surface.dice) + np.float32(0.5), 0, 1
    )
    where = None if inside is None else _accent(surface, x, y, inside)
    for plane, one, two, three in zip(out, *surface.colours):
        np.multiply(value, two - one, out=plane)
        plane += one
        if where is not None:
            plane[where] = three


def _accent(surface: Surface, x: np.ndarray, y: np.ndarray, inside: np.ndarray) -> np.ndarray | None:
    d = surface.dice
    if surface.accent == "rim":
        return np.asarray(inside < np.float32(0.12 + 0.1 * d[100]))
    if surface.accent == "eye":
        dx, dy = x - np.float32(d[101] - 0.5), y - np.float32(d[102] - 0.5)
        return np.asarray(dx * dx + dy * dy < (0.3 + 0.15 * d[103]) ** 2)
    if surface.accent == "cap":
        return np.asarray(sine(x, y, d[101], 6.0, 0) > 0.25 + 0.3 * d[102])
    return None


_EYE = np.array([0.9, 1.2, 0.6], np.float32)  # how much a difference in red, green, blue counts


def _apart(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Distances between all colours of `one` (..., N, 3) and `two` (M, 3)."""
    difference = one[..., :, None, :] - two
    return np.sqrt((difference * difference * _EYE).sum(-1))


def _rainbow(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    wheel = np.abs((hue[..., None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    return (value[..., None] * (1 - saturation[..., None] * (1 - np.clip(wheel, 0, 1)))).astype(np.float32)


def draw_colours(
    rng: Rng, avoid: np.ndarray, floor: float, calm: bool = False, vivid: float = 1.0
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


def draw_surface(
    rng: Rng, avoid: np.ndarray, not_kind: str = "", among: Sequence[str] = (), vivid: float = 1.0
) -> Surface:
    """A surface whose colours differ from those to avoid, of another pattern than `not_kind` or one of `among`."""
    kinds = among or [kind for kind in PATTERNS if kind not in (not_kind, *KEPT_OUT_TEXTURES)]
    kind = kinds[int(rng.integers(len(kinds)))]
    accent = _ACCENTS[int(rng.integers(len(_ACCENTS)))]
    return Surface(kind, rng.random(104), draw_colours(rng, avoid, 0.26, vivid=vivid), accent)


def draw_ground(rng: Rng, avoid: np.ndarray, vivid: float = 1.0) -> Surface:
    """A calm surface that things with the colours to avoid stand out from."""
    kind = _GROUND_PATTERNS[int(rng.integers(len(_GROUND_PATTERNS)))]
    return Surface(kind, rng.random(104), draw_colours(rng, avoid, 0.3, calm=True, vivid=vivid))
