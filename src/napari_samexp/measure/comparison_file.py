"""The format of a ``comparison.json``, checked completely before anything in it is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from napari_samexp.io.score_journal import is_finite_number

__all__ = ["MAX_BYTES", "MEASURES", "VERSION", "parse_comparison"]

VERSION = 1
MAX_BYTES = 64 * 2**20
MAX_CELLS = 100_000  # a window shows them all
MAX_FRAMES = 10_000_000  # of a label store

MEASURES = {
    "presence": "mean presence",
    "found": "share of frames found",
    "iou": "mean predicted IoU where found",
    "agreement": "mean J with the other rows' masks",
    "jf": "J&F with the ground truth",
}


def parse_comparison(data: bytes) -> dict[str, Any]:
    """Return the content of a comparison's file: rows, columns, cells row by row, and agreement.

    Raises
    ------
    ValueError, RecursionError
        If it is not JSON, or anything in it is missing or has a wrong type; the message names it.
    """
    content: dict[str, Any] = json.loads(data, parse_constant=_no_constant)
    version = content.get("version") if isinstance(content, dict) else None
    if type(version) is not int or version != VERSION:
        raise ValueError(f"its version is not {VERSION}")
    for key in ("rows", "columns"):
        _require_names(content.get(key), key)
    rows, columns, cells = len(content["rows"]), content["columns"], content.get("cells")
    if rows * len(columns) > MAX_CELLS:
        raise ValueError(f"it has more than {MAX_CELLS} cells")
    if not isinstance(cells, list) or len(cells) != rows * len(columns):
        raise ValueError("cells are missing or too many")
    for place, cell in enumerate(cells):
        _require_cell(cell, place)
    _require_agreement(content.get("agreement"), columns, rows)
    return content


def _require_names(value: Any, what: str) -> None:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"its {what} are no list of names")


def _require_cell(cell: Any, place: int) -> None:
    if not isinstance(cell, dict) or cell.keys() != _FITS.keys():
        raise ValueError(f"cell {place} has not the entries of a cell")
    wrong = next((key for key, value in cell.items() if not _FITS[key](value)), None)
    if wrong is not None:
        raise ValueError(f"{wrong} of cell {place} has a wrong type or size")


def _require_agreement(value: Any, columns: Sequence[str], side: int) -> None:
    if not isinstance(value, dict) or not value.keys() <= set(columns):
        raise ValueError("its agreement is not of its columns")
    for place, table in enumerate(value.values()):
        rows = table if isinstance(table, list) else []
        square = len(rows) == side and all(isinstance(row, list) and len(row) == side for row in rows)
        if not square or not all(_is_measure(number) for row in rows for number in row):
            raise ValueError(f"agreement {place} is no table of {side} x {side} numbers")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_FRAMES


def _is_frame(value: Any) -> bool:
    return value is None or _is_count(value)


def _is_measure(value: Any) -> bool:
    return value is None or is_finite_number(value)


_FITS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("row", "column", "error"), _is_text),
    **dict.fromkeys(("video", "store"), _is_path),
    **dict.fromkeys(("skip", "frames"), _is_count),
    **dict.fromkeys(("best", "worst"), _is_frame),
    **dict.fromkeys(MEASURES, _is_measure),
}


def _no_constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which is no number in JSON")
