"""The models: SAM 1, SAM 2 and SAM 2.1 in plain torch."""

from napari_samexp.sam.features import ImageFeatures, MaskPrediction, Memory
from napari_samexp.sam.loading import load_model
from napari_samexp.sam.models import Sam1, Sam2
from napari_samexp.sam.variants import VARIANTS, Sam1Variant, Sam2Variant, Variant

__all__ = [
    "VARIANTS",
    "ImageFeatures",
    "MaskPrediction",
    "Memory",
    "Sam1",
    "Sam1Variant",
    "Sam2",
    "Sam2Variant",
    "Variant",
    "load_model",
]
