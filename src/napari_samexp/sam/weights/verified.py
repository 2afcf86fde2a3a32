"""Which weight files were verified before, so that 2.5 GB are not hashed at every start. No torch."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from napari_samexp._private import is_own, open_privately, private_folder, state_dir
from napari_samexp.sam.weights.hashes import differs

__all__ = ["difference"]

_LARGEST_RECORD = 1 << 16


def difference(path: Path, sha256: str, git_blob: str = "") -> str:
    """Return what `differs` does; a file that was verified before is only read again if it has changed.

    The record is in the user's own folder, where nobody else can write: the weights themselves may be in a
    shared cache.
    """
    # taken first: a file that replaces this one while it is hashed has another stamp
    stamp = _stamp(path, sha256 or git_blob)
    if _recorded(path) == stamp:
        return ""
    found = differs(path, sha256, git_blob)
    if not found:
        _record(path, stamp)
    return found


def _stamp(path: Path, checksum: str) -> bytes:
    """Return what identifies the file that was hashed.

    Whoever may write to the file can forge its size and modification time, but only an administrator
    `st_ctime_ns`, which every change updates (on Windows it is the time of creation).
    """
    s = path.stat()
    facts = (checksum, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)
    return os.fsencode(path) + b"\n" + " ".join(map(str, facts)).encode()


def _record_path(path: Path) -> Path:
    return state_dir() / "verified" / hashlib.sha256(os.fsencode(path)).hexdigest()[:32]


def _recorded(path: Path) -> bytes:
    record = _record_path(path)
    with suppress(OSError):
        if is_own(record) and record.is_file() and record.stat().st_size <= _LARGEST_RECORD:
            return record.read_bytes()
    return b""


def _record(path: Path, stamp: bytes) -> None:
    record = _record_path(path)
    with suppress(OSError):  # a home that cannot be written: hashed again next time
        private_folder(record.parent)
        record.unlink(missing_ok=True)
        with open_privately(record) as file:
            file.write(stamp)
