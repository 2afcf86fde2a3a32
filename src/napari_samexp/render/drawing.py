"""Draw labels and text onto images. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["DARK", "colour_of", "draw_legend", "font", "paint", "text_width"]

RgbImage = npt.NDArray[np.uint8]
Labels = npt.NDArray[Any]

# Okabe and Ito (2008), without black: distinguishable with any kind of colour vision
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
DARK = (30, 30, 34)
_HALO = 0.45  # factor of brightness around an outline


def colour_of(label: int) -> tuple[int, int, int]:
    """Return the RGB colour of a label, the same in every video; from label 8 on they get darker."""
    turn, place = divmod(label - 1, len(PALETTE))
    red, green, blue = (round(c * 0.65 ** min(turn, 3)) for c in PALETTE[place])
    return red, green, blue


def paint(frame: RgbImage, labels: Labels, *, alpha: float = 0.5, line: int | None = None) -> RgbImage:
    """Return a copy of a frame with its labels tinted and outlined.

    Parameters
    ----------
    frame : array, shape (H, W, 3), uint8
    labels : array, shape (H, W), unsigned integers
    alpha : float
        Strength of the tint, 0 to 1.
    line : int, optional
        Width of the outline in pixels; by default it grows with the frame.
    """
    out = frame.copy()
    side = min(labels.shape)
    width = line or max(1, min(2, side // 100), round(side / 360))
    part = _extent(labels, width)
    if part is None:
        return out
    view, ids = out[part], labels[part]
    inside, edge = ids > 0, _edges(ids, width)
    colours = _table()[ids[inside]]
    view[inside] = (view[inside] * (1 - alpha) + colours * np.float32(alpha)).round().astype(np.uint8)
    view[inside & edge] = _table()[ids[inside & edge]]
    halo = edge & ~inside  # keeps the outline visible on a background of its colour
    view[halo] = (view[halo] * np.float32(_HALO)).astype(np.uint8)
    return out


def draw_legend(image: RgbImage, index: int, names: Mapping[int, str], lost: Sequence[int]) -> None:
    """Draw the frame's index and a line for each label into the corner of `image`, as far as there is room."""
    size = max(10, round(min(image.shape[:2]) / 28))
    if 6 * size > image.shape[0]:
        return
    top = left = size // 2
    rows: list[tuple[str, int | None]] = [(str(index), None)]
    rows += [(_row_text(label, name, label in lost), label) for label, name in names.items()]
    for text, label in rows:
        tag = _tag(text, size, None if label is None else colour_of(label), label in lost)
        height, width = tag.shape[:2]
        if top + height > image.shape[0] // 2 and label is not None:
            return
        place = image[top : top + height, left : left + width]
        shown = tag[: place.shape[0], : place.shape[1]].astype(np.float32)
        opacity = shown[..., 3:] / 255
        place[:] = (place * (1 - opacity) + shown[..., :3] * opacity).round().astype(np.uint8)
        top += height + max(1, size // 6)


def _row_text(label: int, name: str, lost: bool) -> str:
    return f"{name or label}: lost" if lost else name or str(label)


@lru_cache(512)
def _tag(text: str, size: int, colour: tuple[int, int, int] | None, hollow: bool) -> RgbImage:
    """Return text on a dark background, (h, w, 4) uint8 RGBA, after a square of `colour`."""
    pad, square = max(2, size // 3), 0 if colour is None else size
    width, height = text_width(text, size) + 2 * pad + square, round(size * 1.5)
    image = Image.new("RGBA", (width, height), (*DARK, 170))
    draw = ImageDraw.Draw(image)
    if colour is not None:
        box = (pad, height // 2 - size // 3, pad + size * 2 // 3, height // 2 + size // 3)
        draw.rectangle(box, fill=None if hollow else colour, outline=colour, width=max(1, size // 8))
    draw.text((pad + square, height / 2), text, (255, 255, 255, 255), font(size), anchor="lm")
    return np.asarray(image)


@cache
def font(size: int) -> Any:
    """Return Pillow's own font, `size` pixels high."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """Return the width of a line of text in pixels."""
    return math.ceil(float(font(size).getlength(text)))


@cache
def _table() -> RgbImage:
    return np.array([(0, 0, 0), *(colour_of(label) for label in range(1, 1 << 16))], np.uint8)


def _extent(labels: Labels, margin: int) -> tuple[slice, slice] | None:
    """Return the part of the frame that has labels, with a margin, so that the rest costs no time."""
    rows, columns = (np.flatnonzero(labels.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    return slice(top, rows[-1] + 1 + margin), slice(left, columns[-1] + 1 + margin)


def _edges(labels: Labels, width: int) -> npt.NDArray[np.bool_]:
    """Whether a pixel has one of another label within `width` pixels, up, down, left or right."""
    edge = np.zeros(labels.shape, np.bool_)
    for step in range(1, width + 1):
        for one, other in (
            ((slice(step, None),), (slice(None, -step),)),
            ((slice(None), slice(step, None)), (slice(None), slice(None, -step))),
        ):
            differ = labels[one] != labels[other]
            edge[one] |= differ
            edge[other] |= differ
    return edge
