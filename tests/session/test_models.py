"""Loading models: progress, failure, a worker that ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from napari_samexp.engine.messages.base import CANCEL, Failed, Progress, WorkerDied
from napari_samexp.engine.messages.model import Loaded, LoadModel, Ready
from napari_samexp.engine.messages.prompts import PriorState
from napari_samexp.session import model_offers
from napari_samexp.session.folders import settings_file
from napari_samexp.session.preferences import load_preferences
from tests.session.harness import INFO, SessionHarness, info


def test_graphs_are_a_setting_of_the_model(session: SessionHarness, tmp_path: Path) -> None:
    session.session.load_model(graphs=True)
    number, request = session.engine.last(LoadModel)
    assert request == LoadModel("starter", "auto", "float32", graphs=True)
    session.reply(Loaded(number, INFO, PriorState(), ""))
    kept, _ = load_preferences(settings_file(tmp_path / "home"))
    assert kept.graphs
    session.session.load_model(dtype="bfloat16")
    assert session.engine.last(LoadModel)[1].graphs


def test_a_model_is_loaded_with_progress_and_kept_in_the_settings(
    session: SessionHarness, tmp_path: Path
) -> None:
    states = []
    session.session.models.changed.connect(states.append)
    session.session.load_model("sam2_hiera_tiny", dtype="bfloat16")
    number, request = session.engine.last(LoadModel)
    assert request == LoadModel("sam2_hiera_tiny", "auto", "bfloat16")
    session.reply(
        Progress(number, "bytes", 5, 10), Loaded(number, INFO, PriorState((info("a"),)), "It does not fit.")
    )
    assert [(s.state, s.doing, s.done, s.usable) for s in states] == [
        ("loading", "", 0, False),
        ("loading", "bytes", 5, False),
        ("ready", "", 0, True),
    ]
    assert session.notices == ["It does not fit."]
    assert [recording.key for recording in session.session.recordings.all] == ["a"]
    kept, _ = load_preferences(settings_file(tmp_path / "home"))
    assert (kept.model, kept.dtype) == ("sam2_hiera_tiny", "bfloat16")


def test_a_model_that_fails_leaves_the_one_in_use(session: SessionHarness) -> None:
    models = session.session.models
    session.session.load_model("bad")
    session.answer(LoadModel, Failed, "Bad file.")
    assert (models.state.state, models.state.sentence, models.state.usable) == ("failed", "Bad file.", False)
    session.load()
    session.session.load_model("worse")
    assert models.state.state == "loading" and models.state.info == INFO
    session.answer(LoadModel, Failed, "Worse file.")
    assert (models.state.state, models.state.name) == ("ready", "tiny.safetensors")
    assert models.state.sentence == "Worse file." and session.notices == ["Bad file.", "Worse file."]
    assert session.session.settings.model == "tiny.safetensors"


def test_only_the_model_asked_for_last_counts(session: SessionHarness) -> None:
    session.session.load_model("first")
    first, _ = session.engine.last(LoadModel)
    session.session.load_model("second")
    session.reply(Progress(first, "bytes", 1, 2), Loaded(first, INFO, PriorState()))
    assert session.session.models.state.state == "loading" and session.session.models.state.usable
    other = replace(INFO, name="second")
    session.answer(LoadModel, Loaded, other, PriorState())
    assert (session.session.models.state.state, session.session.models.state.info) == ("ready", other)
    session.session.load_model("third")
    session.session.models.cancel()
    assert [request for _, request in session.engine.requests].count(CANCEL) == 1


def test_a_worker_that_dies_is_shown_until_its_successor_has_the_model(session: SessionHarness) -> None:
    session.load()
    number, _ = session.engine.last(LoadModel)
    models = session.session.models
    session.reply(WorkerDied(0, "It died; again.", True))
    assert (models.state.state, models.state.usable, session.notices) == (
        "loading",
        False,
        ["It died; again."],
    )
    asked = len(session.engine.requests)
    session.reply(
        Ready(0, 1, PriorState((info("a"),)), "An older state."),
        Loaded(number, INFO, PriorState((info("a"),))),
    )
    assert models.state.state == "ready" and session.notices[-1] == "An older state."
    assert len(session.session.recordings.all) == 1 and len(session.engine.requests) == asked
    session.reply(WorkerDied(0, "It died.", True), Failed(number, "The file is gone."))
    assert (models.state.state, models.state.sentence) == ("failed", "The file is gone.")
    session.load()
    session.reply(WorkerDied(0, "Given up.", False))
    assert (models.state.state, models.state.sentence) == ("failed", "Given up.")


def test_the_offers_say_what_they_cost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAPARI_SAMEXP_CACHE", str(tmp_path))
    (tmp_path / "sam2.1_hiera_tiny.pt").touch()
    offers = {offer.name: offer for offer in model_offers()}
    assert next(iter(offers)) == "starter" and offers["starter"].here
    assert offers["sam2.1_hiera_tiny"].here and not offers["sam_vit_h"].here
    assert (offers["sam_vit_h"].family, offers["sam_vit_h"].licence) == ("SAM 1", "Apache-2.0")
    assert offers["sam_vit_h"].bytes == 2564550879
    assert [name for name, offer in offers.items() if offer.suggested] == ["edgetam"] == list(offers)[1:2]
    assert offers["edgetam"].family == "EdgeTAM" and 55e6 < offers["edgetam"].bytes < 57e6
