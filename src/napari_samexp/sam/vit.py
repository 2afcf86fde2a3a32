"""SAM 1's image encoder: a ViT with windowed and global attention and decomposed relative positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.fast.attention import attend_on_grid
from napari_samexp.sam.layers import LayerNorm2d, Mlp, add_in_chunks, in_windows
from napari_samexp.sam.position_encoding import offset_table, vit_map
from napari_samexp.sam.variants import Sam1Variant

__all__ = ["ImageEncoderViT"]

SMALL = 256  # tokens of a window


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
        return in_windows(self._inside, x, self.window) if self.window else self._inside(x, 0)

    def _inside(self, x: Tensor, absent: int) -> Tensor:
        """Take whole windows (n, h, w, C) through the block, each padded with `absent` tokens."""
        x = x + self.attn(self.attn.qkv(self.norm1(x)), self.window if absent else 0)
        return add_in_chunks(x, lambda part: self.mlp(self.norm2(part)))


class _RelativeAttention(nn.Module):
    """Self attention on a grid whose logits get a learned term for the row and column distance."""

    def __init__(self, dim: int, num_heads: int, side: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, dim // num_heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, dim // num_heads))

    def forward(self, qkv: Tensor, window: int) -> Tensor:
        """(n, h, w, 3 C) queries, keys and values to (n, h, w, C); keys are padded to a window unless it is 0."""
        q, kv = qkv.tensor_split([qkv.shape[-1] // 3], dim=-1)
        if window:
            # windows are padded after the norm: with zeros that still enter the attention through its bias
            padded = self.qkv.bias[q.shape[-1] :].expand(len(kv), window, window, -1).clone()
            padded[:, : kv.shape[1], : kv.shape[2]] = kv
            kv = padded
        rows = _distances(self.rel_pos_h, kv.shape[1])[: q.shape[1]]
        columns = _distances(self.rel_pos_w, kv.shape[2])[: q.shape[2]]
        rows, columns = rows.to(q.dtype), columns.to(q.dtype)
        q = q.unflatten(-1, (self.num_heads, -1)).permute(0, 3, 1, 2, 4)
        k, v = kv.flatten(1, 2).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        # one head at a time where windows are large: all heads' logits of a 64 x 64 grid take a gigabyte
        step = self.num_heads if k.shape[2] <= SMALL else 1
        parts = [
            _attend(*some, rows, columns)
            for some in zip(q.split(step, 1), k.split(step, 1), v.split(step, 1))
        ]
        mixed = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(*qkv.shape[:3], -1))
        return out


def _attend(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(n, heads, h, w, D), twice (n, heads, H W, D), (h, H, D), (w, W, D) to (n, heads, h w, D)."""
    down = torch.einsum("nahwc,hkc->nahwk", q, rows).flatten(2, 3)
    right = torch.einsum("nahwc,wkc->nahwk", q, columns).flatten(2, 3)
    return attend_on_grid(q.flatten(2, 3), k, v, down, right)


def _distances(table: Tensor, size: int) -> Tensor:
    """(2 s - 1, C) to (size, size, C): the entry for each query and key position, resized for other sizes."""
    index = torch.arange(size, device=table.device)
    return offset_table(table, size)[index[:, None] - index[None, :] + size - 1]
