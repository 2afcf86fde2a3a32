"""What is shown may be a stand-in for a moment; what is read is exact."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from napari_samexp._qt.frame_feed import FrameFeed
from napari_samexp._qt.shown_video import ShownVideo, add_video, video_of
from napari_samexp.io.video import open_video


class SlowFrames:
    """A video of which a gate holds back every frame but the first."""

    shape = (50, 40, 60, 3)
    fps = None
    fingerprint = "slow"

    def __init__(self):
        self.gate = threading.Event()
        self.decoded = []

    def __len__(self):
        return self.shape[0]

    def frame(self, index, *, on_way=None):
        if index:
            self.gate.wait(2)
        self.decoded.append(index)
        return np.full(self.shape[1:], index, np.uint8)


def feed_of(video, **more):
    feed = FrameFeed(video, **more)
    feed.put(0, video.frame(0))
    return feed


def test_the_newest_wish_comes_before_older_ones():
    video = SlowFrames()
    feed = feed_of(video, cache_bytes=0)
    arrived = []
    feed.on_frame = arrived.append
    for index in (10, 20, 30, 40):
        assert feed.wish(index) is None
    video.gate.set()
    deadline = time.monotonic() + 5
    while 40 not in arrived and time.monotonic() < deadline:
        time.sleep(0.005)
    assert set(arrived) <= {10, 40}  # what had begun, and what was wished for last


def test_a_wish_waits_no_longer_than_it_may():
    feed = feed_of(SlowFrames())
    began = time.perf_counter()
    assert feed.wish(1, 0.02) is None
    assert time.perf_counter() - began < 0.5


def test_neighbours_are_ready_beforehand():
    video = SlowFrames()
    video.gate.set()
    feed = feed_of(video)
    assert feed.wish(5, 5.0) is not None
    deadline = time.monotonic() + 5
    while feed.get(13) is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert all(feed.get(index) is not None for index in range(3, 14))


def test_the_nearest_ready_frame_stands_in():
    video = SlowFrames()
    feed = feed_of(video)
    feed.put(10, np.zeros(video.shape[1:], np.uint8))
    assert feed.nearest(8)[0] == 10
    assert feed.nearest(2)[0] == 0


def test_reading_is_exact(viewer, video, frames):
    layer = add_video(viewer, video)
    for index in (8, 0, 5):
        np.testing.assert_array_equal(layer.data[index], frames[index])
        np.testing.assert_array_equal(layer.data[index : index + 1, :, :], frames[index : index + 1])
    np.testing.assert_array_equal(np.asarray(layer.data), frames)
    assert video_of(layer) is video


@pytest.fixture
def slow_layer(qtbot, viewer, monkeypatch):
    stack = np.arange(60, dtype=np.uint8)[:, None, None, None] * np.ones((1, 40, 60, 3), np.uint8)
    video = open_video(stack)
    gate = threading.Event()
    frame = type(video).frame

    def held(self, index, **more):
        if index > 20:
            gate.wait(5)
        return frame(self, index, **more)

    monkeypatch.setattr(type(video), "frame", held)
    yield add_video(viewer, video), gate
    gate.set()


def test_a_stand_in_is_marked_and_then_replaced(qtbot, viewer, slow_layer):
    layer, gate = slow_layer
    shown = []
    layer.events.set_data.connect(lambda event: shown.append(layer.data.waiting))
    viewer.dims.set_current_step(0, 40)
    assert layer.data.waiting == 40
    gate.set()
    qtbot.waitUntil(lambda: layer.data.waiting is None)
    assert shown[0] == 40
    assert shown[-1] is None


def test_whole_videos_are_refused_without_harm(viewer, tmp_path):
    big = open_video(np.broadcast_to(np.uint8(0), (2000, 1080, 1920, 3)))
    with pytest.raises(MemoryError):
        np.asarray(ShownVideo(big))
