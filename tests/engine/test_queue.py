"""What may be sent, what a newer request makes pointless, and what becomes of it when a worker ends."""

from __future__ import annotations

from typing import Any

from napari_samexp.engine.messages.base import CANCEL, PAUSE, ArrayRef, Failed, ImageRef, Request, VideoRef
from napari_samexp.engine.messages.model import Loaded, LoadModel
from napari_samexp.engine.messages.prompts import ClearPrior, Preview, PriorState, Record, SavePrior
from napari_samexp.engine.messages.tracking import Track
from napari_samexp.engine.queue import MOST_UNANSWERED, Entry, RequestQueue
from napari_samexp.types import Prompt

IMAGE = ImageRef("key", "name", ArrayRef("block", (8, 8, 3), "|u1"))
PREVIEW = Preview(IMAGE, Prompt())
RECORD = Record(IMAGE, Prompt())
TRACK = Track("store", VideoRef("v", (2, 8, 8, 3), path="v"), range(2))
LOAD = LoadModel("starter")


def line_of(*requests: Request) -> RequestQueue:
    line = RequestQueue()
    for number, request in enumerate(requests, start=1):
        line.add(Entry(number, request))
    return line


def sent(line: RequestQueue) -> list[int]:
    numbers = []
    while (entry := line.next()) is not None:
        numbers.append(entry.id)
    return numbers


def loaded(line: RequestQueue, number: int) -> None:
    info: Any = None
    assert line.answered(Loaded(number, info, PriorState())) is not None


def test_requests_are_sent_in_their_order_and_of_the_previews_only_the_newest() -> None:
    assert sent(line_of(LOAD, PREVIEW, RECORD, PREVIEW, PAUSE)) == [1, 3, 4, 5]


def test_a_preview_is_late_once_a_newer_one_stands_in_the_line() -> None:
    line = line_of(PREVIEW)
    sent(line)
    line.add(Entry(2, PREVIEW))
    entry = line.answered(Failed(1, "."))
    assert entry is not None and line.is_late(entry)
    sent(line)
    newest = line.answered(Failed(2, "."))
    assert newest is not None and not line.is_late(newest)
    assert line.answered(Failed(2, ".")) is None


def test_a_worker_that_answers_nothing_is_sent_little_but_controls() -> None:
    line = line_of(*[SavePrior("path")] * 40)
    assert len(sent(line)) == MOST_UNANSWERED
    line.add(Entry(98, PAUSE))
    line.add(Entry(99, CANCEL))
    assert sent(line) == [99, 98]


def test_cancelling_drops_what_waits_to_load_or_track() -> None:
    line = line_of(RECORD, LOAD, TRACK)
    assert [entry.id for entry in line.add(Entry(9, CANCEL))] == [2, 3]
    assert sent(line) == [9, 1]


def test_when_a_worker_ends_previews_and_runs_are_given_up_and_the_rest_gets_a_second_try() -> None:
    line = line_of(LOAD, SavePrior("path"), PREVIEW, TRACK)
    sent(line)
    assert [entry.id for entry in line.worker_gone(cancelled=False)] == [3, 4]
    assert line.worker_ready(()) == []
    assert sent(line) == [1, 2]
    assert [entry.id for entry in line.worker_gone(cancelled=False)] == [1, 2]  # no third one


def test_a_cancelled_load_is_given_up() -> None:
    line = line_of(LOAD)
    sent(line)
    assert [entry.id for entry in line.worker_gone(cancelled=True)] == [1]


def test_a_new_worker_loads_the_model_before_anything_else() -> None:
    line = line_of(LOAD)
    sent(line)
    loaded(line, 1)
    for number, request in ((2, LoadModel("other")), (3, RECORD)):
        line.add(Entry(number, request))
    sent(line)
    assert line.worker_gone(cancelled=False) == []
    line.worker_ready(())
    assert sent(line) == [1, 3, 2]
    # the first could not be loaded again: it is not tried a third time
    line.answered(Failed(1, "gone"))
    line.worker_gone(cancelled=False)
    line.worker_ready(())
    assert sent(line) == []


def test_the_journal_decides_which_changes_had_been_made() -> None:
    line = line_of(RECORD, ClearPrior(), RECORD)
    sent(line)
    assert line.worker_gone(cancelled=False) == []
    assert [entry.id for entry in line.worker_ready({1, 2})] == [1, 2]
    assert sent(line) == [3]
    assert [entry.id for entry in line.worker_gone(cancelled=False)] == [3]


def test_giving_up_takes_everything() -> None:
    line = line_of(LOAD, RECORD, SavePrior("path"))
    line.next()
    line.next()
    line.worker_gone(cancelled=False)
    assert sorted(entry.id for entry in line.take_all()) == [1, 2, 3]
    assert sent(line) == []
