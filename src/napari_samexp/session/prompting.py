"""The current prompt: clicks and a box on one image, and the masks that the model predicts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_samexp.engine.messages.base import Failed, Reply
from napari_samexp.engine.messages.prompts import (
    ChosenMask,
    Preview,
    Previewed,
    PriorChanged,
    Record,
    RecordingInfo,
)
from napari_samexp.engine.sharing import SharedImage
from napari_samexp.errors import ImageError, PromptError, SettingsError
from napari_samexp.session.models import Models
from napari_samexp.session.proxy import EngineProxy
from napari_samexp.session.recordings import Recordings
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.types import Prompt

__all__ = ["MaskPreview", "Prompting"]


@dataclass(frozen=True, slots=True, eq=False)
class MaskPreview:
    """The mask choices for the current prompt.

    Parameters
    ----------
    id : int
        The number of the request.
    iou : tuple of float
        The predicted IoU of each choice.
    presence : float or None
        Below 0 if the model finds no object; None for a model without this output.
    best, chosen : int
        The model's choice, and the one that is shown and recorded.
    hover : bool
        Whether the mouse's position counts as a click.
    """

    id: int
    hw: tuple[int, int]
    iou: tuple[float, ...]
    presence: float | None
    best: int
    chosen: int
    hover: bool
    bits: npt.NDArray[np.uint8]

    def mask(self, index: int | None = None) -> npt.NDArray[np.bool_]:
        """Return a choice, by default the chosen one, as (H, W) bool."""
        row = self.bits[self.chosen if index is None else index]
        height, width = self.hw
        return np.unpackbits(row, count=height * width).reshape(height, width).view(np.bool_)


class Prompting:
    """Keeps the prompt, requests previews, and records.

    Every change requests a preview. The engine's queue keeps only the newest one, so no timer is needed, and a
    fast model answers every click.

    Signals
    -------
    preview_changed : MaskPreview or None
    prompt_changed : Prompt
        Also when it was emptied after recording.
    recorded : RecordingInfo
    failed : str, str
        One sentence, and its code.
    """

    preview_changed = Signal(object)
    prompt_changed = Signal(object)
    recorded = Signal(object)
    failed = Signal(str, str)

    def __init__(self, proxy: EngineProxy, models: Models, recordings: Recordings) -> None:
        self._proxy = proxy
        self._models = models
        self._recordings = recordings
        self._request = 0
        self._answer: Previewed | None = None
        self._hover: tuple[float, float] | None = None
        self._choice: int | None = None
        self.settings = TrackSettings()
        self.image: SharedImage | None = None
        self.prompt = Prompt()
        self.preview: MaskPreview | None = None

    @property
    def pending(self) -> bool:
        """Whether a preview has been requested and not answered."""
        return self._request > 0

    @property
    def choice(self) -> int | None:
        """The mask choice of the user, or None for the model's."""
        return self._choice

    # ---- for the user

    def set_image(
        self, pixels: npt.ArrayLike | None, name: str = "", limits: tuple[float, float] | None = None
    ) -> None:
        """Prompt on another image; the prompt begins anew.

        Parameters
        ----------
        pixels : array or None
            (H, W), (H, W, 3) or (H, W, 4) of any number type, copied as it is now; None for no image.
        limits : (low, high), optional
            The values for black and white.

        Raises
        ------
        ImageError
            If it is no image; the old one stays.
        """
        image = None if pixels is None else SharedImage(pixels, name, limits)
        self.image = image  # an old one lives until the last request with it is answered
        self._hover = None
        self.set_prompt(Prompt())

    def set_prompt(self, prompt: Prompt) -> None:
        """Replace the clicks and the box.

        Raises
        ------
        PromptError
            If a point lies outside the image; the old prompt stays.
        ImageError
            If there is no image to prompt on.
        """
        if not prompt.is_empty:
            prompt.require_inside(self._require_image().hw)
        if prompt.is_empty:
            self._choice = None
        self.prompt = prompt
        self.prompt_changed.emit(prompt)
        self.update_preview()

    def hover(self, place_xy: tuple[float, float] | None) -> None:
        """Preview a click at a position; None when the mouse has left the image."""
        if place_xy is not None and (self.image is None or not _is_inside(place_xy, self.image.hw)):
            place_xy = None
        if place_xy != self._hover:
            self._hover = place_xy
            self.update_preview()

    def choose_mask(self, index: int | None) -> None:
        """Show and record another mask choice; None for the model's.

        Raises
        ------
        SettingsError
            If there is no such choice.
        """
        count = 4 if self._answer is None else len(self._answer.iou)
        if index is not None and not 0 <= index < count:
            raise SettingsError(f"The mask choice is {index}; there are the choices 0 to {count - 1}.")
        self._choice = index
        if self._answer is not None:
            self._show(self._answer, hover=self._hover is not None)

    def record(self, label: int = 1, name: str = "") -> None:
        """Record the prompt for a label; the prompt is cleared once that is on disk.

        Without a name, the recording gets that of the label.

        Raises
        ------
        ImageError, PromptError, SettingsError
            If there is no image, no prompt, or no model.
        """
        image = self._require_image()
        if self.prompt.is_empty:
            raise PromptError("There is nothing to record; click on the object, or draw a box around it.")
        if not self._models.state.usable and self._models.state.state != "loading":
            raise SettingsError("No model is loaded; choose one first.")
        prompt, settings = self.prompt, self.settings
        name = name or self._recordings.name_of(label)
        request = Record(image.ref, prompt, label, name, self._choice, settings.side, settings.square)
        self._proxy.request(request, partial(self._on_recorded, prompt), (image,))

    # ---- previews

    def update_preview(self) -> None:
        """Request a preview of the current prompt, or show none if there is no prompt, image or model."""
        self.drop_request()
        prompt = self._prompt_with_hover()
        if self.image is None or prompt.is_empty or not self._models.state.usable:
            self._answer = None
            self._set(None)
            return
        settings = self.settings
        request = Preview(self.image.ref, prompt, settings.side, settings.square, self._choice)
        then = partial(self._on_preview, self._hover is not None)
        self._request = self._proxy.request(request, then, (self.image,))

    def drop_request(self) -> None:
        """Stop waiting for the requested preview."""
        self._proxy.forget(self._request)
        self._request = 0

    def _on_preview(self, hover: bool, reply: Reply) -> None:
        if isinstance(reply, ChosenMask):
            if reply.index == self._chosen(reply.preview):
                self._answer = None  # the other choices are not there yet
                self._show(reply.preview, hover=hover)
            return
        if not reply.final:
            return
        self._request = 0
        if isinstance(reply, Previewed):
            self._complete(reply, hover)
        elif isinstance(reply, Failed):
            self._answer = None
            self._set(None)
            self.failed.emit(reply.sentence, reply.code)

    def _complete(self, reply: Previewed, hover: bool) -> None:
        """Take all mask choices; nothing changes on the screen if the chosen one is shown already."""
        self._answer = reply
        shown = self.preview
        if shown is not None and shown.id == reply.id and shown.chosen == self._chosen(reply):
            self.preview = self._preview_of(reply, hover)
        else:
            self._show(reply, hover=hover)

    def _chosen(self, answer: Previewed) -> int:
        return answer.best if self._choice is None else min(self._choice, len(answer.iou) - 1)

    def _preview_of(self, answer: Previewed, hover: bool) -> MaskPreview:
        assert answer.bits is not None
        return MaskPreview(
            answer.id,
            answer.hw,
            answer.iou,
            answer.presence,
            answer.best,
            self._chosen(answer),
            hover,
            answer.bits,
        )

    def _show(self, answer: Previewed, *, hover: bool) -> None:
        self._set(self._preview_of(answer, hover))

    def _on_recorded(self, prompt: Prompt, reply: Reply) -> None:
        if isinstance(reply, Failed):
            self.failed.emit(reply.sentence, reply.code)
        elif isinstance(reply, PriorChanged):
            self._recordings.show(reply.prior)
            self.recorded.emit(_newest(reply.prior.recordings))
            if self.prompt is prompt:  # not if the user has changed it meanwhile
                self.set_prompt(Prompt())

    def _prompt_with_hover(self) -> Prompt:
        if self._hover is None:
            return self.prompt
        points = np.concatenate((self.prompt.points_xy, np.array([self._hover], np.float32)))
        return Prompt(points, np.append(self.prompt.labels, 1), self.prompt.box_xyxy)

    def _require_image(self) -> SharedImage:
        if self.image is None:
            raise ImageError("There is no image to prompt on; choose an image layer first.")
        return self.image

    def _set(self, preview: MaskPreview | None) -> None:
        if preview is not None or self.preview is not None:
            self.preview = preview
            self.preview_changed.emit(preview)


def _newest(recordings: tuple[RecordingInfo, ...]) -> RecordingInfo | None:
    return recordings[-1] if recordings else None


def _is_inside(place_xy: tuple[float, float], hw: tuple[int, int]) -> bool:
    return -0.5 <= place_xy[0] <= hw[1] - 0.5 and -0.5 <= place_xy[1] <= hw[0] - 0.5
