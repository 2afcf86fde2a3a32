"""The commands on finished labels, evaluate and export: what they write, and bad input."""

import csv
import json

import numpy as np
import pytest
import tifffile

from napari_samexp.io.labels import LabelStore
from napari_samexp.io.video import open_video
from napari_samexp.render.mp4 import write_mp4
from napari_samexp.types import FrameResult, ObjectScore, RunIdentity
from tests import hostile_archive
from tests.tiny_files import content

FRAMES, HEIGHT, WIDTH = 6, 40, 56


def _ground_truth():
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    for index in range(FRAMES - 1):
        labels[index, 10:20, 5 + 3 * index : 15 + 3 * index] = 1
    return labels


@pytest.fixture
def place(tmp_path, monkeypatch, capsys):
    """A folder with a clip, a run's labels of its first five frames, and the ground truth, as the working folder."""
    ground_truth = _ground_truth()
    identity = RunIdentity("v", "p", "m", "s")
    with LabelStore.create(
        tmp_path / "found.zarr", shape=ground_truth.shape, labels={1: "cat"}, identity=identity
    ) as store:
        for index in range(5):
            labels = ground_truth[index].astype(np.uint16)
            if index == 1:
                labels[:, :13] = 0  # half of it
            store.write(FrameResult(index, labels, {1: ObjectScore(1.0 - index, 0.9)}))
    tifffile.imwrite(tmp_path / "truth.tif", ground_truth, metadata={"axes": "TYX"}, photometric="minisblack")
    write_mp4(
        tmp_path / "clip.mp4", [np.full((HEIGHT, WIDTH, 3), 40 * t, np.uint8) for t in range(FRAMES)], 5
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


EVALUATE = "evaluate found.zarr --ground-truth truth.tif"

BAD_INPUT = [
    ("evaluate none.zarr --ground-truth truth.tif", "none.zarr"),
    ("evaluate found.zarr", "--ground-truth"),
    ("evaluate found.zarr --ground-truth none.tif", "none.tif"),
    ("evaluate found.zarr --ground-truth clip.mp4", "clip.mp4"),
    ("evaluate mine --ground-truth truth.tif", "no mask images"),
    (f"{EVALUATE} --frames 9:", "picks no frame"),
    (f"{EVALUATE} --frames 5:", "no finished frame"),
    (f"{EVALUATE} --pair 1", "give LABEL=TRUTH"),
    (f"{EVALUATE} --out clip.mp4", "in a file"),
    (f"{EVALUATE} --out found.zarr", "into the labels"),
    (f"{EVALUATE} --out found.zarr/scores", "into the labels"),
    ("export found.zarr --to gif --out o", "--to"),
    ("export none.zarr --to tiff --out o.tif", "none.zarr"),
    ("export found.zarr --to tiff --out clip.mp4", "exists"),
    ("export found.zarr --to tiff --out found.zarr/o.tif", "lies in found.zarr"),
    ("export found.zarr --to tiff --out none/o.tif", "does not exist"),
    ("export found.zarr --to overlay --out o.mp4", "needs --video"),
    ("export found.zarr --to overlay --out o.gif --video clip.mp4", "ends in .mp4"),
    ("export found.zarr --to overlay --out clip.mp4 --video clip.mp4 --overwrite", "overwrite the video"),
    ("export found.zarr --to png --out mine", "not empty"),
    ("export found.zarr --to ome-zarr --out mine", "exists"),
    ("export found.zarr --to tiff --out o.tif --frames 5:", "no finished frame"),
]


@pytest.mark.parametrize(("line", "phrase"), BAD_INPUT, ids=[line[-50:] for line, _ in BAD_INPUT])
def test_bad_input_is_one_sentence_and_changes_nothing(shell, place, line, phrase):
    before = content(place)
    status, out, err = shell(line)
    assert (status, out) == (2, "")
    assert err.startswith("napari-samexp: ") and err.count("\n") == 1
    assert phrase in err
    assert content(place) == before


def test_evaluate_counts_what_is_finished(shell, place):
    status, out, err = shell(f"{EVALUATE} --json")
    facts = json.loads(out)
    assert (status, err) == (0, "")
    assert (facts["frames"], facts["left_out"]) == (5, 1)
    label = facts["labels"]["1"]
    j = [1, 0.5, 1, 1, 1]  # frame 1: of the columns 8 to 17, those from 13 on are left
    assert label["j"]["mean"] == pytest.approx(np.mean(j)) and label["name"] == "cat"
    assert label["j"]["recall"] == 0.8
    assert label["presence"] == pytest.approx(2 / 5)  # presence 1, 0, -1, -2, -3 where it is always there
    assert not list(place.glob("*.csv"))


def test_evaluate_writes_tables_and_a_image(shell, place):
    status, out, _ = shell(f"{EVALUATE} --out results/deep --frames 0:3")
    assert status == 0 and "J&F" in out and "over 3 frames" in out
    rows = list(csv.DictReader((place / "results/deep/frames.csv").read_text().splitlines()))
    assert [float(row["j"]) for row in rows] == [1, 0.5, 1]
    assert len((place / "results/deep/labels.csv").read_text().splitlines()) == 2
    assert (place / "results/deep/curves.png").read_bytes().startswith(b"\x89PNG")
    assert shell(f"{EVALUATE} --out results/deep")[0] == 0  # its own files are replaced
    assert len((place / "results/deep/frames.csv").read_text().splitlines()) == 6


def test_export_and_evaluate_fit_together(shell, place):
    for kind, name in (("tiff", "o.tif"), ("png", "o_png"), ("ome-zarr", "o.ome.zarr")):
        status, out, _ = shell(f"export found.zarr --to {kind} --out {name}")
        assert status == 0 and "5 frames" in out
    # frames of the TIFF and PNG are the finished ones alone, so those of the labels must be, too
    assert json.loads(shell("evaluate o.tif --ground-truth o_png --json")[1])["jf"] == 1
    assert json.loads(shell("evaluate found.zarr --ground-truth o.ome.zarr --json")[1])["jf"] == 1


def test_export_tables(shell, place):
    assert shell("export found.zarr --to table --out t.csv --frames 1:3")[0] == 0
    rows = list(csv.DictReader((place / "t.csv").read_text().splitlines()))
    assert [(row["frame"], row["area"], row["presence"]) for row in rows] == [
        ("1", "50", "0.0"),
        ("2", "100", "-1.0"),
    ]
    assert shell("export found.zarr --to tracks --out k.csv")[0] == 0
    lines = (place / "k.csv").read_text().splitlines()
    assert lines[0] == "track,frame,y,x,area,presence,iou" and lines[1] == "1,0,14.5,9.5,100.0,1.0,0.9"
    status, _, err = shell("export found.zarr --to table --out t.csv")
    assert status == 2 and "--overwrite" in err
    assert shell("export found.zarr --to table --out t.csv --overwrite")[0] == 0
    assert len((place / "t.csv").read_text().splitlines()) == 6


def test_export_coco_and_overlay(shell, place):
    assert shell("export found.zarr --to coco --out c.json --video clip.mp4")[0] == 0
    made = json.loads((place / "c.json").read_text())
    assert len(made["annotations"]) == 5 and made["images"][2]["file_name"] == "clip.mp4@2"
    assert shell("export found.zarr --to overlay --out o.mp4 --video clip.mp4 --frames 1:4")[0] == 0
    with open_video(place / "o.mp4") as video:
        assert video.shape == (3, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", ["frames.csv", "labels.csv", "curves.png"])
def test_evaluate_does_not_write_through_links_in_its_folder(shell, place, name):
    (place / "scores").mkdir()
    hostile_archive.write_thesis(place)
    (place / "scores" / name).symlink_to(place / "thesis" / "notes")
    status, _, err = shell(f"{EVALUATE} --out scores")
    assert status == 2 and f"{name} is a link and no ordinary file" in err
    assert [path.name for path in (place / "scores").iterdir()] == [name]
    hostile_archive.require_untouched(place)
