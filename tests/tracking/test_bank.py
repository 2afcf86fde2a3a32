"""What a bank offers the model: the prior always, the recent past within bounds, and their times."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from napari_samexp.sam import Memory
from napari_samexp.sam.variants import PRIOR_SLOT
from napari_samexp.tracking import TrackSettings
from napari_samexp.tracking.bank import MemoryBank, Recall


def memory(value: float, grid: tuple[int, int] = (2, 3)) -> Memory:
    """Return a memory that is recognised by its numbers."""
    return Memory(torch.full((4, *grid), float(value)), torch.full((8,), float(value)))


def bank_of(prior: int = 1, stored: Any = (), **settings: Any) -> MemoryBank:
    """Return a bank whose priors are -1, -2, ... and whose memories are their frames."""
    bank = MemoryBank([memory(-1 - i) for i in range(prior)], TrackSettings(**settings))
    for index in stored:
        bank.store(index, memory(index))
    return bank


def spatial_of(recall: Recall) -> list[float]:
    return [float(part[0, 0, 0]) for part in recall.spatial]


def pointers_of(recall: Recall) -> list[float]:
    return recall.pointers[:, 0].tolist()


def test_without_a_past_there_is_the_prior_alone() -> None:
    recall = bank_of(prior=2).recall(0, 0)
    assert spatial_of(recall) == [-1, -2]
    assert recall.slots == [PRIOR_SLOT, PRIOR_SLOT]
    assert pointers_of(recall) == [-1, -2]
    assert recall.times == [1 / 15, 1 / 15]


def test_recent_memories_are_oldest_first_and_pointers_newest_first() -> None:
    recall = bank_of(stored=range(4)).recall(4, 4)
    assert spatial_of(recall) == [-1, 0, 1, 2, 3]
    assert recall.slots == [PRIOR_SLOT, 3, 2, 1, 0]
    assert pointers_of(recall) == [-1, 3, 2, 1, 0]
    assert recall.times == [n / 15 for n in (1, 1, 2, 3, 4)]


def test_both_windows_roll_over() -> None:
    recall = bank_of(stored=range(40)).recall(40, 40)
    assert spatial_of(recall) == [-1, 34, 35, 36, 37, 38, 39]
    assert recall.slots == [PRIOR_SLOT, 5, 4, 3, 2, 1, 0]
    assert pointers_of(recall) == [-1, *range(39, 24, -1)]
    assert recall.times == [n / 15 for n in (1, *range(1, 16))]


@pytest.mark.parametrize(("recent", "pointers"), [(0, 0), (0, 3), (3, 0), (2, 4), (6, 1), (6, 15)])
def test_windows_are_as_wide_as_set(recent: int, pointers: int) -> None:
    bank = bank_of(stored=range(30), recent=recent, pointers=pointers)
    recall = bank.recall(30, 30)
    assert spatial_of(recall) == [-1, *range(30 - recent, 30)]
    assert pointers_of(recall) == [-1, *range(29, 29 - pointers, -1)]
    assert len(recall.times) == len(recall.pointers)
    assert bank.indices == list(range(30 - max(recent, pointers), 30))


def test_an_object_that_was_lost_keeps_its_last_memories() -> None:
    recall = bank_of(stored=[0, 1, 2]).recall(20, 20)
    assert spatial_of(recall) == [-1, 0, 1, 2]
    assert recall.slots == [PRIOR_SLOT, 2, 1, 0]  # by rank
    assert recall.times == [1 / 15, 1.0, 1.0, 1.0]  # by time, at most 15


def test_backward_times_are_distances_too() -> None:
    recall = bank_of(stored=[9, 8, 7]).recall(6, 3)
    assert pointers_of(recall) == [-1, 7, 8, 9]
    assert recall.times == [n / 15 for n in (1, 1, 2, 3)]


def test_the_priors_distance_is_fixed_or_elapses() -> None:
    for steps in (0, 7, 100):
        fixed = bank_of(prior=2, prior_distance=4, pointer_span=5).recall(steps, steps)
        assert fixed.times == [4 / 5, 4 / 5]
        elapsed = bank_of(prior=2, prior_time="elapsed").recall(steps, steps)
        assert elapsed.times == [(steps + 2) / 15, (steps + 1) / 15]


def test_a_reset_leaves_the_prior() -> None:
    bank = bank_of(stored=range(9))
    bank.reset()
    assert bank.indices == []
    assert spatial_of(bank.recall(9, 9)) == [-1]


def test_a_prior_can_be_added_on_the_way() -> None:
    bank = bank_of(stored=[0])
    bank.add_prior(memory(-9))
    bank.store(1, memory(1))
    recall = bank.recall(2, 2)
    assert spatial_of(recall) == [-1, -9, 0, 1]
    assert recall.slots == [PRIOR_SLOT, PRIOR_SLOT, 1, 0]
    assert pointers_of(recall) == [-1, -9, 1, 0]


def test_adding_a_prior_leaves_the_callers_list() -> None:
    given = [memory(-1)]
    MemoryBank(given, TrackSettings()).add_prior(memory(-2))
    assert len(given) == 1


def test_objects_of_equal_shapes_share_a_batch() -> None:
    one = bank_of(prior=1, stored=[0, 1]).recall(2, 2)
    other = bank_of(prior=2, stored=[1]).recall(2, 2)
    assert one.shapes == other.shapes
    assert one.slots != other.slots
    assert one.shapes != bank_of(stored=[0]).recall(2, 2).shapes
    assert one.shapes != bank_of(stored=[0, 1], pointers=1).recall(2, 2).shapes
    larger = MemoryBank([memory(-1, (4, 4))], TrackSettings())
    assert larger.recall(0, 0).shapes != bank_of().recall(0, 0).shapes
