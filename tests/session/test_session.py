"""A session without a window and without a worker: errors, activity, its end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from napari_samexp.engine.client import EngineClient
from napari_samexp.engine.messages.base import Failed, WorkerDied, Working
from napari_samexp.engine.messages.model import LoadModel
from napari_samexp.engine.messages.prompts import Preview
from napari_samexp.errors import VideoError
from tests.session.harness import CLICK, IMAGE, SessionHarness


def test_an_error_comes_with_its_code(session: SessionHarness) -> None:
    codes: list[tuple[str, str]] = []
    session.session.notice.connect(lambda sentence, code: codes.append((sentence, code)))
    session.session.load_model("a.pt")
    session.answer(LoadModel, Failed, "It is hostile.", "weights-refused")
    session.reply(WorkerDied(0, "It died.", True, "out-of-memory"))
    assert codes == [("It is hostile.", "weights-refused"), ("It died.", "out-of-memory")]
    with pytest.raises(VideoError):
        session.session.corrections.remember_frame(0, 1)


def test_activity_is_told_and_slow_modules_are_imported_aside(session: SessionHarness) -> None:
    seen: list[str] = []
    session.session.activity.connect(seen.append)
    session.session.start()
    assert session.engine.started
    session.load()
    session.session.prompting.set_image(IMAGE)
    session.session.prompting.set_prompt(CLICK)
    session.answer(Preview, Working, "encoding")
    session.preview()
    assert seen == ["encoding", ""]


def test_nothing_is_delivered_after_the_end(tmp_path: Path) -> None:
    session = SessionHarness(tmp_path / "home")
    session.engine.on_reply(WorkerDied(0, "On its way.", True))
    with session.session:
        pass
    session.reply(WorkerDied(0, "Too late.", True))
    assert session.notices == []


def test_the_worker_takes_no_change_for_one_of_another_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal of a folder may name requests of a client that is gone; the clock may stand still."""
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    firsts = {next(EngineClient(lambda reply: None, tmp_path)._numbers) for _ in range(10)}
    assert len(firsts) == 10 and min(firsts) > 0
