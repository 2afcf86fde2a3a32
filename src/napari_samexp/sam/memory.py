"""SAM 2's memory: a frame and its mask become tokens, and later features look at them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.fast.attention import attend, attend_to_memory
from napari_samexp.sam.layers import Attention, LayerNorm2d, add_in_chunks, is_chunked
from napari_samexp.sam.position_encoding import Rope, axial_rope, rotate, rotate_, sine_map
from napari_samexp.sam.variants import MemoryVariant

__all__ = ["MemoryAttention", "MemoryEncoder", "RotaryAttention"]

GridHW = tuple[int, int]


class MemoryEncoder(nn.Module):
    """Source: `memory_encoder.py` of sam2."""

    def __init__(self, variant: MemoryVariant) -> None:
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
    """Source: `memory_attention.py` of sam2.

    Parameters
    ----------
    cross : callable, optional
        Makes a layer's attention to memories; by default that of SAM 2.
    """

    def __init__(self, variant: MemoryVariant, cross: Callable[[], RotaryAttention] | None = None) -> None:
        super().__init__()
        cross = cross or partial(RotaryAttention, variant.d_model, 1, source=variant.mem_dim)
        self.layers = nn.ModuleList(_MemoryLayer(variant, cross()) for _ in range(variant.mem_layers))
        self.norm = nn.LayerNorm(variant.d_model)

    def forward(
        self,
        features: Tensor,
        memory: Tensor,
        memory_pos: Tensor,
        grids: list[GridHW],
        started: Tensor | None = None,
    ) -> Tensor:
        """Let features look at memory.

        Parameters
        ----------
        features : Tensor, shape (N or 1, D, h, w)
        memory, memory_pos : Tensor, shape (N, L, mem_dim)
            Spatial tokens of one memory after the other, then pointer tokens.
        grids : list of (h, w)
            The grid of each spatial memory; tokens beyond their sum are pointers and have no place.
        started : Tensor, optional
            What `start` returned of the features, where it is needed more than once.

        Returns
        -------
        Tensor, shape (N, D, h, w)
        """
        grid_hw = (features.shape[2], features.shape[3])
        x = self.start(features) if started is None else started
        keys = memory + memory_pos
        if (
            is_chunked(x) and len(memory) > 1
        ):  # one object after the other: keys take 4 times a memory's place
            each = zip(x.expand(len(memory), -1, -1).split(1), keys.split(1), memory.split(1))
            x = torch.cat([self._recalled(*one, grid_hw, grids) for one in each])
        else:
            x = self._recalled(x, keys, memory, grid_hw, grids)
        out: Tensor = self.norm(x).transpose(1, 2).unflatten(2, grid_hw)
        return out

    def start(self, features: Tensor) -> Tensor:
        """Return what features (N or 1, D, h, w) are before they look at any memory, (N or 1, h w, D).

        It is the same for all objects of a frame.
        """
        grid_hw = (features.shape[2], features.shape[3])
        placed = features + 0.1 * sine_map(features.shape[1], grid_hw, features.device, features.dtype)
        tokens = placed.flatten(2).transpose(1, 2).contiguous()
        return cast(_MemoryLayer, self.layers[0]).attend_within(tokens, grid_hw)

    def _recalled(
        self, x: Tensor, keys: Tensor, memory: Tensor, grid_hw: GridHW, grids: list[GridHW]
    ) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x, keys, memory, grid_hw, grids, looked=i == 0)
        return x


class _MemoryLayer(nn.Module):
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

    def attend_within(self, x: Tensor, grid_hw: GridHW) -> Tensor:
        """Let tokens (N or 1, h w, C) look at each other."""
        return x + self.self_attn.on_grid(self.norm1(x), grid_hw)

    def forward(
        self,
        x: Tensor,
        keys: Tensor,
        memory: Tensor,
        grid_hw: GridHW,
        grids: list[GridHW],
        looked: bool = False,
    ) -> Tensor:
        """Let tokens (N or 1, h w, C) look at each other, unless they have, and at memory (N, L, S): (N, h w, C)."""
        x = x if looked else self.attend_within(x, grid_hw)
        x = x + self.cross_attn_image.on_memory(self.norm2(x), keys, memory, grid_hw, grids)
        return add_in_chunks(x, lambda part: self._fed_forward(self.norm3(part)))

    def _fed_forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear2(functional.relu(self.linear1(x), inplace=True))
        return out


class RotaryAttention(Attention):
    """Queries and keys are turned by their places."""

    short = False  # whether looking at memory rounds what it multiplies; see `mixed.mix`

    def on_grid(self, x: Tensor, grid_hw: GridHW) -> Tensor:
        """Let tokens (N, h w, C) of one grid look at each other."""
        rope = axial_rope(self.q_proj.out_features, grid_hw, x.device)
        q, k = rotate(self.q_proj(x), rope), rotate(self.k_proj(x), rope)
        out: Tensor = self.out_proj(attend(q[:, None], k[:, None], self.v_proj(x)[:, None])[:, 0])
        return out

    def on_memory(self, q: Tensor, k: Tensor, memory: Tensor, grid_hw: GridHW, grids: list[GridHW]) -> Tensor:
        """Let tokens (N, h w, C) look at memory (N, L, S) through its keys, whose places are on `grids`."""
        q = rotate(self.q_proj(q), self.rope_of_frame(grid_hw, q.device))
        k = self.rotated_keys(k, grids)
        out: Tensor = self.out_proj(attend_to_memory(q, k, memory, self.v_proj, self.short))
        return out

    def rotated_keys(self, k: Tensor, grids: list[GridHW]) -> Tensor:
        """Return the keys of memory tokens (N, L, S), those of memories turned by their places, (N, L, C)."""
        k = self.k_proj(k)
        if len(set(grids)) == 1 and not is_chunked(k):  # one after the other would be many launches for a GPU
            rope = self.rope_of_memory(grids[0], k.device)
            spatial, pointers = k.tensor_split([len(grids) * len(rope[0])], dim=1)
            each = rotate(spatial.unflatten(1, (len(grids), -1)), rope)
            return torch.cat((each.flatten(1, 2), pointers), dim=1)
        ropes = [self.rope_of_memory(grid, k.device) for grid in grids]
        lengths = [len(cos) for cos, _ in ropes]
        if torch.is_grad_enabled():
            *spatial, pointers = k.split([*lengths, k.shape[1] - sum(lengths)], dim=1)
            turned = [rotate(part, rope) for part, rope in zip(spatial, ropes)]
            return torch.cat((*turned, pointers), dim=1)
        for part, rope in zip(k[:, : sum(lengths)].split(lengths, dim=1), ropes):
            rotate_(part, rope)
        out: Tensor = k
        return out

    def rope_of_frame(self, grid_hw: GridHW, device: torch.device) -> Rope:
        """Return by what the queries of a frame are turned; see `axial_rope`."""
        return axial_rope(self.q_proj.out_features, grid_hw, device)

    def rope_of_memory(self, grid_hw: GridHW, device: torch.device) -> Rope:
        """Return by what the keys of one memory are turned; see `axial_rope`."""
        return axial_rope(self.q_proj.out_features, grid_hw, device)
