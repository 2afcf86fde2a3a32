"""What a person does to the window while a run is on: nothing breaks, nothing is left, the run comes to its end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from napari.utils.notifications import NotificationSeverity, notification_manager

from napari_samexp.engine import WorkerOptions
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.video import open_video
from napari_samexp.render.mp4 import write_mp4
from napari_samexp.samples import load_sample
from napari_samexp.session import Session
from tests import ROOT
from tests._qt.user import User

SAMPLE = load_sample()
FRAMES = 16
LONG = 400


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_SAMEXP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No exception on any thread, and nothing that napari had to tell of as a fault."""
    broken: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", broken.append)
    told = len(notification_manager.records)
    yield
    broken += [
        record.message
        for record in list(notification_manager.records)[told:]
        if record.severity >= NotificationSeverity.ERROR
    ]
    assert not broken


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Some of the bundled clip, where labels can lie beside it."""
    return write_clip(tmp_path / "fox.mp4", FRAMES)


def write_clip(path: Path, frames: int) -> Path:
    """Write the bundled clip's frames, over and over, up to a number of them."""
    with open_video(SAMPLE.clip_path) as video:
        write_mp4(path, (video.frame(index % len(video)) for index in range(frames)), 12)
    return path


@pytest.fixture
def sit_down(make_napari_viewer: Any, qtbot: Any) -> Iterator[Callable[..., User]]:
    def make(viewer: Any = None) -> User:
        from napari_samexp._qt.connections import WindowThread
        from napari_samexp._qt.tracking.prior_tracking import PriorTracking

        deliver = WindowThread()
        threads.append(deliver)
        viewer = viewer or make_napari_viewer(show=True)
        viewer.window.resize(1280, 860)
        # napari shows one of a plugin's docks a window; two are made by hand
        dock = PriorTracking(viewer, Session(deliver=deliver, options=WorkerOptions(threads=1, niceness=0)))
        viewer.window.add_dock_widget(dock, name=f"dock {len(made)}")
        made.append(User(viewer, dock, qtbot))
        made[-1].until(lambda: dock.session.models.state.usable and dock.prompts.begun, "the model")
        return made[-1]

    made: list[User] = []
    threads: list[Any] = []
    yield make
    engines = [someone.dock.session._proxy.engine for someone in made if someone.dock.session is not None]
    for someone in made:
        if not someone.gone:
            someone.dock.end()
    for engine in engines:
        qtbot.waitUntil(lambda engine=engine: engine.pid is None, timeout=30_000)


def ready(someone: User, clip: Path | None, name: str = "star") -> Any:
    """Record the sample's object, open the clip, and return its layer."""
    dock = someone.dock
    image = someone.viewer.add_image(SAMPLE.prior, name="image", rgb=True)
    someone.until(lambda: dock.images.current is image and dock.prompts.layers is not None, "the image")
    click(someone)
    dock.session.prompting.record(1, name)
    someone.until(lambda: len(dock.session.recordings.all) == 1, "the recording")
    if clip is not None:
        dock.open_video_from(str(clip))
        someone.until(lambda: dock.videos.current is not None, "the video")
    return dock.videos.current


def click(someone: User) -> None:
    dock, (x, y) = someone.dock, map(float, SAMPLE.points_xy[0])
    dock.prompts.layers.add_point(x, y, (), "object")
    someone.until(lambda: dock.session.prompting.preview is not None, "a preview")


def job(someone: User) -> Any:
    return someone.dock.session.tracking.job


def begin(someone: User, frames: int = 2) -> None:
    someone.dock.run.track()
    someone.until(lambda: job(someone).done >= frames, "the first frames")


def finish(someone: User) -> Path:
    someone.until(lambda: not job(someone).active, "the end of the run")
    assert job(someone).state == "finished" and job(someone).done == FRAMES, job(someone)
    return Path(job(someone).store)


def labels_of(store: Path) -> np.ndarray:
    with LabelStore.open(store, mode="r") as opened:
        assert opened.done.all()
        return np.asarray(opened.array[:])


@pytest.mark.slow
def test_two_docks_and_two_viewers_track_the_same_clip_at_once(sit_down, clip):
    one = sit_down()
    ready(one, clip)
    two, other = sit_down(one.viewer), sit_down()
    for someone in (two, other):
        someone.dock.load_prior_from(str(save(one)))
        someone.until(lambda someone=someone: bool(someone.dock.session.recordings.all), "its recordings")
    two.until(lambda: two.dock.videos.current is one.dock.videos.current, "the same layer")
    other.dock.open_video_from(str(clip))
    other.until(lambda: other.dock.videos.current is not None, "the video")
    for someone in (one, two, other):
        begin(someone, 1)
    one.viewer.layers.selection.active = one.dock.prompts.layers.points
    click(one)  # a preview beside three runs
    stores = {finish(someone) for someone in (one, two, other)}
    assert len(stores) == 3
    first, *others = map(labels_of, sorted(stores))
    assert first.any() and all(np.array_equal(first, each) for each in others)

    # one dock goes, the other of the same window stays and works
    two.viewer.window.remove_dock_widget(two.dock)
    two.until(lambda: two.dock.session is None, "the end of the dock")
    two.gone = True
    one.dock.run.track()
    one.until(lambda: job(one).active, "another run")
    one.dock.run.cancel()
    one.until(lambda: not job(one).active, "its end")


def save(someone: User) -> Path:
    path = Path(someone.dock.session.folder) / "star.safetensors"
    saved: list[Path] = []
    someone.dock.session.recordings.saved.connect(saved.append)
    someone.dock.save_prior_to(str(path))
    someone.until(lambda: bool(saved), "the prior file")
    return path


@pytest.mark.slow
def test_layers_are_renamed_moved_changed_and_deleted_while_a_run_is_on(sit_down, clip):
    someone = sit_down()
    viewer, dock = someone.viewer, someone.dock
    video = ready(someone, clip)
    begin(someone)
    video.name = "another name"
    viewer.layers.reverse()
    image = next(layer for layer in viewer.layers if layer.name == "image")
    dock.images.choose(image)
    click(someone)  # a preview while tracking
    image.data = SAMPLE.prior[::2, ::2].copy()  # of another size
    labels = dock.run.labels.layer
    labels.name = "my labels"
    viewer.layers.move(viewer.layers.index(labels), 0)
    for layer in [layer for layer in viewer.layers if layer not in (video, labels, image)]:
        if layer in viewer.layers:  # the preview goes with the points
            viewer.layers.remove(layer)
    someone.scrub(3)
    viewer.add_image(np.zeros((4, 8, 8), np.uint8), name="more")
    viewer.layers.remove(labels)
    someone.qtbot.wait(50)
    viewer.layers.remove(video)
    viewer.layers.remove(image)
    store = finish(someone)
    whole = labels_of(store)
    assert whole.any()

    # and everything deleted while the next run is on
    dock.open_video_from(str(clip))
    someone.until(
        lambda: dock.videos.current is not None and dock.videos.current.name == "fox.mp4", "the video"
    )
    dock.videos.choose(next(layer for layer in viewer.layers if layer.name == "fox.mp4"))
    begin(someone)
    viewer.layers.clear()
    again = finish(someone)
    assert again != store and np.array_equal(labels_of(again), whole)
    dock.corrections.remember_frame()
    assert "Open a video" in someone.says


@pytest.mark.slow
def test_an_arrays_layer_gets_other_data_or_goes_while_it_is_tracked(sit_down, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_samexp._qt.tracking.run_control.store_folder", lambda path: tmp_path)
    someone = sit_down()
    viewer, dock = someone.viewer, someone.dock
    ready(someone, None)
    with open_video(SAMPLE.clip_path) as clip:
        series = np.asarray(clip[:FRAMES])
    stores = []
    for change in ("nothing", "other data", "another size", "deleted"):
        layer = viewer.add_image(series.copy(), name=f"series {change}", rgb=True)
        someone.until(lambda layer=layer: layer.name in items(dock), "the series being offered")
        dock.videos.choose(layer)
        begin(someone)
        if change == "other data":
            layer.data = np.zeros_like(series)
        elif change == "another size":
            layer.data = np.zeros((3, 32, 32, 3), np.uint8)
        elif change == "deleted":
            viewer.layers.remove(layer)
        stores.append(finish(someone))
        if layer in viewer.layers:
            viewer.layers.remove(layer)
    first, *others = map(labels_of, stores)
    assert first.any() and all(np.array_equal(first, each) for each in others)


def items(dock: Any) -> list[str]:
    combo = dock.panel.video
    return [combo.itemText(index) for index in range(combo.count())]


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import napari
from tests._qt.user import User, Waiter
from napari_samexp.samples import load_sample

sample = load_sample()
viewer = napari.Viewer(show=True)
_, dock = viewer.window.add_plugin_dock_widget("napari-samexp", "Prior tracking")
someone = User(viewer, dock, Waiter())
someone.until(lambda: dock.session.models.state.usable and dock.prompts.begun)
dock.load_prior_from(sys.argv[3])
someone.until(lambda: bool(dock.session.recordings.all))
dock.open_video_from(sys.argv[2])
someone.until(lambda: dock.videos.current is not None)
dock.run.track()
someone.until(lambda: dock.session.tracking.job.done >= 2)
job, pid = dock.session.tracking.job, dock.session._proxy.engine.pid
print(pid, job.done, job.store, flush=True)
viewer.close()
"""


@pytest.mark.slow
def test_napari_closed_while_tracking_leaves_frames_and_no_process(sit_down, tmp_path):
    # so long that no machine is through with it before the window is closed
    clip = write_clip(tmp_path / "fox.mp4", LONG)
    someone = sit_down()
    ready(someone, None)
    prior = tmp_path / "star.safetensors"
    shutil.copy(save(someone), prior)
    # in a process of its own, which has to end by itself
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT), str(clip), str(prior)],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert run.returncode == 0 and "Traceback" not in run.stderr, run.stderr
    pid, done, store = run.stdout.split()
    assert not psutil.pid_exists(int(pid))
    assert not list(Path("/dev/shm").glob(f"smx{pid}-*")) if os.name != "nt" else True
    with LabelStore.open(store) as left:  # nobody holds it
        assert int(done) <= left.done.sum() < LONG

    # and in this one, where the interpreter lives on
    someone.dock.open_video_from(str(clip))
    someone.until(lambda: someone.dock.videos.current is not None, "the video")
    begin(someone)
    engine, store = someone.dock.session._proxy.engine, job(someone).store
    someone.leave()
    someone.qtbot.waitUntil(lambda: engine.pid is None, timeout=30_000)
    with LabelStore.open(store) as left:
        assert 2 <= left.done.sum() < LONG
