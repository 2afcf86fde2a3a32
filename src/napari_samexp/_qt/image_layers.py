"""The part of an Image layer that is in view: its plane, its pixels, its axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp._qt.shown_video import ShownVideo
from napari_samexp.errors import ImageError

__all__ = ["View", "covers", "plane_of", "spatial_settings", "step_to", "time_axis", "time_of", "view_of"]


@dataclass(frozen=True, eq=False)
class View:
    """One plane of an Image layer.

    Parameters
    ----------
    layer : napari.layers.Image
    plane : tuple of int
        The index on every axis before (y, x).
    pixels : array, (H, W) or (H, W, C)
    name : str
        Layer and plane, such as "clip@12".
    """

    layer: Any
    plane: tuple[int, ...]
    pixels: npt.NDArray[Any]
    name: str

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]


def plane_of(layer: Any, dims: Any) -> tuple[int, ...]:
    """Return the viewer's position on the layer's axes before (y, x)."""
    # the viewer may have more leading axes than the layer
    place = layer.world_to_data(np.asarray(dims.point)[-layer.ndim :])
    return tuple(int(value) for value in np.round(place[:-2]))


def view_of(layer: Any, dims: Any) -> View | None:
    """Return the plane in view, or None while a video's frame is being decoded.

    Raises
    ------
    ImageError
        If the plane is outside the layer, or other axes are displayed.
    """
    displayed = [axis - (dims.ndim - layer.ndim) for axis in dims.displayed]
    if displayed != [layer.ndim - 2, layer.ndim - 1]:
        raise ImageError(
            "Only the last two axes can be clicked on; show the image in 2D, with its axes in order."
        )
    plane = plane_of(layer, dims)
    shape = _shape(layer)
    if any(not 0 <= index < count for index, count in zip(plane, shape)):
        raise ImageError(f"{layer.name} has nothing at this slider position; move the slider back.")
    pixels = _pixels(layer, plane)
    name = layer.name if not plane else f"{layer.name}@{','.join(map(str, plane))}"
    return None if pixels is None else View(layer, plane, pixels, name)


def _shape(layer: Any) -> tuple[int, ...]:
    return tuple((layer.data[0] if layer.multiscale else layer.data).shape)


def _pixels(layer: Any, plane: tuple[int, ...]) -> npt.NDArray[Any] | None:
    if isinstance(layer.data, ShownVideo):
        # never decode here: that could block the window for a second
        return layer.data.feed.request(plane[0])
    data = layer.data[0] if layer.multiscale else layer.data
    return np.asarray(data[plane] if plane else data)


def covers(upper: Any, lower: Any) -> bool:
    """Return whether a visible layer overlaps another in the (y, x) plane."""
    if not upper.visible or upper.opacity == 0:
        return False
    (low, high), (other_low, other_high) = (layer.extent.world[:, -2:] for layer in (upper, lower))
    return bool((low < other_high).all() and (other_low < high).all())


def spatial_settings(layer: Any, ndim: int) -> dict[str, Any]:
    """Return the settings of a layer of the last `ndim` axes that covers `layer` pixel by pixel."""
    labels = tuple(layer.axis_labels)[-ndim:]
    lies: dict[str, Any] = {
        "scale": np.asarray(layer.scale)[-ndim:],
        "translate": np.asarray(layer.translate)[-ndim:],
        "units": tuple(layer.units)[-ndim:],
    }
    if not labels[0].startswith("-"):  # napari's default names
        lies["axis_labels"] = labels
    if ndim == layer.ndim:
        lies["rotate"], lies["shear"] = layer.rotate, layer.shear
        lies["affine"] = layer.affine.affine_matrix
    return lies


def time_axis(dims: Any) -> int:
    """Return the viewer's time axis: the one labelled "t", else the last before (y, x).

    Not simply the first: layers with more axes push time to the right.
    """
    labels = list(dims.axis_labels)
    return labels.index("t") if "t" in labels else max(0, dims.ndim - 3)


def time_of(layer: Any, dims: Any) -> int:
    """Return the frame of a (t, y, x) layer that is in view."""
    return plane_of(layer, dims)[-1]


def step_to(layer: Any, dims: Any, index: int) -> None:
    """Go to frame `index` of a (t, y, x) layer."""
    axis = time_axis(dims)
    own = layer.ndim - 3
    dims.set_point(axis, float(layer.scale[own] * index + layer.translate[own]))
