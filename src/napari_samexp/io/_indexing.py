"""Which frames ``video[key]`` needs, computed before anything is decoded."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import VideoError

__all__ = ["FrameIndexError", "FrameNotWanted", "FrameRequest", "OnWay", "frame_number", "frame_request"]

Shape = tuple[int, int, int, int]
# called for each frame decoded on the way to another: its index, and a function for its image; False gives up
OnWay = Callable[[int, Callable[[], npt.NDArray[np.uint8]]], bool]


class FrameIndexError(VideoError, IndexError):
    """An index that is outside the video, or of an unsupported kind."""


class FrameNotWanted(VideoError):
    """Decoding a frame was abandoned, since the caller no longer wants it."""


@dataclass(frozen=True, slots=True)
class FrameRequest:
    """The frames to decode and what to take of each.

    Parameters
    ----------
    frames : sequence of int
        Indices, 0 to T - 1.
    single : bool
        Whether the time axis was indexed by an integer, and is dropped.
    rest : tuple
        The key for (Y, X, 3) of each frame.
    rest_shape : tuple of int
        The shape of a frame under `rest`.
    """

    frames: Sequence[int]
    single: bool
    rest: tuple[Any, ...]
    rest_shape: tuple[int, ...]


def frame_number(index: Any, count: int) -> int:
    """Return `index`, which may be negative, as 0 to `count` - 1; `FrameIndexError` if it is out of range."""
    try:
        number = operator.index(index)
    except TypeError:
        raise FrameIndexError(f"{index!r} is not a frame number; give a whole number.") from None
    if not -count <= number < count:
        raise FrameIndexError(f"There is no frame {number}; the video has {count}, 0 to {count - 1}.")
    return number % count


def frame_request(key: Any, shape: Shape) -> FrameRequest:
    """Return the frames that a key of ``[]`` selects.

    The first axis takes an integer, a slice, or a list or array of integers or bools; the others take what
    numpy takes. Only one axis may be a list or array, because numpy would pair two of them up.

    Parameters
    ----------
    key : index, or tuple of indices
    shape : (T, Y, X, 3)
        Of the video.

    Raises
    ------
    FrameIndexError
        If an index is outside the video, or of another kind.
    """
    time, rest = _split(key)
    rest_shape = _rest_shape(rest, shape)
    if isinstance(time, slice):
        return FrameRequest(_slice(time, shape[0]), False, rest, rest_shape)
    if _is_list(time):
        if any(_is_list(part) for part in rest):
            raise FrameIndexError(
                "Two axes are lists or arrays; give only one as a list and slice the others."
            )
        return FrameRequest(_list(time, shape[0]), False, rest, rest_shape)
    return FrameRequest([frame_number(time, shape[0])], True, rest, rest_shape)


def _split(key: Any) -> tuple[Any, tuple[Any, ...]]:
    parts = key if isinstance(key, tuple) else (key,)
    if any(part is None for part in parts):
        raise FrameIndexError("A video cannot get a new axis by None; index the frames that it returns.")
    # not `in`, which would compare arrays
    dots = [place for place, part in enumerate(parts) if part is Ellipsis]
    if len(dots) > 1:
        raise FrameIndexError("An index can hold only one '...'.")
    if dots:
        missing = (slice(None),) * (5 - len(parts))
        parts = (*parts[: dots[0]], *missing, *parts[dots[0] + 1 :])
    return (parts[0], parts[1:]) if parts else (slice(None), ())


def _rest_shape(rest: tuple[Any, ...], shape: Shape) -> tuple[int, ...]:
    frame = np.broadcast_to(np.uint8(0), shape[1:])
    try:
        return np.shape(frame[rest])
    except (IndexError, TypeError, ValueError) as error:
        raise FrameIndexError(f"The index does not fit a video of shape {shape}: {error}.") from None


def _slice(time: slice, count: int) -> Sequence[int]:
    try:
        return range(*time.indices(count))
    except (TypeError, ValueError) as error:
        raise FrameIndexError(f"{time} does not pick frames: {error}.") from None


def _is_list(part: Any) -> bool:
    return isinstance(part, list) or np.ndim(part) > 0


def _list(time: Any, count: int) -> Sequence[int]:
    numbers = np.asarray(time)
    if numbers.ndim == 1 and numbers.dtype == np.bool_ and len(numbers) == count:
        return [int(i) for i in np.flatnonzero(numbers)]
    if numbers.ndim == 1 and (numbers.dtype.kind in "iu" or numbers.size == 0):
        return [frame_number(i, count) for i in numbers]
    raise FrameIndexError(
        f"Frames cannot be picked by an array of shape {numbers.shape} and type {numbers.dtype}; "
        f"give frame numbers, or one bool for each of the {count} frames."
    )
