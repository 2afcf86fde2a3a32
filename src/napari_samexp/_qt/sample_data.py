"""The bundled sample in napari's File > Open Sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_samexp._qt.shown_video import ShownVideo, layer_settings
from napari_samexp.io.video import open_video
from napari_samexp.samples import load_sample

__all__ = ["sample_clip", "sample_picture"]


def sample_picture() -> list[Any]:
    """Return the picture that shows the object, and where it truly is."""
    sample = load_sample()
    truth = {"name": "sample picture truth", "opacity": 0.4, "visible": False}
    return [
        (sample.prior, {"name": "sample picture", "rgb": True}, "image"),
        (sample.prior_mask.astype(np.uint8), truth, "labels"),
    ]


def sample_clip() -> list[Any]:
    """Return the clip in which the object turns up elsewhere, and where it truly is."""
    sample = load_sample()
    video = open_video(sample.clip_path)
    truth = {"name": "sample truth", "axis_labels": ("t", "y", "x"), "opacity": 0.4, "visible": False}
    return [
        (ShownVideo(video, sample.clip_path), layer_settings(video, "sample clip"), "image"),
        (sample.truth.astype(np.uint8), truth, "labels"),
    ]
