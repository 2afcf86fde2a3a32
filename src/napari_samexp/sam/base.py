"""What SAM 1 and SAM 2 share: images and prompts in, and where a model's weights are from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.errors import ImageError
from napari_samexp.sam.features import ImageTransform, prepare_on
from napari_samexp.sam.prompt_encoder import BOX_END, BOX_START, NO_POINT
from napari_samexp.sam.variants import Variant
from napari_samexp.types import Prompt

__all__ = ["UNKNOWN", "Provenance", "SamModel", "pad_points", "wants_alternatives"]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model's weights are from, and how it multiplies.

    Parameters
    ----------
    weights : str
        File name of the weights.
    sha256 : callable
        Returns the hash of the file; called when first needed, since a file may have gigabytes.
    compute_dtype : str
        Name of the dtype of the large products, where it is not the model's own; see `fast.mixed_precision`.
    """

    weights: str = "unnamed"
    sha256: Callable[[], str] = str
    compute_dtype: str = ""


UNKNOWN = Provenance()


class SamModel(nn.Module):
    """What both generations share."""

    def __init__(self, provenance: Provenance) -> None:
        super().__init__()
        self.provenance = provenance

    @property
    def weights(self) -> str:
        """File name of the weights."""
        return self.provenance.weights

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file, by which a prior knows the model of its memories."""
        return self.provenance.sha256()

    @property
    def compute_dtype(self) -> str:
        """Name of the dtype of the large products, which may be shorter than `dtype`."""
        return self.provenance.compute_dtype or str(self.dtype).removeprefix("torch.")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype

    def _input(
        self, image: npt.ArrayLike, variant: Variant, side: int | None, square: bool
    ) -> tuple[Tensor, ImageTransform]:
        pixels, transform = prepare_on(image, variant, side, square, self.device)
        return pixels.to(self.dtype), transform

    def _points(self, prompt: Prompt, transform: ImageTransform) -> tuple[Tensor, Tensor]:
        """Return a prompt as (1, N, 2) input pixels and (1, N) labels, box corners first."""
        prompt.require_inside(transform.image_hw)
        xy, labels = prompt.points_xy, prompt.labels
        if prompt.box_xyxy is not None:
            xy = np.concatenate((prompt.box_xyxy.reshape(2, 2), xy))
            labels = np.concatenate(([BOX_START, BOX_END], labels))
        points = torch.from_numpy(transform.to_input(xy))[None]
        return points.to(self.device), torch.from_numpy(labels.astype(np.int64))[None].to(self.device)

    def _mask_input(
        self, mask_logits: npt.NDArray[np.float32] | None, grid_hw: tuple[int, int]
    ) -> Tensor | None:
        """Return mask logits (h, w) as the prompt encoder takes them, (1, 1, 4 grid_h, 4 grid_w)."""
        if mask_logits is None:
            return None
        if mask_logits.ndim != 2 or mask_logits.size == 0:
            raise ImageError(
                f"The mask logits have shape {mask_logits.shape}; expected (h, w), as a prediction gives them."
            )
        size = (4 * grid_hw[0], 4 * grid_hw[1])
        mask = torch.from_numpy(np.ascontiguousarray(mask_logits, np.float32))[None, None]
        if mask.shape[2:] != size:
            mask = functional.interpolate(mask, size, mode="bilinear", align_corners=False, antialias=True)
        return mask.to(self.device, self.dtype)


def wants_alternatives(prompt: Prompt, multimask: bool | None) -> bool:
    """Whether the best mask is one of the alternatives: `multimask`, else for one point or none without a box."""
    if multimask is not None:
        return multimask
    return prompt.box_xyxy is None and len(prompt.points_xy) <= 1


def pad_points(points: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Append `count` padding points to (1, N, 2) and (1, N), which the models expect in the place of a box."""
    padding = torch.full((1, count), NO_POINT, device=labels.device)
    return torch.cat((points, points.new_zeros(1, count, 2)), 1), torch.cat((labels, padding), 1)
