"""The state of a tracking run, and how replies of the worker change it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from napari_samexp.engine.messages.base import Failed, Reply
from napari_samexp.engine.messages.tracking import FrameDone, PauseChanged, TrackEnded, TrackStarted
from napari_samexp.session.frames import RECENT, speed

__all__ = ["JobState", "after_reply"]

State = Literal["idle", "starting", "tracking", "paused", "interrupted", "finished", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class JobState:
    """A tracking run.

    Parameters
    ----------
    state : str
        "interrupted" is a run whose worker ended; it resumes by itself with a new worker, if it had finished a
        frame.
    store : str
        The label store's folder.
    done, total : int
        Frames that are finished, and frames of the run.
    rate, left_s : float or None
        Frames a second and seconds left, of the last frames; None while unknown.
    sentence, code : str
        Why it failed or was interrupted.
    seconds : tuple of float
        What the last frames took.
    """

    state: State = "idle"
    store: str = ""
    done: int = 0
    total: int = 0
    rate: float | None = None
    left_s: float | None = None
    sentence: str = ""
    code: str = ""
    seconds: tuple[float, ...] = ()

    @property
    def active(self) -> bool:
        """Whether the worker has the run."""
        return self.state in ("starting", "tracking", "paused")

    @property
    def resumable(self) -> bool:
        """Whether the run can be resumed."""
        if self.total == 0:  # it had not started
            return self.state in ("interrupted", "cancelled")
        return self.state in ("interrupted", "cancelled", "failed") and self.done < self.total


def after_reply(job: JobState, reply: Reply) -> JobState:
    """Return the state after a reply to the run's request."""
    match reply:
        case TrackStarted():
            return replace(job, state="tracking", store=reply.store, done=reply.done, total=reply.total)
        case FrameDone():
            seconds = (*job.seconds, reply.seconds)[-RECENT:]
            done = job.done + 1
            rate, left = speed(seconds, job.total - done)
            return replace(job, done=done, seconds=seconds, rate=rate, left_s=left)
        case PauseChanged():
            return replace(job, state="paused" if reply.paused else "tracking")
        case Failed():
            return replace(job, state="failed", sentence=reply.sentence, code=reply.code, left_s=None)
        case TrackEnded():
            state: State = reply.how  # type: ignore[assignment]
            return replace(job, state=state, sentence=reply.sentence, code=reply.code, left_s=None)
    return job
