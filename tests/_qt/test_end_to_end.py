"""The main job in real windows, by mouse and keyboard, with the starter in its own process and a real MP4."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_samexp import PriorMemory
from napari_samexp.io.label_edits import edited_frames
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.video import open_video
from napari_samexp.samples import load_sample
from tests import ROOT
from tests._qt.user import User

SAMPLE = load_sample()
FRAMES = len(SAMPLE.ground_truth)
ALT = Qt.KeyboardModifier.AltModifier
CONTROL = Qt.KeyboardModifier.ControlModifier


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_SAMEXP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """The bundled clip where labels can lie beside it."""
    path = tmp_path / "fox.mp4"
    shutil.copy(SAMPLE.clip_path, path)
    return path


@pytest.fixture
def person(make_napari_viewer: Any, qtbot: Any) -> Iterator[Callable[[], User]]:
    """Makes a new viewer with the dock, and somebody in front of it."""

    def sit_down() -> User:
        viewer = make_napari_viewer(show=True)
        viewer.window.resize(1280, 860)
        _, dock = viewer.window.add_plugin_dock_widget("napari-samexp", "Prior tracking")
        someone = User(viewer, dock, qtbot)
        made.append(someone)
        someone.until(lambda: dock.session.models.state.usable, "the model")
        return someone

    made: list[Any] = []
    yield sit_down
    for someone in made:
        if not someone.gone:
            someone.dock.end()


def choose_file(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Let the next file dialog be answered with a path."""
    for name in ("getOpenFileName", "getSaveFileName"):
        monkeypatch.setattr(QFileDialog, name, staticmethod(lambda *_args, **_kwargs: (str(path), "")))


def show_object(someone: User) -> None:
    """Open the sample image and click on the object."""
    someone.viewer.open_sample("napari-samexp", "image")
    someone.until(lambda: someone.dock.prompts.layers is not None, "a layer for clicks")
    someone.viewer.reset_view()
    someone.click(*map(float, SAMPLE.points_xy[0]))
    someone.until(lambda: someone.dock.session.prompting.preview is not None, "a preview")


def record(someone: User, name: str = "star") -> None:
    count = len(someone.dock.session.recordings.all)
    someone.type_into("name", name)
    someone.key(Qt.Key.Key_R)
    someone.until(lambda: len(someone.dock.session.recordings.all) == count + 1, "the recording")


def open_clip(someone: User, clip: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    choose_file(monkeypatch, clip)
    someone.press("open_video")
    someone.until(lambda: someone.dock.videos.current is not None, "the video")
    return someone.dock.videos.current


def job(someone: User) -> Any:
    return someone.dock.session.tracking.job


def overlap(labels: Any, frames: range) -> float:
    """Mean intersection over union with the ground truth, in the frames that show the object."""
    found = []
    for index in frames:
        mine, true = np.asarray(labels[index]) == 1, SAMPLE.ground_truth[index].astype(bool)
        if not true.any():
            continue
        found.append((mine & true).sum() / (mine | true).sum())
    return float(np.mean(found))


def centre(index: int) -> tuple[float, float]:
    """Where the object is in a frame, (x, y)."""
    y, x = np.nonzero(SAMPLE.ground_truth[index])
    return float(x.mean()), float(y.mean())


@pytest.mark.slow
def test_the_main_job(person, clip, tmp_path, monkeypatch):
    someone = person()
    dock, viewer = someone.dock, someone.viewer
    show_object(someone)
    assert "Record" in someone.says and dock.panel.record.isEnabled()

    # clicks of both kinds, by modifier, key and button; Backspace and undo
    points = dock.prompts.layers.points
    someone.click(20, 200, keys=ALT)
    someone.key(Qt.Key.Key_X)
    assert dock.panel.role.currentText() == "background"
    someone.click(200, 20)
    someone.key(Qt.Key.Key_X)
    someone.click(230, 230, button=Qt.MouseButton.RightButton)
    assert points.features["role"].tolist() == ["object", "background", "background", "background"]
    assert len({tuple(colour) for colour in points.face_color.tolist()}) == 2
    for left in (3, 2, 1):
        someone.key(Qt.Key.Key_Backspace)
        assert len(points.data) == left
    someone.key(Qt.Key.Key_Z, CONTROL)
    assert len(points.data) == 2
    someone.key(Qt.Key.Key_Backspace)
    record(someone)
    assert [(info.name, info.label) for info in dock.session.recordings.all] == [("star", 1)]
    assert len(points.data) == 0 and dock.panel.name.text() == ""

    # a run that is paused, goes on, is cancelled, and resumed, while the slider moves
    video = open_clip(someone, clip, monkeypatch)
    assert video.data.shape == (FRAMES, 256, 256, 3) and tuple(video.axis_labels) == ("t", "y", "x")
    someone.press("track")
    someone.until(lambda: job(someone).done >= 3, "three frames")
    someone.press("pause")
    someone.until(lambda: job(someone).state == "paused", "the pause")
    done = job(someone).done
    someone.qtbot.wait(300)
    assert job(someone).done == done and dock.panel.pause.text() == "Resume"
    someone.press("pause")
    someone.until(lambda: job(someone).done > done, "more frames")
    someone.press("cancel")
    someone.until(lambda: not job(someone).active, "the end")
    assert job(someone).state == "cancelled" and job(someone).done < FRAMES
    layer = dock.run.labels.layer
    assert layer.data.shape == (FRAMES, 256, 256) and np.array_equal(layer.scale, video.scale)
    first = np.asarray(layer.data[0]).copy()
    someone.press("pause")  # it says Resume
    for frame in (5, 40, 7, 8, 9, 30):
        someone.scrub(frame)
    someone.until(lambda: job(someone).state == "finished", "the last frame")
    assert np.array_equal(np.asarray(layer.data[0]), first)
    assert overlap(layer.data, range(FRAMES)) > 0.5
    assert dock.panel.progress.value() == dock.panel.progress.maximum()
    assert "of 48" in dock.panel.progress.text()

    # the timeline is clicked, and a lost frame is looked for
    someone.click_on("timeline", 0.5)
    assert abs(viewer.dims.current_step[0] - FRAMES // 2) <= 1
    someone.key(Qt.Key.Key_N)
    lost = [index for index, scores in dock.session.results.scores.items() if scores[1].lost]
    assert lost or "Nothing was lost" in someone.says

    # painted by hand, remembered, tracked on from there: before it nothing changes, and the paint stays
    before = np.asarray(layer.data[:20]).copy()
    someone.scrub(20)
    viewer.layers.selection.active = layer
    layer.mode, layer.brush_size, layer.selected_label = "paint", 12, 1
    x, y = centre(20)
    someone.drag((x, y), (x - 30, y - 20), (x - 60, y - 40))  # beyond its edge
    painted = np.asarray(layer.data[20]).copy()
    assert edited_frames(layer.data.path) == {20}
    someone.press("remember_frame")
    someone.until(lambda: len(dock.session.recordings.all) == 2, "the corrected frame")
    someone.until(lambda: job(someone).state == "finished", "the frames after it")
    assert job(someone).total == FRAMES - 21  # all after the painted one
    assert np.array_equal(np.asarray(layer.data[:20]), before)
    assert np.array_equal(np.asarray(layer.data[20]), painted)

    # clicks on the video itself
    someone.choose("image", "fox.mp4")
    someone.scrub(44)
    viewer.reset_view()
    someone.click(*centre(44))
    someone.until(lambda: dock.session.prompting.preview is not None, "a preview on the video")
    someone.press("remember_frame")
    someone.until(lambda: len(dock.session.recordings.all) == 3, "the clicked frame")
    assert dock.session.recordings.all[-1].image_name == "fox.mp4@44"
    someone.until(lambda: job(someone).state == "finished", "the last frames")
    assert dock.session.prompting.prompt.is_empty and len(dock.prompts.layers.points.data) == 0

    # saved: the prior by its button and by napari, the labels by napari
    choose_file(monkeypatch, tmp_path / "star.safetensors")
    someone.press("save_prior")
    someone.until((tmp_path / "star.safetensors").exists, "the prior file")
    assert len(PriorMemory.load(tmp_path / "star.safetensors").recordings) == 3
    assert points.save(str(tmp_path / "again.safetensors"), plugin="napari-samexp")
    someone.until((tmp_path / "again.safetensors").exists, "the prior file")
    assert layer.save(str(tmp_path / "star.tif"), plugin="napari-samexp")
    assert np.array_equal(tifffile.imread(tmp_path / "star.tif"), np.asarray(layer.data[:]))
    assert layer.save(str(tmp_path / "copy.zarr"), plugin="napari-samexp")
    assert np.array_equal(LabelStore.open(tmp_path / "copy.zarr", mode="r").array[:], layer.data[:])


@pytest.mark.slow
def test_what_was_left_comes_back(person, clip, monkeypatch):
    someone = person()
    assert someone.dock.panel.reopen.isHidden()
    show_object(someone)
    record(someone)
    open_clip(someone, clip, monkeypatch)
    someone.press("track")
    someone.until(lambda: job(someone).done >= 5, "five frames")
    someone.press("cancel")
    someone.until(lambda: not job(someone).active, "the end")
    done, store = job(someone).done, Path(job(someone).store)
    kept = someone.dock.session.recordings.all
    engine = someone.dock.session._proxy.engine
    someone.leave()
    someone.qtbot.waitUntil(lambda: engine.pid is None, timeout=20_000)

    later = person()
    dock = later.dock
    later.until(dock.panel.reopen.isVisible, "the offer to reopen")
    assert "fox.mp4" in dock.panel.reopen.text() and "Reopen" in later.says
    later.press("reopen")
    later.until(lambda: dock.run.labels.shown and dock.videos.current is not None, "labels and video")
    later.until(lambda: bool(dock.session.recordings.all), "the recordings")
    assert [info.key for info in dock.session.recordings.all] == [info.key for info in kept]
    names = [layer.name for layer in later.viewer.layers]
    assert names.index("fox.mp4") < names.index("fox.labels")
    assert job(later).done == done and sorted(dock.session.results.scores) == list(range(done))
    assert dock.panel.pause.text() == "Resume" and dock.panel.reopen.isHidden()
    later.press("pause")
    later.until(lambda: job(later).state == "finished", "the last frame")
    assert Path(job(later).store) == store and overlap(dock.run.labels.layer.data, range(FRAMES)) > 0.5

    # it is the same run still: a part of it can be tracked again in place
    later.scrub(40)
    later.choose("frames", "from here")
    later.press("track")
    later.until(lambda: job(later).state == "finished" and job(later).total == FRAMES - 40, "a part")
    assert Path(job(later).store) == store


@pytest.mark.slow
def test_files_are_dropped_on_the_window(person, clip, tmp_path, monkeypatch):
    someone = person()
    dock, viewer = someone.dock, someone.viewer
    show_object(someone)
    record(someone)
    dock.save_prior_to(str(tmp_path / "star.safetensors"))
    someone.until((tmp_path / "star.safetensors").exists, "the prior file")
    viewer.open(str(clip), plugin="napari-samexp")
    someone.until(lambda: dock.videos.current is not None, "the video")
    someone.choose("frames", "range")
    someone.type_into("first", "10")
    someone.type_into("last", "13")
    someone.press("track")
    someone.until(lambda: job(someone).state == "finished", "four frames")
    assert sorted(dock.session.results.scores) == [10, 11, 12, 13]
    store = Path(job(someone).store)

    later = person()
    later.viewer.open(str(tmp_path / "star.safetensors"), plugin="napari-samexp")
    later.until(lambda: bool(later.dock.session.recordings.all), "the recordings of the file")
    assert later.dock.session.recordings.all[0].name == "star"
    assert len(someone.dock.session.recordings.all) == 1  # another viewer's are its own
    (layer,) = later.viewer.open(str(store), plugin="napari-samexp")
    later.until(lambda: later.dock.run.labels.layer is layer, "the dock having noticed")
    later.until(lambda: later.dock.videos.current is not None, "its video")
    assert sorted(later.dock.session.results.scores) == [10, 11, 12, 13]

    later.scrub(12)
    later.choose("frames", "backward from here")
    later.press("track")
    later.until(lambda: job(later).state == "finished" and job(later).total == 13, "the frames before")
    assert sorted(later.dock.session.results.scores) == list(range(14))


@pytest.mark.slow
def test_arrays_with_scale_units_and_16_bits(person, tmp_path, monkeypatch):
    """A gray z-stack to click on, a gray uint16 time series to track in, each lying elsewhere in the world."""
    monkeypatch.setattr("napari_samexp._qt.tracking.run_control.store_folder", lambda path: tmp_path)
    someone = person()
    dock, viewer = someone.dock, someone.viewer
    gray = SAMPLE.prior.mean(axis=2).astype(np.float32) / 255
    stack = np.stack([np.zeros_like(gray), gray])
    lies = {"scale": (2, 0.5, 0.5), "translate": (0, 0, -200)}
    viewer.add_image(stack, name="stack", axis_labels=("z", "y", "x"), **lies)
    with open_video(SAMPLE.clip_path) as video:
        series = np.asarray(video[:6]).mean(axis=3).astype(np.uint16) * 200 + 1000
    clip = viewer.add_image(
        series, name="series", scale=(1, 0.25, 0.25), units=("s", "um", "um"), axis_labels=("t", "y", "x")
    )
    someone.choose("image", "stack")
    someone.choose("video", "series")
    viewer.dims.set_point(viewer.dims.ndim - 3, 2.0)  # the stack's second plane
    viewer.reset_view()
    x, y = map(float, SAMPLE.points_xy[0])
    someone.click(0.5 * x - 200, 0.5 * y)
    someone.until(lambda: dock.session.prompting.preview is not None, "a preview")
    (point,) = dock.session.prompting.prompt.points_xy
    assert abs(point - (x, y)).max() < 2
    assert dock.prompts.preview.layer.data.shape == (256, 256)
    assert dock.prompts.preview.layer.scale.tolist() == [0.5, 0.5]

    # a box drawn with the mouse joins the click
    someone.press("draw_box")
    y_in, x_in = np.nonzero(SAMPLE.prior_mask)
    corners = [(x_in.min() - 3, y_in.min() - 3), (x_in.max() + 3, y_in.max() + 3)]
    (left, top), (right, low) = [(0.5 * x - 200, 0.5 * y) for x, y in corners]
    someone.drag((left, top), ((left + right) / 2, (top + low) / 2), (right, low))
    someone.until(lambda: dock.session.prompting.prompt.box_xyxy is not None, "the box")
    assert abs(dock.session.prompting.prompt.box_xyxy - np.ravel(corners)).max() < 2
    someone.until(lambda: viewer.layers.selection.active is dock.prompts.layers.points, "the points")
    someone.until(lambda: not dock.session.prompting.pending, "its preview")
    someone.press("draw_box")  # R means the same while a box is being drawn
    record(someone, "")
    assert dock.session.recordings.all[0].image_name == "stack@1"
    someone.press("track")
    someone.until(lambda: job(someone).state == "finished", "the last frame")
    labels = dock.run.labels.layer
    assert labels.data.shape == series.shape
    for part in ("scale", "translate", "units", "axis_labels"):
        assert tuple(getattr(labels, part)) == tuple(getattr(clip, part)), part


@pytest.mark.slow
def test_hovering_previews_and_the_dock_can_be_closed_and_opened_again(person):
    someone = person()
    dock, viewer = someone.dock, someone.viewer
    someone.viewer.open_sample("napari-samexp", "image")
    someone.until(lambda: dock.prompts.layers is not None, "a layer for clicks")
    viewer.reset_view()
    x, y = map(float, SAMPLE.points_xy[0])
    someone.hover(x, y)
    someone.qtbot.wait(200)
    assert dock.session.prompting.preview is None  # it is off by default
    dock.panel.settings_section.head.click()
    someone.tick("hover")
    assert dock.session.settings.hover
    someone.hover(x + 1, y)
    someone.hover(x, y)
    someone.until(lambda: dock.session.prompting.preview is not None, "a preview under the mouse")
    assert dock.session.prompting.preview.hover and dock.session.prompting.prompt.is_empty
    assert dock.session.prompting.preview.mask()[round(y), round(x)]

    engine = dock.session._proxy.engine
    viewer.window.remove_dock_widget(dock.parentWidget())
    someone.qtbot.waitUntil(lambda: dock.session is None, timeout=20_000)
    someone.qtbot.waitUntil(lambda: engine.pid is None, timeout=20_000)
    assert [layer.name for layer in viewer.layers] == ["sample image", "sample image ground truth"]
    assert np.array_equal(viewer.layers["sample image ground truth"].data, SAMPLE.prior_mask)
    assert not viewer.mouse_move_callbacks
    _, again = viewer.window.add_plugin_dock_widget("napari-samexp", "Prior tracking")
    assert again is not dock
    someone.dock = again
    someone.until(lambda: again.session.models.state.usable and again.prompts.layers is not None, "the model")
    assert again.session.settings.hover  # settings persist
    someone.click(x, y)
    someone.until(lambda: again.session.prompting.preview is not None, "a preview")


def kill(someone: User) -> None:
    pid = someone.dock.session._proxy.engine.pid
    os.kill(pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)


@pytest.mark.slow
def test_the_window_outlives_its_worker_at_every_stage(person, clip, monkeypatch):
    someone = person()
    dock = someone.dock
    sentences: list[str] = []
    dock.session.notice.connect(sentences.append)

    def killed(stage: str) -> None:
        count = len(sentences)
        kill(someone)
        someone.until(lambda: len(sentences) > count, f"a sentence about the end while {stage}")
        assert "started again" in sentences[-1] and "\n" not in sentences[-1], (stage, sentences)

    dock.session.load_model("starter")
    killed("loading")
    someone.until(lambda: dock.session.models.state.state == "ready", "the model again")
    someone.viewer.open_sample("napari-samexp", "image")
    someone.until(lambda: dock.prompts.layers is not None, "a layer for clicks")
    someone.viewer.reset_view()
    someone.click(*map(float, SAMPLE.points_xy[0]))
    killed("previewing")
    someone.until(lambda: dock.session.models.state.state == "ready", "the model again")
    someone.click(*(SAMPLE.points_xy[0] + 4))
    someone.until(lambda: dock.session.prompting.preview is not None, "a preview")
    someone.key(Qt.Key.Key_R)
    killed("recording")
    someone.until(lambda: len(dock.session.recordings.all) == 1, "the recording, made once")
    open_clip(someone, clip, monkeypatch)
    someone.press("track")
    someone.until(lambda: job(someone).done >= 4, "four frames")
    killed("tracking")
    someone.until(lambda: job(someone).state == "finished", "the run going on by itself")
    assert sorted(dock.session.results.scores) == list(range(FRAMES))
    assert len(dock.session.recordings.all) == 1
    labels = dock.run.labels.layer
    before = np.asarray(labels.data[:]).copy()
    someone.viewer.layers.selection.active = labels
    someone.scrub(46)
    someone.press("remember_frame")
    killed("remembering")
    someone.until(lambda: len(dock.session.recordings.all) == 2, "the corrected frame")
    someone.until(lambda: not job(someone).active, "the frames after it")
    assert np.array_equal(np.asarray(labels.data[:46]), before[:46])


@pytest.mark.slow
def test_the_demos_window_is_ready_to_track(make_napari_viewer, qtbot, tmp_path, monkeypatch):
    from napari_samexp._qt.tracking.demo_window import fill
    from napari_samexp.cli import run

    monkeypatch.setattr("napari_samexp.cli.demo.why_no_window", lambda: "")
    monkeypatch.setattr("subprocess.run", lambda command, **_: subprocess.CompletedProcess(command, 0))
    assert run(["demo", "--out", str(tmp_path / "demo")]) == 0
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1280, 860)
    dock = fill(viewer, tmp_path / "demo")
    someone = User(viewer, dock, qtbot)
    _, measuring = viewer.window.add_plugin_dock_widget("napari-samexp", "Measure labels")
    someone.until(lambda: bool(dock.session.recordings.all) and dock.session.models.state.usable, "the prior")
    assert "Press Track" in someone.says
    someone.press("track")
    someone.until(lambda: job(someone).state == "finished", "the last frame")
    labels = dock.run.labels.layer
    assert overlap(labels.data, range(FRAMES)) > 0.5

    # against the ground truth, in a dock of its own and in the timeline of this one
    ground_truth = viewer.add_labels(SAMPLE.ground_truth.astype(np.uint8), name="truth")
    measuring.labels.setCurrentText(labels.name)
    measuring.ground_truth.setCurrentText(ground_truth.name)
    measuring.evaluate.click()
    someone.until(lambda: measuring.evaluation is not None, "the evaluation")
    j = [float(line.rsplit("J ")[-1]) for line in map(dock.panel.timeline._describe, range(FRAMES))]
    seen = SAMPLE.ground_truth.any(axis=(1, 2))
    assert abs(np.mean(np.array(j)[seen]) - overlap(labels.data, range(FRAMES))) < 0.01

    # a frame in which it was lost is painted: nobody is sent there any more
    lost = dock.session.results.lost_frames()
    assert len(lost) > 2 and lost[1] == lost[0] + 1
    someone.until(lambda: f"Lost in {len(lost)} frames" in someone.says, "how often it was lost")
    someone.scrub(0)
    someone.key(Qt.Key.Key_N)
    assert viewer.dims.current_step[0] == lost[0] and ": lost" in dock.panel.scores_line.text()
    viewer.layers.selection.active = labels
    labels.mode, labels.selected_label = "paint", 1
    someone.drag((20, 20), (40, 40))
    someone.until(lambda: f"Lost in {len(lost) - 1} frames" in someone.says, "how often it is lost now")
    assert ": painted" in dock.panel.scores_line.text()
    someone.scrub(0)
    someone.key(Qt.Key.Key_N)
    assert viewer.dims.current_step[0] == lost[1]
    dock.end()


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import napari
from tests._qt.user import User, Waiter
from qtpy.QtCore import Qt
from napari_samexp.samples import load_sample

sample = load_sample()
viewer = napari.Viewer(show=True)
_, dock = viewer.window.add_plugin_dock_widget("napari-samexp", "Prior tracking")
someone = User(viewer, dock, Waiter())
viewer.open_sample("napari-samexp", "image")
someone.until(lambda: dock.session.models.state.usable and dock.prompts.layers is not None)
viewer.reset_view()
someone.click(*map(float, sample.points_xy[0]))
someone.until(lambda: dock.session.prompting.preview is not None)
someone.key(Qt.Key.Key_R)
someone.until(lambda: bool(dock.session.recordings.all))
dock.open_video_from(sys.argv[2])
someone.until(lambda: dock.videos.current is not None)
someone.press("track")
someone.until(lambda: dock.session.tracking.job.state == "finished")
assert len(dock.session.results.scores) == len(sample.ground_truth)
viewer.close()
print("torch" if "torch" in sys.modules else "never")
"""


def test_naparis_process_never_imports_torch(clip):
    here = str(ROOT)
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, here, str(clip)], capture_output=True, text=True, timeout=250
    )
    assert (run.returncode, run.stdout.strip()) == (0, "never"), run.stderr
