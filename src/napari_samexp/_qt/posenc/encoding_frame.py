"""Where maps lie in the viewer: next to other layers, and along the axes of a video."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels

from napari_samexp.posenc.map import PosencMap

__all__ = [
    "MARK",
    "Axis",
    "Rect",
    "Spot",
    "Surroundings",
    "grid_of",
    "is_encoding",
    "over_axes",
    "placement",
    "surroundings",
]

MARK = "napari_samexp_encoding"  # in the metadata of a layer that shows a map
GAP = 0.06  # between two images, as a fraction of their size


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of other layers before (y, x), such as time: `count` positions from `start`, `step` apart."""

    label: str
    start: float
    step: float
    count: int
    unit: str


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle in world coordinates, from edge to edge."""

    top: float
    left: float
    height: float
    width: float

    def moved(self, rows: int, columns: int) -> Rect:
        """Return the rectangle moved by rows and columns of its own size, with gaps."""
        top = self.top + rows * self.height * (1 + GAP)
        left = self.left + columns * self.width * (1 + GAP)
        return Rect(top, left, self.height, self.width)

    def place_of(self, y: float, x: float) -> tuple[float, float] | None:
        """Return a point as fractions (down, right) of the rectangle, from 0 to 1; None if it is outside."""
        down, right = (y - self.top) / self.height, (x - self.left) / self.width
        return (down, right) if 0 <= down < 1 and 0 <= right < 1 else None


@dataclass(frozen=True, slots=True)
class Spot:
    """A place under the pointer: in which map (0 or 1), and where, as fractions (down, right) of it."""

    slot: int
    down: float
    right: float

    def on(self, made: PosencMap) -> tuple[int, int]:
        """Return the (y, x) of this place in a map."""
        height, width = made.hw
        return int(self.down * height), int(self.right * width)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The other layers in the viewer.

    Parameters
    ----------
    axes : tuple of Axis
        Those before (y, x), which maps must cover to be visible at every slider position.
    image : Rect or None
        The newest image; maps are drawn as large.
    right : float
        The right edge of all layers.
    """

    axes: tuple[Axis, ...] = ()
    image: Rect | None = None
    right: float = 0.0

    def first_rect(self, made: PosencMap, *, grid_view: bool) -> Rect:
        """Return where the first map lies: in the image's place in grid view, else right of everything."""
        height, width = made.hw
        rect = self.image or Rect(-0.5, -0.5, height, width)
        if grid_view or self.image is None:
            return rect
        return Rect(rect.top, self.right + GAP * rect.width, rect.height, rect.width)


def grid_of(viewer: Any) -> Any:
    """Return the viewer's grid view, which napari 0.9 moved to the canvas."""
    canvas = getattr(viewer, "canvas", None)
    return viewer.grid if canvas is None else canvas.grid


def is_encoding(layer: Any) -> bool:
    """Return whether a layer shows a position encoding rather than an image."""
    return MARK in layer.metadata


def surroundings(layers: Iterable[Any]) -> Surroundings:
    """Return the axes and the extent of the layers that show no encoding."""
    others = [layer for layer in layers if isinstance(layer, Image | Labels) and not is_encoding(layer)]
    most_axes = max((layer.ndim for layer in others), default=2)
    axes = tuple(_axis(others, place) for place in range(most_axes, 2, -1))
    images = [_rect(layer) for layer in others if isinstance(layer, Image)]
    right = max((rect.left + rect.width for rect in map(_rect, others)), default=0.0)
    return Surroundings(axes, images[-1] if images else None, right)


def _axis(layers: list[Any], place: int) -> Axis:
    """Return the axis `place` from the last, over all layers that have it."""
    layers = [layer for layer in layers if layer.ndim >= place]
    newest = layers[-1]
    start = min(float(layer.extent.world[0][-place]) for layer in layers)
    stop = max(float(layer.extent.world[1][-place]) for layer in layers)
    step = min(float(layer.extent.step[-place]) for layer in layers)
    count = round((stop - start) / step) + 1
    return Axis(newest.axis_labels[-place], start, step, count, str(newest.units[-place]))


def _rect(layer: Any) -> Rect:
    step = np.abs(np.asarray(layer.extent.step)[-2:])
    low, high = (np.asarray(corner)[-2:] for corner in layer.extent.world)
    (top, left), (height, width) = low - step / 2, high - low + step
    return Rect(float(top), float(left), float(height), float(width))


def over_axes(values: npt.NDArray[np.float32], axes: tuple[Axis, ...]) -> npt.NDArray[np.float32]:
    """Return (C, h, w) values broadcast to (C, ..., h, w) along the axes, without a copy."""
    channels, height, width = values.shape
    counts = [axis.count for axis in axes]
    ones = [1] * len(axes)
    return np.broadcast_to(values.reshape(channels, *ones, height, width), (channels, *counts, height, width))


def placement(
    rect: Rect, hw: tuple[int, int], axes: tuple[Axis, ...] = (), channel_step: float | None = None
) -> dict[str, Any]:
    """Return scale and translation of a layer of (h, w), or of (C, ..., h, w) if there is a channel step."""
    scale = [rect.height / hw[0], rect.width / hw[1]]
    translate = [rect.top + scale[0] / 2, rect.left + scale[1] / 2]
    if channel_step is not None:
        scale = [channel_step, *(axis.step for axis in axes), *scale]
        translate = [0.0, *(axis.start for axis in axes), *translate]
    return {"scale": tuple(scale), "translate": tuple(translate)}
