"""Which frames are done, and their scores: a journal with one line for each frame, only appended to."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import StoreError
from napari_samexp.io.atomic import os_errors_as_store_errors, write_atomic
from napari_samexp.io.csv_file import write_csv
from napari_samexp.io.guarded import open_file, read_whole
from napari_samexp.types import ObjectScore

__all__ = ["ScoreJournal", "is_finite_number"]

_MAX_BYTES = 16 * 2**30
_ADVICE = "track again to another --out, or with --overwrite"
_BEGINNINGS = (b'{"frame":', b'{"forget":')


class ScoreJournal:
    """Done flags and scores of frames, in a file of JSON lines.

    A line ``{"frame": 7, "scores": {"1": [presence, iou]}}`` means that frame 7 is done, and
    ``{"forget": [7]}`` that it no longer is; later lines win. A last line that a kill cut short is ignored, and the
    next line overwrites it, but only after a valid line or if it begins like one: any other file is damaged,
    and is not changed.

    Parameters
    ----------
    path : Path
        The file, which must exist; `start` creates an empty one.
    frames : int
        Length of the time axis.
    labels : sequence of int
        The labels that each done frame has scores for.

    Attributes
    ----------
    done : array, shape (T,), bool
        Which frames are done.

    Raises
    ------
    StoreError
        If the file is missing or contains anything else.
    """

    def __init__(self, path: Path, frames: int, labels: Sequence[int]) -> None:
        self._path = path
        self._column = {str(label): column for column, label in enumerate(labels)}
        self.done: npt.NDArray[np.bool_] = np.zeros(frames, np.bool_)
        # presence and IoU of each frame and label; as dicts, 100,000 frames would take about 50 MB
        self._values = np.zeros((frames, len(labels), 2), np.float64)
        self._end = 0  # length of the valid part of the file
        self._read()

    @staticmethod
    def start(path: Path) -> None:
        """Create an empty journal."""
        write_atomic(path, b"")

    def scores(self) -> Iterator[tuple[int, dict[int, ObjectScore]]]:
        """Yield each done frame and its scores by label."""
        labels = [int(label) for label in self._column]
        for index in map(int, np.flatnonzero(self.done)):
            pairs = self._values[index].tolist()
            yield index, {label: ObjectScore(*pair) for label, pair in zip(labels, pairs)}

    def write_csv(self, path: Path, names: Mapping[int, str]) -> None:
        """Write a CSV row for each done frame and label; `StoreError` if the disk refuses."""
        rows = (
            (index, label, names[label], score.presence, score.iou, str(score.lost).lower())
            for index, scores in self.scores()
            for label, score in scores.items()
        )
        write_csv(path, ("frame", "label", "name", "presence", "iou", "lost"), rows)

    def require_complete(self, index: int, scores: Mapping[int, ObjectScore]) -> None:
        """Raise `StoreError` unless there are finite scores for exactly the labels."""
        try:
            self._parsed(_as_json(scores))
        except (ValueError, TypeError, AttributeError) as error:
            raise StoreError(f"The scores of frame {index} cannot be stored: {error}.") from None

    def record(self, index: int, scores: Mapping[int, ObjectScore]) -> None:
        """Flag a frame as done, with complete scores; `OSError` if it cannot be written, and nothing is changed."""
        entry = {"frame": index, "scores": _as_json(scores)}
        self._append(entry)
        self._apply(entry)

    def forget(self, frames: Collection[int]) -> None:
        """Flag frames as not done; `OSError` if it cannot be written, and nothing is changed."""
        entry = {"forget": list(frames)}
        self._append(entry)
        self._apply(entry)

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        with open_file(self._path, "r+b", buffering=0) as file:
            file.seek(self._end)
            file.truncate()  # a line that a kill has cut short
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(self._end)  # the caller gets the error, so the line must not be there
                raise
        self._end += len(line)

    def _read(self) -> None:
        with os_errors_as_store_errors("read", self._path, _ADVICE):
            *lines, torn = read_whole(self._path, _MAX_BYTES).split(b"\n")
        if not lines and not any(torn.startswith(b[: len(torn)]) for b in _BEGINNINGS):
            raise self._damaged(1, "it is no line of a journal")
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError) as error:
                if (
                    number == len(lines) > 1
                ):  # a power failure can leave the end of a line without its beginning
                    return
                raise self._damaged(number, error) from None
            try:
                self._apply(entry)
            except ValueError as error:
                raise self._damaged(number, error) from None
            self._end += len(line) + 1

    def _damaged(self, number: int, error: Exception | str) -> StoreError:
        return StoreError(f"The scores file {self._path} is damaged in line {number} ({error}); {_ADVICE}.")

    def _apply(self, entry: Any) -> None:
        keys = set(entry) if isinstance(entry, dict) else set()
        if keys == {"frame", "scores"}:
            index = self._frame(entry["frame"])
            self._values[index], self.done[index] = self._parsed(entry["scores"]), True
        elif keys == {"forget"} and isinstance(entry["forget"], list):
            self.done[[self._frame(index) for index in entry["forget"]]] = False
        else:
            raise ValueError("expected a frame with scores, or frames to forget")

    def _frame(self, index: Any) -> int:
        if type(index) is not int or not 0 <= index < len(self.done):
            raise ValueError(f"expected a frame number from 0 to {len(self.done) - 1}")
        return index

    def _parsed(self, scores: Any) -> npt.NDArray[np.float64]:
        if not isinstance(scores, dict) or scores.keys() != self._column.keys():
            raise ValueError(f"expected one score for each of the labels {', '.join(self._column)}")
        if not all(map(_is_score, scores.values())):
            raise ValueError("expected two finite numbers for each label, presence and IoU")
        return np.array([scores[label] for label in self._column], np.float64)


def _as_json(scores: Mapping[int, ObjectScore]) -> dict[str, list[float]]:
    return {str(label): [float(score.presence), float(score.iou)] for label, score in scores.items()}


def _is_score(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(map(is_finite_number, pair))


def is_finite_number(value: Any) -> bool:
    """Whether a value from JSON is a number that float64 represents."""
    if type(value) is int:
        return abs(value) < 2**53  # Python's integers are unbounded
    return type(value) is float and math.isfinite(value)
