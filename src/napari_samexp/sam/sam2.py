"""SAM 2: encode an image, segment from prompts, remember, and track."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.errors import ImageError, SettingsError
from napari_samexp.sam.base import UNKNOWN, Provenance, SamModel, pad_points, wants_alternatives
from napari_samexp.sam.encoding_spec import require_grid
from napari_samexp.sam.features import ImageFeatures, ImageTransform, MaskPrediction, Memory
from napari_samexp.sam.hiera import ImageEncoder
from napari_samexp.sam.layers import Mlp
from napari_samexp.sam.mask_decoder import Decoded, MaskDecoder
from napari_samexp.sam.memory import MemoryAttention, MemoryEncoder
from napari_samexp.sam.position_encoding import hiera_map, sine_map, sine_times, tile_map
from napari_samexp.sam.prompt_encoder import NO_POINT, PromptEncoder
from napari_samexp.sam.repvit import RepVitEncoder
from napari_samexp.sam.variants import MAX_RECENT, MemoryVariant
from napari_samexp.types import Prompt

__all__ = ["ABSENT", "Sam2", "Tracked"]

ABSENT = -1024.0  # mask logit where the object is not in the frame
STABLE_DELTA, STABLE_SHARE = 0.05, 0.98


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


class Sam2(SamModel):
    """SAM 2 and SAM 2.1: masks from prompts, and memory of earlier frames.

    Parameters
    ----------
    variant : Sam2Variant or EdgeTamVariant
    image_encoder : nn.Module
    memory_attention : MemoryAttention
        The parts in which families differ; `sam.build.new_model` has those of each.
    provenance : Provenance

    Notes
    -----
    Source: `sam2_base.py`, `sam2_image_predictor.py` and `sam2_video_predictor.py` of sam2.
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
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(MAX_RECENT + 1, 1, 1, mem_dim))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, dim))
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, dim))
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, dim))
        if variant.version == "2.1":
            self.no_obj_embed_spatial = nn.Parameter(torch.zeros(1, mem_dim))
            self.obj_ptr_tpos_proj = nn.Linear(dim, mem_dim)

    # ---- one image

    @torch.inference_mode()
    def encode(self, image: npt.ArrayLike, *, side: int | None = None, square: bool = True) -> ImageFeatures:
        """Encode an image.

        Parameters
        ----------
        image : array
            (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), any dtype; see `images.to_rgb8`.
        side : int, optional
            Longer side of the model's input in pixels; by default the model's own.
        square : bool
            Whether the input is square, as the model was trained, or keeps the image's aspect.

        Raises
        ------
        ImageError, SettingsError
            If the image or the side cannot be used.
        """
        pixels, transform = self._input(image, self.variant, side, square)
        embedding, high_res_features = self.image_features(pixels)
        return ImageFeatures(embedding, high_res_features, transform)

    @torch.inference_mode()
    def segment(
        self,
        features: ImageFeatures,
        prompt: Prompt,
        *,
        mask_logits: npt.NDArray[np.float32] | None = None,
        multimask: bool | None = None,
    ) -> MaskPrediction:
        """Return the mask choices for points, a box, both or none.

        Parameters
        ----------
        mask_logits : array, shape (h, w), float32, optional
            An earlier prediction's logits to start from.
        multimask : bool, optional
            Whether the best choice is taken from the alternatives; by default for one click or none
            without a box, which may mean several things.

        Raises
        ------
        PromptError
            If a point or the box lies outside the image.
        """
        points, labels = self._points(prompt, features.transform)
        points, labels = pad_points(points, labels, 1 if points.shape[1] else 2)
        decoded = self.decode(
            features.embedding + self.no_mem_embed.transpose(1, 2)[..., None],
            features.high_res_features,
            self.sam_prompt_encoder.sparse(points, labels, features.transform.input_hw),
            self.sam_prompt_encoder.dense(self._mask_input(mask_logits, features.grid_hw)),
        )
        return self._prediction(decoded, features.transform, wants_alternatives(prompt, multimask))

    def _prediction(self, decoded: Decoded, transform: ImageTransform, ambiguous: bool) -> MaskPrediction:
        masks, iou = decoded.masks[0].float(), decoded.iou[0].float()
        alternative = 1 + int(iou[1:].argmax())
        keep_single = not ambiguous and _is_stable(masks[0])
        assert decoded.presence is not None
        return MaskPrediction(
            logits=masks,
            iou=iou.cpu().numpy(),
            presence=float(decoded.presence[0]),
            best=0 if keep_single else alternative,
            transform=transform,
            pointers=self.pointers(decoded)[0],
            best_pointer=alternative if ambiguous else 0,
        )

    @torch.inference_mode()
    def from_mask(self, features: ImageFeatures, mask: npt.NDArray[np.bool_]) -> MaskPrediction:
        """Return a given (H, W) mask of the image as a prediction that can be remembered.

        Raises
        ------
        ImageError
            If the mask has another size than the image.
        """
        transform = features.transform
        if mask.shape != transform.image_hw:
            raise ImageError(
                f"The mask has shape {mask.shape} but the image {transform.image_hw}; give one value a pixel."
            )
        binary = torch.from_numpy(np.ascontiguousarray(mask, np.float32))[None, None]
        if transform.input_hw != transform.image_hw:
            # as Meta's video code: resized with antialiasing, then thresholded at one half
            smooth = functional.interpolate(
                binary, transform.input_hw, mode="bilinear", align_corners=False, antialias=True
            )
            binary = (smooth >= 0.5).float()
        binary = binary.to(self.device, self.dtype)
        low = functional.interpolate(
            binary.float() * 20 - 10, scale_factor=0.25, mode="bilinear", align_corners=False, antialias=True
        )
        sparse = self._no_points(1, transform.input_hw)
        dense = self.sam_prompt_encoder.dense(self.mask_downsample(binary))
        decoded = self.decode(features.embedding, features.high_res_features, sparse, dense)
        present = bool(mask.any())
        pointer = self.pointers(decoded)[:, 0] if present else self.no_obj_ptr
        return MaskPrediction(
            low[0], np.ones(1, np.float32), 10.0 if present else -10.0, 0, transform, pointer
        )

    @torch.inference_mode()
    def remember(
        self, features: ImageFeatures, prediction: MaskPrediction, index: int | None = None
    ) -> Memory:
        """Return the memory of a prompted image.

        Parameters
        ----------
        index : int, optional
            The mask choice to remember, by default the best.
        """
        chosen = prediction.require_choice(index)
        assert prediction.pointers is not None and prediction.presence is not None
        presence = torch.tensor([prediction.presence], device=self.device)
        logits = torch.where(presence > 0, prediction.logits[chosen], ABSENT)[None, None]
        spatial = self.encode_memory(features.embedding, logits, presence, binary=True)[0]
        return Memory(spatial, prediction.pointers[prediction.best_pointer if index is None else chosen])

    def position_encoding(
        self, grid_hw: tuple[int, int], *, window_tile: bool = True, background: bool = True
    ) -> Tensor:
        """Return what the encoder adds to its patch tokens, or one of its two parts, in the model's dtype.

        Parameters
        ----------
        grid_hw : (int, int)
            Height and width in tokens, which are 4 pixels a side.
        window_tile, background : bool
            Whether the tiled window table and the resized background table are in it.

        Returns
        -------
        Tensor, shape (C, h, w)

        Raises
        ------
        SettingsError
            If the grid has no tokens or too many, neither part is asked for, or the family has no such encoding.
        """
        grid_hw = require_grid(grid_hw, self.variant.embed_dim)
        if not isinstance(self.image_encoder, ImageEncoder):
            raise SettingsError(
                f"{self.variant.name} has no position encoding of the absolute kind: its image encoder consists of "
                "convolutions alone and adds none to its features; choose a SAM 1, SAM 2 or SAM 2.1 model."
            )
        if not (background or window_tile):
            raise SettingsError("Neither background nor window tile was asked for; ask for one or for both.")
        trunk = self.image_encoder.trunk
        if not background:
            return tile_map(trunk.pos_embed_window, grid_hw)[0]
        return hiera_map(trunk.pos_embed, trunk.pos_embed_window, grid_hw, window_tile)[0]

    def takes(self, memory: Memory) -> bool:
        """Whether a memory has the sizes of this model's memories."""
        sizes = (self.variant.mem_dim, self.variant.d_model)
        return memory.spatial.ndim == 3 and (len(memory.spatial), len(memory.pointer)) == sizes

    # ---- parts, for N objects or images at once; also what training uses

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
        present = (decoded.presence > 0)[:, None, None]
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
        best = 1 + decoded.iou[:, 1:].argmax(dim=1)
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


def _is_stable(logits: Tensor) -> bool:
    """Whether a mask hardly changes with its threshold (stability score)."""
    union = (logits > -STABLE_DELTA).sum()
    return bool(union == 0 or (logits > STABLE_DELTA).sum() / union >= STABLE_SHARE)
