"""The frames of a run, lost frames, and the speed: pure functions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from napari_samexp.errors import SettingsError
from napari_samexp.types import ObjectScore

__all__ = [
    "FrameChoice",
    "frames_from_details",
    "lost_frames",
    "next_lost",
    "previous_lost",
    "select_frames",
    "speed",
]

FrameChoice = Literal["all", "from here", "backward from here", "range"]
Scores = Mapping[int, Mapping[int, ObjectScore]]  # by frame and label
RECENT = 20  # frames, over which the speed is averaged


def select_frames(
    choice: FrameChoice,
    count: int,
    *,
    current: int = 0,
    first: int = 0,
    last: int | None = None,
    direction: str = "forward",
) -> range:
    """Return the chosen frames, in the order of tracking.

    Parameters
    ----------
    count : int
        Frames of the video.
    current : int
        The frame in view, which "here" means.
    first, last : int
        Both ends of "range", inclusive; `last` defaults to the video's.
    direction : str
        "forward" or "backward", for "all" and "range".

    Raises
    ------
    SettingsError
        If there is no such choice or frame.
    """
    last = count - 1 if last is None else last
    ends = {
        "all": (0, count - 1),
        "from here": (current, count - 1),
        "backward from here": (0, current),
        "range": (min(first, last), max(first, last)),
    }
    if choice not in ends:
        raise SettingsError(f"The frames are {choice!r}; choose {', '.join(ends)}.")
    low, high = ends[choice]
    if not 0 <= low <= high < count:
        raise SettingsError(f"Frames {low} to {high} are not all in the video; it has 0 to {count - 1}.")
    backward = choice == "backward from here" or (choice != "from here" and direction == "backward")
    return range(high, low - 1, -1) if backward else range(low, high + 1)


def frames_from_details(details: Mapping[str, object], count: int) -> Sequence[int]:
    """Return the frames of a store's run, or all if it does not name them."""
    frames = details.get("frames")
    try:
        if isinstance(frames, dict) and "range" in frames:
            chosen: Sequence[int] = range(*map(int, frames["range"]))
        elif isinstance(frames, dict) and "list" in frames:
            chosen = [int(index) for index in frames["list"]]
        else:
            return range(count)
    except (TypeError, ValueError):
        return range(count)
    inside = len(chosen) > 0 and min(chosen) >= 0 and max(chosen) < count
    return chosen if inside else range(count)


def lost_frames(
    scores: Scores, label: int | None = None, painted: Collection[int] = frozenset()
) -> list[int]:
    """Return the frames in which an object, or any of them, was lost, ascending, without those painted."""
    return sorted(
        index
        for index, of_frame in scores.items()
        if index not in painted
        and any(score.lost for other, score in of_frame.items() if label in (None, other))
    )


def next_lost(
    scores: Scores, current: int, label: int | None = None, painted: Collection[int] = frozenset()
) -> int | None:
    """Return the first lost frame after `current`, or None."""
    lost = lost_frames(scores, label, painted)
    place = bisect_right(lost, current)
    return lost[place] if place < len(lost) else None


def previous_lost(
    scores: Scores, current: int, label: int | None = None, painted: Collection[int] = frozenset()
) -> int | None:
    """Return the last lost frame before `current`, or None."""
    lost = lost_frames(scores, label, painted)
    place = bisect_left(lost, current)
    return lost[place - 1] if place else None


def speed(seconds: Sequence[float], left: int) -> tuple[float | None, float | None]:
    """Return frames per second and seconds left, from the times of the last frames; None while unknown."""
    recent = list(seconds)[-RECENT:]
    if not recent or sum(recent) <= 0:
        return None, None
    rate = len(recent) / sum(recent)
    return rate, left / rate
