"""Runs: shown, resumed, opened again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_samexp.engine.messages.base import (
    CANCEL,
    CONTINUE,
    PAUSE,
    RESET_RECENT,
    Control,
    VideoRef,
    Working,
)
from napari_samexp.engine.messages.model import Loaded, LoadModel
from napari_samexp.engine.messages.prompts import PriorState
from napari_samexp.engine.messages.tracking import FrameDone, PauseChanged, Track, TrackEnded, TrackStarted
from napari_samexp.errors import StoreError, VideoError
from napari_samexp.io import elsewhere
from napari_samexp.io.label_edits import EditableLabels
from napari_samexp.io.video import open_video
from napari_samexp.session import LastRun, Leftover
from napari_samexp.tracking.settings import TrackSettings
from tests.session.harness import GOOD, IMAGE, INFO, LOST, VIDEO, SessionHarness, result, store_at


def test_a_run_is_shown_as_it_goes(session: SessionHarness, tmp_path: Path) -> None:
    tracking, results, done, shown = session.session.tracking, session.session.results, [], []
    tracking.frame_done.connect(done.append)
    results.labels_changed.connect(shown.append)
    path = tmp_path / "s.zarr"
    number = session.track(path)
    _, request = session.engine.last(Track)
    assert (request.store, list(request.frames), request.keep) == (str(path), list(range(6)), frozenset())
    with pytest.raises(StoreError, match="already"):
        tracking.track(store=tmp_path / "t.zarr")
    with pytest.raises(VideoError, match="being tracked"):
        tracking.set_video(None)
    with store_at(path) as store:
        session.reply(
            Working(number, "tracking"), TrackStarted(number, str(path), (6, 8, 10), {1: "a"}, 0, 6)
        )
        for index, score in ((0, GOOD), (1, LOST), (2, GOOD)):
            store.write(result(index, score))
            session.reply(FrameDone(number, index, {1: score}, 0.5))
        assert done == [0, 1, 2] and results.scores[1] == {1: LOST}
        assert (results.next_lost(0), results.previous_lost(5), results.next_lost(1)) == (1, 1, None)
        assert (tracking.job.done, tracking.job.total, tracking.job.rate, tracking.job.left_s) == (
            3,
            6,
            2.0,
            1.5,
        )
        tracking.pause()
        session.reply(PauseChanged(number, True))
        tracking.resume()
        session.reply(PauseChanged(number, False))
        tracking.reset_memory()
        tracking.cancel()
        session.reply(TrackEnded(number, "cancelled"))
    controls = [request for _, request in session.engine.requests if isinstance(request, Control)]
    assert controls == [PAUSE, CONTINUE, RESET_RECENT, CANCEL]
    assert session.jobs == ["starting", *["tracking"] * 4, "paused", "tracking", "cancelled"]
    assert tracking.job.resumable and not session.notices
    tracking.resume()
    assert session.engine.last(Track)[1].resume
    assert len(shown) == 1 and results.labels is shown[0] and shown[0][1, 0, 1] == 1


def test_an_interrupted_run_goes_on_by_itself_if_it_got_anywhere(
    session: SessionHarness, tmp_path: Path
) -> None:
    session.load()
    model, _ = session.engine.last(LoadModel)
    number = session.track(tmp_path / "s.zarr", overwrite=True)
    store_at(tmp_path / "s.zarr").close()
    loaded = Loaded(model, INFO, PriorState())
    session.reply(TrackEnded(number, "interrupted", "It died."), loaded)
    assert session.session.tracking.job.state == "interrupted" and session.engine.count(Track) == 1
    session.session.tracking.resume()
    number, request = session.engine.last(Track)
    assert request.overwrite  # nothing had been replaced yet
    started = TrackStarted(number, str(tmp_path / "s.zarr"), (6, 8, 10), {1: "a"}, 0, 6)
    session.reply(
        started, FrameDone(number, 0, {1: GOOD}, 0.1), TrackEnded(number, "interrupted", "It died."), loaded
    )
    number, request = session.engine.last(Track)
    assert session.engine.count(Track) == 3 and request.resume and not request.overwrite
    session.reply(
        replace(started, id=number), FrameDone(number, 1, {1: GOOD}, 0.1), PauseChanged(number, True)
    )
    session.reply(TrackEnded(number, "interrupted", "It died."), loaded)
    assert session.engine.count(Track) == 3  # it was paused, and stays so
    session.session.tracking.cancel()
    assert session.session.tracking.job.state == "cancelled"


def test_videos_are_paths_for_the_worker_or_shared_from_here(session: SessionHarness, tmp_path: Path) -> None:
    tracking, seen = session.session.tracking, []
    tracking.video_changed.connect(seen.append)
    tracking.set_video(VIDEO, name="layer")
    assert tracking.video is not None and (tracking.video.stream, tracking.video.name) == (1, "layer")
    np.save(tmp_path / "x.npy", VIDEO)
    with pytest.raises(VideoError):
        tracking.set_video(tmp_path / "x.npy")
    assert tracking.video.stream == 1 and len(session.engine.videos) == 1
    folder = tmp_path / "clip"
    folder.mkdir()
    from PIL import Image

    Image.fromarray(IMAGE).save(folder / "0.png")
    tracking.set_video(folder)
    assert tracking.video == VideoRef("clip", (1, 8, 10, 3), path=str(folder), fps=tracking.video.fps)
    tracking.set_video(open_video(VIDEO), path=folder, limits=(0, 9))
    assert (tracking.video.path, tracking.video.limits, tracking.video.name) == (str(folder), (0, 9), "clip")
    tracking.set_video(None)
    assert seen[-1] is None
    with pytest.raises(VideoError, match="no video"):
        tracking.track(store=tmp_path / "s.zarr")


def test_the_last_run_comes_back(tmp_path: Path) -> None:
    from PIL import Image

    home, path, clip = tmp_path / "home", tmp_path / "s.zarr", tmp_path / "clip"
    clip.mkdir()
    for index in range(6):
        Image.fromarray(IMAGE).save(clip / f"{index}.png")
    first = SessionHarness(home)
    first.session.change_settings(recent=2)
    first.session.tracking.set_video(clip)
    first.session.tracking.track(store=path)
    first.session.close()
    settings = {"recent": 2, "of another version": 1}
    with store_at(path, video_path=str(clip), frames={"range": [1, 6, 1]}, settings=settings) as store:
        store.write(result(1, LOST))

    second = SessionHarness(home)
    assert second.session.settings.last_run == LastRun(str(path), str(clip))
    found: list[Leftover] = []
    second.session.left_found.connect(found.append)
    second.session.find_leftovers()
    second.wait()
    assert found == [Leftover(LastRun(str(path), str(clip)), None)]
    second.session.reopen(found[0], resume=True)
    second.wait()
    second.wait()
    number, request = second.engine.last(Track)
    assert (request.resume, list(request.frames), request.settings) == (
        True,
        [1, 2, 3, 4, 5],
        TrackSettings(recent=2),
    )
    assert request.video.path == str(clip) and second.session.results.scores == {1: {1: LOST}}
    second.reply(TrackStarted(number, str(path), (6, 8, 10), {1: "a"}, 1, 5))
    assert second.session.results.scores == {1: {1: LOST}} and second.session.tracking.job.done == 1
    with pytest.raises(StoreError, match="before you open"):
        second.session.tracking.open_run(path)
    second.reply(TrackEnded(number, "finished"))
    second.session.tracking.open_run(tmp_path / "gone.zarr")
    second.wait()
    assert "gone.zarr" in second.notices[-1]
    second.session.close()


def test_a_store_can_be_looked_at_without_its_video(session: SessionHarness, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    with store_at(path, video_path="gone.mp4", frames="nonsense", settings=3) as store:
        for index in range(6):
            store.write(result(index))
    session.session.tracking.open_run(path, resume=True)
    session.wait()
    assert session.session.tracking.job.state == "finished" and session.engine.count(Track) == 0
    assert (
        isinstance(session.session.results.labels, EditableLabels)
        and len(session.session.results.scores) == 6
    )
    with pytest.raises(StoreError, match="no run to resume"):
        session.session.tracking.resume()


def test_a_video_on_another_computer_is_opened_only_by_who_tracked_it(
    session: SessionHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(elsewhere, "WINDOWS", True)
    monkeypatch.setattr(
        "napari_samexp.session.videos.open_video", lambda path, **_: asked.append(path) or clip
    )
    clip = open_video(np.stack([IMAGE] * 6))
    path, video = tmp_path / "s.zarr", r"\\host\share\clip.mp4"
    with store_at(path, video_path=video) as store:
        store.write(result(0))
    session.session.tracking.open_run(path)
    session.wait()
    assert not asked and session.session.tracking.video is None
    assert "on the computer host" in session.notices[-1] and video in session.notices[-1]
    assert session.session.results.labels is not None  # the labels are shown all the same

    session.session.change_settings(last_run=LastRun(str(path), video))
    session.session.open_run(path)
    session.wait()
    assert asked == [video]


def test_scores_of_earlier_frames_come_with_a_run_that_is_resumed(
    session: SessionHarness, tmp_path: Path
) -> None:
    path = tmp_path / "s.zarr"
    with store_at(path) as store:
        store.write(result(0, LOST))
    number = session.track(path, resume=True)
    session.reply(
        TrackStarted(number, str(path), (6, 8, 10), {1: "a"}, 1, 6), FrameDone(number, 1, {1: GOOD}, 0.1)
    )
    session.wait()
    assert session.session.results.scores == {0: {1: LOST}, 1: {1: GOOD}}
