"""What the viewer's process and the model's process say to each other: numbers, texts and numpy only.

A request goes to the worker with a number. A final reply with that number answers it; any number of
others may come before. Pixels are not in a message: an `ArrayRef` says where in shared memory they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from napari_samexp.sam.encoding_spec import EncodingSpec
from napari_samexp.sam.variants import MemoryVariant
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.types import ObjectScore, Prompt

MAX_CHOICES = 4  # masks that a model offers for one prompt
HW = tuple[int, int]


# ---- parts


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
        Equal keys mean equal pixels, so that pixels are not read again to tell.
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
class ModelInfo:
    """A model that is ready; `side_multiple` is what an encode side must be a multiple of.

    `variant` is there for models that have a memory, so that the work of a run can be counted.
    """

    name: str
    family: str
    weights: str
    device: str
    dtype: str
    image_size: int
    side_multiple: int
    has_memory: bool
    parameters: int
    variant: MemoryVariant | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RecordingInfo:
    """A recording as people see it.

    Parameters
    ----------
    key : str
        Names the recording in requests, also after others were removed.
    painted : bool
        Whether a mask was painted in the place of a prompt.
    usable : bool
        Whether the model in use made it, or could use it.
    """

    key: str
    label: int
    name: str
    image_name: str
    iou: float
    presence: float
    thumbnail: npt.NDArray[np.uint8]
    prompt: Prompt
    mask_index: int | None
    enabled: bool
    painted: bool
    usable: bool
    model: str


@dataclass(frozen=True, slots=True, eq=False)
class PriorState:
    """The prior of the session, which is on disk.

    Parameters
    ----------
    changes : frozenset of int
        The numbers of the last requests that changed it.
    """

    recordings: tuple[RecordingInfo, ...] = ()
    undoable: bool = False
    changes: frozenset[int] = frozenset()


# ---- requests


@dataclass(frozen=True, slots=True)
class Request:
    """Something for the worker to do, in the order in which it was asked."""


@dataclass(frozen=True, slots=True)
class PriorEdit(Request):
    """A change of the prior: `PriorChanged`, or `Failed` and no change."""


@dataclass(frozen=True, slots=True)
class Control(Request):
    """Something that the worker minds between two frames, before all that waits."""


@dataclass(frozen=True, slots=True)
class LoadModel(Request):
    """Load a model by name or path; the one in use stays until the new one is ready."""

    name: str
    device: str = "auto"
    dtype: str = "float32"
    graphs: bool = False


@dataclass(frozen=True, slots=True)
class Preview(Request):
    """Predict masks for a prompt. Only the newest preview is answered."""

    image: ImageRef
    prompt: Prompt
    side: int | None = None
    square: bool = True
    into: ArrayRef | None = None  # packed bits, filled in by the client


@dataclass(frozen=True, slots=True)
class Record(PriorEdit):
    """Predict, remember, and add the recording to the prior."""

    image: ImageRef
    prompt: Prompt
    label: int = 1
    name: str = ""
    mask_index: int | None = None
    side: int | None = None
    square: bool = True


@dataclass(frozen=True, slots=True)
class RememberFrame(PriorEdit):
    """Record a painted mask of, or a prompt on, a frame of a video, for the prior and for a store's run."""

    video: VideoRef
    index: int
    label: int
    store: str | None = None
    name: str = ""
    prompt: Prompt = field(default_factory=Prompt)
    mask_index: int | None = None
    mask: ArrayRef | None = None  # (H, W) bool
    side: int | None = None
    square: bool = True


@dataclass(frozen=True, slots=True)
class RemoveRecording(PriorEdit):
    """Remove a recording."""

    key: str


@dataclass(frozen=True, slots=True)
class ChangeRecording(PriorEdit):
    """Give a recording another label or name, or switch it on or off; None leaves as it is."""

    key: str
    label: int | None = None
    name: str | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class ClearPrior(PriorEdit):
    """Remove all recordings."""


@dataclass(frozen=True, slots=True)
class UndoChange(PriorEdit):
    """Take the last change of the prior back."""


@dataclass(frozen=True, slots=True)
class LoadPrior(PriorEdit):
    """Take the prior from a file, in the place of the session's or after its recordings."""

    path: str
    append: bool = False


@dataclass(frozen=True, slots=True)
class SavePrior(Request):
    """Write the prior to a file."""

    path: str


@dataclass(frozen=True, slots=True)
class Track(Request):
    """Track frames into a label store.

    Parameters
    ----------
    frames : sequence of int
        All frames of the run, in their order.
    resume : bool
        Go on with the run of an existing store, with the prior that it began with.
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
class DescribeEncodings(Request):
    """Read the position-encoding tables of a model by name or path, and nothing else of it."""

    model: str


@dataclass(frozen=True, slots=True)
class ComputeEncoding(Request):
    """Compute a map of a model's position encoding; see `PositionTables.values`."""

    model: str
    part: str
    grid_hw: HW
    window_tile: bool
    dtype: str
    into: ArrayRef  # float32, with room for the map


@dataclass(frozen=True, slots=True)
class Pause(Control):
    """Stop after the frame in work; everything else goes on."""


@dataclass(frozen=True, slots=True)
class Continue(Control):
    """Go on after a pause."""


@dataclass(frozen=True, slots=True)
class Cancel(Control):
    """Stop tracking or loading for good. A worker that does not answer in time is ended."""


@dataclass(frozen=True, slots=True)
class Keep(Control):
    """Leave these frames as they are from here on."""

    frames: frozenset[int]


@dataclass(frozen=True, slots=True)
class ResetRecent(Control):
    """Let the next frame see the prior alone."""


@dataclass(frozen=True, slots=True)
class Stop(Control):
    """End the process."""


@dataclass(frozen=True, slots=True)
class FrameReady(Control):
    """A frame of a stream, or its fingerprint (index -1), or why there is none."""

    stream: int
    index: int
    pixels: ArrayRef | None = None
    text: str = ""
    error: str = ""


# ---- replies


@dataclass(frozen=True, slots=True)
class Reply:
    """Something that the worker says, or the client on behalf of a worker that is gone."""

    final: ClassVar[bool] = False

    id: int


@dataclass(frozen=True, slots=True)
class Ready(Reply):
    """The worker has started; `prior` is what the session's folder held."""

    pid: int
    prior: PriorState
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Working(Reply):
    """What the worker has begun: "loading", "encoding", "predicting", "recording" or "tracking"."""

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
    """The request was not carried out and nothing changed; `sentence` says why, for people to read."""

    final: ClassVar[bool] = True

    sentence: str
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Loaded(Reply):
    """The model is ready; `notice` says if the prior cannot be used with it."""

    final: ClassVar[bool] = True

    model: ModelInfo
    prior: PriorState
    notice: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Previewed(Reply):
    """The mask choices of a preview.

    Parameters
    ----------
    hw : (int, int)
        Height and width of the image.
    bits : array, shape (M, ceil(H W / 8)), uint8
        The masks, packed; see `numpy.packbits`.
    seconds : float
        What the model itself took for the prompt, without encoding the image.
    """

    final: ClassVar[bool] = True

    hw: HW
    iou: tuple[float, ...]
    presence: float | None
    best: int
    bits: npt.NDArray[np.uint8] | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PriorChanged(Reply):
    """The prior after a change."""

    final: ClassVar[bool] = True

    prior: PriorState


@dataclass(frozen=True, slots=True)
class Encodings(Reply):
    """The position encodings that a model has."""

    final: ClassVar[bool] = True

    name: str
    family: str
    weights: str
    parts: tuple[EncodingSpec, ...]


@dataclass(frozen=True, slots=True)
class EncodingComputed(Reply):
    """The map lies in the block that was given, as (C, h, w)."""

    final: ClassVar[bool] = True

    shape: tuple[int, int, int]


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
class Paused(Reply):
    """Tracking has stopped after a frame, or not yet begun, until `Continue`."""


@dataclass(frozen=True, slots=True)
class Continued(Reply):
    """Tracking goes on."""


@dataclass(frozen=True, slots=True)
class Kept(Reply):
    """No frame of these is written from here on."""

    frames: frozenset[int]


@dataclass(frozen=True, slots=True)
class TrackEnded(Reply):
    """Tracking is over: "finished", "cancelled", "failed", or "interrupted" by the end of the worker."""

    final: ClassVar[bool] = True

    how: str
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class FrameWanted(Reply):
    """The worker needs a frame of a stream, or its fingerprint (index -1); answered by the client."""

    stream: int
    index: int


@dataclass(frozen=True, slots=True)
class WorkerDied(Reply):
    """The worker is gone; `restarting` says whether a new one is on its way."""

    sentence: str
    restarting: bool
