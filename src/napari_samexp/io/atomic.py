"""Atomic writes: a file is complete or absent, even if the process is killed or the disk is full."""

from __future__ import annotations

import errno
import functools
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from napari_samexp._private import open_privately
from napari_samexp.errors import StoreError
from napari_samexp.io.guarded import NotOrdinaryError, open_folder

__all__ = [
    "absolute_path",
    "os_errors_as_store_errors",
    "partial_file",
    "partial_name",
    "patiently",
    "remove_partials",
    "sync",
    "write_atomic",
]

T = TypeVar("T")

# the names of unfinished files, ours and zarr's, so that one sweep finds both
PARTIAL = re.compile(r".+\.[0-9a-f]{32}\.partial")
_PREFIX = 24  # characters of the target's name in that of its unfinished file, which must not become too long
WINDOWS = os.name == "nt"  # a separate name: the tests change it, and pathlib must not notice
_PATIENCE_S = 2.0
# from file systems that cannot flush a folder, such as some network ones
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF}


def absolute_path(path: str | os.PathLike[str]) -> Path:
    """Return `path` as an absolute path with links resolved; `StoreError` if that is impossible."""
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise StoreError(f"{path!r} is not a path that can be used: {error}.") from error


def write_atomic(path: Path, data: bytes, *, durable: bool = True, private: bool = False) -> None:
    """Write `data` to `path`, so that a reader finds the old content or the new, never a part of it.

    A symbolic link at `path` is replaced, not followed; `absolute_path` resolves one that a person gave.

    Parameters
    ----------
    durable : bool
        Whether to wait until the file would survive a power failure, which may take tens of milliseconds;
        it survives a kill of the process in either case.
    private : bool
        Whether only this user may read the file.

    Raises
    ------
    OSError
        If the disk refuses; `path` is then as it was.
    """
    partial = partial_name(path)
    try:
        with open_privately(partial) if private else partial.open("xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        patiently(lambda: partial.replace(path))
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    if durable:
        sync(path.parent)


@contextmanager
def partial_file(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` that replaces it at the end; after an error nothing is left of it."""
    partial = partial_name(target)
    try:
        yield partial
        sync(partial)
        patiently(lambda: partial.replace(target))
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    sync(target.parent)


def patiently(change: Callable[[], T]) -> T:
    """Return what `change` returns; on Windows, retry for a while if another process has the file open.

    There a file cannot be replaced, renamed or removed while it is open, even for the moment in which a viewer
    or a virus scanner reads it.
    """
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return change()
        except PermissionError:
            if not WINDOWS or time.monotonic() > end:
                raise
        time.sleep(0.02)


def sync(path: Path) -> None:
    """Flush the file or folder `path` to the disk, so that it survives a power failure.

    A folder holds the names of its files, so a new or renamed file needs both. A file system that cannot flush
    folders is left to do it by itself.
    """
    folder = path.is_dir()
    if WINDOWS and folder:  # NTFS writes names at once
        return
    # Windows flushes only files that are open for writing
    handle = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not folder or error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def remove_partials(folder: Path) -> None:
    """Remove unfinished files of killed writers in `folder`, if it exists; only for the holder of the lock."""
    with suppress(FileNotFoundError), open_folder(folder) as opened:
        for name in filter(PARTIAL.fullmatch, opened.names()):
            patiently(functools.partial(opened.unlink, name))


def partial_name(path: Path) -> Path:
    """Return a new name beside `path` for an unfinished file."""
    return path.with_name(f".{path.name[:_PREFIX]}.{uuid.uuid4().hex}.partial")


@contextmanager
def os_errors_as_store_errors(
    doing: str, path: Path, advice: str = "see that the folder can be written and the disk has room"
) -> Iterator[None]:
    """Turn an OSError in the block into a `StoreError`: "Could not <doing> <path>: <reason>; <advice>"."""
    try:
        yield
    except NotOrdinaryError as error:  # it is a whole sentence already
        raise StoreError(error, code=error.code) from error
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise StoreError(f"Could not {doing} {path}: {reason}; {advice}.") from error
