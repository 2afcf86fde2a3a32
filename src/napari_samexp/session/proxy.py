"""Sends requests to the engine, and delivers replies to their callbacks on the session's thread."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from napari_samexp.engine.messages.base import Control, Reply, Request, Working
from napari_samexp.engine.protocol import Engine

__all__ = ["Deliver", "EngineProxy", "MakeEngine", "at_once"]

T = TypeVar("T")
Deliver = Callable[[Callable[[], None]], None]
MakeEngine = Callable[[Callable[[Reply], None]], Engine]
_log = logging.getLogger(__name__)


def at_once(call: Callable[[], None]) -> None:
    """Deliver by calling, on the thread of the reply."""
    call()


class EngineProxy:
    """The engine as the parts of a session use it; also runs slow work of this process in the background.

    Parameters
    ----------
    make_engine : callable
        Given the callback for replies, returns the engine.
    deliver : callable
        Calls a function on the session's thread, in order.
    on_other : callable
        Called with replies that have no callback.
    on_activity : callable
        Called with what the worker does now, in one word, or an empty text.
    """

    def __init__(
        self,
        make_engine: MakeEngine,
        deliver: Deliver,
        on_other: Callable[[Reply], None],
        on_activity: Callable[[str], None],
    ) -> None:
        self._deliver = deliver
        self._on_activity = on_activity
        self._active_id = 0
        self._on_other = on_other
        self._lock = threading.Lock()
        self._callbacks: dict[int, Callable[[Reply], None]] = {}
        self._closed = False
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.engine = make_engine(self._on_reply)

    def request(self, request: Request, then: Callable[[Reply], None], holds: tuple[object, ...] = ()) -> int:
        """Send a request; `then` is called with every reply to it, the last of which is final."""
        with self._lock:  # a reply may come before the next line
            number = self.engine.submit(request, holds)
            self._callbacks[number] = then
        return number

    def forget(self, number: int) -> None:
        """Drop further replies to a request."""
        with self._lock:
            self._callbacks.pop(number, None)

    def send(self, request: Control) -> None:
        """Send a control, without waiting for replies."""
        self.engine.submit(request)

    def in_background(
        self, work: Callable[[], T], then: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        """Run `work` on a background thread, one after the other, and deliver what it returns or raises."""

        def run() -> None:
            try:
                result = work()
            except Exception as error:
                self._deliver_if_open(partial(failed, error))
            else:
                self._deliver_if_open(partial(then, result))

        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run_background, name="napari-samexp background", daemon=True
            )
            self._thread.start()
        self._work.put(run)

    def close(self) -> None:
        """End the engine; nothing is delivered any more."""
        self._closed = True
        self.engine.close()
        self._work.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run_background(self) -> None:
        while (run := self._work.get()) is not None:
            if not self._closed:
                run()

    def _deliver_if_open(self, call: Callable[[], None]) -> None:
        if not self._closed:
            self._deliver(lambda: None if self._closed else call())

    def _on_reply(self, reply: Reply) -> None:
        self._deliver_if_open(partial(self._dispatch, reply))

    def _dispatch(self, reply: Reply) -> None:
        if isinstance(reply, Working):
            self._active_id = reply.id
            self._on_activity(reply.what)
        elif reply.id == self._active_id and reply.final:
            self._on_activity("")
        with self._lock:
            then = self._callbacks.pop(reply.id, None) if reply.final else self._callbacks.get(reply.id)
        (then or self._on_other)(reply)
