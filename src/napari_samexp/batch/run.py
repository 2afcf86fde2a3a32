"""Run the jobs of a batch: skip what is done, retry what failed, and keep a manifest."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from napari_samexp.batch.jobs import Event, Job, JobResult, job_key
from napari_samexp.batch.manifest import Manifest

__all__ = ["InProcess", "Runner", "run_jobs"]

Stop = Callable[[], bool]


class Runner(Protocol):
    """What runs jobs; a context manager, so that its processes end with it."""

    def run(self, jobs: Sequence[Job], stop: Stop) -> Iterator[Event]:
        """Yield progress, and the result of each job that began, until all end or `stop` returns True."""


class InProcess:
    """Runs jobs one after another in this process."""

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

    A job is skipped if the manifest lists it as done with the same inputs, and its labels exist. A job that fails is
    retried after all others. The manifest has each result before it is yielded.

    Parameters
    ----------
    jobs : sequence of Job
    runner : Runner
        An `InProcess` or a `DaskPool` that was entered.
    retries : int
        How often a failed job is retried.
    stop : callable
        Called often; once it returns True, no job begins, and running jobs end after their frame.

    Yields
    ------
    JobProgress or JobResult
        A result for each job and try; none for a job that had not begun when it was stopped.
    """
    keyed = {job.name: (job, _key(job)) for job in jobs}
    todo = []
    for job, key in keyed.values():
        if manifest.is_done(job, key):
            yield JobResult(job.name, "skipped", manifest.last[job.name]["frames"])
        else:
            todo.append(job)
    while todo and retries >= 0 and not stop():
        todo, retries = (yield from _tried(todo, keyed, runner, manifest, stop)), retries - 1


def _tried(
    jobs: Sequence[Job], keyed: Mapping[str, tuple[Job, str]], runner: Runner, manifest: Manifest, stop: Stop
) -> Generator[Event, None, list[Job]]:
    """Run jobs once, yield what happens, and return those that failed."""
    failed = []
    for event in runner.run(jobs, stop):
        if isinstance(event, JobResult):
            job, key = keyed[event.job]
            manifest.add(job, event, key)
            if event.status == "failed":
                failed.append(job)
        yield event
    return failed


def _key(job: Job) -> str:
    try:
        return job_key(job)
    except OSError:  # the job itself reports what is wrong
        return ""
