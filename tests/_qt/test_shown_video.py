"""What is shown may be a stand-in for a moment; what is read is exact."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from napari.layers.utils.stack_utils import stack_to_images

from napari_samexp._qt.frame_feed import FrameFeed
from napari_samexp._qt.shown_video import ShownVideo, add_video, video_of
from napari_samexp.io.video import FrameNotWanted, open_video


class SlowFrames:
    """A video of which a gate holds back every frame but the first."""

    shape = (50, 40, 60, 3)
    fps = None
    fingerprint = "slow"

    def __init__(self):
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.decoded = []

    def __len__(self):
        return self.shape[0]

    def frame(self, index, *, on_way=None):
        if index:
            self.begun.set()
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
    assert feed.request(10) is None
    assert video.begun.wait(2)  # or a thread that starts late would begin with a later wanted
    for index in (20, 30, 40):
        assert feed.request(index) is None
    video.gate.set()
    deadline = time.monotonic() + 5
    while 40 not in arrived and time.monotonic() < deadline:
        time.sleep(0.005)
    assert set(arrived) <= {10, 40}  # what had begun, and what was requested for last


class LongWay:
    """A video of one group of images: all frames before the one asked for are passed, each when it may."""

    shape = (200, 4, 4, 3)

    def __init__(self):
        self.may_pass = threading.Semaphore(0)
        self.asked = []

    def __len__(self):
        return self.shape[0]

    def frame(self, index, *, on_way=None):
        self.asked.append(index)
        for passed in range(index):
            assert self.may_pass.acquire(timeout=5)
            if on_way is not None and not on_way(passed, lambda passed=passed: self._image(passed)):
                raise FrameNotWanted("given up")
        return self._image(index)

    def _image(self, index):
        return np.full(self.shape[1:], index, np.uint8)


def until(so):
    deadline = time.monotonic() + 5
    while not so() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert so()


def test_a_wish_is_given_up_on_the_way_for_a_newer_one():
    video = LongWay()
    feed = feed_of(video)
    arrived = []
    feed.on_frame = arrived.append
    feed.request(150)
    until(lambda: 150 in video.asked)
    feed.request(20)
    video.may_pass.release(22)  # what the old wanted passes before it is asked, and the new one needs
    until(lambda: 20 in arrived)
    assert 150 not in arrived
    assert feed.get(20)[0, 0, 0] == 20
    assert feed.problem(150) is None
    video.may_pass.release(10_000)


def test_on_a_long_way_nearer_frames_stand_in():
    video = LongWay()
    feed = feed_of(video)
    arrived = []
    feed.on_frame = arrived.append
    feed.request(150)
    video.may_pass.release(100)
    until(lambda: arrived)
    until(lambda: feed.nearest(150)[0] > 70)
    assert feed.nearest(150)[1][0, 0, 0] == feed.nearest(150)[0]
    assert len(arrived) < 5  # drawing takes longer than decoding
    video.may_pass.release(10_000)


def test_what_waits_for_a_frame_is_drawn_anew_with_a_nearer_one(viewer, slow_layer):
    layer, _ = slow_layer
    shown = []
    near = np.zeros(layer.data.shape[1:], np.uint8)
    layer.data.feed.put(30, near)
    viewer.dims.set_current_step(0, 50)
    layer.events.set_data.connect(lambda event: shown.append(layer.data.waiting))
    layer.data._refresh(10)  # further away than what is shown
    assert not shown
    layer.data.feed.put(40, near.copy())
    layer.data._refresh(40)
    assert shown == [50]


def test_napari_splitting_a_stack_reads_exact_frames(viewer, slow_layer):
    layer, gate = slow_layer
    held, decode = threading.Event(), layer.data.feed._decode
    layer.data.feed._decode = lambda index: held.wait(5)  # no more frames become ready to be shown
    viewer.dims.set_current_step(0, 40)
    gate.set()
    assert layer.data.waiting == 40
    split = stack_to_images(layer, 0)
    layer.data.feed._decode = decode  # else its thread would ask for the same frame for ever
    held.set()
    assert [int(np.asarray(image.data).max()) for image in split] == list(range(60))


def test_a_wish_waits_no_longer_than_it_may():
    feed = feed_of(SlowFrames())
    began = time.perf_counter()
    assert feed.request(1, 0.02) is None
    assert time.perf_counter() - began < 0.5


def test_neighbours_are_ready_beforehand():
    video = SlowFrames()
    video.gate.set()
    feed = feed_of(video)
    assert feed.request(5, 5.0) is not None
    deadline = time.monotonic() + 5
    ready: list[bool] = [False]
    while not all(ready) and time.monotonic() < deadline:
        time.sleep(0.005)
        ready = [feed.get(index) is not None for index in range(3, 14)]
    assert all(ready)


@pytest.mark.parametrize("room", [0, 1, 2, 3, 4, 6])
def test_frames_too_large_for_the_cache_are_shown_and_decoded_once(room):
    video = SlowFrames()
    video.gate.set()
    feed = feed_of(video, cache_bytes=room * int(np.prod(video.shape[1:])))
    assert feed.request(25, 5.0) is not None
    time.sleep(0.3)
    assert len(video.decoded) == len(set(video.decoded)) <= 1 + max(1, room)


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
