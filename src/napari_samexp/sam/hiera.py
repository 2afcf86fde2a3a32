"""SAM 2's image encoder: the Hiera trunk and the feature pyramid neck."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.fast.attention import attend
from napari_samexp.sam.fast.folding import Kept, Kernel, on_pixels
from napari_samexp.sam.layers import Mlp, add_in_chunks, in_windows, is_chunked, split_heads
from napari_samexp.sam.position_encoding import hiera_map
from napari_samexp.sam.variants import Sam2Variant

__all__ = ["Hiera", "ImageEncoder", "Neck"]

Layer = Callable[[Tensor], Tensor]
FIRST = 2048  # patch tokens that go through the first blocks at a time


class ImageEncoder(nn.Module):
    """(B, 3, H, W) pixels to features at strides 4, 8 and 16, each with `d_model` channels.

    Source: `image_encoder.py` of sam2; its coarsest level only feeds the next finer one.
    """

    def __init__(self, variant: Sam2Variant) -> None:
        super().__init__()
        self.trunk = Hiera(variant)
        self.neck = Neck(variant.embed_dim, variant.d_model)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) to three (B, d_model, h, w), fine to coarse."""
        out: tuple[Tensor, Tensor, Tensor] = self.neck(self.trunk(pixels))
        return out

    def through(self, pixels: Tensor, then: Sequence[nn.Conv2d]) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `forward` does, the two finer levels after one more 1 x 1 convolution each."""
        return together(self.trunk(pixels, self.neck.levels(then)))


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
        self._map: Kept[Tensor] = Kept()

    def forward(self, pixels: Tensor, finish: Sequence[Layer] = ()) -> list[Tensor]:
        """Return the stages' outputs.

        Parameters
        ----------
        pixels : Tensor, shape (B, 3, H, W)
        finish : four callables, optional
            What becomes of each stage's output (..., C), token by token.

        Returns
        -------
        list of Tensor, four of shape (B, h, w, C), at strides 4, 8, 16 and 32
        """
        finish = finish or [nn.Identity()] * len(self.stage_ends)
        patches = self.patch_embed(pixels)
        grid_hw = (patches.shape[1], patches.shape[2])
        place = self._position_of(grid_hw)
        window, count = nested(self.blocks)
        if count and not any(size % window for size in grid_hw):
            x, outputs = self._first_blocks(patches, place, finish)
        else:
            x, outputs, count = patches + place, [], 0
        for i, block in list(enumerate(self.blocks))[count:]:
            x = block(x)
            if i in self.stage_ends:
                outputs.append(finish[len(outputs)](x))
        return outputs

    def _first_blocks(
        self, patches: Tensor, place: Tensor, finish: Sequence[Layer]
    ) -> tuple[Tensor, list[Tensor]]:
        """Take patch tokens (B, H, W, C) through the `nested` blocks.

        On a CPU some rows of windows go through all of them at a time, so that what lies between stays in
        the processor's cache. Returns what the last one makes of it and what `finish` makes of the stages.
        """
        window, count = nested(self.blocks)
        columns = patches.shape[2] // window
        step = (
            max(1, FIRST // (window * patches.shape[2]))
            if is_chunked(patches)
            else patches.shape[1] // window
        )
        batches = []
        for some in patches.split(1) if is_chunked(patches) else [patches]:
            bands = []
            for rows, at in zip(_cells(some, window).split(step, 1), _cells(place, window).split(step, 1)):
                x = (rows.contiguous() + at).flatten(0, 2)
                outputs: list[Tensor] = []
                for i in range(count):
                    x = cast(_Block, self.blocks[i]).inside(x, 0)
                    if i in self.stage_ends:
                        outputs.append(finish[len(outputs)](x))
                bands.append([_from_cells(part, len(some), columns) for part in (x, *outputs)])
            batches.append([_joined(parts, 1) for parts in zip(*bands)])
        first, *finished = (_joined(parts, 0) for parts in zip(*batches))
        return first, list(finished)

    def _position_of(self, grid_hw: tuple[int, int]) -> Tensor:
        """`position_map`, kept for the grid that was used last unless it is being trained."""
        tables: list[Tensor] = [self.pos_embed, self.pos_embed_window]
        if torch.is_grad_enabled() and any(table.requires_grad for table in tables):
            return self.position_map(grid_hw)
        return self._map.of(tables, lambda: self.position_map(grid_hw).contiguous(), grid_hw)

    def position_map(self, grid_hw: tuple[int, int]) -> Tensor:
        """Return what is added to the patch tokens of a grid, (1, H, W, C)."""
        return hiera_map(self.pos_embed, self.pos_embed_window, grid_hw).permute(0, 2, 3, 1)


def nested(blocks: Iterable[nn.Module]) -> tuple[int, int]:
    """Return the first block's window, and how many blocks from there on never look beyond it.

    A window of 8 that was pooled to 4 is a window of the next stage, and so on.
    """
    ahead = cast(list[_Block], list(blocks))
    unit, count = ahead[0].window, 0
    for block in ahead:
        if not unit or block.window != unit or (block.pool and unit % 2):
            break
        unit, count = unit // 2 if block.pool else unit, count + 1
    return ahead[0].window, count


def _cells(x: Tensor, window: int) -> Tensor:
    """View (B, H, W, C) as windows, (B, rows, columns, window, window, C)."""
    cells: Tensor = x.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3)
    return cells


def _from_cells(x: Tensor, batch: int, columns: int) -> Tensor:
    """Put windows (B x rows x columns, h, w, C) together, (B, H, W, C)."""
    grid: Tensor = x.unflatten(0, (batch, -1, columns)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return grid


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


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
        if not self.window:
            return self.inside(x, 0)
        if x.device.type == "cpu" or not any(size % self.window for size in x.shape[1:3]):
            return in_windows(self.inside, x, self.window)
        return self.padded(x)

    def inside(self, x: Tensor, absent: int) -> Tensor:
        """Take whole windows (n, h, w, C) through the block, each padded with `absent` tokens."""
        return self._through(x, lambda y: self.attn(self.attn.qkv(y), absent))

    def padded(self, x: Tensor) -> Tensor:
        """Take a grid (B, H, W, C) through the block, the last windows of its rows and columns filled up.

        That is more to compute than windows of four sizes, but a third of the launches, for which a GPU waits.
        """
        height, width = x.shape[1:3]
        edge = (0, 0, 0, -width % self.window, 0, -height % self.window)

        def mix(y: Tensor) -> Tensor:
            whole = functional.pad(y, edge)
            mixed = in_windows(lambda part, _: self.attn(self.attn.qkv(part), 0), whole, self.window)
            return mixed[:, : height // (1 + self.pool), : width // (1 + self.pool)]

        return self._through(x, mix)

    def _through(self, x: Tensor, mix: Layer) -> Tensor:
        y = self.norm1(x)
        if self.proj is None:
            x = x + mix(y)
        else:
            shortcut = self.proj(y).to(x.dtype)  # the layers may multiply in a shorter type
            x = (_halve(shortcut) if self.pool else shortcut) + mix(y)
        return add_in_chunks(x, lambda part: self.mlp(self.norm2(part)))


class _PooledAttention(nn.Module):
    """Self attention on a grid; where a stage begins the queries are max-pooled to half the grid."""

    def __init__(self, dim: int, out: int, heads: int, pool: bool) -> None:
        super().__init__()
        self.heads, self.pool = heads, pool
        self.qkv = nn.Linear(dim, 3 * out)
        self.proj = nn.Linear(out, out)

    def forward(self, qkv: Tensor, absent: int) -> Tensor:
        """(n, h, w, 3 x out) queries, keys and values to (n, h', w', out)."""
        q, k, v = qkv.chunk(3, dim=-1)
        if self.pool:
            q = _halve(q)
        heads = [split_heads(part.flatten(1, 2), self.heads) for part in (q, k, v)]
        if absent:
            # windows are padded after the norm: with zeros that still enter the attention through its bias
            _, *bias = self.qkv.bias.to(qkv.dtype).view(3, 1, self.heads, 1, -1)
            heads[1:] = [
                torch.cat((part, at.expand(len(part), -1, absent, -1)), 2)
                for part, at in zip(heads[1:], bias)
            ]
        mixed = attend(heads[0], heads[1], heads[2])
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(*q.shape))
        return out


def _halve(x: Tensor) -> Tensor:
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
        self.convs = nn.ModuleList(nn.Sequential() for _ in range(4))
        for level, conv in enumerate(self.convs):
            conv.add_module("conv", nn.Conv2d(embed_dim * 2 ** (3 - level), d_model, 1))

    def forward(self, stages: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Four (B, h, w, C) maps, fine to coarse, to three (B, d_model, h, w)."""
        s4, s8, s16, s32 = (conv(x.permute(0, 3, 1, 2)) for conv, x in zip(reversed(self.convs), stages))
        return s4, s8, s16 + functional.interpolate(s32, scale_factor=2.0, mode="nearest")

    def through(self, stages: list[Tensor], then: Sequence[nn.Conv2d]) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `forward` does, the two finer levels after one more 1 x 1 convolution each."""
        return together([level(x) for level, x in zip(self.levels(then), stages)])

    def levels(self, then: Sequence[nn.Conv2d]) -> list[Layer]:
        """Return the convolutions of the four levels, fine to coarse, on (..., C) tokens.

        Two 1 x 1 convolutions are one, of the product of their weights, which spares the wide map between.
        """
        convs = [cast(nn.Conv2d, part.conv) for part in self.convs]
        pairs = [*zip((convs[3], convs[2]), then), (convs[1], None), (convs[0], None)]
        return [partial(on_pixels, kernel=_product(first, second)) for first, second in pairs]


def together(levels: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Add the coarsest of four (B, h, w, C) levels into the next finer one: three (B, C, h, w)."""
    s4, s8, s16, s32 = (level.permute(0, 3, 1, 2) for level in levels)
    return s4, s8, s16 + functional.interpolate(s32, scale_factor=2.0, mode="nearest")


def _product(first: nn.Conv2d, second: nn.Conv2d | None) -> Kernel:
    """Return the weight (out, in, 1, 1) and bias of 1 x 1 convolutions, one after the other."""
    assert first.bias is not None
    if second is None:
        return first.weight, first.bias
    assert second.bias is not None
    after = second.weight[:, :, 0, 0]
    return (after @ first.weight[:, :, 0, 0])[..., None, None], after @ first.bias + second.bias
