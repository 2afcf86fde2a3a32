"""Settings: kept, checked, damaged, of another version."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_samexp.errors import SettingsError
from napari_samexp.session import LastRun, Preferences
from napari_samexp.session.preferences import load_preferences, save_preferences
from tests.session.harness import SessionHarness


def test_settings_are_kept_and_checked(session: SessionHarness, tmp_path: Path) -> None:
    seen = []
    session.session.settings_changed.connect(seen.append)
    session.session.change_settings(recent=3, hover=True)
    session.session.change_settings(recent=3)
    assert len(seen) == 1 and session.session.tracking.settings.recent == 3
    for bad in ({"recent": 99}, {"hover": 1}, {"nothing": 1}, {"model": None}):
        with pytest.raises(SettingsError):
            session.session.change_settings(**bad)
    again = SessionHarness(tmp_path / "home")
    assert again.session.settings == session.session.settings and again.session.first_notice == ""
    again.session.close()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"track": {"recent": 99}}', b'{"hover": 3}', b"x" * 2**21, b"[" * 9999]
)
def test_damaged_settings_are_reset(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "settings.json"
    file.write_bytes(content)
    preferences, notice = load_preferences(file)
    assert preferences == Preferences() and "are reset" in notice


def test_settings_of_another_version_keep_what_is_known(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(
        '{"model": "m", "new": 1, "track": {"recent": 2, "newer": 1}, "last_run": {"store": "s"}}'
    )
    preferences, notice = load_preferences(file)
    assert (preferences.model, preferences.track.recent, preferences.last_run) == (
        "m",
        2,
        LastRun("s"),
    ) and not notice
    save_preferences(preferences, tmp_path / "settings.json" / "impossible")  # only the log hears of it
