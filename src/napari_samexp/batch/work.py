"""Run one job in this process: load the model once, resume where the store ends, track."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from os import getpid
from pathlib import Path
from typing import Any

import torch

from napari_samexp.batch.jobs import Event, Job, JobProgress, JobResult
from napari_samexp.errors import NO_MEMORY, SamexpError, is_out_of_memory, sam1_has_no_memory
from napari_samexp.io.video import open_video, read_frame
from napari_samexp.sam.sam1 import Sam1
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.sam.weights.loading import load_model
from napari_samexp.tracking.prior import PriorMemory
from napari_samexp.tracking.recording import image_hash
from napari_samexp.tracking.run import Run, open_store
from napari_samexp.tracking.tracker import Tracker

__all__ = ["run_job", "used_prior"]

CACHE_BYTES = 2**26  # frames are read once and in order
BACKWARD_CACHE_BYTES = 2**28  # a whole GOP is kept

_model: dict[tuple[str, str, str, bool], Sam2] = {}  # only the last one
_prior: dict[tuple[Any, ...], PriorMemory] = {}


def run_job(job: Job, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Track one prior through one video into its store, and yield progress and the result.

    Yields
    ------
    JobProgress or JobResult
        The result comes last: "failed" with a sentence if anything goes wrong, "stopped" if `stop` returned
        True between two frames. A later run of the job resumes from what is on disk.
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
    """Return a job's prior for a model: encoded again if another model made it, with the job's recordings only."""
    prior = _limited(PriorMemory.load(job.prior), job.recordings)
    if prior.recordings[0].weights == model.weights_sha256 or not job.images:
        return prior
    images = {image_hash(image): image for image in map(read_frame, job.images)}
    return prior.encoded_again(model, images)


def _tracked(job: Job, stop: Callable[[], bool]) -> Iterator[Event]:
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    model = _cached_model(job)
    prior = _cached_prior(job, model)
    cache_bytes = BACKWARD_CACHE_BYTES if job.settings.direction == "backward" else CACHE_BYTES
    with open_video(job.video, cache_bytes=cache_bytes) as video:
        frames = job.frames(len(video))
        if not frames:
            raise SamexpError(f"No frame of {job.video} is to be tracked; it has {len(video)}.")
        tracker = Tracker(model, prior, job.settings)
        Path(job.store).parent.mkdir(parents=True, exist_ok=True)
        # for a napari session that opens the store
        details = {"video_path": job.video, "frames": {"range": [frames.start, frames.stop, frames.step]}}
        with open_store(job.store, model, prior, job.settings, video, resume=True, details=details) as store:
            run = Run(store, tracker, video, frames)
            total, before, began = len(frames), len(frames) - len(run.todo), time.monotonic()
            yield JobProgress(job.name, before, total, _worker())
            tracked = 0
            for tracked, _ in enumerate(run, start=1):
                yield JobProgress(job.name, before + tracked, total, _worker())
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


def _cached_model(job: Job) -> Sam2:
    key = (job.model, job.device, job.dtype, job.graphs)
    if key not in _model:
        _model.clear()  # two large models may not fit
        _prior.clear()
        model = load_model(job.model, device=job.device, dtype=job.dtype, graphs=job.graphs)
        if isinstance(model, Sam1):
            raise sam1_has_no_memory(model.variant.name)
        _model[key] = model
    return _model[key]


def _cached_prior(job: Job, model: Sam2) -> PriorMemory:
    path = Path(job.prior)
    modified = path.stat().st_mtime_ns if path.exists() else 0
    key = (job.prior, modified, job.images, job.recordings, id(model))
    if key not in _prior:
        _prior.clear()
        _prior[key] = used_prior(job, model)
    return _prior[key]


def _limited(prior: PriorMemory, count: int | None) -> PriorMemory:
    """Return a prior in which only the first `count` enabled recordings of each label stay enabled."""
    if count is None:
        return prior
    counts: dict[int, int] = {}
    recordings = []
    for recording in prior.recordings:
        counts[recording.label] = counts.get(recording.label, 0) + recording.enabled
        recordings.append(replace(recording, enabled=recording.enabled and counts[recording.label] <= count))
    return PriorMemory(tuple(recordings), prior.memories)


def _failed(job: Job, sentence: str) -> JobResult:
    return JobResult(job.name, "failed", error=sentence, worker=_worker())


def _worker() -> str:
    return f"{socket.gethostname()}:{getpid()}"
