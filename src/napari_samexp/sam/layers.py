"""The small parts that several models share. Arrays are (B, N, C) tokens, (B, H, W, C) or (B, C, H, W) maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.fast.attention import attend

__all__ = [
    "PART",
    "Attention",
    "LayerNorm2d",
    "Mlp",
    "add_in_chunks",
    "in_windows",
    "is_chunked",
    "split_heads",
]

PART = 1024  # tokens whose hidden channels a processor's cache holds


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
        return self.on_last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def on_last(self, x: Tensor) -> Tensor:
        """The same for channels that are the last axis, (..., C)."""
        return functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)


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


def is_chunked(x: Tensor) -> bool:
    """Whether tokens are computed part by part: where a cache counts and no gradients are kept."""
    return x.device.type == "cpu" and not torch.is_grad_enabled()


def add_in_chunks(x: Tensor, apply: Callable[[Tensor], Tensor]) -> Tensor:
    """Return x + apply(x) for tokens (..., C), each of which `apply` treats alone.

    On a CPU a part of the tokens is taken through all of it at a time, so that what lies between stays in
    the processor's cache.
    """
    if not is_chunked(x):
        return x + apply(x)
    tokens = x.reshape(-1, x.shape[-1])
    out = torch.empty_like(tokens)
    for part, into in zip(tokens.split(PART), out.split(PART)):
        torch.add(part, apply(part), out=into)
    return out.view(x.shape)


def in_windows(apply: Callable[[Tensor, int], Tensor], x: Tensor, window: int) -> Tensor:
    """Cut a grid into windows from the top left, apply a layer to each, and put the results together.

    Parameters
    ----------
    apply : callable
        Takes windows (n, h, w, C) and how many tokens the models pad each with; returns (n, h', w', C'),
        where sides are as they were or halved. Windows at the right and at the bottom are as small as
        what is left of the grid.
    x : Tensor, shape (B, H, W, C)

    Returns
    -------
    Tensor, shape (B, H', W', C')
    """
    out = None
    for batch, rows, columns in _bands(x, window):
        part = x[batch, rows, columns]
        h, w = min(window, part.shape[1]), min(window, part.shape[2])
        windows = part.unflatten(2, (-1, w)).unflatten(1, (-1, h)).transpose(2, 3)
        done = apply(windows.flatten(0, 2), window * window - h * w)
        fewer = h // max(1, done.shape[1])
        if out is None:
            out = done.new_empty(len(x), x.shape[1] // fewer, x.shape[2] // fewer, done.shape[-1])
        done = done.unflatten(0, windows.shape[:3]).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        top, left = rows.start // fewer, columns.start // fewer
        out[batch, top : top + done.shape[1], left : left + done.shape[2]] = done
    assert out is not None
    return out


def _bands(x: Tensor, window: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield where windows of one size lie: all of them, or some rows of them where that pays."""
    for top, bottom in _spans(x.shape[1], window):
        for left, right in _spans(x.shape[2], window):
            if not is_chunked(x):
                yield slice(0, len(x)), slice(top, bottom), slice(left, right)
                continue
            step = window * max(1, PART // (window * (right - left)))
            for index in range(len(x)):
                for start in range(top, bottom, step):
                    yield slice(index, index + 1), slice(start, min(start + step, bottom)), slice(left, right)


def _spans(size: int, window: int) -> list[tuple[int, int]]:
    """Where whole windows are, and what is left."""
    whole = size // window * window
    return [(start, end) for start, end in ((0, whole), (whole, size)) if end > start]
