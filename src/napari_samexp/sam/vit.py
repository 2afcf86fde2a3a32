"""SAM 1's image encoder: a ViT with windowed and global attention and decomposed relative positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam import fast
from napari_samexp.sam.fast import vit as fast_vit
from napari_samexp.sam.layers import LayerNorm2d, Mlp, window_partition, window_unpartition
from napari_samexp.sam.position_encoding import offset_table, vit_map
from napari_samexp.sam.variants import Sam1Variant

__all__ = ["Block", "ImageEncoderViT", "RelativeAttention"]


class ImageEncoderViT(nn.Module):
    """(B, 3, H, W) pixels to (B, d_model, H / 16, W / 16) features.

    Source: `image_encoder.py` of segment-anything; grids other than the native one are ours.
    """

    def __init__(self, variant: Sam1Variant) -> None:
        super().__init__()
        grid = variant.image_size // variant.patch
        self.patch_embed = _PatchEmbed(variant.embed_dim, variant.patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, variant.embed_dim))
        self.blocks = nn.ModuleList(
            Block(variant, grid, 0 if i in variant.global_blocks else variant.window_size)
            for i in range(variant.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(variant.embed_dim, variant.d_model, 1, bias=False),
            LayerNorm2d(variant.d_model),
            nn.Conv2d(variant.d_model, variant.d_model, 3, padding=1, bias=False),
            LayerNorm2d(variant.d_model),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, d_model, H / 16, W / 16)."""
        x = self.patch_embed(pixels)  # (B, h, w, C)
        x = x + self.position_map((x.shape[1], x.shape[2]))
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.neck(x.permute(0, 3, 1, 2))  # (B, d_model, h, w)
        return out

    def position_map(self, grid_hw: tuple[int, int]) -> Tensor:
        """Return what is added to the patch tokens of a grid, (1, h, w, C)."""
        return vit_map(self.pos_embed, grid_hw)


class _PatchEmbed(nn.Module):
    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, patch, stride=patch)

    def forward(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.proj(pixels).permute(0, 2, 3, 1)  # (B, h, w, C)
        return out


class Block(nn.Module):
    """A transformer block; `window` is the side of its windows in tokens, 0 for global attention."""

    def __init__(self, variant: Sam1Variant, grid: int, window: int) -> None:
        super().__init__()
        dim = variant.embed_dim
        self.window = window
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = RelativeAttention(dim, variant.num_heads, window or grid)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp((dim, 4 * dim, dim), functional.gelu)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) to the same."""
        if fast.is_enabled():
            return fast_vit.block(self, x)
        y = self.norm1(x)
        if self.window:
            windows = self.attn(window_partition(y, self.window))  # (B x rows x columns, window, window, C)
            y = window_unpartition(windows, (x.shape[1], x.shape[2]))
        else:
            y = self.attn(y)
        x = x + y
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class RelativeAttention(nn.Module):
    """Self-attention on a grid whose logits get a learned term for the distance in rows and in columns."""

    def __init__(self, dim: int, num_heads: int, side: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, dim // num_heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, dim // num_heads))

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, C) to the same."""
        height, width = x.shape[1:3]
        qkv = self.qkv(x).flatten(1, 2).unflatten(-1, (3, self.num_heads, -1))  # (n, h w, 3, heads, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (n, heads, h w, D)
        rows, columns = self.distances(height, width)
        grid = q.unflatten(2, (height, width))  # (n, heads, h, w, D)
        down = torch.einsum("nahwc,hkc->nahwk", grid, rows.to(q.dtype))  # (n, heads, h, w, h)
        right = torch.einsum("nahwc,wkc->nahwk", grid, columns.to(q.dtype))  # (n, heads, h, w, w)
        bias = (down[..., :, None] + right[..., None, :]).flatten(4).flatten(2, 3)  # (n, heads, h w, h w)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(*x.shape))
        return out

    def distances(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the terms of rows (h, h, D) and of columns (w, w, D), by query and key position."""
        return _distances(self.rel_pos_h, height), _distances(self.rel_pos_w, width)


def _distances(table: Tensor, size: int) -> Tensor:
    """(2 s - 1, D) to (size, size, D): the entry for each query and key position, resized for other sizes."""
    index = torch.arange(size, device=table.device)
    return offset_table(table, size)[index[:, None] - index[None, :] + size - 1]
