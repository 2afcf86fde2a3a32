"""SAM 1's image encoder: a ViT with windowed and global attention and decomposed relative positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.layers import LayerNorm2d, Mlp, from_windows, to_windows
from napari_samexp.sam.posenc import offset_table, vit_map
from napari_samexp.sam.variants import Sam1Variant

__all__ = ["ImageEncoderViT"]


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
            _Block(variant, grid, 0 if i in variant.global_blocks else variant.window_size)
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
        x = self.patch_embed(pixels)
        x = x + self.position_map((x.shape[1], x.shape[2]))
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return out

    def position_map(self, grid_hw: tuple[int, int]) -> Tensor:
        """Return what is added to the patch tokens of a grid, (1, H, W, C)."""
        return vit_map(self.pos_embed, grid_hw)


class _PatchEmbed(nn.Module):
    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, patch, stride=patch)

    def forward(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.proj(pixels).permute(0, 2, 3, 1)
        return out


class _Block(nn.Module):
    def __init__(self, variant: Sam1Variant, grid: int, window: int) -> None:
        super().__init__()
        dim = variant.embed_dim
        self.window = window
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = _RelativeAttention(dim, variant.num_heads, window or grid)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp((dim, 4 * dim, dim), functional.gelu)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.window:
            # after the norm: padded tokens are zeros that still enter the attention through its bias
            y = from_windows(self.attn(to_windows(y, self.window)), (x.shape[1], x.shape[2]))
        else:
            y = self.attn(y)
        x = x + y
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class _RelativeAttention(nn.Module):
    """Self attention on a grid whose logits get a learned term for the row and column distance."""

    def __init__(self, dim: int, num_heads: int, side: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, dim // num_heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, dim // num_heads))

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        qkv = self.qkv(x).view(batch, height * width, 3, self.num_heads, -1)
        tables = _distances(self.rel_pos_h, height), _distances(self.rel_pos_w, width)
        # one head at a time: all heads' logits of a 64 x 64 grid together take a gigabyte
        heads = [self._one_head(qkv[..., i, :], tables) for i in range(self.num_heads)]
        out: Tensor = self.proj(torch.cat(heads, dim=-1).view(batch, height, width, -1))
        return out

    @staticmethod
    def _one_head(qkv: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        (q, k, v), (rows, columns) = qkv.unbind(2), tables
        grid = q.unflatten(1, (rows.shape[0], columns.shape[0]))
        bias_h = torch.einsum("bhwc,hkc->bhwk", grid, rows)
        bias_w = torch.einsum("bhwc,wkc->bhwk", grid, columns)
        bias = (bias_h[..., :, None] + bias_w[..., None, :]).flatten(3).flatten(1, 2)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _distances(table: Tensor, size: int) -> Tensor:
    """(2 s - 1, C) to (size, size, C): the entry for each query and key position, resized for other sizes."""
    index = torch.arange(size, device=table.device)
    return offset_table(table, size)[index[:, None] - index[None, :] + size - 1]
