"""The folders of sessions: kept, recovered, hostile."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

from napari_samexp.engine.messages.prompts import LoadPrior, PriorChanged, PriorState
from napari_samexp.errors import SamexpError
from napari_samexp.session import left_sessions
from napari_samexp.session.folders import MOST_FORMER, SessionFolder, sessions_dir, settings_file
from tests import hostile_archive
from tests.session.harness import SessionHarness, info, recorded_in


def test_the_folder_of_a_session_stays_if_it_holds_recordings(tmp_path: Path) -> None:
    home = tmp_path / "home"
    empty = SessionHarness(home)
    empty.session.close()
    assert not empty.session.folder.exists()

    folders = []
    for number in range(MOST_FORMER + 2):
        folder = SessionFolder(sessions_dir(home))
        (folder.path / "prior" / "pictures").mkdir(parents=True)
        (folder.path / "prior" / f"00000001-0001-{number}.safetensors").touch()
        (folder.path / "prior" / "pictures" / "a.png").touch()
        folders.append(folder)
    assert left_sessions(sessions_dir(home)) == []  # all of them are in use
    for folder in folders:
        folder.close()
    left = left_sessions(sessions_dir(home))
    assert len(left) == MOST_FORMER and not any(session.crashed for session in left)

    crashed = SessionFolder(sessions_dir(home))
    (crashed.path / "prior").mkdir()
    (crashed.path / "prior" / "00000002-0001-7.safetensors").touch()
    crashed._lock.release()  # as the system does when a process is killed
    (found,) = [session for session in left_sessions(sessions_dir(home)) if session.crashed]
    assert found.path == crashed.path

    later = SessionHarness(home)
    chosen = next(
        session for session in later.session.left_sessions() if (session.prior.parent / "pictures").exists()
    )
    later.session.recover(chosen)
    later.wait()
    assert later.engine.last(LoadPrior)[1] == LoadPrior(str(chosen.prior))
    assert (later.session.folder / "prior" / "pictures" / "a.png").exists()
    later.answer(LoadPrior, PriorChanged, PriorState((info("a"),)))
    later.wait()
    assert not chosen.path.exists() and later.session.recordings.unsaved
    later.session.close()


def test_home_is_the_users_own_place_or_what_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NAPARI_SAMEXP_HOME", str(tmp_path))
    assert settings_file() == tmp_path / "settings.json" and sessions_dir() == tmp_path / "sessions"
    monkeypatch.delenv("NAPARI_SAMEXP_HOME")
    assert "napari-samexp" in str(settings_file()) and "napari-samexp" in str(sessions_dir())


def test_a_home_that_cannot_be_written_keeps_nobody_from_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    home = tmp_path / "home"
    home.write_text("a file where the folder should be")
    session = SessionHarness(home)
    assert session.session.folder.is_relative_to(tmp_path / "temporary")
    notice = session.session.first_notice
    assert "No folder for this session" in notice and "recordings are in" in notice and "\n" not in notice
    session.session.change_settings(hover=True)  # which cannot be kept, and are used all the same
    assert session.session.settings.hover
    folder = session.session.folder
    session.session.close()
    assert not folder.exists()

    monkeypatch.setattr(tempfile, "tempdir", str(home))  # nowhere
    with pytest.raises(SamexpError, match="No folder for this session"):
        SessionHarness(home)


@pytest.mark.parametrize("day", [0, 10**9])
def test_a_clock_that_is_set_back_makes_no_session_the_oldest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, day: int
) -> None:
    """Else the newest recordings would be offered last, and thrown away first."""
    parent = sessions_dir(tmp_path / "home")
    old = parent / "20260131-120000-abcdef"  # as earlier versions called them
    (old / "prior").mkdir(parents=True)
    (old / "prior" / "00000001-0001-1.safetensors").touch()
    folders = [old] + [recorded_in(SessionFolder(parent)) for _ in range(MOST_FORMER)]
    monkeypatch.setattr(time, "time", lambda: float(day))
    monkeypatch.setattr(time, "time_ns", lambda: day * 10**9)
    folder = SessionFolder(parent)
    file = recorded_in(folder, close=False) / "prior" / "00000001-0001-1.safetensors"
    os.utime(file, (day, day))
    folder.close()
    left = [session.path for session in left_sessions(parent)]
    assert left == [folder.path, *folders[::-1]][:MOST_FORMER]
    assert not old.exists()


HOSTILE = {
    "00000001-aaaaaa": "thesis",
    "00000002-aaaaaa/prior": "thesis/prior",
    "00000003-aaaaaa/prior/00000001-0001-1.safetensors": "thesis/prior/00000001-0001-1.safetensors",
    "00000004-aaaaaa/lock": "thesis/lock",
    "thesis-of-mine": "thesis",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_session_of_links_is_none_and_harms_nothing(tmp_path: Path, name: str) -> None:
    home, sent = tmp_path / "home", tmp_path / "sent"
    left = sent / "00000005-aaaaaa"
    for folder in (left, *(sent / link.split("/")[0] for link in HOSTILE)):
        (folder / "prior").mkdir(parents=True)
        (folder / "prior" / "00000001-0001-1.safetensors").touch()
    hostile_archive.write_thesis(sessions_dir(home))
    hostile_archive.send(sent, sessions_dir(home), {name: HOSTILE[name]})
    found = [session.path.name for session in left_sessions(sessions_dir(home))]
    assert left.name in found and name.split("/")[0] not in found and "thesis" not in found
    for _ in range(MOST_FORMER + 1):  # ends of sessions, which remove old ones
        recorded_in(SessionFolder(sessions_dir(home)))
    assert not (sessions_dir(home) / left.name).exists()
    assert (sessions_dir(home) / name).is_symlink()
    hostile_archive.require_untouched(sessions_dir(home))


def test_a_former_session_with_other_files_in_it_is_not_removed(tmp_path: Path) -> None:
    parent = sessions_dir(tmp_path / "home")
    folders = [recorded_in(SessionFolder(parent)) for _ in range(2)]
    (folders[0] / "prior" / "notes.txt").write_text("mine")
    (folders[1] / "prior" / "pictures").mkdir()
    (folders[1] / "prior" / "pictures" / "more").mkdir()
    for session in left_sessions(parent):
        session.discard()
    assert [folder.exists() for folder in folders] == [True, True]
    (folders[0] / "prior" / "notes.txt").unlink()
    for session in left_sessions(parent):
        session.discard()
    assert [folder.exists() for folder in folders] == [False, True]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes among its files")
def test_recorded_images_that_are_links_or_pipes_are_not_taken_over(tmp_path: Path) -> None:
    home = tmp_path / "home"
    there = recorded_in(SessionFolder(sessions_dir(home))) / "prior" / "pictures"
    there.mkdir()
    (there / "a.png").touch()
    (there / "b.png").symlink_to("/dev/zero")
    os.mkfifo(there / "c.png")
    (there / "d").symlink_to(hostile_archive.write_thesis(tmp_path))
    later = SessionHarness(home)
    later.session.recover(later.session.left_sessions()[0])
    later.wait()
    taken = later.session.folder / "prior" / "pictures"
    assert [path.name for path in taken.iterdir()] == ["a.png"]
    later.session.close()
    hostile_archive.require_untouched(tmp_path)
