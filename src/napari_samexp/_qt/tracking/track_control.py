"""From recordings and a video to labels, and back to corrections."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs

from napari_samexp._qt.connections import Connections
from napari_samexp._qt.image_layers import plane_of, step_to, time_of
from napari_samexp._qt.layer_choice import LayerChoice
from napari_samexp._qt.news import news
from napari_samexp._qt.shown_video import ShownVideo
from napari_samexp._qt.tracking.panel import Panel
from napari_samexp._qt.tracking.prompt_control import PromptControl
from napari_samexp._qt.tracking.run_labels import OF_A_DOCK, RunLabels
from napari_samexp._qt.tracking.run_progress import RunProgress
from napari_samexp.errors import SamexpError
from napari_samexp.session.estimates import Estimate
from napari_samexp.session.frames import select_frames
from napari_samexp.session.jobs import JobState
from napari_samexp.session.session import Session
from napari_samexp.types import ObjectScore, Prompt

if TYPE_CHECKING:  # zarr takes long to import, and the window would wait for it
    from napari_samexp.io.label_edits import EditableLabels

__all__ = ["TrackControl", "scores_words", "store_folder"]

_PACKAGE = Path(__file__).parents[2]
MOST_NAME = 16  # characters of a label's name beside its scores


def store_folder(video: Path | None) -> Path:
    """Return where labels of a video go: beside it, or to the user's data if that is no place to write."""
    if video is not None and os.access(video.parent, os.W_OK) and _PACKAGE not in video.parents:
        return video.parent
    return platformdirs.user_data_path("napari-samexp", appauthor=False) / "labels"


def scores_words(scores: dict[int, ObjectScore], names: dict[int, str], painted: bool = False) -> list[str]:
    """Return a frame's scores, a line for each object; of a painted frame, they are of what was there before."""
    lines = [
        f"{_short(names.get(label) or f'object {label}')}: "
        + ("painted" if painted else "lost" if score.lost else f"IoU {score.iou:.2f}")
        + f", presence {score.presence:.1f}"
        for label, score in scores.items()
    ]
    return lines or ["this frame is not tracked yet"]


def _short(name: str) -> str:
    """Return a name that leaves room for numbers beside it in a narrow dock."""
    return name if len(name) <= MOST_NAME else f"{name[: MOST_NAME - 1].rstrip()}…"


class TrackControl:
    """The video, the run, the timeline, and what a person corrects.

    Parameters
    ----------
    videos : LayerChoice
        The layer to track in.
    say : callable
        Shows one sentence.
    changed : callable
        Told when there may be something else to do next.
    """

    def __init__(
        self,
        panel: Panel,
        session: Session,
        viewer: Any,
        videos: LayerChoice,
        prompts: PromptControl,
        connections: Connections,
        say: Callable[..., None],
        changed: Callable[[], None],
    ) -> None:
        self._panel, self._session, self._viewer = panel, session, viewer
        self._videos, self._prompts = videos, prompts
        self._say, self._told = say, changed
        self.labels = RunLabels(viewer)
        self.progress = RunProgress(panel.progress)
        self._run_of: Any = None  # the layer that the run is in
        self._run_frames: range | None = None
        self._proposed: int | None = None  # a smaller side for a run that takes long
        self._again_at: tuple[Any, range] | None = None  # what to track once the run has ended
        self._connect(connections)
        self._video_changed(videos.current)
        self._frames_chosen()
        self._job_changed(session.tracking.job)

    # ---- what a person does

    def track(self, *_: Any) -> None:
        """Track the chosen frames; those of a run that is there are tracked again, the others stay."""
        layer = self._videos.current
        if layer is None:
            self._say("Open a video first.")
            return
        try:
            self._track(layer, self._chosen_frames(layer))
        except SamexpError as error:
            self._say(str(error), error.code)

    def pause_or_resume(self, *_: Any) -> None:
        """Stop for a while, or go on."""
        job = self._session.tracking.job
        try:
            if job.state in ("starting", "tracking"):
                self._session.tracking.pause()
            else:
                self._session.tracking.resume()
        except SamexpError as error:
            self._say(str(error), error.code)

    def cancel(self, *_: Any) -> None:
        """Stop tracking, or loading."""
        if self._session.tracking.job.active or self._session.tracking.job.state == "interrupted":
            self._session.tracking.cancel()
        else:
            self._session.models.cancel()

    def go_to_lost(self, step: int) -> None:
        """Bring the next (1) or previous (-1) place into view where something was lost."""
        layer = self._shown_layer()
        if layer is None:
            return
        index = self._panel.timeline.next_lost(time_of(layer, self._viewer.dims), step)
        if index is None:
            self._say("Nothing was lost " + ("after" if step > 0 else "before") + " this frame.")
        else:
            step_to(layer, self._viewer.dims, index)

    def remember_frame(self, *_: Any) -> None:
        """Take clicks on this frame, or else what is painted on it, into the run's memory."""
        layer = self._videos.current
        if layer is None:
            self._say("Open a video first.")
            return
        label = self._panel.label.value()
        try:
            index = time_of(layer, self._viewer.dims)
            prompts = self._prompts.layers
            clicked = prompts is not None and prompts.image is layer and self._prompts.prompted
            if clicked:
                prompt = prompts.prompt(plane_of(layer, self._viewer.dims))  # type: ignore[union-attr]
                self._remember_clicks(index, label, prompt)
            else:
                painted = self._painted_label(index, label)
                self._session.corrections.remember_frame(index, painted)
        except SamexpError as error:
            self._say(str(error), error.code)

    # ---- wiring

    def _connect(self, connections: Connections) -> None:
        panel, tracking = self._panel, self._session.tracking
        results = self._session.results
        for signal, call in (
            (panel.track.clicked, self.track),
            (panel.pause.clicked, self.pause_or_resume),
            (panel.cancel.clicked, self.cancel),
            (panel.previous_lost.clicked, self._previous_lost),
            (panel.next_lost.clicked, self._next_lost),
            (panel.remember_frame.clicked, self.remember_frame),
            (panel.reset_memory.clicked, self._reset_memory),
            (panel.timeline.frame_chosen, self._go_to),
            (panel.frames.activated, self._frames_chosen),
            (panel.first.valueChanged, self._show_estimate),
            (panel.last.valueChanged, self._show_estimate),
            (panel.use_side.clicked, self._use_side),
            (self._session.settings_changed, self._show_estimate),
            (self._session.models.changed, self._show_estimate),
            (self._session.recordings.changed, self._show_estimate),
            (self._videos.changed, self._video_changed),
            (self._viewer.dims.events.point, self._moved),
            (tracking.job_changed, self._job_changed),
            (tracking.frame_done, self._frame_done),
            (results.labels_changed, self._labels_changed),
            (results.scores_changed, self._scores_changed),
            (results.edited_changed, self._edited_changed),
            (self._session.corrections.remembered, self._remembered),
            (tracking.video_changed, self._run_video_changed),
            (self._viewer.layers.events.inserted, self._layer_inserted),
            (news.measured, self._measured),
        ):
            connections.add(signal, call)
        connections.later(self.progress.close)

    # ---- the video and its frames

    def _video_changed(self, layer: Any) -> None:
        count = 1 if layer is None else int(layer.data.shape[0])
        for spin, value in ((self._panel.first, 0), (self._panel.last, count - 1)):
            spin.setRange(0, count - 1)
            spin.setValue(value)
        self._moved()
        self._show_estimate()
        self._told()

    def _frames_chosen(self, *_: Any) -> None:
        self._panel.range_row.setVisible(self._panel.frames.currentText() == "range")
        self._show_estimate()

    def _chosen_frames(self, layer: Any, choice: str | None = None) -> range:
        return select_frames(
            choice or self._panel.frames.currentText(),  # type: ignore[arg-type]
            int(layer.data.shape[0]),
            current=time_of(layer, self._viewer.dims),
            first=self._panel.first.value(),
            last=self._panel.last.value(),
            direction=self._session.settings.track.direction,
        )

    def _track(self, layer: Any, frames: range) -> None:
        tracking = self._session.tracking
        labels = self._session.results.labels
        same_run = layer is self._run_of and labels is not None and tracking.knows_all
        if same_run and len(frames) < layer.data.shape[0]:
            assert labels is not None
            tracking.track(frames, store=labels.path, again=True)
        else:
            self._track_anew(layer, frames)

    def _track_anew(self, layer: Any, frames: range) -> None:
        from napari_samexp.session.stores import default_store

        tracking = self._session.tracking
        shown = layer.data if isinstance(layer.data, ShownVideo) else None
        path = None if shown is None else shown.path
        tracking.set_video(shown.exact if shown else layer.data, path=path, name=layer.name)
        self._run_of, self._run_frames = layer, frames
        name = path.name if path else layer.name
        tracking.track(frames, store=default_store(name, store_folder(path)))

    def layer_showing(self, path: Any) -> Any:
        """Return the layer of the video file at a path, or None."""
        shown = (layer for layer in self._viewer.layers if isinstance(layer.data, ShownVideo))
        return next((layer for layer in shown if path and layer.data.path == Path(path)), None)

    def adopt(self, layer: Any) -> None:
        """Take a layer for the video of the run that is shown, and lay the labels over it."""
        self._run_of = layer
        layers = self._viewer.layers
        if self.labels.shown and layers.index(layer) > layers.index(self.labels.layer):
            layers.move(layers.index(layer), layers.index(self.labels.layer))

    def _run_video_changed(self, video: Any) -> None:
        self._run_of = None if video is None else self.layer_showing(video.path)

    def _layer_inserted(self, event: Any) -> None:
        """Show the run whose labels were opened as a file."""
        module = sys.modules.get("napari_samexp.io.label_edits")  # else none can be there
        kind = getattr(module, "EditableLabels", None)  # nor while another thread still imports it
        if kind is None or not isinstance(event.value.data, kind):
            return
        if OF_A_DOCK in event.value.metadata:
            return  # another dock's run, which may be on
        labels = self._session.results.labels
        if not self._session.tracking.job.active and (labels is None or labels.path != event.value.data.path):
            self._session.open_run(event.value.data.path)

    # ---- how long it takes

    def _show_estimate(self, *_: Any) -> None:
        """Say what the run takes, or what one would take, and offer a smaller side where that is long."""
        layer = self._videos.current
        estimate = None if layer is None else self._estimate(layer)
        waits = layer is not None and self._session.tracking.job.active
        self._panel.estimate.setText(
            estimate.words if estimate else "time: known after three frames" if waits else ""
        )
        self._panel.use_side.setText(estimate.proposal if estimate else "")
        self._panel.use_side.setVisible(bool(estimate and estimate.proposal))
        self._proposed = estimate.proposed if estimate else None

    def _estimate(self, layer: Any) -> Estimate | None:
        height, width = layer.data.shape[1:3]
        try:
            frames = len(self._chosen_frames(layer))
        except SamexpError:
            return None  # between two videos, of which one has fewer frames
        return self._session.tracking.estimate(frames, (int(height), int(width)))

    def _use_side(self, *_: Any) -> None:
        """Track at the proposed side: a run that is on ends, and begins anew once it has."""
        side, tracking = self._proposed, self._session.tracking
        layer = self._videos.current
        if side is None or layer is None:
            return
        if tracking.job.active:
            self._again_at = (layer, self._run_frames or self._chosen_frames(layer))
            tracking.cancel()
        self._session.change_settings(side=side)

    def _begin_again(self) -> None:
        layer, frames = self._again_at or (None, range(0))
        self._again_at = None
        if layer in self._viewer.layers:
            try:
                self._track_anew(layer, frames)
            except SamexpError as error:
                self._say(str(error), error.code)

    # ---- the run

    def _job_changed(self, job: JobState) -> None:
        self.progress.show(job)
        self._show_estimate()
        self._panel.pause.setText(
            "Pause" if job.state in ("starting", "tracking", "idle", "finished") else "Resume"
        )
        self._panel.pause.setEnabled(job.active or job.resumable)
        self._panel.cancel.setEnabled(job.active or job.state == "interrupted" or self._loading())
        self._panel.track.setEnabled(not job.active)
        self._panel.reset_memory.setEnabled(job.active)
        self._told()
        if job.state == "cancelled" and self._again_at is not None:
            self._begin_again()
        elif not job.active:
            self._again_at = None

    def _loading(self) -> bool:
        return self._session.models.state.state == "loading"

    def _frame_done(self, index: int) -> None:
        self._enter_scores(index)
        self.labels.written(index)
        if self.labels.shown and self.labels.frame == index:
            self._show_scores()

    def _labels_changed(self, labels: EditableLabels | None) -> None:
        if self._run_of not in self._viewer.layers:
            self._run_of = None
        self.labels.show(labels, self._run_of)
        if labels is not None:
            self._panel.timeline.reset(labels.shape[0], labels.names, self.labels.colours(labels.names))
            self._panel.timeline.set_painted(labels.edited)
            self._moved()

    def _scores_changed(self) -> None:
        for index in self._session.results.scores:
            self._enter_scores(index)
        self._show_scores()
        self._told()

    def _edited_changed(self) -> None:
        self._panel.timeline.set_painted(self._session.results.edited)
        self._show_scores()
        self._told()

    def _measured(self, layer: Any, made: Any) -> None:
        """Show J of a run that was measured against a ground truth, frame by frame."""
        if layer is not self.labels.layer:
            return
        curves = {label: np.full(len(layer.data), np.nan, np.float32) for label in made.names}
        for score in made.frames:
            curves[score.label][score.frame] = score.j
        self._panel.timeline.set_measured(curves)

    def _enter_scores(self, index: int) -> None:
        for label, score in self._session.results.scores.get(index, {}).items():
            self._panel.timeline.set_score(index, label, score.presence, score.iou)

    def _show_scores(self) -> None:
        results = self._session.results
        if not self.labels.shown or results.labels is None:
            return
        index = self.labels.frame
        scores, painted = results.scores.get(index, {}), index in results.edited
        names = results.labels.names
        self.labels.show_scores(scores, names, painted)
        self._panel.scores_line.setVisible(self._session.settings.show_scores)
        self._panel.show_scores(scores_words(scores, names, painted), len(names))

    # ---- where the viewer stands

    def _shown_layer(self) -> Any:
        return self.labels.layer if self.labels.shown else self._videos.current

    def _moved(self, event: Any = None) -> None:
        layer = self._shown_layer()
        if layer is not None:
            self._panel.timeline.set_current(time_of(layer, self._viewer.dims))
            self._show_scores()

    def _go_to(self, index: int) -> None:
        layer = self._shown_layer()
        if layer is not None:
            step_to(layer, self._viewer.dims, index)

    def _next_lost(self, *_: Any) -> None:
        self.go_to_lost(1)

    def _previous_lost(self, *_: Any) -> None:
        self.go_to_lost(-1)

    # ---- corrections

    def _painted_label(self, index: int, label: int) -> int:
        """Return the label to remember: the chosen one if it is on the frame, or else the only one there."""
        labels = self._session.results.labels
        if labels is None or index >= len(labels):  # of another video, as `remember_frame` will say
            return label
        there = [int(value) for value in np.unique(labels[index]) if value]
        return there[0] if label not in there and len(there) == 1 else label

    def _remember_clicks(self, index: int, label: int, prompt: Prompt) -> None:
        """Remember the mask that the person sees: a correction is what they made it, and not another guess."""
        prompting = self._session.prompting
        preview = prompting.preview
        if preview is None or prompting.pending:
            self._say("The mask comes in a moment; remember the frame once you see it.")
            return
        seen = None if preview.hover else preview.mask()  # of a hovering mouse, it is not that of the clicks
        self._session.corrections.remember_frame(
            index, label, prompt=prompt, mask_index=prompting.choice, shown=seen
        )

    def _remembered(self, index: int) -> None:
        self.labels.written(index)
        if self._prompts.layers is not None and self._prompts.layers.image is self._run_of:
            self._prompts.layers.clear()
        layer, job = self._run_of, self._session.tracking.job
        if (
            job.active
            or layer is None
            or layer not in self._viewer.layers
            or self._session.results.labels is None
        ):
            self._say(f"Frame {index} is remembered.")
            return
        backward = self._session.settings.track.direction == "backward"
        frames = range(index, -1, -1) if backward else range(index, int(layer.data.shape[0]))
        try:
            self._session.tracking.track(frames, store=self._session.results.labels.path, again=True)
            self._say(f"Frame {index} is remembered; tracking goes on from there.")
        except SamexpError as error:
            self._say(str(error), error.code)

    def _reset_memory(self, *_: Any) -> None:
        self._session.tracking.reset_memory()
