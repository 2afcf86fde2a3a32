"""The manifest: what ran, with which hashes, as JSON lines that are only appended. No torch."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from napari_samexp._urls import redacted_url
from napari_samexp.batch.jobs import Job, JobResult
from napari_samexp.errors import StoreError
from napari_samexp.io.atomic import os_errors_as_store_errors
from napari_samexp.io.guarded import open_file, read_whole
from napari_samexp.io.labels import LabelStore

__all__ = ["Manifest"]

MAX_BYTES = 2**30


class Manifest:
    """The file ``manifest.jsonl`` of a batch.

    A line ``{"run": {...}}`` begins each run of the command, and a line ``{"job": name, "status": ..., "key":
    ..., ...}`` ends each job; the last line of a job counts. An incomplete last line is ignored.

    Parameters
    ----------
    path : Path
        Created with the first line.

    Raises
    ------
    StoreError
        If the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last: dict[str, dict[str, Any]] = {}
        for line in self._lines():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and isinstance(entry.get("job"), str):
                self.last[entry["job"]] = entry

    def begin(self, facts: dict[str, Any]) -> None:
        """Add a line for the start of a run."""
        self._append({"run": {"at": _now(), **facts}})

    def add(self, job: Job, result: JobResult, key: str) -> None:
        """Add a line for the result of a job."""
        entry = {
            "job": job.name,
            "status": result.status,
            "key": key,
            "prior": job.prior,
            "video": job.video,
            "store": os.path.relpath(job.store, self.path.parent),
            "model": redacted_url(job.model),
            "frames": result.frames,
            "tracked": result.tracked,
            "seconds": round(result.seconds, 3),
            "hashes": None if result.identity is None else asdict(result.identity),
            "worker": result.worker,
            "at": _now(),
            **({"error": result.error} if result.error else {}),
        }
        self.last[job.name] = entry
        self._append(entry)

    def is_done(self, job: Job, key: str) -> bool:
        """Whether a job with this key is done, and its store has labels of all its frames."""
        entry = self.last.get(job.name, {})
        if entry.get("status") != "done" or entry.get("key") != key:
            return False
        try:
            with LabelStore.open(job.store, mode="r") as store:
                frames = job.frames(store.shape[0])
                # the number is shown to people, and a manifest from somebody else may hold anything
                return bool(frames and entry["frames"] == len(frames) and not store.missing(frames))
        except (StoreError, KeyError):
            return False

    def _lines(self) -> list[bytes]:
        with os_errors_as_store_errors("read", self.path):
            try:
                return read_whole(self.path, MAX_BYTES).split(b"\n")
            except FileNotFoundError:
                return []

    def _append(self, entry: dict[str, Any]) -> None:
        with os_errors_as_store_errors("write", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open_file(self.path, "a+b") as file:
                file.seek(0, os.SEEK_END)
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # a line that a kill left incomplete
                        file.write(b"\n")
                file.write(json.dumps(entry).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
