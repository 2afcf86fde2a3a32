"""Folders and files that are this user's business alone, and where they are.

Modes are those of POSIX: 0700 for folders, 0600 for files. On Windows nothing is set, since these places lie in
the user's own profile there, which the system keeps from other users.
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
    """Return the folder that ``NAPARI_SAMEXP_HOME`` names, in the place of the user's own ones."""
    chosen = os.environ.get(HOME_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else None


def state_dir(home: Path | None = None) -> Path:
    """Return the folder for what is kept from one session to the next."""
    return home or chosen_home() or platformdirs.user_state_path("napari-samexp", appauthor=False)


def make_folders(path: Path) -> None:
    """Make a folder and those above it where they are missing, for this user alone."""
    if not path.is_dir():
        make_folders(path.parent)
        path.mkdir(0o700, exist_ok=True)


def private_folder(path: Path) -> None:
    """Make a folder for this user alone, also of one that is there already; `OSError` if it cannot be made."""
    make_folders(path)
    tighten(path)


def tighten(path: Path) -> None:
    """Take the rights of others away from a file or folder; where the system does not let us, they stay."""
    with suppress(OSError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if os.name == "posix" and mode & _OTHERS:
            path.chmod(mode & ~_OTHERS)


def open_privately(path: Path) -> BinaryIO:
    """Open a new file to write to, for this user alone; `FileExistsError` if anything is there."""
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))


def is_own(path: Path) -> bool:
    """Whether a file or folder is no link, belongs to this user, and nobody else may write to it."""
    try:
        status = path.lstat()
    except OSError:
        return False
    if stat.S_ISLNK(status.st_mode):
        return False
    return os.name != "posix" or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)


def own_temporary_folder(name: str) -> Path:
    """Return a folder of this user alone below the system's temporary one, which all users may write to.

    It is the same one each time as long as it is there: a link, or a folder of another user or that another
    user may write to, is passed over.

    Raises
    ------
    OSError
        If none can be made.
    """
    above = Path(tempfile.gettempdir())
    wanted = above / name
    with suppress(FileExistsError):
        wanted.mkdir(0o700, parents=True)
    for folder in [wanted, *sorted(above.glob(f"{glob.escape(name)}-*"))]:
        if is_own(folder) and folder.is_dir():
            tighten(folder)
            return folder
    made = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=above))
    if not is_own(made):  # a file system on which all belongs to somebody else
        raise OSError(errno.EPERM, f"a folder in {above} belongs to another user", str(made))
    return made
