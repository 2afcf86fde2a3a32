"""Which weights files were found right before, so that 2.5 GB are not hashed at every start. No torch."""

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
    """Return what `differs` does; a file that was right before is not read again unless somebody changed it.

    That is kept in the user's own folder, where nobody else can write: the weights themselves may lie in a
    cache that many share.
    """
    # taken first: what is put in the file's place while it is hashed has another
    stamp = _stamp(path, sha256 or git_blob)
    if _recorded(path) == stamp:
        return ""
    found = differs(path, sha256, git_blob)
    if not found:
        _record(path, stamp)
    return found


def _stamp(path: Path, checksum: str) -> bytes:
    """Return what tells that a file is the one that was hashed.

    Size and time of writing can be forged by anybody who may write to the file; `st_ctime_ns`, which every
    change moves, by nobody but an administrator (on Windows it is the time of creation).
    """
    s = path.stat()
    facts = (checksum, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)
    return os.fsencode(path) + b"\n" + " ".join(map(str, facts)).encode()


def _place(path: Path) -> Path:
    return state_dir() / "verified" / hashlib.sha256(os.fsencode(path)).hexdigest()[:32]


def _recorded(path: Path) -> bytes:
    place = _place(path)
    with suppress(OSError):
        if is_own(place) and place.is_file() and place.stat().st_size <= _LARGEST_RECORD:
            return place.read_bytes()
    return b""


def _record(path: Path, stamp: bytes) -> None:
    place = _place(path)
    with suppress(OSError):  # a home that cannot be written: hashed again next time
        private_folder(place.parent)
        place.unlink(missing_ok=True)
        with open_privately(place) as file:
            file.write(stamp)
