"""A long video cut into ranges that several workers share, each with a warm-up before it.

The labels are not those of an uncut run: a range begins with the memories of its warm-up alone. A store that
was put together says so, and an uncut run does not go on in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from napari_samexp.batch.jobs import Job, Part, job_key
from napari_samexp.errors import SettingsError, StoreError
from napari_samexp.io.atomic import absolute_path, os_errors_as_store_errors
from napari_samexp.io.guarded import require_ordinary
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.lock import StoreLock
from napari_samexp.types import FrameResult, RunIdentity

__all__ = ["merge", "range_key", "require_own_range", "split_job"]


def split_job(job: Job, count: int, length: int, warm_up: int) -> list[Job]:
    """Return jobs for the ranges of a video of `count` frames; the job itself if one range holds them all.

    Parameters
    ----------
    length : int
        Frames of a range; the last may have fewer.
    warm_up : int
        Frames that are tracked before each range but the first, and do not count.

    Raises
    ------
    SettingsError
        If `length` is not positive.
    """
    if length < 1:
        raise SettingsError(f"A range has {length} frames; give at least 1.")
    if count <= length:
        return [job]
    folder = _folder(job)
    return [
        replace(
            job,
            name=f"{job.name}@{first}",
            store=str(folder / f"{first:09}.zarr"),
            part=Part(first, min(count, first + length), warm_up if first else 0),
        )
        for first in range(0, count, length)
    ]


def range_key(job: Job, length: int, warm_up: int) -> str:
    """Return what `job_key` gives for a job that is cut into ranges; empty if it cannot be read."""
    try:
        return job_key(replace(job, part=Part(0, length, warm_up)))
    except OSError:
        return ""


def merge(job: Job, parts: Sequence[Job]) -> None:
    """Put the finished ranges of a job together in its store, and remove theirs; nothing if it is done.

    Raises
    ------
    StoreError
        If a range is missing or not finished, or the store belongs to another run. The ranges are kept then.
    """
    done = [part.part for part in parts if part.part is not None]
    for part in parts:
        require_own_range(part)
    if not any(Path(part.store).exists() for part in parts):
        return
    with LabelStore.open(parts[0].store, mode="r") as first:
        identity = _identity(first.identity, done)
        details = {**first.details, "ranges": [[part.first, part.last, part.warm_up] for part in done]}
        details["frames"] = {"range": [0, first.shape[0], 1]}
        shape, names = first.shape, first.names
    with _opened(job, shape, names, identity, details) as store:
        for part in parts:
            _copy(part, store)
    for part in parts:
        _remove(Path(part.store))
    with suppress(OSError):  # what others put there stays
        _folder(job).rmdir()


def require_own_range(part: Job) -> None:
    """Raise `StoreError` if a range's store or the folder of all ranges is a link or a file."""
    store = Path(part.store)
    with os_errors_as_store_errors("use", store):
        require_ordinary(store.parent, "folder")
        require_ordinary(store, "folder")


def _remove(store: Path) -> None:
    lock = StoreLock(absolute_path(store.parent) / store.name)  # nobody else may still write it
    try:
        lock.remove()
    finally:
        lock.release()


def _copy(job: Job, store: LabelStore) -> None:
    assert job.part is not None
    with LabelStore.open(job.store, mode="r") as part:
        frames = range(job.part.first, job.part.last)
        if part.missing(frames):
            raise StoreError(f"The range {job.store} is not finished; run the batch again.")
        scores = part.scores
        for index in store.missing(frames):
            store.write(FrameResult(index, part.frame(index).astype("uint16"), scores[index]))


def _opened(
    job: Job,
    shape: tuple[int, int, int],
    names: dict[int, str],
    identity: RunIdentity,
    details: dict[str, object],
) -> LabelStore:
    if Path(job.store).exists():
        return LabelStore.open(job.store, identity=identity)
    return LabelStore.create(job.store, shape=shape, labels=names, identity=identity, details=details)


def _identity(one: RunIdentity, parts: Sequence[Part]) -> RunIdentity:
    """Return the identity of the whole: no uncut run has it."""
    ranges = [[part.first, part.last, part.warm_up] for part in parts]
    settings = json.dumps(json.loads(one.settings) | {"ranges": ranges}, sort_keys=True)
    return replace(one, settings=settings)


def _folder(job: Job) -> Path:
    return Path(f"{job.store}.ranges")
