"""The progress of a run, in the dock and in napari's activity dock."""

from __future__ import annotations

import time
from typing import Any

from napari.utils import progress

from napari_samexp.session.jobs import JobState

__all__ = ["RunProgress", "progress_words"]

_EVERY_S = 0.1  # nobody reads faster, and drawing is not free
# napari's progress bars process events at each update, which draws the canvas within our slot
_ACTIVITY_EVERY_S = 1.0


class RunProgress:
    """Shows a job in a progress bar and in napari's activity dock.

    Parameters
    ----------
    bar : QProgressBar
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._activity: Any = None
        self._drawn = (0.0, "")
        self._activity_due: float | None = None
        bar.setRange(0, 1)
        bar.setFormat("")

    def show(self, job: JobState) -> None:
        """Show the progress of a job."""
        now = time.monotonic()
        if job.state == self._drawn[1] and now - self._drawn[0] < _EVERY_S and job.done < job.total:
            return
        self._drawn = (now, job.state)
        self._bar.setRange(0, max(1, job.total))
        self._bar.setValue(job.done)
        self._bar.setFormat(progress_words(job))
        self._show_activity(job, now)

    def close(self) -> None:
        """Remove the bar from the activity dock."""
        if self._activity is not None:
            self._activity.close()
            self._activity = None

    def _show_activity(self, job: JobState, now: float) -> None:
        if not job.active:
            self.close()
            self._activity_due = None
        elif self._activity_due is None:
            self._activity_due = now + _ACTIVITY_EVERY_S  # not for short runs
        elif job.total and now >= self._activity_due:
            self._activity_due = now + _ACTIVITY_EVERY_S
            if self._activity is None or self._activity.total != job.total:
                self.close()
                self._activity = progress(total=job.total, desc="Prior tracking")
            self._activity.update(job.done - self._activity.n)


def progress_words(job: JobState) -> str:
    """Return frames done, speed and time left as text."""
    if job.state == "starting":
        return "starting …"
    if not job.total:
        return ""
    words = {
        "paused": " · paused",
        "finished": " · done",
        "cancelled": " · stopped",
        "interrupted": " · waiting",
    }
    text = f"{job.done} of {job.total}" + words.get(job.state, "")
    if job.state == "tracking" and job.rate:
        text += f" · {job.rate:.1f} frames/s · {_duration(job.left_s or 0.0)} left"
    return text


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
