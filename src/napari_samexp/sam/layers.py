"""The small parts that several models share. Arrays are (B, N, C) tokens, (B, H, W, C) or (B, C, H, W) maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.attention import attend

__all__ = ["Attention", "LayerNorm2d", "Mlp", "from_windows", "split_heads", "to_windows"]


class Mlp(nn.Module):
    """Linear layers with an activation between them.

    Parameters
    ----------
    widths : sequence of int
        Input, hidden and output channels, at least two numbers.
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
        last = x.permute(0, 2, 3, 1)
        return functional.layer_norm(last, last.shape[-1:], self.weight, self.bias, self.eps).permute(
            0, 3, 1, 2
        )


class Attention(nn.Module):
    """Multi-head attention with separate projections, as SAM's decoder has it.

    Parameters
    ----------
    inner : int, optional
        Channels within the attention; SAM halves them in cross attention.
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
        q, k, v = (split_heads(x, self.num_heads) for x in (q, k, v))
        mixed = attend(q, k, v)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, C) to (B, heads, N, C / heads)."""
    out: Tensor = x.unflatten(-1, (heads, -1)).transpose(1, 2)
    return out


def to_windows(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) to (B x windows, window, window, C), zero-padded at right and bottom where needed."""
    batch, height, width, channels = x.shape
    pad_h, pad_w = -height % window, -width % window
    if pad_h or pad_w:
        x = functional.pad(x, (0, 0, 0, pad_w, 0, pad_h))
    x = x.view(batch, (height + pad_h) // window, window, (width + pad_w) // window, window, channels)
    return x.transpose(2, 3).reshape(-1, window, window, channels)


def from_windows(x: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Undo `to_windows`: (B x windows, window, window, C) to (B, H, W, C), the padding cut off."""
    height, width = grid_hw
    window = x.shape[1]
    rows, columns = -(-height // window), -(-width // window)
    x = x.view(-1, rows, columns, window, window, x.shape[-1]).transpose(2, 3)
    return x.reshape(x.shape[0], rows * window, columns * window, -1)[:, :height, :width]
