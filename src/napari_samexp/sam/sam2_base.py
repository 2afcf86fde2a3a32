"""The parts of SAM 2 for N objects or images at once: what the tracker and training use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.base import UNKNOWN, Provenance, SamModel
from napari_samexp.sam.hiera import ImageEncoder
from napari_samexp.sam.layers import Mlp
from napari_samexp.sam.mask_decoder import Decoded, MaskDecoder
from napari_samexp.sam.memory import MemoryAttention, MemoryEncoder
from napari_samexp.sam.position_encoding import sine_map, sine_times
from napari_samexp.sam.prompt_encoder import NO_POINT, PromptEncoder
from napari_samexp.sam.repvit import RepVitEncoder
from napari_samexp.sam.variants import MAX_RECENT, MemoryVariant

__all__ = ["ABSENT", "Sam2Base", "Tracked"]

ABSENT = -1024.0  # mask logit where the object is not in the frame


class Tracked(NamedTuple):
    """N objects in one frame.

    Parameters
    ----------
    logits : Tensor, shape (N, 4 h, 4 w)
        The mask with the best predicted IoU; -1024 everywhere where the object is absent.
    iou, presence : Tensor, shape (N,)
    pointers : Tensor, shape (N, D)
    """

    logits: Tensor
    iou: Tensor
    presence: Tensor
    pointers: Tensor


class Sam2Base(SamModel):
    """The modules of a SAM 2, and the steps that a tracker makes of them.

    Source: `sam2_base.py` of sam2.
    """

    def __init__(
        self,
        variant: MemoryVariant,
        image_encoder: ImageEncoder | RepVitEncoder,
        memory_attention: MemoryAttention,
        provenance: Provenance = UNKNOWN,
    ) -> None:
        super().__init__(provenance)
        dim, mem_dim = variant.d_model, variant.mem_dim
        self.variant = variant
        self.image_encoder = image_encoder
        self.memory_attention = memory_attention
        self.memory_encoder = MemoryEncoder(variant)
        self.sam_prompt_encoder = PromptEncoder(dim)
        self.sam_mask_decoder = MaskDecoder(dim, variant.mlp_dim, variant.iou_hidden, high_res=True)
        self.obj_ptr_proj = Mlp((dim, dim, dim, dim))
        self.mask_downsample = nn.Conv2d(1, 1, 4, stride=4)
        # learned temporal encodings: of the recent memories, then of memories without a time
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(MAX_RECENT + 1, 1, 1, mem_dim))
        # added to the features where there is no memory
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, dim))
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, dim))
        # the pointer of an absent object
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, dim))
        if variant.version == "2.1":
            self.no_obj_embed_spatial = nn.Parameter(torch.zeros(1, mem_dim))
            self.obj_ptr_tpos_proj = nn.Linear(dim, mem_dim)

    def image_features(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, 3, H, W) to the embedding (B, D, h, w) and the decoder's two high-resolution features."""
        decoder = self.sam_mask_decoder
        s4, s8, s16 = self.image_encoder.decoder_features(pixels, (decoder.conv_s0, decoder.conv_s1))
        return s16, (s4, s8)

    def decode(
        self,
        embedding: Tensor,
        high_res_features: tuple[Tensor, Tensor] | None,
        sparse: Tensor,
        dense: Tensor,
    ) -> Decoded:
        """Decode N prompts on N or one embedding; see `MaskDecoder.forward`."""
        grid = self.sam_prompt_encoder.grid((embedding.shape[2], embedding.shape[3]))
        out: Decoded = self.sam_mask_decoder(embedding, grid, sparse, dense, high_res_features)
        return out

    def pointers(self, decoded: Decoded) -> Tensor:
        """Return the object pointers of all choices, (N, 4, D); a fixed one where the object is absent."""
        assert decoded.presence is not None
        present = (decoded.presence > 0)[:, None, None]  # (N, 1, 1)
        return torch.where(present, self.obj_ptr_proj(decoded.tokens), self.no_obj_ptr)

    def before_recall(self, embedding: Tensor) -> Tensor:
        """Return the part of `recall` that is the same for all objects; see `MemoryAttention.start`."""
        out: Tensor = self.memory_attention.start(embedding)
        return out

    def recall(
        self,
        embedding: Tensor,
        spatial: Sequence[Tensor],
        slots: Tensor,
        pointers: Tensor,
        times: Tensor,
        started: Tensor | None = None,
    ) -> Tensor:
        """Condition features on memories.

        Parameters
        ----------
        embedding : Tensor, shape (N or 1, D, h, w)
        spatial : sequence of M Tensors, each of shape (N, mem_dim, h', w')
            Their grids may differ.
        slots : Tensor, shape (N, M), int
            Row of the learned times: k - 1 for the k-th memory back, `PRIOR_SLOT` for a prior.
        pointers : Tensor, shape (N, P, D)
        times : Tensor, shape (N, P), float32
            Distance of each pointer, already divided by the longest one (15 frames).
        started : Tensor, optional
            What `before_recall` returned for the embedding, where it is needed more than once.

        Returns
        -------
        Tensor, shape (N, D, h, w)
        """
        mem_dim = self.variant.mem_dim
        grids = [(memory.shape[2], memory.shape[3]) for memory in spatial]
        learned = self.maskmem_tpos_enc[slots][:, :, 0]  # (N, M, 1, mem_dim)
        # spatial tokens: the memories, their positions and times
        tokens = [memory.flatten(2).transpose(1, 2) for memory in spatial]  # each (N, h' w', mem_dim)
        maps = [sine_map(mem_dim, grid, embedding.device, embedding.dtype) for grid in grids]
        encodings = [grid.flatten(2).transpose(1, 2) + learned[:, i] for i, grid in enumerate(maps)]
        # pointer tokens: each pointer is split into as many as its channels fill
        split = pointers.unflatten(2, (-1, mem_dim))  # (N, P, D / mem_dim, mem_dim)
        tokens.append(split.flatten(1, 2))
        encodings.append(self._pointer_times(times)[:, :, None].expand_as(split).flatten(1, 2))
        out: Tensor = self.memory_attention(
            embedding, torch.cat(tokens, 1), torch.cat(encodings, 1), grids, started
        )
        return out

    def _pointer_times(self, times: Tensor) -> Tensor:
        """(N, P) to (N, P, mem_dim)."""
        if self.variant.version == "2.0":  # in which pointers have no time
            return torch.zeros(*times.shape, self.variant.mem_dim, device=self.device, dtype=self.dtype)
        out: Tensor = self.obj_ptr_tpos_proj(sine_times(times, self.variant.d_model).to(self.dtype))
        return out

    def track(
        self, recalled: Tensor, high_res_features: tuple[Tensor, Tensor], input_hw: tuple[int, int]
    ) -> Tracked:
        """Return N objects in one frame, whose features were conditioned on each object's memories.

        Parameters
        ----------
        recalled : Tensor, shape (N, D, h, w)
        input_hw : (int, int)
            Size of the model's input.
        """
        count = len(recalled)
        sparse = self._no_points(count, input_hw)
        decoded = self.decode(recalled, high_res_features, sparse, self.sam_prompt_encoder.dense(None))
        assert decoded.presence is not None
        best = 1 + decoded.iou[:, 1:].argmax(dim=1)  # (N,), of the three alternatives
        rows = torch.arange(count, device=recalled.device)
        present = decoded.presence > 0
        logits = torch.where(present[:, None, None], decoded.masks[rows, best], ABSENT)
        return Tracked(logits, decoded.iou[rows, best], decoded.presence, self.pointers(decoded)[rows, best])

    def _no_points(self, count: int, input_hw: tuple[int, int]) -> Tensor:
        """Return the sparse tokens of `count` empty prompts, (count, 2, D)."""
        labels = torch.full((count, 2), NO_POINT, device=self.device)
        return self.sam_prompt_encoder.sparse(torch.zeros(count, 2, 2, device=self.device), labels, input_hw)

    def encode_memory(self, embedding: Tensor, logits: Tensor, presence: Tensor, *, binary: bool) -> Tensor:
        """Return the spatial memories of N masks on N or one embedding.

        Parameters
        ----------
        logits : Tensor, shape (N, 1, 4 h, 4 w)
        presence : Tensor, shape (N,)
        binary : bool
            Whether masks are thresholded at 0, as for prompted frames, or go through a sigmoid, as for tracked ones.

        Returns
        -------
        Tensor, shape (N, mem_dim, h, w)
        """
        size = (16 * embedding.shape[2], 16 * embedding.shape[3])
        full = functional.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
        mask = (full > 0).float() if binary else full.sigmoid()
        spatial: Tensor = self.memory_encoder(
            embedding, (mask * 20 - 10).to(self.dtype)
        )  # (N, mem_dim, h, w)
        if self.variant.version == "2.1":
            absent = (presence <= 0)[:, None, None, None]
            spatial = spatial + torch.where(absent, self.no_obj_embed_spatial[..., None, None], 0)
        return spatial
