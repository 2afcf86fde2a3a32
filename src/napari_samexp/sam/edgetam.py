"""EdgeTAM: a SAM 2 with a lighter image encoder, whose memory of a frame is a few hundred tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.features import Memory
from napari_samexp.sam.folding import Kept, is_trained, join, on_pixels
from napari_samexp.sam.memory import MemoryAttention, RotaryAttention
from napari_samexp.sam.models import Sam2
from napari_samexp.sam.perceiver import SpatialPerceiver
from napari_samexp.sam.posenc import axial_rope, rotate
from napari_samexp.sam.repvit import RepVitEncoder
from napari_samexp.sam.variants import EdgeTamVariant
from napari_samexp.types import SettingsError

__all__ = ["EdgeTam"]

PIECE = 256  # queries at a time, whose scores a processor's cache holds

GridHW = tuple[int, int]


class EdgeTam(Sam2):
    """EdgeTAM (2025): all that `Sam2` does, in a third of the time of its smallest size.

    A spatial memory is (mem_dim, 1, L) whatever the size of the frame: tokens of all of it, then of its windows.

    Source: `sam2_base.py` of EdgeTAM.
    """

    variant: EdgeTamVariant

    def __init__(self, variant: EdgeTamVariant) -> None:
        super().__init__(
            variant,
            RepVitEncoder(variant),
            MemoryAttention(variant, lambda: PackedAttention(variant)),
        )
        self.spatial_perceiver = SpatialPerceiver(variant)
        self._finest, self._finer = Kept(), Kept()

    def image_features(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, 3, H, W) to the embedding (B, D, h, w) and the decoder's finer features."""
        if is_trained(self):
            return super().image_features(pixels)
        x4, x8, x16, x32 = self.image_encoder.trunk(pixels)
        neck, decoder = self.image_encoder.neck, self.sam_mask_decoder
        # nothing but the decoder's own convolutions looks at the neck's two finer levels
        finer = (
            _joined(self._finest, neck.convs[3].conv, decoder.conv_s0, x4),
            _joined(self._finer, neck.convs[2].conv, decoder.conv_s1, x8),
        )
        return neck.coarse(x16, x32), finer

    def position_encoding(self, grid_hw: GridHW, *, window_tile: bool = True, **_: object) -> Tensor:
        """Raise `SettingsError`: convolutions see where a pixel is by what is around it."""
        raise SettingsError(
            f"{self.variant.name} has no position encoding of the absolute kind: its image encoder consists of "
            "convolutions alone and adds none to its features; choose a SAM 1, SAM 2 or SAM 2.1 model."
        )

    def takes(self, memory: Memory) -> bool:
        """Whether a memory has the sizes of this model's memories."""
        tokens = self.variant.num_latents + self.variant.num_latents_2d
        return memory.spatial.shape == (self.variant.mem_dim, 1, tokens) and memory.pointer.shape == (
            self.variant.d_model,
        )

    def encode_memory(self, embedding: Tensor, logits: Tensor, presence: Tensor, *, binary: bool) -> Tensor:
        """Return the spatial memories of N masks, (N, mem_dim, 1, L); see `Sam2.encode_memory`."""
        spatial = super().encode_memory(embedding, logits, presence, binary=binary)
        packed: Tensor = self.spatial_perceiver(spatial)
        return packed.transpose(1, 2)[:, :, None]

    def recall(
        self, embedding: Tensor, spatial: Sequence[Tensor], slots: Tensor, pointers: Tensor, times: Tensor
    ) -> Tensor:
        """Condition features on M memories, each of shape (N, mem_dim, 1, L); see `Sam2.recall`.

        `times` is not used: pointers have no time here.
        """
        learned = self.maskmem_tpos_enc[slots][:, :, 0]  # (N, M, 1, mem_dim)
        tokens = [part.flatten(2).transpose(1, 2) for part in spatial]
        places = (self.spatial_perceiver.places() + learned).flatten(1, 2)
        split = pointers.unflatten(2, (-1, self.variant.mem_dim)).flatten(1, 2)
        out: Tensor = self.memory_attention(
            embedding,
            torch.cat((*tokens, split), 1),
            torch.cat((places, torch.zeros_like(split)), 1),
            [(self.variant.windows, self.variant.windows)] * len(tokens),
        )
        return out


def _joined(kept: Kept, first: nn.Conv2d, second: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply two 1 x 1 convolutions to a (B, h, w, C) map at once; (B, D, h, w)."""
    assert first.bias is not None and second.bias is not None
    made_of = [first.weight, first.bias, second.weight, second.bias]
    return on_pixels(x, kept.of(made_of, lambda: join(first, second))).permute(0, 3, 1, 2)


class PackedAttention(RotaryAttention):
    """Cross attention to packed memories, in which only the windows' tokens are turned by their place.

    Source: `RoPEAttentionv2` in `transformer.py` of EdgeTAM. Windows count from 0 whatever the frame's grid,
    so on another grid than the native one, for which the reference has no code, queries are spread over
    the native one's places.
    """

    def __init__(self, variant: EdgeTamVariant) -> None:
        super().__init__(variant.d_model, 1, source=variant.mem_dim)
        self.unplaced = variant.num_latents
        self.native = variant.image_size // variant.patch

    def on_grids(self, q: Tensor, k: Tensor, v: Tensor, grid_hw: GridHW, grids: list[GridHW]) -> Tensor:
        """Attend from `grid_hw` to memories of `unplaced` tokens and one window grid of `grids` each."""
        q = self.q_proj(q)
        q = rotate(q, axial_rope(q.shape[-1], grid_hw, q.device, (self.native, self.native)))
        attend = self._in_pieces if q.device.type == "cpu" else self._at_once
        out: Tensor = self.out_proj(attend(q, k, v, grids))
        return out

    def _at_once(self, q: Tensor, k: Tensor, v: Tensor, grids: list[GridHW]) -> Tensor:
        free, placed = self._split(k, grids)
        free_v, placed_v = self._split(v, grids)
        keys = torch.cat((self.k_proj(free), self._turned(placed, grids)), dim=1)
        values = self.v_proj(torch.cat((free_v, placed_v), dim=1))
        return functional.scaled_dot_product_attention(q[:, None], keys[:, None], values[:, None])[:, 0]

    def _in_pieces(self, q: Tensor, k: Tensor, v: Tensor, grids: list[GridHW]) -> Tensor:
        """The same in half the time, for processors without a kernel that does all at once.

        A key that is not turned, and every value, is a linear function of a token, which has a quarter of
        their channels: so products are taken with tokens, and the function is applied to fewer of them.
        """
        free, placed = self._split(k, grids)
        values = torch.cat(self._split(v, grids), dim=1)
        weight, bias = self.k_proj.weight, self.k_proj.bias
        scale = q.shape[-1] ** -0.5
        from_free = torch.cat((q @ weight, (q @ bias)[..., None]), dim=-1) * scale
        free = torch.cat((free, torch.ones_like(free[..., :1])), dim=-1).transpose(1, 2)
        placed = self._turned(placed, grids).transpose(1, 2) * scale
        mixed = []
        for i in range(0, q.shape[1], PIECE):
            rows = slice(i, i + PIECE)
            scores = torch.cat((from_free[:, rows] @ free, q[:, rows] @ placed), dim=-1)
            mixed.append(scores.softmax(dim=-1) @ values)
        out: Tensor = self.v_proj(torch.cat(mixed, dim=1))
        return out

    def _split(self, tokens: Tensor, grids: list[GridHW]) -> tuple[Tensor, Tensor]:
        """Part (N, L, C) tokens into those that have no place, pointers among them, and those of windows."""
        counts = [n for h, w in grids for n in (self.unplaced, h * w)]
        parts = tokens.split((*counts, tokens.shape[1] - sum(counts)), dim=1)
        return torch.cat(parts[0::2], dim=1), torch.cat(parts[1::2], dim=1)

    def _turned(self, placed: Tensor, grids: list[GridHW]) -> Tensor:
        """Return the keys of windows, turned by their places."""
        keys: Tensor = self.k_proj(placed)
        ropes = [axial_rope(keys.shape[-1], grid, keys.device) for grid in grids]
        cos, sin = (torch.cat(tables) for tables in zip(*ropes))
        return rotate(keys, (cos, sin))
