"""A session with position encodings, without a worker: which wanted is sent, and which reply still counts."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_samexp.engine.messages.base import CANCEL, Failed, Progress, Reply, Request, WorkerDied
from napari_samexp.engine.messages.encodings import (
    ComputeEncoding,
    DescribeEncodings,
    EncodingComputed,
    Encodings,
)
from napari_samexp.engine.sharing import write_shared
from napari_samexp.errors import CheckpointError, SamexpError, SettingsError
from napari_samexp.sam.encoding_spec import EncodingSpec
from napari_samexp.session.encoding_session import EncodingSession
from napari_samexp.session.encodings import MapRequest

PARTS = (
    EncodingSpec("absolute", "absolute", "", 4, (8, 8), tiled=True),
    EncodingSpec("relative:0", "relative", "", 2, (3, 3), resizable=False, kind="offsets"),
)


class SlowEngine:
    """Keeps what it was asked, and answers when the test says so."""

    def __init__(self, on_reply: Callable[[Reply], None]) -> None:
        self.on_reply = on_reply
        self.requests: list[Any] = []
        self.closed = False

    def start(self) -> None:
        pass

    def submit(self, request: Request, holds: tuple[object, ...] = ()) -> int:
        self.requests.append(request)
        return len(self.requests)

    def close(self) -> None:
        self.closed = True

    def describe(self, name: str = "tiny") -> None:
        assert isinstance(self.requests[-1], DescribeEncodings)
        self.on_reply(Encodings(len(self.requests), name, "SAM 2", f"{name}.pt", PARTS))

    def compute(self, number: int | None = None) -> None:
        """Answer a map with values that say which grid was asked for."""
        number = number or len(self.requests)
        request = self.requests[number - 1]
        assert isinstance(request, ComputeEncoding)
        part = next(part for part in PARTS if part.name == request.part)
        shape = part.map_shape(request.grid_hw)
        write_shared(request.into, np.full(shape, request.grid_hw[0], np.float32))
        self.on_reply(EncodingComputed(number, shape))


class SessionHarness:
    """A session, its engine, and what was notices."""

    def __init__(self, home: Path) -> None:
        self.calls: queue.Queue[Callable[[], None]] = queue.Queue()
        engines: list[SlowEngine] = []

        def make(on_reply: Callable[[Reply], None]) -> Any:
            engines.append(SlowEngine(on_reply))
            return engines[0]

        self.session = EncodingSession(deliver=self.calls.put, home=home, make_engine=make)
        self.engine, self.source = engines[0], self.session.first
        self.maps: list[Any] = []
        self.notices: list[str] = []
        self.source.changed.connect(self.maps.append)
        self.source.failed.connect(self.notices.append)

    def run(self, until: Callable[[], bool] = lambda: True) -> None:
        """Deliver what has come, and what comes until something is so."""
        end = time.monotonic() + 60
        while not (until() and self.calls.empty()):
            assert time.monotonic() < end
            try:
                self.calls.get(timeout=0.01)()
            except queue.Empty:
                continue

    def open(self, name: str = "tiny") -> None:
        self.source.choose(name)
        self.engine.describe(name)
        self.run()

    def maps_asked(self) -> list[tuple[int, int]]:
        return [asked.grid_hw for asked in self.engine.requests if isinstance(asked, ComputeEncoding)]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[SessionHarness]:
    made = SessionHarness(tmp_path)
    yield made
    made.session.close()
    assert made.engine.closed


def test_a_map_knows_what_was_asked(session: SessionHarness) -> None:
    session.open()
    session.source.request(MapRequest("absolute", None, window_tile=False, dtype="bfloat16"))
    session.engine.compute()
    session.run(lambda: bool(session.maps))
    made = session.maps[0]
    assert made is session.source.current
    assert (made.model, made.weights, made.grid_hw) == ("tiny", "tiny.pt", (8, 8))  # the model's own grid
    assert (made.part, made.window_tile, made.dtype) == ("absolute", False, "bfloat16")
    np.testing.assert_array_equal(made.values, np.full((4, 8, 8), 8))


def test_of_all_wishes_meanwhile_the_newest_wins(session: SessionHarness) -> None:
    session.open()
    for height in range(2, 30):
        session.source.request(MapRequest(grid_hw=(height, 5)))
    assert session.maps_asked() == [(2, 5)]  # one at a time
    session.engine.compute()
    session.run(lambda: len(session.maps) == 1)
    assert session.maps_asked() == [(2, 5), (29, 5)]
    session.engine.compute()
    session.run(lambda: len(session.maps) == 2)
    assert session.maps[1].values.max() == 29
    assert len(session.maps_asked()) == 2


def test_a_map_of_the_model_before_comes_too_late(session: SessionHarness) -> None:
    session.open()
    session.source.request(MapRequest(grid_hw=(3, 3)))
    late = len(session.engine.requests)
    session.open("other")
    session.source.request(MapRequest(grid_hw=(4, 4)))
    session.engine.compute(late)
    session.run()
    assert not session.maps and session.maps_asked()[-1] == (4, 4)
    session.engine.compute()
    session.run(lambda: bool(session.maps))
    assert [made.model for made in session.maps] == ["other"]


def test_a_map_that_is_held_does_not_change_with_the_next(session: SessionHarness) -> None:
    session.open()
    for height in (5, 6):  # which lies in the same block of shared memory
        session.source.request(MapRequest(grid_hw=(height, 6)))
        session.engine.compute()
        session.run(lambda height=height: len(session.maps) == height - 4)
    assert [made.values.max() for made in session.maps] == [5, 6]


def test_wishes_that_cannot_be_are_refused_at_once(session: SessionHarness) -> None:
    with pytest.raises(SamexpError, match="choose one first"):
        session.source.request(MapRequest())
    session.open()
    with pytest.raises(CheckpointError, match="it has absolute, relative:0"):
        session.source.request(MapRequest("rotary"))
    with pytest.raises(SettingsError, match="give 1 to 1024"):
        session.source.request(MapRequest(grid_hw=(0, 4)))
    with pytest.raises(SettingsError, match="never used on another grid than 3 x 3"):
        session.source.request(MapRequest("relative:0", (4, 4)))
    assert not session.maps_asked()


def test_offsets_need_room_for_both_directions(session: SessionHarness) -> None:
    session.open()
    session.source.request(MapRequest("relative:0"))
    session.engine.compute()
    session.run(lambda: bool(session.maps))
    assert session.maps[0].values.shape == (2, 5, 5) and session.maps[0].grid_hw == (3, 3)


def test_a_failure_is_told_and_the_next_wish_goes_on(session: SessionHarness) -> None:
    session.open()
    session.source.request(MapRequest(grid_hw=(3, 3)))
    session.source.request(MapRequest(grid_hw=(4, 4)))
    session.engine.on_reply(Failed(len(session.engine.requests), "No room."))
    session.run()
    assert session.notices == ["No room."] and session.maps_asked()[-1] == (4, 4)


def test_a_download_is_told_and_can_be_cancelled(session: SessionHarness) -> None:
    seen: list[tuple[int, int | None]] = []
    session.source.progress.connect(lambda done, total: seen.append((done, total)))
    session.source.choose("sam_vit_h")
    assert session.source.opening
    session.engine.on_reply(Progress(1, "bytes", 5, 9))
    session.source.cancel()
    assert session.engine.requests[-1] == CANCEL
    session.engine.on_reply(Failed(1, "Cancelled."))
    session.run()
    assert seen == [(5, 9)] and session.notices == ["Cancelled."] and not session.source.opening


def test_only_the_newest_question_for_frequencies_is_answered(session: SessionHarness) -> None:
    session.open()
    session.source.request(MapRequest())
    session.engine.compute()
    session.run(lambda: bool(session.maps))
    first: list[Any] = []
    second: list[Any] = []
    session.session.frequencies(session.maps[0], first.append)
    session.session.frequencies(session.maps[0], second.append)
    session.run(lambda: bool(second))
    assert not first and second[0].shape == (4,)


def test_many_questions_for_frequencies_take_one_thread(session: SessionHarness) -> None:
    """While one is worked on, the others wait without a thread each; then the newest has its turn."""
    begun, go_on = threading.Event(), threading.Event()
    answers: list[Any] = []

    class SlowMap:
        asked = 0

        def frequencies(self) -> np.ndarray:
            SlowMap.asked += 1
            begun.set()
            assert go_on.wait(20)
            return np.zeros(4, np.float32)

    for number in range(50):
        session.session.frequencies(SlowMap(), lambda found, number=number: answers.append(number))
        assert begun.wait(20)
    assert sum("frequencies" in thread.name for thread in threading.enumerate()) == 1
    go_on.set()
    session.run(lambda: bool(answers))
    assert answers == [49] and SlowMap.asked == 2


def test_the_end_of_the_worker_is_told(session: SessionHarness) -> None:
    notices: list[str] = []
    session.session.notice.connect(notices.append)
    session.engine.on_reply(WorkerDied(0, "It ended.", True))
    session.run()
    assert notices == ["It ended."]
