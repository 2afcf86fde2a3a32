"""Many priors on many videos: jobs, where they run, and what is kept of them.

A job is one prior on one video and ends in one label store. Jobs travel to workers as small dataclasses of
paths; `run_jobs` runs them in this process or on Dask, and yields what happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_samexp._lazy import lazy_names

if TYPE_CHECKING:
    from napari_samexp.batch.jobs import Job, JobResult, Progress
    from napari_samexp.batch.manifest import Manifest
    from napari_samexp.batch.plan import expand, plan_jobs
    from napari_samexp.batch.pool import DaskPool
    from napari_samexp.batch.run import InProcess, run_jobs

__all__ = [
    "DaskPool",
    "InProcess",
    "Job",
    "JobResult",
    "Manifest",
    "Progress",
    "expand",
    "plan_jobs",
    "run_jobs",
]

__getattr__ = lazy_names(
    __name__,
    {
        "DaskPool": "pool",
        "InProcess": "run",
        "Job": "jobs",
        "JobResult": "jobs",
        "Manifest": "manifest",
        "Progress": "jobs",
        "expand": "plan",
        "plan_jobs": "plan",
        "run_jobs": "run",
    },
)
