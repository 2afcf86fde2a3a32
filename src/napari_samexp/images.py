"""Images of any dtype as 8-bit RGB, which models, videos and overlays use. numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import ImageError

__all__ = ["to_rgb8", "value_limits"]

Limits = tuple[float, float]
_BLOCK = 1 << 22  # values rescaled at once


def value_limits(image: npt.NDArray[Any]) -> Limits:
    """Return the values that become black and white.

    uint8 and bool keep their full range, and floats within 0 to 1 keep 0 to 1. Anything else (12 or 16 bit,
    floats in other units) uses its 0.1 and 99.9 percentiles, because a 12-bit image in a 16-bit file
    would look black otherwise.

    Parameters
    ----------
    image : array
        Any shape; bool, integer or float.

    Returns
    -------
    (low, high) : float

    Raises
    ------
    ImageError
        If no value is finite.
    """
    if image.dtype == np.uint8:
        return 0.0, 255.0
    if image.dtype == np.bool_:
        return 0.0, 1.0
    finite = image[np.isfinite(image)] if image.dtype.kind == "f" else image.ravel()
    if finite.size == 0:
        raise ImageError("The image has no finite value; give one with finite values.")
    if image.dtype.kind == "f" and finite.min() >= 0 and finite.max() <= 1:
        return 0.0, 1.0
    step = max(1, finite.size // 1_000_000)
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = np.percentile(finite[::step].astype(np.float64), (0.1, 99.9))
    if high <= low:  # a few bright pixels on a flat background
        low, high = float(finite.min()), float(finite.max())
    return float(low), float(high)


def to_rgb8(image: npt.ArrayLike, limits: Limits | None = None) -> npt.NDArray[np.uint8]:
    """Return an image as (H, W, 3) uint8 RGB.

    Parameters
    ----------
    image : array
        (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); bool, integer or float. Alpha is dropped; values
        that are not finite become black.
    limits : (low, high), optional
        The values for black and white; by default those of `value_limits`.

    Raises
    ------
    ImageError
        If the shape or dtype is another one, or the image is empty.
    """
    array = np.asarray(image)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"The image has shape {array.shape}; expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."
        )
    if array.size == 0:
        raise ImageError(f"The image of shape {array.shape} is empty; give one with at least one pixel.")
    if array.dtype.kind not in "buif":
        raise ImageError(f"The image has dtype {array.dtype}; expected bool, integer or float.")
    colour = array[..., None] if array.ndim == 2 else array[..., :3]
    grey = _to_8_bit(colour, limits)
    return np.ascontiguousarray(np.broadcast_to(grey, (*grey.shape[:2], 3)))


def _to_8_bit(colour: npt.NDArray[Any], limits: Limits | None) -> npt.NDArray[np.uint8]:
    if colour.dtype == np.uint8 and limits is None:
        return colour
    low, high = value_limits(colour) if limits is None else limits
    scale = 255.0 / (high - low) if high > low else 0.0
    out = np.empty(colour.shape, np.uint8)
    rows = max(1, _BLOCK // (colour.shape[1] * colour.shape[2]))
    # in blocks: the intermediate arrays of the whole image would take many times its memory
    for first in range(0, len(colour), rows):
        out[first : first + rows] = _rescaled(colour[first : first + rows], low, scale)
    return out


def _rescaled(colour: npt.NDArray[Any], low: float, scale: float) -> npt.NDArray[np.uint8]:
    # float32 cannot hold small differences of large integers
    narrow = colour.dtype.itemsize <= 2 or colour.dtype == np.float32
    wide: npt.NDArray[Any] = colour.astype(np.float32 if narrow else np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        rescaled = (wide - low) * scale
    if colour.dtype.kind == "f":
        rescaled[~np.isfinite(colour)] = 0
    # NaN first: clip keeps it, and casting it to an integer is undefined
    out: npt.NDArray[np.uint8] = np.clip(np.nan_to_num(rescaled, nan=0.0), 0, 255).round().astype(np.uint8)
    return out
