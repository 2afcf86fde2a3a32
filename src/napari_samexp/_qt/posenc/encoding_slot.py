"""The layers of one map, and which of their settings may still be changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp._qt.posenc.encoding_frame import MARK, Axis, Rect, over_axes, placement
from napari_samexp._qt.text import for_napari
from napari_samexp.posenc.map import PosencMap

__all__ = ["KINDS", "MAP", "NORM", "SIMILARITY", "EncodingSlot"]

KINDS = MAP, NORM, SIMILARITY = "map", "norm", "similarity"
Values = npt.NDArray[np.float32]
Limits = tuple[float, float]


@dataclass(slots=True, eq=False)
class EncodingSlot:
    """A map, and its layers by kind.

    A name or contrast that differs from what was set here was set by a person, and stays.
    """

    made: PosencMap
    layers: dict[str, Any] = field(default_factory=dict)
    rects: dict[str, Rect] = field(default_factory=dict)
    _limits: dict[str, Limits] = field(default_factory=dict)
    _names: dict[str, tuple[str, str]] = field(default_factory=dict)  # as requested, and as napari made it

    def settings(self, kind: str) -> dict[str, Any]:
        """Return the settings of a new layer."""
        self._limits[kind] = limits = self.limits(kind)
        return {
            "name": self.name(kind),
            "contrast_limits": limits,
            "colormap": "viridis",
            "rgb": False,
            "multiscale": False,
            "metadata": {MARK: self.made.facts},
        }

    def content(self, kind: str, axes: tuple[Axis, ...], most: int) -> tuple[Values, dict[str, Any]]:
        """Return a layer's values and placement.

        Parameters
        ----------
        axes : tuple of Axis
            Axes of other layers that the map covers.
        most : int
            The most channels of any map shown: the slider goes through the channels of all maps together.
        """
        made, rect = self.made, self.rects[kind]
        if kind != MAP:
            return (made.norm() if kind == NORM else self.similarity()), placement(rect, made.hw)
        step = (most - 1) / (made.channels - 1) if made.channels > 1 else 1.0
        lies = placement(rect, made.hw, axes, step)
        lies["axis_labels"] = ("channel", *(axis.label for axis in axes), "y", "x")
        lies["units"] = ("pixel", *(axis.unit for axis in axes), "pixel", "pixel")
        return over_axes(made.values, axes), lies

    def name(self, kind: str) -> str:
        """Return a layer's default name."""
        made = self.made
        words = [made.model, made.part if kind == MAP else f"{made.part} {kind}"]
        return for_napari(" ".join([*words, made.dtype] if made.dtype != "float32" else words))

    def limits(self, kind: str, channel: int | None = None) -> Limits:
        """Return a layer's default contrast limits; of a map, those of one channel if given."""
        if kind == SIMILARITY:
            return -1.0, 1.0
        return self.made.limits(channel) if kind == MAP else self.made.norm_limits()

    def similarity(self) -> Values:
        """Return the similarities shown, (h, w), or zeros."""
        layer = self.layers.get(SIMILARITY)
        if layer is not None and layer.data.shape == self.made.hw:
            return np.asarray(layer.data)
        return np.zeros(self.made.hw, np.float32)

    def added(self, kind: str, layer: Any) -> None:
        """Register a new layer."""
        self.layers[kind] = layer
        self._names[kind] = self.name(kind), layer.name

    def update(self, kind: str, data: Values, lies: dict[str, Any]) -> None:
        """Give a layer other values, placement and name; it may get other axes, as when a video is opened."""
        layer = self.layers[kind]
        if not _same(layer.data, data):
            axes = layer.ndim
            layer.data = data
            for name in ("axis_labels", "units") if layer.ndim != axes else ():
                setattr(layer, name, lies[name])
        for name in ("scale", "translate"):
            if not np.allclose(getattr(layer, name), lies[name]):
                setattr(layer, name, lies[name])
        layer.metadata = {MARK: self.made.facts}
        requested = self.name(kind)
        if self._names[kind][0] != requested and layer.name == self._names[kind][1]:
            layer.name = requested
            self._names[kind] = requested, layer.name

    def fit_contrast(self, channel: int | None = None, *, force: bool = False) -> None:
        """Update contrast limits; with `force`, those of the map even where a person has set them.

        Parameters
        ----------
        channel : int, optional
            Use the limits of this channel instead of those of all channels.
        """
        for kind, layer in self.layers.items():
            limits = self.limits(kind, channel)
            untouched = np.allclose(layer.contrast_limits, self._limits[kind], rtol=1e-5, atol=0)
            if (untouched and limits != self._limits[kind]) or (force and kind == MAP):
                layer.contrast_limits = self._limits[kind] = limits


def _same(shown: Any, data: Values) -> bool:
    """Whether two arrays are views of the same memory; every view of a map is a new object."""
    there = shown.__array_interface__["data"] == data.__array_interface__["data"]
    return bool(there and shown.shape == data.shape and shown.strides == data.strides)
