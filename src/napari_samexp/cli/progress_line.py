"""The progress of all jobs in one line: redrawn on a terminal, elsewhere printed every few seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import typer

from napari_samexp._text import one_line
from napari_samexp.cli.progress import LINE_EVERY, duration

if TYPE_CHECKING:
    from napari_samexp.batch.jobs import JobProgress, JobResult

__all__ = ["ProgressLine"]

REDRAW_EVERY = 0.2  # seconds
CLEAR_LINE = "\r\x1b[2K"


class ProgressLine:
    """Counts what jobs report and shows the sum on standard error; a context manager.

    The time left assumes that the other jobs take as long as those that ended.
    """

    def __init__(self, total: int, *, quiet: bool) -> None:
        self._total, self._quiet = total, quiet
        self._terminal = sys.stderr.isatty()
        self._began = self._drawn = time.monotonic()
        self._frames_before: dict[str, int] = {}  # frames that a job had on disk when it began
        self._frames: dict[str, tuple[int, int]] = {}
        self._statuses: dict[str, str] = {}

    def update(self, event: JobProgress | JobResult) -> None:
        """Count an event, and show the sum if it is time."""
        from napari_samexp.batch.jobs import JobProgress

        if isinstance(event, JobProgress):
            self._frames_before.setdefault(event.job, event.done)
            self._frames[event.job] = event.done, event.total
        else:
            self._statuses[event.job] = event.status
            if event.status == "failed":
                self._print(f"{event.job}: {event.error}")
        self._show()

    def line(self) -> str:
        """Return the sum as one line."""
        statuses = list(self._statuses.values())
        done, failed = statuses.count("done") + statuses.count("skipped"), statuses.count("failed")
        frames = sum(done - self._frames_before[job] for job, (done, _) in self._frames.items())
        seconds = max(time.monotonic() - self._began, 1e-6)
        parts = [f"{done}/{self._total} jobs", f"{frames / seconds:.3g} frames/s"]
        share = self._share()
        if share > 0:
            parts.append(f"{duration((1 - share) / share * seconds)} left")
        return ", ".join(parts + ([f"{failed} failed"] if failed else []))

    def _share(self) -> float:
        """Return the share of this run's work that is done, 0 to 1."""
        skipped = list(self._statuses.values()).count("skipped")
        work, ended = self._total - skipped, len(self._statuses) - skipped
        running = [
            (done - self._frames_before[job]) / max(1, total - self._frames_before[job])
            for job, (done, total) in self._frames.items()
            if job not in self._statuses
        ]
        return (ended + sum(running)) / work if work else 1.0

    def _show(self) -> None:
        now = time.monotonic()
        if self._quiet or now - self._drawn < (REDRAW_EVERY if self._terminal else LINE_EVERY):
            return
        self._drawn = now
        typer.echo(
            f"{CLEAR_LINE}{self.line()}" if self._terminal else self.line(), nl=not self._terminal, err=True
        )

    def _print(self, sentence: str) -> None:
        if not self._quiet:
            typer.echo((CLEAR_LINE if self._terminal else "") + one_line(sentence), err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal and not self._quiet:
            typer.echo(CLEAR_LINE, nl=False, err=True)
