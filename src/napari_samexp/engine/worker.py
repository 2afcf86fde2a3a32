"""The worker process: one loop that carries out requests, and tracks a frame when none waits."""

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
from napari_samexp.engine.errors import Cancelled, as_samexp_error
from napari_samexp.engine.inbox import Inbox
from napari_samexp.engine.job import open_reference
from napari_samexp.engine.journal import PriorJournal
from napari_samexp.engine.messages.base import (
    STOP,
    Command,
    Control,
    Done,
    Failed,
    Progress,
    Reply,
    Request,
    Working,
)
from napari_samexp.engine.messages.encodings import ComputeEncoding, DescribeEncodings
from napari_samexp.engine.messages.model import Loaded, LoadModel, Ready
from napari_samexp.engine.messages.prompts import (
    ChangeRecording,
    ClearPrior,
    LoadPrior,
    Preview,
    PriorChanged,
    Record,
    RememberFrame,
    RemoveRecording,
    SavePrior,
    UndoChange,
)
from napari_samexp.engine.messages.tracking import Keep, Track
from napari_samexp.engine.recorder import Recorder
from napari_samexp.engine.track_runner import TrackRunner
from napari_samexp.errors import SamexpError, StoreError, is_out_of_memory
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
    """Carry out requests until the viewer's process is gone, and end this process.

    Parameters
    ----------
    folder : str
        The session's, which holds the prior.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    recorder = Recorder(PriorJournal(Path(folder) / "prior"), EncodedImages(cached_images))
    Worker(connection, Inbox(connection), recorder).run()
    os._exit(0)  # everything is on disk, and torch's cleanup only takes time


class Worker:
    """Carries out one request at a time, and between two frames all waiting ones."""

    def __init__(self, connection: Connection, inbox: Inbox, recorder: Recorder) -> None:
        self._connection = connection
        self._inbox = inbox
        self._recorder = recorder
        self._encodings = EncodingReader()
        self._runner = TrackRunner(inbox, recorder, self._send, self._failed)
        self._handlers: dict[type[Request], Callable[[int, Any], None]] = {
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
            Track: self._runner.start,
            Command: self._runner.on_command,
            Keep: self._runner.keep,
        }

    def run(self) -> None:
        """Work until the command "stop" comes."""
        notice = self._recorder.journal.notice
        self._send(Ready(0, os.getpid(), self._recorder.state, *_notice(notice)))
        while True:
            item = self._inbox.get(block=not self._runner.can_advance)
            if item is None:
                self._runner.advance()
                continue
            number, request = item
            if request == STOP:
                break
            self._handle(number, request)
        self._runner.close()

    # ---- what every request has in common

    def _send(self, reply: Reply) -> None:
        with suppress(OSError):  # the viewer's process is gone, as the inbox will notice
            self._connection.send(reply)

    def _handle(self, number: int, request: Request) -> None:
        try:
            self._handlers[type(request)](number, request)
        except Exception as error:
            failed = self._failed(number, error)
            if isinstance(request, Control) and self._runner.job is not None:
                self._runner.end("failed", failed)
            else:
                self._send(failed)

    def _failed(self, number: int, error: Exception) -> Failed:
        if is_out_of_memory(error):
            error.__traceback__ = None  # its frames hold the large arrays
            self._recorder.free()
        shown = as_samexp_error(error)
        return Failed(number, str(shown), shown.code, _trace(error) if shown.code == "fault" else "")

    # ---- requests

    def _load(self, number: int, request: LoadModel) -> None:
        if self._runner.job is not None:
            raise StoreError("A video is being tracked; cancel that before you load another model.")
        self._send(Working(number, "loading"))
        model = self._recorder.load(request, self._report(number))
        notice = self._recorder.fit_prior(number)
        self._send(Loaded(number, model, self._recorder.state, *_notice(notice)))

    def _report(self, number: int) -> Report:
        last = -REPORT_S

        def report(done: int, total: int | None) -> None:
            nonlocal last
            if self._inbox.cancelled:
                raise Cancelled
            if time.monotonic() - last >= REPORT_S or done == total:
                last = time.monotonic()
                self._send(Progress(number, "bytes", done, total))

        return report

    def _preview(self, number: int, request: Preview) -> None:
        replies = self._recorder.preview(number, request, self._notify(number))
        while not self._inbox.has(Preview):
            reply = next(replies)
            self._send(reply)
            if reply.final:
                return
        self._send(Done(number))  # a newer preview makes the rest useless

    def _record(self, number: int, request: Record) -> None:
        self._recorder.record(number, request, self._notify(number))
        self._send(PriorChanged(number, self._recorder.state))

    def _edit(self, change: Callable[[int, Any], None]) -> Callable[[int, Any], None]:
        def edit(number: int, request: Request) -> None:
            change(number, request)
            self._send(PriorChanged(number, self._recorder.state))

        return edit

    def _remember(self, number: int, request: RememberFrame) -> None:
        job = self._runner.job_of(request.store)
        if job is not None:
            frame = job.video.frame(request.index)
        else:
            with closing(open_reference(request.video, self._runner.request_frame)) as video:
                frame = video.frame(request.index)

        def add(recording: Recording, memory: Memory) -> None:
            if job is not None:
                job.run.remember(recording, memory)
            elif request.store is not None:
                with LabelStore.open(request.store) as store:
                    add_to_run(store, recording, memory)

        self._recorder.remember(number, request, frame, add, self._notify(number))
        self._send(PriorChanged(number, self._recorder.state))

    def _save_prior(self, number: int, request: SavePrior) -> None:
        self._recorder.journal.prior.save(absolute_path(request.path))
        self._send(Done(number))

    def _describe_encodings(self, number: int, request: DescribeEncodings) -> None:
        self._send(Working(number, "loading"))
        self._send(self._encodings.describe(number, request, self._report(number)))

    def _compute_encoding(self, number: int, request: ComputeEncoding) -> None:
        self._send(self._encodings.compute(number, request))

    def _notify(self, number: int) -> Callable[[str], None]:
        return lambda what: self._send(Working(number, what))


def _notice(error: SamexpError | None) -> tuple[str, str]:
    return ("", "") if error is None else (str(error), error.code)


def _trace(error: Exception) -> str:
    return redacted("".join(traceback.format_exception(error)))
