"""What travels to a worker and comes back: paths, settings and numbers. No torch."""

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

__all__ = ["Event", "Job", "JobResult", "Progress", "job_key"]

Status = Literal["done", "failed", "stopped", "skipped"]


@dataclass(frozen=True, slots=True)
class Job:
    """One prior on one video.

    Parameters
    ----------
    name : str
        Unique in its batch.
    prior, video, store : str
        Absolute paths; the store is made by the job.
    model : str
        A model's name, or the path of a weights file.
    device, dtype : str
        As `load_model` takes them.
    settings : TrackSettings
    first, last : int or None
        Ends of a slice of the video's frames.
    images : tuple of str
        The recorded images, for a prior that another model made.
    recordings : int or None
        How many recordings of each label are used, the first ones; None for all.
    threads : int or None
        Of torch on a CPU; None leaves them as they are.
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
class Progress:
    """A running job has `done` of `total` frames on disk; `worker` is where, as host:pid."""

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
    frames : int
        Of the job, of which `tracked` were tracked now and the others before.
    seconds : float
        Tracking alone, without loading.
    identity : RunIdentity or None
        The hashes of what ran.
    error : str
        One sentence, if it failed.
    worker : str
        host:pid; empty if it never began.
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


Event = Progress | JobResult


def job_key(job: Job) -> str:
    """Return a hash that changes with anything that would change a job's labels; quick for long videos.

    Raises
    ------
    OSError
        If the prior or the video cannot be read.
    """
    what = asdict(replace(job, name="", store="", device="", threads=None, model=redacted_url(job.model)))
    del what["graphs"]  # as the device: rounding
    for name in ("prior", "video", "model"):
        what[name] = _digest(Path(what[name]))
    del what["images"]
    # keys of version 0.1 have this name, and two fields that jobs no longer have
    what |= {"pictures": [_digest(Path(image)) for image in job.images], "repeat": 1, "part": None}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    if path.is_dir():
        entries = sorted((e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in path.iterdir())
        return hashlib.sha256(repr(entries).encode()).hexdigest()
    return content_digest(path) if path.exists() else str(path)  # a model's name, or VIDEO@FRAME
