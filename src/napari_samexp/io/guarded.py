"""Safe access to our files and folders where an unpacked archive may have put links, pipes or devices.

These are the files in and beside a label store, in a session's folder and in a batch's. No link is followed and no
pipe is opened. Code that removes or moves things holds the folder open, so that nobody can put a link in its place
meanwhile; Windows has no such handles, so there a check before is all.

A path that a person gives may be a link: resolve it first.
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
    0x2000_0000  # bit of a Windows reparse tag that stands for another place, unlike a file in a cloud
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
    """A link, pipe or device is in the place of a file or folder of ours; the message is a whole sentence."""

    code = "link"  # as of `SamexpError`


def kind_of(status: os.stat_result) -> Kind:
    """Return the kind of a file from its `os.lstat`; a Windows junction is a link."""
    if stat.S_ISLNK(status.st_mode) or getattr(status, "st_reparse_tag", 0) & _SURROGATE:
        return "link"
    if stat.S_ISDIR(status.st_mode):
        return "folder"
    return "file" if stat.S_ISREG(status.st_mode) else "other"


def kind_at(path: Path) -> Kind | None:
    """Return the kind of what is at `path`, without following links; None if nothing is there."""
    try:
        return kind_of(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def require_ordinary(path: Path, wanted: Literal["file", "folder"], *, alone: bool = False) -> bool:
    """Return whether anything is at `path`; raise `NotOrdinaryError` if it is not an ordinary file or folder.

    Parameters
    ----------
    path : Path
    wanted : "file" or "folder"
    alone : bool
        Also refuse a file with a second name (a hard link), because writing would change it under the other name
        too. An archive can link to any file on the disk where it is unpacked.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    _require(status, path, wanted, alone)
    return True


def open_file(path: Path, mode: Literal["rb", "r+b", "a+b"], buffering: int = -1) -> IO[bytes]:
    """Open an ordinary file like `open`; for writing, only one without a second name.

    Raises
    ------
    OSError
        If it cannot be opened; `NotOrdinaryError` if it is not an ordinary file.
    """
    writing = mode != "rb"
    require_ordinary(path, "file", alone=writing)  # before opening, which can have effects on a device
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
        If it cannot be read, has more than `most` bytes, or is not an ordinary file: pipes and devices may
        never end.
    """
    with open_file(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size} bytes, and at most {most} are read")
        return file.read()


def make_folder(path: Path, *, parents: bool = True) -> None:
    """Create a folder if it is missing, by default with its parents; `OSError` if something else is there."""
    if not require_ordinary(path, "folder"):
        path.mkdir(parents=parents, exist_ok=True)


def lock_at(path: Path, **options: Any) -> FileLock:
    """Return a lock on the file `path`, which is created if missing.

    The lock belongs to the returned object, not to a thread. Older versions of filelock empty the file.
    """
    require_ordinary(path, "file", alone=True)
    return FileLock(path, thread_local=False, **options)


class Folder:
    """A folder that is held open, from `open_folder`. Names are of its entries, and links are never followed."""

    def __init__(self, path: Path, handle: int | None) -> None:
        self.path = path
        self._handle = handle

    def names(self) -> list[str]:
        """Return the names of all entries."""
        return os.listdir(self.path if self._handle is None else self._handle)  # noqa: PTH208 - a handle

    def contents(self, known: Collection[str] = ()) -> list[str]:
        """Return all entries, and those of the subfolders that are `known`.

        An entry is like "name" or "known/name"; another subfolder is "name/".
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
        """Return the kind of the entry `name`; None if there is none."""
        try:
            return kind_of(os.stat(self._path_of(name), dir_fd=self._handle, follow_symlinks=False))
        except FileNotFoundError:
            return None

    def unlink(self, name: str) -> None:
        """Remove a file, or a link without what it leads to, if it exists."""
        try:
            os.unlink(self._path_of(name), dir_fd=self._handle)
        except FileNotFoundError:
            return

    def remove_tree(self, name: str) -> None:
        """Remove a subfolder with everything in it; links are removed, not followed."""
        shutil.rmtree(self._path_of(name), dir_fd=self._handle)

    def rename(self, name: str, new: str) -> None:
        """Rename an entry."""
        os.rename(self._path_of(name), self._path_of(new), src_dir_fd=self._handle, dst_dir_fd=self._handle)

    def move_out(self, name: str, path: Path) -> None:
        """Move an entry to a path on the same disk."""
        os.rename(self._path_of(name), path, src_dir_fd=self._handle)

    def move_in(self, path: Path, name: str) -> None:
        """Move a file or folder on the same disk into this folder."""
        os.rename(path, self._path_of(name), dst_dir_fd=self._handle)

    @contextmanager
    def inside(self, name: str) -> Iterator[Folder]:
        """Open a subfolder."""
        with _opened(self.path / name, self._path_of(name), self._handle) as folder:
            yield folder

    def _path_of(self, name: str) -> str | Path:
        return self.path / name if self._handle is None else name


@contextmanager
def open_folder(path: Path) -> Iterator[Folder]:
    """Open an ordinary folder and hold it open.

    Raises
    ------
    OSError
        If it cannot be opened; `NotOrdinaryError` if it is a link or not a folder.
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
