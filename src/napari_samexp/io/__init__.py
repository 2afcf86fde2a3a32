"""Videos, images and labels on disk. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_samexp._lazy import lazy_names

if TYPE_CHECKING:
    from napari_samexp.io.image import read_image
    from napari_samexp.io.labels import LabelStore
    from napari_samexp.io.video import LazyVideo, open_video, read_frame

__all__ = ["LabelStore", "LazyVideo", "open_video", "read_frame", "read_image"]

# reading a label store needs no video decoder, and the other way round
__getattr__ = lazy_names(
    __name__,
    {
        "LabelStore": "labels",
        "LazyVideo": "video",
        "open_video": "video",
        "read_frame": "video",
        "read_image": "image",
    },
)
