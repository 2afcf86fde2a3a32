"""SAM 2's image encoder: the Hiera trunk and the feature pyramid neck."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam import fast
from napari_samexp.sam.fast import hiera as fast_hiera
from napari_samexp.sam.fast.attention import attend
from napari_samexp.sam.fast.folding import Cached
from napari_samexp.sam.layers import Mlp, residual, split_heads, window_partition, window_unpartition
from napari_samexp.sam.position_encoding import hiera_map
from napari_samexp.sam.variants import Sam2Variant

__all__ = ["Block", "Hiera", "ImageEncoder", "Levels", "Neck", "PooledAttention"]

Levels = tuple[Tensor, Tensor, Tensor]  # at strides 4, 8 and 16


class ImageEncoder(nn.Module):
    """(B, 3, H, W) pixels to features at strides 4, 8 and 16, each with `d_model` channels.

    Source: `image_encoder.py` of sam2. The level at stride 32 is only added into the one at stride 16.
    """

    def __init__(self, variant: Sam2Variant) -> None:
        super().__init__()
        self.trunk = Hiera(variant)
        self.neck = Neck(variant.embed_dim, variant.d_model)

    def forward(self, pixels: Tensor) -> Levels:
        """(B, 3, H, W) to three (B, d_model, h, w), fine to coarse."""
        out: Levels = self.neck(self.trunk(pixels))
        return out

    def decoder_features(self, pixels: Tensor, convs: Sequence[nn.Conv2d]) -> Levels:
        """Return the levels, the first two after the mask decoder's 1 x 1 convolutions, one each."""
        if fast.is_enabled():
            return fast_hiera.decoder_features(self, pixels, convs)
        s4, s8, s16 = self(pixels)
        return convs[0](s4), convs[1](s8), s16


class Hiera(nn.Module):
    """The trunk: four stages, each at half the resolution and twice the channels of the one before."""

    def __init__(self, variant: Sam2Variant) -> None:
        super().__init__()
        dim, window = variant.embed_dim, variant.window_spec[0]
        self.patch_embed = _PatchEmbed(dim)
        # a background table, resized to the grid, and a table of one window, tiled over it
        self.pos_embed = nn.Parameter(torch.zeros(1, dim, *variant.background_hw))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, dim, window, window))
        self.stage_ends = [end - 1 for end in accumulate(variant.stages)]
        self.blocks = nn.ModuleList(_blocks(variant, self.stage_ends))
        self.position_cache: Cached[Tensor] = Cached()

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to the stages' outputs, four (B, h, w, C) at strides 4, 8, 16 and 32."""
        if fast.is_enabled():
            return fast_hiera.stages(self, pixels)
        x = self.patch_embed(pixels)  # (B, H / 4, W / 4, C)
        x = x + self.position_map((x.shape[1], x.shape[2]))
        outputs = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.stage_ends:
                outputs.append(x)
        return outputs

    def position_map(self, grid_hw: tuple[int, int]) -> Tensor:
        """Return what is added to the patch tokens of a grid, (1, h, w, C)."""
        return hiera_map(self.pos_embed, self.pos_embed_window, grid_hw).permute(0, 2, 3, 1)


class _PatchEmbed(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 7, stride=4, padding=3)

    def forward(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.proj(pixels).permute(0, 2, 3, 1)  # (B, h, w, C)
        return out


def _blocks(variant: Sam2Variant, stage_ends: list[int]) -> list[Block]:
    blocks, dim, heads = [], variant.embed_dim, variant.num_heads
    for i in range(sum(variant.stages)):
        stage = sum(i > end for end in stage_ends)
        first = i - 1 in stage_ends
        # a stage's first block still works on the higher resolution of the stage before, hence its window
        window = 0 if i in variant.global_blocks else variant.window_spec[stage - first]
        out = dim * 2 if first else dim
        heads = heads * 2 if first else heads
        blocks.append(Block(dim, out, heads, window, pool=first))
        dim = out
    return blocks


class Block(nn.Module):
    """A transformer block.

    Parameters
    ----------
    window : int
        Side of its windows in tokens, 0 for global attention.
    pool : bool
        Whether a stage begins: half the resolution, `out` channels.
    """

    def __init__(self, dim: int, out: int, heads: int, window: int, pool: bool) -> None:
        super().__init__()
        self.window, self.pool = window, pool
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = PooledAttention(dim, out, heads, pool)
        self.norm2 = nn.LayerNorm(out, eps=1e-6)
        self.mlp = Mlp((out, 4 * out, out), functional.gelu)
        self.proj = nn.Linear(dim, out) if dim != out else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) to the same, or (B, h / 2, w / 2, out) with pooling."""
        if fast_hiera.pays_by_window(self, x):
            return fast_hiera.by_window(self, x)
        y = self.norm1(x)
        x = self.shortcut(x, y) + self._attend(y)
        return residual(x, lambda tokens: self.mlp(self.norm2(tokens)))

    def shortcut(self, x: Tensor, y: Tensor) -> Tensor:
        """Return what the attention is added to, of the block's input and its norm."""
        if self.proj is None:
            return x
        projected = self.proj(y).to(x.dtype)  # in mixed precision it is bfloat16
        return halve(projected) if self.pool else projected

    def _attend(self, y: Tensor) -> Tensor:
        """(B, h, w, C) to (B, h', w', out), in windows that the grid is padded to."""
        if not self.window:
            out: Tensor = self.attn(y)
            return out
        height, width = y.shape[1:3]
        windows = self.attn(window_partition(y, self.window))  # (B x rows x columns, w', w', out)
        scale = 2 if self.pool else 1
        return window_unpartition(windows, (height // scale, width // scale))


class PooledAttention(nn.Module):
    """Self-attention on a grid; where a stage begins the queries are max-pooled to half the grid."""

    def __init__(self, dim: int, out: int, heads: int, pool: bool) -> None:
        super().__init__()
        self.heads, self.pool = heads, pool
        self.qkv = nn.Linear(dim, 3 * out)
        self.proj = nn.Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, C) to (n, h', w', out)."""
        q, k, v, shape = self.project(x)
        mixed = attend(q, k, v).transpose(1, 2)  # (n, h' w', heads, D)
        out: Tensor = self.proj(mixed.reshape(shape))
        return out

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, torch.Size]:
        """Return queries (n, heads, h' w', D), keys and values (n, heads, h w, D), and (n, h', w', out)."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # each (n, h, w, out)
        if self.pool:
            q = halve(q)
        heads = [split_heads(part.flatten(1, 2), self.heads) for part in (q, k, v)]
        return heads[0], heads[1], heads[2], q.shape


def halve(x: Tensor) -> Tensor:
    """(B, H, W, C) to (B, H / 2, W / 2, C) by the maximum."""
    return functional.max_pool2d(x.permute(0, 3, 1, 2), 2, 2).permute(0, 2, 3, 1)


class Neck(nn.Module):
    """1 x 1 convolutions to `d_model`; the stride-32 level is added into the stride-16 one.

    Parameters
    ----------
    embed_dim : int
        Channels at stride 4; each further level has twice as many.
    """

    def __init__(self, embed_dim: int, d_model: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Sequential() for _ in range(4))  # coarse to fine
        for level, conv in enumerate(self.convs):
            conv.add_module("conv", nn.Conv2d(embed_dim * 2 ** (3 - level), d_model, 1))

    def forward(self, stages: list[Tensor]) -> Levels:
        """Four (B, h, w, C) grids, fine to coarse, to three (B, d_model, h, w)."""
        s4, s8, s16, s32 = (conv(x.permute(0, 3, 1, 2)) for conv, x in zip(reversed(self.convs), stages))
        return s4, s8, s16 + functional.interpolate(s32, scale_factor=2.0, mode="nearest")
