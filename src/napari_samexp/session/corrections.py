"""Corrections of single frames, which join the run and the recordings."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_samexp.engine.messages.base import Failed, Reply, VideoRef
from napari_samexp.engine.messages.prompts import PriorChanged, RememberFrame
from napari_samexp.engine.sharing import SharedArray
from napari_samexp.errors import PromptError, SamexpError, VideoError
from napari_samexp.session.proxy import EngineProxy
from napari_samexp.session.recordings import Recordings
from napari_samexp.session.results import Results
from napari_samexp.session.tracking import Tracking
from napari_samexp.types import Prompt

__all__ = ["Corrections"]


class Corrections:
    """Remembers corrected frames.

    Signals
    -------
    remembered : int
        A corrected frame joined the run and the recordings.
    failed : str, str
        One sentence, and its code.
    """

    remembered = Signal(int)
    failed = Signal(str, str)

    def __init__(
        self, proxy: EngineProxy, tracking: Tracking, recordings: Recordings, results: Results
    ) -> None:
        self._proxy = proxy
        self._tracking = tracking
        self._recordings = recordings
        self._results = results

    def remember_frame(
        self,
        index: int,
        label: int,
        *,
        name: str = "",
        mask: npt.NDArray[np.bool_] | None = None,
        prompt: Prompt | None = None,
        mask_index: int | None = None,
        shown: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Add what a frame of the video shows to the run and to the recordings.

        Parameters
        ----------
        mask : array, shape (Y, X), bool, optional
            By default, without a prompt, where the labels of that frame are `label`.
        prompt : Prompt, optional
            Clicks and a box on the frame, instead of a mask.
        shown : array, shape (Y, X), bool, optional
            The mask that was shown for the prompt; it becomes the frame's label, as if it had been painted.

        Raises
        ------
        SamexpError
            If there is no video, no such frame, or nothing to remember.
        """
        video = self._require_frame(index)
        if prompt is not None and prompt.is_empty:
            raise PromptError("There are no clicks on this frame; click on the object, or paint it.")
        if prompt is None and mask is None:
            mask = self._results.mask_of(index, label)
        settings = self._tracking.settings
        shared = None if mask is None else SharedArray.of(np.asarray(mask) != 0)
        request = RememberFrame(
            video,
            index,
            label,
            store=self._tracking.job.store or None,
            name=name or self._recordings.name_of(label),
            prompt=prompt or Prompt(),
            mask_index=mask_index,
            mask=None if shared is None else shared.ref,
            side=settings.side,
            square=settings.square,
        )
        self._proxy.request(request, partial(self._on_remembered, request, shown), (shared,))

    def _require_frame(self, index: int) -> VideoRef:
        video = self._tracking.require_video()
        if not 0 <= index < video.shape[0]:
            raise VideoError(f"There is no frame {index}; the video has 0 to {video.shape[0] - 1}.")
        return video

    def _on_remembered(
        self, request: RememberFrame, shown: npt.NDArray[np.bool_] | None, reply: Reply
    ) -> None:
        if isinstance(reply, Failed):
            self.failed.emit(reply.sentence, reply.code)
        elif isinstance(reply, PriorChanged):
            self._recordings.show(reply.prior)
            self._tracking.update_known()
            try:
                if shown is not None and request.store is not None:
                    self._results.paint(request.store, request.index, request.label, shown)
            except SamexpError as error:
                self.failed.emit(str(error), error.code)
            self.remembered.emit(request.index)
