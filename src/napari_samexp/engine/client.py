"""The viewer's end of the line to the worker: it never waits, and it outlives the worker."""

from __future__ import annotations

import atexit
import itertools
import logging
import multiprocessing
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

from napari_samexp.engine.errors import exit_sentence
from napari_samexp.engine.frames import FrameServer
from napari_samexp.engine.messages import (
    MAX_CHOICES,
    Cancel,
    Control,
    Done,
    Failed,
    FrameDone,
    FrameWanted,
    Loaded,
    Preview,
    Previewed,
    PriorChanged,
    Ready,
    Reply,
    Request,
    Stop,
    Track,
    TrackEnded,
    VideoRef,
    WorkerDied,
)
from napari_samexp.engine.process import WorkerOptions, WorkerProcess
from napari_samexp.engine.queue import Entry, RequestQueue
from napari_samexp.engine.sharing import SharedArray
from napari_samexp.errors import SamexpError
from napari_samexp.types import VideoSource

__all__ = ["Engine", "EngineClient"]

_log = logging.getLogger(__name__)

MOST_DEATHS = 2  # in a row, before the same is not tried again
CLOSING_S = 1.0  # for a worker to finish the frame in work


class Engine(Protocol):
    """What a session needs of an engine."""

    def start(self) -> None:
        """Have the worker started now rather than with the first request."""

    def submit(self, request: Request, holds: tuple[object, ...] = ()) -> int:
        """Put a request in the line and return its number."""

    def share_video(self, source: VideoSource) -> VideoRef:
        """Return a reference to a video that the worker cannot open itself."""

    def release_video(self, ref: VideoRef) -> None:
        """Forget a video."""

    def close(self) -> None:
        """End the worker."""


class EngineClient:
    """One model in one worker process, asked from this process without ever waiting for it.

    A worker that ends by itself is replaced: the new one loads the same model, finds the prior in the
    session's folder, and gets the unanswered requests that are worth a second try. Whether a change of
    the prior had been made before the end shows in the journal, so none is lost or made twice.

    Parameters
    ----------
    on_reply : callable
        Given each reply, on this client's own thread.
    folder : Path
        The session's folder.
    options : WorkerOptions, optional
    """

    def __init__(
        self, on_reply: Callable[[Reply], None], folder: Path, options: WorkerOptions | None = None
    ) -> None:
        self._on_reply = on_reply
        self._folder = folder
        self._options = options or WorkerOptions()
        # Also told apart from those of an earlier session, which the journal may still name. Not by the time:
        # a clock that was set back would have a change taken for one that was made long ago.
        self._numbers = itertools.count(1 + secrets.randbits(60))
        self._posted: deque[Entry] = deque()
        self._line = RequestQueue()
        self._frames = FrameServer(self._answer_frame)
        self._bell, self._button = multiprocessing.Pipe(duplex=False)
        self._lock = threading.Lock()  # of the button, and of the thread's beginning and end
        self._rung = self._closing = False
        self._thread: threading.Thread | None = None
        # what follows is touched by the thread alone
        self._worker: WorkerProcess | None = None
        self._ready = self._wanted = False
        self._deaths = 0
        self._deadline: float | None = None
        self._frame_s = 0.0
        self._scratch: SharedArray | None = None

    # ---- for any thread

    @property
    def pid(self) -> int | None:
        """The worker's process number, or None while there is none."""
        worker = self._worker
        return None if worker is None else worker.pid

    def start(self) -> None:
        """Start the worker now, rather than with the first request."""
        self._ring()

    def submit(self, request: Request, holds: tuple[object, ...] = ()) -> int:
        """Put a request in the line.

        Parameters
        ----------
        holds : tuple
            What has to live until the request is answered, such as the `Image` that it names.

        Returns
        -------
        int
            The number that replies to this request have.
        """
        number = next(self._numbers)
        self._posted.append(Entry(number, request, holds))
        self._ring()
        return number

    def share_video(self, source: VideoSource) -> VideoRef:
        """Return a reference to a video whose frames this process reads for the worker."""
        return self._frames.add(source)

    def release_video(self, ref: VideoRef) -> None:
        """Forget a video that was shared."""
        self._frames.remove(ref)

    def close(self) -> None:
        """End the worker and give back all memory; a second call does nothing.

        What is on disk is whole: finished frames, and every recording.
        """
        with self._lock:
            self._closing = True
            thread = self._thread
            if thread is not None and thread.is_alive():
                self._press()
        atexit.unregister(self.close)
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._frames.close()

    def _ring(self) -> None:
        with self._lock:
            if self._closing:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="napari-samexp line", daemon=True)
                self._thread.start()
                atexit.register(self.close)
            self._press()

    def _press(self) -> None:
        if not self._rung:
            self._rung = True
            self._button.send_bytes(b"!")

    def _answer_frame(self, frame: Control) -> None:
        self.submit(frame)

    # ---- the thread

    def _work(self) -> None:
        try:
            while not self._closing:
                self._listen()
                self._take_posted()
                self._send_waiting()
        except Exception:
            _log.exception("the line to the model's process broke")
            self._tell(WorkerDied(0, "The line to the model's process broke; see the log.", False))
        finally:
            self._shut_down()

    def _listen(self) -> None:
        worker = self._worker
        handles: list[Any] = [self._bell]
        if worker is not None:
            handles += [worker.connection, worker.sentinel]
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        ready = wait(handles, left)
        if self._bell in ready:
            with self._lock:
                self._bell.recv_bytes()
                self._rung, self._wanted = False, True
        if worker is not None and worker.connection in ready:
            self._receive(worker)
        elif worker is not None and worker.sentinel in ready:
            self._worker_gone(exit_sentence)
        elif self._deadline is not None and time.monotonic() >= self._deadline:
            self._worker_gone(lambda _: "The model's process did not react and was ended", cancelled=True)

    def _take_posted(self) -> None:
        while self._posted:
            for cancelled in self._line.add(self._posted.popleft()):
                self._give_up(cancelled, "Cancelled.", cancelled=True)
        if self._wanted and self._worker is None and not self._closing:
            self._start_worker()

    def _send_waiting(self) -> None:
        while self._ready and self._worker is not None and (entry := self._line.next()) is not None:
            try:
                request = self._with_room(entry.request)
            except SamexpError as error:
                self._finish(Failed(entry.id, str(error)))
                continue
            if isinstance(request, Cancel):
                self._deadline = time.monotonic() + self._options.patience_s + 2 * self._frame_s
            self._worker.send((entry.id, request))  # if nobody reads it, the next listening shows why

    def _with_room(self, request: Request) -> Request:
        """Give a preview a place for its masks; there is one, of which only the newest is read."""
        if not isinstance(request, Preview):
            return request
        height, width = request.image.pixels.shape[:2]
        shape = (MAX_CHOICES, -(-height * width // 8))
        if self._scratch is None or self._scratch.nbytes < shape[0] * shape[1]:
            if self._scratch is not None:
                self._scratch.release()
                self._scratch = None
            self._scratch = SharedArray(shape, "uint8")
        return replace(request, into=self._scratch.ref)

    # ---- replies

    def _receive(self, worker: WorkerProcess) -> None:
        try:
            reply = worker.connection.recv()
        except Exception:  # the end, or a message that the end cut short
            self._worker_gone(exit_sentence)
            return
        if isinstance(reply, Ready):
            self._welcome(reply)
        elif isinstance(reply, FrameWanted):
            self._frames.serve(reply)
        elif isinstance(reply, WorkerDied):  # it could not even begin
            self._deaths = MOST_DEATHS
            self._worker_gone(lambda _: reply.sentence.rstrip("."))
        elif reply.final:
            self._finish(reply)
        else:
            if isinstance(reply, FrameDone):
                self._frame_s, self._deaths = reply.seconds, 0
            self._tell(reply)

    def _finish(self, reply: Reply) -> None:
        entry = self._line.answered(reply)
        if entry is None:
            return
        if isinstance(entry.request, Cancel):
            self._deadline = None
        if isinstance(reply, Failed) and reply.trace:
            _log.error("%s\n%s", reply.sentence, reply.trace)
        elif isinstance(reply, Loaded | Previewed | PriorChanged):
            self._deaths = 0
        if self._line.is_late(entry):
            return
        if isinstance(reply, Previewed) and self._scratch is not None:
            every = self._scratch.read((MAX_CHOICES, -(-reply.hw[0] * reply.hw[1] // 8)))
            reply = replace(reply, bits=every[: len(reply.iou)])
        self._tell(reply)

    def _welcome(self, reply: Ready) -> None:
        self._ready = True
        self._tell(reply)
        for entry in self._line.worker_ready(reply.prior.changes):
            self._tell(PriorChanged(entry.id, reply.prior))

    # ---- the end of a worker, and the next one

    def _start_worker(self) -> None:
        try:
            self._worker = WorkerProcess(self._folder, self._options)
        except SamexpError as error:
            self._give_all_up(str(error))

    def _worker_gone(self, say: Callable[[int | None], str], *, cancelled: bool = False) -> None:
        assert self._worker is not None
        why = say(self._worker.end())
        self._worker, self._ready, self._deadline = None, False, None
        self._deaths += not cancelled
        _log.warning("%s", why)
        if self._deaths >= MOST_DEATHS:
            self._give_all_up(f"{why}; choose a smaller encode side or model, or try again.")
            return
        self._tell(WorkerDied(0, f"{why}; it is being started again.", restarting=True))
        for entry in self._line.worker_gone(cancelled=cancelled):
            self._give_up(entry, f"{why}.", cancelled=cancelled)
        self._start_worker()

    def _give_all_up(self, why: str) -> None:
        self._wanted, self._deaths = False, 0
        self._tell(WorkerDied(0, why, restarting=False))
        for entry in self._line.take_all():
            self._give_up(entry, why)

    def _give_up(self, entry: Entry, why: str, *, cancelled: bool = False) -> None:
        if isinstance(entry.request, Track):
            how = "cancelled" if cancelled else "interrupted"
            self._tell(TrackEnded(entry.id, how, "" if cancelled else why))
        elif isinstance(entry.request, Cancel):
            self._tell(Done(entry.id))
        elif not isinstance(entry.request, Control) and not self._line.is_late(entry):
            self._tell(Failed(entry.id, "Cancelled." if cancelled else why))

    def _tell(self, reply: Reply) -> None:
        if self._closing:
            return
        try:
            self._on_reply(reply)
        except Exception:
            _log.exception("a reply of the model's process could not be used")

    def _shut_down(self) -> None:
        if self._worker is not None:
            self._worker.send((0, Stop()))
            self._worker.end(CLOSING_S)
            self._worker = None
        if self._scratch is not None:
            self._scratch.release()
        with self._lock:
            self._closing = self._rung = True  # nobody presses the button any more
            self._bell.close()
            self._button.close()
