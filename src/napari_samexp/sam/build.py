"""A model of each family from its parts."""

from __future__ import annotations

from napari_samexp.sam.base import UNKNOWN, Provenance
from napari_samexp.sam.edgetam import EdgeTam
from napari_samexp.sam.hiera import ImageEncoder
from napari_samexp.sam.memory import MemoryAttention
from napari_samexp.sam.sam1 import Sam1
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.sam.variants import EdgeTamVariant, Sam1Variant, Variant

__all__ = ["new_model"]


def new_model(variant: Variant, provenance: Provenance = UNKNOWN) -> Sam1 | Sam2:
    """Return a model of a variant with initial parameters; `load_model` gives one with weights."""
    if isinstance(variant, Sam1Variant):
        return Sam1(variant, provenance)
    if isinstance(variant, EdgeTamVariant):
        return EdgeTam(variant, provenance)
    return Sam2(variant, ImageEncoder(variant), MemoryAttention(variant), provenance)
