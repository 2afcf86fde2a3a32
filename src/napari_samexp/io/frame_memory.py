"""What a tracker needs to go on after a stop: one small safetensors file of arrays a frame."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from napari_samexp.io.atomic import os_errors_as_store_errors, write_atomic
from napari_samexp.types import StoreError

__all__ = ["FrameMemory", "load_memories", "prune_memories", "save_memory"]

FrameMemory = tuple[dict[str, npt.NDArray[Any]], dict[str, str]]

_NAME = re.compile(r"(\d{9})\.safetensors")


def save_memory(
    folder: Path, index: int, arrays: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, str]
) -> None:
    """Write the memory of frame `index` to `folder`, in one go; `StoreError` if it cannot be written."""
    try:
        # safetensors takes an array's bytes as they lie in memory, so a view has to be laid out first
        laid_out = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        data = save(laid_out, dict(meta) or None)  # it writes an empty dict in a way it cannot read
    except (SafetensorError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise StoreError(f"The memory of frame {index} cannot be stored: {error}.") from error
    with os_errors_as_store_errors(f"write the memory of frame {index} to", folder):
        folder.mkdir(exist_ok=True)
        write_atomic(folder / f"{index:09d}.safetensors", data)


def load_memories(folder: Path, frames: Collection[int] | None = None) -> dict[int, FrameMemory]:
    """Return the arrays and the texts of each memory in `folder`, or of those of `frames`, by frame."""
    with os_errors_as_store_errors("read the memories in", folder):
        found = sorted(_files(folder))
    return {index: _load(path) for index, path in found if frames is None or index in frames}


def prune_memories(folder: Path, keep: Collection[int]) -> None:
    """Remove every memory in `folder` but those of the frames `keep`."""
    with os_errors_as_store_errors("remove old memories in", folder):
        for index, path in list(_files(folder)):
            if index not in keep:
                path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in folder.iterdir() if folder.is_dir() else ():
        if match := _NAME.fullmatch(path.name):
            yield int(match[1]), path


def _load(path: Path) -> FrameMemory:
    if not path.is_file():  # a pipe would wait for its writer
        raise StoreError(f"The memory file {path} is no ordinary file; track again to another --out.")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise StoreError(
            f"The memory file {path} is damaged ({error}); track again to another --out, or with --overwrite."
        ) from error
