"""Contact sheets: small images of many channels on one page. numpy and Pillow only."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from napari_samexp.errors import SettingsError
from napari_samexp.io.atomic import absolute_path, os_errors_as_store_errors, write_atomic
from napari_samexp.posenc.map import PosencMap

__all__ = ["SheetRow", "Tile", "draw_sheet", "save_sheet", "viridis"]

COLUMNS = 9
TILES = 24  # channels of a map, by default
TILE = 128  # pixels of the longer side, at least
GAP, CAPTION, TITLE = 8, 18, 30
PAPER, INK, FAINT = (255, 255, 255), (32, 32, 32), (110, 110, 110)

# 25 points of the colour map viridis (CC0); between them, a straight line is off by 2 of 255 at most
_VIRIDIS = np.array(
    [
        (68, 1, 84), (71, 17, 99), (72, 31, 113), (71, 45, 123), (68, 58, 131),
        (64, 70, 136), (59, 82, 139), (53, 93, 141), (49, 104, 142), (44, 114, 142),
        (40, 124, 142), (36, 134, 142), (33, 144, 140), (31, 154, 138), (32, 164, 134),
        (40, 174, 128), (53, 183, 121), (71, 192, 111), (93, 201, 99), (117, 208, 84),
        (143, 215, 68), (171, 220, 50), (199, 224, 32), (227, 228, 24), (253, 231, 37),
    ],
    np.float32,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One small image: its caption, its values (h, w), and the values for dark and bright."""

    caption: str
    values: npt.NDArray[np.float32]
    limits: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class SheetRow:
    """A title and the tiles below it, which may take several lines."""

    title: str
    tiles: tuple[Tile, ...]


def viridis(values: npt.NDArray[np.float32], limits: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Return values as colours, (..., 3) uint8: dark blue at the lower limit, yellow at the upper."""
    low, high = limits
    place = np.clip((np.asarray(values, np.float32) - low) / (high - low), 0, 1) * (len(_VIRIDIS) - 1)
    points = np.arange(len(_VIRIDIS))
    colours = [np.interp(place, points, _VIRIDIS[:, k]) for k in range(3)]
    out: npt.NDArray[np.uint8] = np.rint(np.stack(colours, axis=-1)).astype(np.uint8)
    return out


def save_sheet(
    path: str | Path,
    maps: Sequence[PosencMap],
    *,
    channels: Sequence[int] | None = None,
    per_channel: bool = False,
) -> None:
    """Write a PNG with the norm and some channels of each map.

    Parameters
    ----------
    path : path
    maps : sequence of PosencMap
    channels : sequence of int, optional
        By default 24 evenly spaced ones of each map, with its first and last.
    per_channel : bool
        Whether each channel has its own contrast.

    Raises
    ------
    SettingsError
        If there is no map, or a channel does not exist.
    StoreError
        If the file cannot be written; an existing one is then unchanged.
    """
    if not maps:
        raise SettingsError("There is no map to draw; give at least one.")
    rows = [_sheet_row(each, channels, per_channel) for each in maps]
    data = io.BytesIO()
    draw_sheet(rows).save(data, "PNG", optimize=True)
    target = absolute_path(path)
    with os_errors_as_store_errors("write the image", target):
        write_atomic(target, data.getvalue())


def draw_sheet(rows: Sequence[SheetRow]) -> Image.Image:
    """Return a page with all rows; each tile is enlarged by a whole factor, so that tokens stay square."""
    sizes = [_tile_size(row) for row in rows]
    widths = [COLUMNS * (width + GAP) + GAP for _, width in sizes]
    heights = [TITLE + _lines(row) * (height + CAPTION + GAP) for row, (height, _) in zip(rows, sizes)]
    page = Image.new("RGB", (max(widths), sum(heights) + GAP), PAPER)
    top = 0
    for row, size, height in zip(rows, sizes, heights):
        _draw_row(page, row, top, size)
        top += height
    return page


def _sheet_row(each: PosencMap, channels: Sequence[int] | None, per_channel: bool) -> SheetRow:
    if channels is None:
        channels = np.unique(np.linspace(0, each.channels - 1, TILES).round().astype(int)).tolist()
    tiles = [Tile("L2 norm", each.norm(), each.norm_limits())]
    for channel in channels:
        limits = each.limits(channel if per_channel else None)
        tiles.append(Tile(f"channel {channel}", each.channel(channel), limits))
    low, high = each.limits()
    scale = "each channel its own contrast" if per_channel else f"{low:.3g} to {high:.3g}"
    return SheetRow(f"{each.title} · {scale}", tuple(tiles))


def _lines(row: SheetRow) -> int:
    return -(-len(row.tiles) // COLUMNS)


def _tile_size(row: SheetRow) -> tuple[int, int]:
    height, width = row.tiles[0].values.shape
    factor = max(1, TILE // max(height, width))
    return height * factor, max(width * factor, 80)  # room for the caption


def _draw_row(page: Image.Image, row: SheetRow, top: int, size: tuple[int, int]) -> None:
    draw = ImageDraw.Draw(page)
    title = row.title.replace("×", "x")  # the font lacks it
    draw.text((GAP, top + 8), title, INK, ImageFont.load_default(14))
    height, width = size
    for place, tile in enumerate(row.tiles):
        line, column = divmod(place, COLUMNS)
        left, upper = GAP + column * (width + GAP), top + TITLE + line * (height + CAPTION + GAP)
        page.paste(_enlarged(tile, height), (left, upper))
        draw.text((left, upper + height + 2), tile.caption, FAINT, ImageFont.load_default(11))


def _enlarged(tile: Tile, height: int) -> Image.Image:
    factor = height // tile.values.shape[0]
    return Image.fromarray(viridis(tile.values, tile.limits).repeat(factor, 0).repeat(factor, 1))
