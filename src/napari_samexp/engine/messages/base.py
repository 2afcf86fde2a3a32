"""Parts and bases of all messages, and what concerns every request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

HW = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ArrayRef:
    """Where an array is: a block of shared memory, which the viewer's process owns."""

    block: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image of any type that `to_rgb8` takes.

    Parameters
    ----------
    key : str
        Equal keys mean equal pixels, so they are not read again.
    limits : (float, float) or None
        The values for black and white.
    """

    key: str
    name: str
    pixels: ArrayRef
    limits: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class VideoRef:
    """A video: a path that the worker opens itself, or a stream of frames from the viewer's process."""

    name: str
    shape: tuple[int, int, int, int]
    path: str | None = None
    stream: int | None = None
    fps: float | None = None
    limits: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """Something for the worker to do, in the order of submission."""


@dataclass(frozen=True, slots=True)
class Control(Request):
    """Something that the worker handles between two frames, before all other requests."""


@dataclass(frozen=True, slots=True)
class Command(Control):
    """A control without parameters.

    Parameters
    ----------
    action : str
        "pause" stops tracking after the current frame, until "continue". "cancel" stops tracking or loading
        for good; a worker that does not react in time is ended. "reset recent" lets the next frame attend to the
        prior alone. "stop" ends the process.
    """

    action: Literal["pause", "continue", "cancel", "reset recent", "stop"]


PAUSE, CONTINUE, CANCEL = Command("pause"), Command("continue"), Command("cancel")
RESET_RECENT, STOP = Command("reset recent"), Command("stop")


@dataclass(frozen=True, slots=True)
class Reply:
    """Something that the worker sends, or the client on behalf of a worker that is gone."""

    final: ClassVar[bool] = False

    id: int


@dataclass(frozen=True, slots=True)
class Working(Reply):
    """What the worker has started: "loading", "encoding", "predicting", "recording" or "tracking"."""

    what: str


@dataclass(frozen=True, slots=True)
class Progress(Reply):
    """How far loading is: "bytes" of a download (`total` None if unknown) or "recordings" encoded again."""

    what: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Done(Reply):
    """The request was carried out."""

    final: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Failed(Reply):
    """The request was not carried out and nothing changed; `sentence` and `code` are those of a `SamexpError`."""

    final: ClassVar[bool] = True

    sentence: str
    code: str = ""
    trace: str = ""


@dataclass(frozen=True, slots=True)
class WorkerDied(Reply):
    """The worker is gone; `restarting` says whether a new one is being started."""

    sentence: str
    restarting: bool
    code: str = ""
