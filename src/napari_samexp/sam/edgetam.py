"""EdgeTAM: a SAM 2 with a lighter image encoder, whose memory of a frame is a few hundred tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from napari_samexp.sam.base import UNKNOWN, Provenance
from napari_samexp.sam.features import Memory
from napari_samexp.sam.memory import MemoryAttention, RotaryAttention
from napari_samexp.sam.perceiver import SpatialPerceiver
from napari_samexp.sam.position_encoding import Rope, axial_rope
from napari_samexp.sam.repvit import RepVitEncoder
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.sam.variants import EdgeTamVariant

__all__ = ["EdgeTam"]

GridHW = tuple[int, int]


class EdgeTam(Sam2):
    """EdgeTAM (2025): all that `Sam2` does, in a third of the time of its smallest size.

    A spatial memory is (mem_dim, 1, L) whatever the size of the frame: tokens of the whole frame, then of its windows.

    Source: `sam2_base.py` of EdgeTAM.
    """

    variant: EdgeTamVariant

    def __init__(self, variant: EdgeTamVariant, provenance: Provenance = UNKNOWN) -> None:
        super().__init__(
            variant,
            RepVitEncoder(variant),
            MemoryAttention(variant, lambda: PackedAttention(variant)),
            provenance,
        )
        self.spatial_perceiver = SpatialPerceiver(variant)

    def takes(self, memory: Memory) -> bool:
        """Whether a memory has the sizes of this model's memories."""
        tokens = self.variant.num_latents + self.variant.num_latents_2d
        return memory.spatial.shape == (self.variant.mem_dim, 1, tokens) and memory.pointer.shape == (
            self.variant.d_model,
        )

    def encode_memory(self, embedding: Tensor, logits: Tensor, presence: Tensor, *, binary: bool) -> Tensor:
        """Return the spatial memories of N masks, (N, mem_dim, 1, L); see `Sam2.encode_memory`."""
        spatial = super().encode_memory(embedding, logits, presence, binary=binary)
        packed: Tensor = self.spatial_perceiver(spatial)  # (N, L, mem_dim)
        return packed.transpose(1, 2)[:, :, None]

    def recall(
        self,
        embedding: Tensor,
        spatial: Sequence[Tensor],
        slots: Tensor,
        pointers: Tensor,
        times: Tensor,
        started: Tensor | None = None,
    ) -> Tensor:
        """Condition features on M memories, each of shape (N, mem_dim, 1, L); see `Sam2.recall`.

        `times` is not used: pointers have no time here.
        """
        learned = self.maskmem_tpos_enc[slots][:, :, 0]  # (N, M, 1, mem_dim)
        tokens = [memory.flatten(2).transpose(1, 2) for memory in spatial]  # each (N, L, mem_dim)
        encoding = (self.spatial_perceiver.encoding() + learned).flatten(1, 2)  # (N, M x L, mem_dim)
        split = pointers.unflatten(2, (-1, self.variant.mem_dim)).flatten(
            1, 2
        )  # (N, P x D / mem_dim, mem_dim)
        out: Tensor = self.memory_attention(
            embedding,
            torch.cat((*tokens, split), 1),
            torch.cat((encoding, torch.zeros_like(split)), 1),
            [(self.variant.windows, self.variant.windows)] * len(tokens),
            started,
        )
        return out


class PackedAttention(RotaryAttention):
    """Attention to packed memories, in which only the tokens of windows are rotated.

    Source: `RoPEAttentionv2` in `transformer.py` of EdgeTAM. Windows count from 0 whatever the frame's grid, so
    on another grid than the native one, for which the reference has no code, the queries' positions are
    scaled to the native grid.
    """

    def __init__(self, variant: EdgeTamVariant) -> None:
        super().__init__(variant.d_model, 1, source=variant.mem_dim)
        self.num_latents = variant.num_latents
        self.native = variant.image_size // variant.patch

    def frame_rope(self, grid_hw: GridHW, device: torch.device) -> Rope:
        """Return the rotary encoding of a frame's queries."""
        return axial_rope(self.q_proj.out_features, grid_hw, device, (self.native, self.native))

    def memory_rope(self, grid_hw: GridHW, device: torch.device) -> Rope:
        """Return the rotary encoding of the keys of one memory; tokens of the whole frame are not rotated."""
        cos, sin = axial_rope(self.q_proj.out_features, grid_hw, device)
        zero = cos.new_zeros(self.num_latents, cos.shape[1])
        return Rope((torch.cat((zero + 1, cos)), torch.cat((zero, sin))))
