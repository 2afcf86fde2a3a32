"""The bundled sample: an image of an object, and a clip of another scene with the same object. No torch.

The files were drawn by ``training/make_sample.py``, as a scene that the starter was not trained on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_samexp.io.image import read_image

__all__ = ["Sample", "load_sample"]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One drawn scene with its ground truth.

    Parameters
    ----------
    prior : array, shape (H, W, 3), uint8
        The image that shows the object.
    prior_mask : array, shape (H, W), bool
        The object in it.
    points_xy : array, shape (N, 2), float32
        Clicks on `prior`, in pixels.
    labels : array, shape (N,), int64
        1 where a click is on the object, 0 on background.
    clip_path : Path
        The clip, an MP4 file.
    ground_truth : array, shape (T, H, W), bool
        The visible part of the object in each frame.
    """

    prior: npt.NDArray[np.uint8]
    prior_mask: npt.NDArray[np.bool_]
    points_xy: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    clip_path: Path
    ground_truth: npt.NDArray[np.bool_]


def load_sample() -> Sample:
    """Return the bundled sample."""
    folder = Path(str(resources.files(__name__)))
    facts = json.loads((folder / "sample.json").read_text("utf-8"))
    prior_mask = read_image(folder / "prior_mask.png").astype(bool)
    # one black and white image with the masks of all frames below one another
    ground_truth = read_image(folder / "truth.png").astype(bool)
    return Sample(
        prior=read_image(folder / "prior.png"),
        prior_mask=prior_mask,
        points_xy=np.array(facts["points_xy"], np.float32),
        labels=np.array(facts["point_labels"], np.int64),
        clip_path=folder / "clip.mp4",
        ground_truth=ground_truth.reshape(facts["frames"], -1, ground_truth.shape[1]),
    )
