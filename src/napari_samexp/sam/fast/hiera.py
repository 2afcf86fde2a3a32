"""Hiera with less to move: the first blocks window by window, padding not computed, the neck folded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.fast import on_cpu
from napari_samexp.sam.fast.attention import attend
from napari_samexp.sam.fast.chunks import add_in_chunks, in_windows
from napari_samexp.sam.fast.folding import Kernel, on_pixels

if TYPE_CHECKING:
    from napari_samexp.sam.hiera import Block, Hiera, ImageEncoder, Levels, Neck, PooledAttention

__all__ = ["by_window", "decoder_features", "neck_features", "nested_blocks", "pays_by_window", "stages"]

Layer = Callable[[Tensor], Tensor]
CHUNK = 2048  # patch tokens that go through the first blocks at a time


def decoder_features(encoder: ImageEncoder, pixels: Tensor, convs: Sequence[nn.Conv2d]) -> Levels:
    """Return what `ImageEncoder.decoder_features` does; each stage's output goes through the neck at once."""
    return _add_coarsest(stages(encoder.trunk, pixels, _levels(encoder.neck, convs)))


def neck_features(neck: Neck, outputs: Sequence[Tensor], convs: Sequence[nn.Conv2d]) -> Levels:
    """Four (B, h, w, C) grids to three (B, C', h, w), the first two after the decoder's convolutions."""
    return _add_coarsest([level(x) for level, x in zip(_levels(neck, convs), outputs)])


def stages(trunk: Hiera, pixels: Tensor, finish: Sequence[Layer] = ()) -> list[Tensor]:
    """Return what `Hiera.forward` does.

    Parameters
    ----------
    pixels : Tensor, shape (B, 3, H, W)
    finish : four callables, optional
        Token-wise layers for the stages' outputs (..., C).

    Returns
    -------
    list of Tensor, four of shape (B, h, w, C), at strides 4, 8, 16 and 32
    """
    finish = finish or [nn.Identity()] * len(trunk.stage_ends)
    patches = trunk.patch_embed(pixels)  # (B, H / 4, W / 4, C)
    grid_hw = (patches.shape[1], patches.shape[2])
    encoding = cached_position_map(trunk, grid_hw)
    window, count = nested_blocks(trunk.blocks)
    if count and not any(size % window for size in grid_hw):
        x, outputs = _first_blocks(trunk, patches, encoding, finish)
    else:
        x, outputs, count = patches + encoding, [], 0
    for i, block in list(enumerate(trunk.blocks))[count:]:
        x = block(x)
        if i in trunk.stage_ends:
            outputs.append(finish[len(outputs)](x))
    return outputs


def _first_blocks(
    trunk: Hiera, patches: Tensor, encoding: Tensor, finish: Sequence[Layer]
) -> tuple[Tensor, list[Tensor]]:
    """Take patch tokens (B, H, W, C) through the `nested_blocks`, whose windows are made once for all of them.

    On a CPU some rows of windows go through all blocks at a time. Returns the last block's output and the
    finished outputs of the stages among them.
    """
    window, _ = nested_blocks(trunk.blocks)
    columns = patches.shape[2] // window
    chunked = on_cpu(patches)
    step = max(1, CHUNK // (window * patches.shape[2])) if chunked else patches.shape[1] // window
    encodings = _windows(encoding, window).split(step, 1)  # each (1, step, columns, window, window, C)
    batches = []
    for images in patches.split(1) if chunked else [patches]:
        bands = []
        for rows, added in zip(_windows(images, window).split(step, 1), encodings):
            parts = _run_nested(trunk, (rows.contiguous() + added).flatten(0, 2), finish)
            bands.append([_to_grid(part, len(images), columns) for part in parts])
        batches.append([_joined(parts, 1) for parts in zip(*bands)])
    first, *finished = (_joined(parts, 0) for parts in zip(*batches))
    return first, list(finished)


def _run_nested(trunk: Hiera, x: Tensor, finish: Sequence[Layer]) -> list[Tensor]:
    """Take windows (n, h, w, C) through the nested blocks: the last output, then those of the stages."""
    outputs: list[Tensor] = []
    for i in range(nested_blocks(trunk.blocks)[1]):
        x = trunk.blocks[i](x)
        if i in trunk.stage_ends:
            outputs.append(finish[len(outputs)](x))
    return [x, *outputs]


def nested_blocks(blocks: Iterable[nn.Module]) -> tuple[int, int]:
    """Return the first block's window, and how many blocks from there on never attend beyond it.

    A window of 8 that was pooled to 4 is a window of the next stage, and so on.
    """
    following = cast("list[Block]", list(blocks))
    side, count = following[0].window, 0
    for block in following:
        if not side or block.window != side or (block.pool and side % 2):
            break
        side, count = side // 2 if block.pool else side, count + 1
    return following[0].window, count


def _windows(x: Tensor, window: int) -> Tensor:
    """View (B, H, W, C) as windows, (B, rows, columns, window, window, C)."""
    windows: Tensor = x.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3)
    return windows


def _to_grid(x: Tensor, batch: int, columns: int) -> Tensor:
    """Put windows (B x rows x columns, h, w, C) together, (B, H, W, C)."""
    grid: Tensor = x.unflatten(0, (batch, -1, columns)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return grid


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


def cached_position_map(trunk: Hiera, grid_hw: tuple[int, int]) -> Tensor:
    """Return `Hiera.position_map`, cached for the last grid unless its tables are trained."""
    tables: list[Tensor] = [trunk.pos_embed, trunk.pos_embed_window]
    if torch.is_grad_enabled() and any(table.requires_grad for table in tables):
        return trunk.position_map(grid_hw)
    return trunk.position_cache.get(tables, lambda: trunk.position_map(grid_hw).contiguous(), grid_hw)


# ---- one block


def pays_by_window(block: Block, x: Tensor) -> bool:
    """Whether the whole block goes window by window: on a CPU, where grid (B, h, w, C) is more than a window."""
    return bool(block.window) and on_cpu(x) and x.shape[1:3] != (block.window, block.window)


def by_window(block: Block, x: Tensor) -> Tensor:
    """Return what `Block.forward` does.

    A GPU had better fill the windows at the border up, as the reference does: that is more to compute than
    windows of four sizes, but a third of the launches, for which a GPU waits.
    """
    return in_windows(partial(_block, block), x, block.window)


def _block(block: Block, x: Tensor, absent: int) -> Tensor:
    """Take windows (n, h, w, C), which the reference pads with `absent` tokens each, through a block."""
    y = block.norm1(x)
    x = block.shortcut(x, y) + (_attend_padded(block.attn, y, absent) if absent else block.attn(y))
    return add_in_chunks(x, lambda tokens: block.mlp(block.norm2(tokens)))


def _attend_padded(attn: PooledAttention, x: Tensor, absent: int) -> Tensor:
    """Attend within windows (n, h, w, C) and to the padding.

    Windows are padded after the norm, and the zeros still enter the attention through the bias.
    """
    q, k, v, shape = attn.project(x)
    _, *biases = attn.qkv.bias.to(q.dtype).view(3, 1, attn.heads, 1, -1)
    k, v = (
        torch.cat((part, bias.expand(len(part), -1, absent, -1)), 2) for part, bias in zip((k, v), biases)
    )
    out: Tensor = attn.proj(attend(q, k, v).transpose(1, 2).reshape(shape))
    return out


# ---- the neck


def _levels(neck: Neck, convs: Sequence[nn.Conv2d]) -> list[Layer]:
    """Return the convolutions of the four levels, fine to coarse, for (..., C) tokens.

    Two 1 x 1 convolutions in a row are one, of the product of their weights, and the wide map between is spared.
    """
    own = [cast(nn.Conv2d, part.conv) for part in neck.convs]
    pairs = [*zip((own[3], own[2]), convs), (own[1], None), (own[0], None)]
    return [partial(on_pixels, kernel=_product(first, second)) for first, second in pairs]


def _add_coarsest(levels: Sequence[Tensor]) -> Levels:
    """Add the coarsest of four (B, h, w, C) levels to the one before: three (B, C, h, w)."""
    s4, s8, s16, s32 = (level.permute(0, 3, 1, 2) for level in levels)
    return s4, s8, s16 + functional.interpolate(s32, scale_factor=2.0, mode="nearest")


def _product(first: nn.Conv2d, second: nn.Conv2d | None) -> Kernel:
    """Return the weight (out, in, 1, 1) and bias of 1 x 1 convolutions, one after the other."""
    assert first.bias is not None
    if second is None:
        return first.weight, first.bias
    assert second.bias is not None
    after = second.weight[:, :, 0, 0]  # (out, between)
    return (after @ first.weight[:, :, 0, 0])[..., None, None], after @ first.bias + second.bias
