"""Cells, bright on dark or gray with halos."""

from __future__ import annotations

import math

import numpy as np

from training.scenes.config import Rng
from training.scenes.shapes import draw_outline
from training.scenes.textures import Surface
from training.scenes.things import Thing

CELL_SHAPES = ("disc", "ellipse", "blob", "bean")
CELL_PATTERNS = ("patches", "spots", "shaded", "plasma", "speckle")


def draw_cell_surface(rng: Rng, phase: bool = False) -> Surface:
    """A cell's surface: bright with a dimmer or brighter inside; in `phase` contrast near the ground's gray."""
    bright = 0.4 + 0.5 * rng.random()
    inner, most = np.clip(bright + rng.uniform(-0.25, 0.25), 0.33, 1), min(bright + 0.25, 1)
    if phase:
        bright = 0.48 - 0.3 * rng.random()
        inner = np.clip(bright + rng.uniform(-0.12, 0.12), 0.1, 0.5)
        most = bright + 0.25 * rng.uniform(-0.5, 1)
    kind = CELL_PATTERNS[int(rng.integers(len(CELL_PATTERNS)))]
    accent = ("none", "rim", "eye")[int(rng.integers(3))]
    levels = np.array([bright, inner, most])
    return Surface(kind, rng.random(104), np.repeat(levels[:, None], 3, 1).astype(np.float32), accent)


def draw_cell_ground(rng: Rng, phase: bool = False) -> Surface:
    """Dark ground, or the gray of `phase` contrast."""
    dark = 0.52 + 0.12 * rng.random() if phase else 0.05 + 0.12 * rng.random()
    levels = np.array([dark, dark + 0.02 + 0.05 * rng.random(), dark])
    colours = np.repeat(levels[:, None], 3, 1).astype(np.float32)
    return Surface("patches" if rng.random() < 0.5 else "shaded", rng.random(104), colours)


def draw_cells(rng: Rng, target: Thing, count: int, phase: bool = False) -> list[Thing]:
    """Other cells: most of the object's own type, with an outline of their own."""
    things = []
    for _ in range(count):
        surface = target.surface if rng.random() < 0.5 else draw_cell_surface(rng, phase)
        size = target.size * math.exp(rng.uniform(-0.4, 0.3))
        cell = Thing(
            draw_outline(rng, among=CELL_SHAPES), surface, size, target.soft, target.halo, target.halo_width
        )
        things.append(cell)
    return things
