"""Jobs, their names and keys, what is varied, and the manifest."""

from dataclasses import replace
from pathlib import Path

import pytest

from napari_samexp.batch.jobs import Job, JobResult, job_key
from napari_samexp.batch.manifest import Manifest
from napari_samexp.batch.plan import expand, plan_jobs, short_names
from napari_samexp.batch.run import InProcess, run_jobs
from napari_samexp.batch.vary import parse_vary
from napari_samexp.errors import PriorError, SettingsError, StoreError, VideoError
from napari_samexp.tracking import TrackSettings
from tests import hostile_archive


def test_frames_are_a_slice_in_the_order_of_tracking(job):
    assert list(replace(job, first=2, last=5).frames(8)) == [2, 3, 4]
    assert list(replace(job, first=-2).frames(8)) == [6, 7]
    backward = replace(job, settings=TrackSettings(direction="backward"))
    assert list(backward.frames(3)) == [2, 1, 0]


def test_the_key_is_that_of_what_would_change_labels(job, place):
    key = job_key(job)
    same = replace(job, name="x", store="elsewhere", device="cuda", threads=3, graphs=True)
    assert job_key(same) == key
    (place / "copy.mp4").write_bytes((place / "a.mp4").read_bytes())
    assert job_key(replace(job, video=str(place / "copy.mp4"))) == key
    for other in (
        replace(job, video=str(place / "b.mp4")),
        replace(job, prior=str(place / "dog.safetensors")),
        replace(job, model=str(place / "other.safetensors")),
        replace(job, dtype="bfloat16"),
        replace(job, last=3),
        replace(job, recordings=1),
        replace(job, settings=TrackSettings(recent=1)),
    ):
        assert job_key(other) != key
    (place / "a.mp4").write_bytes((place / "b.mp4").read_bytes())
    assert job_key(job) != key


def test_a_folder_of_images_has_a_key_that_follows_its_files(job, place):
    (place / "many").mkdir()
    (place / "many" / "1.png").write_bytes((place / "cat.png").read_bytes())
    folder = replace(job, video=str(place / "many"))
    key = job_key(folder)
    (place / "many" / "2.png").write_bytes((place / "cat.png").read_bytes())
    assert job_key(folder) != key


def test_patterns(place):
    for name in ("clip10.mp4", "clip2.mp4", "deep/er/clip3.mp4", "odd[1].mp4"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    assert [path.name for path in expand(["clip*.mp4"])] == ["clip2.mp4", "clip10.mp4"]
    assert [path.name for path in expand(["**/clip3.mp4", "a.mp4", "a.mp4"])] == ["clip3.mp4", "a.mp4"]
    assert [path.name for path in expand(["odd[1].mp4"])] == ["odd[1].mp4"]
    assert all(path.is_absolute() for path in expand(["*.mp4"]))
    with pytest.raises(VideoError, match="names no file"):
        expand(["a.mp4", "none*.mp4"])
    with pytest.raises(PriorError, match="give a prior"):
        expand(["none"], PriorError, "a prior")


def test_names_are_unique_and_fit_for_folders(tmp_path):
    paths = [tmp_path / name for name in ("x/a.mp4", "y/a.mp4", "A.mov", "b c?.tif", "..mp4", "many.d")]
    (tmp_path / "many.d").mkdir()
    assert short_names(paths) == ["a", "a-2", "A-3", "b_c", "unnamed", "many"]


def test_a_job_for_each_row_and_video(job, place):
    rows = {"cat": job, "dog": replace(job, prior="dog")}
    jobs = plan_jobs(rows, [place / "a.mp4", place / "b.mp4"], place / "out")
    assert [made.name for made in jobs] == ["cat/a", "cat/b", "dog/a", "dog/b"]
    assert jobs[3].store == str(place / "out/labels/dog/b.zarr") and jobs[3].prior == "dog"
    assert len({made.store for made in jobs}) == 4


# ---- what is varied


@pytest.mark.parametrize(
    ("text", "values", "words"),
    [
        ("recent=0-6", (0, 1, 2, 3, 4, 5, 6), ["0", "1", "2", "3", "4", "5", "6"]),
        ("pointers=0,15", (0, 15), ["0", "15"]),
        ("prior-time=fixed,elapsed", ("fixed", "elapsed"), ["fixed", "elapsed"]),
        ("store_memories=on,off", (True, False), ["on", "off"]),
        ("recordings=1,2-4", (1, 2, 3, 4), ["1", "2", "3", "4"]),
    ],
)
def test_values_to_vary(text, values, words):
    made = parse_vary(text)
    assert (made.values, made.words) == (values, words)


def test_varied_jobs(job):
    assert [j.settings.recent for j in parse_vary("recent=0,3").jobs(job)] == [0, 3]
    assert [j.recordings for j in parse_vary("recordings=1,2").jobs(job)] == [1, 2]


@pytest.mark.parametrize("text", ["colour=1,2", "recent", "recent=", "recent=3", "recent=2,2", "=1,2"])
def test_bad_texts_to_vary(text):
    with pytest.raises(SettingsError, match="--vary"):
        parse_vary(text)


@pytest.mark.parametrize(
    "text", ["recent=0,7", "recordings=0,1", "recordings=1,65", "recordings=on,1", "prior_time=1,2"]
)
def test_values_out_of_range(job, text):
    with pytest.raises(SettingsError):
        parse_vary(text).jobs(job)


# ---- the manifest


def test_what_is_noted_is_found_again(job, place):
    manifest = Manifest(place / "out" / "m.jsonl")
    manifest.begin({"workers": 2})
    manifest.add(job, JobResult("cat/a", "failed", error="no"), "k")
    again = Manifest(manifest.path)
    assert again.last["cat/a"]["error"] == "no" and again.last["cat/a"]["store"] == "a.zarr"
    assert not again.is_done(job, "k")
    assert b'"run"' in manifest.path.read_bytes().splitlines()[0]


def test_done_means_the_same_job_with_its_labels(job, place):
    manifest = Manifest(place / "m.jsonl")
    results = list(run_jobs([job], InProcess(), manifest))
    assert results[-1].status == "done"
    key = job_key(job)
    assert manifest.is_done(job, key) and Manifest(manifest.path).is_done(job, key)
    assert not manifest.is_done(job, "another key")
    for frames in (float("inf"), 10**400, "all", None, [1]):
        odd = Manifest(manifest.path)
        odd.last[job.name] = {**odd.last[job.name], "frames": frames}
        assert not odd.is_done(job, key)
    Path(job.store).rename(place / "gone")
    assert not manifest.is_done(job, key)


def test_a_line_cut_short_is_passed_over_and_not_lengthened(job, place):
    path = place / "m.jsonl"
    Manifest(path).add(job, JobResult("one", "done"), "k")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"job": "tw')
    manifest = Manifest(path)
    assert list(manifest.last) == ["cat/a"]
    manifest.add(replace(job, name="three"), JobResult("three", "done"), "k")
    assert set(Manifest(path).last) == {"cat/a", "three"}
    assert path.read_bytes().startswith(whole)


def test_job_defaults_are_those_of_tracking():
    assert Job("", "", "", "", "").settings == TrackSettings()


@pytest.mark.parametrize("hard", [False, True])
def test_a_manifest_from_a_hostile_archive_is_not_written(tmp_path, hard):
    (tmp_path / "sent" / "out").mkdir(parents=True)
    here = tmp_path / "here"
    link = {"out/manifest.jsonl": "thesis/notes"}
    hostile_archive.write_thesis(here)
    hostile_archive.send(tmp_path / "sent", here, {} if hard else link, link if hard else {})
    with pytest.raises(StoreError, match="a hard link" if hard else "is a link"):
        Manifest(here / "out" / "manifest.jsonl").begin({})
    hostile_archive.require_untouched(here)
