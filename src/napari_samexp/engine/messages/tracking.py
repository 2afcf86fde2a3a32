"""Tracking a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from napari_samexp.engine.messages.base import ArrayRef, Control, Reply, Request, VideoRef
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.types import ObjectScore


@dataclass(frozen=True, slots=True)
class Track(Request):
    """Track frames into a label store.

    Parameters
    ----------
    frames : sequence of int
        All frames of the run, in their order.
    resume : bool
        Continue the run of an existing store, with the prior that it began with.
    overwrite : bool
        Replace an existing store.
    again : bool
        Track also those of `frames` that are done; needs `resume`.
    keep : frozenset of int
        Frames that are left as they are.
    """

    store: str
    video: VideoRef
    frames: Sequence[int]
    settings: TrackSettings = field(default_factory=TrackSettings)
    resume: bool = False
    overwrite: bool = False
    again: bool = False
    keep: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Keep(Control):
    """Do not write these frames any more."""

    frames: frozenset[int]


@dataclass(frozen=True, slots=True)
class FrameReady(Control):
    """A frame of a stream, or its fingerprint (index -1), or why there is none."""

    stream: int
    index: int
    pixels: ArrayRef | None = None
    text: str = ""
    error: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class TrackStarted(Reply):
    """The store is open; `done` of `total` frames are finished, and the rest is tracked now."""

    store: str
    shape: tuple[int, int, int]
    names: dict[int, str]
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class FrameDone(Reply):
    """A frame is safe on disk."""

    index: int
    scores: dict[int, ObjectScore]
    seconds: float


@dataclass(frozen=True, slots=True)
class PauseChanged(Reply):
    """Tracking has paused after a frame or before the first one, or it continues."""

    paused: bool


@dataclass(frozen=True, slots=True)
class Kept(Reply):
    """None of these frames is written any more."""

    frames: frozenset[int]


@dataclass(frozen=True, slots=True)
class TrackEnded(Reply):
    """Tracking is over: "finished", "cancelled", "failed", or "interrupted" by the end of the worker."""

    final: ClassVar[bool] = True

    how: str
    sentence: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class FrameWanted(Reply):
    """The worker needs a frame of a stream, or its fingerprint (index -1); answered by the client."""

    stream: int
    index: int
