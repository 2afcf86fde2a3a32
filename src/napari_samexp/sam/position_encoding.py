"""Position encodings: pure functions of a grid, and of a learned table where there is one."""

from __future__ import annotations

import math
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from napari_samexp.sam.fast import is_enabled, on_cpu

__all__ = [
    "Rope",
    "axial_rope",
    "fourier_points",
    "hiera_map",
    "memory_map",
    "offset_table",
    "relative_map",
    "rotary_map",
    "rotate",
    "rotate_",
    "sine_map",
    "sine_times",
    "tile_map",
    "vit_map",
]

GridHW = tuple[int, int]


def hiera_map(background: Tensor, window: Tensor, grid_hw: GridHW, window_tile: bool = True) -> Tensor:
    """Return what Hiera adds to its patch tokens (SAM 2): background resized plus window table tiled.

    Parameters
    ----------
    background, window : Tensor, shape (1, C, h, w)
        The two learned tables.
    window_tile : bool
        Whether the tiled window table is added.

    Returns
    -------
    Tensor, shape (1, C, H, W)
    """
    full = functional.interpolate(background, size=grid_hw, mode="bicubic")  # (1, C, H, W)
    return full + tile_map(window, grid_hw) if window_tile else full


def tile_map(window: Tensor, grid_hw: GridHW) -> Tensor:
    """Return Hiera's window table (1, C, h, w), tiled and cropped to a grid: (1, C, H, W)."""
    repeats = [-(-size // tile) for size, tile in zip(grid_hw, window.shape[-2:])]
    return window.tile(repeats)[..., : grid_hw[0], : grid_hw[1]]


def vit_map(table: Tensor, grid_hw: GridHW) -> Tensor:
    """Return what SAM 1's ViT adds to its patch tokens: its table, resized for other grids.

    Meta's encoder takes its native grid only; on other grids the table is resized bicubically, as is usual
    for ViTs.

    Parameters
    ----------
    table : Tensor, shape (1, h, w, C)

    Returns
    -------
    Tensor, shape (1, H, W, C)
    """
    if table.shape[1:3] == grid_hw:
        return table
    return functional.interpolate(table.permute(0, 3, 1, 2), size=grid_hw, mode="bicubic").permute(0, 2, 3, 1)


def offset_table(table: Tensor, size: int) -> Tensor:
    """Return SAM 1's relative table for `size` tokens: (2 s - 1, C) to (2 size - 1, C), resized linearly.

    Row ``i`` belongs to queries that come ``i - (size - 1)`` tokens after their keys.
    """
    length = 2 * size - 1
    if table.shape[0] == length:
        return table
    return functional.interpolate(table.T[None], size=length, mode="linear")[0].T


def relative_map(rows: Tensor, columns: Tensor, grid_hw: GridHW) -> Tensor:
    """Return the vectors whose product with a query is added to its attention logits, in SAM 1's blocks.

    A position in the map is a key's offset from the query, which is in the middle. The encoder adds two
    products instead, of the query with `rows` and with `columns`, which is the same but for rounding.

    Parameters
    ----------
    rows, columns : Tensor, shape (2 s - 1, C)
        ``rel_pos_h`` and ``rel_pos_w`` of a block.

    Returns
    -------
    Tensor, shape (C, 2 H - 1, 2 W - 1)
    """
    down, right = (offset_table(table, size).flip(0) for table, size in zip((rows, columns), grid_hw))
    return down.T[:, :, None] + right.T[:, None, :]


@lru_cache(maxsize=32)
def sine_map(channels: int, grid_hw: GridHW, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the fixed sine encoding of a grid, normalised to 2 pi (DETR's), y half then x half.

    Returns
    -------
    Tensor, shape (1, channels, H, W)
    """
    with torch.inference_mode(False):
        half = channels // 2
        rates = _rates(half, torch.device("cpu"))
        y, x = (torch.arange(1, n + 1, dtype=torch.float32) / (n + 1e-6) * (2 * math.pi) for n in grid_hw)
        parts = []
        for positions in (y, x):
            angles = positions[:, None] / rates  # (H or W, channels / 2)
            # neighbouring channels share a rate: the sine of the first, the cosine of the second
            parts.append(torch.stack((angles[:, 0::2].sin(), angles[:, 1::2].cos()), dim=2).flatten(1))
        grid = torch.cat(
            (parts[0][:, None].expand(-1, grid_hw[1], -1), parts[1][None].expand(grid_hw[0], -1, -1)), dim=-1
        )
        return grid.permute(2, 0, 1)[None].contiguous().to(device, dtype)


def sine_times(times: Tensor, channels: int) -> Tensor:
    """Return the sine encoding of times: (...,) float32 to (..., channels), sines then cosines."""
    angles = times[..., None] / _rates(channels // 2, times.device)  # (..., channels / 2)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


@lru_cache(maxsize=8)
def _rates(count: int, device: torch.device) -> Tensor:
    """Cached, since a GPU would wait for each copy, which cannot be captured in a CUDA graph."""
    with torch.inference_mode(False):
        index = torch.arange(count, dtype=torch.float32, device="cpu")
        rates: Tensor = 10000.0 ** (2 * (index // 2) / count)
        return rates.to(device)


def fourier_points(points: Tensor, matrix: Tensor) -> Tensor:
    """Return SAM's random Fourier encoding of points.

    Parameters
    ----------
    points : Tensor, shape (..., 2), float32
        x and y, 0 to 1 over the model input.
    matrix : Tensor, shape (2, F)

    Returns
    -------
    Tensor, shape (..., 2 F), float32
    """
    angles = (2 * points - 1) @ matrix.float() * (2 * math.pi)  # (..., F)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


class Rope(tuple[Tensor, Tensor]):
    """Cosines and sines of a rotary encoding, each of shape (N, channels / 2)."""

    @cached_property
    def complex(self) -> Tensor:
        """The same as complex numbers."""
        with torch.inference_mode(False):
            return torch.complex(*self)


@lru_cache(maxsize=32)
def axial_rope(channels: int, grid_hw: GridHW, device: torch.device, spread_hw: GridHW | None = None) -> Rope:
    """Return cosines and sines of the rotary encoding of a grid: pairs for x, then pairs for y.

    Parameters
    ----------
    spread_hw : (int, int), optional
        Another grid, to whose positions those of this one are scaled.

    Returns
    -------
    Rope
        Cosines and sines, each of shape (H x W, channels / 2), float32.
    """
    with torch.inference_mode(False):
        rates = 10000.0 ** -(torch.arange(0, channels, 4, dtype=torch.float32)[: channels // 4] / channels)
        index = torch.arange(grid_hw[0] * grid_hw[1], device="cpu")  # row by row
        x, y = (index % grid_hw[1]).float(), (index // grid_hw[1]).float()
        if spread_hw is not None:
            x, y = x * (spread_hw[1] / grid_hw[1]), y * (spread_hw[0] / grid_hw[0])
        angles = torch.cat((x[:, None] * rates, y[:, None] * rates), dim=1)  # (H x W, channels / 2)
        return Rope((angles.cos().to(device), angles.sin().to(device)))


def rotary_map(channels: int, grid_hw: GridHW, dtype: torch.dtype, spread_hw: GridHW | None = None) -> Tensor:
    """Return the pair (1, 0) rotated by the rotary encoding everywhere, (channels, H, W).

    Even channels are cosines and odd ones sines of the angle by which a pair is rotated, so the product
    of two tokens here is the product of two equal vectors after rotation.
    """
    rotated = torch.stack(axial_rope(channels, grid_hw, torch.device("cpu"), spread_hw), dim=-1).flatten(-2)
    return rotated.T.reshape(channels, *grid_hw).to(dtype)


def memory_map(time: Tensor, grid_hw: GridHW) -> Tensor:
    """Return what is added to the keys of a memory's tokens, (C, H, W): the sine map and a learned time (C,)."""
    return sine_map(len(time), grid_hw, time.device, time.dtype)[0] + time[:, None, None]


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Rotate neighbouring channel pairs of (..., N, C) tokens by a rotary encoding of N positions."""
    if is_enabled() and x.device.type == "cpu":  # one pass: a rotation is a product of complex numbers
        pairs = torch.view_as_complex(x.float().contiguous().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * rope.complex).flatten(-2).to(x.dtype)
    cos, sin = rope  # each (N, C / 2)
    even, odd = x[..., 0::2], x[..., 1::2]  # each (..., N, C / 2)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)


def rotate_(x: Tensor, rope: Rope) -> Tensor:
    """Do what `rotate` does, in place."""
    if x.dtype != torch.float32 or not on_cpu(x):
        return x.copy_(rotate(x, rope))
    torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(rope.complex)
    return x
