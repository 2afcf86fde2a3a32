"""What a session keeps is for its user alone: modes, and the fallback in a folder that all users write to."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_samexp import _private
from napari_samexp._private import own_temporary_folder
from napari_samexp.engine.journal import PriorJournal
from napari_samexp.engine.sharing import SharedArray
from napari_samexp.errors import SamexpError
from napari_samexp.sam.features import Memory
from napari_samexp.session.folders import SessionFolder, left_sessions, new_folder
from napari_samexp.session.preferences import Preferences, load_preferences, save_preferences
from napari_samexp.tracking.prior import PriorMemory
from napari_samexp.tracking.recording import Recording
from napari_samexp.types import Prompt

pytestmark = pytest.mark.skipif(os.name != "posix", reason="on Windows the user's profile is private already")


@pytest.fixture(autouse=True)
def careless_umask() -> Iterator[None]:
    """As of somebody whose files are for everybody, so that nothing is private by chance."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def assert_private(top: Path) -> None:
    paths = [top, *top.rglob("*")]
    assert {oct(mode(path)) for path in paths if path.is_dir()} == {"0o700"}
    assert {oct(mode(path)) for path in paths if path.is_file()} <= {"0o600"}


def test_all_that_a_session_keeps_is_private(tmp_path: Path) -> None:
    parent = tmp_path / "new" / "state" / "sessions"
    folder = SessionFolder(parent)
    journal = PriorJournal(folder.path / "prior")
    journal.keep_image("key", np.zeros((4, 4, 3), np.uint8))
    recording = Recording(1, Prompt(), "image", "hash", (4, 4), "tiny", "weights", 64, True)
    memory = Memory(torch.zeros(2, 2, 2), torch.zeros(4))
    journal.commit(PriorMemory().with_recording(recording, memory), 1)
    journal.undo(2)
    assert len([path for path in parent.rglob("*") if path.is_file()]) >= 4
    assert_private(tmp_path / "new")
    folder.close()


def test_settings_are_private_also_those_of_an_earlier_version(tmp_path: Path) -> None:
    path = tmp_path / "config" / "settings.json"
    save_preferences(Preferences(), path)
    assert_private(path.parent)
    path.chmod(0o644)
    assert load_preferences(path) == (Preferences(), "")
    assert mode(path) == 0o600


def test_a_home_that_somebody_chose_keeps_its_own_mode(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(0o755)
    save_preferences(Preferences(), tmp_path / "home" / "settings.json")
    SessionFolder(tmp_path / "home" / "sessions").close()
    assert mode(tmp_path / "home") == 0o755
    assert mode(tmp_path / "home" / "sessions") == 0o700


def test_sessions_of_an_earlier_version_are_made_private(tmp_path: Path) -> None:
    parent = tmp_path / "sessions"
    (parent / "00000001-abc" / "prior").mkdir(parents=True, mode=0o755)
    parent.chmod(0o755)
    (parent / "00000001-abc" / "prior" / "00000001-0001-1.safetensors").touch()
    folder = SessionFolder(parent)
    assert mode(parent) == 0o700
    assert len(left_sessions(parent)) == 1
    folder.close()


def test_shared_pixels_are_private() -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("shared memory is no folder here")
    shared = SharedArray.of(np.zeros(4, np.uint8))
    try:
        assert mode(Path("/dev/shm", shared.ref.block.lstrip("/"))) == 0o600
    finally:
        shared.release()


# ---- where the home cannot be written


@pytest.fixture
def crowded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of all users."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("LOGNAME", "me")
    return folder


@pytest.fixture
def no_home(tmp_path: Path) -> Path:
    (tmp_path / "home").write_text("a file where the folder should be")
    return tmp_path / "home" / "sessions"


def crash(folder: SessionFolder) -> None:
    """Leave a session as a kill does: with a recording, and without closing."""
    (folder.path / "prior").mkdir()
    (folder.path / "prior" / "00000001-0001-1.safetensors").touch()
    folder._lock.release()


def test_the_fallback_is_private_and_found_again_after_a_crash(crowded: Path, no_home: Path) -> None:
    folder, notice = new_folder(no_home)
    assert str(folder.path) in notice and folder.path.is_relative_to(crowded / "napari-samexp-me")
    assert_private(crowded / "napari-samexp-me")
    crash(folder)
    later, _ = new_folder(no_home)
    (left,) = left_sessions(later.path.parent)
    assert left.path == folder.path and left.crashed
    later.close()


def test_the_fallback_of_an_earlier_version_is_found_and_made_private(crowded: Path, no_home: Path) -> None:
    old = crowded / "napari-samexp-me" / "sessions" / "00000001-abc"
    old.mkdir(parents=True, mode=0o755)
    for path in (crowded / "napari-samexp-me", old.parent):
        path.chmod(0o755)
    folder, _ = new_folder(no_home)
    assert folder.path.parent == old.parent
    assert mode(crowded / "napari-samexp-me") == mode(old.parent) == 0o700
    folder.close()


@pytest.mark.parametrize("trap", ["link", "dangling link", "writable", "of another user", "file"])
def test_a_trap_in_the_place_of_the_fallback_is_passed_over(
    crowded: Path, no_home: Path, tmp_path: Path, trap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, elsewhere = crowded / "napari-samexp-me", tmp_path / "elsewhere"
    if "link" in trap:
        place.symlink_to(elsewhere)
        if trap == "link":
            elsewhere.mkdir(0o700)
    elif trap == "file":
        place.touch()
    else:
        place.mkdir()
        place.chmod(0o777 if trap == "writable" else 0o755)
    if trap == "of another user":
        _given_to_another(place, monkeypatch)
    folder, _ = new_folder(no_home)
    assert folder.path.is_relative_to(crowded) and not folder.path.is_relative_to(place)
    assert_private(folder.path.parents[1])
    assert not elsewhere.exists() or not list(elsewhere.iterdir())
    assert not place.is_dir() or not list(place.iterdir())
    crash(folder)
    later, _ = new_folder(no_home)
    assert [left.path for left in left_sessions(later.path.parent)] == [folder.path]
    later.close()


def _given_to_another(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        status = real(path)
        if path != place:
            return status
        return os.stat_result((*status[:4], os.geteuid() + 1, *status[5:]))

    monkeypatch.setattr(_private.Path, "lstat", lstat)


def test_no_place_at_all_is_one_sentence(no_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(no_home.parent))
    with pytest.raises(SamexpError, match="No folder for this session"):
        new_folder(no_home)
    with pytest.raises(OSError):
        own_temporary_folder("x")
