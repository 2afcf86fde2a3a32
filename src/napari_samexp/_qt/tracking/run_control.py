"""The run: track the chosen frames, pause, resume, cancel, and where its labels are stored."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import platformdirs

from napari_samexp._qt.dock import Dock
from napari_samexp._qt.image_layers import time_of
from napari_samexp._qt.layer_choice import LayerChoice
from napari_samexp._qt.shown_video import ShownVideo
from napari_samexp._qt.tracking.run_labels import OF_A_DOCK, RunLabels
from napari_samexp._qt.tracking.run_progress import RunProgress
from napari_samexp.session.frames import select_frames
from napari_samexp.session.jobs import JobState
from napari_samexp.session.session import Session

__all__ = ["RunControl", "store_folder"]

_PACKAGE = Path(__file__).parents[2]


def store_folder(video: Path | None) -> Path:
    """Return where a video's labels go: beside it, or in the user's data folder if that cannot be written to."""
    if video is not None and os.access(video.parent, os.W_OK) and _PACKAGE not in video.parents:
        return video.parent
    return platformdirs.user_data_path("napari-samexp", appauthor=False) / "labels"


class RunControl:
    """Starts and stops runs, and shows the labels of the current one.

    Parameters
    ----------
    dock : Dock
    videos : LayerChoice
        The layer to track in.

    Attributes
    ----------
    layer : napari.layers.Image or None
        The layer of the run's video.
    labels : RunLabels
    progress : RunProgress
    """

    def __init__(self, dock: Dock, videos: LayerChoice) -> None:
        self._dock, self._panel, self._viewer, self._videos = dock, dock.panel, dock.viewer, videos
        self._session: Session = dock.session
        self.labels = RunLabels(dock.viewer)
        self.progress = RunProgress(self._panel.progress)
        self.layer: Any = None
        self._frames: range | None = None
        self._restart: tuple[Any, range] | None = None  # what to track once the current run has ended
        self._connect()
        self._video_changed(videos.current)
        self._frame_choice_changed()
        self._job_changed(self._session.tracking.job)

    def track(self, *_: Any) -> None:
        """Track the chosen frames; in the run's own video, only these are tracked again."""
        layer = self._videos.current
        if layer is None:
            self._dock.notify("Open a video first.")
            return
        with self._dock.errors_shown():
            self._track(layer, self.chosen_frames(layer))

    def pause_or_resume(self, *_: Any) -> None:
        """Pause a run, or resume it."""
        tracking = self._session.tracking
        with self._dock.errors_shown():
            if tracking.job.state in ("starting", "tracking"):
                tracking.pause()
            else:
                tracking.resume()

    def cancel(self, *_: Any) -> None:
        """Stop tracking, or loading the model."""
        job = self._session.tracking.job
        if job.active or job.state == "interrupted":
            self._session.tracking.cancel()
        else:
            self._session.models.cancel()

    def restart(self, layer: Any) -> None:
        """Cancel the run, and track its frames anew, into other labels, once it has ended."""
        self._restart = (layer, self._frames or self.chosen_frames(layer))
        self._session.tracking.cancel()

    def chosen_frames(self, layer: Any) -> range:
        """Return the frames to track in a layer.

        Raises
        ------
        SamexpError
            If the chosen range is not in the video.
        """
        panel = self._panel
        return select_frames(
            panel.frames.currentText(),
            int(layer.data.shape[0]),
            current=time_of(layer, self._viewer.dims),
            first=panel.first.value(),
            last=panel.last.value(),
            direction=self._session.settings.track.direction,
        )

    def layer_showing(self, path: Any) -> Any:
        """Return the layer of the video file at a path, or None."""
        shown = (layer for layer in self._viewer.layers if isinstance(layer.data, ShownVideo))
        return next((layer for layer in shown if path and layer.data.path == Path(path)), None)

    def adopt(self, layer: Any) -> None:
        """Take a layer as the run's video, and move the labels above it."""
        self.layer = layer
        layers = self._viewer.layers
        if self.labels.shown and layers.index(layer) > layers.index(self.labels.layer):
            layers.move(layers.index(layer), layers.index(self.labels.layer))

    def _connect(self) -> None:
        panel, session, connections = self._panel, self._session, self._dock.connections
        for signal, call in (
            (panel.track.clicked, self.track),
            (panel.pause.clicked, self.pause_or_resume),
            (panel.cancel.clicked, self.cancel),
            (panel.reset_memory.clicked, self._reset_memory),
            (panel.frames.activated, self._frame_choice_changed),
            (self._videos.changed, self._video_changed),
            (session.tracking.job_changed, self._job_changed),
            (session.tracking.frame_done, self.labels.written),
            (session.tracking.video_changed, self._run_video_changed),
            (session.results.labels_changed, self._labels_changed),
            (self._viewer.layers.events.inserted, self._layer_inserted),
        ):
            connections.add(signal, call)
        connections.later(self.progress.close)

    def _track(self, layer: Any, frames: range) -> None:
        labels = self._session.results.labels
        same_run = layer is self.layer and labels is not None and self._session.tracking.knows_all
        if labels is not None and same_run and len(frames) < layer.data.shape[0]:
            self._session.tracking.track(frames, store=labels.path, again=True)
        else:
            self._track_anew(layer, frames)

    def _track_anew(self, layer: Any, frames: range) -> None:
        from napari_samexp.session.stores import default_store

        tracking = self._session.tracking
        shown = layer.data if isinstance(layer.data, ShownVideo) else None
        path = None if shown is None else shown.path
        tracking.set_video(shown.exact if shown else layer.data, path=path, name=layer.name)
        self.layer, self._frames = layer, frames
        tracking.track(frames, store=default_store(path.name if path else layer.name, store_folder(path)))

    def _reset_memory(self, *_: Any) -> None:
        self._session.tracking.reset_memory()

    # ---- what changes

    def _video_changed(self, layer: Any) -> None:
        count = 1 if layer is None else int(layer.data.shape[0])
        for spin, value in ((self._panel.first, 0), (self._panel.last, count - 1)):
            spin.setRange(0, count - 1)
            spin.setValue(value)
        self._dock.refresh()

    def _frame_choice_changed(self, *_: Any) -> None:
        self._panel.range_row.setVisible(self._panel.frames.currentText() == "range")

    def _run_video_changed(self, video: Any) -> None:
        self.layer = None if video is None else self.layer_showing(video.path)

    def _labels_changed(self, labels: Any) -> None:
        if self.layer not in self._viewer.layers:
            self.layer = None
        self.labels.show(labels, self.layer)

    def _layer_inserted(self, event: Any) -> None:
        """Show the run whose labels were opened as a file."""
        module = sys.modules.get(
            "napari_samexp.io.label_edits"
        )  # slow to import; nothing can be its layer before
        kind = getattr(module, "EditableLabels", None)  # not there while another thread still imports it
        if kind is None or not isinstance(event.value.data, kind):
            return
        if OF_A_DOCK in event.value.metadata:
            return  # the run of another dock
        labels = self._session.results.labels
        if not self._session.tracking.job.active and (labels is None or labels.path != event.value.data.path):
            self._session.open_run(event.value.data.path)

    def _job_changed(self, job: JobState) -> None:
        panel, loading = self._panel, self._session.models.state.state == "loading"
        self.progress.show(job)
        can_pause = job.state in ("starting", "tracking", "idle", "finished")
        panel.pause.setText("Pause" if can_pause else "Resume")
        panel.pause.setEnabled(job.active or job.resumable)
        panel.cancel.setEnabled(job.active or job.state == "interrupted" or loading)
        panel.track.setEnabled(not job.active)
        panel.reset_memory.setEnabled(job.active)
        self._dock.refresh()
        if job.state == "cancelled" and self._restart is not None:
            self._track_restarted()
        elif not job.active:
            self._restart = None

    def _track_restarted(self) -> None:
        layer, frames = self._restart or (None, range(0))
        self._restart = None
        if layer in self._viewer.layers:
            with self._dock.errors_shown():
                self._track_anew(layer, frames)
