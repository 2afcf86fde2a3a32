"""Masks in COCO's compressed run-length encoding (Lin et al., 2014).

The counts are the lengths of alternating runs outside and inside the mask, column by column, starting outside.
In the text, each count from the fourth on is the difference from the count two before it. Each number is split
into groups of five bits, the lowest first; a sixth bit says that more follow, and 48 is added to make a printable
character.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import StoreError
from napari_samexp.io.atomic import absolute_path, os_errors_as_store_errors, write_atomic
from napari_samexp.measure.masks import Masks
from napari_samexp.measure.regions import regions_of

__all__ = ["decode_rle", "encode_rle", "write_coco"]

Mask = npt.NDArray[np.bool_]


def encode_rle(mask: npt.NDArray[Any]) -> dict[str, Any]:
    """Return a mask, (H, W) bool, as ``{"size": [H, W], "counts": text}``."""
    pixels = mask.astype(bool).ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff([0, *changes, len(pixels)]).tolist()
    if len(pixels) and pixels[0]:
        counts.insert(0, 0)  # the first run is outside
    return {"size": list(mask.shape), "counts": "".join(_text(counts))}


def decode_rle(rle: dict[str, Any]) -> Mask:
    """Return the mask, (H, W) bool, that `encode_rle` encoded.

    Raises
    ------
    StoreError
        If the text does not encode a mask of that size.
    """
    height, width = rle["size"]
    counts = _numbers(rle["counts"])
    if sum(counts) != height * width or min(counts, default=0) < 0:
        raise StoreError(f"The run lengths do not fill a mask of {height} x {width}; write them again.")
    values = np.arange(len(counts)) % 2 == 1
    mask: Mask = np.repeat(values, counts).reshape((height, width), order="F")
    return mask


def write_coco(
    path: str | os.PathLike[str],
    masks: Masks,
    *,
    video: str = "",
    frames: Sequence[int] | None = None,
    on_frame: Callable[[int], None] = lambda frame: None,
) -> None:
    """Write labels as a COCO file: an image for each frame, a category for each label, and an annotation for each mask.

    ``track_id`` and ``video_id`` link the annotations of one object; ``score`` is the predicted IoU, if there is
    one.

    Parameters
    ----------
    path : path
    masks : Masks
    video : str
        The start of each frame's ``file_name``.
    frames : sequence of int, optional
        By default all finished frames.
    on_frame : callable
        Called with each frame before it is read.

    Raises
    ------
    StoreError
        If labels cannot be read or the file cannot be written.
    """
    chosen = list(masks.frames if frames is None else frames)
    annotations = list(_annotations(masks, chosen, on_frame))
    known = dict(masks.names) | {a["category_id"]: a.pop("_name") for a in annotations}
    height, width = masks.shape[1:]
    content = {
        "info": {"description": f"Labels of {video or 'a video'}"},
        "videos": [{"id": 1, "name": video, "length": masks.shape[0], "width": width, "height": height}],
        "images": [
            {
                "id": frame + 1, "video_id": 1, "frame_id": frame, "width": width, "height": height,
                "file_name": f"{video or 'frame'}@{frame}",
            }
            for frame in chosen
        ],
        "annotations": annotations,
        "categories": [{"id": label, "name": name or f"object {label}"} for label, name in known.items()],
    }  # fmt: skip
    target = absolute_path(Path(path))
    with os_errors_as_store_errors("write the masks to", target):
        write_atomic(target, json.dumps(content).encode())


def _annotations(
    masks: Masks, frames: Sequence[int], on_frame: Callable[[int], None]
) -> Iterator[dict[str, Any]]:
    number = 0
    for frame in frames:
        on_frame(frame)
        labels = masks.frame(frame)
        for region in regions_of(masks, [frame]):
            if region.area:
                number += 1
                yield {
                    "id": number, "image_id": frame + 1, "video_id": 1, "track_id": region.label,
                    "category_id": region.label, "_name": region.name, "iscrowd": 0, "area": region.area,
                    "bbox": [region.left, region.top, region.width, region.height],
                    "segmentation": encode_rle(labels == region.label),
                    **({} if region.iou is None else {"score": region.iou}),
                }  # fmt: skip


def _text(counts: Sequence[int]) -> Iterator[str]:
    for place, count in enumerate(counts):
        left = count - counts[place - 2] if place > 2 else count
        while True:
            bits, left = left & 31, left >> 5
            # the highest of a group's five bits is the sign
            more = left != (-1 if bits & 16 else 0)
            yield chr((bits | 32 if more else bits) + 48)
            if not more:
                break


def _numbers(text: str) -> list[int]:
    numbers: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            signed = value - (1 << shift) if bits & 16 else value
            numbers.append(signed + numbers[-2] if len(numbers) > 2 else signed)
            value = shift = 0
    return numbers
