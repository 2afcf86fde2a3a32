"""What a video holds in the system (threads, handles) does not grow while it is read, nor stay once it is closed."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import psutil
import pytest

from napari_samexp.io._cache import FrameCache
from napari_samexp.io.video import LazyVideo, open_video, read_frame
from napari_samexp.tracking import Tracker, TrackSettings
from napari_samexp.tracking.run import open_store, track_into
from napari_samexp.types import Prompt
from tests import tiny_run

COUNT = 240


def held() -> dict[str, int]:
    """Return the threads and the handles of this process."""
    gc.collect()
    process = psutil.Process()
    handles = process.num_handles() if psutil.WINDOWS else process.num_fds()
    return {"threads": process.num_threads(), "handles": handles}


def no_more(before: dict[str, int]) -> None:
    now = held()
    assert all(now[what] <= before[what] for what in now), f"{before} became {now}"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    frames = tiny_run.drawn_frames()
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"g": "30"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for number in range(COUNT):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frames[number % len(frames)], format="rgb24")))
        file.mux(stream.encode(None))
    return path


def forward(video: LazyVideo) -> None:
    for index in range(COUNT):
        video.frame(index)


def scrub(video: LazyVideo) -> None:
    places = random.Random(1)
    for _ in range(60):
        video.frame(places.randrange(COUNT), on_way=lambda passed, image: image() is not None)


@pytest.mark.parametrize("read", [forward, scrub])
def test_reading_holds_no_more_the_longer_it_goes_on(clip: Path, read: Callable[[LazyVideo], None]) -> None:
    with open_video(clip) as video:
        for index in range(10):
            video.frame(index)
        before = held()
        read(video)
        no_more(before)


def test_fifty_closed_videos_hold_nothing(clip: Path) -> None:
    with open_video(clip) as video:
        video.frame(3)
    before = held()
    videos = []
    for _ in range(50):
        videos.append(open_video(clip))
        videos[-1].frame(3)
        videos[-1].close()
    no_more(before)
    assert {video.fps for video in videos} == {25.0}  # what is known of a video is still there


def test_one_frame_keeps_none_of_those_on_the_way(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    put = FrameCache.put

    def watched(self: FrameCache[Any], index: int, frame: Any, nbytes: int) -> None:
        put(self, index, frame, nbytes)
        kept.append(len(self))

    monkeypatch.setattr(FrameCache, "put", watched)
    read_frame(f"{clip}@25")
    assert set(kept) == {0}


def test_tracking_holds_no_more_the_longer_it_goes_on(clip: Path, tmp_path: Path, sam21: Any) -> None:
    prior = tiny_run.prior_of(sam21, [(1, Prompt.from_lists([[50, 24]]))])
    settings = TrackSettings(side=tiny_run.SIDE, recent=2, pointers=3)
    counts = []
    with (
        open_video(clip) as video,
        open_store(tmp_path / "run.zarr", sam21, prior, settings, video) as store,
    ):
        for tracked, _ in enumerate(track_into(store, Tracker(sam21, prior, settings), video, range(60))):
            if tracked in (10, 59):
                counts.append(held())
    assert all(counts[1][what] <= counts[0][what] for what in counts[0]), counts
