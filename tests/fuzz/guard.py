"""One case of bad input in a process of its own, with a limit on time and on memory.

A case is made, looked at, used as a person would use it, and looked at again. What is found wrong, whatever
the case: any error but a `SamexpError`, a sentence that is no single clear one, a traceback on standard error,
a hang, too much memory, a process that dies, code that ran from a file, and files that changed although the
input was refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal

import psutil

from napari_samexp.errors import SamexpError

LIMIT_S = 10.0  # of a processor, for what a person waits for
STUCK_S = 60.0  # by the clock, without as much as 0.1 s of a processor: it waits for what never comes
MAKING_S = 300.0  # for the case itself, which may be a video that has to be encoded
LIMIT_BYTES = 1 << 30  # beyond what the process had before
SAFETY_BYTES = 8 << 30  # of address space, so that a fault takes no machine down
CANARY = "code-has-run"
LONGEST_SENTENCE = 1500

GOOD = ("worked", "refused")


@dataclass(frozen=True, slots=True)
class Case:
    """Bad input, and its use.

    Parameters
    ----------
    says : str
        What is bad about it, in a few words.
    do : callable
        Uses it; raises a `SamexpError` to refuse it.
    must : {"refuse", "work", "either"}
        What has to come of it.
    writes : tuple of str
        What may change in the case's folder although the input is refused, as the beginnings of paths.
    """

    says: str
    do: Callable[[], object]
    must: Literal["refuse", "work", "either"] = "either"
    writes: tuple[str, ...] = ()


@dataclass(slots=True)
class Outcome:
    """What became of a case; `result` is "worked", "refused" or what was wrong."""

    kind: str
    number: int
    result: str
    says: str = ""
    detail: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return self.result in GOOD


Kind = Callable[[Random, Path, Path], Case]  # from chance, the folder of sound files, and the case's own


def seed_of(seed: int, kind: str, number: int) -> Random:
    """Return the chance of a case, which depends on nothing but these."""
    return Random(f"{seed} {kind} {number}")


class Running:
    """A case that is under way in its own process."""

    def __init__(self, kind: str, make: Kind, seed: int, number: int, sound: Path, folder: Path) -> None:
        self.kind, self.number, self.folder = kind, number, folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.reader, writer = os.pipe()
        self.began = time.monotonic()
        self.asked: float | None = None
        self._worked = 0.0
        self._said = b""
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.reader)
            _child(writer, kind, make, seed_of(seed, kind, number), sound, folder)
        os.close(writer)

    def look(self) -> Outcome | None:
        """Return the outcome if there is one by now."""
        more = os.read(self.reader, 1 << 20) if select.select([self.reader], [], [], 0)[0] else None
        if more:
            self._said += more
            if self.asked is None and self._said.startswith(b"!"):
                self.asked = time.monotonic()
        if more == b"":
            return self._ended(os.waitpid(self.pid, 0)[1])
        if self._is_late():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            what = "hung" if self.asked else "could not be made"
            return self._finished(Outcome(self.kind, self.number, what, seconds=STUCK_S))
        return None

    def _is_late(self) -> bool:
        now = time.monotonic()
        if self.asked is None:
            return now - self.began > MAKING_S
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(self.pid).cpu_times()
            if times.user + times.system >= self._worked + 0.1:
                self._worked, self.asked = times.user + times.system, now
        return now - self.asked > STUCK_S

    def _ended(self, status: int) -> Outcome:
        text = self._said.lstrip(b"!").decode(errors="replace")
        try:
            outcome = Outcome(self.kind, self.number, **json.loads(text))
        except (ValueError, TypeError):
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            how = f"signal {number}" if number else f"status {status}"
            hung = number == signal.SIGXCPU
            outcome = Outcome(self.kind, self.number, "hung" if hung else "died", detail=how)
        return self._finished(outcome)

    def _finished(self, outcome: Outcome) -> Outcome:
        os.close(self.reader)
        note = self.folder / ".." / f"{self.folder.name}.says"
        if not outcome.says and note.exists():
            outcome.says = note.read_text()
        note.unlink(missing_ok=True)
        if (self.folder / CANARY).exists():
            outcome.result = "ran code"
        if outcome.good:
            shutil.rmtree(self.folder, ignore_errors=True)
        return outcome


def run_all(
    cases: Iterator[tuple[str, Kind, int]], seed: int, sound: Path, folder: Path, workers: int
) -> Iterator[Outcome]:
    """Run cases, `workers` at a time, and yield their outcomes as they come."""
    running: list[Running] = []
    more = True
    while running or more:
        while more and len(running) < workers:
            following = next(cases, None)
            if following is None:
                more = False
                break
            kind, make, number = following
            place = folder / f"{re.sub('[^a-z]+', '-', kind)}-{number}"
            running.append(Running(kind, make, seed, number, sound, place))
        done = False
        for one in list(running):
            outcome = one.look()
            if outcome is not None:
                running.remove(one)
                done = True
                yield outcome
        if not done:
            select.select([one.reader for one in running], [], [], 0.05)


# In the case's own process


def _child(writer: int, kind: str, make: Kind, chance: Random, sound: Path, folder: Path) -> None:
    try:
        said = _silenced(folder.with_name(f"{folder.name}.err"))
        _fence(folder)
        case = make(chance, sound, folder)
        folder.with_name(f"{folder.name}.says").write_text(case.says, errors="replace")
        found = _used(case, folder, lambda: os.write(writer, b"!"))
        if found["result"] in GOOD and "Traceback (most recent" in said.read_text(errors="replace"):
            found |= {"result": "traceback", "detail": said.read_text(errors="replace")[-3000:]}
        said.unlink(missing_ok=True)
    except BaseException:
        found = {"result": "could not be made", "detail": traceback.format_exc()[-3000:]}
    try:
        os.write(writer, json.dumps(found).encode())
    finally:
        os._exit(0)


def _silenced(path: Path) -> Path:
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    return path


def _fence(folder: Path) -> None:
    """Keep a case from the network, a person's own files, and all of the machine's memory."""
    os.chdir(folder)
    home = folder.with_name(f"{folder.name}.home")
    for name in ("NAPARI_SAMEXP_CACHE", "NAPARI_SAMEXP_HOME", "HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        os.environ[name] = str(home)

    def refused(*_: object, **__: object) -> None:
        raise OSError("no network here")

    socket.create_connection = refused  # type: ignore[assignment]
    socket.getaddrinfo = refused  # type: ignore[assignment]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + SAFETY_BYTES,) * 2)


def _used(case: Case, folder: Path, begin: Callable[[], object]) -> dict[str, Any]:
    before = _look_at(folder)
    _forget_peak()
    base = _status("VmRSS")
    begin()
    began = time.process_time()
    # with a second to spare, so that what is only just too slow can still be said in numbers
    resource.setrlimit(resource.RLIMIT_CPU, (int(began + LIMIT_S) + 2, resource.RLIM_INFINITY))
    result, detail = _outcome(case.do)
    seconds = time.process_time() - began
    grown = max(0, _status("VmHWM") - base)
    after = _look_at(folder)
    if result in GOOD:
        if case.must not in ("either", result.replace("worked", "work").replace("refused", "refuse")):
            result, detail = "wrong", f"expected to {case.must}, it {result}: {detail}"
        elif seconds > LIMIT_S:
            result = "hung"
        elif grown > LIMIT_BYTES:
            result = "memory"
        elif result == "refused" and (changed := _changes(before, after, case.writes)):
            result, detail = "wrote", f"{changed[:5]} after: {detail}"
    return {
        "says": case.says, "result": result, "detail": detail, "seconds": seconds, "megabytes": grown / 2**20
    }  # fmt: skip


def _outcome(do: Callable[[], object]) -> tuple[str, str]:
    try:
        return "worked", str(do() or "")[:300]
    except SamexpError as error:
        problem = _unclear(str(error))
        return ("unclear", f"{problem}: {str(error)[:1000]!r}") if problem else ("refused", str(error))
    except BaseException:
        return "traceback", traceback.format_exc()[-3000:]


def _unclear(sentence: str) -> str:
    if not sentence.strip() or len(sentence) > LONGEST_SENTENCE:
        return f"{len(sentence)} characters"
    if any(not c.isprintable() for c in sentence):
        return "control characters"
    if "Traceback" in sentence or not sentence.rstrip().endswith((".", "?", ")")):
        return "no sentence"
    return ""


def _look_at(folder: Path) -> dict[str, str]:
    """Return a hash of each file, and what else there is, by path."""
    seen = {}
    for root, folders, files in os.walk(folder):
        for name in folders:
            seen[os.path.relpath(Path(root, name), folder)] = "folder"
        for name in files:
            path = Path(root, name)
            plain = path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 26
            content = (
                hashlib.sha256(path.read_bytes()).hexdigest()
                if plain and os.access(path, os.R_OK)
                else "other"
            )
            seen[os.path.relpath(path, folder)] = content
    return seen


def _changes(before: dict[str, str], after: dict[str, str], allowed: tuple[str, ...]) -> list[str]:
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return sorted(name for name in names if not name.startswith(allowed or ("\0",)))


def _status(name: str) -> int:
    """Return a number of bytes from the system's account of this process; 0 where it keeps none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
