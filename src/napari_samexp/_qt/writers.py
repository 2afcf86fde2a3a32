"""What napari saves with this plugin: a run's labels, and the prior of a prompt."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import napari
import numpy as np
import tifffile

from napari_samexp._qt.readers import open_dock
from napari_samexp.io.label_edits import EditableLabels
from napari_samexp.types import PriorError, StoreError

__all__ = ["write_label_store", "write_labels_tiff", "write_prior"]


def write_label_store(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Copy the label store behind a Labels layer, with scores and all that a run needs to go on.

    Raises
    ------
    StoreError
        If the labels come from elsewhere: they have no scores, and nothing that could go on.
    """
    if not isinstance(data, EditableLabels):
        raise StoreError(
            f"{meta.get('name', 'This layer')} was not made by tracking, so it has no scores to store; "
            "save it as TIFF."
        )
    target = Path(path)
    if target.exists():
        raise StoreError(f"{target} exists already; choose another name.")
    shutil.copytree(data.path, target)
    return [path]


def write_labels_tiff(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write labels as a TIFF of one page a frame, frame by frame, so that any length fits into memory."""
    frames = [data] if len(data.shape) == 2 else data
    kind = {1: np.uint8, 2: np.uint16}.get(np.dtype(data.dtype).itemsize, np.uint32)
    with tifffile.TiffWriter(path, bigtiff=int(np.prod(data.shape)) > 2**31) as file:
        for index in range(len(frames)):
            file.write(np.asarray(frames[index]).astype(kind), compression="zlib", contiguous=False)
    return [path]


def write_prior(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save the prior of the dock that a prompt's points belong to.

    Raises
    ------
    PriorError
        If there is no viewer with recordings.
    """
    viewer = napari.current_viewer()
    if viewer is None:
        raise PriorError("There is no viewer, so there is no prior to save.")
    open_dock(viewer).save_prior_to(path)
    return [path]
