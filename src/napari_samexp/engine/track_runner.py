"""The tracking run of the worker, if there is one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from napari_samexp.engine.errors import CANCELLED, Cancelled
from napari_samexp.engine.inbox import Inbox
from napari_samexp.engine.job import TrackJob, open_reference
from napari_samexp.engine.messages.base import Command, Done, Failed, Reply, Working
from napari_samexp.engine.messages.model import LoadModel
from napari_samexp.engine.messages.tracking import (
    FrameDone,
    FrameReady,
    FrameWanted,
    Keep,
    Kept,
    PauseChanged,
    Track,
    TrackEnded,
    TrackStarted,
)
from napari_samexp.engine.recorder import Recorder
from napari_samexp.errors import StoreError

__all__ = ["TrackRunner"]

_log = logging.getLogger(__name__)


class TrackRunner:
    """Starts, pauses and ends a run, and tracks it a frame at a time.

    Parameters
    ----------
    send : callable
        Sends a reply.
    failed : callable
        Returns the reply for an error in a request of a number.

    Attributes
    ----------
    job : TrackJob or None
    """

    def __init__(
        self,
        inbox: Inbox,
        recorder: Recorder,
        send: Callable[[Reply], None],
        failed: Callable[[int, Exception], Failed],
    ) -> None:
        self._inbox = inbox
        self._recorder = recorder
        self._send = send
        self._failed = failed
        self._pause_next = False
        self.job: TrackJob | None = None

    @property
    def can_advance(self) -> bool:
        """Whether there is a run that is not paused."""
        return self.job is not None and not self.job.paused

    def job_of(self, store: str | None) -> TrackJob | None:
        """Return the run if it writes this store."""
        return self.job if self.job is not None and self.job.request.store == store else None

    def close(self) -> None:
        """Close the run's store and video."""
        if self.job is not None:
            self.job.close()

    def start(self, number: int, request: Track) -> None:
        """Open video and store; `SamexpError` if a run is on or the store cannot be used."""
        if self.job is not None:
            raise StoreError("A video is being tracked already; cancel that first.")
        model = self._recorder.require_memory()
        self._send(Working(number, "tracking"))
        video = open_reference(request.video, self.request_frame)
        try:
            job = TrackJob(number, request, model, self._recorder.journal.prior, video)
        except BaseException:
            video.close()
            raise
        self.job = job
        shape, names, total = job.store.shape, job.store.names, job.total
        self._send(TrackStarted(number, request.store, shape, names, total - len(job.run.todo), total))
        if self._pause_next:
            self._pause()

    def advance(self) -> None:
        """Track the next frame, or end the run after the last one."""
        assert self.job is not None
        began = time.perf_counter()
        try:
            result = self.job.step()
        except Cancelled:
            return  # the command that cancels it waits in the inbox
        except Exception as error:
            failed = self._failed(self.job.number, error)
            if failed.trace:
                _log.error("%s", failed.trace)
            self.end("failed", failed)
            return
        if result is None:
            self.end("finished")
        else:
            seconds = time.perf_counter() - began
            self._send(FrameDone(self.job.number, result.index, result.scores, seconds))

    def end(self, how: str, why: Failed | None = None) -> None:
        """End the run, if there is one; `how` as in `TrackEnded`."""
        job, self.job = self.job, None
        if job is not None:
            job.close()
            sentence, code = (why.sentence, why.code) if why else ("", "")
            self._send(TrackEnded(job.number, how, sentence, code))

    def request_frame(self, stream: int, index: int) -> FrameReady:
        """Wait for a frame from the viewer's process."""
        return self._inbox.frame(lambda: self._send(FrameWanted(0, stream, index)), stream, index)

    def on_command(self, number: int, request: Command) -> None:
        """Carry out a command other than "stop"."""
        match request.action:
            case "pause":
                self._pause()
            case "continue":
                self._continue()
            case "cancel":
                self._cancel(number)
            case "reset recent" if self.job is not None:
                self.job.run.reset_recent()

    def _pause(self) -> None:
        # a run that still waits starts with a pause
        self._pause_next = self.job is None and self._inbox.has(Track)
        if self.job is not None:
            self.job.paused = True
            self._send(PauseChanged(self.job.number, True))

    def _continue(self) -> None:
        self._pause_next = False
        if self.job is not None:
            self.job.paused = False
            self._send(PauseChanged(self.job.number, False))

    def _cancel(self, number: int) -> None:
        self.end("cancelled")
        for waiting, _ in self._inbox.take(Track):
            self._send(TrackEnded(waiting, "cancelled"))
        for waiting, _ in self._inbox.take(LoadModel):
            self._send(Failed(waiting, str(CANCELLED), CANCELLED.code))
        self._send(Done(number))

    def keep(self, number: int, request: Keep) -> None:
        """Leave frames as they are."""
        if self.job is not None:
            self.job.run.keep |= request.frames
        self._send(Kept(number, request.frames))
