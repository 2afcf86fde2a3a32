"""SAM 2's memory: a frame and its mask become tokens, and the features of later frames attend to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.fast import is_enabled, on_cpu
from napari_samexp.sam.fast import memory as fast_memory
from napari_samexp.sam.fast.attention import attend, attend_to_memory
from napari_samexp.sam.layers import Attention, LayerNorm2d, residual
from napari_samexp.sam.position_encoding import Rope, axial_rope, rotate, sine_map
from napari_samexp.sam.variants import MemoryVariant

__all__ = ["MemoryAttention", "MemoryEncoder", "MemoryLayer", "RotaryAttention"]

GridHW = tuple[int, int]


class MemoryEncoder(nn.Module):
    """Image features and a mask to a spatial memory. Source: `memory_encoder.py` of sam2."""

    def __init__(self, variant: MemoryVariant) -> None:
        super().__init__()
        dim = variant.d_model
        self.mask_downsampler = _MaskDownSampler(dim)  # to stride 16
        self.pix_feat_proj = nn.Conv2d(dim, dim, 1)
        self.fuser = _Fuser(dim)  # two ConvNeXt blocks
        self.out_proj = nn.Conv2d(dim, variant.mem_dim, 1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(N or 1, D, h, w) features and (N, 1, 16 h, 16 w) scaled masks to (N, mem_dim, h, w)."""
        x = self.pix_feat_proj(features) + self.mask_downsampler(mask)  # (N, D, h, w)
        out: Tensor = self.out_proj(self.fuser(x))  # (N, mem_dim, h, w)
        return out


class _MaskDownSampler(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for i in range(4):  # each halves the mask and has four times the channels
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
        y = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)  # (N, h, w, C)
        y = self.gamma * self.pwconv2(functional.gelu(self.pwconv1(y)))
        out: Tensor = x + y.permute(0, 3, 1, 2)
        return out


class MemoryAttention(nn.Module):
    """Image features attend to themselves and to memory tokens, layer by layer.

    Source: `memory_attention.py` of sam2.

    Parameters
    ----------
    cross : callable, optional
        Makes a layer's cross-attention to memory; by default that of SAM 2.
    """

    def __init__(self, variant: MemoryVariant, cross: Callable[[], RotaryAttention] | None = None) -> None:
        super().__init__()
        cross = cross or partial(RotaryAttention, variant.d_model, 1, source=variant.mem_dim)
        self.layers = nn.ModuleList(MemoryLayer(variant, cross()) for _ in range(variant.mem_layers))
        self.norm = nn.LayerNorm(variant.d_model)

    def forward(
        self,
        features: Tensor,
        memory: Tensor,
        memory_pos: Tensor,
        grids: list[GridHW],
        started: Tensor | None = None,
    ) -> Tensor:
        """Condition features on memory.

        Parameters
        ----------
        features : Tensor, shape (N or 1, D, h, w)
        memory, memory_pos : Tensor, shape (N, L, mem_dim)
            Spatial tokens of one memory after the other, then pointer tokens.
        grids : list of (h, w)
            The grid of each spatial memory; tokens beyond their sum are pointers, which are not rotated.
        started : Tensor, optional
            What `start` returned for the features, where it is needed more than once.

        Returns
        -------
        Tensor, shape (N, D, h, w)
        """
        grid_hw = (features.shape[2], features.shape[3])
        x = self.start(features) if started is None else started  # (N or 1, h w, D)
        run = partial(self._run_layers, grid_hw=grid_hw, grids=grids)
        keys = memory + memory_pos  # (N, L, mem_dim)
        x = fast_memory.one_by_one(run, x, keys, memory) if on_cpu(x) else run(x, keys, memory)
        out: Tensor = self.norm(x).transpose(1, 2).unflatten(2, grid_hw)  # (N, D, h, w)
        return out

    def start(self, features: Tensor) -> Tensor:
        """Return features (N or 1, D, h, w) after the first layer's self-attention, (N or 1, h w, D).

        It comes before any attention to memory, so it is the same for all objects of a frame.
        """
        grid_hw = (features.shape[2], features.shape[3])
        encoding = sine_map(features.shape[1], grid_hw, features.device, features.dtype)
        tokens = (features + 0.1 * encoding).flatten(2).transpose(1, 2).contiguous()  # (N or 1, h w, D)
        return cast(MemoryLayer, self.layers[0]).attend_to_self(tokens, grid_hw)

    def _run_layers(
        self, x: Tensor, keys: Tensor, memory: Tensor, grid_hw: GridHW, grids: list[GridHW]
    ) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x, keys, memory, grid_hw, grids, started=i == 0)
        return x


class MemoryLayer(nn.Module):
    """Self-attention, cross-attention to memory, and an MLP."""

    def __init__(self, variant: MemoryVariant, cross: RotaryAttention) -> None:
        super().__init__()
        dim = variant.d_model
        self.self_attn = RotaryAttention(dim, 1)
        self.cross_attn_image = cross
        self.linear1 = nn.Linear(dim, variant.mem_ff)
        self.linear2 = nn.Linear(variant.mem_ff, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def attend_to_self(self, x: Tensor, grid_hw: GridHW) -> Tensor:
        """Return tokens (N or 1, h w, C) plus their self-attention."""
        return x + self.self_attn.attend_to_self(self.norm1(x), grid_hw)

    def forward(
        self,
        x: Tensor,
        keys: Tensor,
        memory: Tensor,
        grid_hw: GridHW,
        grids: list[GridHW],
        started: bool = False,
    ) -> Tensor:
        """Take tokens (N or 1, h w, C) and memory (N, L, S) to tokens (N, h w, C).

        With `started` the tokens come from `MemoryAttention.start`, and the self-attention is done.
        """
        x = x if started else self.attend_to_self(x, grid_hw)
        x = x + self.cross_attn_image.attend_to_memory(self.norm2(x), keys, memory, grid_hw, grids)
        return residual(x, lambda tokens: self._mlp(self.norm3(tokens)))

    def _mlp(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear2(functional.relu(self.linear1(x), inplace=True))
        return out


class RotaryAttention(Attention):
    """Attention whose queries and keys are rotated by their positions (RoPE)."""

    low_precision = False  # whether products with memories round to bfloat16; see `fast.mixed_precision`

    def attend_to_self(self, x: Tensor, grid_hw: GridHW) -> Tensor:
        """Return the self-attention of the tokens of one grid, (N, h w, C) to the same."""
        rope = axial_rope(self.q_proj.out_features, grid_hw, x.device)
        q, k = rotate(self.q_proj(x), rope), rotate(self.k_proj(x), rope)
        mixed = attend(q[:, None], k[:, None], self.v_proj(x)[:, None])[:, 0]  # one head
        out: Tensor = self.out_proj(mixed)
        return out

    def attend_to_memory(
        self, x: Tensor, keys: Tensor, memory: Tensor, grid_hw: GridHW, grids: list[GridHW]
    ) -> Tensor:
        """Return the attention of tokens (N or 1, h w, C) to memory (N, L, S) by its keys: (N, h w, C)."""
        q = rotate(self.q_proj(x), self.frame_rope(grid_hw, x.device))  # (N or 1, h w, C)
        k = self.rotated_keys(keys, grids)  # (N, L, C)
        out: Tensor = self.out_proj(attend_to_memory(q, k, memory, self.v_proj, self.low_precision))
        return out

    def rotated_keys(self, k: Tensor, grids: list[GridHW]) -> Tensor:
        """Return the keys (N, L, C) of memory tokens (N, L, S), each spatial memory rotated by its grid."""
        k = self.k_proj(k)
        by_grid = {grid: self.memory_rope(grid, k.device) for grid in dict.fromkeys(grids)}
        ropes = [by_grid[grid] for grid in grids]
        if is_enabled():
            return fast_memory.rotated(k, ropes)
        lengths = [len(cos) for cos, _ in ropes]
        # one memory after the other, then the pointers, which have no position
        *spatial, pointers = k.split([*lengths, k.shape[1] - sum(lengths)], dim=1)
        return torch.cat([*(rotate(part, rope) for part, rope in zip(spatial, ropes)), pointers], dim=1)

    def frame_rope(self, grid_hw: GridHW, device: torch.device) -> Rope:
        """Return the rotary encoding of a frame's queries; see `axial_rope`."""
        return axial_rope(self.q_proj.out_features, grid_hw, device)

    def memory_rope(self, grid_hw: GridHW, device: torch.device) -> Rope:
        """Return the rotary encoding of the keys of one memory; see `axial_rope`."""
        return axial_rope(self.q_proj.out_features, grid_hw, device)
