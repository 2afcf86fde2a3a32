"""Files that are either wholly there or not there at all, whatever kills the process or fills the disk."""

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

# The names of unfinished files, ours and zarr's, so that one sweep finds both.
PARTIAL = re.compile(r".+\.[0-9a-f]{32}\.partial")
_KNOWN_BY = (
    24  # letters of the target's name in that of an unfinished file: a long name must not become too long
)
WINDOWS = os.name == "nt"  # a name of its own, since the tests change it and pathlib must not notice
_PATIENCE_S = 2.0
# what file systems say that cannot flush a folder, as some of a network's
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF}


def absolute_path(path: str | os.PathLike[str]) -> Path:
    """Return `path` as the absolute path of what it leads to; `StoreError` if it cannot be one."""
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise StoreError(f"{path!r} is not a path that can be used: {error}.") from error


def write_atomic(path: Path, data: bytes, *, durable: bool = True, private: bool = False) -> None:
    """Write `data` to `path`, so that a reader finds the old content or the new, and never a part.

    A link at `path` is replaced, and what it leads to stays; `absolute_path` gives that, where a person named
    the link.

    Parameters
    ----------
    durable : bool
        Return only once it would outlive a power cut, which may take a disk tens of milliseconds;
        what a kill of the process leaves is whole in both cases.
    private : bool
        Whether nobody but this user may read it.

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
    """Give a place beside `target`, which takes its place at the end; after an error nothing is left."""
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
    """Return what `change` returns; on Windows, try for a while if somebody has the file open.

    There a file cannot be replaced, renamed or removed while it is read, if only for the moment in which a
    viewer draws it or a virus scanner looks at it.
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
    """Return once the file or folder `path` is on the disk and would outlive a power cut.

    A folder holds the names of its files, so a new or renamed file needs both. Where the file system cannot
    flush a folder, it is left to flush it by itself.
    """
    folder = path.is_dir()
    if WINDOWS and folder:  # it writes names at once
        return
    # Windows flushes only what is open for writing
    handle = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not folder or error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def remove_partials(folder: Path) -> None:
    """Remove what killed writers left unfinished in `folder`, if it exists; only the one writer may."""
    with suppress(FileNotFoundError), open_folder(folder) as opened:
        for name in filter(PARTIAL.fullmatch, opened.names()):
            patiently(functools.partial(opened.unlink, name))


def partial_name(path: Path) -> Path:
    """Return a new name beside `path` for what is not finished."""
    return path.with_name(f".{path.name[:_KNOWN_BY]}.{uuid.uuid4().hex}.partial")


@contextmanager
def os_errors_as_store_errors(
    doing: str, path: Path, advice: str = "see that the folder can be written and the disk has room"
) -> Iterator[None]:
    """Turn an OSError in the block into a `StoreError`: "Could not <doing> <path>: <reason>; <advice>"."""
    try:
        yield
    except NotOrdinaryError as error:  # a sentence of its own
        raise StoreError(error, code=error.code) from error
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise StoreError(f"Could not {doing} {path}: {reason}; {advice}.") from error
