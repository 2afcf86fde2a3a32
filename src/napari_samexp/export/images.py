"""Labels as a folder of PNG files in the DAVIS palette, and as a TIFF stack."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from napari_samexp.errors import StoreError
from napari_samexp.io.atomic import absolute_path, os_errors_as_store_errors, partial_file
from napari_samexp.measure.masks import Masks

__all__ = ["davis_palette", "write_png_folder", "write_tiff"]

MAX_PALETTE = 255
OnFrame = Callable[[int], None]


def davis_palette() -> npt.NDArray[np.uint8]:
    """Return the colours of the labels 0 to 255, (256, 3) uint8, which DAVIS took over from PASCAL VOC.

    The bits of a label go to red, green and blue in turn, the lowest to the highest bits of the colours.
    """
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for step in range(8):
        for channel in range(3):
            bit = (numbers >> (3 * step + channel)) & 1
            colours[:, channel] |= (bit << (7 - step)).astype(np.uint8)
    return colours


def write_png_folder(
    path: str | os.PathLike[str],
    masks: Masks,
    *,
    frames: Sequence[int] | None = None,
    on_frame: OnFrame = lambda frame: None,
) -> None:
    """Write each frame as a PNG like ``00000.png`` whose palette indices are the labels, as in DAVIS.

    Raises
    ------
    StoreError
        If the folder is not empty, a label is above 255, or the disk refuses.
    """
    target = absolute_path(Path(path))
    palette = davis_palette().ravel().tolist()
    with os_errors_as_store_errors("write images to", target):
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise StoreError(f"The folder {target} is not empty; choose another --out.")
        for frame in masks.frames if frames is None else frames:
            on_frame(frame)
            labels = masks.frame(frame)
            if labels.max() > MAX_PALETTE:
                raise StoreError(
                    f"Frame {frame} has the label {labels.max()}; a palette has {MAX_PALETTE}, so choose tiff."
                )
            image = Image.fromarray(labels.astype(np.uint8))
            image.putpalette(palette)
            image.save(target / f"{frame:05}.png", optimize=True)


def write_tiff(
    path: str | os.PathLike[str],
    masks: Masks,
    *,
    frames: Sequence[int] | None = None,
    on_frame: OnFrame = lambda frame: None,
) -> None:
    """Write labels as one TIFF with a page for each frame, uint8 or uint16, frame by frame.

    Raises
    ------
    StoreError
        If labels cannot be read or the file cannot be written.
    """
    target = absolute_path(Path(path))
    chosen = list(masks.frames if frames is None else frames)
    if not chosen:
        raise StoreError("The labels have no finished frame to write; track first.")
    kind = _smallest(masks, chosen)
    shape = (len(chosen), *masks.shape[1:])

    def pages() -> Any:
        for frame in chosen:
            on_frame(frame)
            yield masks.frame(frame).astype(kind)

    with os_errors_as_store_errors("write the labels to", target), partial_file(target) as partial:
        big = math.prod(shape) * kind.itemsize > 2**31
        # one series with a shape: written separately, each page would be an image of its own
        with tifffile.TiffWriter(partial, bigtiff=big) as file:
            file.write(
                pages(),
                shape=shape,
                dtype=kind,
                compression="zlib",
                metadata={"axes": "TYX"},
                photometric="minisblack",
            )


def _smallest(masks: Masks, frames: Sequence[int]) -> np.dtype[Any]:
    if masks.names:
        return np.dtype("uint8" if max(masks.names) <= 255 else "uint16")
    return np.dtype(f"u{min(masks.frame(frames[0]).dtype.itemsize, 4)}")
