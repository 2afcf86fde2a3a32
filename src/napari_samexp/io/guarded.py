"""Files and folders of ours in places that an archive may have filled: no link is followed, and nothing waits.

What is opened here lies in a label store, beside one, in a session's folder or in a batch's. There an archive can
put links to any place of the computer, pipes and devices. Each is looked at without following it, and opened
without following it. What removes or moves holds the folder open, so that nobody can put a link in its place
meanwhile; on Windows, which lacks that, the look decides alone.

A path that a person names may be a link: resolve it first.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from filelock import FileLock

__all__ = [
    "Folder",
    "NotOrdinaryError",
    "kind_at",
    "kind_of",
    "lock_at",
    "make_folder",
    "open_file",
    "open_folder",
    "read_whole",
    "require_ordinary",
]

Kind = Literal["file", "folder", "link", "other"]

_SURROGATE = (
    0x2000_0000  # in a reparse tag of Windows: it stands for another place; a file in a cloud does not
)
_HANDLES = {os.open, os.unlink, os.rename, os.stat} <= os.supports_dir_fd and os.listdir in os.supports_fd
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_MODES = {
    "rb": os.O_RDONLY,
    "r+b": os.O_RDWR,
    "a+b": os.O_RDWR | os.O_APPEND | os.O_CREAT,
}
_WORDS = {"file": "a file", "folder": "a folder", "link": "a link", "other": "a pipe or a device"}


class NotOrdinaryError(OSError):
    """There is a link, a pipe or the like in the place of a file or folder of ours: one whole sentence."""

    code = "link"  # as of `SamexpError`


def kind_of(status: os.stat_result) -> Kind:
    """Return what a status from `os.lstat` is of; a junction of Windows is a link."""
    if stat.S_ISLNK(status.st_mode) or getattr(status, "st_reparse_tag", 0) & _SURROGATE:
        return "link"
    if stat.S_ISDIR(status.st_mode):
        return "folder"
    return "file" if stat.S_ISREG(status.st_mode) else "other"


def kind_at(path: Path) -> Kind | None:
    """Return what is at `path`, links not followed; None if nothing is."""
    try:
        return kind_of(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def require_ordinary(path: Path, wanted: Literal["file", "folder"], *, alone: bool = False) -> bool:
    """Return whether anything is at `path`; raise `NotOrdinaryError` if that is no ordinary file or folder.

    Parameters
    ----------
    alone : bool
        Also refuse a file with a second name (a hard link): what is written in its place would change it under
        the other name too. An archive can link to any file that lies where it is unpacked.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    _require(status, path, wanted, alone)
    return True


def open_file(path: Path, mode: Literal["rb", "r+b", "a+b"], buffering: int = -1) -> IO[bytes]:
    """Open an ordinary file as `open` does; for writing, only one without a second name.

    Raises
    ------
    OSError
        If it cannot be opened; `NotOrdinaryError` if it is no ordinary file.
    """
    writing = mode != "rb"
    require_ordinary(
        path, "file", alone=writing
    )  # opening a device can do things, and a link has a sentence here
    handle = os.open(path, _MODES[mode] | _NO_FOLLOW | getattr(os, "O_BINARY", 0), 0o666)
    try:
        _require(os.fstat(handle), path, "file", writing)
        return os.fdopen(handle, mode, buffering)
    except BaseException:
        os.close(handle)
        raise


def read_whole(path: Path, most: int) -> bytes:
    """Return the content of an ordinary file.

    Raises
    ------
    OSError
        If it cannot be read, has more than `most` bytes, or is no ordinary file: a pipe never ends, nor does
        what a link to a device gives.
    """
    with open_file(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size} bytes, and at most {most} are read")
        return file.read()


def make_folder(path: Path, *, parents: bool = True) -> None:
    """Make a folder, by default with its parents, or take the one that is there; `OSError` if it is no folder."""
    if not require_ordinary(path, "folder"):
        path.mkdir(parents=parents, exist_ok=True)


def lock_at(path: Path, **options: Any) -> FileLock:
    """Return a lock that is kept in the file `path`, which need not be there yet.

    The lock belongs to who made it, not to a thread. Older versions of filelock empty the file.
    """
    require_ordinary(path, "file", alone=True)
    return FileLock(path, thread_local=False, **options)


class Folder:
    """A folder that is held open, as `open_folder` gives it; names are of what lies in it, never followed."""

    def __init__(self, path: Path, handle: int | None) -> None:
        self.path = path
        self._handle = handle

    def names(self) -> list[str]:
        """Return the names of all that lies in the folder."""
        return os.listdir(self.path if self._handle is None else self._handle)  # noqa: PTH208 - a handle

    def contents(self, known: Collection[str] = ()) -> list[str]:
        """Return all that lies in the folder, and what lies in those folders in it that are `known`.

        An entry is like "name" or "known/name", that of another folder "name/".
        """
        found = []
        for name in self.names():
            if self.kind(name) != "folder":
                found.append(name)
            elif name not in known:
                found.append(f"{name}/")
            else:
                within = [path.removeprefix(f"{name}/") for path in known if path.startswith(f"{name}/")]
                with self.inside(name) as folder:
                    found += [f"{name}/{entry}" for entry in folder.contents(within)]
        return found

    def kind(self, name: str) -> Kind | None:
        """Return what has a name; None if nothing has."""
        try:
            return kind_of(os.stat(self._place(name), dir_fd=self._handle, follow_symlinks=False))
        except FileNotFoundError:
            return None

    def unlink(self, name: str) -> None:
        """Remove a file, or a link and not what it leads to; nothing if there is none."""
        try:
            os.unlink(self._place(name), dir_fd=self._handle)
        except FileNotFoundError:
            return

    def remove_tree(self, name: str) -> None:
        """Remove a folder with all that lies in it; links in it go, and not what they lead to."""
        shutil.rmtree(self._place(name), dir_fd=self._handle)

    def rename(self, name: str, new: str) -> None:
        """Give something another name in this folder."""
        os.rename(self._place(name), self._place(new), src_dir_fd=self._handle, dst_dir_fd=self._handle)

    def move_out(self, name: str, path: Path) -> None:
        """Move something to a path elsewhere on the same disk."""
        os.rename(self._place(name), path, src_dir_fd=self._handle)

    def move_in(self, path: Path, name: str) -> None:
        """Move something from elsewhere on the same disk into this folder."""
        os.rename(path, self._place(name), dst_dir_fd=self._handle)

    @contextmanager
    def inside(self, name: str) -> Iterator[Folder]:
        """Open a folder in this one."""
        with _opened(self.path / name, self._place(name), self._handle) as folder:
            yield folder

    def _place(self, name: str) -> str | Path:
        return self.path / name if self._handle is None else name


@contextmanager
def open_folder(path: Path) -> Iterator[Folder]:
    """Open an ordinary folder and hold it.

    Raises
    ------
    OSError
        If it cannot be opened; `NotOrdinaryError` if it is a link or no folder.
    """
    with _opened(path, path, None) as folder:
        yield folder


@contextmanager
def _opened(path: Path, place: str | Path, parent: int | None) -> Iterator[Folder]:
    _require(os.stat(place, dir_fd=parent, follow_symlinks=False), path, "folder")
    if not _HANDLES:
        yield Folder(path, None)
        return
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW, dir_fd=parent)
    try:
        yield Folder(path, handle)
    finally:
        os.close(handle)


def _require(status: os.stat_result, path: Path, wanted: str, alone: bool = False) -> None:
    kind = kind_of(status)
    if kind != wanted:
        raise NotOrdinaryError(
            f"{path} is {_WORDS[kind]} and no ordinary {wanted}, so it is left alone; remove it, or get a copy "
            "without links."
        )
    if alone and status.st_nlink > 1:
        raise NotOrdinaryError(
            f"{path} has a second name (it is a hard link), under which writing would change it too; put a copy in "
            "its place."
        )
