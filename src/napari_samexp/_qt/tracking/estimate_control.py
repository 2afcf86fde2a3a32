"""How long a run takes, and a smaller model input where that is long."""

from __future__ import annotations

from typing import Any

from napari_samexp._qt.dock import Dock
from napari_samexp._qt.layer_choice import LayerChoice
from napari_samexp._qt.tracking.run_control import RunControl
from napari_samexp.errors import SamexpError
from napari_samexp.session.estimates import Estimate
from napari_samexp.session.session import Session

__all__ = ["EstimateControl"]


class EstimateControl:
    """Shows the estimated time of the run, or of the next one, and the button that makes it shorter."""

    def __init__(self, dock: Dock, videos: LayerChoice, run: RunControl) -> None:
        self._dock, self._panel, self._videos, self._run = dock, dock.panel, videos, run
        self._session: Session = dock.session
        self._side: int | None = None  # the proposed side of the model's input
        session, panel = self._session, self._panel
        for signal in (
            panel.frames.activated,
            panel.first.valueChanged,
            panel.last.valueChanged,
            session.settings_changed,
            session.models.changed,
            session.recordings.changed,
            session.tracking.job_changed,
            videos.changed,
        ):
            dock.connections.add(signal, self.show)
        dock.connections.add(panel.use_side.clicked, self._use_side)
        self.show()

    def show(self, *_: Any) -> None:
        """Show the estimate for the chosen frames."""
        layer = self._videos.current
        estimate = None if layer is None else self._estimate(layer)
        waiting = layer is not None and self._session.tracking.job.active
        words = "time: known after three frames" if waiting else ""
        self._panel.estimate.setText(estimate.words if estimate else words)
        self._panel.use_side.setText(estimate.proposal if estimate else "")
        self._panel.use_side.setVisible(bool(estimate and estimate.proposal))
        self._side = estimate.proposed if estimate else None

    def _estimate(self, layer: Any) -> Estimate | None:
        height, width = layer.data.shape[1:3]
        try:
            frames = len(self._run.chosen_frames(layer))
        except SamexpError:
            return None  # while the chosen range is still that of a longer video
        tracking = self._session.tracking
        if tracking.job.active:
            return tracking.estimates.of_run()
        return tracking.estimates.of_next(tracking.settings, (int(height), int(width)), frames)

    def _use_side(self, *_: Any) -> None:
        """Use the proposed side; a run that is on starts again with it."""
        side, layer = self._side, self._videos.current
        if side is None or layer is None:
            return
        if self._session.tracking.job.active:
            self._run.restart(layer)
        self._session.change_settings(side=side)
