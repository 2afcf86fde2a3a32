"""The few parts of torchvision that Meta's code imports, where there is no torchvision.

Written anew on torch and PIL; what automatic masks alone would need does nothing here.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class Resize(nn.Module):
    """(C, H, W) to a size, bilinear with antialiasing."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.height, self.width = size

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(
            x[None], [self.height, self.width], mode="bilinear", align_corners=False, antialias=True
        )[0]


class Normalize(nn.Module):
    """(C, H, W) less a mean, over a deviation."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class ToTensor:
    """(H, W, C) uint8 to (C, H, W) between 0 and 1."""

    def __call__(self, image: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(np.asarray(image))).permute(2, 0, 1).float() / 255


def to_pil_image(image: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(image)


def resize(image: Any, size: tuple[int, int]) -> Any:
    from PIL import Image

    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def install() -> None:
    """Put these in torchvision's place, if it is not there."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        for name, parts in (
            ("torchvision", {}),
            ("torchvision.transforms", {"Normalize": Normalize, "Resize": Resize, "ToTensor": ToTensor}),
            ("torchvision.transforms.functional", {"resize": resize, "to_pil_image": to_pil_image}),
            ("torchvision.ops", {}),
            ("torchvision.ops.boxes", {"batched_nms": None, "box_area": None}),
        ):
            module = types.ModuleType(name)
            vars(module).update(parts)
            sys.modules[name] = module
