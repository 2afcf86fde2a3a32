"""The folder of one session, which holds its prior from the first recording on."""

from __future__ import annotations

import getpass
import re
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from napari_samexp._private import HOME_VARIABLE, chosen_home, own_temporary_folder, private_folder, state_dir
from napari_samexp.errors import SamexpError
from napari_samexp.io.atomic import PARTIAL
from napari_samexp.io.guarded import Folder, kind_at, lock_at, open_folder

__all__ = [
    "HOME_VARIABLE",
    "LeftSession",
    "SessionFolder",
    "left_sessions",
    "new_folder",
    "sessions_dir",
    "settings_file",
]

MOST_FORMER = 5  # folders of former sessions that are kept
_REVISION = re.compile(r"(\d{8,})-\d+-\d+\.(safetensors|empty)")
_IN_USE = "in-use"  # a file that a session removes when it ends as it should
_NAME = re.compile(r"[0-9]{8,12}-.+")
_FILES = re.compile(rf"lock|{_IN_USE}|prior/{_REVISION.pattern}|prior/pictures/[^/]+\.png|(.+/)?\.DS_Store")


def settings_file(home: Path | None = None) -> Path:
    """Return the settings file, in the user's configuration folder or in `home`."""
    folder = home or chosen_home() or platformdirs.user_config_path("napari-samexp", appauthor=False)
    return folder / "settings.json"


def sessions_dir(home: Path | None = None) -> Path:
    """Return the folder of all sessions' folders."""
    return state_dir(home) / "sessions"


class SessionFolder:
    """A new folder for this session, locked, and private to the user.

    Parameters
    ----------
    parent : Path
        As `sessions_dir` gives it.

    Raises
    ------
    SamexpError
        If it cannot be made.
    """

    def __init__(self, parent: Path) -> None:
        # counted, not dated: after a clock was set back, the newest session must not become the oldest
        self.path = parent / f"{_highest(parent) + 1:08d}-{secrets.token_hex(3)}"
        self._lock = FileLock(self.path / "lock", mode=0o600, thread_local=False)  # in a new folder
        try:
            private_folder(parent)  # also that of an earlier version, with all that is in it
            self.path.mkdir(0o700)
            self._lock.acquire(timeout=0)
            (self.path / _IN_USE).touch(0o600)
        except (OSError, Timeout, NotImplementedError) as error:
            self._lock.release()
            shutil.rmtree(self.path, ignore_errors=True)
            raise SamexpError(
                f"No folder for this session can be made in {parent} ({error}); see that it can be written."
            ) from error

    def close(self) -> None:
        """End the session: keep the folder if it has recordings, and a few former ones."""
        with suppress(OSError):
            (self.path / _IN_USE).unlink(missing_ok=True)
        keep = _newest_prior(self.path) is not None
        self._lock.release()
        if not keep:
            shutil.rmtree(self.path, ignore_errors=True)
        for old in left_sessions(self.path.parent)[MOST_FORMER:]:
            if old.path != self.path:
                old.discard()


def new_folder(parent: Path) -> tuple[SessionFolder, str]:
    """Return a folder for a session, and one sentence if it had to be a temporary one.

    A home that cannot be written, as in some containers and on a full disk, must not prevent work.

    Raises
    ------
    SamexpError
        If there is no other place either.
    """
    try:
        return SessionFolder(parent), ""
    except SamexpError as error:
        folder = SessionFolder(_elsewhere(error))
        return folder, f"{error} Until then recordings are in {folder.path}; save those that you need."


def _elsewhere(why: SamexpError) -> Path:
    try:
        return own_temporary_folder(f"napari-samexp-{_user()}") / "sessions"
    except OSError:
        raise why from None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no user of that number
        return "user"


@dataclass(frozen=True, slots=True)
class LeftSession:
    """A former session with recordings.

    Parameters
    ----------
    prior : Path
        Its prior file.
    crashed : bool
        Whether it ended without being closed.
    when : float
        Seconds since the epoch at its last recording, by a clock that may have been set back since.
    """

    path: Path
    prior: Path
    crashed: bool
    when: float

    def copy_images(self, folder: Path) -> None:
        """Copy the recorded images to the folder of another session."""
        images = self.prior.parent / "pictures"
        if kind_at(images) == "folder":
            shutil.copytree(images, folder / "prior" / "pictures", dirs_exist_ok=True, ignore=_not_files)

    def discard(self) -> None:
        """Remove the session's folder, unless it is in use or holds anything that no session writes."""
        with suppress(Timeout, OSError), open_folder(self.path.parent) as parent:
            with parent.inside(self.path.name) as folder:
                if not _is_session(folder):
                    return
            with _lock_of(self.path).acquire(timeout=0):
                pass
            parent.remove_tree(self.path.name)


def _not_files(folder: str, names: list[str]) -> list[str]:
    """Return the names in a folder that are not ordinary files, for `shutil.copytree`."""
    return [name for name in names if kind_at(Path(folder) / name) != "file"]


def left_sessions(parent: Path | None = None) -> list[LeftSession]:
    """Return the former sessions with recordings that no process uses, the newest first."""
    parent = parent or sessions_dir()
    found = []
    with suppress(OSError):
        for path in parent.iterdir():
            prior = _newest_prior(path)
            if prior is not None and _is_free(path):
                with suppress(OSError):
                    crashed = (path / _IN_USE).exists()
                    found.append(LeftSession(path, prior, crashed, prior.stat().st_mtime))
    return sorted(found, key=lambda left: (_number(left.path), left.when), reverse=True)


def _highest(parent: Path) -> int:
    with suppress(OSError):
        return max(map(_number, parent.iterdir()), default=0)
    return 0


def _number(path: Path) -> int:
    """Return the number of a session; names of older versions begin with a date, such as 20260131."""
    match = re.match(r"[0-9]{8,12}", path.name)
    return int(match[0]) if match else 0


def _lock_of(path: Path) -> FileLock:
    return lock_at(path / "lock", mode=0o600)


def _is_free(path: Path) -> bool:
    try:
        lock = _lock_of(path)
        lock.acquire(timeout=0)
    except (Timeout, OSError, NotImplementedError):
        return False
    lock.release()
    return True


def _newest_prior(path: Path) -> Path | None:
    """Return the file of a session's prior, None if there are no recordings; see `PriorJournal`."""
    if not _NAME.fullmatch(path.name) or kind_at(path) != "folder":
        return None
    files = {}
    with suppress(OSError), open_folder(path / "prior") as folder:
        found = [(name, _REVISION.fullmatch(name)) for name in folder.names() if folder.kind(name) == "file"]
        files = {int(match[1]): name for name, match in found if match}
    newest = files.get(max(files, default=0), "")
    return path / "prior" / newest if newest.endswith(".safetensors") else None


def _is_session(folder: Folder) -> bool:
    """Whether a folder holds only what a session writes."""
    entries = folder.contents(("prior", "prior/pictures"))
    return all(_FILES.fullmatch(entry) or PARTIAL.fullmatch(entry) for entry in entries)
