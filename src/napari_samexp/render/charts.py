"""Curves and heat maps, drawn with Pillow. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from napari_samexp.render.drawing import DARK, colour_of, font, text_width

__all__ = ["heat_map", "line_chart", "shade"]

_WHITE, _GRID, _MUTED, _NOTHING = (255, 255, 255), (224, 224, 228), (110, 110, 118), (236, 236, 238)
_WORDS, _MARGIN, _TICKS = 14, 16, 5
_LONGEST = 150  # pixels, for the name of a row or column
# dark violet to pale yellow with even steps of brightness, so that it is readable without colour
_RAMP = np.array([(48, 18, 92), (108, 38, 122), (176, 66, 102), (226, 122, 70), (246, 226, 148)], np.float64)

RgbImage = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]


def shade(share: float) -> Colour:
    """Return the RGB colour of a value from 0 (dark) to 1 (light)."""
    place = min(max(share, 0.0), 1.0) * (len(_RAMP) - 1)
    low = min(int(place), len(_RAMP) - 2)
    red, green, blue = (_RAMP[low] + (place - low) * (_RAMP[low + 1] - _RAMP[low])).round().astype(int)
    return int(red), int(green), int(blue)


def line_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x_name: str,
    limits: tuple[float, float] = (0.0, 1.0),
    x_words: Sequence[str] | None = None,
    size_hw: tuple[int, int] = (360, 760),
) -> RgbImage:
    """Return a chart of curves.

    Parameters
    ----------
    series : mapping of str to (x, y)
        Curves by name; a y that is not finite makes a gap.
    limits : (low, high)
        Of the vertical axis; curves are clipped to it.
    x_words : sequence of str, optional
        Labels at x = 0, 1, 2, ... instead of numbers.

    Returns
    -------
    array, shape (H, W, 3), uint8
    """
    height, width = size_hw
    page = Image.new("RGB", (width, height), _WHITE)
    draw = ImageDraw.Draw(page)
    rows = _legend(draw, list(series), width)
    box = (56, 44 + rows * 22, width - _MARGIN, height - 44)
    ends = _ends([x for xs, _ in series.values() for x in xs])
    draw.text((_MARGIN, _MARGIN), title, DARK, font(_WORDS + 2), anchor="lt")
    _axes(draw, box, ends, limits, x_words)
    draw.text(((box[0] + box[2]) / 2, height - 6), x_name, _MUTED, font(_WORDS), anchor="mb")
    for number, (xs, ys) in enumerate(series.values(), start=1):
        for run in _runs(xs, ys):
            points = [_place(x, y, box, ends, limits) for x, y in run]
            if len(points) > 1:
                draw.line(points, colour_of(number), 2, joint="curve")
            if len(points) == 1 or x_words or len(xs) <= 24:
                for x, y in points:
                    draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour_of(number))
    return np.asarray(page)


def heat_map(
    values: npt.NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    limits: tuple[float, float] = (0.0, 1.0),
) -> RgbImage:
    """Return a table of values as coloured cells with numbers.

    Parameters
    ----------
    values : array, shape (R, C)
        Values that are not finite have no colour.
    rows, columns : sequence of str
    limits : (low, high)
        The values of the darkest and the lightest colour.

    Returns
    -------
    array, shape (H, W, 3), uint8
    """
    cell = 30, 62
    names = [_cut(name, _LONGEST) for name in rows]
    left = _MARGIN + max([text_width(name, _WORDS) for name in names] or [0]) + 10
    heads = [_cut(name, _LONGEST) for name in columns]
    head = max([text_width(name, _WORDS) for name in heads] or [0])
    top = _MARGIN + 30 + head + 8
    least = 2 * _MARGIN + text_width(title, _WORDS + 2)
    size = max(least, left + cell[1] * len(columns) + _MARGIN), top + cell[0] * len(rows) + _MARGIN
    page = Image.new("RGB", size, _WHITE)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN), title, DARK, font(_WORDS + 2), anchor="lt")
    for column, name in enumerate(heads):
        _upright(page, name, left + column * cell[1] + cell[1] // 2, top - 6)
    for row, name in enumerate(names):
        middle = top + row * cell[0] + cell[0] // 2
        draw.text((left - 8, middle), name, DARK, font(_WORDS), anchor="rm")
        for column in range(len(columns)):
            place = left + column * cell[1], top + row * cell[0]
            _cell(draw, float(values[row, column]), place, cell, limits)
    return np.asarray(page)


def _cell(
    draw: ImageDraw.ImageDraw, value: float, place: tuple[int, int], cell: tuple[int, int], limits: Any
) -> None:
    low, high = limits
    share = (value - low) / (high - low) if high > low and math.isfinite(value) else math.nan
    fill = _NOTHING if math.isnan(share) else shade(share)
    (x, y), (height, width) = place, cell
    draw.rectangle((x, y, x + width - 2, y + height - 2), fill=fill)
    ink = DARK if sum(fill) > 380 else _WHITE
    text = "-" if math.isnan(share) else f"{value:.2f}"
    draw.text((x + width / 2, y + height / 2), text, ink, font(_WORDS), anchor="mm")


def _upright(page: Image.Image, text: str, middle: int, bottom: int) -> None:
    """Draw text upwards, so that narrow columns can have names."""
    width = max(1, text_width(text, _WORDS))
    tag = Image.new("RGB", (width, _WORDS + 6), _WHITE)
    ImageDraw.Draw(tag).text((0, (_WORDS + 6) / 2), text, DARK, font(_WORDS), anchor="lm")
    rotated = tag.transpose(Image.Transpose.ROTATE_90)
    page.paste(rotated, (middle - rotated.width // 2, bottom - rotated.height))


def _legend(draw: ImageDraw.ImageDraw, names: Sequence[str], width: int) -> int:
    """Draw the names of the curves below the title and return how many lines they took."""
    x, row = _MARGIN, 0
    for number, name in enumerate(names, start=1):
        text = _cut(name, 2 * _LONGEST)
        room = 22 + text_width(text, _WORDS) + 16
        if x + room > width and x > _MARGIN:
            x, row = _MARGIN, row + 1
        y = 44 + row * 22
        draw.line((x, y, x + 16, y), colour_of(number), 3)
        draw.text((x + 22, y), text, DARK, font(_WORDS), anchor="lm")
        x += room
    return row + 1


def _axes(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    ends: tuple[float, float],
    limits: tuple[float, float],
    x_words: Sequence[str] | None,
) -> None:
    for value in np.linspace(*limits, _TICKS):
        y = _place(ends[0], float(value), box, ends, limits)[1]
        draw.line((box[0], y, box[2], y), _GRID)
        draw.text((box[0] - 6, y), f"{value:.4g}", _MUTED, font(_WORDS), anchor="rm")
    ticks = enumerate(x_words) if x_words else ((t, f"{t:g}") for t in _round_ticks(*ends))
    for value, word in ticks:
        x = _place(float(value), limits[0], box, ends, limits)[0]
        draw.text((x, box[3] + 6), word, _MUTED, font(_WORDS), anchor="mt")
    draw.line((box[0], box[3], box[2], box[3]), _MUTED)


def _round_ticks(low: float, high: float) -> list[float]:
    """Return about six round numbers between two ends."""
    if high <= low:
        return [low]
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough)
    return [float(n) * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _place(
    x: float, y: float, box: tuple[int, int, int, int], ends: tuple[float, float], limits: tuple[float, float]
) -> tuple[float, float]:
    right = (x - ends[0]) / (ends[1] - ends[0])
    up = min(max((y - limits[0]) / (limits[1] - limits[0]), 0.0), 1.0)
    return box[0] + 8 + right * (box[2] - box[0] - 16), box[3] - up * (box[3] - box[1])


def _runs(xs: Sequence[float], ys: Sequence[float]) -> list[list[tuple[float, float]]]:
    """Return the runs of finite values of a curve."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(xs, ys):
        if math.isfinite(y):
            runs[-1].append((float(x), float(y)))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _cut(text: str, room: int) -> str:
    if text_width(text, _WORDS) <= room:
        return text
    while text and text_width(text + "...", _WORDS) > room:
        text = text[:-1]
    return text + "..."
