"""The Prior tracking dock."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog

from napari_samexp._lazy import import_beside_window
from napari_samexp._qt.dock import Dock
from napari_samexp._qt.layer_choice import LayerChoice, is_video
from napari_samexp._qt.napari_internals import keep_gl_programs
from napari_samexp._qt.sample_data import show_samples
from napari_samexp._qt.shortcuts import TRACKING
from napari_samexp._qt.shown_video import add_video, know_viewer
from napari_samexp._qt.tracking.correction_control import CorrectionControl
from napari_samexp._qt.tracking.estimate_control import EstimateControl
from napari_samexp._qt.tracking.hints import Standing, hint_for
from napari_samexp._qt.tracking.model_control import ModelControl, loading_progress
from napari_samexp._qt.tracking.panel import Panel
from napari_samexp._qt.tracking.prompt_control import PromptControl
from napari_samexp._qt.tracking.reopening import Reopening
from napari_samexp._qt.tracking.run_control import RunControl
from napari_samexp._qt.tracking.timeline_control import TimelineControl
from napari_samexp.errors import SamexpError
from napari_samexp.io.video import open_video
from napari_samexp.session.session import Session

__all__ = ["PriorTracking"]

PRIOR_FILES = "Prior (*.safetensors)"
VIDEO_FILES = "Videos (*.mp4 *.mov *.avi *.mkv *.webm *.gif *.tif *.tiff);;All files (*)"
BEGIN_MS = 100  # lets the dock be drawn before imports on other threads hold the interpreter


class PriorTracking(Dock):
    """Show a model one thing, and find it in a video.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Passed by napari to a parameter of this name.
    session : Session, optional
        Another session, for tests.
    """

    def __init__(self, napari_viewer: Any, session: Session | None = None) -> None:
        super().__init__(Panel(), napari_viewer)
        self.session: Any = session or Session(deliver=self.window_thread)
        self.end_with_window()
        know_viewer(self.viewer)
        keep_gl_programs()
        self._build()
        self._connect()
        self._show_settings()
        self.panel.welcome.setVisible(not self.session.settings.welcomed)
        QTimer.singleShot(BEGIN_MS, self._begin)
        self.refresh()
        if self.session.first_notice:
            self.notify(self.session.first_notice)

    def load_prior_from(self, path: str) -> None:
        """Take the recordings from a prior file."""
        self.session.recordings.load(path)

    def save_prior_to(self, path: str) -> None:
        """Write the recordings to a prior file; `SamexpError` if there are none."""
        self.session.recordings.save(path)

    def open_video_from(self, path: str, then: Callable[[Any], None] = lambda layer: None) -> None:
        """Open a video without blocking the window, show it, and call `then` with its layer."""
        self.notify(f"Opening {Path(path).name} …")

        def show(video: Any) -> None:
            layer = add_video(self.viewer, video, path=path)
            self.videos.refill()
            self.videos.choose(layer)
            self.clear_message()
            then(layer)

        self._in_thread(lambda: open_video(path), show)

    def end(self) -> None:
        """Undo every connection, end the worker, and remove the prompts' layers; labels and videos stay."""
        if self.session is not None:
            self.connections.undo()
            self.prompts.remove()
        super().end()

    def refresh(self) -> None:
        """Show the next step, and enable the controls that can be used now."""
        self._enable()
        self.show_hint(hint_for(self._standing()))

    # ---- building

    def _build(self) -> None:
        self.images = LayerChoice(
            self.panel.image,
            self,
            prefers=lambda layer: layer.ndim == 2,
            # an image opened next is the one to click on, unless clicks would be left behind
            gives_way=lambda: self.session.prompting.prompt.is_empty,
        )
        self.videos = LayerChoice(self.panel.video, self, accepts=is_video)
        self.models = ModelControl(self)
        self.reopening = Reopening(self)
        self.prompts = PromptControl(self, self.images)
        self.run = RunControl(self, self.videos)
        self.timeline = TimelineControl(self, self.videos, self.run.labels)
        self.corrections = CorrectionControl(self, self.videos, self.prompts, self.run)
        self.estimates = EstimateControl(self, self.videos, self.run)

    def _connect(self) -> None:
        panel, session = self.panel, self.session
        recordings, shown = session.recordings, panel.recordings
        for signal, call in (
            (session.notice, self.notify),
            (session.settings_changed, self._show_settings),
            (session.models.changed, self._model_changed),
            (session.tracking.video_changed, self._show_video_of_run),
            (recordings.changed, self._show_recordings),
            (recordings.saved, self._saved),
            (shown.switched, recordings.switch),
            (shown.renamed, recordings.rename),
            (shown.relabelled, recordings.relabel),
            (shown.removed, recordings.remove),
            (shown.undone, recordings.undo),
            (shown.dropped, self.load_prior_from),
            (panel.remove.clicked, shown.remove_current),
            (panel.undo.clicked, recordings.undo),
            (panel.save_prior.clicked, self._choose_save),
            (panel.load_prior.clicked, self._choose_prior),
            (panel.open_video.clicked, self._choose_video),
            (panel.welcome.sample_asked, self._show_samples),
            (panel.welcome.tutorial_asked, self.show_help),
            (panel.welcome.dismissed, self._welcomed),
            (panel.own_settings.edited, self._setting_edited),
            (panel.track_settings.edited, self._setting_edited),
            (self.viewer.layers.selection.events.active, self._active_layer_changed),
        ):
            self.connections.add(signal, call)
        self._bind("record", lambda viewer: self.prompts.record())
        self._bind("next_lost", lambda viewer: self.timeline.go_to_lost(1))
        self._bind("previous_lost", lambda viewer: self.timeline.go_to_lost(-1))

    def _bind(self, name: str, call: Callable[[Any], None]) -> None:
        key = TRACKING[name].keys
        self.viewer.bind_key(key, call, overwrite=True)
        self.connections.later(lambda: self.viewer.bind_key(key, None))

    def _begin(self) -> None:
        if self.session is not None:
            self._begin_prompting()  # imports before the worker's: clicks come before runs
            self.session.start()
            self.models.begin()
            self.session.find_leftovers()

    def _begin_prompting(self) -> None:
        # napari imports pandas with the first points, which takes as long as everything else here together
        if "pandas" in sys.modules:
            self.prompts.begin()
        else:
            self._in_thread(lambda: import_beside_window("pandas"), lambda _: self.prompts.begin())

    # ---- what changes

    def _show_samples(self) -> None:
        show_samples(self.viewer)

    def _welcomed(self) -> None:
        self.panel.welcome.hide()
        self.session.change_settings(welcomed=True)

    def _show_video_of_run(self, video: Any) -> None:
        """Show the video of a run that was opened, if it is a file and not shown yet."""
        if video is not None and video.path is not None and self.run.layer_showing(video.path) is None:
            self.open_video_from(video.path, self.run.adopt)

    def _model_changed(self, state: Any) -> None:
        self.panel.cancel.setEnabled(state.state == "loading" or self.session.tracking.job.active)
        if state.state == "failed" and state.sentence:
            self.notify(state.sentence, state.code)
        self.refresh()

    def _show_recordings(self, infos: tuple[Any, ...]) -> None:
        self.panel.recordings.show_recordings(infos, self.session.recordings.undoable)
        self.refresh()

    def _active_layer_changed(self, event: Any) -> None:
        # later: docks add a layer and then activate another one
        self.window_thread(lambda: self._if_open(self.refresh))

    def _saved(self, path: Any) -> None:
        self.notify(f"Saved to {path}.")

    def _show_settings(self, *_: Any) -> None:
        self.panel.own_settings.show_values(self.session.settings)
        self.panel.track_settings.show_values(self.session.settings.track)

    def _setting_edited(self, name: str, value: Any) -> None:
        change = self.session.change_settings
        if name in ("device", "dtype", "graphs"):
            change = self.session.load_model
        try:
            change(**{name: value})
        except SamexpError as error:
            self.notify(str(error), error.code)
            self._show_settings()

    def _standing(self) -> Standing:
        session, state = self.session, self.session.models.state
        return Standing(
            model=state.state,
            loading=loading_progress(state),
            has_memory=state.info is None or state.info.has_memory,
            images=self.images.current is not None,
            prompted=not session.prompting.prompt.is_empty,
            previewed=session.prompting.preview is not None,
            recordings=len(session.recordings.labels),
            video=self.videos.current is not None,
            job=session.tracking.job.state,
            lost=len(session.results.lost_frames()),
            left=self.reopening.leftover is not None,
            covered=self.prompts.covered_by,
            to_select=self.prompts.to_select,
        )

    def _enable(self) -> None:
        session, panel = self.session, self.panel
        panel.record.setEnabled(not session.prompting.prompt.is_empty)
        panel.save_prior.setEnabled(bool(session.recordings.all))
        panel.remove.setEnabled(bool(session.recordings.all))
        panel.undo.setEnabled(session.recordings.undoable)
        ready = bool(session.recordings.labels) and self.videos.current is not None
        panel.track.setEnabled(ready and not session.tracking.job.active)
        panel.remember_frame.setEnabled(self.videos.current is not None and session.models.state.usable)

    # ---- files

    def _choose_save(self, *_: Any) -> None:
        path, _kind = QFileDialog.getSaveFileName(self, "Save the prior", "prior.safetensors", PRIOR_FILES)
        if path:
            with self.errors_shown():
                self.save_prior_to(path)

    def _choose_prior(self, *_: Any) -> None:
        path, _kind = QFileDialog.getOpenFileName(self, "Load a prior", "", PRIOR_FILES)
        if path:
            self.load_prior_from(path)

    def _choose_video(self, *_: Any) -> None:
        path, _kind = QFileDialog.getOpenFileName(self, "Open a video", "", VIDEO_FILES)
        if path:
            self.open_video_from(path)

    def _in_thread(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Run slow work on a thread, and `then` with its result on the window's."""

        def run() -> None:
            try:
                result = work()
            except SamexpError as error:
                sentence, code = str(error), error.code
                self.window_thread(lambda: self._if_open(lambda: self.notify(sentence, code)))
            else:
                self.window_thread(lambda: self._if_open(lambda: then(result)))

        threading.Thread(target=run, name="samexp opening", daemon=True).start()

    def _if_open(self, call: Callable[[], None]) -> None:
        if self.session is not None:
            call()
