"""Many priors on many videos: jobs, what runs them, and the manifest of what ran.

A job tracks one prior through one video into one label store. Workers get it as a small dataclass of paths and
settings; `run_jobs` runs jobs in this process or on Dask, and yields their progress and results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_samexp._lazy import lazy_names

if TYPE_CHECKING:
    from napari_samexp.batch.jobs import Job, JobProgress, JobResult
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
    "JobProgress",
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
        "JobProgress": "jobs",
        "expand": "plan",
        "plan_jobs": "plan",
        "run_jobs": "run",
    },
)
