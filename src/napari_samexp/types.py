"""Prompts, results and the video protocol, used by every other module. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import PromptError

__all__ = [
    "FrameResult",
    "ObjectScore",
    "Prompt",
    "RunIdentity",
    "VideoSource",
]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


MAX_POINTS = 1000  # of a prompt; each attends to all others and to the whole image


def _no_points() -> FloatArray:
    return np.zeros((0, 2), np.float32)


def _no_labels() -> IntArray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """Clicks and a box on one image.

    Parameters
    ----------
    points_xy : array, shape (N, 2), float32
        Image pixels as (x, y), x to the right and y down; the centre of the top left pixel is (0, 0).
    labels : array, shape (N,), int64
        1 for the object, 0 for background; one for each point.
    box_xyxy : array, shape (4,), float32, or None
        Left, top, right, bottom in image pixels.

    Raises
    ------
    PromptError
        If a shape, label or coordinate is not valid, or there are more than 1000 points. An empty prompt is valid.
    """

    points_xy: FloatArray = field(default_factory=_no_points)
    labels: IntArray = field(default_factory=_no_labels)
    box_xyxy: FloatArray | None = None

    def __post_init__(self) -> None:
        points = _floats(self.points_xy, "points").reshape(-1, 2)
        if len(points) > MAX_POINTS:
            raise PromptError(
                f"The prompt has {len(points)} points; give at most {MAX_POINTS}, or paint a mask instead."
            )
        labels = _flat_labels(self.labels)
        if len(points) != len(labels):
            raise PromptError(
                f"The prompt has {len(points)} points but {len(labels)} labels; give one label for each point."
            )
        if not np.isin(labels, (0, 1)).all():
            bad = labels[~np.isin(labels, (0, 1))][0]
            raise PromptError(f"A point has the label {bad}; use 1 for the object and 0 for background.")
        object.__setattr__(self, "points_xy", points)
        object.__setattr__(self, "labels", labels.astype(np.int64))
        if self.box_xyxy is not None:
            object.__setattr__(self, "box_xyxy", _box(self.box_xyxy))

    @classmethod
    def from_lists(
        cls,
        objects: Sequence[Sequence[float]] = (),
        background: Sequence[Sequence[float]] = (),
        box: Sequence[float] | None = None,
    ) -> Prompt:
        """Return a prompt from lists.

        Parameters
        ----------
        objects, background : sequence of (x, y)
            Points on the object, and on the background.
        box : (left, top, right, bottom), optional

        Raises
        ------
        PromptError
            As for `Prompt`.
        """
        points = [*objects, *background]
        return cls(
            points_xy=_floats(points, "points"),
            labels=np.array([1] * len(objects) + [0] * len(background), np.int64),
            box_xyxy=None if box is None else _floats(box, "box"),
        )

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a point nor a box."""
        return len(self.points_xy) == 0 and self.box_xyxy is None

    def require_inside(self, image_hw: tuple[int, int]) -> None:
        """Raise `PromptError` unless every point and the box lie inside an image of (height, width)."""
        height, width = image_hw
        for x, y in self.points_xy:
            if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                raise PromptError(
                    f"The point ({x:g}, {y:g}) lies outside the image, which is {width} wide and {height} high; "
                    "give x and y in its pixels."
                )
        if self.box_xyxy is not None:
            x0, y0, x1, y1 = self.box_xyxy
            if x1 < 0 or y1 < 0 or x0 > width - 1 or y0 > height - 1:
                raise PromptError(
                    f"The box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) lies outside the image, which is {width} wide and "
                    f"{height} high; give left, top, right, bottom in its pixels."
                )


def _floats(values: Any, what: str) -> FloatArray:
    try:
        with np.errstate(over="ignore"):  # too large for float32 is infinite, which is refused below
            array = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        raise PromptError(f"The prompt's {what} are not all numbers; give x and y in pixels.") from None
    if not np.isfinite(array).all():
        raise PromptError(
            f"The prompt's {what} hold a value that is not a finite number; give x and y in pixels."
        )
    if what == "points" and array.size and (array.size % 2 or (array.ndim > 1 and array.shape[-1] != 2)):
        raise PromptError(f"The prompt's points have shape {array.shape}; expected (N, 2), x and y.")
    return array


def _flat_labels(labels: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(labels).reshape(-1)
    except ValueError:
        raise PromptError(
            "The prompt's labels are not one number for each point; use 1 for the object and 0 for background."
        ) from None


def _box(values: Any) -> FloatArray:
    box = _floats(values, "box").reshape(-1)
    if box.shape != (4,):
        raise PromptError(f"The box has {box.size} numbers; expected four: left, top, right, bottom.")
    if box[0] >= box[2] or box[1] >= box[3]:
        raise PromptError(
            f"The box ({box[0]:g}, {box[1]:g}, {box[2]:g}, {box[3]:g}) is empty; give left < right and top < bottom."
        )
    return box


@dataclass(frozen=True, slots=True)
class ObjectScore:
    """The model's scores of one object in one frame.

    Parameters
    ----------
    presence : float
        Object score logit; the object is lost in this frame if it is below 0.
    iou : float
        Predicted IoU (intersection over union) of the mask, 0 to 1.
    """

    presence: float
    iou: float

    @property
    def lost(self) -> bool:
        """Whether the model predicts that the object is not in this frame."""
        return self.presence < 0


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """The labels of one tracked frame.

    Parameters
    ----------
    index : int
        Position on the video's time axis.
    labels : array, shape (H, W), uint16
        An object's label where it is, 0 elsewhere.
    scores : dict of int to ObjectScore
        One entry for each label of the prior.
    """

    index: int
    labels: npt.NDArray[np.uint16]
    scores: dict[int, ObjectScore]


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """The inputs of a tracking run; runs with equal identities give equal labels.

    Parameters
    ----------
    video, prior, model, settings : str
        A fingerprint of each: a hash, or canonical JSON for the settings.
    """

    video: str
    prior: str
    model: str
    settings: str


@runtime_checkable
class VideoSource(Protocol):
    """A lazy stack of frames, such as `napari_samexp.io.open_video` returns.

    ``source[i]`` and ``source[i:i + 1]`` decode frames; a request for too many at once raises an error.
    """

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, Y, X, 3)."""

    @property
    def fps(self) -> float | None:
        """Mean frame rate in frames a second, or None if the source has no timestamps."""

    @property
    def fingerprint(self) -> str:
        """A string that identifies the content of the video."""

    def frame(self, index: int) -> npt.NDArray[np.uint8]:
        """Return exactly frame `index` as (Y, X, 3) uint8 RGB."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any) -> npt.NDArray[np.uint8]: ...
