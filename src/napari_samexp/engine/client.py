"""The viewer's side of the engine: it never waits for the worker, and outlives it."""

from __future__ import annotations

import atexit
import itertools
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from napari_samexp.engine.errors import CANCELLED, exit_error
from napari_samexp.engine.frames import FrameServer
from napari_samexp.engine.messages.base import CANCEL, STOP, Failed, Reply, Request, VideoRef, WorkerDied
from napari_samexp.engine.messages.model import Loaded, Ready
from napari_samexp.engine.messages.prompts import ChosenMask, Preview, Previewed, PriorChanged
from napari_samexp.engine.messages.tracking import FrameDone, FrameWanted
from napari_samexp.engine.preview_block import PreviewBlock
from napari_samexp.engine.process import WorkerOptions, WorkerProcess
from napari_samexp.engine.queue import Entry, RequestQueue, reply_given_up
from napari_samexp.engine.wake_up import WakeUp
from napari_samexp.errors import SamexpError
from napari_samexp.types import VideoSource

__all__ = ["EngineClient"]

_log = logging.getLogger(__name__)

MOST_DEATHS = 2  # in a row, before the same is not tried again
CLOSING_S = 1.0  # for a worker to finish the current frame


class EngineClient:
    """One model in one worker process; no method waits for it.

    A worker that ends by itself is replaced: the new one loads the same model, finds the prior in the
    session's folder, and gets the unanswered requests that are worth a second try. The journal shows whether a
    change of the prior was made before the end, so none is lost or made twice.

    Parameters
    ----------
    on_reply : callable
        Called with each reply, on this client's own thread.
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
        # A random start, since the journal may still name requests of an earlier session. Not the time: after a
        # clock was set back, a new change could be taken for an old one.
        self._numbers = itertools.count(1 + secrets.randbits(60))
        self._posted: deque[Entry] = deque()
        self._queue = RequestQueue()
        self._frames = FrameServer(self.submit)
        self._wake_up = WakeUp()
        self._lock = threading.Lock()  # of the thread's start and end
        self._closing = False
        self._thread: threading.Thread | None = None
        # what follows is touched by the thread alone
        self._worker: WorkerProcess | None = None
        self._ready = self._start_requested = False
        self._deaths = 0
        self._deadline: float | None = None
        self._frame_s = 0.0
        self._previews = PreviewBlock()

    # ---- for any thread

    @property
    def pid(self) -> int | None:
        """The worker's process number, or None while there is none."""
        return None if (worker := self._worker) is None else worker.pid

    def start(self) -> None:
        """Start the worker now, rather than with the first request."""
        self._wake()

    def submit(self, request: Request, holds: tuple[object, ...] = ()) -> int:
        """Queue a request.

        Parameters
        ----------
        holds : tuple
            What has to live until the request is answered, such as its `SharedImage`.

        Returns
        -------
        int
            The number of the replies to this request.
        """
        number = next(self._numbers)
        self._posted.append(Entry(number, request, holds))
        self._wake()
        return number

    def share_video(self, source: VideoSource) -> VideoRef:
        """Return a reference to a video whose frames this process reads for the worker."""
        return self._frames.add(source)

    def release_video(self, ref: VideoRef) -> None:
        """Forget a video that was shared."""
        self._frames.remove(ref)

    def close(self) -> None:
        """End the worker and free all memory; finished frames and recordings are on disk."""
        with self._lock:
            self._closing = True
            thread = self._thread
            if thread is not None and thread.is_alive():
                self._wake_up.set()
        atexit.unregister(self.close)
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._frames.close()

    def _wake(self) -> None:
        with self._lock:
            if self._closing:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="napari-samexp engine", daemon=True)
                self._thread.start()
                atexit.register(self.close)
            self._wake_up.set()

    # ---- the thread

    def _work(self) -> None:
        try:
            while not self._closing:
                self._listen()
                self._take_posted()
                self._send_waiting()
        except Exception:
            _log.exception("the client of the model's process failed")
            why = "The connection to the model's process broke; see the log."
            self._notify(WorkerDied(0, why, restarting=False, code="fault"))
        finally:
            self._shut_down()

    def _listen(self) -> None:
        worker = self._worker
        handles: list[Any] = [self._wake_up.connection]
        if worker is not None:
            handles += [worker.connection, worker.sentinel]
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        ready = wait(handles, left)
        if self._wake_up.connection in ready:
            self._wake_up.clear()
            self._start_requested = True
        if worker is not None and worker.connection in ready:
            self._receive(worker)
        elif worker is not None and worker.sentinel in ready:
            self._worker_gone()
        elif self._deadline is not None and time.monotonic() >= self._deadline:
            self._worker_gone(
                SamexpError("The model's process did not react and was ended", code="worker-ended"),
                cancelled=True,
            )

    def _take_posted(self) -> None:
        while self._posted:
            for cancelled in self._queue.add(self._posted.popleft()):
                self._give_up(cancelled, CANCELLED)
        if self._start_requested and self._worker is None and not self._closing:
            self._start_worker()

    def _send_waiting(self) -> None:
        while self._ready and self._worker is not None and (entry := self._queue.next()) is not None:
            request = entry.request
            try:
                if isinstance(request, Preview):
                    request = self._previews.prepared(request)
            except SamexpError as error:
                self._finish(Failed(entry.id, str(error), error.code))
                continue
            if request == CANCEL:
                self._deadline = time.monotonic() + self._options.patience_s + 2 * self._frame_s
            self._worker.send((entry.id, request))  # if the worker is gone, `_listen` finds out

    # ---- replies

    def _receive(self, worker: WorkerProcess) -> None:
        try:
            reply = worker.connection.recv()
        except Exception:  # the end, or a message that the end cut short
            return self._worker_gone()
        if isinstance(reply, Ready):
            self._welcome(reply)
        elif isinstance(reply, FrameWanted):
            self._frames.serve(reply)
        elif isinstance(reply, WorkerDied):  # it could not even start
            self._deaths = MOST_DEATHS
            self._worker_gone(SamexpError(reply.sentence.rstrip("."), code=reply.code))
        elif reply.final:
            self._finish(reply)
        elif isinstance(reply, ChosenMask):
            if self._queue.is_newest_preview(reply.id):
                self._notify(replace(reply, preview=self._previews.with_masks(reply.preview)))
        else:
            if isinstance(reply, FrameDone):
                self._frame_s, self._deaths = reply.seconds, 0
            self._notify(reply)

    def _finish(self, reply: Reply) -> None:
        entry = self._queue.answered(reply)
        if entry is None:
            return
        if entry.request == CANCEL:
            self._deadline = None
        if isinstance(reply, Failed) and reply.trace:
            _log.error("%s\n%s", reply.sentence, reply.trace)
        elif isinstance(reply, Loaded | Previewed | PriorChanged):
            self._deaths = 0
        if self._queue.is_late(entry):
            return
        if isinstance(reply, Previewed):
            reply = self._previews.with_masks(reply)
        self._notify(reply)

    def _welcome(self, reply: Ready) -> None:
        self._ready = True
        self._notify(reply)
        for entry in self._queue.worker_ready(reply.prior.changes):
            self._notify(PriorChanged(entry.id, reply.prior))

    # ---- the end of a worker, and the next one

    def _start_worker(self) -> None:
        try:
            self._worker = WorkerProcess(self._folder, self._options)
        except SamexpError as error:
            self._give_all_up(error)

    def _worker_gone(self, why: SamexpError | None = None, *, cancelled: bool = False) -> None:
        """Replace a worker; `why` has no full stop, and by default is what the exit code says."""
        assert self._worker is not None
        exit_code = self._worker.end()
        why = why or exit_error(exit_code)
        self._worker, self._ready, self._deadline = None, False, None
        self._deaths += not cancelled
        _log.warning("%s", why)
        if self._deaths >= MOST_DEATHS:
            advice = "choose a smaller encode side or model, or try again."
            self._give_all_up(SamexpError(f"{why}; {advice}", code=why.code))
            return
        self._notify(WorkerDied(0, f"{why}; it is being started again.", restarting=True, code=why.code))
        for entry in self._queue.worker_gone(cancelled=cancelled):
            self._give_up(entry, CANCELLED if cancelled else SamexpError(f"{why}.", code=why.code))
        self._start_worker()

    def _give_all_up(self, why: SamexpError) -> None:
        self._start_requested, self._deaths = False, 0
        self._notify(WorkerDied(0, str(why), restarting=False, code=why.code))
        for entry in self._queue.take_all():
            self._give_up(entry, why)

    def _give_up(self, entry: Entry, why: SamexpError) -> None:
        reply = reply_given_up(entry, why)
        if reply is not None and not self._queue.is_late(entry):
            self._notify(reply)

    def _notify(self, reply: Reply) -> None:
        if self._closing:
            return
        try:
            self._on_reply(reply)
        except Exception:
            _log.exception("a reply of the model's process could not be used")

    def _shut_down(self) -> None:
        if self._worker is not None:
            self._worker.send((0, STOP))
            self._worker.end(CLOSING_S)
            self._worker = None
        self._previews.release()
        with self._lock:
            self._closing = True
            self._wake_up.close()
