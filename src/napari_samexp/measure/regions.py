"""Position and area of each label in each frame: as a table, and as tracks of the centroids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp.io.csv_file import write_csv
from napari_samexp.measure.masks import Masks

__all__ = ["Region", "label_features", "regions_of", "track_points", "write_regions_csv"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Region:
    """A label in one frame.

    Parameters
    ----------
    area : int
        In pixels; if 0, the label is not in the frame, and centroid and box are None.
    x, y : float or None
        The centroid in pixels; (0, 0) is the centre of the top left pixel.
    left, top, width, height : int or None
        The bounding box in pixels.
    presence, iou : float or None
        The model's scores; None if there are none.
    """

    frame: int
    label: int
    name: str
    area: int
    x: float | None = None
    y: float | None = None
    left: int | None = None
    top: int | None = None
    width: int | None = None
    height: int | None = None
    presence: float | None = None
    iou: float | None = None


def regions_of(masks: Masks, frames: Iterable[int] | None = None) -> Iterator[Region]:
    """Yield a region for each label of each frame, one frame in memory at a time.

    Labels without names have regions from the first frame on in which they appear.
    """
    names = dict(masks.names)
    for frame in masks.frames if frames is None else frames:
        labels = masks.frame(frame)
        if not masks.names:
            new = set(np.unique(labels).tolist()) - {0} - names.keys()
            names |= {label: f"object {label}" for label in sorted(new)}
        for label, name in names.items():
            yield _region(masks, frame, label, name, labels == label)


def track_points(regions: Iterable[Region]) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Return the centroids in the form of napari's Tracks layer.

    Returns
    -------
    data : array, shape (N, 4)
        label, frame, y, x; sorted by label, then frame. Frames without the label have no row.
    features : dict of str to array, shape (N,)
        area, presence and iou of each row; NaN if there is none.
    """
    rows = sorted((r for r in regions if r.area), key=lambda region: (region.label, region.frame))
    data = np.array([(r.label, r.frame, r.y, r.x) for r in rows], np.float64).reshape(-1, 4)
    features = {name: _column(rows, name) for name in ("area", "presence", "iou")}
    return data, features


def label_features(regions: Iterable[Region]) -> dict[str, list[Any]]:
    """Return a table with one row for each label, as features of napari's Labels layer.

    ``index`` is the label; the other columns are its name, the number of frames in which it was found, and its mean
    area, presence and IoU (area and IoU over the frames in which it was found).
    """
    by_label: dict[int, list[Region]] = {}
    for region in regions:
        by_label.setdefault(region.label, []).append(region)
    out: dict[str, list[Any]] = {
        "index": [], "name": [], "frames found": [], "mean area": [], "mean presence": [], "mean IoU": []
    }  # fmt: skip
    for label, rows in sorted(by_label.items()):
        found = [row for row in rows if row.area]
        out["index"].append(label)
        out["name"].append(rows[0].name)
        out["frames found"].append(len(found))
        out["mean area"].append(_mean(_column(found, "area")))
        out["mean presence"].append(_mean(_column(rows, "presence")))
        out["mean IoU"].append(_mean(_column(found, "iou")))
    return out


def write_regions_csv(path: Path, regions: Iterable[Region]) -> None:
    """Write a CSV row for each region; `StoreError` if the disk refuses."""
    write_csv(path, [field.name for field in fields(Region)], [astuple(region) for region in regions])


def _region(masks: Masks, frame: int, label: int, name: str, mask: npt.NDArray[np.bool_]) -> Region:
    score = (masks.scores or {}).get(frame, {}).get(label)
    scores: dict[str, Any] = {} if score is None else {"presence": score.presence, "iou": score.iou}
    columns, rows = (mask.sum(axis=axis) for axis in (0, 1))
    area = int(rows.sum())
    if not area:
        return Region(frame, label, name, 0, **scores)
    (left, right), (top, bottom) = _ends(columns), _ends(rows)
    return Region(
        frame, label, name, area,
        x=float(np.arange(len(columns)) @ columns) / area,
        y=float(np.arange(len(rows)) @ rows) / area,
        left=left, top=top, width=right - left + 1, height=bottom - top + 1, **scores,
    )  # fmt: skip


def _ends(counts: npt.NDArray[np.int64]) -> tuple[int, int]:
    places = np.flatnonzero(counts)
    return int(places[0]), int(places[-1])


def _column(rows: list[Region], name: str) -> FloatArray:
    return np.array([np.nan if getattr(r, name) is None else getattr(r, name) for r in rows], np.float64)


def _mean(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
