"""Measurements of masks: agreement with a ground truth, areas and positions. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_samexp._lazy import lazy_names

if TYPE_CHECKING:
    from napari_samexp.measure.davis import contour_accuracy, jaccard
    from napari_samexp.measure.evaluation import Evaluation, evaluate_masks
    from napari_samexp.measure.masks import open_masks
    from napari_samexp.measure.regions import regions_of, track_points

__all__ = [
    "Evaluation",
    "contour_accuracy",
    "evaluate_masks",
    "jaccard",
    "open_masks",
    "regions_of",
    "track_points",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Evaluation": "evaluation",
        "contour_accuracy": "davis",
        "evaluate_masks": "evaluation",
        "jaccard": "davis",
        "open_masks": "masks",
        "regions_of": "regions",
        "track_points": "regions",
    },
)
