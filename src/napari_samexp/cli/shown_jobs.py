"""How far all jobs are, in one line: on a terminal always the same, elsewhere one every few seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import typer

from napari_samexp._text import one_line
from napari_samexp.cli.progress import LINE_EVERY, duration

if TYPE_CHECKING:
    from napari_samexp.batch.jobs import Event

__all__ = ["ShownJobs"]

REDRAW_EVERY = 0.2  # seconds


class ShownJobs:
    """Counts events of jobs and shows the sum on standard error; a context manager.

    Time left assumes that the other jobs take as long as those that ended.
    """

    def __init__(self, total: int, *, quiet: bool) -> None:
        self._total, self._quiet = total, quiet
        self._live = sys.stderr.isatty()
        self._began = self._last = time.monotonic()
        self._first: dict[str, int] = {}  # frames that a job had when it was first heard of
        self._at: dict[str, tuple[int, int]] = {}
        self._skipped: set[str] = set()
        self._ended: dict[str, str] = {}

    def told(self, event: Event) -> None:
        """Take in an event, and show the sum if it is time."""
        status = getattr(event, "status", None)
        if status is None:
            self._first.setdefault(event.job, event.done)  # type: ignore[union-attr]
            self._at[event.job] = event.done, event.total  # type: ignore[union-attr]
        else:
            self._ended[event.job] = status
            if status == "skipped":
                self._skipped.add(event.job)
            elif status == "failed":
                self._say(f"{event.job}: {event.error}")  # type: ignore[union-attr]
        self._show()

    def line(self) -> str:
        """Return the sum as one line."""
        done = sum(status in ("done", "skipped") for status in self._ended.values())
        failed = sum(status == "failed" for status in self._ended.values())
        frames = sum(at - self._first[job] for job, (at, _) in self._at.items())
        seconds = max(time.monotonic() - self._began, 1e-6)
        parts = [f"{done}/{self._total} jobs", f"{frames / seconds:.3g} frames/s"]
        share = self._share()
        if share > 0:
            parts.append(f"{duration((1 - share) / share * seconds)} left")
        return ", ".join(parts + ([f"{failed} failed"] if failed else []))

    def _share(self) -> float:
        """Return which share of the work of this run is done, 0 to 1."""
        work = self._total - len(self._skipped)
        ended = sum(job not in self._skipped for job in self._ended)
        parts = [
            (done - self._first[job]) / max(1, total - self._first[job])
            for job, (done, total) in self._at.items()
            if job not in self._ended
        ]
        return (ended + sum(parts)) / work if work else 1.0

    def _show(self) -> None:
        now = time.monotonic()
        if self._quiet or now - self._last < (REDRAW_EVERY if self._live else LINE_EVERY):
            return
        self._last = now
        if self._live:
            typer.echo(f"\r\x1b[2K{self.line()}", nl=False, err=True)
        else:
            typer.echo(self.line(), err=True)

    def _say(self, sentence: str) -> None:
        if not self._quiet:
            typer.echo(("\r\x1b[2K" if self._live else "") + one_line(sentence), err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live and not self._quiet:
            typer.echo("\r\x1b[2K", nl=False, err=True)
