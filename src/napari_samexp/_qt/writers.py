"""napari writers: a run's labels, and the prior of a prompt."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import napari
import numpy as np
import tifffile

from napari_samexp._qt.readers import open_dock
from napari_samexp._qt.text import plain_errors
from napari_samexp.errors import PriorError, StoreError
from napari_samexp.io.label_edits import EditableLabels

__all__ = ["write_label_store", "write_labels_tiff", "write_prior"]


@plain_errors()
def write_label_store(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Copy the label store behind a Labels layer, with scores and what a run needs to resume.

    Raises
    ------
    StoreError
        If the labels are not those of a run.
    """
    if not isinstance(data, EditableLabels):
        raise StoreError(
            f"{meta.get('name', 'This layer')} was not made by tracking, so it has no scores to save; "
            "save it as TIFF."
        )
    target = Path(path)
    if target.exists():
        raise StoreError(f"{target} already exists; choose another name.")
    shutil.copytree(data.path, target)
    return [path]


@plain_errors()
def write_labels_tiff(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write labels as a TIFF with one page per frame, frame by frame, so that any length fits into memory."""
    shape = tuple(int(count) for count in data.shape)
    kind = {1: np.uint8, 2: np.uint16}.get(np.dtype(data.dtype).itemsize, np.uint32)
    frames = (np.asarray(data[index]).astype(kind) for index in np.ndindex(shape[:-2]))
    # one series with a shape: pages written one by one would be separate images
    with tifffile.TiffWriter(path, bigtiff=math.prod(shape) > 2**31) as file:
        file.write(
            frames,
            shape=shape,
            dtype=kind,
            compression="zlib",
            metadata={"axes": _axes(meta, shape)},
            photometric="minisblack",
        )
    return [path]


@plain_errors()
def write_prior(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save the recordings of the dock that the points belong to.

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


def _axes(meta: dict[str, Any], shape: tuple[int, ...]) -> str:
    """Return TIFF axis letters; Q for an axis without one."""
    names = meta.get("axis_labels") or ()
    letters = [str(name).upper() if str(name).upper() in "TCZ" else "Q" for name in names]
    front = letters[-len(shape) : -2] if len(letters) >= len(shape) else ["Q"] * (len(shape) - 2)
    return "".join(front) + "YX"
