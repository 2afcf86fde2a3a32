"""A manifest may come from others with the results: what it says counts only as far as the labels bear it out."""

import json

import pytest

from napari_samexp.batch.jobs import JobResult, job_key
from napari_samexp.batch.manifest import Manifest
from napari_samexp.batch.run import InProcess, run_jobs
from napari_samexp.batch.work import run_job

LIES = [-1, 0, 3, -(10**400), 7.5, "8", None, [8], {"8": 8}, float("nan"), float("-inf"), 8]


@pytest.mark.parametrize("frames", LIES, ids=lambda frames: str(frames)[:9])
def test_a_job_that_is_not_done_is_tracked_whatever_a_line_says(job, place, frames):
    seen = []
    *_, stopped = run_job(job, lambda: len(seen) >= 3 or seen.append(1))
    assert (stopped.status, stopped.frames) == ("stopped", 8)
    line = {"job": job.name, "status": "done", "key": job_key(job), "frames": frames}
    (place / "m.jsonl").write_text(json.dumps(line) + "\n")
    *_, result = run_jobs([job], InProcess(), Manifest(place / "m.jsonl"))
    assert isinstance(result, JobResult)
    assert (result.status, result.frames, result.tracked) == ("done", 8, 8 - stopped.tracked)


@pytest.mark.parametrize("frames", [-1, 10**400, "eight", True, None])
def test_a_job_that_is_done_is_not_told_with_numbers_of_others(job, place, frames):
    *_, done = run_job(job)
    line = {"job": job.name, "status": "done", "key": job_key(job), "frames": frames}
    (place / "m.jsonl").write_text(json.dumps(line) + "\n")
    *_, result = run_jobs([job], InProcess(), Manifest(place / "m.jsonl"))
    assert (done.status, result.status, result.frames, result.tracked) == ("done", "done", 8, 0)
