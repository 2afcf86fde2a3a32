"""Real images: scikit-image's coins, one click a coin, and its cell, a click in each of several places."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_samexp.sam import load_model
from napari_samexp.types import Prompt
from training.measure import inner_point, jaccard


def coins() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-image's image of coins and a map of them, found by flooding from what is surely coin or not.

    Raises
    ------
    ImportError
        If scikit-image is not installed.
    """
    from skimage import data, filters, segmentation

    image = data.coins()
    sure = np.zeros(image.shape, np.int32)
    sure[image < 30], sure[image > 150] = 1, 2
    filled = ndimage.binary_fill_holes(segmentation.watershed(filters.sobel(image), sure) == 2)
    parts, _ = ndimage.label(filled)
    areas = np.bincount(parts.ravel())
    kept = [k for k in range(1, len(areas)) if areas[k] > 500]
    return image, np.isin(parts, kept) * parts


def cell() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-image's image of a cell with its halo and the cell's mask, found by Otsu's threshold.

    Raises
    ------
    ImportError
        If scikit-image is not installed.
    """
    from skimage import data, filters

    image = data.cell()
    smooth = ndimage.gaussian_filter(image.astype(float), 2)
    parts, _ = ndimage.label(ndimage.binary_fill_holes(smooth > filters.threshold_otsu(smooth)))
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    return image, parts == areas.argmax()


def measure_real(weights: str, side: int | None) -> dict[str, list[float]]:
    """Return the J of each coin from one click in its middle, and of the cell from one click in each of ten places."""
    image, parts = coins()
    targets = [(parts == k, 0.9, int(k)) for k in np.unique(parts[parts > 0])]
    single, mask = cell()
    asked = {"coins": (image, targets), "cell": (single, [(mask, 0.5, k) for k in range(10)])}
    model = load_model(weights, device="cpu")
    scores: dict[str, list[float]] = {}
    for name, (image, things) in asked.items():
        features = model.encode(image, side=side)
        scores[name] = []
        for thing, middle, seed in things:
            point = inner_point(thing, np.random.default_rng(seed), middle)
            prediction = model.segment(features, Prompt(point[None], np.array([1])))
            scores[name].append(jaccard(prediction.mask(), thing))
    return scores
