"""The list of recordings: edited, saved, named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_samexp.engine.messages.base import Done, Failed
from napari_samexp.engine.messages.prompts import (
    ChangeRecording,
    ClearPrior,
    LoadPrior,
    PriorChanged,
    PriorState,
    Record,
    RemoveRecording,
    SavePrior,
    UndoChange,
)
from napari_samexp.errors import PriorError
from tests.session.harness import CLICK, SessionHarness, info


def test_recordings_are_edited_by_their_keys(session: SessionHarness, tmp_path: Path) -> None:
    recordings = session.session.recordings
    recordings.rename("a", "new")
    recordings.relabel("a", 4)
    recordings.switch("a", on=False)
    recordings.remove("a")
    recordings.clear()
    recordings.undo()
    recordings.load(tmp_path / "p.safetensors", append=True)
    assert [request for _, request in session.engine.requests] == [
        ChangeRecording("a", name="new"),
        ChangeRecording("a", label=4),
        ChangeRecording("a", enabled=False),
        RemoveRecording("a"),
        ClearPrior(),
        UndoChange(),
        LoadPrior(str(tmp_path / "p.safetensors"), append=True),
    ]
    state = PriorState((info("a", 1, "x"), info("b", 3, enabled=False), info("c", 1)), True)
    session.answer(ChangeRecording, PriorChanged, state)
    assert (recordings.labels, recordings.next_label(), recordings.name_of(1)) == ((1,), 2, "x")
    session.answer(RemoveRecording, Failed, "Gone.")
    assert session.notices == ["Gone."] and len(recordings.all) == 3


def test_what_was_saved_is_known(session: SessionHarness, tmp_path: Path) -> None:
    recordings, saved = session.session.recordings, []
    recordings.saved.connect(saved.append)
    with pytest.raises(PriorError, match="no recording"):
        recordings.save(tmp_path / "p")
    recordings.show(PriorState((info("a"),)))
    assert recordings.unsaved
    recordings.save(tmp_path / "p")
    session.answer(SavePrior, Failed, "Read-only.")
    assert recordings.unsaved and session.notices == ["Read-only."]
    recordings.save(tmp_path / "p")
    session.answer(SavePrior, Done)
    assert not recordings.unsaved and saved == [tmp_path / "p"]
    recordings.show(PriorState((info("a", name="new"),)))
    assert recordings.unsaved
    recordings.load(tmp_path / "q")
    session.answer(LoadPrior, PriorChanged, PriorState((info("z"),)))
    assert not recordings.unsaved


def test_a_recording_without_a_name_is_called_like_its_label(session: SessionHarness) -> None:
    session.load()
    session.session.recordings.show(PriorState((info("a", 1, "cat"), info("b", 2, "dog"))))
    prompting = session.session.prompting
    prompting.set_image(np.zeros((8, 10, 3), np.uint8))
    for label, name in ((1, "cat"), (3, "")):
        prompting.set_prompt(CLICK)
        prompting.record(label)
        assert session.engine.last(Record)[1].name == name
