"""Images of a comparison: heat maps, and a sheet of best and worst frames. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import SamexpError
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.video import open_video
from napari_samexp.measure.comparison import MEASURES, Cell, Comparison
from napari_samexp.render.charts import heat_map, line_chart
from napari_samexp.render.overlay import paint, tile_sheet

__all__ = ["best_and_worst", "heat_maps", "vary_charts"]

MAX_CELLS = 24  # on a sheet
COLUMNS = 6

RgbImage = npt.NDArray[np.uint8]


def heat_maps(comparison: Comparison) -> RgbImage:
    """Return a heat map of each measure, below one another, (H, W, 3) uint8."""
    images = []
    for measure in comparison.measures:
        values = comparison.matrix(measure)
        limits = _limits(values) if measure == "presence" else (0.0, 1.0)
        title = MEASURES[measure]
        images.append(heat_map(values, comparison.rows, comparison.columns, title=title, limits=limits))
    return _stacked(images)


def best_and_worst(comparison: Comparison) -> RgbImage:
    """Return a sheet with the frames of highest and lowest presence of each cell, with their labels.

    Of more than 24 cells, 24 evenly spread ones.

    Returns
    -------
    array, shape (H, W, 3), uint8
    """
    usable = [cell for cell in comparison.cells if cell.frames]
    places = np.linspace(0, len(usable) - 1, min(len(usable), MAX_CELLS)).round().astype(int)
    tiles = [tile for place in places for tile in _tiles(usable[place])]
    return tile_sheet(tiles, COLUMNS)


def vary_charts(
    name: str, words: Sequence[str], curves: dict[str, list[int]], comparison: Comparison
) -> RgbImage:
    """Return a chart of each measure over the values of the setting that was varied, (H, W, 3) uint8.

    Parameters
    ----------
    words : sequence of str
        The values.
    curves : dict of str to list of int
        For each curve the comparison's rows, one a value; a curve's height is the mean over the columns.
    """
    images = []
    for measure in comparison.measures:
        values = comparison.matrix(measure)
        means = [_mean(row) for row in values]
        series = {
            curve: (list(range(len(words))), [means[row] for row in rows]) for curve, rows in curves.items()
        }
        limits = _limits(np.array(means)) if measure == "presence" else (0.0, 1.0)
        title = f"{MEASURES[measure]}, mean over {len(comparison.columns)} columns"
        images.append(line_chart(series, title=title, x_name=name, limits=limits, x_words=words))
    return _stacked(images)


def _tiles(cell: Cell) -> Iterator[tuple[RgbImage, str]]:
    frames = [
        (word, frame) for word, frame in (("best", cell.best), ("worst", cell.worst)) if frame is not None
    ]
    if cell.best == cell.worst:
        frames = frames[:1]
    try:
        with (
            open_video(cell.video, cache_bytes=2**26) as video,
            LabelStore.open(cell.store, mode="r") as store,
        ):
            for word, frame in frames:
                presence = np.mean([score.presence for score in store.scores[frame].values()])
                image = paint(video.frame(max(0, frame - cell.skip)), store.frame(frame))
                title = f"{cell.row} > {cell.column}"
                yield image, f"{title}\n{word}, frame {frame - cell.skip}, {presence:+.1f}"
    except SamexpError:  # the video is gone; the numbers remain
        return


def _limits(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return whole numbers around all values and 0, below which an object is lost."""
    known = [0.0, 1.0, *values[np.isfinite(values)].tolist()]
    return float(math.floor(min(known))), float(math.ceil(max(known)))


def _mean(row: npt.NDArray[np.float64]) -> float:
    known = row[np.isfinite(row)]
    return float(known.mean()) if len(known) else math.nan


def _stacked(images: Sequence[RgbImage]) -> RgbImage:
    if not images:
        return np.full((8, 8, 3), 255, np.uint8)
    width = max(image.shape[1] for image in images)
    return np.concatenate(
        [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in images]
    )
