"""What a run is said to take: from three frames, for all frames and other sides."""

from __future__ import annotations

from typing import Any

import pytest

from napari_samexp.sam.variants import VARIANTS
from napari_samexp.tracking.forecast import ENOUGH, Forecast, Work, proposed_side, time_words
from napari_samexp.tracking.settings import SIDES, TrackSettings

HW = (480, 854)


def work(name: str = "sam2.1_hiera_tiny", recordings: int = 1, labels: int = 1, **settings: Any) -> Work:
    return Work(
        VARIANTS[name],  # type: ignore[arg-type]
        TrackSettings(**settings),
        HW,
        dict.fromkeys(range(1, labels + 1), recordings),
    )


def at_a_pace(asked: Work, pace: float = 1e-11) -> Forecast:
    """A forecast whose frames took exactly what their work takes at a pace."""
    forecast = Forecast(asked)
    for seen in range(ENOUGH):
        forecast.observe(pace * asked.multiplications(seen))
    return forecast


def test_frames_cost_more_until_memory_is_full_and_never_after() -> None:
    costs = [work().multiplications(seen) for seen in range(40)]
    assert costs[:16] == sorted(set(costs[:16]))
    assert len(set(costs[15:])) == 1
    alone = work(store_memories=False)
    assert alone.multiplications(40) == alone.multiplications(0) == costs[0]


@pytest.mark.parametrize(("side", "low", "high"), [(768, 0.37, 0.43), (512, 0.11, 0.15)])
def test_smaller_sides_cost_what_was_measured_of_metas_code(side: int, low: float, high: float) -> None:
    # one thread, whole frames: 0.39 and 0.13 of the frame at 1024
    ratio = work(side=side).multiplications(20) / work().multiplications(20)
    assert low < ratio < high


def test_work_grows_with_labels_recordings_and_size_of_the_model() -> None:
    base = work().multiplications(20)
    ten = work(labels=10).multiplications(20)
    assert base < ten < 10 * base  # the image is encoded once
    assert work(recordings=32).multiplications(20) > 2 * base
    assert work("sam2.1_hiera_large").multiplications(20) > base
    assert work("edgetam").multiplications(20) < base / 3
    wide = work(square=False)
    assert wide.multiplications(20) < base


def test_a_forecast_is_that_of_the_counted_frames() -> None:
    asked = work()
    forecast = at_a_pace(asked)
    expected = sum(1e-11 * asked.multiplications(seen) for seen in range(100))
    assert forecast.seconds(asked, 100) == pytest.approx(expected)
    assert forecast.left(97) == pytest.approx(
        expected - sum(1e-11 * asked.multiplications(seen) for seen in range(ENOUGH))
    )
    assert forecast.seconds(asked, 2) == pytest.approx(
        1e-11 * (asked.multiplications(0) + asked.multiplications(1))
    )


def test_first_frames_alone_would_promise_too_much() -> None:
    asked = work()
    forecast = at_a_pace(asked)
    naive = 1e-11 * sum(asked.multiplications(seen) for seen in range(ENOUGH)) / ENOUGH * 100
    told = forecast.seconds(asked, 100)
    assert told is not None
    assert told > 1.25 * naive


def test_one_slow_frame_changes_nothing() -> None:
    asked, forecast = work(), Forecast(work())
    for seen, factor in enumerate((5.0, 1.0, 1.0)):
        forecast.observe(factor * 1e-11 * asked.multiplications(seen))
    assert forecast.seconds(asked, 50) == pytest.approx(at_a_pace(asked).seconds(asked, 50))


def test_nothing_is_said_before_enough_frames() -> None:
    forecast = Forecast(work())
    forecast.observe(1.0)
    forecast.observe(1.0)
    assert not forecast.ready
    assert forecast.left(10) is None
    assert forecast.seconds(work(), 10) is None
    assert proposed_side(forecast, work(), 10**6, "cpu") is None


def test_a_side_is_proposed_where_a_cpu_would_take_long() -> None:
    asked = work()
    forecast = at_a_pace(asked)  # 3.5 s a full frame
    assert proposed_side(forecast, asked, 50, "cpu") is None
    assert proposed_side(forecast, asked, 300, "cpu") == 768
    assert proposed_side(forecast, asked, 1000, "cpu") == 512
    assert proposed_side(forecast, asked, 10**6, "cpu") == min(SIDES)  # the smallest, if none is quick
    assert proposed_side(forecast, asked, 10**6, "cuda:0") is None
    assert proposed_side(forecast, work(side=512), 10**6, "cpu") is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (8.7, "9 s"),
        (42, "40 s"),
        (58, "1 min"),
        (250, "4 min"),
        (1700, "30 min"),
        (5400, "1.5 h"),
        (90000, "25 h"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert time_words(seconds) == words
