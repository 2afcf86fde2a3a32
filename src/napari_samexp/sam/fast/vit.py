"""SAM 1's blocks: a window's padding is not computed, and large grids take one head at a time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_samexp.sam.fast import on_cpu
from napari_samexp.sam.fast.attention import attend_on_grid
from napari_samexp.sam.fast.chunks import add_in_chunks, in_windows

if TYPE_CHECKING:
    from napari_samexp.sam.vit import Block, RelativeAttention

__all__ = ["block"]

SMALL = 256  # tokens up to which all heads go at once


def block(block: Block, x: Tensor) -> Tensor:
    """Return what `Block.forward` does."""
    run = partial(_windows, block)
    return in_windows(run, x, block.window) if block.window else run(x, 0)


def _windows(block: Block, x: Tensor, absent: int) -> Tensor:
    """Take windows (n, h, w, C), which the reference pads with `absent` tokens each, through a block."""
    x = x + _attend(block.attn, block.norm1(x), block.window if absent else 0)

    def mlp(tokens: Tensor) -> Tensor:
        out: Tensor = block.mlp(block.norm2(tokens))
        return out

    return add_in_chunks(x, mlp) if on_cpu(x) else x + mlp(x)


def _attend(attn: RelativeAttention, x: Tensor, window: int) -> Tensor:
    """(n, h, w, C) to the same; keys and values are padded to the side of a window unless it is 0."""
    q, kv = attn.qkv(x).tensor_split([x.shape[-1]], dim=-1)
    if window:
        # windows are padded after the norm, and the zeros still enter the attention through the bias
        padded = attn.qkv.bias[x.shape[-1] :].expand(len(kv), window, window, -1).clone()
        padded[:, : kv.shape[1], : kv.shape[2]] = kv
        kv = padded
    rows, columns = attn.distances(kv.shape[1], kv.shape[2])
    rows, columns = rows[: q.shape[1]].to(q.dtype), columns[: q.shape[2]].to(q.dtype)
    q = q.unflatten(-1, (attn.num_heads, -1)).permute(0, 3, 1, 2, 4)  # (n, heads, h, w, D)
    k, v = (
        kv.flatten(1, 2).unflatten(-1, (2, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    )  # (n, heads, H W, D)
    # all heads' logits of a 64 x 64 grid would take a gigabyte
    step = attn.num_heads if k.shape[2] <= SMALL else 1
    heads = zip(q.split(step, 1), k.split(step, 1), v.split(step, 1))
    parts = [_attend_heads(*some, rows, columns) for some in heads]
    mixed = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    out: Tensor = attn.proj(mixed.transpose(1, 2).reshape(*x.shape))
    return out


def _attend_heads(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(n, heads, h, w, D), twice (n, heads, H W, D), (h, H, D), (w, W, D) to (n, heads, h w, D)."""
    down = torch.einsum("nahwc,hkc->nahwk", q, rows).flatten(2, 3)
    right = torch.einsum("nahwc,wkc->nahwk", q, columns).flatten(2, 3)
    return attend_on_grid(q.flatten(2, 3), k, v, down, right)
