"""What a tracker needs to resume after a stop: one small safetensors file for each frame."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from napari_samexp.errors import StoreError
from napari_samexp.io.atomic import os_errors_as_store_errors, write_atomic
from napari_samexp.io.guarded import make_folder, open_folder, require_ordinary

__all__ = ["FrameMemory", "load_memories", "prune_memories", "save_memory"]

FrameMemory = tuple[dict[str, npt.NDArray[Any]], dict[str, str]]

_NAME = re.compile(r"(\d{9})\.safetensors")


def save_memory(
    folder: Path, index: int, arrays: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, str]
) -> None:
    """Write the memory of a frame, atomically.

    Parameters
    ----------
    folder : Path
        Created if missing, unless its parent is.
    index : int
        The frame.
    arrays : mapping of str to array
        Any shapes; dtypes that safetensors has.
    meta : mapping of str to str
        Texts to keep with the arrays.

    Raises
    ------
    StoreError
        If it cannot be written; an earlier memory of the frame is unchanged.
    """
    try:
        # safetensors takes an array's buffer as it is, so views must be made contiguous
        laid_out = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        data = save(laid_out, dict(meta) or None)  # it cannot read the empty dict that it writes
    except (SafetensorError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise StoreError(f"The memory of frame {index} cannot be stored: {error}.") from error
    with os_errors_as_store_errors(f"write the memory of frame {index} to", folder):
        make_folder(folder, parents=False)  # a store that was removed is not created again
        write_atomic(folder / f"{index:09d}.safetensors", data)


def load_memories(folder: Path, frames: Collection[int] | None = None) -> dict[int, FrameMemory]:
    """Return the arrays and texts saved in `folder`, by frame.

    Parameters
    ----------
    frames : collection of int, optional
        Only these frames; by default all.

    Raises
    ------
    StoreError
        If a file cannot be read or is damaged.
    """
    found = []
    with (
        os_errors_as_store_errors("read the memories in", folder),
        suppress(FileNotFoundError),
        open_folder(folder) as opened,
    ):
        found = sorted(_numbered(opened.names()))
    return {index: _load(folder / name) for index, name in found if frames is None or index in frames}


def prune_memories(folder: Path, keep: Collection[int]) -> None:
    """Delete every memory in `folder` except those of the frames `keep`; `StoreError` if that fails."""
    with (
        os_errors_as_store_errors("remove old memories in", folder),
        suppress(FileNotFoundError),
        open_folder(folder) as opened,
    ):
        for index, name in _numbered(opened.names()):
            if index not in keep:
                opened.unlink(name)


def _numbered(names: Iterable[str]) -> Iterator[tuple[int, str]]:
    for name in names:
        if match := _NAME.fullmatch(name):
            yield int(match[1]), name


def _load(path: Path) -> FrameMemory:
    with os_errors_as_store_errors("read", path):
        require_ordinary(path, "file")  # a pipe would wait for its writer
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise StoreError(
            f"The memory file {path} is damaged ({error}); track again to another --out, or with --overwrite."
        ) from error
