"""Progress on standard error, and how Ctrl-C ends a command."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import typer

__all__ = ["LINE_EVERY", "Interrupt", "Stopped", "Update", "duration", "interruptible", "progress"]

LINE_EVERY = 5.0  # seconds, where there is no terminal
Unit = Literal["frames", "bytes"]


class Update(Protocol):
    """What `progress` yields."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        """Show how much is done, of how much (None if unknown), and print a note that stays."""


class Stopped(Exception):
    """Ctrl-C was pressed; the sentence says what is on disk and how to resume."""


class Interrupt:
    """Whether Ctrl-C was pressed."""

    requested = False


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turn a first Ctrl-C into a flag to check between two frames; a second one interrupts at once."""
    interrupt = Interrupt()

    def pressed(number: int, frame: Any) -> None:
        if interrupt.requested:
            raise KeyboardInterrupt
        interrupt.requested = True

    if (
        threading.current_thread() is not threading.main_thread()
    ):  # only the main thread may set signal handlers
        yield interrupt
        return
    before = signal.signal(signal.SIGINT, pressed)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def progress(what: str, unit: Unit, *, quiet: bool) -> Iterator[Update]:
    """Show the progress of something, from the first update on.

    On a terminal a bar with speed and time left, elsewhere a line every few seconds, nothing if `quiet`.

    Yields
    ------
    Update
        Call it with how much is done, and how much there is.
    """
    if quiet:
        yield lambda done, total, note="": None
    elif sys.stderr.isatty():
        with _bar(what, unit) as update:
            yield update
    else:
        yield _lines(what, unit)


def _lines(what: str, unit: Unit) -> Update:
    began = last = time.monotonic()

    def update(done: int, total: int | None, note: str = "") -> None:
        nonlocal last
        if note:
            typer.echo(f"{what}: {note}", err=True)
        now = time.monotonic()
        if now - last < LINE_EVERY or not done:
            return
        last = now
        rate = done / (now - began)
        left = "" if total is None else f", {duration((total - done) / rate)} left"
        typer.echo(f"{what}: {_amount(done, total, unit)}, {_speed(rate, unit)}{left}", err=True)

    return update


@contextmanager
def _bar(what: str, unit: Unit) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[amount]}", markup=False),
        TextColumn("{task.fields[speed]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=None, amount="", speed="", start=False)

    def update(done: int, total: int | None, note: str = "") -> None:
        if note:
            bar.console.print(note, markup=False, highlight=False)
        if not bar.live.is_started:
            bar.start()
            bar.start_task(task)
        speed = bar.tasks[0].speed
        shown = "" if speed is None else _speed(speed, unit)
        bar.update(task, completed=done, total=total, amount=_amount(done, total, unit), speed=shown)

    try:
        yield update
    finally:
        bar.stop()


def _amount(done: int, total: int | None, unit: Unit) -> str:
    scale, word = (1e6, " MB") if unit == "bytes" else (1, "")
    return f"{done / scale:.0f}{word}" if total is None else f"{done / scale:.0f}/{total / scale:.0f}{word}"


def _speed(rate: float, unit: Unit) -> str:
    return f"{rate / 1e6:.1f} MB/s" if unit == "bytes" else f"{rate:.3g} frames/s"


def duration(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
