"""The lock of a label store: one writer at a time, and a new folder replaces an old one atomically."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from filelock import Timeout

from napari_samexp.errors import StoreError
from napari_samexp.io.atomic import os_errors_as_store_errors, patiently, sync
from napari_samexp.io.guarded import kind_at, lock_at, make_folder, open_folder
from napari_samexp.io.store_files import remove_store, require_store_files

__all__ = ["StoreLock", "swap_was_interrupted"]

_LONGEST_NAME = 240  # bytes; file systems allow 255, and the name of the hidden folder is longer


class StoreLock:
    """Exclusive write access to `path`, until `release` or until the process ends in any way.

    The lock and unfinished folders are beside `path`, in a hidden folder ``.<name>.samexp``: a lock inside would
    move away with a folder that is replaced.

    Parameters
    ----------
    path : Path
        The folder, which need not exist yet; absolute.

    Raises
    ------
    StoreError
        If another process writes there, or the place cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._side = _side(path)
        with os_errors_as_store_errors("write beside", path):
            make_folder(self._side)
            # The operating system releases the lock when the process ends. It belongs to the store, not to a
            # thread: a store may be closed by another thread than the one that opened it.
            self._lock = lock_at(self._side / "lock")
            self._acquire()
            try:
                self._settle()
            except BaseException:
                self._lock.release()
                raise

    @property
    def building(self) -> Path:
        """Where to build the folder that `install` puts in place; on the same disk."""
        return self._side / "new"

    def install(self) -> None:
        """Replace the folder at the path by `building`, and only then delete the old one."""
        sync(self.building)
        with open_folder(self._side) as side:
            if os.path.lexists(self._path):
                patiently(lambda: side.move_in(self._path, "old"))
            try:
                patiently(lambda: side.move_out("new", self._path))
            except OSError:
                self._settle()
                raise
        with suppress(
            OSError
        ):  # the new folder is in place; a later lock removes what is left of the old one
            sync(self._path.parent)
            self._settle()

    def remove(self) -> None:
        """Remove the label store at the path; `StoreError` if it is not one or holds other files, and it stays."""
        with os_errors_as_store_errors("remove", self._path):
            with open_folder(self._path.parent) as parent:
                require_store_files(parent, self._path.name)
            with open_folder(self._side) as side:
                patiently(lambda: side.move_in(self._path, "trash"))
            self._settle()

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if not self._lock.is_locked:
            return
        with suppress(OSError):
            self._settle()
        # Unlinked before the release, so that nobody holds a lock that others cannot see: filelock gives up a
        # lock on an unlinked file. A file that cannot be unlinked stays and does no harm.
        with suppress(OSError):
            (self._side / "lock").unlink()
        self._lock.release()
        with suppress(OSError):
            self._side.rmdir()

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(
                f"Another process or job writes {self._path}; wait until it ends, or choose another --out.",
                code="labels-in-use",
            ) from None
        except NotImplementedError:
            raise StoreError(
                f"The disk of {self._path} cannot lock files, so two programs could write at once; "
                "choose a place on another disk."
            ) from None

    def _settle(self) -> None:
        """Undo or finish a swap that a kill interrupted, and remove unfinished folders."""
        with open_folder(self._side) as side:
            remove_store(side, "trash")
            remove_store(side, "new")
            if side.kind("old") is None:
                return
            require_store_files(side, "old")
            if not os.path.lexists(self._path):
                patiently(lambda: side.move_out("old", self._path))
                return
            # renamed first, so that `old` is always complete, even if a kill interrupts the removal
            patiently(lambda: side.rename("old", "trash"))
            remove_store(side, "trash")


def swap_was_interrupted(path: Path) -> bool:
    """Whether `path` is missing because a process was killed while replacing it; a `StoreLock` restores it."""
    if path.exists():
        return False
    side = _side(path)
    return kind_at(side) == "folder" and kind_at(side / "old") == "folder"


def _side(path: Path) -> Path:
    name = path.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f"{name[:24]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
    return path.with_name(f".{name}.samexp")
