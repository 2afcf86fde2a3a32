"""The worker process: one loop that carries out requests, and tracks a frame whenever none waits."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from napari_samexp._urls import redacted
from napari_samexp.engine.encoded_images import EncodedImages
from napari_samexp.engine.encodings import EncodingReader
from napari_samexp.engine.errors import Cancelled, ends_for_memory, sentence_of
from napari_samexp.engine.inbox import Inbox
from napari_samexp.engine.job import Job, open_reference
from napari_samexp.engine.journal import PriorJournal
from napari_samexp.engine.messages import (
    Cancel,
    ChangeRecording,
    ClearPrior,
    ComputeEncoding,
    Continue,
    Continued,
    Control,
    DescribeEncodings,
    Done,
    Failed,
    FrameDone,
    FrameReady,
    FrameWanted,
    Keep,
    Kept,
    Loaded,
    LoadModel,
    LoadPrior,
    Pause,
    Paused,
    Preview,
    PriorChanged,
    Progress,
    Ready,
    Record,
    RememberFrame,
    RemoveRecording,
    Reply,
    Request,
    ResetRecent,
    SavePrior,
    Stop,
    Track,
    TrackEnded,
    TrackStarted,
    UndoChange,
    Working,
)
from napari_samexp.engine.recorder import Recorder
from napari_samexp.errors import SamexpError, StoreError
from napari_samexp.io.atomic import absolute_path
from napari_samexp.io.labels import LabelStore
from napari_samexp.sam.features import Memory
from napari_samexp.sam.weights.download import Progress as Report
from napari_samexp.tracking.prior import PriorMemory
from napari_samexp.tracking.recording import Recording
from napari_samexp.tracking.run import add_to_run

__all__ = ["Worker", "serve"]

REPORT_S = 0.1  # between two reports of a download

_log = logging.getLogger(__name__)


def serve(connection: Connection, folder: str, threads: int | None, cached_images: int) -> None:
    """Carry out requests until there is nobody to ask, and end the process.

    Parameters
    ----------
    folder : str
        The session's; the prior is kept in it.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    recorder = Recorder(PriorJournal(Path(folder) / "prior"), EncodedImages(cached_images))
    Worker(connection, Inbox(connection), recorder).run()
    os._exit(0)  # everything is on disk; tidying up torch would only take time


class Worker:
    """Carries out one request at a time, and between two frames all that wait."""

    def __init__(self, connection: Connection, inbox: Inbox, recorder: Recorder) -> None:
        self._connection = connection
        self._inbox = inbox
        self._recorder = recorder
        self._encodings = EncodingReader()
        self._job: Job | None = None
        self._pause_next = False
        self._answers: dict[type[Request], Callable[[int, Any], None]] = {
            LoadModel: self._load,
            Preview: self._preview,
            Record: self._record,
            RememberFrame: self._remember,
            RemoveRecording: self._edit(self._recorder.remove),
            ChangeRecording: self._edit(self._recorder.change),
            LoadPrior: self._edit(self._recorder.load_prior),
            ClearPrior: self._edit(lambda number, _: self._recorder.journal.commit(PriorMemory(), number)),
            UndoChange: self._edit(lambda number, _: self._recorder.journal.undo(number)),
            SavePrior: self._save_prior,
            DescribeEncodings: self._describe_encodings,
            ComputeEncoding: self._compute_encoding,
            Track: self._track,
            Pause: self._pause,
            Continue: self._continue,
            Cancel: self._cancel,
            Keep: self._keep,
            ResetRecent: self._reset_recent,
        }

    def run(self) -> None:
        """Work until a `Stop` comes."""
        self._say(Ready(0, os.getpid(), self._recorder.state, self._recorder.journal.notice))
        while True:
            item = self._inbox.get(block=self._job is None or self._job.paused)
            if item is None:
                self._advance()
                continue
            number, request = item
            if isinstance(request, Stop):
                break
            self._answer(number, request)
        if self._job is not None:
            self._job.close()

    # ---- what every request has in common

    def _say(self, reply: Reply) -> None:
        with suppress(OSError):  # nobody listens any more; the inbox finds out as well
            self._connection.send(reply)

    def _answer(self, number: int, request: Request) -> None:
        try:
            self._answers[type(request)](number, request)
        except Exception as error:
            failed = self._failed(number, error)
            if isinstance(request, Control) and self._job is not None:
                self._end_job("failed", failed.sentence)
            else:
                self._say(failed)

    def _failed(self, number: int, error: Exception) -> Failed:
        if ends_for_memory(error):
            error.__traceback__ = None  # its frames hold what there was no room for
            self._recorder.free()
            return Failed(number, sentence_of(error))
        expected = isinstance(error, SamexpError | Cancelled)
        return Failed(number, sentence_of(error), "" if expected else _trace(error))

    # ---- requests

    def _load(self, number: int, request: LoadModel) -> None:
        if self._job is not None:
            raise StoreError("A video is being tracked; cancel that before you load another model.")
        self._say(Working(number, "loading"))
        model = self._recorder.load(request, self._report(number))
        notice = self._recorder.fit_prior(number)
        self._say(Loaded(number, model, self._recorder.state, notice))

    def _report(self, number: int) -> Report:
        last = -REPORT_S

        def report(done: int, total: int | None) -> None:
            nonlocal last
            if self._inbox.cancelled:
                raise Cancelled
            if time.monotonic() - last >= REPORT_S or done == total:
                last = time.monotonic()
                self._say(Progress(number, "bytes", done, total))

        return report

    def _preview(self, number: int, request: Preview) -> None:
        if self._inbox.waits(Preview):
            self._say(Done(number))  # nobody looks at it any more
        else:
            self._say(self._recorder.preview(number, request, self._begun(number)))

    def _record(self, number: int, request: Record) -> None:
        self._recorder.record(number, request, self._begun(number))
        self._say(PriorChanged(number, self._recorder.state))

    def _edit(self, change: Callable[[int, Any], None]) -> Callable[[int, Any], None]:
        def edit(number: int, request: Request) -> None:
            change(number, request)
            self._say(PriorChanged(number, self._recorder.state))

        return edit

    def _remember(self, number: int, request: RememberFrame) -> None:
        job = self._job if self._job is not None and self._job.request.store == request.store else None
        if job is not None:
            frame = job.video.frame(request.index)
        else:
            with closing(open_reference(request.video, self._ask)) as video:
                frame = video.frame(request.index)

        def add(recording: Recording, memory: Memory) -> None:
            if job is not None:
                job.run.remember(recording, memory)
            elif request.store is not None:
                with LabelStore.open(request.store) as store:
                    add_to_run(store, recording, memory)

        self._recorder.remember(number, request, frame, add, self._begun(number))
        self._say(PriorChanged(number, self._recorder.state))

    def _save_prior(self, number: int, request: SavePrior) -> None:
        self._recorder.journal.prior.save(absolute_path(request.path))
        self._say(Done(number))

    def _describe_encodings(self, number: int, request: DescribeEncodings) -> None:
        self._say(Working(number, "loading"))
        self._say(self._encodings.describe(number, request, self._report(number)))

    def _compute_encoding(self, number: int, request: ComputeEncoding) -> None:
        self._say(self._encodings.compute(number, request))

    def _begun(self, number: int) -> Callable[[str], None]:
        return lambda what: self._say(Working(number, what))

    # ---- tracking

    def _track(self, number: int, request: Track) -> None:
        if self._job is not None:
            raise StoreError("A video is being tracked already; cancel that first.")
        model = self._recorder.require_memory()
        self._say(Working(number, "tracking"))
        video = open_reference(request.video, self._ask)
        try:
            job = Job(number, request, model, self._recorder.journal.prior, video)
        except BaseException:
            video.close()
            raise
        self._job = job
        shape, names, total = job.store.shape, job.store.names, job.total
        self._say(TrackStarted(number, request.store, shape, names, total - len(job.run.todo), total))
        if self._pause_next:
            self._pause(number, Pause())

    def _advance(self) -> None:
        assert self._job is not None
        began = time.perf_counter()
        try:
            result = self._job.step()
        except Cancelled:
            return  # what cancels it waits in the inbox
        except Exception as error:
            failed = self._failed(self._job.number, error)
            if failed.trace:
                _log.error("%s", failed.trace)
            self._end_job("failed", failed.sentence)
            return
        if result is None:
            self._end_job("finished")
        else:
            seconds = time.perf_counter() - began
            self._say(FrameDone(self._job.number, result.index, result.scores, seconds))

    def _end_job(self, how: str, sentence: str = "") -> None:
        job, self._job = self._job, None
        if job is not None:
            job.close()
            self._say(TrackEnded(job.number, how, sentence))

    def _ask(self, stream: int, index: int) -> FrameReady:
        return self._inbox.frame(lambda: self._say(FrameWanted(0, stream, index)), stream, index)

    def _pause(self, number: int, request: Pause) -> None:
        # a run that has not begun begins with a pause
        self._pause_next = self._job is None and self._inbox.waits(Track)
        if self._job is not None:
            self._job.paused = True
            self._say(Paused(self._job.number))

    def _continue(self, number: int, request: Continue) -> None:
        self._pause_next = False
        if self._job is not None:
            self._job.paused = False
            self._say(Continued(self._job.number))

    def _cancel(self, number: int, request: Cancel) -> None:
        self._end_job("cancelled")
        for waiting, _ in self._inbox.take(Track):
            self._say(TrackEnded(waiting, "cancelled"))
        for waiting, _ in self._inbox.take(LoadModel):
            self._say(self._failed(waiting, Cancelled()))
        self._say(Done(number))

    def _keep(self, number: int, request: Keep) -> None:
        if self._job is not None:
            self._job.run.keep |= request.frames
        self._say(Kept(number, request.frames))

    def _reset_recent(self, number: int, request: ResetRecent) -> None:
        if self._job is not None:
            self._job.run.reset_recent()


def _trace(error: Exception) -> str:
    return redacted("".join(traceback.format_exception(error)))
