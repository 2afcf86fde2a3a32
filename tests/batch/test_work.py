"""Jobs in this process: equal to plain tracking, stopped, resumed, and failed."""

from dataclasses import replace

import numpy as np

from napari_samexp.batch.jobs import JobProgress, JobResult
from napari_samexp.batch.manifest import Manifest
from napari_samexp.batch.run import InProcess, run_jobs
from napari_samexp.batch.work import run_job
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.video import open_video
from napari_samexp.sam.weights.loading import load_model
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings
from tests.tiny_files import labels_of


def tracked(job, frames=None, model=None, prior=None):
    """Return what plain tracking gives."""
    model = model or load_model(job.model, device="cpu")
    prior = prior or PriorMemory.load(job.prior)
    with open_video(job.video) as video:
        return np.stack([result.labels for result in Tracker(model, prior, job.settings).run(video, frames)])


def test_a_job_gives_what_plain_tracking_gives(job):
    *progress, result = run_job(job)
    assert isinstance(result, JobResult) and (result.status, result.frames, result.tracked) == ("done", 8, 8)
    assert [(p.done, p.total) for p in progress] == [(n, 8) for n in range(9)]
    labels, done = labels_of(job.store)
    assert done.all() and (labels == tracked(job)).all()
    with LabelStore.open(job.store, mode="r") as store:
        assert store.identity == result.identity
        assert store.details["video_path"] == job.video and store.details["frames"] == {"range": [0, 8, 1]}


def test_a_stopped_job_goes_on_where_it_was(job):
    seen = []
    *_, result = run_job(job, lambda: len(seen) >= 2 or seen.append(1))
    assert result.status == "stopped" and 0 < result.tracked < 8
    *_, again = run_job(job)
    assert (again.status, again.tracked) == ("done", 8 - result.tracked)
    assert (labels_of(job.store)[0] == tracked(job)).all()
    *_, third = run_job(job)
    assert (third.status, third.tracked) == ("done", 0)


def test_a_fault_is_a_result_with_a_sentence(job, place, monkeypatch):
    (place / "bad.mp4").write_text("no video")
    (result,) = run_job(replace(job, video=str(place / "bad.mp4")))
    assert result.status == "failed" and "bad.mp4" in result.error and result.worker
    *_, other = run_job(replace(job, model=str(place / "other.safetensors")))
    assert other.status == "failed" and "recorded with" in other.error
    *_, none = run_job(replace(job, first=20))
    assert none.status == "failed" and "No frame" in none.error

    def broken(self, frame, index):
        raise RuntimeError("this\nis odd")

    monkeypatch.setattr(Tracker, "step", broken)
    assert list(run_job(job))[-1].error == "RuntimeError: this is odd"


def test_another_model_with_the_recorded_image(job, place):
    other = replace(job, model=str(place / "other.safetensors"), images=(str(place / "cat.png"),))
    *_, result = run_job(other)
    assert result.status == "done" and result.identity.model.startswith("tiny-random")
    *_, first = run_job(replace(job, store=str(place / "second.zarr")))
    assert first.identity.model != result.identity.model


def test_fewer_recordings(job, place):
    *_, result = run_job(replace(job, recordings=1))
    first = PriorMemory.load(job.prior).without(1)
    assert result.identity.prior == first.fingerprint
    assert (labels_of(job.store)[0] == tracked(job, prior=first)).all()


# ---- all jobs


def test_what_is_done_is_skipped_and_what_failed_is_tried_again(job, place):
    (place / "bad.mp4").write_text("no video")
    jobs = [job, replace(job, name="bad", video=str(place / "bad.mp4"), store=str(place / "out/bad.zarr"))]
    manifest = Manifest(place / "m.jsonl")
    ends = [e for e in run_jobs(jobs, InProcess(), manifest, retries=2) if isinstance(e, JobResult)]
    assert [(e.job, e.status) for e in ends] == [("cat/a", "done"), *[("bad", "failed")] * 3]
    (place / "bad.mp4").write_bytes((place / "b.mp4").read_bytes())
    ends = [e for e in run_jobs(jobs, InProcess(), Manifest(manifest.path)) if isinstance(e, JobResult)]
    assert [(e.job, e.status) for e in ends] == [("cat/a", "skipped"), ("bad", "done")]


def test_a_stop_begins_no_other_job(job, place):
    jobs = [job, replace(job, name="second", store=str(place / "out/second.zarr"))]
    asked = []
    events = run_jobs(jobs, InProcess(), Manifest(place / "m.jsonl"), stop=lambda: bool(asked))
    results = []
    for event in events:
        if isinstance(event, JobProgress) and event.done == 3:
            asked.append(True)
        elif isinstance(event, JobResult):
            results.append((event.job, event.status))
    assert results == [("cat/a", "stopped")]
    assert Manifest(place / "m.jsonl").last["cat/a"]["status"] == "stopped"


def test_settings_travel_as_they_are(job):
    settings = TrackSettings(recent=1, keep_lost=True)
    *_, result = run_job(replace(job, settings=settings))
    assert '"recent": 1' in result.identity.settings
