"""One frame is read ahead, and nothing shows of it but the time that it saves."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from napari_samexp.errors import VideoError
from napari_samexp.io.video import LazyVideo, open_video
from napari_samexp.tracking.prefetch import Prefetcher
from tests import tiny_run


class Watched(LazyVideo):
    """Notes on which thread each frame was read; one of them is damaged."""

    asked: list[tuple[int, str]]
    damaged = -1

    def frame(self, index: int, **more: Any) -> Any:
        self.asked.append((index, threading.current_thread().name))
        if index == self.damaged:
            raise VideoError(f"Frame {index} is damaged.")
        return super().frame(index, **more)


@pytest.fixture
def watched() -> Watched:
    video = Watched(open_video(tiny_run.drawn_frames(6))._source)
    video.asked = []
    return video


def test_frames_are_those_of_the_video_and_all_but_the_first_come_from_the_thread(watched: Watched) -> None:
    frames = tiny_run.drawn_frames(6)
    with Prefetcher(watched) as ahead:
        for index in range(6):
            following = index + 1 if index < 5 else None
            np.testing.assert_array_equal(ahead.frame(index, following), frames[index])
    assert [index for index, _ in watched.asked] == list(range(6))
    assert [name.startswith("samexp prefetch") for _, name in watched.asked] == [False] + 5 * [True]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("samexp prefetch")]


def test_another_frame_than_foreseen_is_read_at_once(watched: Watched) -> None:
    with Prefetcher(watched) as ahead:
        ahead.frame(0, 1)
        np.testing.assert_array_equal(ahead.frame(4, None), tiny_run.drawn_frames(6)[4])


def test_a_damaged_frame_is_told_when_its_turn_comes(watched: Watched) -> None:
    watched.damaged = 1
    with Prefetcher(watched) as ahead:
        ahead.frame(0, 1)
        with pytest.raises(VideoError, match="Frame 1 is damaged"):
            ahead.frame(1, 2)


def test_nothing_is_read_ahead_of_other_sources() -> None:
    video = tiny_run.ArrayVideo(tiny_run.drawn_frames(3))
    with Prefetcher(video) as ahead:  # type: ignore[arg-type]
        ahead.frame(0, 1)
        assert video.asked == [0]


def test_the_thread_ends_when_a_video_is_closed_under_it(watched: Watched) -> None:
    with Prefetcher(watched) as ahead:
        ahead.frame(0, 1)
        watched.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("samexp prefetch")]
