"""Folders that a command fills with files of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from napari_samexp.errors import SettingsError
from napari_samexp.io.guarded import require_ordinary

__all__ = ["require_folder"]


def require_folder(option: str, folder: Path, inputs: Mapping[str, Path], writes: Sequence[str] = ()) -> None:
    """Raise unless files can be written into a folder, which may be new.

    Parameters
    ----------
    inputs : mapping of str to Path
        Folders and files that nothing may be written into, by what messages call them.
    writes : sequence of str
        The names of files in the folder that are replaced or appended to. None may be a link: the folder may
        come from somebody else.

    Raises
    ------
    SettingsError
        Before anything is written.
    """
    try:
        target = folder.resolve()
        there = next(path for path in (target, *target.parents) if path.exists())
    except (OSError, RuntimeError, ValueError, StopIteration):
        raise SettingsError(f"{option} is {str(folder)!r}, which is not a path that can be used.") from None
    if not there.is_dir():
        raise SettingsError(f"{option} {folder} is or lies in a file; give a folder.")
    if not os.access(there, os.W_OK):
        raise SettingsError(f"{option} {folder} cannot be written; choose another folder.")
    for name, path in inputs.items():
        other = path.resolve()
        if other == target or (other.is_dir() and other in target.parents):
            raise SettingsError(f"{option} {folder} would write into {name}; choose another folder.")
    for name in writes:
        try:
            require_ordinary(target / name, "file")
        except OSError as error:
            raise SettingsError(str(error)) from error
