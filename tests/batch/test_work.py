"""Jobs in this process: equal to plain tracking, stopped, resumed, failed, cut and put together."""

from dataclasses import replace
from pathlib import Path

import hostile_archive
import numpy as np
import pytest

from napari_samexp.batch.jobs import JobResult, Progress
from napari_samexp.batch.manifest import Manifest
from napari_samexp.batch.ranges import merge, split_job
from napari_samexp.batch.repeated import RepeatedStart
from napari_samexp.batch.run import Here, run_jobs
from napari_samexp.batch.work import run_job
from napari_samexp.errors import SettingsError, StoreError
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.video import open_video
from napari_samexp.sam.weights.loading import load_model
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings


def labels_of(path):
    with LabelStore.open(path, mode="r") as store:
        return np.stack([store.frame(t) for t in range(store.shape[0])]), store.done


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


def test_the_first_frame_may_come_more_than_once(job):
    *_, result = run_job(replace(job, repeat=3, last=4))
    assert result.frames == 4  # the slice is taken from the longer video
    *_, result = run_job(replace(job, repeat=3))
    with open_video(job.video) as video:
        order = [video.frame(0)] * 2 + [video.frame(t) for t in range(8)]
    model = load_model(job.model, device="cpu")
    tracker = Tracker(model, PriorMemory.load(job.prior), job.settings)
    expected = np.stack([tracker.step(frame, t).labels for t, frame in enumerate(order)])
    assert (labels_of(job.store)[0] == expected).all()


def test_a_repeated_start_is_a_video():
    frames = np.arange(3 * 4 * 5 * 3, dtype=np.uint8).reshape(3, 4, 5, 3)

    class Video:
        shape, fps, fingerprint = frames.shape, 5.0, "f"

        def frame(self, index):
            return frames[index]

    video = RepeatedStart(Video(), 3)
    assert len(video) == 5 and video.shape == (5, 4, 5, 3) and video.fingerprint != "f"
    assert [int(video.frame(t)[0, 0, 0]) for t in range(5)] == [0, 0, 0, 60, 120]
    assert (video[-1] == frames[2]).all() and video.fps == 5.0
    with pytest.raises(SettingsError, match="0 times"):
        RepeatedStart(Video(), 0)


# ---- all jobs


def test_what_is_done_is_skipped_and_what_failed_is_tried_again(job, place):
    (place / "bad.mp4").write_text("no video")
    jobs = [job, replace(job, name="bad", video=str(place / "bad.mp4"), store=str(place / "out/bad.zarr"))]
    manifest = Manifest(place / "m.jsonl")
    ends = [e for e in run_jobs(jobs, Here(), manifest, retries=2) if isinstance(e, JobResult)]
    assert [(e.job, e.status) for e in ends] == [("cat/a", "done"), *[("bad", "failed")] * 3]
    (place / "bad.mp4").write_bytes((place / "b.mp4").read_bytes())
    ends = [e for e in run_jobs(jobs, Here(), Manifest(manifest.path)) if isinstance(e, JobResult)]
    assert [(e.job, e.status) for e in ends] == [("cat/a", "skipped"), ("bad", "done")]


def test_a_stop_begins_no_other_job(job, place):
    jobs = [job, replace(job, name="second", store=str(place / "out/second.zarr"))]
    asked = []
    events = run_jobs(jobs, Here(), Manifest(place / "m.jsonl"), stop=lambda: bool(asked))
    results = []
    for event in events:
        if isinstance(event, Progress) and event.done == 3:
            asked.append(True)
        elif isinstance(event, JobResult):
            results.append((event.job, event.status))
    assert results == [("cat/a", "stopped")]
    assert Manifest(place / "m.jsonl").last["cat/a"]["status"] == "stopped"


# ---- ranges


def test_ranges_cover_the_video(job):
    parts = split_job(job, 8, 3, 2)
    assert [(p.part.first, p.part.last, p.part.warm_up) for p in parts] == [(0, 3, 0), (3, 6, 2), (6, 8, 2)]
    assert len({p.store for p in parts} | {p.name for p in parts}) == 6
    assert split_job(job, 3, 3, 2) == [job]
    with pytest.raises(SettingsError, match="range"):
        split_job(job, 8, 0, 2)


def test_ranges_are_put_together(job):
    parts = split_job(job, 8, 3, 2)
    for part in parts:
        assert list(run_job(part))[-1].status == "done"
    merge(job, parts)
    labels, done = labels_of(job.store)
    expected = [tracked(job, range(3)), tracked(job, range(1, 6))[2:], tracked(job, range(4, 8))[2:]]
    assert done.all() and (labels == np.concatenate(expected)).all()
    assert not Path(parts[0].store).parent.exists()
    with LabelStore.open(job.store, mode="r") as store:
        assert store.details["ranges"] == [[0, 3, 0], [3, 6, 2], [6, 8, 2]] and len(store.scores) == 8
    merge(job, parts)  # again: nothing to do
    *_, uncut = run_job(job)
    assert uncut.status == "failed" and "other settings" in uncut.error


def test_an_unfinished_range_is_kept(job):
    parts = split_job(job, 8, 4, 1)
    list(run_job(parts[0]))
    list(run_job(replace(parts[1], part=replace(parts[1].part, last=6))))
    with pytest.raises(StoreError, match="not finished"):
        merge(job, parts)
    assert Path(parts[0].store).exists()
    list(run_job(parts[1]))
    merge(job, parts)
    assert labels_of(job.store)[1].all()


@pytest.mark.parametrize("name", ["", "/000000000.zarr", "/.000000000.zarr.samexp"])
def test_ranges_from_a_hostile_archive_are_left_alone(job, tmp_path, name):
    here = tmp_path / "here"
    job = replace(job, store=str(here / "run.zarr"))
    parts = split_job(job, 8, 4, 1)
    sent = [replace(part, store=part.store.replace("/here/", "/sent/")) for part in parts]
    for part in sent:
        assert list(run_job(part))[-1].status == "done"
    (tmp_path / "sent" / "run.zarr.ranges" / ".000000000.zarr.samexp" / "new").mkdir(parents=True)
    hostile_archive.write_thesis(here)
    hostile_archive.send(tmp_path / "sent", here, {f"run.zarr.ranges{name}": "thesis"})
    before = sorted(str(path) for path in here.rglob("*"))
    *_, result = run_job(replace(parts[0], part=replace(parts[0].part, last=8)))
    assert result.status == "failed" and "is a link and no ordinary folder" in result.error
    assert sorted(str(path) for path in here.rglob("*")) == before
    with pytest.raises(StoreError, match="is a link and no ordinary folder"):
        merge(job, parts)
    assert Path(f"{job.store}.ranges{name}").is_symlink()
    hostile_archive.require_untouched(here)


def test_what_others_keep_among_ranges_stays(job):
    parts = split_job(job, 8, 4, 1)
    for part in parts:
        list(run_job(part))
    folder = Path(parts[0].store).parent
    (folder / "notes.txt").write_text("mine")
    merge(job, parts)
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("notes.txt", "mine")]
    merge(job, parts)  # again: nothing to do
    for part in parts:
        list(run_job(part))
    (Path(parts[1].store) / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"also holds notes\.txt"):
        merge(job, parts)
    assert (Path(parts[1].store) / "notes.txt").read_text() == "mine"


def test_settings_travel_as_they_are(job):
    settings = TrackSettings(recent=1, keep_lost=True)
    *_, result = run_job(replace(job, settings=settings))
    assert '"recent": 1' in result.identity.settings
