"""The demo on the bundled sample and starter. How good the starter is, is measured elsewhere."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from napari_samexp.cli import run
from napari_samexp.cli.demo import FILES, why_no_window
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.video import open_video
from napari_samexp.render.mp4 import write_mp4
from napari_samexp.samples import load_sample
from napari_samexp.tracking import PriorMemory
from tests import hostile_archive


@pytest.fixture(scope="module")
def sample():
    return load_sample()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """What the demo prints, and where it writes."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("typer.echo", lambda text="", **_: printed.append(text))
        assert run(["demo", "--headless", "--out", str(out)]) == 0
    return "\n".join(printed), out


def test_the_sample_fits_together(sample):
    assert sample.prior.shape == (256, 256, 3) and sample.prior.dtype == np.uint8
    assert sample.ground_truth.shape == (48, 256, 256) and sample.ground_truth.dtype == bool
    assert sample.prior_mask.shape == (256, 256) and sample.prior_mask.dtype == bool
    assert len(sample.points_xy) == len(sample.labels) >= 1
    with open_video(sample.clip_path) as video:
        assert video.shape == (48, 256, 256, 3)
        assert video.fps == pytest.approx(12)


def test_the_clicks_are_on_the_object_and_the_object_is_in_the_clip(sample):
    for (x, y), label in zip(sample.points_xy.astype(int), sample.labels):
        assert sample.prior_mask[y, x] == label
    assert sample.ground_truth.any(axis=(1, 2)).mean() > 0.5


def test_the_sample_is_small_and_no_scene_of_the_training(sample):
    folder = sample.clip_path.parent
    assert sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) < 1_500_000
    seed = int(re.search(r'"seed": (\d+)', (folder / "sample.json").read_text())[1])
    assert seed < 1_000_000


def test_the_demo_writes_everything_into_a_new_folder(demo, sample):
    _, out = demo
    assert sorted(entry.name for entry in out.iterdir()) == sorted(FILES)
    assert (out / "clip.mp4").read_bytes() == sample.clip_path.read_bytes()
    assert len(PriorMemory.load(out / "prior.safetensors").recordings) == 1
    with LabelStore.open(out / "labels.zarr", mode="r") as store:
        assert not store.missing()
        assert store.shape == sample.ground_truth.shape
    with open_video(out / "overlay.mp4") as overlay:
        assert overlay.shape == (48, 256, 256, 3)
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.size[0] > 1000
    assert len((out / "scores.csv").read_text().splitlines()) == 1 + 48


def test_the_demo_prints_j_of_each_frame_and_its_mean(demo, sample):
    text, out = demo
    rows = re.findall(r"^ *\d+  ((?:(?:\d\.\d\d|   -) ?){12})$", text, re.MULTILINE)
    printed = re.findall(r"\d\.\d\d|-", " ".join(rows))
    visible = sample.ground_truth.any(axis=(1, 2))
    assert [word != "-" for word in printed] == visible.tolist()
    with LabelStore.open(out / "labels.zarr", mode="r") as store:
        j = [
            (
                np.sum((store.frame(t) == 1) & sample.ground_truth[t])
                / np.sum((store.frame(t) == 1) | sample.ground_truth[t])
            )
            for t in np.flatnonzero(visible)
        ]
    assert [float(word) for word in printed if word != "-"] == pytest.approx(j, abs=0.006)
    assert float(re.search(r"mean J (\d\.\d+)", text)[1]) == pytest.approx(np.mean(j), abs=0.001)


def test_the_demo_spares_what_is_not_its_own(demo, capsys):
    _, out = demo
    (out / "notes.txt").write_text("mine")
    before = {entry.name: entry.stat().st_mtime_ns for entry in out.iterdir()}
    assert run(["demo", "--headless", "--out", str(out)]) == 2
    assert "notes.txt, which no demo wrote" in capsys.readouterr().err
    assert {entry.name: entry.stat().st_mtime_ns for entry in out.iterdir()} == before
    (out / "notes.txt").unlink()


def test_the_demo_replaces_an_older_one_and_goes_on_without_a_screen(sample, tmp_path, monkeypatch, capsys):
    with open_video(sample.clip_path) as video:
        write_mp4(tmp_path / "short.mp4", video[22:24], 12)
    short = replace(sample, clip_path=tmp_path / "short.mp4", ground_truth=sample.ground_truth[22:24])
    monkeypatch.setattr("napari_samexp.samples.load_sample", lambda: short)
    monkeypatch.setattr("napari_samexp.cli.demo.why_no_window", lambda: "There is no screen")
    for _ in range(2):
        assert run(["demo", "--out", str(tmp_path / "demo")]) == 0
        assert "There is no screen; the demo runs without a window." in capsys.readouterr().err
    with LabelStore.open(tmp_path / "demo" / "labels.zarr", mode="r") as store:
        assert store.shape == (2, 256, 256)


@pytest.mark.parametrize("name", [*FILES, "settings", "clip.labels-2.zarr"])
def test_a_demo_from_a_hostile_archive_writes_nowhere(sample, tmp_path, capsys, name):
    (tmp_path / "sent" / "demo").mkdir(parents=True)
    shutil.copyfile(sample.clip_path, tmp_path / "sent" / "demo" / "clip.mp4")
    hostile_archive.write_thesis(tmp_path / "here")
    folder = name == "settings" or name.endswith(".zarr")
    links = {f"demo/{name}": "thesis" if folder else "thesis/notes"}
    hostile_archive.send(tmp_path / "sent", tmp_path / "here", links)
    assert run(["demo", "--headless", "--out", str(tmp_path / "here" / "demo")]) == 2
    assert f"holds {name}, which no demo wrote" in capsys.readouterr().err
    hostile_archive.require_untouched(tmp_path / "here")


@pytest.mark.parametrize("name", ["scores.csv", "clip.mp4", "prior.png", "settings/novel.txt"])
def test_a_folder_is_not_the_demos_by_a_name_alone(tmp_path, capsys, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    assert run(["demo", "--headless", "--out", str(tmp_path)]) == 2
    assert f"holds {name.split('/')[0]}, which no demo wrote" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [name.split("/")[0]]


def test_the_demo_does_not_write_into_a_file_with_a_second_name(demo, sample, tmp_path):
    """As `cp -al` makes them for a backup: there the older files stay."""
    _, out = demo
    shutil.copytree(out, tmp_path / "demo")
    shutil.copytree(tmp_path / "demo", tmp_path / "backup", copy_function=os.link)
    before = {name: (tmp_path / "backup" / name).read_bytes() for name in FILES if name != "labels.zarr"}
    for name in before:
        assert (tmp_path / "demo" / name).stat().st_nlink == 2
    assert run(["demo", "--headless", "--out", str(tmp_path / "demo")]) == 0
    assert {name: (tmp_path / "backup" / name).read_bytes() for name in before} == before
    for name in before:
        assert (tmp_path / "backup" / name).stat().st_nlink == 1


def test_the_demo_wants_a_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(["demo", "--headless", "--out", str(tmp_path / "file")]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err


def test_a_window_needs_a_screen_and_a_binding(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    assert why_no_window() == "There is no screen"
    monkeypatch.setenv("DISPLAY", ":1")
    assert why_no_window() == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install" in why_no_window()


@pytest.mark.parametrize("status", [0, 1])
def test_on_a_screen_the_demo_opens_napari_with_a_home_of_its_own(status, tmp_path, monkeypatch, capsys):
    started = []

    def start(command, env, check):
        started.append((command, env["NAPARI_SAMEXP_HOME"]))
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr("napari_samexp.cli.demo.why_no_window", lambda: "")
    monkeypatch.setattr("subprocess.run", start)
    out = tmp_path / "demo"
    (out / "clip.labels-2.zarr").mkdir(parents=True)  # of an earlier time; it stays
    assert run(["demo", "--out", str(out)]) == (2 if status else 0)
    assert started == [
        (
            [sys.executable, "-P", "-m", "napari_samexp._qt.tracking.demo_window", str(out)],
            str(out / "settings"),
        )
    ]
    assert sorted(entry.name for entry in out.iterdir()) == [
        *("clip.labels-2.zarr", "clip.mp4", "prior.png", "prior.safetensors")
    ]
    assert len(PriorMemory.load(out / "prior.safetensors").recordings) == 1
    said = capsys.readouterr()
    assert "press Track there" in said.out and ("status 1" in said.err) == bool(status)
