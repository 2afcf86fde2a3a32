"""Labels as an OME-Zarr 0.5 label image (Moore et al., 2023): zarr 3, one chunk for each frame."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari_samexp.errors import StoreError
from napari_samexp.io.atomic import absolute_path, os_errors_as_store_errors, partial_name
from napari_samexp.measure.masks import Masks
from napari_samexp.render.overlay import colour_of

__all__ = ["write_ome_zarr"]

VERSION = "0.5"


def write_ome_zarr(
    path: str | os.PathLike[str],
    masks: Masks,
    *,
    fps: float | None = None,
    frames: Sequence[int] | None = None,
    on_frame: Callable[[int], None] = lambda frame: None,
) -> None:
    """Write labels as a group with one level ``0`` (T, Y, X) at full size, with the names and colours of labels.

    Parameters
    ----------
    fps : float, optional
        Frames a second, for the scale of the time axis; without it, the axis counts frames.
    frames : sequence of int, optional
        Which frames are written; the others are empty, so that indices are those of the video.

    Raises
    ------
    StoreError
        If there is something at `path`, labels cannot be read, or the disk refuses.
    """
    import zarr

    target = absolute_path(Path(path))
    if os.path.lexists(target):
        raise StoreError(f"{target} exists; choose another --out.")
    building = partial_name(target)
    with os_errors_as_store_errors("write the labels to", target):
        building.mkdir(parents=True)  # it is new, so it may be removed on failure
        try:
            group = zarr.open_group(building, mode="w-", zarr_format=3)
            group.attrs["ome"] = _metadata(target.name, masks, fps)
            array = group.create_array(
                "0", shape=masks.shape, chunks=(1, *masks.shape[1:]), dtype=_dtype(masks),
                fill_value=0, dimension_names=("t", "y", "x"),
            )  # fmt: skip
            for frame in masks.frames if frames is None else frames:
                on_frame(frame)
                array[frame] = masks.frame(frame)
            building.rename(target)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise


def _metadata(name: str, masks: Masks, fps: float | None) -> dict[str, Any]:
    time: dict[str, Any] = {"name": "t", "type": "time"} | ({"unit": "second"} if fps else {})
    space = [{"name": axis, "type": "space"} for axis in ("y", "x")]
    scale = [1 / fps if fps else 1.0, 1.0, 1.0]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    return {
        "version": VERSION,
        "multiscales": [{"name": name, "axes": [time, *space], "datasets": [level]}],
        "image-label": {
            "colors": [{"label-value": label, "rgba": [*colour_of(label), 255]} for label in masks.names],
            "properties": [{"label-value": label, "name": text} for label, text in masks.names.items()],
        },
    }


def _dtype(masks: Masks) -> str:
    known = max(masks.names, default=0)
    if masks.names:
        return "uint8" if known <= 255 else "uint16"
    return str(masks.frame(0).dtype)
