"""Checksums of files: SHA-256, and the id that git gives a file. No torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["differs", "git_blob_of", "sha256_of"]

CHUNK_BYTES = 1 << 20


def sha256_of(path: str | Path) -> str:
    """Return a file's SHA-256 as 64 lower-case hexadecimal digits, reading it piece by piece."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_of(path: str | Path) -> str:
    """Return the id that git gives a file's content, 40 lower-case hexadecimal digits.

    It is the SHA-1 of the word "blob", the size in bytes and the content; ``git hash-object`` prints it.
    """
    path = Path(path)
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def differs(path: Path, sha256: str, git_blob: str = "") -> str:
    """Return how a file differs from the one of a SHA-256 or, where that is empty, of a git blob id.

    Returns
    -------
    str
        Such as "SHA-256 ..., expected ..."; empty if it is that file.
    """
    kind, expected, of = ("SHA-256", sha256, sha256_of) if sha256 else ("git blob id", git_blob, git_blob_of)
    found = of(path)
    return "" if found == expected else f"{kind} {found}, expected {expected}"
