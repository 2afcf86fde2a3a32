"""Tracking a video: one run at a time, which a person pauses, resumes, cancels and corrects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_samexp.engine.messages import (
    Cancel,
    Continue,
    Failed,
    FrameDone,
    Pause,
    PriorChanged,
    RememberFrame,
    Reply,
    ResetRecent,
    Track,
    TrackEnded,
    TrackStarted,
    VideoRef,
)
from napari_samexp.engine.sharing import SharedArray
from napari_samexp.errors import PromptError, SamexpError, StoreError, VideoError
from napari_samexp.session.forecasts import Estimate, Forecasts
from napari_samexp.session.frames import RECENT, select_frames
from napari_samexp.session.jobs import JobState, after_reply
from napari_samexp.session.proxy import EngineProxy
from napari_samexp.session.recordings import Recordings
from napari_samexp.session.results import Results
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.types import Prompt, VideoSource

if TYPE_CHECKING:
    from napari_samexp.session.stores import OpenedStore

__all__ = ["Tracking"]

Limits = tuple[float, float]
AnyPath = str | os.PathLike[str]


class Tracking:
    """One video, and at most one run at a time.

    Signals
    -------
    job_changed : JobState
        After every frame as well.
    frame_done : int
        A frame is on disk; its scores are in `results.scores`.
    video_changed : VideoRef or None
    remembered : int
        A corrected frame joined the run and the recordings.
    failed : str
        One sentence.
    """

    job_changed = Signal(JobState)
    frame_done = Signal(int)
    video_changed = Signal(object)
    remembered = Signal(int)
    failed = Signal(str)

    def __init__(self, proxy: EngineProxy, recordings: Recordings, results: Results) -> None:
        self._proxy = proxy
        self._recordings = recordings
        self._results = results
        self._request: Track | None = None
        self._begun = self._progressed = False
        self._known: tuple[tuple[str, int], ...] = ()
        self.forecasts = Forecasts(recordings)
        self.settings = TrackSettings()
        self.video: VideoRef | None = None
        self.job = JobState()

    @property
    def known(self) -> tuple[tuple[str, int], ...]:
        """Key and label of every recording that the run knows."""
        return self._known

    @property
    def knows_all(self) -> bool:
        """Whether the run knows just the recordings that are switched on now, so that it can be continued."""
        return self._known == self._recordings.in_use

    # ---- the video

    def set_video(
        self,
        video: AnyPath | VideoSource | npt.NDArray[Any] | None,
        *,
        path: AnyPath | None = None,
        name: str = "",
        limits: Limits | None = None,
    ) -> None:
        """Take another video.

        Parameters
        ----------
        video : path, VideoSource, array or None
            A path is opened here for its size and by the worker for its frames. Anything else, which may
            be lazy, is read frame by frame in this process, on a thread of its own.
        path : path, optional
            Where the worker can open a VideoSource for itself.
        limits : (low, high), optional
            The values for black and white, as the source was opened with.

        Raises
        ------
        VideoError
            If it is no video, or a run is on.
        """
        if self.job.active:
            raise VideoError("A video is being tracked; cancel that before you choose another.")
        self._take_video(None if video is None else self._reference(video, path, name, limits))

    def _reference(self, video: Any, path: AnyPath | None, name: str, limits: Limits | None) -> VideoRef:
        if isinstance(video, str | os.PathLike):
            from napari_samexp.session.stores import video_reference

            return video_reference(os.fspath(video), name, limits)
        if path is not None:
            where = str(Path(path).absolute())
            return VideoRef(name or Path(path).name, video.shape, where, fps=video.fps, limits=limits)
        if not isinstance(video, VideoSource):
            from napari_samexp.io.video import open_video

            video = open_video(video, limits=limits)
        ref = self._proxy.engine.share_video(video)
        return replace(ref, name=name) if name else ref

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
            Go on with the store's run, with the prior that it began with and what it was taught since.
        overwrite : bool
            Replace the store.
        again : bool
            As `resume`, but track also those of `frames` that are done; the others stay as they are.
        over_edits : bool
            Also over frames that a person painted, which are left alone otherwise.

        Raises
        ------
        SamexpError
            If there is no video, a run is on already, or `overwrite` would lose painted frames.
        """
        video = self._require_video()
        if self.job.active:
            raise StoreError("A video is being tracked already; cancel that first.")
        folder = Path(store).absolute()
        if frames is None:
            frames = select_frames("all", video.shape[0], direction=self.settings.direction)
        keep = self._edits_to_keep(folder, frames, overwrite=overwrite, over_edits=over_edits)
        if overwrite or (self._results.labels is not None and self._results.labels.path != folder):
            self._results.clear()
        if not (resume or again):
            self._known = self._recordings.in_use
        self._submit(
            Track(str(folder), video, frames, self.settings, resume or again, overwrite, again, keep)
        )

    def estimate(self, frames: int, image_hw: tuple[int, int]) -> Estimate | None:
        """Return what the run takes that is on, or else what one of so many frames would take; None if unknown."""
        if self.job.active:
            return self.forecasts.of_run()
        return self.forecasts.of_next(self.settings, image_hw, frames)

    def pause(self) -> None:
        """Stop after the frame in work, and keep everything ready to go on."""
        if self.job.active:
            self._proxy.tell(Pause())

    def resume(self) -> None:
        """Go on: after a pause, or with a run that was cancelled, failed or interrupted.

        Raises
        ------
        StoreError
            If there is no such run.
        """
        if self.job.state == "paused":
            self._proxy.tell(Continue())
        elif self._request is not None and self.job.resumable:
            self._go_on(self._request)
        else:
            raise StoreError("There is no run to go on with; track a video first.")

    def cancel(self) -> None:
        """End the run; its finished frames stay, and it can be resumed."""
        if self.job.active:
            self._proxy.tell(Cancel())
        elif self.job.state == "interrupted":
            self._set_job(replace(self.job, state="cancelled"))

    def reset_memory(self) -> None:
        """Let the run's next frame see the prior alone."""
        if self.job.active:
            self._proxy.tell(ResetRecent())

    def open_run(
        self,
        store: AnyPath,
        *,
        resume: bool = False,
        known: tuple[tuple[str, int], ...] = (),
        video: str | None = None,
    ) -> None:
        """Show the labels and scores of a store, and with `resume` go on with its run.

        The run's video is opened again if it was a file. What cannot be opened is told by `failed`.

        Parameters
        ----------
        known : tuple of (str, int), optional
            What the run knows, from `LastRun`.
        video : str, optional
            The run's video, from `LastRun`.

        Raises
        ------
        StoreError
            If a run is on.
        """
        if self.job.active:
            raise StoreError("A video is being tracked; cancel that before you open another run.")
        from napari_samexp.session.stores import look_into

        path = Path(store).absolute()
        self._proxy.aside(lambda: look_into(path, video), partial(self._on_opened, resume, known), self._fail)

    def _on_opened(self, resume: bool, known: tuple[tuple[str, int], ...], found: OpenedStore) -> None:
        if self.job.active:
            return  # begun meanwhile
        self._known = known
        if found.video is not None and (self.video is None or self.video.path != found.video.path):
            self._take_video(found.video)
        if found.notice:
            self.failed.emit(found.notice)
        self._results.show(found)
        total = len(found.frames)
        state = JobState("cancelled", str(found.path), found.done, total)
        self._set_job(replace(state, state="finished") if found.done == total else state)
        if self.video is None:
            return
        self._begun = True
        self._request = Track(str(found.path), self.video, found.frames, found.settings, resume=True)
        if resume and self.job.resumable:
            self._go_on(self._request)

    def _go_on(self, request: Track) -> None:
        keep = self._edits_to_keep(Path(request.store), request.frames)
        if self._begun:  # else nothing has been replaced or forgotten yet
            request = replace(request, resume=True, overwrite=False, again=False)
        self._submit(replace(request, keep=keep))

    def _submit(self, request: Track) -> None:
        self._begun = self._progressed = False
        self._request = request
        self._set_job(JobState("starting", request.store))
        self._proxy.ask(request, self._on_reply)

    def _on_reply(self, reply: Reply) -> None:
        if isinstance(reply, TrackStarted):
            self._begun = True
            self._begin_forecast(reply)
            self._results.begin(reply)
        elif isinstance(reply, FrameDone):
            self._progressed = True
            self.forecasts.observe(reply.seconds)
            self._results.add(reply)
        elif reply.final:
            self._progressed &= self.job.state != "paused"
            self._results.end()
        self._set_job(self._with_forecast(after_reply(self.job, reply), reply))
        if isinstance(reply, FrameDone):
            self.frame_done.emit(reply.index)
        # the end of a worker is told by the worker's own reply: one sentence is enough
        interrupted = isinstance(reply, TrackEnded) and reply.how == "interrupted"
        if isinstance(reply, Failed | TrackEnded) and reply.sentence and not interrupted:
            self.failed.emit(reply.sentence)

    def _begin_forecast(self, reply: TrackStarted) -> None:
        assert self._request is not None
        self.forecasts.begin(self._request.settings, reply.shape[1:], reply.done, reply.total)

    def _with_forecast(self, job: JobState, reply: Reply) -> JobState:
        """Let the first frames not promise too much: they look at fewer memories than the others will."""
        early = isinstance(reply, FrameDone) and len(job.seconds) < RECENT
        return (
            replace(job, left_s=self.forecasts.left(job.total - job.done))
            if early and self.forecasts.counts
            else job
        )

    def on_model_again(self) -> None:
        """Go on with a run whose worker ended, now that there is a new one; not if it got nowhere."""
        if self.job.state == "interrupted" and self._progressed and self._request is not None:
            self._go_on(self._request)

    def _edits_to_keep(
        self, folder: Path, frames: Sequence[int], *, overwrite: bool = False, over_edits: bool = False
    ) -> frozenset[int]:
        """Return the painted frames that the run has to leave alone."""
        from napari_samexp.io.label_edits import EditableLabels, edited_frames

        edited = edited_frames(folder)
        if overwrite and edited and not over_edits:
            raise StoreError(
                f"{len(edited)} frames in {folder} were painted by hand, and replacing it would lose them."
            )
        if overwrite:
            return frozenset()
        if over_edits and edited:
            labels = self._results.labels
            shown = labels is not None and labels.path == folder
            (self._results.release_edited if shown else EditableLabels(folder).unmark)(frames)
            return edited - set(frames)
        return edited

    # ---- corrections

    def remember_frame(
        self,
        index: int,
        label: int,
        *,
        name: str = "",
        mask: npt.NDArray[np.bool_] | None = None,
        prompt: Prompt | None = None,
        mask_index: int | None = None,
        seen: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Teach the run, and the recordings, what a frame of the video shows.

        Parameters
        ----------
        mask : array, shape (Y, X), bool, optional
            By default, without a prompt, where the labels of that frame are `label`.
        prompt : Prompt, optional
            Clicks and a box on the frame, in the place of a mask.
        seen : array, shape (Y, X), bool, optional
            The mask that the person saw of the prompt; it becomes the frame's label, as if it had been painted.

        Raises
        ------
        SamexpError
            If there is no video, no such frame, or nothing to remember.
        """
        video = self._require_video()
        if not 0 <= index < video.shape[0]:
            raise VideoError(f"There is no frame {index}; the video has 0 to {video.shape[0] - 1}.")
        if prompt is not None and prompt.is_empty:
            raise PromptError("There are no clicks on this frame; click on the object, or paint it.")
        if prompt is None and mask is None:
            mask = self._results.mask_of(index, label)
        shared = None if mask is None else SharedArray.of(np.asarray(mask) != 0)
        request = RememberFrame(
            video,
            index,
            label,
            store=self.job.store or None,
            name=name or self._recordings.name_of(label),
            prompt=prompt or Prompt(),
            mask_index=mask_index,
            mask=None if shared is None else shared.ref,
            side=self.settings.side,
            square=self.settings.square,
        )
        self._proxy.ask(request, partial(self._on_remembered, request, seen), (shared,))

    def _on_remembered(
        self, request: RememberFrame, seen: npt.NDArray[np.bool_] | None, reply: Reply
    ) -> None:
        if isinstance(reply, Failed):
            self.failed.emit(reply.sentence)
        elif isinstance(reply, PriorChanged):
            self._recordings.take(reply.prior)
            self._known = self._recordings.in_use
            try:
                if seen is not None and request.store is not None:
                    self._results.paint(request.store, request.index, request.label, seen)
            except SamexpError as error:
                self._fail(error)
            self.remembered.emit(request.index)

    def _require_video(self) -> VideoRef:
        if self.video is None:
            raise VideoError("There is no video; open one first.")
        return self.video

    def _set_job(self, job: JobState) -> None:
        if job != self.job:
            self.job = job
            self.job_changed.emit(job)

    def _fail(self, error: Exception) -> None:
        self.failed.emit(str(error) if isinstance(error, SamexpError) else f"{type(error).__name__}: {error}")
