"""Prompts that make sense and those that do not, scores, and what counts as a video."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from napari_samexp import errors
from napari_samexp.errors import PriorError, PriorMismatch, PromptError, SamexpError, StoreError
from napari_samexp.types import FrameResult, ObjectScore, Prompt, RunIdentity, VideoSource
from tests import tiny_run


def refused(match: str, **parts: Any) -> str:
    with pytest.raises(PromptError, match=match) as error:
        Prompt(**parts)
    message = str(error.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_an_empty_prompt_is_allowed() -> None:
    for prompt in (Prompt(), Prompt.from_lists(), Prompt(np.zeros((0, 2)), []), Prompt([], [])):
        assert prompt.is_empty
        assert prompt.points_xy.shape == (0, 2)
        assert prompt.labels.shape == (0,)
        assert prompt.box_xyxy is None
        prompt.require_inside((1, 1))


def test_lists_become_arrays_objects_first() -> None:
    prompt = Prompt.from_lists([(1, 2), (3.5, 4)], [(5, 6)], [0, 1, 9, 8])
    assert prompt.points_xy.tolist() == [[1, 2], [3.5, 4], [5, 6]]
    assert prompt.labels.tolist() == [1, 1, 0]
    assert prompt.box_xyxy.tolist() == [0, 1, 9, 8]
    assert (prompt.points_xy.dtype, prompt.labels.dtype) == (np.float32, np.int64)
    assert prompt.box_xyxy.dtype == np.float32
    assert not prompt.is_empty


@pytest.mark.parametrize(
    "labels", [[1, 0], np.array([1, 0], np.uint8), [True, False], [1.0, 0.0], np.array([[1], [0]])]
)
def test_labels_may_be_any_numbers_that_are_0_or_1(labels: Any) -> None:
    prompt = Prompt([[1, 2], [3, 4]], labels)
    assert prompt.labels.tolist() == [1, 0]
    assert prompt.labels.dtype == np.int64


def test_one_part_is_enough() -> None:
    assert not Prompt(box_xyxy=[1, 2, 3, 4]).is_empty
    assert not Prompt([5, 6], [1]).is_empty
    assert Prompt([5, 6], 1).points_xy.tolist() == [[5, 6]]


def test_a_prompt_does_not_change() -> None:
    with pytest.raises(AttributeError):
        Prompt().labels = np.zeros(1)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("points", "labels", "match"),
    [
        ([[1, 2]], [], "1 points but 0 labels"),
        ([[1, 2]], [1, 1], "1 points but 2 labels"),
        ([], [1], "0 points but 1 labels"),
        ([[1, 2]], [2], "label 2"),
        ([[1, 2]], [-1], "label -1"),
        ([[1, 2]], [0.5], "label 0.5"),
        ([[1, 2]], [np.nan], "label nan"),
        ([[1, 2]], ["1"], "label 1"),
        ([[1, 2]], [None], "label None"),
        ([[1, 2], [3, 4]], [[1], [1, 0]], "labels are not"),
        ([[1, 2, 3]], [1], r"shape \(1, 3\)"),
        ([[1, 2, 3], [4, 5, 6]], [1, 1], r"shape \(2, 3\)"),
        ([1, 2, 3], [1], r"shape \(3,\)"),
        (5, [1], r"shape \(\)"),
        ([[1, 2], [3]], [1, 1], "not all numbers"),
        ([["a", "b"]], [1], "not all numbers"),
        ("here", [1], "not all numbers"),
        ([[1j, 2]], [1], "not all numbers"),
        ([[10**400, 2]], [1], "not all numbers"),
        ([[1e300, 2]], [1], "not a finite number"),
        ([[np.nan, 2]], [1], "not a finite number"),
        ([[1, -np.inf]], [1], "not a finite number"),
        (None, [], "not a finite number"),
    ],
)
def test_points_and_labels_that_make_no_sense_are_refused(points: Any, labels: Any, match: str) -> None:
    refused(match, points_xy=points, labels=labels)


@pytest.mark.parametrize(
    ("box", "match"),
    [
        ([1, 2, 3], "3 numbers"),
        ([], "0 numbers"),
        ([1, 2, 3, 4, 5], "5 numbers"),
        ([3, 2, 1, 4], "is empty"),
        ([1, 4, 3, 2], "is empty"),
        ([1, 2, 1, 4], "is empty"),
        ([1, 2, 3, 2], "is empty"),
        ([1, 2, np.inf, 4], "not a finite number"),
        ([1, 2, 10**400, 4], "not all numbers"),
        ([[1, 2], [3]], "not all numbers"),
        ("box", "not all numbers"),
    ],
)
def test_a_box_that_makes_no_sense_is_refused(box: Any, match: str) -> None:
    refused(match, box_xyxy=box)


def test_lists_that_make_no_sense_are_refused() -> None:
    for objects, background in (([[1, 2], [3]], []), ([], [["a", 1]]), ([[1, 2, 3]], [])):
        with pytest.raises(PromptError):
            Prompt.from_lists(objects, background)


def test_the_edges_of_a_image_are_inside() -> None:
    for x, y in ((-0.5, -0.5), (9.5, 4.5), (0, 0), (9, 4)):
        Prompt.from_lists([[x, y]]).require_inside((5, 10))
    Prompt.from_lists(box=[-5, -5, 0, 0]).require_inside((5, 10))
    Prompt.from_lists(box=[9, 4, 20, 20]).require_inside((5, 10))


@pytest.mark.parametrize(("x", "y"), [(-0.6, 0), (0, -0.6), (9.6, 0), (0, 4.6), (4.6, 9.6)])
def test_a_click_beyond_the_edge_is_outside(x: float, y: float) -> None:
    for prompt in (Prompt.from_lists([[x, y]]), Prompt.from_lists([[1, 1]], [[x, y]])):
        with pytest.raises(PromptError, match=rf"\({x:g}, {y:g}\).*10 wide and 5 high"):
            prompt.require_inside((5, 10))


@pytest.mark.parametrize("box", [(-3, 1, -1, 2), (1, -3, 2, -1), (9.5, 1, 12, 2), (1, 4.5, 2, 9)])
def test_a_box_that_touches_nothing_is_outside(box: Any) -> None:
    with pytest.raises(PromptError, match=r"box.*10 wide and 5 high"):
        Prompt.from_lists(box=box).require_inside((5, 10))


def test_below_0_is_lost() -> None:
    assert ObjectScore(-0.1, 0.9).lost
    assert not ObjectScore(0.1, 0.9).lost


def test_every_error_is_one_to_be_shown() -> None:
    names = [name for name in errors.__all__ if name.endswith(("Error", "Mismatch"))]
    assert len(names) == 9
    assert all(issubclass(getattr(errors, name), SamexpError) for name in names)
    assert issubclass(PriorMismatch, PriorError)


def test_equal_identities_are_equal() -> None:
    assert RunIdentity("v", "p", "m", "s") == RunIdentity("v", "p", "m", "s")
    assert RunIdentity("v", "p", "m", "s") != RunIdentity("v", "p", "m", "t")


def test_results_keep_what_they_are_given() -> None:
    labels, scores = np.zeros((2, 3), np.uint16), {1: ObjectScore(1.0, 0.5)}
    result = FrameResult(4, labels, scores)
    assert (result.index, result.labels is labels, result.scores) == (4, True, scores)


def test_an_array_video_is_a_video_source(video: tiny_run.ArrayVideo) -> None:
    assert isinstance(video, VideoSource)
    assert not isinstance(video.frames, VideoSource)


def test_an_error_is_one_line_of_bounded_length_whatever_it_quotes() -> None:
    error = StoreError("The name is 'a\nb\x1b[2J\u202e\x00'; give another.")
    assert str(error) == "The name is 'a b [2J  '; give another."
    long = str(PromptError(f"The file {'x' * 1_000_000} is bad; give another."))
    assert len(long) < 1100 and long.startswith("The file x") and long.endswith("is bad; give another.")
    assert isinstance(pickle.loads(pickle.dumps(error)), StoreError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_prompt_has_no_more_points_than_can_be_looked_at() -> None:
    assert len(Prompt(np.zeros((1000, 2)), np.ones(1000)).points_xy) == 1000
    with pytest.raises(PromptError, match="1001 points; give at most 1000"):
        Prompt(np.zeros((1001, 2)), np.ones(1001))
