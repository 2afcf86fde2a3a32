"""Corrections: what a person painted or clicked on a frame becomes part of the run's memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_samexp._qt.dock import Dock
from napari_samexp._qt.image_layers import plane_of, time_of
from napari_samexp._qt.layer_choice import LayerChoice
from napari_samexp._qt.tracking.prompt_control import PromptControl
from napari_samexp._qt.tracking.run_control import RunControl
from napari_samexp.session.session import Session
from napari_samexp.types import Prompt

__all__ = ["CorrectionControl"]


class CorrectionControl:
    """Remembers the frame in view, and tracks the following ones again.

    Parameters
    ----------
    dock : Dock
    videos : LayerChoice
        The layer to track in.
    prompts : PromptControl
    run : RunControl
    """

    def __init__(self, dock: Dock, videos: LayerChoice, prompts: PromptControl, run: RunControl) -> None:
        self._dock, self._panel, self._viewer = dock, dock.panel, dock.viewer
        self._session: Session = dock.session
        self._videos, self._prompts, self._run = videos, prompts, run
        dock.connections.add(self._panel.remember_frame.clicked, self.remember_frame)
        dock.connections.add(self._session.corrections.remembered, self._remembered)

    def remember_frame(self, *_: Any) -> None:
        """Add the clicks on this frame, or else what is painted on it, to the run's memory."""
        layer, prompts = self._videos.current, self._prompts.layers
        if layer is None:
            self._dock.notify("Open a video first.")
            return
        label = self._panel.label.value()
        with self._dock.errors_shown():
            index = time_of(layer, self._viewer.dims)
            if prompts is not None and prompts.image is layer and self._prompts.prompted:
                self._remember_clicks(index, label, prompts.prompt(plane_of(layer, self._viewer.dims)))
            else:
                self._session.corrections.remember_frame(index, self._painted_label(index, label))

    def _painted_label(self, index: int, label: int) -> int:
        """Return the chosen label if it is on the frame, or else the only one that is."""
        labels = self._session.results.labels
        if labels is None or index >= len(labels):  # of another video; `remember_frame` raises
            return label
        present = [int(value) for value in np.unique(labels[index]) if value]
        return present[0] if label not in present and len(present) == 1 else label

    def _remember_clicks(self, index: int, label: int, prompt: Prompt) -> None:
        """Remember exactly the mask that is shown, rather than have the model predict another."""
        prompting = self._session.prompting
        preview = prompting.preview
        if preview is None or prompting.pending:
            self._dock.notify("The mask is being computed; remember the frame once you see it.")
            return
        shown = None if preview.hover else preview.mask()  # a hover preview is not the mask of the clicks
        self._session.corrections.remember_frame(
            index, label, prompt=prompt, mask_index=prompting.choice, shown=shown
        )

    def _remembered(self, index: int) -> None:
        self._run.labels.written(index)
        layer, tracking = self._run.layer, self._session.tracking
        if self._prompts.layers is not None and self._prompts.layers.image is layer:
            self._prompts.layers.clear()
        labels = self._session.results.labels
        if tracking.job.active or layer is None or layer not in self._viewer.layers or labels is None:
            self._dock.notify(f"Frame {index} is remembered.")
            return
        backward = self._session.settings.track.direction == "backward"
        frames = range(index, -1, -1) if backward else range(index, int(layer.data.shape[0]))
        with self._dock.errors_shown():
            tracking.track(frames, store=labels.path, again=True)
            self._dock.notify(f"Frame {index} is remembered; tracking continues from there.")
