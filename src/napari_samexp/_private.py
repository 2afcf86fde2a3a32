"""Folders and files that only this user may read, and where they are.

On POSIX, folders have mode 0700 and files 0600. On Windows nothing is set: these places are in the user's
profile, which the system keeps from other users.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import platformdirs

__all__ = [
    "HOME_VARIABLE",
    "chosen_home",
    "is_own",
    "make_folders",
    "open_privately",
    "own_temporary_folder",
    "private_folder",
    "state_dir",
    "tighten",
]

HOME_VARIABLE = "NAPARI_SAMEXP_HOME"
_OTHERS = 0o077


def chosen_home() -> Path | None:
    """Return the folder named by ``NAPARI_SAMEXP_HOME``, which replaces the user's folders; None if it is not set."""
    chosen = os.environ.get(HOME_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else None


def state_dir(home: Path | None = None) -> Path:
    """Return the folder for state that outlives a session."""
    return home or chosen_home() or platformdirs.user_state_path("napari-samexp", appauthor=False)


def make_folders(path: Path) -> None:
    """Create a folder and its missing parents, for this user only."""
    if not path.is_dir():
        make_folders(path.parent)
        path.mkdir(0o700, exist_ok=True)


def private_folder(path: Path) -> None:
    """Create a folder for this user only, or make an existing one so; `OSError` if it cannot be created."""
    make_folders(path)
    tighten(path)


def tighten(path: Path) -> None:
    """Remove other users' permissions on a file or folder, if the system allows it."""
    with suppress(OSError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if os.name == "posix" and mode & _OTHERS:
            path.chmod(mode & ~_OTHERS)


def open_privately(path: Path) -> BinaryIO:
    """Open a new file for writing, for this user only; `FileExistsError` if anything is there."""
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))


def is_own(path: Path) -> bool:
    """Whether a file or folder is not a link, belongs to this user, and is writable by nobody else."""
    try:
        status = path.lstat()
    except OSError:
        return False
    if stat.S_ISLNK(status.st_mode):
        return False
    return os.name != "posix" or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)


def own_temporary_folder(name: str) -> Path:
    """Return a folder for this user only in the system's temporary folder, which all users may write to.

    The same folder is returned each time while it exists. Links, and folders that another user owns or may
    write to, are skipped.

    Raises
    ------
    OSError
        If none can be created.
    """
    parent = Path(tempfile.gettempdir())
    preferred = parent / name
    with suppress(FileExistsError):
        preferred.mkdir(0o700, parents=True)
    for folder in [preferred, *sorted(parent.glob(f"{glob.escape(name)}-*"))]:
        if is_own(folder) and folder.is_dir():
            tighten(folder)
            return folder
    made = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
    if not is_own(made):  # a file system on which everything belongs to another user
        raise OSError(errno.EPERM, f"a folder in {parent} belongs to another user", str(made))
    return made
