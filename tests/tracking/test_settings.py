"""The knobs of a run: what they are by default, what they refuse, and their text."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from napari_samexp.errors import SettingsError
from napari_samexp.tracking import TrackSettings


def test_the_defaults_are_metas_but_for_the_priors_time() -> None:
    settings = TrackSettings()
    assert (settings.recent, settings.pointers, settings.pointer_span) == (6, 15, 15)
    assert (settings.store_memories, settings.keep_lost, settings.round_memories) == (True, False, False)
    assert (settings.side, settings.square, settings.direction) == (None, True, "forward")
    assert (settings.prior_time, settings.prior_distance) == ("fixed", 1)


def test_every_setting_explains_itself() -> None:
    for knob in fields(TrackSettings):
        assert knob.metadata["help"].endswith(".")
        is_number = isinstance(knob.default, int) and not isinstance(knob.default, bool)
        assert (knob.metadata["min"] is not None) == (is_number or knob.name == "side")


@pytest.mark.parametrize(
    "knob", [knob for knob in fields(TrackSettings) if knob.metadata["max"]], ids=lambda k: k.name
)
def test_numbers_have_bounds(knob: Any) -> None:
    low, high = knob.metadata["min"], knob.metadata["max"]
    for value in (low, high):
        assert getattr(TrackSettings(**{knob.name: value}), knob.name) == value
    for value in (low - 1, high + 1, 1.5, "3", True, float("nan"), [1]):
        with pytest.raises(SettingsError, match=f"{knob.name} is .*from {low} to {high}"):
            TrackSettings(**{knob.name: value})


@pytest.mark.parametrize("name", ["store_memories", "keep_lost", "square", "round_memories"])
@pytest.mark.parametrize("value", [0, 1, "yes", None])
def test_switches_are_true_or_false(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"{name} is .*true or false"):
        TrackSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "choices"), [("prior_time", "fixed or elapsed"), ("direction", "forward or backward")]
)
@pytest.mark.parametrize("value", ["", "Fixed", None, 1, ["fixed"]])
def test_choices_are_named(name: str, choices: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"{name} is .*choose {choices}"):
        TrackSettings(**{name: value})


def test_only_the_side_may_be_left_out() -> None:
    assert TrackSettings(side=None).side is None
    for name in ("recent", "pointers", "prior_distance", "pointer_span"):
        with pytest.raises(SettingsError):
            TrackSettings(**{name: None})


def test_settings_survive_their_text() -> None:
    settings = TrackSettings(recent=2, side=512, square=False, prior_time="elapsed", direction="backward")
    assert TrackSettings.from_json(settings.to_json()) == settings
    assert list(json.loads(settings.to_json())) == sorted(json.loads(settings.to_json()))
    assert settings.to_json() == TrackSettings.from_json(settings.to_json()).to_json()
    assert settings.to_json() != TrackSettings().to_json()


@pytest.mark.parametrize(
    "text", ["", "no", "[]", "3", "null", '{"speed": 1}', '{"recent": 99}', '{"recent": "6"}', "[" * 100_000]
)
def test_text_that_is_no_settings_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        TrackSettings.from_json(text)
