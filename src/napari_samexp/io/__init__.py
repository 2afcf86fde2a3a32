"""Videos, pictures and labels on disk. No torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_samexp.io.image import read_image
    from napari_samexp.io.labels import LabelStore
    from napari_samexp.io.video import LazyVideo, open_video, read_frame

__all__ = ["LabelStore", "LazyVideo", "open_video", "read_frame", "read_image"]

# loaded when first used: reading a label store needs no video decoder, and the other way round
_HOMES = {"LabelStore": "labels", "LazyVideo": "video", "open_video": "video", "read_frame": "video", "read_image": "image"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
