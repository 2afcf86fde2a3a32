"""Which frames a run takes, which were lost, and how fast it is."""

from __future__ import annotations

from typing import Any

import pytest

from napari_samexp.errors import SettingsError
from napari_samexp.session import lost_frames, next_lost, previous_lost, select_frames
from napari_samexp.session.frames import frames_from_details, speed
from tests.session.harness import GOOD, LOST


@pytest.mark.parametrize(
    ("choice", "options", "expected"),
    [
        ("all", {}, range(10)),
        ("all", {"direction": "backward"}, range(9, -1, -1)),
        ("from here", {"current": 4}, range(4, 10)),
        ("from here", {"current": 4, "direction": "backward"}, range(4, 10)),
        ("backward from here", {"current": 4}, range(4, -1, -1)),
        ("range", {"first": 2, "last": 5}, range(2, 6)),
        ("range", {"first": 5, "last": 2, "direction": "backward"}, range(5, 1, -1)),
        ("range", {"first": 7}, range(7, 10)),
    ],
)
def test_frames_are_chosen(choice: Any, options: dict[str, Any], expected: range) -> None:
    assert select_frames(choice, 10, **options) == expected


@pytest.mark.parametrize(
    ("choice", "options"), [("some", {}), ("range", {"last": 10}), ("from here", {"current": -1})]
)
def test_frames_that_are_not_there_are_refused(choice: Any, options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        select_frames(choice, 10, **options)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ({"range": [8, 2, -1]}, range(8, 2, -1)),
        ({"list": [1, 3]}, [1, 3]),
        ({"range": [0, 99, 1]}, range(10)),
        ({"list": []}, range(10)),
        ({"range": ["a"]}, range(10)),
        (None, range(10)),
    ],
)
def test_frames_of_a_store_are_found_again(frames: Any, expected: Any) -> None:
    assert frames_from_details({"frames": frames}, 10) == expected


def test_lost_frames_are_found_in_both_directions() -> None:
    scores = {5: {1: LOST, 2: GOOD}, 2: {1: GOOD, 2: LOST}, 7: {1: GOOD, 2: GOOD}}
    assert lost_frames(scores) == [2, 5] and lost_frames(scores, 1) == [5]
    assert (next_lost(scores, 2), next_lost(scores, 5), next_lost(scores, 0, 1)) == (5, None, 5)
    assert lost_frames(scores, painted={2}) == [5]
    assert (next_lost(scores, 0, None, {2}), previous_lost(scores, 5, None, {2})) == (5, None)
    assert (previous_lost(scores, 5), previous_lost(scores, 2), previous_lost(scores, 9, 2)) == (2, None, 2)


def test_speed_is_that_of_the_last_frames() -> None:
    assert speed([], 5) == (None, None)
    assert speed([100.0, *[0.5] * 20], 10) == (2.0, 5.0)
