"""Run jobs on Dask: on a cluster of this machine's own, or on a running one."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from napari_samexp._children import starting_python
from napari_samexp.batch.jobs import Event, Job, JobProgress, JobResult
from napari_samexp.errors import SettingsError

__all__ = ["DaskPool", "default_workers"]

TOPIC = "napari-samexp"
REPORT_EVERY = 0.5  # seconds between two reports of a worker
POLL = 0.2
CONNECT_WITHIN = 20.0
THREADS_PER_WORKER = 2  # on a CPU; more make one frame little faster

_one_job = threading.Lock()  # jobs in several threads of a worker would compete for its cores
_stopped = threading.Event()  # in a worker's process


def default_workers() -> int:
    """Return how many workers suit this machine: one per GPU, or one per two CPU cores."""
    return _gpus() or max(1, _cores() // THREADS_PER_WORKER)


class DaskPool:
    """Workers that run jobs, each in a process of its own; a context manager.

    If a worker dies, its job resumes from its store on the next free worker. After three deaths the job fails.

    Parameters
    ----------
    workers : int, optional
        Processes on this machine, by default `default_workers`. GPUs are dealt out in turn; on a CPU each
        worker gets an equal share of the cores. They communicate over TLS with a key that exists only in the
        memory of this batch, and have no dashboard.
    scheduler : str, optional
        The address of a running cluster (``tcp://host:8786``) whose workers see the same files; it is left
        running. Whoever can reach it can run code as its workers and as this process.

    Raises
    ------
    SettingsError
        If Dask or a package that its TLS needs is not installed, or there is no scheduler.
    """

    def __init__(self, workers: int | None = None, scheduler: str | None = None) -> None:
        if not (find_spec("dask") and find_spec("distributed")):
            raise SettingsError(
                "Dask, which runs jobs on several workers, is not installed; pip install 'napari-samexp[batch]'."
            )
        if scheduler is None and not find_spec("cryptography"):
            raise SettingsError(
                "The package cryptography is not installed, without which other users of this machine could use the "
                "workers; pip install 'napari-samexp[batch]'."
            )
        self.workers = workers or default_workers()
        self.scheduler = scheduler
        self._cluster: Any = None
        self._client: Any = None
        self._folder: TemporaryDirectory[str] | None = None
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        from distributed import Client

        connect: Any = Client  # has no types
        try:
            if self.scheduler is None:
                self._cluster = self._own_cluster()
                self._client = connect(self._cluster)
                self._client.register_plugin(_ignore_ctrl_c())
            else:
                self._client = connect(self.scheduler, timeout=CONNECT_WITHIN)
            self._client.subscribe_topic(TOPIC, self._receive)
        except (OSError, ValueError, TypeError) as error:  # a TypeError if TLS has no keys
            self.__exit__(None, None, None)
            raise SettingsError(
                f"There is no Dask scheduler at {self.scheduler} ({error}); give its address, such as tcp://host:8786."
            ) from error
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part in (self._client, self._cluster):
            if part is not None:
                part.close()
        if self._folder is not None:
            sys.path[:] = [entry for entry in sys.path if not str(entry).startswith(self._folder.name)]
            self._folder.cleanup()
        self._client = self._cluster = self._folder = None

    def run(self, jobs: Sequence[Job], stop: Callable[[], bool]) -> Iterator[Event]:
        """Yield progress and results as they come, see `Runner`; after a stop, until the running jobs have ended."""
        self._client.run(_resume_work)
        batch, waiting = uuid.uuid4().hex, {}
        for job in jobs:
            shared = replace(job, threads=job.threads or self._threads())
            future = self._client.submit(_work, shared, key=f"samexp-{batch}-{job.name}", pure=False)
            waiting[future.key] = (future, job.name)
            future.add_done_callback(self._events.put)
        stopping = False
        try:
            while waiting:
                if stop() and not stopping:
                    stopping = True
                    self._stop([future for future, _ in waiting.values()])
                try:
                    event = self._events.get(timeout=POLL)
                except queue.Empty:
                    continue
                if isinstance(event, JobProgress):
                    yield event
                elif event.key in waiting:
                    _, name = waiting.pop(event.key)
                    result = _result(event, name)
                    if result is not None:
                        yield result
        finally:
            for future, _ in waiting.values():
                future.cancel()

    def _stop(self, futures: Sequence[Any]) -> None:
        """Cancel jobs that have not begun, and let running ones end after their frame."""
        running = {key for keys in self._client.processing().values() for key in keys}
        self._client.run(_stop_work)
        # A worker may hold a second job, which it begins after the one that is stopped; that job sees the flag
        # before its first frame and ends by itself.
        self._client.cancel([future for future in futures if future.key not in running])

    def _receive(self, event: Any) -> None:
        _, message = event
        if isinstance(message, dict) and "progress" in message:
            self._events.put(JobProgress(**message["progress"]))

    def _threads(self) -> int | None:
        """Return how many cores each local worker has; None for the workers of a running cluster."""
        return None if self.scheduler else max(1, _cores() // self.workers)

    def _own_cluster(self) -> Any:
        import dask
        from distributed import LocalCluster, Security

        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # it logs every death at length
        # Dask's own environment returns freed memory at once, which costs a fifth of a small model's time
        environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), 1)
        # Dask imports from its working folders first; the default one is shared by all users of the machine
        self._folder = TemporaryDirectory(prefix="napari-samexp-", ignore_cleanup_errors=True)
        config = {
            "temporary-directory": self._folder.name,
            "distributed.nanny.pre-spawn-environ": environment,
            "distributed.comm.timeouts.connect": "60s",
            # Dask's web servers have no password, so they serve nothing
            "distributed.scheduler.http.routes": [],
            "distributed.worker.http.routes": [],
        }
        with dask.config.set(config):
            return LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=self.workers,
                threads_per_worker=1,
                worker_class=_nanny(),
                security=Security.temporary(),  # type: ignore[no-untyped-call]
                dashboard_address="127.0.0.1:0",  # any free port: several batches may run on a machine
                scheduler_kwargs={"dashboard": False},
                memory_limit=0,  # models exceed the default limit, and a paused worker would not free memory
                silence_logs=logging.CRITICAL,
            )


def _work(job: Job) -> JobResult:
    """Run a job in a worker's process, and report its progress twice a second."""
    from distributed import get_worker

    from napari_samexp.batch.work import run_job

    worker = get_worker()
    reported = 0.0
    with _one_job:
        if _stopped.is_set():
            return JobResult(job.name, "stopped")
        for event in run_job(replace(job, device=_device(job.device, worker.name)), _stopped.is_set):
            if isinstance(event, JobResult):
                return event
            now = time.monotonic()
            if now - reported >= REPORT_EVERY:
                reported = now
                worker.log_event(TOPIC, {"progress": asdict(event)})  # Dask adds to the dict
    raise AssertionError("a job ends with its result")


def _result(future: Any, name: str) -> JobResult | None:
    if future.status == "finished":
        result = future.result()
        return result if isinstance(result, JobResult) and not _never_began(result) else None
    if future.status == "cancelled":
        return None
    error = future.exception()
    reason = f"{type(error).__name__}: {error}"
    if type(error).__name__ == "KilledWorker":
        reason = "the workers that ran it died, perhaps of too little memory"
    return JobResult(name, "failed", error=" ".join(reason.split()))


def _never_began(result: JobResult) -> bool:
    return result.status == "stopped" and not result.worker


def _device(requested: str, worker: object) -> str:
    """Return the device of a worker: GPUs are dealt out in turn by the workers' numbers."""
    count = _gpus()
    if requested in ("auto", "cuda") and count > 1 and str(worker).isdecimal():
        return f"cuda:{int(str(worker)) % count}"
    return requested


def _stop_work() -> None:
    _stopped.set()


def _resume_work() -> None:
    _stopped.clear()


def _nanny() -> Any:
    """Return the class that starts a worker, and restarts it after its death."""
    from distributed import Nanny

    class SafelyStarting(Nanny):
        async def instantiate(self) -> Any:
            with starting_python:
                return await super().instantiate()

    return SafelyStarting


def _ignore_ctrl_c() -> Any:
    """Return a plugin for workers: a terminal sends Ctrl-C to them too, but this process ends them after their frame."""
    from distributed import WorkerPlugin

    class IgnoreCtrlC(WorkerPlugin):
        name = "napari-samexp-ignore-ctrl-c"

        def setup(self, worker: Any) -> None:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    return IgnoreCtrlC()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
