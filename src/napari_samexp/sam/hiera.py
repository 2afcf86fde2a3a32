"""SAM 2's image encoder: the Hiera trunk and the feature pyramid neck."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.attention import attend
from napari_samexp.sam.layers import Mlp, from_windows, split_heads, to_windows
from napari_samexp.sam.posenc import hiera_map
from napari_samexp.sam.variants import Sam2Variant

__all__ = ["Hiera", "ImageEncoder"]


class ImageEncoder(nn.Module):
    """(B, 3, H, W) pixels to features at strides 4, 8 and 16, each with `d_model` channels.

    Source: `image_encoder.py` of sam2; its coarsest level only feeds the next finer one.
    """

    def __init__(self, variant: Sam2Variant) -> None:
        super().__init__()
        self.trunk = Hiera(variant)
        self.neck = _Neck(variant)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) to three (B, d_model, h, w), fine to coarse."""
        out: tuple[Tensor, Tensor, Tensor] = self.neck(self.trunk(pixels))
        return out

    def through(self, pixels: Tensor, then: Sequence[nn.Conv2d]) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `forward` does, the two finer levels after one more 1 x 1 convolution each."""
        return self.neck.through(self.trunk(pixels), then)


class Hiera(nn.Module):
    """The trunk: four stages, each at half the resolution and twice the channels of the one before."""

    def __init__(self, variant: Sam2Variant) -> None:
        super().__init__()
        dim, window = variant.embed_dim, variant.window_spec[0]
        self.patch_embed = _PatchEmbed(dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, dim, *variant.background_hw))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, dim, window, window))
        self.stage_ends = [end - 1 for end in accumulate(variant.stages)]
        self.blocks = nn.ModuleList(_blocks(variant, self.stage_ends))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to four (B, h, w, C) maps at strides 4, 8, 16 and 32."""
        x = self.patch_embed(pixels)
        x = x + self.position_map((x.shape[1], x.shape[2]))
        outputs = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.stage_ends:
                outputs.append(x)
        return outputs

    def position_map(self, grid_hw: tuple[int, int]) -> Tensor:
        """Return what is added to the patch tokens of a grid, (1, H, W, C)."""
        return hiera_map(self.pos_embed, self.pos_embed_window, grid_hw).permute(0, 2, 3, 1)


class _PatchEmbed(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 7, stride=4, padding=3)

    def forward(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.proj(pixels).permute(0, 2, 3, 1)
        return out


def _blocks(variant: Sam2Variant, stage_ends: list[int]) -> list[_Block]:
    blocks, dim, heads = [], variant.embed_dim, variant.num_heads
    for i in range(sum(variant.stages)):
        stage = sum(i > end for end in stage_ends)
        first = i - 1 in stage_ends
        # a stage's first block still works on the finer grid of the stage before, hence its window
        window = 0 if i in variant.global_blocks else variant.window_spec[stage - first]
        out = dim * 2 if first else dim
        heads = heads * 2 if first else heads
        blocks.append(_Block(dim, out, heads, window, pool=first))
        dim = out
    return blocks


class _Block(nn.Module):
    def __init__(self, dim: int, out: int, heads: int, window: int, pool: bool) -> None:
        super().__init__()
        self.window, self.pool = window, pool
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = _PooledAttention(dim, out, heads, pool)
        self.norm2 = nn.LayerNorm(out, eps=1e-6)
        self.mlp = Mlp((out, 4 * out, out), functional.gelu)
        self.proj = nn.Linear(dim, out) if dim != out else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.proj is not None:
            x = self.proj(y)
            x = _halve(x) if self.pool else x
        if self.window:
            # after the norm: padded tokens are zeros that still enter the attention through its bias
            y = from_windows(self.attn(to_windows(y, self.window)), (x.shape[1], x.shape[2]))
        else:
            y = self.attn(y)
        x = x + y
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class _PooledAttention(nn.Module):
    """Self attention on a grid; where a stage begins the queries are max-pooled to half the grid."""

    def __init__(self, dim: int, out: int, heads: int, pool: bool) -> None:
        super().__init__()
        self.heads, self.pool = heads, pool
        self.qkv = nn.Linear(dim, 3 * out)
        self.proj = nn.Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.pool:
            q = _halve(q)
        heads = [split_heads(part.flatten(1, 2), self.heads) for part in (q, k, v)]
        mixed = attend(heads[0], heads[1], heads[2])
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(*q.shape))
        return out


def _halve(x: Tensor) -> Tensor:
    """(B, H, W, C) to (B, H / 2, W / 2, C) by the maximum."""
    return functional.max_pool2d(x.permute(0, 3, 1, 2), 2, 2).permute(0, 2, 3, 1)


class _Neck(nn.Module):
    """1 x 1 convolutions to `d_model`; the stride-32 level is added into the stride-16 one."""

    def __init__(self, variant: Sam2Variant) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Sequential() for _ in range(4))
        for level, conv in enumerate(self.convs):
            conv.add_module("conv", nn.Conv2d(variant.embed_dim * 2 ** (3 - level), variant.d_model, 1))

    def forward(self, stages: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        s4, s8, s16, s32 = (conv(x.permute(0, 3, 1, 2)) for conv, x in zip(reversed(self.convs), stages))
        return s4, s8, s16 + functional.interpolate(s32, scale_factor=2.0, mode="nearest")

    def through(self, stages: list[Tensor], then: Sequence[nn.Conv2d]) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `forward` does, the two finer levels after one more 1 x 1 convolution each.

        Two such convolutions are one, of the product of their weights, which spares the wide map between.
        """
        s4, s8, s16, s32 = (x.permute(0, 3, 1, 2) for x in stages)
        convs = [cast(nn.Conv2d, part.conv) for part in self.convs]
        coarse = convs[1](s16) + functional.interpolate(convs[0](s32), scale_factor=2.0, mode="nearest")
        return _both(s4, convs[3], then[0]), _both(s8, convs[2], then[1]), coarse


def _both(x: Tensor, first: nn.Conv2d, second: nn.Conv2d) -> Tensor:
    """Two 1 x 1 convolutions of (B, C, H, W), one after the other."""
    assert first.bias is not None and second.bias is not None
    after = second.weight[:, :, 0, 0]
    weight = (after @ first.weight[:, :, 0, 0])[..., None, None]
    return functional.conv2d(x, weight, after @ first.bias + second.bias)
