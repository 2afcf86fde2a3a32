"""Scores by frame as arrays: what the timeline draws, without Qt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "Scores", "columns_of", "next_lost", "runs"]

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass(eq=False)
class Scores:
    """Presence and predicted IoU of one label, (T,) each; NaN in frames that are not tracked."""

    presence: Floats
    iou: Floats

    @classmethod
    def empty(cls, count: int) -> Scores:
        """Return the scores of `count` frames, none of them tracked."""
        return cls(np.full(count, np.nan, np.float32), np.full(count, np.nan, np.float32))

    @property
    def lost(self) -> Flags:
        """Frames in which the object was lost, bool (T,)."""
        return self.presence < 0


def columns_of(values: Floats, width: int) -> Floats:
    """Return the minimum in each of `width` equal spans, so that no lost frame falls between pixels.

    A span of NaN is NaN. With fewer values than columns, values repeat.
    """
    count = len(values)
    starts = np.arange(width) * count // width
    if count < width:
        return values[starts]
    return np.asarray(np.fmin.reduceat(values, starts), np.float32)


def next_lost(scores: Iterable[Scores], painted: Flags, index: int, step: int) -> int | None:
    """Return the first frame of the next (step 1) or previous (-1) stretch in which a label is lost.

    Frames that a person painted, bool (T,), do not count as lost.
    """
    lost = np.logical_or.reduce([each.lost for each in scores] or [np.zeros_like(painted)]) & ~painted
    starts = np.flatnonzero(lost & ~np.concatenate(([False], lost[:-1])))
    others = starts[starts > index] if step > 0 else starts[starts < index][::-1]
    return int(others[0]) if len(others) else None


def runs(flags: npt.NDArray[np.bool_]) -> list[range]:
    """Return the stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [range(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
