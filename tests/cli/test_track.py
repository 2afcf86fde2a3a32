"""``napari-samexp track``: what it prints and writes."""

import json
import re

import numpy as np
import pytest

from napari_samexp.cli.track import _expectation
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.video import open_video, read_frame
from napari_samexp.render.overlay import write_png
from napari_samexp.sam.variants import VARIANTS
from napari_samexp.sam.weights.catalogue import OFFICIAL, OfficialFile
from napari_samexp.sam.weights.hashes import sha256_of
from napari_samexp.sam.weights.loading import load_model
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings
from napari_samexp.tracking.forecast import Forecast, Work
from tests import hostile_archive
from tests.tiny_files import FRAMES, HEIGHT, RECORD, TRACK, WIDTH, content, labels_of


@pytest.fixture(scope="session")
def expected(originals):
    """The results of tracking the clip in Python."""
    model = load_model(originals / "tiny.safetensors", device="cpu")
    prior = PriorMemory.load(originals / "prior.safetensors")
    with open_video(originals / "clip.mp4") as video:
        return list(Tracker(model, prior, TrackSettings()).run(video))


def test_graphs_can_be_asked_for_and_change_nothing_on_a_cpu(shell, place, expected):
    assert shell(f"{TRACK} --graphs --json")[0] == 0
    labels, done = labels_of(place / "labels.zarr")
    assert done.all() and (labels == np.stack([result.labels for result in expected])).all()


def test_track_writes_what_python_gives(shell, place, expected):
    status, out, err = shell(f"{TRACK} --scores s.csv --overlay o.mp4 --json")
    facts = json.loads(out)
    assert (status, err) == (0, "")
    labels, done = labels_of(place / "labels.zarr")
    assert done.all() and (labels == np.stack([result.labels for result in expected])).all()
    assert facts["frames"] == facts["done"] == facts["tracked"] == FRAMES
    presence = np.mean([result.scores[1].presence for result in expected])
    assert facts["objects"]["1"] == {
        "name": "cat",
        "lost": sum(result.scores[1].lost for result in expected),
        "presence": pytest.approx(presence, abs=1e-3),
        "iou": pytest.approx(np.mean([result.scores[1].iou for result in expected]), abs=1e-3),
    }
    assert (facts["labels"], facts["scores"], facts["overlay"]) == ("labels.zarr", "s.csv", "o.mp4")
    assert (facts["model"], facts["device"], facts["dtype"]) == ("tiny-random", "cpu", "float32")
    rows = (place / "s.csv").read_text().splitlines()
    assert rows[0] == "frame,label,name,presence,iou,lost" and len(rows) == 1 + FRAMES
    assert rows[4].startswith("3,1,cat,")
    with open_video(place / "o.mp4") as overlay:
        assert overlay.shape == (FRAMES, HEIGHT, WIDTH, 3)
        assert overlay.fps == pytest.approx(10)


def test_track_as_text_says_what_was_found_and_where_it_is(shell):
    status, out, err = shell(f"{TRACK} --scores s.csv")
    assert (status, err) == (0, "")
    assert re.search(r"^10 frames tracked in \d+\.\d s, \S+ frames/s$", out, re.MULTILINE)
    assert re.search(r"^ +1 +0 +\d\.\d\d +0\.\d\d  cat$", out, re.MULTILINE)
    assert "labels   labels.zarr\nscores   s.csv\n" in out


@pytest.mark.parametrize(
    ("options", "done"),
    [
        ("--frames 2:5", {2, 3, 4}),
        ("--frames -3:", {7, 8, 9}),
        ("--frames :-8", {0, 1}),
        ("--frames 8:99", {8, 9}),
        ("--frames : --backward", set(range(FRAMES))),
        ("--frames 4:7 --backward", {4, 5, 6}),
    ],
)
def test_frames_are_those_of_a_python_slice(shell, place, options, done):
    status, out, _ = shell(f"{TRACK} {options} --overlay o.mp4 --json")
    assert status == 0
    assert set(np.flatnonzero(labels_of(place / "labels.zarr")[1])) == done
    assert json.loads(out)["done"] == len(done)
    with open_video(place / "o.mp4") as overlay:
        assert len(overlay) == len(done)


def test_track_says_early_what_it_will_take(shell, monkeypatch):
    assert " frames at 64" not in shell(TRACK)[2]  # it is soon over
    monkeypatch.setattr("napari_samexp.cli.track.SHORT_RUN_S", 0.0)
    status, out, err = shell(f"{TRACK} --overwrite --json")
    facts = json.loads(out)
    assert status == 0 and facts["expected_seconds"] > 0 and not err
    _, _, err = shell(f"{TRACK} --overwrite")
    assert re.search(r"about \d+ (s|min) for 10 frames at 64$", err, re.MULTILINE)
    _, _, err = shell(f"{TRACK} --overwrite --side 32")
    assert re.search(r"about \d+ (s|min) for 10 frames at 32$", err, re.MULTILINE)


def test_a_smaller_side_is_told_where_a_run_takes_long():
    work = Work(VARIANTS["sam2.1_hiera_tiny"], TrackSettings(), (HEIGHT, WIDTH), {1: 1})
    forecast = Forecast(work)
    for seen in range(3):
        forecast.observe(1e-11 * work.multiplications(seen))
    words = _expectation(forecast, 1000, 3500.0, "cpu")
    assert re.fullmatch(r"about 1\.0 h for 1000 frames at 1024; --side 512 would take about \d min", words)
    assert _expectation(forecast, 1000, 3500.0, "cuda:0") == "about 1.0 h for 1000 frames at 1024"
    assert _expectation(forecast, 4, 10.0, "cpu") == ""


def test_backward_begins_at_the_end(shell, place, originals, expected):
    assert shell(f"{TRACK} --backward")[0] == 0
    model = load_model(originals / "tiny.safetensors", device="cpu")
    with open_video(place / "clip.mp4") as video:
        prior = PriorMemory.load(place / "prior.safetensors")
        results = list(Tracker(model, prior, TrackSettings(direction="backward")).run(video))
    labels, _ = labels_of(place / "labels.zarr")
    assert (labels == np.stack([result.labels for result in results[::-1]])).all()


def test_every_setting_reaches_the_store(shell, place):
    options = "--side 96 --keep-aspect --recent 2 --pointers 3 --prior-time elapsed --no-memories --keep-lost"
    assert shell(f"{TRACK} {options} --frames :2 --dtype bfloat16")[0] == 0
    with LabelStore.open(place / "labels.zarr", mode="r") as store:
        settings = TrackSettings(
            side=96,
            square=False,
            recent=2,
            pointers=3,
            prior_time="elapsed",
            store_memories=False,
            keep_lost=True,
        )
        assert store.details["settings"] == json.loads(settings.to_json())
        assert "bfloat16" in store.identity.model


def test_resume_goes_on_and_equals_one_run(shell, place, expected):
    assert shell(f"{TRACK} --frames 0:4")[0] == 0
    status, out, _ = shell(f"{TRACK} --resume")
    assert status == 0
    assert "6 frames tracked" in out and "4 frames had been tracked before" in out
    labels, done = labels_of(place / "labels.zarr")
    assert done.all() and (labels == np.stack([result.labels for result in expected])).all()
    facts = json.loads(shell(f"{TRACK} --resume --json")[1])
    assert (facts["tracked"], facts["done"]) == (0, FRAMES)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("labels.zarr/scores.jsonl", "thesis/notes"),
        ("labels.zarr/memory", "thesis"),
        ("labels.zarr/added.safetensors", "thesis/notes"),
        (".labels.zarr.samexp", "thesis"),
    ],
)
def test_resume_of_a_store_from_a_hostile_archive_changes_nothing(shell, place, name, target):
    (place / "sent").mkdir()
    assert shell(f"{TRACK} --frames 0:4".replace("labels.zarr", "sent/labels.zarr"))[0] == 0
    hostile_archive.write_thesis(place / "here")
    hostile_archive.send(place / "sent", place / "here", {name: target})
    before = content(place)
    status, out, err = shell(f"{TRACK} --resume".replace("labels.zarr", "here/labels.zarr"))
    assert status == 2 and not out
    assert err.count("\n") == 1 and f"{place / 'here' / name} is a link and no ordinary" in err
    assert content(place) == before
    hostile_archive.require_untouched(place / "here")


def test_a_link_that_a_person_names_is_written_through_whole(shell, place):
    """Theirs to name: the link stays, and what it leads to is the old file or the new one."""
    (place / "far").mkdir()
    for name in ("s.csv", "o.mp4", "new.safetensors"):
        (place / name).symlink_to(place / "far" / name)
    assert shell(f"{TRACK} --frames 0:2 --scores s.csv --overlay o.mp4")[0] == 0
    assert shell(RECORD + " --point 15,24")[0] == 0
    assert all((place / name).is_symlink() for name in ("s.csv", "o.mp4", "new.safetensors"))
    assert sorted(file.name for file in (place / "far").iterdir()) == ["new.safetensors", "o.mp4", "s.csv"]
    assert len((place / "far" / "s.csv").read_text().splitlines()) == 3
    assert len(PriorMemory.load(place / "far" / "new.safetensors").recordings) == 1


def test_resume_begins_where_there_is_nothing(shell, place):
    assert shell(f"{TRACK} --frames 0:2 --resume")[0] == 0
    assert labels_of(place / "labels.zarr")[1].sum() == 2


def test_overwrite_replaces_the_store_and_older_outputs_are_replaced_whole(shell, place):
    (place / "s.csv").write_text("older")
    (place / "o.mp4").write_text("older")
    assert shell(f"{TRACK} --frames 0:4")[0] == 0
    assert shell(f"{TRACK} --frames 0:2 --overwrite --scores s.csv --overlay o.mp4")[0] == 0
    assert labels_of(place / "labels.zarr")[1].sum() == 2
    assert len((place / "s.csv").read_text().splitlines()) == 3
    assert not [path.name for path in place.iterdir() if path.name.startswith(".")]


def test_another_model_tracks_with_the_recorded_images(shell, place):
    line = TRACK.replace("tiny", "other") + " --frames 0:2 --json"
    assert shell(line)[0] == 2
    status, out, _ = shell(f"{line} --image clip.mp4@1 --image cat.png")
    assert (status, json.loads(out)["done"]) == (0, 2)
    status, _, err = shell(f"{line} --overwrite --image clip.mp4@1")
    assert status == 2 and "cat.png" in err


def test_the_model_is_found_by_the_prior_if_it_is_an_official_one(shell, place, monkeypatch):
    sha256 = sha256_of(place / "tiny.safetensors")
    entry = OfficialFile("tiny-random", "kept.pt", "https://there", 1, sha256)
    monkeypatch.setitem(OFFICIAL, "tiny-random", entry)
    (place / "cache").mkdir()
    (place / "cache" / "kept.pt").write_bytes((place / "tiny.safetensors").read_bytes())
    line = "track clip.mp4 --prior prior.safetensors --out labels.zarr --frames :1 --json"
    status, out, _ = shell(f"{line} --scores s.csv")
    assert status == 0
    assert json.loads(out)["model"] == "tiny-random"


def test_lost_frames_are_counted(shell):
    assert shell("record cat.png --model blind.safetensors --point 15,24 --out blind_prior")[0] == 0
    line = "track clip.mp4 --prior blind_prior --model blind.safetensors --out labels.zarr --frames :3 --json"
    assert json.loads(shell(line)[1])["objects"]["1"]["lost"] == 3


def test_a_folder_of_images_is_a_video_whose_images_are_safe(shell, place, monkeypatch):
    (place / "many").mkdir()
    for i in range(3):
        write_png(place / "many" / f"{i}.png", read_frame(place / "cat.png"))
    line = TRACK.replace("clip.mp4", "many")
    status, _, err = shell(f"{line} --scores many/1.png")
    assert status == 2 and "lies in many" in err
    assert shell(f"{line} --scores many/s.csv")[0] == 0
    monkeypatch.chdir(place / "many")
    inside = "track . --prior ../prior.safetensors --model ../tiny.safetensors --out ../second.zarr"
    assert shell(f"{inside} --scores s.csv --overlay o.mp4")[0] == 0
