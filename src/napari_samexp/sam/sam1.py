"""SAM 1: encode an image, segment from prompts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_samexp.sam.base import UNKNOWN, Provenance, SamModel, pad_points, wants_alternatives
from napari_samexp.sam.encoding_spec import require_grid
from napari_samexp.sam.features import ImageFeatures, MaskPrediction
from napari_samexp.sam.mask_decoder import MaskDecoder
from napari_samexp.sam.prompt_encoder import PromptEncoder
from napari_samexp.sam.variants import Sam1Variant
from napari_samexp.sam.vit import ImageEncoderViT
from napari_samexp.types import Prompt

__all__ = ["Sam1"]


class Sam1(SamModel):
    """Segment Anything (2023): masks from prompts on one image. It has no memory."""

    def __init__(self, variant: Sam1Variant, provenance: Provenance = UNKNOWN) -> None:
        super().__init__(provenance)
        self.variant = variant
        self.image_encoder = ImageEncoderViT(variant)
        self.prompt_encoder = PromptEncoder(variant.d_model)
        self.mask_decoder = MaskDecoder(variant.d_model, variant.mlp_dim, variant.iou_hidden, high_res=False)

    @torch.inference_mode()
    def encode(self, image: npt.ArrayLike, *, side: int | None = None, square: bool = True) -> ImageFeatures:
        """Encode an image; see `Sam2.encode`."""
        pixels, transform = self._input(image, self.variant, side, square)
        return ImageFeatures(self.image_encoder(pixels), None, transform)

    @torch.inference_mode()
    def segment(
        self,
        features: ImageFeatures,
        prompt: Prompt,
        *,
        mask_logits: npt.NDArray[np.float32] | None = None,
        multimask: bool | None = None,
    ) -> MaskPrediction:
        """Return the mask choices for a prompt; see `Sam2.segment`."""
        points, labels = self._points(prompt, features.transform)
        # points without a box are padded with one that is none
        if len(prompt.points_xy) and prompt.box_xyxy is None:
            points, labels = pad_points(points, labels, 1)
        decoded = self.mask_decoder(
            features.embedding,
            self.prompt_encoder.grid(features.grid_hw),
            self.prompt_encoder.sparse(points, labels, features.transform.input_hw),
            self.prompt_encoder.dense(self._mask_input(mask_logits, features.grid_hw)),
            None,
        )
        iou = decoded.iou[0].float()  # (4,)
        best = 1 + int(iou[1:].argmax()) if wants_alternatives(prompt, multimask) else 0
        return MaskPrediction(decoded.masks[0].float(), iou.cpu().numpy(), None, best, features.transform)

    def position_encoding(self, grid_hw: tuple[int, int], *, window_tile: bool = True) -> Tensor:
        """Return what the encoder adds to its patch tokens, (C, h, w); there is no window tile to leave out.

        It has the model's dtype. `SettingsError` if the grid has no tokens or too many.
        """
        grid_hw = require_grid(grid_hw, self.variant.embed_dim)
        return self.image_encoder.position_map(grid_hw)[0].permute(2, 0, 1)
