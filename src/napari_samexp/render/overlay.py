"""Labels drawn over their video: an MP4 to watch and a sheet of frames to look at once. No torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import imageio.v3 as imageio
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from napari_samexp.errors import StoreError
from napari_samexp.io.atomic import absolute_path, os_errors_as_store_errors, write_atomic
from napari_samexp.io.labels import LabelStore
from napari_samexp.render.drawing import DARK, colour_of, draw_legend, font, paint, text_width
from napari_samexp.render.mp4 import write_mp4
from napari_samexp.types import VideoSource

__all__ = ["colour_of", "contact_sheet", "paint", "tile_sheet", "write_overlay", "write_png"]

RgbImage = npt.NDArray[np.uint8]
Labels = npt.NDArray[Any]


def write_overlay(
    path: str | os.PathLike[str],
    video: VideoSource,
    labels: LabelStore | Any,
    *,
    frames: Iterable[int] | None = None,
    names: Mapping[int, str] | None = None,
    alpha: float = 0.5,
) -> None:
    """Write a video with its labels drawn over it as an H.264 MP4, frame by frame.

    Parameters
    ----------
    path : path
        Replaced, if it exists, when the new file is complete.
    video : VideoSource
    labels : LabelStore or array, shape (T, Y, X)
    frames : iterable of int, optional
        Which frames, in which order; by default all.
    names : mapping of int to str, optional
        What labels are called; by default as in the store. Each gets a line in the corner, which also
        says where the object is lost.
    alpha : float
        Strength of the tint, 0 to 1.

    Raises
    ------
    StoreError
        If labels and video differ in size, or the file cannot be written.
    VideoError
        If a frame cannot be decoded or encoded.
    """
    of_frame = _of_frame(video, labels)
    known = _names(labels, names)
    lost = _lost(labels, of_frame, list(known))

    def drawn() -> Iterator[RgbImage]:
        for index in range(len(video)) if frames is None else frames:
            image = paint(video.frame(index), of_frame(index), alpha=alpha)
            draw_legend(image, index, known, lost(index))
            yield image

    write_mp4(path, drawn(), video.fps)


def contact_sheet(
    video: VideoSource,
    labels: LabelStore | Any,
    *,
    frames: Sequence[int] | None = None,
    count: int = 24,
    columns: int = 6,
    names: Mapping[int, str] | None = None,
    notes: Mapping[int, str] | None = None,
    lead: Sequence[tuple[RgbImage, str]] = (),
) -> RgbImage:
    """Return a sheet of frames with their labels, numbers, and marks where an object is lost.

    Parameters
    ----------
    video : VideoSource
    labels : LabelStore or array, shape (T, Y, X)
    frames : sequence of int, optional
        The frames to choose from; by default those that the store has done, or all.
    count : int
        How many are shown, evenly spread.
    columns : int
    names : mapping of int to str, optional
        What labels are called; by default as in the store.
    notes : mapping of int to str, optional
        A few words on frames.
    lead : sequence of (image, words)
        Images to put first.

    Returns
    -------
    array, shape (H, W, 3), uint8

    Raises
    ------
    StoreError
        If labels and video differ in size.
    VideoError
        If a frame cannot be decoded.
    """
    of_frame = _of_frame(video, labels)
    known = _names(labels, names)
    lost = _lost(labels, of_frame, list(known))
    height, width = video.shape[1:3]
    size = _tile_size(height, width)
    cells = [_Cell(_fitted(image, size), title) for image, title in lead]
    for index in _spread(_shown(labels, frames, len(video)), count):
        tile = paint(_resized(video.frame(index), size), _resized_labels(of_frame(index), size))
        cells.append(_Cell(tile, str(index), (notes or {}).get(index, ""), _lost_words(lost(index), known)))
    return _sheet(cells, columns, size)


def tile_sheet(tiles: Sequence[tuple[RgbImage, str]], columns: int) -> RgbImage:
    """Return a sheet of images (H, W, 3) uint8 with words of one or two lines below each."""
    gap, high = 8, 40
    page = Image.new("RGB", _page_size(len(tiles), columns, (_TILE, _TILE + high), gap), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    for place, (image, words) in enumerate(tiles):
        row, column = divmod(place, columns)
        left, top = gap + column * (_TILE + gap), gap + row * (_TILE + high + gap)
        tile = _fitted(image, (_TILE, _TILE))
        page.paste(Image.fromarray(tile), (left, top))
        for line, text in enumerate(words.split("\n")[:2]):
            y = top + tile.shape[0] + 2 + line * (high // 2)
            draw.text((left, y), _cut(text, _TILE), _MUTED if line else DARK, font(_WORDS), anchor="lt")
    return np.asarray(page)


def write_png(path: str | os.PathLike[str], image: RgbImage) -> None:
    """Write an image (H, W, 3) uint8 as PNG; `StoreError` if that fails, and an older file is kept then."""
    target = absolute_path(path)
    with os_errors_as_store_errors("write the image", target):
        write_atomic(target, imageio.imwrite("<bytes>", image, extension=".png", optimize=True))


# ---- labels


def _of_frame(video: VideoSource, labels: LabelStore | Any) -> Callable[[int], Labels]:
    if tuple(labels.shape) != tuple(video.shape[:3]):
        raise StoreError(
            f"The labels have shape {tuple(labels.shape)} and the video {tuple(video.shape[:3])}; give the "
            "labels of this video."
        )
    if isinstance(labels, LabelStore):
        return labels.frame
    return lambda index: np.asarray(labels[index])


def _names(labels: LabelStore | Any, names: Mapping[int, str] | None) -> dict[int, str]:
    known = labels.names if isinstance(labels, LabelStore) else {}
    return {label: " ".join(name.split()) for label, name in {**known, **(names or {})}.items()}


def _lost(
    labels: LabelStore | Any, of_frame: Callable[[int], Labels], known: Sequence[int]
) -> Callable[[int], list[int]]:
    """Return a function from a frame to the labels lost in it, by their scores or else by the pixels."""
    if isinstance(labels, LabelStore):
        scores = labels.scores
        return lambda index: [label for label, score in scores.get(index, {}).items() if score.lost]
    return lambda index: sorted(set(known) - set(np.unique(of_frame(index)).tolist()))


def _shown(labels: LabelStore | Any, frames: Sequence[int] | None, total: int) -> Sequence[int]:
    if frames is not None:
        return frames
    return np.flatnonzero(labels.done).tolist() if isinstance(labels, LabelStore) else range(total)


def _spread(frames: Sequence[int], count: int) -> list[int]:
    places = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    return [int(frames[place]) for place in places]


# ---- the sheet

_TILE = 208  # pixels, the longer side
_GAP, _MARGIN, _CAPTION, _WORDS = 10, 16, 24, 14
_MUTED, _WARNING = (110, 110, 118), (176, 58, 0)


class _Cell(NamedTuple):
    """A tile with the words under it: what it is, a note, and a warning."""

    tile: RgbImage
    title: str
    note: str = ""
    warning: str = ""


def _tile_size(height: int, width: int) -> tuple[int, int]:
    scale = _TILE / max(height, width)
    return max(8, round(height * scale)), max(8, round(width * scale))


def _resized(image: RgbImage, size: tuple[int, int]) -> RgbImage:
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def _resized_labels(labels: Labels, size: tuple[int, int]) -> Labels:
    """Pick the nearest pixels; Pillow knows no 16-bit image that it would resize."""
    rows, columns = (((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(size, labels.shape))
    return np.asarray(labels[rows[:, None], columns])


def _fitted(image: RgbImage, size: tuple[int, int]) -> RgbImage:
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    return _resized(image, (max(1, int(image.shape[0] * scale)), max(1, int(image.shape[1] * scale))))


def _lost_words(lost: Sequence[int], names: Mapping[int, str]) -> str:
    if not lost:
        return ""
    if len(names) <= 1:
        return "lost"
    return f"lost: {', '.join(names.get(label) or str(label) for label in lost)}"


def _sheet(cells: Sequence[_Cell], columns: int, size: tuple[int, int]) -> RgbImage:
    columns = max(1, min(columns, len(cells)))
    rows = -(-len(cells) // columns)
    step_y, step_x = size[0] + _CAPTION + _GAP, size[1] + _GAP
    outer = 2 * _MARGIN - _GAP
    page = Image.new("RGB", (outer + columns * step_x, outer + rows * step_y), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    for place, cell in enumerate(cells):
        row, column = divmod(place, columns)
        left, top = _MARGIN + column * step_x, _MARGIN + row * step_y
        page.paste(Image.fromarray(cell.tile), (left, top))
        _caption(draw, cell, left, left + size[1], top + size[0] + _CAPTION // 2)
    return np.asarray(page)


def _caption(draw: ImageDraw.ImageDraw, cell: _Cell, left: int, right: int, middle: int) -> None:
    """Title and note at the left, the warning at the right as far as there is room."""
    for text, colour in ((cell.title, DARK), (cell.note, _MUTED)):
        draw.text((left, middle), text, colour, font(_WORDS), anchor="lm")
        left += text_width(text, _WORDS) + _GAP if text else 0
    draw.text((right, middle), _cut(cell.warning, right - left), _WARNING, font(_WORDS), anchor="rm")


def _page_size(count: int, columns: int, tile: tuple[int, int], gap: int) -> tuple[int, int]:
    rows = max(1, -(-count // columns))
    return gap + min(columns, max(1, count)) * (tile[0] + gap), gap + rows * (tile[1] + gap)


def _cut(text: str, room: int) -> str:
    if text_width(text, _WORDS) <= room:
        return text
    while text and text_width(text + "...", _WORDS) > room:
        text = text[:-1]
    return text + "..." if text else ""
