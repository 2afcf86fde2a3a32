"""Previews, recordings and the prior."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from napari_samexp.engine.messages.base import HW, ArrayRef, ImageRef, Reply, Request, VideoRef
from napari_samexp.types import Prompt

MAX_CHOICES = 4  # masks that a model offers for one prompt


@dataclass(frozen=True, slots=True, eq=False)
class RecordingInfo:
    """A recording as it is shown.

    Parameters
    ----------
    key : str
        Names the recording in requests, also after others were removed.
    painted : bool
        Whether it has a painted mask instead of a prompt.
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


@dataclass(frozen=True, slots=True)
class PriorEdit(Request):
    """A change of the prior: `PriorChanged`, or `Failed` and no change."""


@dataclass(frozen=True, slots=True)
class Preview(Request):
    """Predict masks for a prompt. Only the newest preview is answered.

    Parameters
    ----------
    mask_index : int or None
        The mask choice that is sent first; by default the model's best.
    into : ArrayRef or None
        Where the packed masks go; filled in by the client.
    """

    image: ImageRef
    prompt: Prompt
    side: int | None = None
    square: bool = True
    mask_index: int | None = None
    into: ArrayRef | None = None


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
    """Undo the last change of the prior."""


@dataclass(frozen=True, slots=True)
class LoadPrior(PriorEdit):
    """Load the prior from a file, instead of the session's or after its recordings."""

    path: str
    append: bool = False


@dataclass(frozen=True, slots=True)
class SavePrior(Request):
    """Write the prior to a file."""

    path: str


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


@dataclass(frozen=True, slots=True, eq=False)
class ChosenMask(Reply):
    """One mask choice of a preview, sent before the others are ready; only row `index` of the bits is valid."""

    index: int
    preview: Previewed


@dataclass(frozen=True, slots=True)
class PriorChanged(Reply):
    """The prior after a change."""

    final: ClassVar[bool] = True

    prior: PriorState
