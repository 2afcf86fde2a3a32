"""All jobs of a batch: skip what is done, run the rest, try again what failed, and keep a manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from napari_samexp.batch.jobs import Event, Job, JobResult, job_key
from napari_samexp.batch.manifest import Manifest

__all__ = ["Here", "Runner", "run_jobs"]

Stop = Callable[[], bool]


class Runner(Protocol):
    """Where jobs run; a context manager, so that its processes end with it."""

    def run(self, jobs: Sequence[Job], stop: Stop) -> Iterator[Event]:
        """Yield progress, and the result of each job that began, until all ended or `stop` says so."""


class Here:
    """Jobs one after another in this process."""

    def run(self, jobs: Sequence[Job], stop: Stop) -> Iterator[Event]:
        """Yield progress and results, see `Runner`."""
        from napari_samexp.batch.work import run_job

        for job in jobs:
            if stop():
                return
            yield from run_job(job, stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


def run_jobs(
    jobs: Sequence[Job],
    runner: Runner,
    manifest: Manifest,
    *,
    retries: int = 1,
    stop: Stop = lambda: False,
) -> Iterator[Event]:
    """Run jobs and yield what happens.

    A job that the manifest has as done, with all the same inputs, and whose labels are there, is skipped. One
    that fails is tried again after all others. Each end is in the manifest before it is yielded.

    Parameters
    ----------
    jobs : sequence of Job
    runner : Runner
        `Here`, or a `DaskPool`; entered already.
    retries : int
        How often a failed job is tried again.
    stop : callable
        Asked often; once true, no job begins and those that run end after their frame.

    Yields
    ------
    Progress or JobResult
        A result a job and try; of a job that had not begun when it was stopped, none.
    """
    keys = {job.name: _key(job) for job in jobs}
    by_name = {job.name: job for job in jobs}
    todo = []
    for job in jobs:
        if manifest.is_done(job, keys[job.name]):
            yield JobResult(job.name, "skipped", manifest.last[job.name]["frames"])
        else:
            todo.append(job)
    for _ in range(retries + 1):
        failed = []
        for event in runner.run(todo, stop) if todo else ():
            if isinstance(event, JobResult):
                manifest.add(by_name[event.job], event, keys[event.job])
                if event.status == "failed":
                    failed.append(by_name[event.job])
            yield event
        if stop() or not failed:
            return
        todo = failed


def _key(job: Job) -> str:
    try:
        return job_key(job)
    except OSError:  # the job itself will say what is wrong
        return ""
