"""What is sent to a worker and comes back: paths, settings and numbers. No torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from napari_samexp._urls import redacted, redacted_url
from napari_samexp.io._paths import content_digest
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.types import RunIdentity

__all__ = ["Event", "Job", "JobResult", "JobProgress", "job_key"]

Status = Literal["done", "failed", "stopped", "skipped"]


@dataclass(frozen=True, slots=True)
class Job:
    """One prior on one video.

    Parameters
    ----------
    name : str
        Unique in its batch.
    prior, video, store : str
        Absolute paths; the job creates the store.
    model : str
        A model's name, or the path of a weights file.
    device, dtype : str
        As `load_model` takes them.
    settings : TrackSettings
    first, last : int or None
        Start and stop of a slice of the video's frames.
    images : tuple of str
        The recorded images, if another model made the prior.
    recordings : int or None
        Use only the first recordings of each label; None uses all.
    threads : int or None
        Threads of torch on a CPU; None leaves them as they are.
    graphs : bool
        As `load_model` takes it.
    """

    name: str
    prior: str
    video: str
    store: str
    model: str
    device: str = "auto"
    dtype: str = "auto"
    settings: TrackSettings = field(default_factory=TrackSettings)
    first: int | None = None
    last: int | None = None
    images: tuple[str, ...] = ()
    recordings: int | None = None
    threads: int | None = None
    graphs: bool = False

    def frames(self, count: int) -> range:
        """Return the frames to track of a video of `count` frames, in the order of tracking."""
        forward = range(count)[self.first : self.last]
        return forward if self.settings.direction == "forward" else forward[::-1]


@dataclass(frozen=True, slots=True)
class JobProgress:
    """A running job has `done` of `total` frames on disk; `worker` is its process, as host:pid."""

    job: str
    done: int
    total: int
    worker: str = ""


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended.

    Parameters
    ----------
    job : str
    status : {"done", "failed", "stopped", "skipped"}
    frames, tracked : int
        The job's frames, and those of them that this run has tracked.
    seconds : float
        Time of tracking, without loading.
    identity : RunIdentity or None
        The hashes of what ran.
    error : str
        One sentence if the job failed.
    worker : str
        host:pid; empty if the job never began.
    """

    job: str
    status: Status
    frames: int = 0
    tracked: int = 0
    seconds: float = 0.0
    identity: RunIdentity | None = None
    error: str = ""
    worker: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", redacted(self.error))


Event = JobProgress | JobResult


def job_key(job: Job) -> str:
    """Return a hash of everything that a job's labels depend on; fast also for long videos.

    Raises
    ------
    OSError
        If the prior or the video cannot be read.
    """
    inputs = asdict(replace(job, name="", store="", device="", threads=None, model=redacted_url(job.model)))
    del inputs["graphs"]  # like the device, it changes rounding alone
    for name in ("prior", "video", "model"):
        inputs[name] = _digest(Path(inputs[name]))
    del inputs["images"]
    # as in keys of version 0.1: an older name, and two fields that jobs no longer have
    inputs |= {"pictures": [_digest(Path(image)) for image in job.images], "repeat": 1, "part": None}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    if path.is_dir():
        entries = sorted((e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in path.iterdir())
        return hashlib.sha256(repr(entries).encode()).hexdigest()
    return content_digest(path) if path.exists() else str(path)  # a model's name, or VIDEO@FRAME
