"""The dock "Prior tracking"."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog

from napari_samexp._lazy import import_beside_window
from napari_samexp._qt.connections import Connections, WindowThread
from napari_samexp._qt.dock import Dock, let_go, unwrapped
from napari_samexp._qt.layer_choice import LayerChoice, is_video
from napari_samexp._qt.sample_data import show_samples
from napari_samexp._qt.shortcuts import TRACKING
from napari_samexp._qt.shown_video import add_video, know_viewer
from napari_samexp._qt.software_rendering import spare_programs
from napari_samexp._qt.text import button_text
from napari_samexp._qt.tracking.hints import Standing, hint_for
from napari_samexp._qt.tracking.model_control import ModelControl, loading_words
from napari_samexp._qt.tracking.panel import Panel
from napari_samexp._qt.tracking.prompt_control import PromptControl
from napari_samexp._qt.tracking.track_control import TrackControl
from napari_samexp.errors import SamexpError
from napari_samexp.io.video import open_video
from napari_samexp.session.session import Leftover, Session

__all__ = ["PriorTracking"]

PRIOR_FILES = "Prior (*.safetensors)"
VIDEO_FILES = "Videos (*.mp4 *.mov *.avi *.mkv *.webm *.gif *.tif *.tiff);;All files (*)"
NOTICE_MS = 8000
READING_MS = 30_000  # of a sentence with a link: time to find it
BEGIN_MS = 100  # the dock is drawn first, without imports beside it that hold the interpreter


class PriorTracking(Dock):
    """Show a model one thing, and find it in a video.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        napari gives it to a parameter of this name.
    session : Session, optional
        Another session, for tests.
    """

    def __init__(self, napari_viewer: Any, session: Session | None = None) -> None:
        super().__init__(Panel())
        self.viewer = unwrapped(napari_viewer)
        self.window_thread = WindowThread(self)
        self.session = session or Session(deliver=self.window_thread)
        self._connections = Connections()
        self.end_with_window(self.session, self._connections)
        self._notice = ""
        self._left: Leftover | None = None
        self._quiet = QTimer(self)
        self._quiet.setSingleShot(True)
        know_viewer(self.viewer)
        spare_programs()
        self._build()
        self._connect()
        self._show_settings()
        self.panel.welcome.setVisible(not self.session.settings.welcomed)
        # the worker and slow imports begin once the dock is on the screen
        QTimer.singleShot(BEGIN_MS, self._begin)
        self._tell_next()
        if self.session.first_notice:
            self.say(self.session.first_notice)

    def say(self, sentence: str, code: str = "") -> None:
        """Show a sentence for a while, instead of what to do next; `code` links it to an entry of help."""
        self._notice = sentence
        more = self.panel.hint.say(sentence, code)
        self._quiet.start(READING_MS if more else NOTICE_MS)

    def load_prior_from(self, path: str) -> None:
        """Take the recordings from a prior file."""
        self.session.recordings.load(path)

    def save_prior_to(self, path: str) -> None:
        """Write the recordings to a prior file; `SamexpError` if there are none."""
        self.session.recordings.save(path)

    def open_video_from(self, path: str, then: Callable[[Any], None] = lambda layer: None) -> None:
        """Open a video without making the window wait, show it, and call `then` with its layer."""
        self.say(f"Opening {Path(path).name} …")

        def shown(video: Any) -> None:
            layer = add_video(self.viewer, video, path=path)
            self.videos.refill()
            self.videos.choose(layer)
            self._hush()
            then(layer)

        self._aside(lambda: open_video(path), shown)

    def reopen(self, *_: Any) -> None:
        """Bring back the recordings, the video and the labels of the last time."""
        left = self._left
        self._forget_left()
        try:
            if left is not None:
                self.session.reopen(left)
        except SamexpError as error:
            self.say(str(error), error.code)

    def end(self) -> None:
        """Undo every connection, end the worker, and take the prompts' layers away; labels and videos stay."""
        if self.session is None:
            return
        session, self.session = self.session, None  # type: ignore[assignment]
        self._quiet.stop()
        self._connections.undo()
        self.prompts.remove()
        let_go(session, self._connections)

    # ---- building

    def _build(self) -> None:
        panel, session, viewer, connections = self.panel, self.session, self.viewer, self._connections
        self.images = LayerChoice(
            panel.image,
            viewer,
            connections,
            self.window_thread,
            prefers=lambda layer: layer.ndim == 2,
            # the next image that is opened is the one to click on, unless there are clicks that would be left
            gives_way=lambda: session.prompting.prompt.is_empty,
        )
        self.videos = LayerChoice(panel.video, viewer, connections, self.window_thread, accepts=is_video)
        self.models = ModelControl(panel, session, connections, self.say)
        self.prompts = PromptControl(
            panel, session, viewer, self.images, connections, self.say, self._tell_next, self.window_thread
        )
        self.tracks = TrackControl(
            panel, session, viewer, self.videos, self.prompts, connections, self.say, self._tell_next
        )

    def _connect(self) -> None:
        panel, session, add = self.panel, self.session, self._connections.add
        recordings, shown = session.recordings, panel.recordings
        for signal, call in (
            (session.notice, self.say),
            (session.settings_changed, self._show_settings),
            (session.models.changed, self._model_changed),
            (session.left_found, self._left_found),
            (session.tracking.video_changed, self._show_video_of_run),
            (session.tracking.job_changed, self._job_changed),
            (recordings.changed, self._show_recordings),
            (recordings.saved, self._saved),
            (shown.switched, recordings.switch),
            (shown.renamed, recordings.rename),
            (shown.relabelled, recordings.relabel),
            (shown.removed, recordings.remove),
            (shown.undone, recordings.undo),
            (shown.dropped, self.load_prior_from),
            (panel.reopen.clicked, self.reopen),
            (panel.remove.clicked, shown.remove_current),
            (panel.undo.clicked, recordings.undo),
            (panel.save_prior.clicked, self._ask_save),
            (panel.load_prior.clicked, self._ask_load),
            (panel.open_video.clicked, self._ask_video),
            (panel.welcome.sample_asked, self._show_samples),
            (panel.welcome.tutorial_asked, self.show_help),
            (panel.welcome.dismissed, self._welcomed),
            (panel.own_settings.edited, self._setting_edited),
            (panel.track_settings.edited, self._setting_edited),
            (self.viewer.layers.selection.events.active, self._active_layer_changed),
            (self._quiet.timeout, self._hush),
        ):
            add(signal, call)
        self._bind("record", lambda viewer: self.prompts.record())
        self._bind("next_lost", lambda viewer: self.tracks.go_to_lost(1))
        self._bind("previous_lost", lambda viewer: self.tracks.go_to_lost(-1))

    def _bind(self, name: str, call: Callable[[Any], None]) -> None:
        key = TRACKING[name].keys
        self.viewer.bind_key(key, call, overwrite=True)
        self._connections.later(lambda: self.viewer.bind_key(key, None))

    def _begin(self) -> None:
        if self.session is not None:
            self._begin_prompting()  # first in the line of imports: clicks come before runs
            self.session.start()
            self.models.begin()
            self.session.find_leftovers()

    def _begin_prompting(self) -> None:
        # napari imports pandas with the first points, which takes as long as all else here together
        if "pandas" in sys.modules:
            self.prompts.begin()
        else:
            self._aside(lambda: import_beside_window("pandas"), lambda _: self.prompts.begin())

    # ---- what happens

    def _show_samples(self) -> None:
        show_samples(self.viewer)

    def _welcomed(self) -> None:
        self.panel.welcome.hide()
        self.session.change_settings(welcomed=True)

    def _left_found(self, left: Leftover) -> None:
        if not self.session.recordings.all and not self.session.tracking.job.active:
            self._left = left
            self.panel.reopen.setText(button_text(_reopen_words(left)))
            self.panel.reopen.show()
            self._tell_next()

    def _forget_left(self) -> None:
        self._left = None
        self.panel.reopen.hide()

    def _show_video_of_run(self, video: Any) -> None:
        """Show the video of a run that was opened, if it is a file and not shown yet."""
        if video is None or video.path is None:
            return
        # told while the session chooses a layer's video too, which is there then
        if self.tracks.layer_showing(video.path) is None:
            self.open_video_from(video.path, self.tracks.adopt)

    def _job_changed(self, job: Any) -> None:
        if job.active:
            self._forget_left()

    def _model_changed(self, state: Any) -> None:
        self.panel.cancel.setEnabled(state.state == "loading" or self.session.tracking.job.active)
        if state.state == "failed" and state.sentence:
            self.say(state.sentence, state.code)
        self._tell_next()

    def _show_recordings(self, infos: tuple[Any, ...]) -> None:
        self.panel.recordings.show_recordings(infos, self.session.recordings.undoable)
        if infos:
            self._forget_left()
        self._tell_next()

    def _active_layer_changed(self, event: Any) -> None:
        # once all is done that it is part of: docks make layers, and make another active right after
        self.window_thread(lambda: self._if_open(self._tell_next))

    def _saved(self, path: Any) -> None:
        self.say(f"Saved to {path}.")

    def _show_settings(self, *_: Any) -> None:
        self.panel.own_settings.show_values(self.session.settings)
        self.panel.track_settings.show_values(self.session.settings.track)

    def _setting_edited(self, name: str, value: Any) -> None:
        try:
            if name in ("device", "dtype", "graphs"):
                self.session.load_model(**{name: value})
            else:
                self.session.change_settings(**{name: value})
        except SamexpError as error:
            self.say(str(error), error.code)
            self._show_settings()

    def _tell_next(self) -> None:
        self._enable()
        if not self._notice:
            self.panel.hint.tell(hint_for(self._standing()))

    def _hush(self) -> None:
        self._notice = ""
        self._tell_next()

    def _standing(self) -> Standing:
        session = self.session
        state = session.models.state
        return Standing(
            model=state.state,
            loading=loading_words(state),
            has_memory=state.info is None or state.info.has_memory,
            images=self.images.current is not None,
            prompted=not session.prompting.prompt.is_empty,
            previewed=session.prompting.preview is not None,
            recordings=len(session.recordings.labels),
            video=self.videos.current is not None,
            job=session.tracking.job.state,
            lost=len(session.results.lost_frames()),
            left=self._left is not None,
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

    def _ask_save(self, *_: Any) -> None:
        path, _kind = QFileDialog.getSaveFileName(self, "Save the prior", "prior.safetensors", PRIOR_FILES)
        if path:
            try:
                self.save_prior_to(path)
            except SamexpError as error:
                self.say(str(error), error.code)

    def _ask_load(self, *_: Any) -> None:
        path, _kind = QFileDialog.getOpenFileName(self, "Load a prior", "", PRIOR_FILES)
        if path:
            self.load_prior_from(path)

    def _ask_video(self, *_: Any) -> None:
        path, _kind = QFileDialog.getOpenFileName(self, "Open a video", "", VIDEO_FILES)
        if path:
            self.open_video_from(path)

    def _aside(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Run slow work on a thread, and hand its outcome over on the window's."""

        def run() -> None:
            try:
                outcome = work()
            except SamexpError as error:
                sentence, code = str(error), error.code
                self.window_thread(lambda: self._if_open(lambda: self.say(sentence, code)))
            else:
                self.window_thread(lambda: self._if_open(lambda: then(outcome)))

        threading.Thread(target=run, name="samexp opening", daemon=True).start()

    def _if_open(self, call: Callable[[], None]) -> None:
        if self.session is not None:
            call()


def _reopen_words(left: Leftover) -> str:
    if left.run is None:
        return "Reopen the recordings of the last time"
    name = Path(left.run.video or left.run.store).name
    return f"Reopen {name if len(name) < 32 else name[:30] + '…'}"
