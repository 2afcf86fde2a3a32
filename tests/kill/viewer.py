"""Kills of napari itself, with the dock and its worker, in a real window; each life takes over from the last."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from napari_samexp.session.folders import left_sessions
from tests import ROOT
from tests.kill.checks import Tally, finished, gone, recorded_names, reference_of, same_labels, whole_files

__all__ = ["kill_naparis"]

# the event at which a phase begins, and the one that ends it
PHASES = {
    "load": ("loading", "recovered"),
    "preview": ("previewing", "recording"),
    "record": ("recording", "recorded"),
    "save": ("saving", "saved"),
    "track": ("tracking", "finished"),
    "resume": ("resuming", "finished"),
}
VICTIM = "tests.kill.window"
SCREEN = f":{100 + os.getpid() % 800}"  # two of these scripts at once would share a fixed one


class Screen:
    """An X server without a screen, unless there is a display already."""

    def __enter__(self) -> Screen:
        self._server = None
        if not os.environ.get("DISPLAY") and shutil.which("Xvfb"):
            command = ["Xvfb", SCREEN, "-screen", "0", "1400x900x24", "-nolisten", "tcp"]
            self._server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            os.environ["DISPLAY"] = SCREEN
            time.sleep(2)
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait()
            del os.environ["DISPLAY"]


class Life:
    """One napari, from its start to its end, and all that it said."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", VICTIM, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.events: list[tuple[float, dict[str, Any]]] = []
        self._changed = threading.Condition()
        self._ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{") and line.endswith("}\n"):  # the last may be cut short
                with self._changed:
                    self.events.append((time.monotonic(), json.loads(line)))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def until(self, event: str, timeout_s: float = 300.0) -> bool:
        """Wait for an event; False if the process ended without it."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self.of(event), timeout_s)
        return bool(self.of(event))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [facts for _, facts in self.events if facts["event"] == event]

    def took(self, phase: str) -> float | None:
        begin, end = PHASES[phase]
        times = {facts["event"]: at for at, facts in self.events}
        return times[end] - times[begin] if begin in times and end in times else None

    def kill(self) -> set[int]:
        """Kill the process; return the processes that it had started."""
        try:
            family = {child.pid for child in psutil.Process(self.process.pid).children(recursive=True)}
        except psutil.Error:
            family = set()
        self.process.kill()
        self.process.wait()
        with self._changed:
            self._changed.wait_for(lambda: self._ended, 30)
        return family


class WindowRounds:
    def __init__(self, work: Path, clip: Path, side: int, tally: Tally, rng: random.Random) -> None:
        self.work, self.side, self.tally, self.rng = work, side, tally, rng
        self.clip = work / "napari-clip.mp4"  # labels will lie beside it
        shutil.copy(clip, self.clip)
        self.home = work / "home"
        os.environ["NAPARI_SAMEXP_HOME"], os.environ["NAPARI_CONFIG"] = str(self.home), ""
        self.lasts = dict.fromkeys(PHASES, 3.0) | {"load": 10.0}
        self.names: list[str] = []
        self.frames: dict[Path, set[int]] = {}
        self.references: dict[Path, Path] = {}
        self.number = 0

    def round(self, phase: str) -> None:
        """Live one life; kill it in a phase, at a random moment, if it comes to that phase."""
        self.number += 1
        name = f"life {self.number}"
        life = Life(self.work, self.clip, self.side, name)
        begin = PHASES[phase][0]
        hit = False
        if life.until(begin):
            time.sleep(self.rng.uniform(0, self.lasts[phase]))
            hit = life.process.poll() is None
        family = life.kill() if hit else set()
        life.process.wait()
        self._learn(life)
        if hit:
            self.tally.killed("napari", phase)
        else:
            said = life.process.stderr.read() if life.process.stderr else ""
            self.tally.check("napari works on after kills", life.process.returncode == 0, said[-2000:])
        self.tally.check("no orphan process", gone(family), family)
        self._judge_shared_memory(life.process.pid)
        self._judge_recordings(life, name)
        self._judge_frames(life)

    def end(self) -> None:
        """Compare what all runs came to, letting the unfinished ones go on."""
        for _ in range(3):
            life = Life(self.work, self.clip, self.side, f"last life {self.number}")
            ended = life.process.wait(600)
            self._learn(life)
            said = life.process.stderr.read() if life.process.stderr else ""
            self.tally.check("napari works on after kills", ended == 0, said[-2000:])
            self._judge_frames(life)
            if life.of("tracking"):  # nothing was left to go on with
                break
        whole = 0
        for store in self.frames:
            reference = self._reference(store)
            if finished(store) == finished(reference):
                whole += 1
                different = same_labels(store, reference, finished(reference))
                self.tally.check("a resumed run equals an uninterrupted one", not different, different)
                left = whole_files(store)
                self.tally.check("nothing half-written is left", not left, left)
        self.tally.check("runs come to their end", whole > 0, [str(store) for store in self.frames])

    def _learn(self, life: Life) -> None:
        for phase in PHASES:
            if (took := life.took(phase)) is not None:
                self.lasts[phase] = took

    def _judge_recordings(self, life: Life, name: str) -> None:
        """All that were told of as recorded are in the folder that the session left."""
        for event in ("recovered", "recorded"):
            for facts in life.of(event):
                missing = set(self.names) - set(facts["names"])
                self.tally.check("no recorded prompt is lost or made twice", not missing, facts)
                self.names = list(facts["names"])
        if life.of("cleared"):
            self.names = []
        left = left_sessions(self.home / "sessions")
        newest = recorded_names(left[0].prior) if left else []
        maybe = [*self.names, name] if life.of("recording") and name not in self.names else self.names
        right = newest in (self.names, maybe)
        self.tally.check("no recorded prompt is lost or made twice", right, (newest, self.names))
        self.names = list(newest) if right else self.names
        saved = self.work / "window-saved.safetensors"
        if life.of("saved") or saved.exists():
            read = recorded_names(saved)
            self.tally.check("a saved prior is the old or the new one", isinstance(read, list), read)

    def _judge_frames(self, life: Life) -> None:
        for facts in life.of("frame"):
            self.frames.setdefault(Path(facts["store"]), set()).add(facts["index"])
        for store, told in self.frames.items():
            lost = told - finished(store)
            self.tally.check("no finished frame is lost", not lost, lost)
        for facts in life.of("frame")[-1:]:
            store = Path(facts["store"])
            different = same_labels(store, self._reference(store), finished(store))
            self.tally.check("finished frames are as they should be", not different, different)

    def _judge_shared_memory(self, pid: int) -> None:
        folder = Path("/dev/shm")
        if folder.is_dir():
            end = time.monotonic() + 15
            while (left := list(folder.glob(f"smx{pid}-*"))) and time.monotonic() < end:
                time.sleep(0.1)
            self.tally.check("no shared memory is left", not left, left)

    def _reference(self, store: Path) -> Path:
        if store not in self.references:
            self.references[store] = reference_of(store, self.clip, self.work, len(self.references))
        return self.references[store]


def kill_naparis(kills: int, work: Path, clip: Path, side: int, tally: Tally, rng: random.Random) -> None:
    """Kill napari until so many kills have hit, in each phase in turn."""
    with Screen():
        rounds, until = WindowRounds(work, clip, side, tally, rng), tally.kills.total() + kills
        phases = list(PHASES)
        for number in range(4 * kills):
            if tally.kills.total() >= until:
                break
            rounds.round(phases[number % len(phases)])
        rounds.end()
