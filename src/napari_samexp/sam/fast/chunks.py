"""Token-wise layers and windows a chunk at a time, so that what lies between stays in a CPU's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from napari_samexp.sam.fast import on_cpu

__all__ = ["add_in_chunks", "in_windows"]

CHUNK = 1024  # tokens whose hidden channels fit a processor's cache


def add_in_chunks(x: Tensor, apply: Callable[[Tensor], Tensor]) -> Tensor:
    """Return x + apply(x) for tokens (..., C), each of which `apply` treats alone."""
    tokens = x.reshape(-1, x.shape[-1])
    out = torch.empty_like(tokens)
    for chunk, into in zip(tokens.split(CHUNK), out.split(CHUNK)):
        torch.add(chunk, apply(chunk), out=into)
    return out.view(x.shape)


def in_windows(apply: Callable[[Tensor, int], Tensor], x: Tensor, window: int) -> Tensor:
    """Apply a layer to the windows of a grid, without computing their padding.

    Parameters
    ----------
    apply : callable
        Takes windows (n, h, w, C) and how many tokens the reference pads each with; returns (n, h', w', C')
        with the sides as they were, or halved. Windows at the right and bottom border are as small as what is
        left of the grid.
    x : Tensor, shape (B, H, W, C)

    Returns
    -------
    Tensor, shape (B, H', W', C')
    """
    out = None
    for batch, rows, columns in _bands(x, window):
        band = x[batch, rows, columns]
        h, w = min(window, band.shape[1]), min(window, band.shape[2])
        # (b, rows, columns, h, w, C)
        windows = band.unflatten(2, (-1, w)).unflatten(1, (-1, h)).transpose(2, 3)
        done = apply(windows.flatten(0, 2), window * window - h * w)
        pooled = h // max(1, done.shape[1])  # 2 where the layer halves the sides
        if out is None:
            out = done.new_empty(len(x), x.shape[1] // pooled, x.shape[2] // pooled, done.shape[-1])
        done = done.unflatten(0, windows.shape[:3]).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        top, left = rows.start // pooled, columns.start // pooled
        out[batch, top : top + done.shape[1], left : left + done.shape[2]] = done
    assert out is not None
    return out


def _bands(x: Tensor, window: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield where windows of one size lie: all at once, on a CPU some rows of them."""
    for top, bottom in _spans(x.shape[1], window):
        for left, right in _spans(x.shape[2], window):
            if not on_cpu(x):
                yield slice(0, len(x)), slice(top, bottom), slice(left, right)
                continue
            step = window * max(1, CHUNK // (window * (right - left)))
            for index in range(len(x)):
                for start in range(top, bottom, step):
                    yield slice(index, index + 1), slice(start, min(start + step, bottom)), slice(left, right)


def _spans(size: int, window: int) -> list[tuple[int, int]]:
    """Return where the whole windows are, and the rest of the side."""
    whole = size // window * window
    return [(start, end) for start, end in ((0, whole), (whole, size)) if end > start]
