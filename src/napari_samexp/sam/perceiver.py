"""EdgeTAM's spatial perceiver: the memory of a frame in few tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.position_encoding import sine_map
from napari_samexp.sam.variants import EdgeTamVariant

__all__ = ["SpatialPerceiver"]


class SpatialPerceiver(nn.Module):
    """Learned latents that attend to a frame's memory: some to all of it, the others to one window each.

    Source: `perceiver.py` of EdgeTAM, which takes one memory at a time, on its native grid.
    """

    def __init__(self, variant: EdgeTamVariant) -> None:
        super().__init__()
        dim = variant.mem_dim
        self.windows = variant.windows
        self.latents = nn.Parameter(torch.zeros(variant.num_latents, dim))
        self.latents_2d = nn.Parameter(torch.zeros(variant.num_latents_2d, dim))
        self.layers = nn.ModuleList(_Layer(dim) for _ in range(variant.perceiver_depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, memory: Tensor) -> Tensor:
        """(N, C, h, w) memories to (N, L, C): tokens of the whole frame, then of its windows, row by row."""
        out: Tensor = self.norm(
            torch.cat((self._attend_to_frame(memory), self._attend_to_windows(memory)), dim=1)
        )
        return out

    def encoding(self) -> Tensor:
        """Return the tokens' position encoding, (L, C): zeros for the whole frame's, the windows' grid for the others."""
        weight = self.latents_2d
        grid = sine_map(weight.shape[1], (self.windows, self.windows), weight.device, weight.dtype)
        return torch.cat((torch.zeros_like(self.latents), grid[0].flatten(1).T))

    def _attend_to_frame(self, memory: Tensor) -> Tensor:
        grid_hw = (memory.shape[2], memory.shape[3])
        tokens = memory.flatten(2).transpose(1, 2)  # (N, h w, C)
        encoding = sine_map(memory.shape[1], grid_hw, memory.device, memory.dtype).flatten(2).transpose(1, 2)
        x = self.latents.expand(len(memory), -1, -1)  # (N, latents, C)
        for layer in self.layers:
            x = layer(x, tokens, encoding)
        return x

    def _attend_to_windows(self, memory: Tensor) -> Tensor:
        windows = split_windows(memory, self.windows)  # (N x windows, tokens, C)
        # a batch of single latents: they do not attend to each other
        x = self.latents_2d[:, None].repeat(len(memory), 1, 1)  # (N x windows, 1, C)
        for layer in self.layers:
            x = layer(x, windows, None)
        return x.view(len(memory), -1, x.shape[2])  # (N, windows, C)


def split_windows(memory: Tensor, count: int) -> Tensor:
    """Split maps into windows, row by row.

    Where `count` does not divide a side, for which the reference has no code, windows hold the tokens of an
    even division, some of them twice; fewer tokens than windows are in several.

    Parameters
    ----------
    memory : Tensor, shape (N, C, h, w)
    count : int
        Windows along a side.

    Returns
    -------
    Tensor, shape (N x count x count, tokens of a window, C)
    """
    height, width = (-(-size // count) * count for size in memory.shape[2:])
    if (height, width) != memory.shape[2:]:
        memory = functional.interpolate(memory, (height, width), mode="nearest")
    parts = memory.unflatten(3, (count, -1)).unflatten(2, (count, -1))  # (N, C, rows, y, columns, x)
    out: Tensor = parts.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2)
    return out


class _Layer(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attn = _CrossAttention(dim)
        self.ff = _feed_forward(dim)
        self.self_attn = _SelfAttention(dim)
        self.self_ff = _feed_forward(dim)

    def forward(self, latents: Tensor, tokens: Tensor, encoding: Tensor | None) -> Tensor:
        x = latents + self.attn(latents, tokens, encoding)  # cross-attention to the memory
        x = x + self.ff(x)
        x = x + self.self_attn(x)  # among the latents
        out: Tensor = x + self.self_ff(x)
        return out


class _Attention(nn.Module):
    """Attention of one head, whose projections have no bias."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def attend(self, latents: Tensor, tokens: Tensor, encoding: Tensor | None) -> Tensor:
        k, v = self.to_kv(tokens).chunk(2, dim=-1)  # each (N, tokens, C)
        if encoding is not None:  # added to the values too, so that a latent learns where it attended to
            k, v = k + encoding, v + encoding
        q = self.to_q(latents)  # (N, latents, C)
        out: Tensor = self.to_out(
            functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        )
        return out


class _CrossAttention(_Attention):
    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.norm_x = nn.LayerNorm(dim)
        self.norm_latents = nn.LayerNorm(dim)

    def forward(self, latents: Tensor, tokens: Tensor, encoding: Tensor | None) -> Tensor:
        return self.attend(self.norm_latents(latents), self.norm_x(tokens), encoding)


class _SelfAttention(_Attention):
    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.norm(latents)
        return self.attend(x, x, None)


def _feed_forward(dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, 4 * dim, bias=False),
        nn.GELU(),
        nn.Linear(4 * dim, dim, bias=False),
    )
