"""SAM 2's memory: a frame and its mask become tokens, and later features look at them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.attention import attend, attend_to_memory
from napari_samexp.sam.layers import Attention, LayerNorm2d
from napari_samexp.sam.posenc import axial_rope, rotate, sine_map
from napari_samexp.sam.variants import Sam2Variant

__all__ = ["MemoryAttention", "MemoryEncoder"]

GridHW = tuple[int, int]


class MemoryEncoder(nn.Module):
    """Source: `memory_encoder.py` of sam2."""

    def __init__(self, variant: Sam2Variant) -> None:
        super().__init__()
        dim = variant.d_model
        self.mask_downsampler = _MaskDownSampler(dim)
        self.pix_feat_proj = nn.Conv2d(dim, dim, 1)
        self.fuser = _Fuser(dim)
        self.out_proj = nn.Conv2d(dim, variant.mem_dim, 1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(N or 1, D, h, w) features and (N, 1, 16 h, 16 w) scaled masks to (N, mem_dim, h, w)."""
        x = self.pix_feat_proj(features) + self.mask_downsampler(mask)
        out: Tensor = self.out_proj(self.fuser(x))
        return out


class _MaskDownSampler(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for i in range(4):
            parts += [
                nn.Conv2d(4**i, 4 ** (i + 1), 3, stride=2, padding=1),
                LayerNorm2d(4 ** (i + 1)),
                nn.GELU(),
            ]
        self.encoder = nn.Sequential(*parts, nn.Conv2d(4**4, dim, 1))

    def forward(self, mask: Tensor) -> Tensor:
        out: Tensor = self.encoder(mask)
        return out


class _Fuser(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_ConvNextBlock(dim) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class _ConvNextBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(functional.gelu(self.pwconv1(y)))
        out: Tensor = x + y.permute(0, 3, 1, 2)
        return out


class MemoryAttention(nn.Module):
    """Source: `memory_attention.py` of sam2."""

    def __init__(self, variant: Sam2Variant) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_MemoryLayer(variant) for _ in range(variant.mem_layers))
        self.norm = nn.LayerNorm(variant.d_model)

    def forward(self, features: Tensor, memory: Tensor, memory_pos: Tensor, grids: list[GridHW]) -> Tensor:
        """Let features look at memory.

        Parameters
        ----------
        features : Tensor, shape (N or 1, D, h, w)
        memory, memory_pos : Tensor, shape (N, L, mem_dim)
            Spatial tokens of one memory after the other, then pointer tokens.
        grids : list of (h, w)
            The grid of each spatial memory; tokens beyond their sum are pointers and have no place.

        Returns
        -------
        Tensor, shape (N, D, h, w)
        """
        grid_hw = (features.shape[2], features.shape[3])
        placed = features + 0.1 * sine_map(features.shape[1], grid_hw, features.device, features.dtype)
        x = placed.flatten(2).transpose(1, 2).expand(len(memory), -1, -1)
        keys = memory + memory_pos
        for layer in self.layers:
            x = layer(x, keys, memory, grid_hw, grids)
        out: Tensor = self.norm(x).transpose(1, 2).unflatten(2, grid_hw)
        return out


class _MemoryLayer(nn.Module):
    def __init__(self, variant: Sam2Variant) -> None:
        super().__init__()
        dim = variant.d_model
        self.self_attn = _RotaryAttention(dim, 1)
        self.cross_attn_image = _RotaryAttention(dim, 1, source=variant.mem_dim)
        self.linear1 = nn.Linear(dim, variant.mem_ff)
        self.linear2 = nn.Linear(variant.mem_ff, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self, x: Tensor, keys: Tensor, memory: Tensor, grid_hw: GridHW, grids: list[GridHW]
    ) -> Tensor:
        y = self.norm1(x)
        x = x + self.self_attn.on_grid(y, grid_hw)
        x = x + self.cross_attn_image.on_memory(self.norm2(x), keys, memory, grid_hw, grids)
        out: Tensor = x + self.linear2(functional.relu(self.linear1(self.norm3(x))))
        return out


class _RotaryAttention(Attention):
    """Queries and keys are turned by their places."""

    def on_grid(self, x: Tensor, grid_hw: GridHW) -> Tensor:
        """Let tokens (N, h w, C) of one grid look at each other."""
        rope = axial_rope(self.q_proj.out_features, grid_hw, x.device)
        q, k = rotate(self.q_proj(x), rope), rotate(self.k_proj(x), rope)
        out: Tensor = self.out_proj(attend(q[:, None], k[:, None], self.v_proj(x)[:, None])[:, 0])
        return out

    def on_memory(self, q: Tensor, k: Tensor, memory: Tensor, grid_hw: GridHW, grids: list[GridHW]) -> Tensor:
        """Let tokens (N, h w, C) look at memory (N, L, S) through its keys, whose places are on `grids`."""
        q, k = self.q_proj(q), self.k_proj(k)
        dim, device = q.shape[-1], q.device
        q = rotate(q, axial_rope(dim, grid_hw, device))
        ropes = [axial_rope(dim, grid, device) for grid in grids]
        spatial = sum(h * w for h, w in grids)
        cos, sin = (torch.cat(tables) for tables in zip(*ropes))
        k = torch.cat((rotate(k[:, :spatial], (cos, sin)), k[:, spatial:]), dim=1)
        out: Tensor = self.out_proj(attend_to_memory(q, k, memory, self.v_proj))
        return out
