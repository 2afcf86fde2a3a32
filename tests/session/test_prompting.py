"""Prompts and previews, without a window and without a worker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from napari_samexp.engine.messages.base import Failed, WorkerDied
from napari_samexp.engine.messages.prompts import (
    ChosenMask,
    Preview,
    Previewed,
    PriorChanged,
    PriorState,
    Record,
)
from napari_samexp.errors import ImageError, PromptError, SettingsError
from napari_samexp.types import Prompt
from tests.session.harness import CLICK, IMAGE, SessionHarness, info


def test_every_change_of_the_prompt_asks_for_a_preview(session: SessionHarness) -> None:
    prompting, shown = session.session.prompting, []
    prompting.preview_changed.connect(shown.append)
    prompting.set_image(IMAGE, "p")
    prompting.set_prompt(CLICK)
    assert session.engine.count(Preview) == 0  # there is no model yet
    session.load()
    assert prompting.pending and session.engine.count(Preview) == 1
    session.preview()
    assert not prompting.pending and (shown[-1].chosen, shown[-1].presence, shown[-1].hover) == (
        1,
        4.0,
        False,
    )
    assert np.argwhere(shown[-1].mask()).tolist() == [[0, 8]]
    assert np.argwhere(shown[-1].mask(0)).tolist() == [[0, 0]]
    prompting.choose_mask(2)
    assert prompting.preview is not None and prompting.preview.chosen == 2
    with pytest.raises(SettingsError, match="0 to 2"):
        prompting.choose_mask(3)
    session.session.change_settings(side=128)
    assert session.engine.last(Preview)[1].side == 128
    session.preview()
    assert prompting.preview.chosen == 2
    prompting.set_prompt(Prompt())
    assert shown[-1] is None and prompting.preview is None
    assert [item for item in shown if item is None] == [None]


def test_late_answers_are_dropped(session: SessionHarness) -> None:
    session.load()
    prompting = session.session.prompting
    prompting.set_image(IMAGE)
    prompting.set_prompt(CLICK)
    first, _ = session.engine.last(Preview)
    prompting.set_prompt(Prompt.from_lists([(1, 1)]))
    bits = np.zeros((1, 10), np.uint8)
    session.reply(Previewed(first, (8, 10), (0.5,), 1.0, 0, bits))
    assert prompting.preview is None and prompting.pending
    session.answer(Preview, Failed, "Too large.")
    assert session.notices == ["Too large."] and not prompting.pending


def test_a_worker_that_dies_over_a_preview_is_told_once(session: SessionHarness) -> None:
    session.load()
    prompting = session.session.prompting
    prompting.set_image(IMAGE)
    prompting.set_prompt(CLICK)
    number, _ = session.engine.last(Preview)
    session.reply(WorkerDied(0, "It died.", True), Failed(number, "It died."))
    assert session.notices == ["It died."] and not prompting.pending


def test_hovering_previews_a_click_that_was_not_made(session: SessionHarness) -> None:
    session.load()
    prompting = session.session.prompting
    prompting.hover((1, 1))
    prompting.set_image(IMAGE)
    assert session.engine.count(Preview) == 0
    prompting.set_prompt(CLICK)
    prompting.hover((5, 6))
    _, request = session.engine.last(Preview)
    assert request.prompt.points_xy.tolist() == [[3, 2], [5, 6]] and prompting.prompt is CLICK
    session.preview()
    assert prompting.preview is not None and prompting.preview.hover
    prompting.hover((50, 6))
    prompting.hover(None)
    assert session.engine.count(Preview) == 3 and session.engine.last(Preview)[
        1
    ].prompt.points_xy.tolist() == [[3, 2]]


def test_recording_empties_the_prompt_once_it_is_on_disk(session: SessionHarness) -> None:
    session.load()
    prompting, made = session.session.prompting, []
    prompting.recorded.connect(made.append)
    prompting.set_image(IMAGE, "cat.jpg")
    prompting.set_prompt(CLICK)
    prompting.choose_mask(1)
    prompting.record(3, "cat")
    _, request = session.engine.last(Record)
    assert (request.label, request.name, request.mask_index, request.prompt) == (3, "cat", 1, CLICK)
    assert prompting.prompt is CLICK
    session.answer(Record, PriorChanged, PriorState((info("a", 3, "cat"),), True))
    assert [item.name for item in made] == ["cat"] and prompting.prompt.is_empty
    assert session.session.recordings.undoable and session.session.recordings.labels == (3,)

    prompting.set_prompt(CLICK)
    prompting.record(3)
    other = Prompt.from_lists([(1, 1)])
    prompting.set_prompt(other)  # the person has gone on
    session.answer(Record, PriorChanged, PriorState((info("a"), info("b"))))
    assert prompting.prompt is other
    prompting.record(3)
    session.answer(Record, Failed, "Full.")
    assert prompting.prompt is other and session.notices == ["Full."]


def test_bad_prompts_change_nothing(session: SessionHarness) -> None:
    prompting = session.session.prompting
    with pytest.raises(ImageError, match="no image"):
        prompting.set_prompt(CLICK)
    with pytest.raises(ImageError):
        prompting.record()
    prompting.set_image(IMAGE)
    with pytest.raises(PromptError, match="nothing to record"):
        prompting.record()
    prompting.set_prompt(CLICK)
    with pytest.raises(SettingsError, match="No model"):
        prompting.record()
    with pytest.raises(PromptError, match="outside"):
        prompting.set_prompt(Prompt.from_lists([(30, 2)]))
    with pytest.raises(PromptError, match="1001"):
        prompting.set_prompt(Prompt.from_lists([(1, 1)] * 1001))
    with pytest.raises(ImageError):
        prompting.set_image(np.zeros(3))
    assert prompting.prompt is CLICK and prompting.image is not None
    prompting.set_image(None)
    assert prompting.image is None and prompting.prompt.is_empty and not session.engine.requests


def test_the_chosen_mask_is_shown_before_the_others(session: SessionHarness) -> None:
    prompting = session.session.prompting
    session.load()
    prompting.set_image(IMAGE)
    shown: list[Any] = []
    prompting.preview_changed.connect(shown.append)
    prompting.set_prompt(CLICK)
    number = session.engine.last(Preview)[0]
    bits = np.zeros((3, 10), np.uint8)
    bits[1, 0] = 0x80
    whole = Previewed(number, (8, 10), (0.1, 0.9, 0.3), 4.0, 1, np.full((3, 10), 0x80, np.uint8))
    session.reply(ChosenMask(number, 1, replace(whole, bits=bits)))
    assert len(shown) == 1 and prompting.pending
    assert shown[0].chosen == 1 and shown[0].mask().sum() == 1
    session.reply(whole)
    assert len(shown) == 1 and not prompting.pending  # it is on the screen already
    prompting.choose_mask(0)
    assert [preview.chosen for preview in shown] == [1, 0] and shown[1].mask().sum() == 10


def test_another_choice_than_the_one_that_came_first_waits_for_all(session: SessionHarness) -> None:
    prompting = session.session.prompting
    session.load()
    prompting.set_image(IMAGE)
    prompting.set_prompt(CLICK)
    number = session.engine.last(Preview)[0]
    prompting.choose_mask(2)
    whole = Previewed(number, (8, 10), (0.1, 0.9, 0.3), 4.0, 1, np.zeros((3, 10), np.uint8))
    session.reply(ChosenMask(number, 1, whole))
    assert prompting.preview is None
    session.reply(whole)
    assert prompting.preview is not None and prompting.preview.chosen == 2
