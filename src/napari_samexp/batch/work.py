"""One job, in whatever process it runs: load once, go on where the store ends, track."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from os import getpid
from pathlib import Path
from typing import Any

import torch

from napari_samexp.batch.jobs import Event, Job, JobResult, Progress
from napari_samexp.errors import NO_MEMORY, SamexpError, is_out_of_memory
from napari_samexp.io.video import open_video, read_frame
from napari_samexp.sam.models import Sam1, Sam2
from napari_samexp.sam.weights.loading import load_model
from napari_samexp.tracking.prior import PriorMemory
from napari_samexp.tracking.recording import image_hash
from napari_samexp.tracking.run import Run, open_store
from napari_samexp.tracking.tracker import Tracker

__all__ = ["run_job", "used_prior"]

CACHE_BYTES = 2**26  # frames are read once and in order
BACKWARD_CACHE_BYTES = 2**28  # the other way round, a group of images has to be kept

_model: dict[tuple[str, str, str, bool], Sam2] = {}  # one, the last
_prior: dict[tuple[Any, ...], PriorMemory] = {}


def run_job(job: Job, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Track one prior through one video into its store, and yield how it goes.

    Yields
    ------
    Progress or JobResult
        The result once, as the last: "failed" with its sentence if anything goes wrong, "stopped" if `stop`
        said so between two frames. What is on disk then, a later run of the job goes on from.
    """
    try:
        yield from _tracked(job, stop)
    except SamexpError as error:
        yield _failed(job, str(error))
    except Exception as error:  # one bad video must not end the other thousand
        if is_out_of_memory(error):
            yield _failed(job, NO_MEMORY)
            return
        yield _failed(job, f"{type(error).__name__}: {' '.join(str(error).split())}")


def used_prior(job: Job, model: Sam2) -> PriorMemory:
    """Return the prior of a job for its model: encoded again, and cut to some recordings, if it says so."""
    prior = _limited(PriorMemory.load(job.prior), job.recordings)
    if prior.recordings[0].weights == model.weights_sha256 or not job.images:
        return prior
    images = {image_hash(image): image for image in map(read_frame, job.images)}
    return prior.encoded_again(model, images)


def _tracked(job: Job, stop: Callable[[], bool]) -> Iterator[Event]:
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    model = _loaded(job)
    prior = _recalled(job, model)
    kept = BACKWARD_CACHE_BYTES if job.settings.direction == "backward" else CACHE_BYTES
    with open_video(job.video, cache_bytes=kept) as video:
        frames = job.frames(len(video))
        if not frames:
            raise SamexpError(f"No frame of {job.video} is to be tracked; it has {len(video)}.")
        tracker = Tracker(model, prior, job.settings)
        Path(job.store).parent.mkdir(parents=True, exist_ok=True)
        # for a session that reopens the store
        details = {"video_path": job.video, "frames": {"range": [frames.start, frames.stop, frames.step]}}
        with open_store(job.store, model, prior, job.settings, video, resume=True, details=details) as store:
            run = Run(store, tracker, video, frames)
            total, before, began = len(frames), len(frames) - len(run.todo), time.monotonic()
            yield Progress(job.name, before, total, _worker())
            tracked = 0
            for tracked, _ in enumerate(run, start=1):
                yield Progress(job.name, before + tracked, total, _worker())
                if before + tracked < total and stop():
                    break
            yield JobResult(
                job.name,
                "done" if before + tracked >= total else "stopped",
                total,
                tracked,
                time.monotonic() - began,
                store.identity,
                worker=_worker(),
            )


def _loaded(job: Job) -> Sam2:
    key = (job.model, job.device, job.dtype, job.graphs)
    if key not in _model:
        _model.clear()  # two large models may not fit
        _prior.clear()
        model = load_model(job.model, device=job.device, dtype=job.dtype, graphs=job.graphs)
        if isinstance(model, Sam1):
            model.remember()  # says that it cannot
            raise AssertionError
        _model[key] = model
    return _model[key]


def _recalled(job: Job, model: Sam2) -> PriorMemory:
    path = Path(job.prior)
    changed = path.stat().st_mtime_ns if path.exists() else 0
    key = (job.prior, changed, job.images, job.recordings, id(model))
    if key not in _prior:
        _prior.clear()
        _prior[key] = used_prior(job, model)
    return _prior[key]


def _limited(prior: PriorMemory, count: int | None) -> PriorMemory:
    """Return a prior with the first `count` recordings of each label that are switched on."""
    if count is None:
        return prior
    seen: dict[int, int] = {}
    recordings = []
    for recording in prior.recordings:
        seen[recording.label] = seen.get(recording.label, 0) + recording.enabled
        recordings.append(replace(recording, enabled=recording.enabled and seen[recording.label] <= count))
    return PriorMemory(tuple(recordings), prior.memories)


def _failed(job: Job, sentence: str) -> JobResult:
    return JobResult(job.name, "failed", error=sentence, worker=_worker())


def _worker() -> str:
    return f"{socket.gethostname()}:{getpid()}"
