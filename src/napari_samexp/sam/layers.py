"""Layers that several models share. Arrays are (B, N, C) tokens, (B, H, W, C) grids or (B, C, H, W) maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.fast import on_cpu
from napari_samexp.sam.fast.attention import attend
from napari_samexp.sam.fast.chunks import add_in_chunks

__all__ = [
    "Attention",
    "LayerNorm2d",
    "Mlp",
    "residual",
    "split_heads",
    "window_partition",
    "window_unpartition",
]


class Mlp(nn.Module):
    """Linear layers with an activation between them.

    Parameters
    ----------
    widths : sequence of int
        Input, hidden and output channels; at least two.
    """

    def __init__(
        self, widths: Sequence[int], activation: Callable[[Tensor], Tensor] = functional.relu
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) to (..., widths[-1])."""
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of a (B, C, H, W) map."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return self.channels_last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def channels_last(self, x: Tensor) -> Tensor:
        """Normalise (..., C)."""
        return functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)


class Attention(nn.Module):
    """Multi-head attention with separate projections, as SAM's decoder has it.

    Parameters
    ----------
    inner : int, optional
        Channels of queries, keys and values; SAM halves them in cross-attention.
    source : int, optional
        Channels of keys and values where they differ from the queries'.
    """

    def __init__(
        self, channels: int, num_heads: int, inner: int | None = None, source: int | None = None
    ) -> None:
        super().__init__()
        inner, source = inner or channels, source or channels
        self.num_heads = num_heads
        self.q_proj = nn.Linear(channels, inner)
        self.k_proj = nn.Linear(source, inner)
        self.v_proj = nn.Linear(source, inner)
        self.out_proj = nn.Linear(inner, channels)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, N, C), (B, M, S), (B, M, S) to (B, N, C)."""
        q, k, v = self.q_proj(q), self.k_proj(k), self.v_proj(v)
        q, k, v = (split_heads(x, self.num_heads) for x in (q, k, v))  # (B, heads, N or M, D)
        mixed = attend(q, k, v).transpose(1, 2).flatten(2)  # (B, N, inner)
        out: Tensor = self.out_proj(mixed)
        return out


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, C) to (B, heads, N, C / heads)."""
    out: Tensor = x.unflatten(-1, (heads, -1)).transpose(1, 2)
    return out


def residual(x: Tensor, apply: Callable[[Tensor], Tensor]) -> Tensor:
    """Return x + apply(x) for tokens (..., C), each of which `apply` treats alone."""
    return add_in_chunks(x, apply) if on_cpu(x) else x + apply(x)


def window_partition(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) to (B x rows x columns, window, window, C); zeros fill the windows at the border."""
    height, width = x.shape[1:3]
    if height % window or width % window:
        x = functional.pad(x, (0, 0, 0, -width % window, 0, -height % window))
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # (B, rows, window, columns, window, C)
    out: Tensor = x.transpose(2, 3).flatten(0, 2)
    return out


def window_unpartition(windows: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """(B x rows x columns, window, window, C) to the grid (B, H, W, C), without the padding."""
    rows, columns = (-(-size // windows.shape[1]) for size in grid_hw)
    x = windows.unflatten(0, (-1, rows, columns)).transpose(2, 3)  # (B, rows, window, columns, window, C)
    out: Tensor = x.flatten(3, 4).flatten(1, 2)
    return out[:, : grid_hw[0], : grid_hw[1]]
