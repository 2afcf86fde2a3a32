"""The bundled sample in napari's File > Open Sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_samexp._qt.shown_video import ShownVideo, add_video, layer_settings
from napari_samexp.io.video import open_video
from napari_samexp.samples import load_sample

__all__ = ["sample_clip", "sample_image", "show_samples"]

BESIDE = 1.1  # image widths to the left of the clip, so that both are visible


def sample_image() -> list[Any]:
    """Return the image of the object, with ground truth."""
    sample = load_sample()
    ground_truth = {"name": "sample image ground truth", "opacity": 0.4, "visible": False}
    return [
        (sample.prior, {"name": "sample image", "rgb": True}, "image"),
        (sample.prior_mask.astype(np.uint8), ground_truth, "labels"),
    ]


def sample_clip() -> list[Any]:
    """Return the clip to find the object in, with ground truth."""
    sample = load_sample()
    video = open_video(sample.clip_path)
    ground_truth = {
        "name": "sample ground truth",
        "axis_labels": ("t", "y", "x"),
        "opacity": 0.4,
        "visible": False,
    }
    return [
        (ShownVideo(video, sample.clip_path), layer_settings(video, "sample clip"), "image"),
        (sample.ground_truth.astype(np.uint8), ground_truth, "labels"),
    ]


def show_samples(viewer: Any) -> None:
    """Show the image and the clip side by side."""
    sample = load_sample()
    viewer.add_image(
        sample.prior, name="sample image", rgb=True, translate=(0, -BESIDE * sample.prior.shape[1])
    )
    add_video(viewer, open_video(sample.clip_path), "sample clip", sample.clip_path)
    viewer.reset_view()
