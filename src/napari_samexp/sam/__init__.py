"""The models: SAM 1, SAM 2, SAM 2.1 and EdgeTAM in plain torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_samexp._lazy import lazy_names

if TYPE_CHECKING:
    from napari_samexp.sam.build import new_model
    from napari_samexp.sam.edgetam import EdgeTam
    from napari_samexp.sam.features import ImageFeatures, MaskPrediction, Memory
    from napari_samexp.sam.sam1 import Sam1
    from napari_samexp.sam.sam2 import Sam2
    from napari_samexp.sam.variants import VARIANTS, EdgeTamVariant, Sam1Variant, Sam2Variant, Variant
    from napari_samexp.sam.weights.loading import load_model

__all__ = [
    "VARIANTS",
    "EdgeTam",
    "EdgeTamVariant",
    "ImageFeatures",
    "MaskPrediction",
    "Memory",
    "Sam1",
    "Sam1Variant",
    "Sam2",
    "Sam2Variant",
    "Variant",
    "load_model",
    "new_model",
]

# a process without torch may read the tables of sizes and files
__getattr__ = lazy_names(
    __name__,
    {
        "VARIANTS": "variants",
        "EdgeTam": "edgetam",
        "EdgeTamVariant": "variants",
        "ImageFeatures": "features",
        "MaskPrediction": "features",
        "Memory": "features",
        "Sam1": "sam1",
        "Sam1Variant": "variants",
        "Sam2": "sam2",
        "Sam2Variant": "variants",
        "Variant": "variants",
        "load_model": "weights.loading",
        "new_model": "build",
    },
)
