"""SAM 2: encode an image, segment from prompts, remember, and track."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from napari_samexp.errors import ImageError, SettingsError
from napari_samexp.sam.base import pad_points, wants_alternatives
from napari_samexp.sam.encoding_spec import require_grid
from napari_samexp.sam.features import ImageFeatures, ImageTransform, MaskPrediction, Memory
from napari_samexp.sam.hiera import ImageEncoder
from napari_samexp.sam.mask_decoder import Decoded
from napari_samexp.sam.position_encoding import hiera_map, tile_map
from napari_samexp.sam.sam2_base import ABSENT, Sam2Base
from napari_samexp.types import Prompt

__all__ = ["Sam2"]

STABLE_DELTA, STABLE_SHARE = 0.05, 0.98


class Sam2(Sam2Base):
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
        # Meta's predictor passes a padding point even with a box, and two where there is no prompt
        points, labels = pad_points(points, labels, 1 if points.shape[1] else 2)
        decoded = self.decode(
            # an image without memories gets this learned vector in their place
            features.embedding + self.no_mem_embed.transpose(1, 2)[..., None],
            features.high_res_features,
            self.sam_prompt_encoder.sparse(points, labels, features.transform.input_hw),
            self.sam_prompt_encoder.dense(self._mask_input(mask_logits, features.grid_hw)),
        )
        return self._prediction(decoded, features.transform, wants_alternatives(prompt, multimask))

    def _prediction(self, decoded: Decoded, transform: ImageTransform, ambiguous: bool) -> MaskPrediction:
        masks, iou = decoded.masks[0].float(), decoded.iou[0].float()  # (4, h, w), (4,)
        alternative = 1 + int(iou[1:].argmax())
        # an unstable single mask is replaced by the best alternative (dynamic multimask)
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
        # (1, D, h, w)
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
        logits = torch.where(presence > 0, prediction.logits[chosen], ABSENT)[None, None]  # (1, 1, h, w)
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


def _is_stable(logits: Tensor) -> bool:
    """Whether a mask hardly changes with its threshold (stability score)."""
    union = (logits > -STABLE_DELTA).sum()
    return bool(union == 0 or (logits > STABLE_DELTA).sum() / union >= STABLE_SHARE)
