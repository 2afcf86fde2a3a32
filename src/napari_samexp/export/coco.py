"""Masks as COCO's run lengths: counts along columns, written as the text that COCO's own tools read.

The numbers are how many pixels in turn are outside and inside, beginning outside, down the first column,
then the next. In the text, each from the fourth on is the difference to the number two before; each is cut
into groups of five bits, the lowest first, with a sixth bit where more follow, and 48 added to make a
printable character (as the format's authors publish it with the COCO data set, Lin et al., 2014).
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
    """Return a mask (H, W) as ``{"size": [H, W], "counts": text}``."""
    pixels = mask.astype(bool).ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff([0, *changes, len(pixels)]).tolist()
    if len(pixels) and pixels[0]:
        counts.insert(0, 0)  # they begin outside
    return {"size": list(mask.shape), "counts": "".join(_text(counts))}


def decode_rle(rle: dict[str, Any]) -> Mask:
    """Return the mask (H, W) of what `encode_rle` gives.

    Raises
    ------
    StoreError
        If the text is no run lengths of that size.
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
    seen: Callable[[int], None] = lambda frame: None,
) -> None:
    """Write labels as a COCO file: an image a frame, an annotation where a label is, a category a label.

    ``track_id`` and ``video_id`` tell which annotations are the same object; ``score`` is the model's
    predicted IoU where there is one.

    Parameters
    ----------
    video : str
        What frames' ``file_name`` begins with.
    seen : callable
        Called with each frame before it is read.

    Raises
    ------
    StoreError
        If labels cannot be read or the file cannot be written.
    """
    chosen = list(masks.frames if frames is None else frames)
    annotations = list(_annotations(masks, chosen, seen))
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
    masks: Masks, frames: Sequence[int], seen: Callable[[int], None]
) -> Iterator[dict[str, Any]]:
    number = 0
    for frame in frames:
        seen(frame)
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
            # the top one of a group's five bits is its sign
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
