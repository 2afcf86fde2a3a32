"""Checks of the paths that people give, with one clear sentence for each thing that can be wrong."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path

from napari_samexp.errors import SamexpError
from napari_samexp.io.elsewhere import other_computer

__all__ = ["content_digest", "existing_path", "files_of_folder", "natural_key", "readable_file"]

_CHUNK = 1 << 20


def existing_path(path: str | os.PathLike[str], error: type[SamexpError], expected: str) -> Path:
    """Return `path` as an absolute path with ``~`` expanded; raise `error` if nothing is there."""
    try:
        found = Path(path).expanduser().absolute()
        exists = found.exists()
    except (OSError, RuntimeError, TypeError, ValueError) as problem:
        raise error(f"{path!r} is not a path that can be used ({problem}); give {expected}.") from problem
    if not exists:
        raise error(f"{path} does not exist; give {expected}.")
    return found


def readable_file(path: str | os.PathLike[str], error: type[SamexpError], expected: str) -> Path:
    """Return the path of a file that has content and may be read; raise `error` otherwise."""
    found = existing_path(path, error, expected)
    if found.is_dir():
        raise error(f"{path} is a folder; give {expected}.")
    if not found.is_file():  # opening a pipe would block until someone writes to it
        raise error(f"{path} is not an ordinary file; give {expected}.")
    try:
        with found.open("rb") as file:
            empty = not os.fstat(file.fileno()).st_size  # a byte may never come: /proc has files that wait
    except OSError as problem:
        raise error(f"{path} cannot be read ({problem.strerror}); check its permissions.") from problem
    if empty:
        raise error(f"{path} is empty (0 bytes); copy it again, or give {expected}.")
    return found


def files_of_folder(
    folder: Path, suffixes: Collection[str], error: type[SamexpError]
) -> tuple[list[Path], list[Path]]:
    """Return a folder's files with these suffixes in the order in which people count, and its other files.

    Links to ordinary files are followed, wherever those are: a person may collect images in that way. Hidden files
    are left out, such as the ``._`` doubles of macOS.

    Raises
    ------
    SamexpError
        As `error`, if the folder cannot be read, or if what has such a suffix is neither a file nor a folder: a
        pipe, a device, or a link that leads to one, in a circle or nowhere; and for a link to another computer.
    """
    try:
        named = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        away = next((e for e in named if e.is_symlink() and other_computer(e.readlink(), folder)), None)
        if away is not None:  # before anything asks what it leads to
            raise error(f"{away} is a link to another computer; copy what it leads to, or take it out.")
        entries = sorted(
            (entry for entry in named if not entry.is_dir()), key=lambda entry: natural_key(entry.name)
        )
        ordinary = {entry for entry in entries if entry.is_file()}
    except OSError as problem:
        raise error(
            f"The folder {folder} cannot be read ({problem.strerror}); check its permissions."
        ) from problem
    wanted = [entry for entry in entries if entry.suffix.lower() in suffixes]
    odd = next((entry for entry in wanted if entry not in ordinary), None)
    if odd is not None:
        raise error(
            f"{odd} is not an ordinary file (a pipe, a device, or a link that leads nowhere); take it out of the folder."
        )
    return wanted, [entry for entry in entries if entry in ordinary.difference(wanted)]


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sorting key that puts ``frame 2`` before ``frame 10`` and ignores case."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(1, int(p), "") if i % 2 else (0, 0, p) for i, p in enumerate(parts)], name


def content_digest(path: Path, chunk: int = _CHUNK) -> str:
    """Return a hash of a file's size and of its first, middle and last `chunk` bytes.

    Fast for files of any size, and independent of where the file is.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in (0, size // 2, size - chunk):
            file.seek(max(0, start))
            digest.update(file.read(chunk))
    return digest.hexdigest()
