"""A sitting with position encodings, without a worker: which wish is sent, and which reply still counts."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_samexp.engine.messages import (
    Cancel,
    ComputeEncoding,
    DescribeEncodings,
    EncodingComputed,
    Encodings,
    Failed,
    Progress,
    Reply,
    Request,
    WorkerDied,
)
from napari_samexp.engine.sharing import write_shared
from napari_samexp.errors import CheckpointError, SamexpError, SettingsError
from napari_samexp.sam.encoding_spec import Part
from napari_samexp.session.encodings import EncodingSession, MapWish

PARTS = (
    Part("absolute", "absolute", "", 4, (8, 8), tiled=True),
    Part("relative:0", "relative", "", 2, (3, 3), resizable=False, kind="offsets"),
)


class SlowEngine:
    """Keeps what it was asked, and answers when the test says so."""

    def __init__(self, on_reply: Callable[[Reply], None]) -> None:
        self.on_reply = on_reply
        self.asked: list[Any] = []
        self.closed = False

    def start(self) -> None:
        pass

    def submit(self, request: Request, holds: tuple[object, ...] = ()) -> int:
        self.asked.append(request)
        return len(self.asked)

    def close(self) -> None:
        self.closed = True

    def describe(self, name: str = "tiny") -> None:
        assert isinstance(self.asked[-1], DescribeEncodings)
        self.on_reply(Encodings(len(self.asked), name, "SAM 2", f"{name}.pt", PARTS))

    def compute(self, number: int | None = None) -> None:
        """Answer a map with values that say which grid was asked for."""
        number = number or len(self.asked)
        request = self.asked[number - 1]
        assert isinstance(request, ComputeEncoding)
        part = next(part for part in PARTS if part.name == request.part)
        shape = part.map_shape(request.grid_hw)
        write_shared(request.into, np.full(shape, request.grid_hw[0], np.float32))
        self.on_reply(EncodingComputed(number, shape))


class Sitting:
    """A session, its engine, and what was told."""

    def __init__(self, home: Path) -> None:
        self.calls: queue.Queue[Callable[[], None]] = queue.Queue()
        engines: list[SlowEngine] = []

        def make(on_reply: Callable[[Reply], None]) -> Any:
            engines.append(SlowEngine(on_reply))
            return engines[0]

        self.session = EncodingSession(deliver=self.calls.put, home=home, make_engine=make)
        self.engine, self.source = engines[0], self.session.first
        self.maps: list[Any] = []
        self.told: list[str] = []
        self.source.changed.connect(self.maps.append)
        self.source.failed.connect(self.told.append)

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
        return [asked.grid_hw for asked in self.engine.asked if isinstance(asked, ComputeEncoding)]


@pytest.fixture
def sitting(tmp_path: Path) -> Iterator[Sitting]:
    made = Sitting(tmp_path)
    yield made
    made.session.close()
    assert made.engine.closed


def test_a_map_knows_what_was_asked(sitting: Sitting) -> None:
    sitting.open()
    sitting.source.wish(MapWish("absolute", None, window_tile=False, dtype="bfloat16"))
    sitting.engine.compute()
    sitting.run(lambda: bool(sitting.maps))
    made = sitting.maps[0]
    assert made is sitting.source.current
    assert (made.model, made.weights, made.grid_hw) == ("tiny", "tiny.pt", (8, 8))  # the model's own grid
    assert (made.part, made.window_tile, made.dtype) == ("absolute", False, "bfloat16")
    np.testing.assert_array_equal(made.values, np.full((4, 8, 8), 8))


def test_of_all_wishes_meanwhile_the_newest_wins(sitting: Sitting) -> None:
    sitting.open()
    for height in range(2, 30):
        sitting.source.wish(MapWish(grid_hw=(height, 5)))
    assert sitting.maps_asked() == [(2, 5)]  # one at a time
    sitting.engine.compute()
    sitting.run(lambda: len(sitting.maps) == 1)
    assert sitting.maps_asked() == [(2, 5), (29, 5)]
    sitting.engine.compute()
    sitting.run(lambda: len(sitting.maps) == 2)
    assert sitting.maps[1].values.max() == 29
    assert len(sitting.maps_asked()) == 2


def test_a_map_of_the_model_before_comes_too_late(sitting: Sitting) -> None:
    sitting.open()
    sitting.source.wish(MapWish(grid_hw=(3, 3)))
    late = len(sitting.engine.asked)
    sitting.open("other")
    sitting.source.wish(MapWish(grid_hw=(4, 4)))
    sitting.engine.compute(late)
    sitting.run()
    assert not sitting.maps and sitting.maps_asked()[-1] == (4, 4)
    sitting.engine.compute()
    sitting.run(lambda: bool(sitting.maps))
    assert [made.model for made in sitting.maps] == ["other"]


def test_a_map_that_is_held_does_not_change_with_the_next(sitting: Sitting) -> None:
    sitting.open()
    for height in (5, 6):  # which lies in the same block of shared memory
        sitting.source.wish(MapWish(grid_hw=(height, 6)))
        sitting.engine.compute()
        sitting.run(lambda height=height: len(sitting.maps) == height - 4)
    assert [made.values.max() for made in sitting.maps] == [5, 6]


def test_wishes_that_cannot_be_are_refused_at_once(sitting: Sitting) -> None:
    with pytest.raises(SamexpError, match="choose one first"):
        sitting.source.wish(MapWish())
    sitting.open()
    with pytest.raises(CheckpointError, match="it has absolute, relative:0"):
        sitting.source.wish(MapWish("rotary"))
    with pytest.raises(SettingsError, match="give 1 to 1024"):
        sitting.source.wish(MapWish(grid_hw=(0, 4)))
    with pytest.raises(SettingsError, match="never used on another grid than 3 x 3"):
        sitting.source.wish(MapWish("relative:0", (4, 4)))
    assert not sitting.maps_asked()


def test_offsets_need_room_for_both_directions(sitting: Sitting) -> None:
    sitting.open()
    sitting.source.wish(MapWish("relative:0"))
    sitting.engine.compute()
    sitting.run(lambda: bool(sitting.maps))
    assert sitting.maps[0].values.shape == (2, 5, 5) and sitting.maps[0].grid_hw == (3, 3)


def test_a_failure_is_told_and_the_next_wish_goes_on(sitting: Sitting) -> None:
    sitting.open()
    sitting.source.wish(MapWish(grid_hw=(3, 3)))
    sitting.source.wish(MapWish(grid_hw=(4, 4)))
    sitting.engine.on_reply(Failed(len(sitting.engine.asked), "No room."))
    sitting.run()
    assert sitting.told == ["No room."] and sitting.maps_asked()[-1] == (4, 4)


def test_a_download_is_told_and_can_be_cancelled(sitting: Sitting) -> None:
    seen: list[tuple[int, int | None]] = []
    sitting.source.progress.connect(lambda done, total: seen.append((done, total)))
    sitting.source.choose("sam_vit_h")
    assert sitting.source.opening
    sitting.engine.on_reply(Progress(1, "bytes", 5, 9))
    sitting.source.cancel()
    assert isinstance(sitting.engine.asked[-1], Cancel)
    sitting.engine.on_reply(Failed(1, "Cancelled."))
    sitting.run()
    assert seen == [(5, 9)] and sitting.told == ["Cancelled."] and not sitting.source.opening


def test_only_the_newest_question_for_frequencies_is_answered(sitting: Sitting) -> None:
    sitting.open()
    sitting.source.wish(MapWish())
    sitting.engine.compute()
    sitting.run(lambda: bool(sitting.maps))
    first: list[Any] = []
    second: list[Any] = []
    sitting.session.frequencies(sitting.maps[0], first.append)
    sitting.session.frequencies(sitting.maps[0], second.append)
    sitting.run(lambda: bool(second))
    assert not first and second[0].shape == (4,)


def test_many_questions_for_frequencies_take_one_thread(sitting: Sitting) -> None:
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
        sitting.session.frequencies(SlowMap(), lambda found, number=number: answers.append(number))
        assert begun.wait(20)
    assert sum("frequencies" in thread.name for thread in threading.enumerate()) == 1
    go_on.set()
    sitting.run(lambda: bool(answers))
    assert answers == [49] and SlowMap.asked == 2


def test_the_end_of_the_worker_is_told(sitting: Sitting) -> None:
    told: list[str] = []
    sitting.session.notice.connect(told.append)
    sitting.engine.on_reply(WorkerDied(0, "It ended.", True))
    sitting.run()
    assert told == ["It ended."]
