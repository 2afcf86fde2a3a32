"""What has to be true after a kill, and the tally of what was tried."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import psutil

from napari_samexp.errors import SamexpError
from napari_samexp.io.labels import LabelStore
from napari_samexp.tracking import PriorMemory
from tests.sample_files import COMMAND

__all__ = ["Tally", "finished", "gone", "recorded_names", "reference_of", "same_labels", "whole_files"]

PARTIAL = re.compile(r".*\.partial")


class Tally:
    """Kills by victim and by what it was doing, and every promise that was broken."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.kills: Counter[tuple[str, str]] = Counter()
        self.looked_at: Counter[str] = Counter()
        self.broken: list[str] = []

    def killed(self, victim: str, phase: str) -> None:
        self.kills[victim, phase] += 1

    def check(self, what: str, true: bool, detail: object = "") -> None:
        """Note that a promise was looked at, and how it was broken if it was."""
        self.looked_at[what] += 1
        if not true:
            self.broken.append(f"{what}: {detail}")

    def report(self) -> dict:
        table: dict[str, dict[str, int]] = {}
        for (victim, phase), count in sorted(self.kills.items()):
            table.setdefault(victim, {})[phase] = count
        return {
            "seed": self.seed,
            "kills": sum(self.kills.values()),
            "by_victim": table,
            "looked_at": dict(self.looked_at),
            "broken": self.broken,
        }


def finished(store: Path) -> set[int]:
    """Return the frames that are on disk as done, read as the file is, without opening the store."""
    try:
        *lines, _ = (store / "scores.jsonl").read_bytes().split(b"\n")
    except OSError:
        return set()
    return {entry["frame"] for entry in map(json.loads, lines) if "frame" in entry}


def same_labels(store: Path, reference: Path, frames: Iterable[int]) -> list[int]:
    """Return those of `frames` that are missing in a store or differ from the reference, labels or scores."""
    with LabelStore.open(store, mode="r") as one, LabelStore.open(reference, mode="r") as other:
        mine, right = one.scores, other.scores
        return [
            index
            for index in sorted(frames)
            if mine.get(index) != right[index] or not np.array_equal(one.frame(index), other.frame(index))
        ]


def recorded_names(prior: Path) -> list[str] | str:
    """Return the names of a prior file's recordings, or why it cannot be read."""
    try:
        return [recording.name for recording in PriorMemory.load(prior).recordings]
    except SamexpError as error:
        return str(error)


def whole_files(folder: Path) -> list[str]:
    """Return what lies half-written in a folder that its writer has finished with."""
    return [str(path) for path in folder.rglob("*") if PARTIAL.fullmatch(path.name)]


def reference_of(store: Path, clip: Path, work: Path, number: int) -> Path:
    """Track what a store's run was made of once more, in one go and from a shell; return that store."""
    with LabelStore.open(store, mode="r") as opened:
        settings = opened.details["settings"]
    out = work / f"reference-{number}.zarr"
    side = [] if settings["side"] is None else ["--side", str(settings["side"])]
    command = [*COMMAND, "track", clip, "--prior", store / "prior.safetensors", "--out", out]
    subprocess.run(
        [*command, *side, "--device", "cpu", "--dtype", "float32"], check=True, stdout=subprocess.DEVNULL
    )
    return out


def gone(pids: Iterable[int], within_s: float = 30.0) -> bool:
    """Whether processes end by themselves."""
    end = time.monotonic() + within_s
    left = set(pids)
    while left and time.monotonic() < end:
        left = {pid for pid in left if psutil.pid_exists(pid) and not _is_zombie(pid)}
        time.sleep(0.05)
    return not left


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
