"""From an image to the model's input, and from the model's masks back to the image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from napari_samexp.errors import SettingsError
from napari_samexp.images import to_rgb8
from napari_samexp.sam.variants import MAX_SIDE, Sam1Variant, Variant

__all__ = [
    "ImageFeatures",
    "MaskPrediction",
    "Memory",
    "ImageTransform",
    "check_side",
    "mean_and_deviation",
    "place",
    "prepare",
    "prepare_on",
]

HW = tuple[int, int]

# mean and deviation of ImageNet, 0 to 1, as all families use them
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# SAM 1 has the same values for 0 to 255, rounded
MEAN_255 = (123.675, 116.28, 103.53)
STD_255 = (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True)
class ImageTransform:
    """How an image is mapped to the model's input.

    Parameters
    ----------
    image_hw, content_hw, input_hw : (int, int)
        Height and width of the image, of the image within the input, and of the input. Content
        and input differ for SAM 1, which pads at right and bottom.
    through_input : bool
        Whether masks are enlarged to the input before they are cropped and resized to the image, as
        SAM 1 does; SAM 2 resizes once.
    """

    image_hw: HW
    content_hw: HW
    input_hw: HW
    through_input: bool = False

    def to_input(self, points_xy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return (..., 2) image pixels as pixels of the model's input, both (x, y)."""
        scale = np.array(self.content_hw[::-1], np.float64) / np.array(self.image_hw[::-1], np.float64)
        return (points_xy * scale).astype(np.float32)

    def to_image(self, logits: Tensor, image_hw: HW | None = None) -> Tensor:
        """Return (N, h, w) mask logits of the whole input as (N, H, W) of the image, float32."""
        full = logits[:, None].float()  # (N, 1, h, w)
        if self.through_input:
            full = _resize(full, self.input_hw)[..., : self.content_hw[0], : self.content_hw[1]]
        return _resize(full, image_hw or self.image_hw)[:, 0]


def _resize(x: Tensor, hw: HW) -> Tensor:
    return functional.interpolate(x, size=hw, mode="bilinear", align_corners=False)


def check_side(variant: Variant, side: int | None) -> int:
    """Return the encode side to use.

    Raises
    ------
    SettingsError
        If `side` is no positive multiple of what the model needs, or too large.
    """
    if side is None:
        return variant.image_size
    step = variant.side_multiple
    if (
        isinstance(side, bool)
        or not isinstance(side, int | np.integer)
        or side < step
        or side % step
        or side > MAX_SIDE
    ):
        raise SettingsError(
            f"The encode side is {side!r}; {variant.name} needs a multiple of {step} from {step} to {MAX_SIDE}."
        )
    return int(side)


def place(variant: Variant, image_hw: HW, side: int | None = None, square: bool = True) -> ImageTransform:
    """Return how an image of (height, width) is mapped to the model's input.

    SAM 1 keeps the aspect and pads to a square; SAM 2 stretches to a square. With ``square=False``
    both keep the aspect, the longer side being `side`, rounded to what the model needs.
    """
    side = check_side(variant, side)
    step, longest = variant.side_multiple, max(image_hw)
    if isinstance(variant, Sam1Variant):
        height, width = (max(1, int(n * side / longest + 0.5)) for n in image_hw)
        padded = (side, side) if square else (-(-height // step) * step, -(-width // step) * step)
        return ImageTransform(image_hw, (height, width), padded, through_input=True)
    if square:
        return ImageTransform(image_hw, (side, side), (side, side))
    height, width = (max(step, round(n * side / longest / step) * step) for n in image_hw)
    return ImageTransform(image_hw, (height, width), (height, width))


def prepare(
    image: npt.ArrayLike, variant: Variant, side: int | None, square: bool
) -> tuple[npt.NDArray[np.float32], ImageTransform]:
    """Return the model's input (1, 3, H, W), float32, and how the image is mapped to it.

    Source: SAM 1 resizes 8-bit pixels with PIL's bilinear filter and pads zeros after normalising;
    SAM 2's image predictor resizes floats, bilinear with antialiasing.
    """
    rgb = to_rgb8(image)
    transform = place(variant, (rgb.shape[0], rgb.shape[1]), side, square)
    if isinstance(variant, Sam1Variant):
        return _prepare_sam1(rgb, transform), transform
    return _prepare_sam2(torch.tensor(rgb), transform).numpy(), transform  # a copy: images may be read-only


def prepare_on(
    image: npt.ArrayLike, variant: Variant, side: int | None, square: bool, device: torch.device
) -> tuple[Tensor, ImageTransform]:
    """Return what `prepare` does, as a float32 Tensor on a device.

    For a CUDA device and SAM 2, the 8-bit pixels are copied there from pinned memory, without waiting for the
    copy, and resized there.
    """
    if device.type != "cuda" or isinstance(variant, Sam1Variant):
        pixels, transform = prepare(image, variant, side, square)
        return torch.from_numpy(pixels).to(device), transform
    rgb = to_rgb8(image)
    transform = place(variant, (rgb.shape[0], rgb.shape[1]), side, square)
    moved = torch.tensor(rgb).pin_memory().to(device, non_blocking=True)
    return _prepare_sam2(moved, transform), transform


def _prepare_sam2(rgb: Tensor, transform: ImageTransform) -> Tensor:
    pixels = _resized(rgb, transform)
    mean, std = mean_and_deviation(rgb.device)
    return (pixels - mean) / std


@lru_cache(maxsize=8)
def mean_and_deviation(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return `MEAN` and `STD` on a device, each (3, 1, 1); cached, since each copy would wait for a GPU."""
    with torch.inference_mode(False):
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, STD))
        return mean, std


def _resized(rgb: Tensor, transform: ImageTransform) -> Tensor:
    """Return pixels (H, W, 3) of 0 to 255 as 0 to 1 at the model's size, (1, 3, H, W).

    One channel at a time: the values are the same in less than half the time on a CPU, and allocations of three
    float planes fragmented the memory of processes that track for hours.
    """
    pixels = torch.empty((1, 3, *transform.input_hw), device=rgb.device)
    for channel in range(3):
        plane = rgb[..., channel].contiguous()[None, None].float() / 255  # (1, 1, H, W)
        if transform.input_hw != transform.image_hw:
            plane = functional.interpolate(
                plane, transform.input_hw, mode="bilinear", align_corners=False, antialias=True
            )
        pixels[:, channel] = plane[:, 0]
    return pixels


def _prepare_sam1(rgb: npt.NDArray[np.uint8], transform: ImageTransform) -> npt.NDArray[np.float32]:
    height, width = transform.content_hw
    resized = rgb
    if transform.content_hw != transform.image_hw:
        resized = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))
    values = (resized.astype(np.float32) - np.array(MEAN_255, np.float32)) / np.array(STD_255, np.float32)
    padded = np.zeros((1, 3, *transform.input_hw), np.float32)  # zeros after normalising, as Meta pads
    padded[0, :, :height, :width] = values.transpose(2, 0, 1)
    return padded


@dataclass(frozen=True, slots=True, eq=False)
class ImageFeatures:
    """One encoded image.

    Parameters
    ----------
    embedding : Tensor, shape (1, D, h, w)
        Features at stride 16, before any memory.
    high_res_features : two Tensors, shapes (1, D / 8, 4 h, 4 w) and (1, D / 4, 2 h, 2 w), or None
        SAM 2's features for the decoder's upscaling.
    """

    embedding: Tensor
    high_res_features: tuple[Tensor, Tensor] | None
    transform: ImageTransform

    @property
    def grid_hw(self) -> HW:
        """Height and width of the token grid."""
        return (self.embedding.shape[2], self.embedding.shape[3])


@dataclass(frozen=True, slots=True, eq=False)
class MaskPrediction:
    """The mask choices for one prompt.

    Parameters
    ----------
    logits : Tensor, shape (M, h, w), float32
        Choice 0 answers unambiguous prompts, 1 to 3 are alternatives (whole, part, subpart).
    iou : array, shape (M,), float32
        Predicted IoU of each choice.
    presence : float or None
        Object score logit, below 0 if the model sees no object (SAM 2).
    best : int
        The choice that Meta's own rule takes.
    pointers : Tensor, shape (M, D), or None
        Object pointer of each choice (SAM 2).
    best_pointer : int
        The pointer that Meta's own rule takes; differs from `best` where an unstable single mask
        was replaced by an alternative.
    """

    logits: Tensor
    iou: npt.NDArray[np.float32]
    presence: float | None
    best: int
    transform: ImageTransform
    pointers: Tensor | None = None
    best_pointer: int = 0

    def require_choice(self, index: int | None) -> int:
        """Return `index`, or the best choice for None.

        Raises
        ------
        SettingsError
            If there is no such choice.
        """
        if index is None:
            return self.best
        if not 0 <= index < len(self.logits):
            raise SettingsError(
                f"The mask choice is {index}; this prediction has choices 0 to {len(self.logits) - 1}."
            )
        return index

    def mask(self, index: int | None = None) -> npt.NDArray[np.bool_]:
        """Return a choice as (H, W) bool at the image's size."""
        return self.image_logits(index) > 0

    def image_logits(self, index: int | None = None) -> npt.NDArray[np.float32]:
        """Return a choice's logits as (H, W) float32 at the image's size."""
        chosen = self.logits[self.require_choice(index)][None]
        out: npt.NDArray[Any] = self.transform.to_image(chosen)[0].cpu().numpy()
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """The memory of one object in one frame; its parts belong together.

    Parameters
    ----------
    spatial : Tensor, shape (mem_dim, h, w)
        EdgeTAM packs a frame of any size into one row of tokens.
    pointer : Tensor, shape (D,)
    """

    spatial: Tensor
    pointer: Tensor
