"""One session at the viewer: a model, the current prompt, recordings, a video and its run."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from psygnal import Signal

from napari_samexp._lazy import import_beside_window
from napari_samexp.engine.client import EngineClient
from napari_samexp.engine.messages.base import Reply, WorkerDied
from napari_samexp.engine.messages.model import Loaded, Ready
from napari_samexp.engine.messages.prompts import LoadPrior
from napari_samexp.engine.messages.tracking import Kept
from napari_samexp.engine.process import WorkerOptions
from napari_samexp.session.corrections import Corrections
from napari_samexp.session.folders import LeftSession, left_sessions, new_folder, sessions_dir, settings_file
from napari_samexp.session.jobs import JobState
from napari_samexp.session.models import Models, ModelState
from napari_samexp.session.preferences import LastRun, Preferences, load_preferences, save_preferences
from napari_samexp.session.prompting import Prompting
from napari_samexp.session.proxy import Deliver, EngineProxy, MakeEngine, at_once
from napari_samexp.session.recordings import Recordings
from napari_samexp.session.results import Results
from napari_samexp.session.tracking import Tracking

__all__ = ["Leftover", "Session"]


@dataclass(frozen=True, slots=True)
class Leftover:
    """What an earlier session left, and `Session.reopen` brings back."""

    run: LastRun | None
    recordings: LeftSession | None

    def __bool__(self) -> bool:
        return self.run is not None or self.recordings is not None


class Session:
    """Everything that a person does in one session, without a window.

    No method waits for the model: signals report results. A method raises a `SamexpError` if its arguments make no
    sense, and changes nothing then.

    Parameters
    ----------
    deliver : callable, optional
        Calls a function on the thread that uses the session, in order; a window posts it to its event loop. By
        default functions are called on the engine's thread, as suits a script.
    home : Path, optional
        Where settings and recordings are stored, instead of the user's folders.
    options : WorkerOptions, optional
        How the worker process runs.
    make_engine : callable, optional
        Returns another engine, for tests.

    Signals
    -------
    notice : str, str
        One sentence for people, and its code, from any part of the session.
    activity : str
        What the worker does now: "loading", "encoding", "predicting", "recording", "tracking", or empty.
    settings_changed : Preferences
    left_found : Leftover
        What `find_leftovers` found.

    Attributes
    ----------
    models : Models
    prompting : Prompting
    recordings : Recordings
    tracking : Tracking
    corrections : Corrections
    results : Results
    settings : Preferences
    first_notice : str
        Why recordings are stored elsewhere, or why settings were reset, if so.
    folder : Path
        This session's, which holds the prior from the first recording on.
    """

    notice = Signal(str, str)
    activity = Signal(str)
    settings_changed = Signal(Preferences)
    left_found = Signal(Leftover)

    def __init__(
        self,
        *,
        deliver: Deliver = at_once,
        home: Path | None = None,
        options: WorkerOptions | None = None,
        make_engine: MakeEngine | None = None,
    ) -> None:
        self._folder, elsewhere = new_folder(sessions_dir(home))
        self.folder = self._folder.path
        make = make_engine or (lambda on_reply: EngineClient(on_reply, self.folder, options))
        self._proxy = EngineProxy(make, deliver, self._on_other, self.activity.emit)
        self.models = Models(self._proxy)
        self.recordings = Recordings(self._proxy)
        self.prompting = Prompting(self._proxy, self.models, self.recordings)
        self.results = Results(self._proxy)
        self.tracking = Tracking(self._proxy, self.recordings, self.results)
        self.corrections = Corrections(self._proxy, self.tracking, self.recordings, self.results)
        self._settings_file = settings_file(home)
        self.settings, anew = load_preferences(self._settings_file)
        self.first_notice = elsewhere or anew
        self._requested = self.settings
        self._closed = False
        self._connect()
        self._spread_settings()

    # ---- for the user

    def start(self) -> None:
        """Start the worker before it is needed, and import slow modules in the background."""
        self._proxy.engine.start()
        threading.Thread(target=_import_early, name="napari-samexp imports", daemon=True).start()

    def load_model(
        self,
        name: str | None = None,
        *,
        device: str | None = None,
        dtype: str | None = None,
        graphs: bool | None = None,
    ) -> None:
        """Load a model by name or path; the settings give what is left out."""
        given = {"model": name, "device": device, "dtype": dtype, "graphs": graphs}
        settings = self.settings.changed({key: value for key, value in given.items() if value is not None})
        self._requested = settings
        self.models.load(settings.model, settings.device, settings.dtype, settings.graphs)

    def change_settings(self, **values: Any) -> None:
        """Change settings by the names of `Preferences` and `TrackSettings`, and save them.

        Raises
        ------
        SettingsError
            If a name is unknown or a value out of range.
        """
        before, self.settings = self.settings, self.settings.changed(values)
        if before == self.settings:
            return
        save_preferences(self.settings, self._settings_file)
        self._spread_settings()
        self.settings_changed.emit(self.settings)
        old, new = before.track, self.settings.track
        if (old.side, old.square) != (new.side, new.square):
            self.prompting.update_preview()

    def find_leftovers(self) -> None:
        """Look for what the last session left; `left_found` is emitted if there is anything."""
        run = self.settings.last_run

        def look() -> Leftover:
            there = run if run is not None and (Path(run.store) / "zarr.json").is_file() else None
            return Leftover(there, next(iter(self.left_sessions()), None))

        def report(found: Leftover) -> None:
            if found:
                self.left_found.emit(found)

        self._proxy.in_background(look, report, lambda _: None)

    def reopen(self, left: Leftover, *, resume: bool = False) -> None:
        """Recover the recordings of a session, if there are none here, and show its run.

        Parameters
        ----------
        resume : bool
            Also continue the run.
        """
        if not self.recordings.all:
            # search again: the session may have been ending during the first search
            self._proxy.in_background(self.left_sessions, self._recover_newest, lambda _: None)
        if left.run is not None:
            self.open_run(left.run.store, resume=resume)

    def open_run(self, store: str | Path, *, resume: bool = False) -> None:
        """Show the labels and scores of a store, as `Tracking.open_run`."""
        run = self.settings.last_run
        mine = run if run is not None and Path(run.store) == Path(store).absolute() else None
        known, video = (mine.known, mine.video) if mine else ((), None)
        self.tracking.open_run(store, resume=resume, known=known, video=video)

    def _recover_newest(self, left: list[LeftSession]) -> None:
        if left and not self.recordings.all:
            self.recover(left[0])

    def left_sessions(self) -> list[LeftSession]:
        """Return former sessions with recordings to recover, the newest first."""
        return [left for left in left_sessions(self.folder.parent) if left.path != self.folder]

    def recover(self, left: LeftSession) -> None:
        """Replace the recordings by those of a former session, and remove that."""

        def discard() -> None:
            self._proxy.in_background(left.discard, lambda _: None, lambda _: None)

        def load(_: object) -> None:
            self.recordings.edit(LoadPrior(str(left.prior)), discard)

        # also after an error: without the images, only this model can use the recordings
        self._proxy.in_background(lambda: left.copy_images(self.folder), load, load)

    def close(self) -> None:
        """End the worker and free all memory; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._proxy.close()
        if self.prompting.image is not None:
            self.prompting.image.release()
        self._folder.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- between the parts

    def _connect(self) -> None:
        parts = (self.models, self.prompting, self.recordings, self.tracking, self.corrections, self.results)
        for part in parts:
            part.failed.connect(self.notice.emit)
        self.models.changed.connect(self._on_model)
        self.models.loaded.connect(self._on_loaded)
        self.tracking.job_changed.connect(self._on_job)
        self.corrections.remembered.connect(self._on_remembered)

    def _spread_settings(self) -> None:
        self.prompting.settings = self.tracking.settings = self.settings.track

    def _on_model(self, state: ModelState) -> None:
        self.tracking.estimates.model = state.info

    def _on_loaded(self, reply: Loaded, again: bool) -> None:
        self.recordings.show(reply.prior)
        if reply.notice:
            self.notice.emit(reply.notice, reply.code)
        if again:
            # the preview is still right, and requesting it again could end the worker again
            self.tracking.on_model_again()
            return
        requested = self._requested
        self.change_settings(
            model=requested.model, device=requested.device, dtype=requested.dtype, graphs=requested.graphs
        )
        self.prompting.update_preview()

    def _on_job(self, job: JobState) -> None:
        video = self.tracking.video
        if job.state == "starting":
            path = None if video is None else video.path
            self.change_settings(last_run=LastRun(job.store, path, self.tracking.known))

    def _on_remembered(self, index: int) -> None:
        run = self.settings.last_run
        if run is not None and self.tracking.job.store == run.store:
            self.change_settings(last_run=replace(run, known=self.tracking.known))

    def _on_other(self, reply: Reply) -> None:
        if isinstance(reply, Ready):
            self.recordings.show(reply.prior)
            if reply.notice:
                self.notice.emit(reply.notice, reply.code)
        elif isinstance(reply, Kept):
            self.results.on_kept(reply)
        elif isinstance(reply, WorkerDied):
            self.prompting.drop_request()
            self.notice.emit(reply.sentence, reply.code)
        self.models.on_other(reply)


def _import_early() -> None:
    # zarr alone takes a third of a second, which the window would notice when a run begins
    import_beside_window(
        "napari_samexp.io.label_edits",
        "napari_samexp.io.labels",
        "napari_samexp.io.video",
        "napari_samexp.io._av",
    )
