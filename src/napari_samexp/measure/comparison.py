"""Many priors on many videos as a matrix: the scores of each, and how well they agree. No torch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp._text import clean_name
from napari_samexp.errors import LONGEST_SENTENCE, SamexpError, StoreError
from napari_samexp.io.atomic import absolute_path, os_errors_as_store_errors, write_atomic
from napari_samexp.io.csv_file import write_csv
from napari_samexp.io.guarded import read_whole
from napari_samexp.io.labels import LabelStore
from napari_samexp.measure.comparison_file import MAX_BYTES, MEASURES, VERSION, parse_comparison
from napari_samexp.measure.davis import jaccard
from napari_samexp.measure.evaluation import evaluate_masks
from napari_samexp.measure.masks import open_masks, store_masks

__all__ = ["MEASURES", "Cell", "Comparison", "compare_column", "measure_cell"]

Matrix = npt.NDArray[np.float64]
_EXPECTED = "the comparison.json that `napari-samexp compare` wrote"


@dataclass(frozen=True, slots=True)
class Cell:
    """One prior on one video.

    Parameters
    ----------
    row, column : str
    video, store : str
        Absolute paths.
    skip : int
        Extra frames at the start of the store that do not count: repetitions of the video's first frame.
    frames : int
        Finished frames that count.
    presence, found, iou : float
        Mean presence; share of frames and labels in which the object was not lost; mean predicted IoU of
        those. NaN if there are none.
    agreement : float
        Mean J with the masks of the other rows, whatever their labels; NaN if there are none.
    jf : float
        J&F with the ground truth; NaN without one.
    best, worst : int or None
        The frames of the store with the highest and the lowest presence.
    error : str
        Why the cell has no results, if it has none.
    """

    row: str
    column: str
    video: str
    store: str
    skip: int = 0
    frames: int = 0
    presence: float = math.nan
    found: float = math.nan
    iou: float = math.nan
    agreement: float = math.nan
    jf: float = math.nan
    best: int | None = None
    worst: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A matrix of cells.

    Parameters
    ----------
    rows, columns : tuple of str
    cells : tuple of Cell
        One for each row and column, row by row.
    agreement : dict of str to list of list of float
        For each column, the J between the masks of any two rows.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]
    agreement: dict[str, list[list[float]]]

    def cell(self, row: int, column: int) -> Cell:
        """Return the cell of a row and a column."""
        return self.cells[row * len(self.columns) + column]

    def matrix(self, measure: str) -> Matrix:
        """Return one of `MEASURES` for all cells, (R, C) float64; NaN where there is none."""
        values = [getattr(cell, measure) for cell in self.cells]
        return np.array(values, np.float64).reshape(len(self.rows), len(self.columns))

    @property
    def measures(self) -> list[str]:
        """Those of `MEASURES` that any cell has."""
        return [name for name in MEASURES if np.isfinite(self.matrix(name)).any()]

    def write_csv(self, path: Path) -> None:
        """Write a CSV table with a row for each cell; `StoreError` if the disk refuses."""
        names = [field.name for field in fields(Cell)]
        write_csv(path, names, [[_empty_if_nan(getattr(c, name)) for name in names] for c in self.cells])

    def save(self, path: Path) -> None:
        """Write the comparison as JSON, with relative paths inside its folder; `StoreError` if the disk refuses."""
        target = absolute_path(path)
        content = {
            "version": VERSION,
            "rows": self.rows,
            "columns": self.columns,
            "cells": [_to_json(cell, target.parent) for cell in self.cells],
            "agreement": _without_nan(self.agreement),
        }
        with os_errors_as_store_errors("write the comparison to", target):
            write_atomic(target, json.dumps(content, indent=1, allow_nan=False).encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Comparison:
        """Read what `save` wrote.

        Raises
        ------
        StoreError
            If the file is missing, not an ordinary file, damaged, too large or something else.
        """
        target = absolute_path(path)
        with os_errors_as_store_errors("read", target, f"give {_EXPECTED}"):
            data = read_whole(target, MAX_BYTES)
        try:
            content = parse_comparison(data)
        except (ValueError, RecursionError) as error:
            raise StoreError(
                f"{target} is no comparison that can be read ({error}); give {_EXPECTED}."
            ) from None
        return cls(
            tuple(map(clean_name, content["rows"])),
            tuple(map(clean_name, content["columns"])),
            tuple(_from_json(entry, target.parent) for entry in content["cells"]),
            _with_nan(content["agreement"]),
        )


def measure_cell(cell: Cell, ground_truth: Path | None = None) -> Cell:
    """Return a cell with the scores of its store; without a readable store, with the reason.

    Parameters
    ----------
    cell : Cell
    ground_truth : Path, optional
        Ground truth labels of the cell's video.
    """
    try:
        with LabelStore.open(cell.store, mode="r") as store:
            scores = {index: entry for index, entry in store.scores.items() if index >= cell.skip}
            measured = replace(cell, frames=len(scores), **_means(scores))
            return (
                measured
                if ground_truth is None
                else replace(measured, jf=_against(store, ground_truth, cell.skip))
            )
    except SamexpError as error:
        return replace(cell, error=cell.error or str(error))


def compare_column(
    cells: Sequence[Cell], progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[list[Cell], list[list[float]]]:
    """Return the cells of one video with their agreement, and the J of any two of them.

    J is measured in frames that both have finished and in which at least one has a mask. Every label counts as the
    object, since two priors may number it differently.

    Parameters
    ----------
    cells : sequence of Cell
    progress : callable, optional
        Called with the number of frames done and in total.

    Returns
    -------
    cells : list of Cell
    table : list of list of float
        J, with 1 on the diagonal and NaN where there is none.
    """
    count = len(cells)
    sums, numbers = np.zeros((count, count)), np.zeros((count, count))
    stores = [_opened(cell) for cell in cells]
    last = max((store.shape[0] - cell.skip for cell, store in zip(cells, stores) if store), default=0)
    for frame in range(last):
        progress(frame, last)
        masks = [_mask(cell, store, frame) for cell, store in zip(cells, stores)]
        for one in range(count):
            for other in range(one):
                _add(sums, numbers, one, other, masks)
    with np.errstate(invalid="ignore", divide="ignore"):
        table = sums / numbers
    np.fill_diagonal(table, math.nan)
    agreed = [replace(cell, agreement=_mean(row)) for cell, row in zip(cells, table)]
    np.fill_diagonal(table, 1.0)
    return agreed, table.tolist()


def _means(scores: dict[int, Any]) -> dict[str, Any]:
    flat = [score for entry in scores.values() for score in entry.values()]
    by_frame = {index: _mean([s.presence for s in entry.values()]) for index, entry in scores.items()}
    return {
        "presence": _mean([score.presence for score in flat]),
        "found": _mean([float(not score.lost) for score in flat]),
        "iou": _mean([score.iou for score in flat if not score.lost]),
        "best": max(by_frame, key=by_frame.__getitem__, default=None),
        "worst": min(by_frame, key=by_frame.__getitem__, default=None),
    }


def _against(store: LabelStore, ground_truth: Path, skip: int) -> float:
    found = store_masks(store)
    with open_masks(ground_truth) as right:
        if not skip:
            return evaluate_masks(found, right).jf
        later = replace(
            found,
            shape=(found.shape[0] - skip, *found.shape[1:]),
            read=lambda index: found.read(index + skip),
            scores={index - skip: entry for index, entry in (found.scores or {}).items() if index >= skip},
        )
        return evaluate_masks(later, right).jf


def _opened(cell: Cell) -> LabelStore | None:
    try:
        return None if cell.error else LabelStore.open(cell.store, mode="r")
    except StoreError:
        return None


def _mask(cell: Cell, store: LabelStore | None, frame: int) -> npt.NDArray[np.bool_] | None:
    index = frame + cell.skip
    if store is None or index >= store.shape[0] or store.missing([index]):
        return None
    mask: npt.NDArray[np.bool_] = store.frame(index) > 0
    return mask


def _add(sums: Matrix, numbers: Matrix, one: int, other: int, masks: Sequence[Any]) -> None:
    a, b = masks[one], masks[other]
    if a is None or b is None or a.shape != b.shape or not (a.any() or b.any()):
        return
    value = jaccard(a, b)
    for place in ((one, other), (other, one)):
        sums[place] += value
        numbers[place] += 1


def _mean(values: Sequence[float] | Matrix) -> float:
    known = [float(value) for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _empty_if_nan(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _to_json(cell: Cell, folder: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for key, value in asdict(cell).items():
        entry[key] = None if isinstance(value, float) and math.isnan(value) else value
    for key in ("video", "store"):
        path = Path(entry[key])
        entry[key] = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
    return entry


def _from_json(entry: dict[str, Any], folder: Path) -> Cell:
    values = {**entry, **{name: _nan_if_none(entry[name]) for name in MEASURES}}
    for key in ("row", "column"):
        values[key] = clean_name(values[key])
    values["error"] = clean_name(values["error"], LONGEST_SENTENCE)
    for key in ("video", "store"):
        values[key] = str(folder / values[key])
    return Cell(**values)


def _nan_if_none(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _without_nan(tables: dict[str, list[list[float]]]) -> dict[str, Any]:
    return {
        name: [[value if math.isfinite(value) else None for value in row] for row in table]
        for name, table in tables.items()
    }


def _with_nan(tables: dict[str, Any]) -> dict[str, list[list[float]]]:
    return {
        clean_name(name): [list(map(_nan_if_none, row)) for row in table] for name, table in tables.items()
    }
