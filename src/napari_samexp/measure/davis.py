"""Region similarity J and contour accuracy F of the DAVIS benchmark (Perazzi et al., 2016).

Pont-Tuset et al. (2017) give the statistics over a sequence: mean, recall and decay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import SettingsError

__all__ = ["TOLERANCE", "Statistics", "contour_accuracy", "jaccard", "outline", "statistics"]

TOLERANCE = 0.008  # of the image's diagonal
_RECALL_ABOVE = 0.5
_QUARTERS = 4

Mask = npt.NDArray[np.bool_]


def jaccard(found: npt.NDArray[Any], ground_truth: npt.NDArray[Any]) -> float:
    """Return J, the intersection over union of two masks (H, W); nonzero is the object, and two empty ones give 1."""
    one, other = found.astype(bool), ground_truth.astype(bool)
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


def contour_accuracy(
    found: npt.NDArray[Any], ground_truth: npt.NDArray[Any], tolerance: float = TOLERANCE
) -> float:
    """Return F, the harmonic mean of the precision and recall of a mask's contour.

    A contour pixel is correct if the other contour has a pixel within the tolerance, rounded up to whole pixels.

    Parameters
    ----------
    found, ground_truth : array, shape (H, W)
        Nonzero is the object.
    tolerance : float
        Fraction of the image's diagonal; from 1 on, pixels.

    Returns
    -------
    float
        0 to 1; 1 if both masks are empty, 0 if one is.

    Raises
    ------
    SettingsError
        If the tolerance is not a positive number.
    """
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise SettingsError(f"The tolerance is {tolerance!r}; give a positive share of the diagonal.")
    radius = tolerance if tolerance >= 1 else math.ceil(tolerance * math.hypot(*found.shape))
    one, other = outline(found), outline(ground_truth)
    counts = np.count_nonzero(one), np.count_nonzero(other)
    if not all(counts):
        return float(counts[0] == counts[1])
    precision = np.count_nonzero(one & _within(other, radius)) / counts[0]
    recall = np.count_nonzero(other & _within(one, radius)) / counts[1]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def outline(mask: npt.NDArray[Any]) -> Mask:
    """Return a mask's contour, (H, W) bool, one pixel wide: where a pixel differs from its right, lower or diagonal neighbour.

    It is shifted by half a pixel to the upper left, as in the benchmark, which follows Martin et al. (2004).
    """
    inside = mask.astype(bool)
    next_to = np.pad(inside, ((0, 1), (0, 1)), mode="edge")
    right, below, across = next_to[:-1, 1:], next_to[1:, :-1], next_to[1:, 1:]
    edge: Mask = (inside != right) | (inside != below) | (inside != across)
    return edge


def _within(mask: Mask, radius: float) -> Mask:
    """Return the pixels within `radius` of a mask that is not empty."""
    from scipy import ndimage

    # equal to dilation with a disc, and as fast for a large one
    distances: npt.NDArray[np.float64] = ndimage.distance_transform_edt(~mask)
    return distances <= radius


@dataclass(frozen=True, slots=True)
class Statistics:
    """A measure over a sequence.

    Parameters
    ----------
    mean : float
    recall : float
        Fraction of frames above 0.5.
    decay : float
        Mean of the first quarter of the sequence minus that of the last.
    """

    mean: float
    recall: float
    decay: float


def statistics(values: Sequence[float]) -> Statistics:
    """Return mean, recall and decay of values in temporal order; NaN if there are none.

    Adjacent quarters share a frame, as in the benchmark.
    """
    if not len(values):
        return Statistics(math.nan, math.nan, math.nan)
    series = np.asarray(values, np.float64)
    # round half up as the benchmark does; numpy would round half to even
    ends = np.round(np.linspace(1, len(series), _QUARTERS + 1) + 1e-10).astype(int) - 1
    first, last = series[ends[0] : ends[1] + 1], series[ends[-2] : ends[-1] + 1]
    return Statistics(
        float(series.mean()), float((series > _RECALL_ABOVE).mean()), float(first.mean() - last.mean())
    )
