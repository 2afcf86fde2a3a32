"""The queue of requests: what may be sent now, and what becomes of it when the worker ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from napari_samexp.engine.errors import CANCELLED
from napari_samexp.engine.messages.base import CANCEL, Control, Done, Failed, Reply, Request
from napari_samexp.engine.messages.model import Loaded, LoadModel
from napari_samexp.engine.messages.prompts import Preview, PriorEdit
from napari_samexp.engine.messages.tracking import FrameReady, Track, TrackEnded
from napari_samexp.errors import SamexpError

__all__ = ["Entry", "RequestQueue", "reply_given_up"]

MOST_UNANSWERED = 16  # so that a worker which reads nothing cannot fill the pipe and block the sender


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A request and what has to live until it is answered.

    Parameters
    ----------
    repeated : bool
        Whether a worker has already died while it had the request.
    """

    id: int
    request: Request
    holds: tuple[object, ...] = ()
    repeated: bool = False

    @property
    def may_repeat(self) -> bool:
        """Whether it is worth a second try after a worker died.

        The next click requests another preview, tracking is resumed from its store, and a control was meant for
        a run that no longer exists.
        """
        return not self.repeated and not isinstance(self.request, Preview | Track | Control)


class RequestQueue:
    """Requests that wait, requests that the worker has, and what a new worker needs.

    Of the waiting previews only the newest stays; the worker does the same with those that it has.
    """

    def __init__(self) -> None:
        self._waiting: deque[Entry] = deque()
        self._sent: dict[int, Entry] = {}
        self._doubtful: list[Entry] = []  # changes of the prior that a worker died over
        self._newest_preview = 0
        self._model: Entry | None = None

    def add(self, entry: Entry) -> list[Entry]:
        """Add an entry; return those that it cancels."""
        if isinstance(entry.request, Preview):
            self._newest_preview = entry.id
            self._drop((Preview,))
        cancelled = self._drop((LoadModel, Track)) if entry.request == CANCEL else []
        self._waiting.append(entry)
        return cancelled

    def next(self) -> Entry | None:
        """Take the entry to send now, or None if nothing may be sent."""
        entry = self._first(lambda request: request == CANCEL or isinstance(request, FrameReady))
        if entry is None:
            kind = Request if len(self._sent) < MOST_UNANSWERED else Control
            entry = self._first(lambda request: isinstance(request, kind))
        if entry is not None:
            self._waiting.remove(entry)
            if not isinstance(entry.request, Control) or entry.request == CANCEL:
                self._sent[entry.id] = entry
        return entry

    def answered(self, reply: Reply) -> Entry | None:
        """Take the entry that a final reply answers, or None if nobody waits for it."""
        entry = self._sent.pop(reply.id, None)
        if entry is not None and isinstance(entry.request, LoadModel):
            if isinstance(reply, Loaded):
                self._model = entry
            elif entry is self._model:  # it was being loaded again, for a new worker
                self._model = None
        return entry

    def is_late(self, entry: Entry) -> bool:
        """Whether a newer preview has been requested since."""
        return isinstance(entry.request, Preview) and entry.id != self._newest_preview

    def is_newest_preview(self, number: int) -> bool:
        """Whether a request is the newest preview."""
        return number == self._newest_preview

    def worker_gone(self, *, cancelled: bool) -> list[Entry]:
        """Keep what a new worker should do of what the old one had; return what is given up."""
        given_up, again = [], []
        for entry in self._take_sent():
            if not entry.may_repeat or (cancelled and isinstance(entry.request, LoadModel)):
                given_up.append(entry)
            elif isinstance(entry.request, PriorEdit):
                self._doubtful.append(entry)
            elif entry is not self._model:  # which comes back anyway
                again.append(replace(entry, repeated=True))
        self._put_first(again)
        return given_up

    def worker_ready(self, changes: Collection[int]) -> list[Entry]:
        """Let a new worker start with the model; return the doubtful changes that turn out to have been made.

        Parameters
        ----------
        changes : collection of int
            The numbers of the requests that changed the prior, as the new worker found it.
        """
        made = [entry for entry in self._doubtful if entry.id in changes]
        again = [replace(entry, repeated=True) for entry in self._doubtful if entry.id not in changes]
        self._doubtful.clear()
        self._put_first(([] if self._model is None else [self._model]) + again)
        return made

    def take_all(self) -> list[Entry]:
        """Take every entry, and forget the model."""
        entries = [*self._doubtful, *self._take_sent(), *self._waiting]
        self._doubtful.clear()
        self._waiting.clear()
        self._model = None
        return entries

    def _take_sent(self) -> list[Entry]:
        entries = list(self._sent.values())
        self._sent.clear()
        return entries

    def _first(self, is_wanted: Callable[[Request], bool]) -> Entry | None:
        return next((entry for entry in self._waiting if is_wanted(entry.request)), None)

    def _put_first(self, entries: Iterable[Entry]) -> None:
        self._waiting.extendleft(reversed(list(entries)))

    def _drop(self, kinds: tuple[type[Request], ...]) -> list[Entry]:
        dropped = [entry for entry in self._waiting if isinstance(entry.request, kinds)]
        for entry in dropped:
            self._waiting.remove(entry)
        return dropped


def reply_given_up(entry: Entry, why: SamexpError) -> Reply | None:
    """Return the final reply to a request that no worker answers; None for a control that needs none."""
    if isinstance(entry.request, Track) and why is CANCELLED:
        return TrackEnded(entry.id, "cancelled")
    if isinstance(entry.request, Track):
        return TrackEnded(entry.id, "interrupted", str(why), why.code)
    if entry.request == CANCEL:
        return Done(entry.id)
    return None if isinstance(entry.request, Control) else Failed(entry.id, str(why), why.code)
