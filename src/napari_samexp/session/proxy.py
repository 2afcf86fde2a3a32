"""Requests out and replies back, to whoever asked and on the thread that was chosen."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from napari_samexp.engine.client import Engine
from napari_samexp.engine.messages import Control, Reply, Request, Working

__all__ = ["Deliver", "EngineProxy", "MakeEngine", "at_once"]

T = TypeVar("T")
Deliver = Callable[[Callable[[], None]], None]
MakeEngine = Callable[[Callable[[Reply], None]], Engine]
_log = logging.getLogger(__name__)


def at_once(call: Callable[[], None]) -> None:
    """Deliver by calling, on the thread that brings the news."""
    call()


class EngineProxy:
    """Asks the engine, and runs slow work of this process aside.

    Parameters
    ----------
    make_engine : callable
        Given what to call with each reply, returns the engine.
    deliver : callable
        Runs what it is given on the thread that the session belongs to, in order.
    others : callable
        Given the replies that nobody waits for.
    activity : callable
        Given what the worker does now, in one word, or an empty text.
    """

    def __init__(
        self,
        make_engine: MakeEngine,
        deliver: Deliver,
        others: Callable[[Reply], None],
        activity: Callable[[str], None],
    ) -> None:
        self._deliver = deliver
        self._activity = activity
        self._busy_with = 0
        self._others = others
        self._lock = threading.Lock()
        self._waiting: dict[int, Callable[[Reply], None]] = {}
        self._closed = False
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.engine = make_engine(self._on_reply)

    def ask(self, request: Request, then: Callable[[Reply], None], holds: tuple[object, ...] = ()) -> int:
        """Send a request; `then` is given every reply to it, the last of which is final."""
        with self._lock:  # a reply may be quicker than the next line
            number = self.engine.submit(request, holds)
            self._waiting[number] = then
        return number

    def forget(self, number: int) -> None:
        """Wait no longer for replies to a request."""
        with self._lock:
            self._waiting.pop(number, None)

    def tell(self, request: Control) -> None:
        """Send something that is not answered."""
        self.engine.submit(request)

    def aside(
        self, work: Callable[[], T], then: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        """Run `work` on a thread of its own, one after the other, and deliver what it returns or raises."""

        def run() -> None:
            try:
                result = work()
            except Exception as error:
                self._bring(partial(failed, error))
            else:
                self._bring(partial(then, result))

        if self._thread is None:
            self._thread = threading.Thread(target=self._work_aside, name="napari-samexp aside", daemon=True)
            self._thread.start()
        self._work.put(run)

    def close(self) -> None:
        """End the engine; nothing is delivered from here on."""
        self._closed = True
        self.engine.close()
        self._work.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _work_aside(self) -> None:
        while (run := self._work.get()) is not None:
            if not self._closed:
                run()

    def _bring(self, call: Callable[[], None]) -> None:
        if not self._closed:
            self._deliver(lambda: None if self._closed else call())

    def _on_reply(self, reply: Reply) -> None:
        self._bring(partial(self._hand_over, reply))

    def _hand_over(self, reply: Reply) -> None:
        if isinstance(reply, Working):
            self._busy_with = reply.id
            self._activity(reply.what)
        elif reply.id == self._busy_with and reply.final:
            self._activity("")
        with self._lock:
            then = self._waiting.pop(reply.id, None) if reply.final else self._waiting.get(reply.id)
        (then or self._others)(reply)
