"""Tracking a video: one run at a time, which can be paused, resumed and cancelled."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from psygnal import Signal

from napari_samexp.engine.messages.base import CANCEL, CONTINUE, PAUSE, RESET_RECENT, Failed, Reply, VideoRef
from napari_samexp.engine.messages.tracking import FrameDone, Track, TrackEnded, TrackStarted
from napari_samexp.errors import SamexpError, StoreError, VideoError, code_of
from napari_samexp.session.estimates import Estimates
from napari_samexp.session.frames import select_frames
from napari_samexp.session.jobs import JobState, State, after_reply
from napari_samexp.session.proxy import EngineProxy
from napari_samexp.session.recordings import Recordings
from napari_samexp.session.results import Results
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.types import VideoSource

if TYPE_CHECKING:
    from napari_samexp.session.stores import OpenedStore

__all__ = ["Tracking"]

AnyPath = str | os.PathLike[str]
Known = tuple[tuple[str, int], ...]  # key and label of recordings


class Tracking:
    """One video, and at most one run at a time.

    Signals
    -------
    job_changed : JobState
        After every frame as well.
    frame_done : int
        A frame is on disk, and its scores are in `results.scores`.
    video_changed : VideoRef or None
    failed : str, str
        One sentence, and its code.
    """

    job_changed = Signal(JobState)
    frame_done = Signal(int)
    video_changed = Signal(object)
    failed = Signal(str, str)

    def __init__(self, proxy: EngineProxy, recordings: Recordings, results: Results) -> None:
        self._proxy = proxy
        self._recordings = recordings
        self._results = results
        self._request: Track | None = None
        self._started = self._progressed = False
        self._known: Known = ()
        self.estimates = Estimates(recordings)
        self.settings = TrackSettings()
        self.video: VideoRef | None = None
        self.job = JobState()

    @property
    def known(self) -> Known:
        """Key and label of every recording in the run's prior."""
        return self._known

    @property
    def knows_all(self) -> bool:
        """Whether the run has exactly the recordings that are enabled now, so that it can be continued."""
        return self._known == self._recordings.in_use

    def update_known(self) -> None:
        """Take the enabled recordings for those of the run, once a correction joined both."""
        self._known = self._recordings.in_use

    # ---- the video

    def set_video(
        self,
        video: AnyPath | VideoSource | npt.NDArray[Any] | None,
        *,
        path: AnyPath | None = None,
        name: str = "",
        limits: tuple[float, float] | None = None,
    ) -> None:
        """Choose another video.

        Parameters
        ----------
        video : path, VideoSource, array or None
            A path is opened here for its size and by the worker for its frames. Anything else, which may
            be lazy, is read frame by frame in this process, on a background thread.
        path : path, optional
            Where the worker can open a VideoSource itself.
        limits : (low, high), optional
            The values for black and white, as the source was opened with.

        Raises
        ------
        VideoError
            If it is no video, or a run is on.
        """
        if self.job.active:
            raise VideoError("A video is being tracked; cancel that before you choose another.")
        from napari_samexp.session.videos import reference_to

        share = self._proxy.engine.share_video
        self._take_video(
            None if video is None else reference_to(video, share, path=path, name=name, limits=limits)
        )

    def _take_video(self, video: VideoRef | None) -> None:
        if self.video is not None:
            self._proxy.engine.release_video(self.video)
        self.video = video
        self.video_changed.emit(video)

    # ---- the run

    def track(
        self,
        frames: Sequence[int] | None = None,
        *,
        store: AnyPath,
        resume: bool = False,
        overwrite: bool = False,
        again: bool = False,
        over_edits: bool = False,
    ) -> None:
        """Track frames into a label store.

        Parameters
        ----------
        frames : sequence of int, optional
            In the order of tracking, see `select_frames`; by default all, in the settings' direction.
        store : path
            The store's folder; `default_store` finds a free one.
        resume : bool
            Continue the store's run, with its first prior and the corrections since.
        overwrite : bool
            Replace the store.
        again : bool
            As `resume`, but also track those of `frames` that are done; other frames stay as they are.
        over_edits : bool
            Also write frames that a person painted, which are kept otherwise.

        Raises
        ------
        SamexpError
            If there is no video, a run is on already, or `overwrite` would lose painted frames.
        """
        video = self.require_video()
        if self.job.active:
            raise StoreError("A video is being tracked already; cancel that first.")
        folder = Path(store).absolute()
        if frames is None:
            frames = select_frames("all", video.shape[0], direction=self.settings.direction)
        keep = self._results.edits_to_keep(folder, frames, overwrite=overwrite, over_edits=over_edits)
        if overwrite or (self._results.labels is not None and self._results.labels.path != folder):
            self._results.clear()
        if not (resume or again):
            self._known = self._recordings.in_use
        resume = resume or again
        self._submit(Track(str(folder), video, frames, self.settings, resume, overwrite, again, keep))

    def pause(self) -> None:
        """Stop after the current frame, ready to continue."""
        if self.job.active:
            self._proxy.send(PAUSE)

    def resume(self) -> None:
        """Continue a paused run, or resume one that was cancelled, failed or interrupted.

        Raises
        ------
        StoreError
            If there is no such run.
        """
        if self.job.state == "paused":
            self._proxy.send(CONTINUE)
        elif self._request is not None and self.job.resumable:
            self._submit_again(self._request)
        else:
            raise StoreError("There is no run to resume; track a video first.")

    def cancel(self) -> None:
        """End the run; its finished frames stay, and it can be resumed."""
        if self.job.active:
            self._proxy.send(CANCEL)
        elif self.job.state == "interrupted":
            self._set_job(replace(self.job, state="cancelled"))

    def reset_memory(self) -> None:
        """Let the run's next frame attend to the prior alone."""
        if self.job.active:
            self._proxy.send(RESET_RECENT)

    def open_run(
        self,
        store: AnyPath,
        *,
        resume: bool = False,
        known: Known = (),
        video: str | None = None,
    ) -> None:
        """Show the labels and scores of a store, and with `resume` continue its run.

        The run's video is opened again if it was a file. Errors come with `failed`.

        Parameters
        ----------
        known, video
            Of the run, from `LastRun`.

        Raises
        ------
        StoreError
            If a run is on.
        """
        if self.job.active:
            raise StoreError("A video is being tracked; cancel that before you open another run.")
        from napari_samexp.session.stores import read_store

        read = partial(read_store, Path(store).absolute(), video)
        self._proxy.in_background(read, partial(self._on_opened, resume, known), self._fail)

    def _on_opened(self, resume: bool, known: Known, found: OpenedStore) -> None:
        if self.job.active:
            return  # a run has started meanwhile
        self._known = known
        if found.video is not None and (self.video is None or self.video.path != found.video.path):
            self._take_video(found.video)
        if found.notice:
            self.failed.emit(found.notice, "other-computer")
        self._results.show(found)
        total = len(found.frames)
        state: State = "finished" if found.done == total else "cancelled"
        self._set_job(JobState(state, str(found.path), found.done, total))
        if self.video is None:
            return
        self._started = True
        self._request = Track(str(found.path), self.video, found.frames, found.settings, resume=True)
        if resume and self.job.resumable:
            self._submit_again(self._request)

    def _submit_again(self, request: Track) -> None:
        keep = self._results.edits_to_keep(Path(request.store), request.frames)
        if self._started:  # otherwise nothing has been replaced yet
            request = replace(request, resume=True, overwrite=False, again=False)
        self._submit(replace(request, keep=keep))

    def _submit(self, request: Track) -> None:
        self._started = self._progressed = False
        self._request = request
        self._set_job(JobState("starting", request.store))
        self._proxy.request(request, self._on_reply)

    def _on_reply(self, reply: Reply) -> None:
        assert self._request is not None
        self.estimates.on_reply(reply, self._request.settings)
        if isinstance(reply, TrackStarted):
            self._started = True
            self._results.begin(reply)
        elif isinstance(reply, FrameDone):
            self._progressed = True
            self._results.add(reply)
        elif reply.final:
            self._progressed &= self.job.state != "paused"
            self._results.end()
        self._set_job(self.estimates.refined(after_reply(self.job, reply), reply))
        if isinstance(reply, FrameDone):
            self.frame_done.emit(reply.index)
        # `WorkerDied` has reported an interruption already
        if isinstance(reply, Failed | TrackEnded) and reply.sentence and self.job.state != "interrupted":
            self.failed.emit(reply.sentence, reply.code)

    def on_model_again(self) -> None:
        """Resume a run whose worker ended, unless no frame was finished."""
        if self.job.state == "interrupted" and self._progressed and self._request is not None:
            self._submit_again(self._request)

    def require_video(self) -> VideoRef:
        """Return the video; `VideoError` if there is none."""
        if self.video is None:
            raise VideoError("There is no video; open one first.")
        return self.video

    def _set_job(self, job: JobState) -> None:
        if job != self.job:
            self.job = job
            self.job_changed.emit(job)

    def _fail(self, error: Exception) -> None:
        sentence = str(error) if isinstance(error, SamexpError) else f"{type(error).__name__}: {error}"
        self.failed.emit(sentence, code_of(error))
