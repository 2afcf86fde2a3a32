"""Corrected frames that join the run and the recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_samexp.engine.messages.base import Failed
from napari_samexp.engine.messages.prompts import PriorChanged, PriorState, RememberFrame
from napari_samexp.engine.messages.tracking import TrackStarted
from napari_samexp.engine.sharing import read_shared
from napari_samexp.errors import PromptError, SamexpError, SettingsError, VideoError
from napari_samexp.types import Prompt
from tests.session.harness import CLICK, VIDEO, SessionHarness, info, result, store_at


def test_a_frame_is_remembered_as_painted_or_as_prompted(session: SessionHarness, tmp_path: Path) -> None:
    tracking, remembered = session.session.tracking, []
    session.session.corrections.remembered.connect(remembered.append)
    with pytest.raises(VideoError, match="no video"):
        session.session.corrections.remember_frame(0, 1)
    tracking.set_video(VIDEO)
    with pytest.raises(SettingsError, match="no labels"):
        session.session.corrections.remember_frame(0, 1)
    with pytest.raises(VideoError, match="no frame 6"):
        session.session.corrections.remember_frame(6, 1)
    path = tmp_path / "s.zarr"
    number = session.track(path)
    with store_at(path) as store:
        store.write(result(4))
    session.reply(TrackStarted(number, str(path), (6, 8, 10), {1: "a"}, 0, 6))
    session.session.recordings.show(PriorState((info("a", 1, "cat"),)))
    with pytest.raises(SettingsError, match="nowhere in frame 3"):
        session.session.corrections.remember_frame(3, 1)
    session.session.corrections.remember_frame(4, 1)
    _, request = session.engine.last(RememberFrame)
    assert (request.index, request.label, request.name, request.store) == (4, 1, "cat", str(path))
    assert np.argwhere(read_shared(request.mask)).tolist() == [[0, 4]] if _alive(request) else True
    session.answer(RememberFrame, PriorChanged, PriorState((info("a"), info("b"))))
    assert remembered == [4] and len(session.session.recordings.all) == 2
    session.session.corrections.remember_frame(2, 1, prompt=CLICK)
    request = session.engine.last(RememberFrame)[1]
    assert request.mask is None and request.prompt is CLICK
    session.answer(RememberFrame, Failed, "No.")
    assert session.notices == ["No."]
    with pytest.raises(PromptError, match="no clicks on this frame"):
        session.session.corrections.remember_frame(2, 1, prompt=Prompt())


def test_the_mask_that_was_seen_becomes_the_frames_label(session: SessionHarness, tmp_path: Path) -> None:
    tracking, results = session.session.tracking, session.session.results
    tracking.set_video(VIDEO)
    path = tmp_path / "s.zarr"
    number = session.track(path)
    with store_at(path) as store:
        store.write(result(4))
    session.reply(TrackStarted(number, str(path), (6, 8, 10), {1: "a", 2: "b"}, 0, 6))
    assert results.labels is not None
    results.labels[4, 7, 9] = 2
    seen = np.zeros((8, 10), bool)
    seen[2, 3] = True
    session.session.corrections.remember_frame(4, 1, prompt=CLICK, shown=seen)
    assert results.labels[4][0, 4] == 1  # as it was, until the memory is safe
    session.answer(RememberFrame, PriorChanged, PriorState((info("b"),)))
    assert np.argwhere(results.labels[4]).tolist() == [[2, 3], [7, 9]] and results.labels[4][7, 9] == 2
    assert 4 in results.labels.edited


def _alive(request: Any) -> bool:
    try:
        read_shared(request.mask)
    except SamexpError:
        return False
    return True
