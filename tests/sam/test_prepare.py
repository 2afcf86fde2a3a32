"""Images on their way to the model: the same on every device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_samexp.sam.features import _prepare_sam2, place, prepare, prepare_on
from napari_samexp.sam.variants import VARIANTS

IMAGE = np.random.default_rng(1).integers(0, 256, (37, 50, 3), np.uint8)


@pytest.mark.parametrize("name", ["sam_vit_b", "sam2.1_hiera_tiny"])
@pytest.mark.parametrize("square", [True, False])
def test_a_device_gets_what_numpy_gets(name: str, square: bool) -> None:
    variant = VARIANTS[name]
    expected, where = prepare(IMAGE, variant, 64, square)
    found, transform = prepare_on(IMAGE, variant, 64, square, torch.device("cpu"))
    assert transform == where
    np.testing.assert_array_equal(found.numpy(), expected)


def test_pixels_that_were_moved_first_give_the_same() -> None:
    variant = VARIANTS["sam2.1_hiera_tiny"]
    expected, transform = prepare(IMAGE, variant, 64, True)
    assert transform == place(variant, IMAGE.shape[:2], 64, True)
    np.testing.assert_array_equal(_prepare_sam2(torch.from_numpy(IMAGE), transform).numpy(), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_resizes_as_the_cpu_does() -> None:
    variant = VARIANTS["sam2.1_hiera_tiny"]
    expected, _ = prepare(IMAGE, variant, 64, True)
    found, _ = prepare_on(IMAGE, variant, 64, True, torch.device("cuda"))
    assert found.device.type == "cuda"
    np.testing.assert_allclose(found.cpu().numpy(), expected, atol=1e-4)
