"""Kills of the command line: of commands that record and that track, and of a batch and its workers."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from napari_samexp.errors import SamexpError
from napari_samexp.io.video import open_video
from tests.kill.checks import Tally, finished, gone, recorded_names, same_labels, whole_files
from tests.sample_files import COMMAND, clicks

__all__ = ["kill_batches", "kill_commands"]

CPU = ("--device", "cpu", "--dtype", "float32")


def start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def timed(*arguments: object) -> float:
    began = time.monotonic()
    process = start(*arguments)
    assert process.wait() == 0, arguments
    return time.monotonic() - began


def killed(process: subprocess.Popen[bytes], after_s: float) -> bool:
    """Kill a command after a while; return False if it had ended before."""
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


class CommandRounds:
    """`record --append` and `track --resume` with an overlay and scores, killed at any moment of their lives."""

    def __init__(
        self, work: Path, clip: Path, prior: Path, side: int, tally: Tally, rng: random.Random
    ) -> None:
        self.work, self.clip, self.prior, self.tally, self.rng = work, clip, prior, tally, rng
        self.side = ("--side", str(side))
        self.number = 0
        with open_video(clip) as video:
            self.frames = range(len(video))
        self.whole, self.mine = work / "cli-whole.zarr", work / "cli-prior.safetensors"
        self.acknowledged: list[str] = []
        self.track_s = timed(*self._track(self.whole))
        self.record_s = timed(*self._record("first"))
        self.acknowledged.append("first")
        self._new_run()

    def record(self) -> None:
        """Add a recording; the file holds all that were told of as made, and perhaps the one in work."""
        self.number += 1
        name = f"kill {self.number}"
        if not killed(process := start(*self._record(name)), self.rng.uniform(0, self.record_s)):
            assert process.returncode == 0
            self.acknowledged.append(name)
        else:
            self.tally.killed("cli", "record")
        there = recorded_names(self.mine)
        right = there in (self.acknowledged, [*self.acknowledged, name])
        self.tally.check("no recorded prompt is lost or made twice", right, (there, self.acknowledged))
        self.acknowledged = list(there) if right else self.acknowledged

    def track(self) -> None:
        """Go on with a run; what was finished before is finished after, and equal to the whole run's."""
        before = finished(self.store)
        process = start(*self._track(self.store, "--resume"))
        after_s = self.rng.uniform(0, self.track_s)
        if not killed(process, after_s):
            self.tally.check("a run goes on after kills", process.returncode == 0, process.returncode)
            self._judge_finished()
            return
        now = finished(self.store)
        self.tally.killed("cli", self._phase(before, now))
        self.tally.check("no finished frame is lost", before <= now, before - now)
        if self.store.exists():
            different = same_labels(self.store, self.whole, now)
            self.tally.check("finished frames are as they should be", not different, different)
        self._judge_files()

    def end(self) -> None:
        """Let the last run come to its end."""
        assert start(*self._track(self.store, "--resume")).wait() == 0
        self._judge_finished()

    def _phase(self, before: set[int], now: set[int]) -> str:
        if now == before and len(now) < len(self.frames):
            return "load"
        if len(now) == len(self.frames):
            return "save"
        return "resume" if before else "track"

    def _judge_finished(self) -> None:
        different = same_labels(self.store, self.whole, self.frames)
        self.tally.check("a resumed run equals an uninterrupted one", not different, different)
        self.tally.check("nothing half-written is left", not whole_files(self.store), whole_files(self.store))
        self._judge_files()
        for path in (self.overlay, self.scores):
            self.tally.check("a run's files are there in the end", path.exists(), path)
        self._new_run()

    def _judge_files(self) -> None:
        """An overlay that is there is whole, and so is a table."""
        if self.overlay.exists():
            try:
                with open_video(self.overlay) as video:
                    count = len(video)
            except SamexpError as error:
                count = str(error)
            self.tally.check("no half-written overlay", count == len(self.frames), count)
        if self.scores.exists():
            rows = self.scores.read_text("utf-8").splitlines()
            self.tally.check("no half-written table", len(rows) == 1 + len(self.frames), len(rows))

    def _new_run(self) -> None:
        self.run = self.work / f"cli-run-{self.number}-{self.tally.kills.total()}"
        self.run.mkdir()
        self.store = self.run / "labels.zarr"
        self.overlay, self.scores = self.run / "overlay.mp4", self.run / "scores.csv"

    def _record(self, name: str) -> list[object]:
        out = ("--out", self.mine, "--append", "--name", name)
        return ["record", self.work / "prior.png", *clicks(), *CPU, *out]

    def _track(self, store: Path, *options: object) -> list[object]:
        also = ("--overlay", self.overlay, "--scores", self.scores) if options else ()
        out = ("--out", store, *also, *options)
        return ["track", self.clip, "--prior", self.prior, *self.side, *CPU, *out]


def kill_commands(
    kills: int, work: Path, clip: Path, prior: Path, side: int, tally: Tally, rng: random.Random
) -> None:
    """Kill commands until so many kills have hit: one that records to two that track."""
    rounds, until = CommandRounds(work, clip, prior, side, tally, rng), tally.kills.total() + kills
    for number in range(20 * kills):
        if tally.kills.total() >= until:
            break
        rounds.record() if number % 3 == 0 else rounds.track()
    rounds.end()


class BatchRounds:
    """A batch of a prior on several clips with two workers; the command or one of its workers is killed."""

    def __init__(
        self, work: Path, clips: Sequence[Path], prior: Path, side: int, tally: Tally, rng: random.Random
    ) -> None:
        self.work, self.clips, self.tally, self.rng = work, clips, tally, rng
        self.arguments = ["batch", prior, "--videos", *clips, "--workers", 2, "--side", side, *CPU]
        self.number = 0
        self.whole = work / "batch-whole"
        self.lasts = timed(*self.arguments, "--out", self.whole)
        self._new()

    def stop(self, *, worker: bool) -> None:
        """Start or go on with the batch, and kill it, or one of its workers."""
        before = self._finished()
        process = start(*self.arguments, "--out", self.out)
        time.sleep(self.rng.uniform(0.2, 1) * self.lasts)
        family = _family(process.pid)
        victims = [pid for pid, command in family.items() if "spawn_main" in command]
        if process.poll() is None and worker and victims:
            psutil.Process(self.rng.choice(victims)).kill()
            self.tally.killed("batch", "a worker")
            self.tally.check("a batch outlives a worker", process.wait() == 0, process.returncode)
        elif process.poll() is None and not worker:
            process.kill()
            process.wait()
            self.tally.killed("batch", "the command")
        if process.poll() is None:  # its workers had not begun
            process.kill()
            process.wait()
        self.tally.check("no orphan process", gone(family), family)
        now = self._finished()
        lost = {name: sorted(frames - now[name]) for name, frames in before.items() if frames - now[name]}
        self.tally.check("no finished frame is lost", not lost, lost)
        self._judge_manifest()
        for name, frames in now.items():
            different = (
                same_labels(self._store(name), self._store(name, self.whole), frames) if frames else []
            )
            self.tally.check("finished frames are as they should be", not different, (name, different))

    def finish(self) -> None:
        """Let the batch end, and compare all of it."""
        code = start(*self.arguments, "--out", self.out).wait()
        self.tally.check("a batch goes on after kills", code == 0, code)
        for clip in self.clips:
            store, whole = self._store(clip.stem), self._store(clip.stem, self.whole)
            different = same_labels(store, whole, finished(whole))
            self.tally.check("a resumed run equals an uninterrupted one", not different, different)
            self.tally.check("nothing half-written is left", not whole_files(store), whole_files(store))
        self._new()

    def _new(self) -> None:
        self.number += 1
        self.out = self.work / f"batch-{self.number}"

    def _store(self, name: str, out: Path | None = None) -> Path:
        found = list(((out or self.out) / "labels").glob(f"*/{name}.zarr"))
        return found[0] if found else (out or self.out) / "labels" / "none" / f"{name}.zarr"

    def _finished(self) -> dict[str, set[int]]:
        return {clip.stem: finished(self._store(clip.stem)) for clip in self.clips}

    def _judge_manifest(self) -> None:
        path = self.out / "manifest.jsonl"
        *lines, _ = path.read_bytes().split(b"\n") if path.exists() else [b""]
        try:
            entries = [json.loads(line) for line in lines if line]
        except ValueError as error:
            entries = [str(error)]
        done = [
            entry["job"] for entry in entries if isinstance(entry, dict) and entry.get("status") == "done"
        ]
        self.tally.check("every line of the manifest is whole", all(isinstance(e, dict) for e in entries))
        self.tally.check("no job is done twice", len(done) == len(set(done)), done)


def _family(pid: int) -> dict[int, str]:
    try:
        return {
            child.pid: " ".join(child.cmdline()) for child in psutil.Process(pid).children(recursive=True)
        }
    except psutil.Error:
        return {}


def kill_batches(
    kills: int, work: Path, clips: Sequence[Path], prior: Path, side: int, tally: Tally, rng: random.Random
) -> None:
    """Kill batches until so many kills have hit, the command and a worker in turn."""
    rounds, until = BatchRounds(work, clips, prior, side, tally, rng), tally.kills.total() + kills
    for number in range(6 * kills):
        if tally.kills.total() >= until:
            break
        rounds.stop(worker=number % 2 == 1)
        if number % 2 == 1 or tally.kills.total() >= until:
            rounds.finish()
