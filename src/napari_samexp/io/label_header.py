"""The header of a label store: its shape, labels and identity, and the zarr metadata that hold them."""

from __future__ import annotations

import errno
import json
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import LocalStore

from napari_samexp._text import clean_name
from napari_samexp.errors import StoreError
from napari_samexp.io.atomic import os_errors_as_store_errors
from napari_samexp.io.chunk_files import ChunkFiles
from napari_samexp.io.guarded import NotOrdinaryError, kind_at, open_folder, read_whole
from napari_samexp.io.store_files import foreign_in
from napari_samexp.types import RunIdentity

__all__ = ["StoreHeader", "require_replaceable", "require_there"]

VERSION = 1
KEY = "napari_samexp"
MAX_FRAMES = 10_000_000
MAX_SIDE = 32_768
MAX_LABEL = 65_535
MAX_METADATA = 64 * 2**20  # bytes; the details may list every frame
MAX_SCORES = 100_000_000  # frames times labels: all scores are held in memory

_DIFFERENCES = {
    "video": "another video",
    "prior": "another prior",
    "model": "another model",
    "settings": "other settings",
}


@dataclass(frozen=True, slots=True)
class StoreHeader:
    """Everything that is fixed when a store is created.

    Parameters
    ----------
    shape : tuple of int
        (T, Y, X).
    names : dict of int to str
        Each label, 1 to 65535, and its object's name.
    identity : RunIdentity
    details : dict
        Anything that JSON can hold.

    Raises
    ------
    StoreError
        If any of them is of the wrong type or out of range.
    """

    shape: tuple[int, int, int]
    names: dict[int, str]
    identity: RunIdentity
    details: dict[str, Any]

    def __post_init__(self) -> None:
        problem = _shape_problem(self.shape) or _names_problem(self.names) or _details_problem(self.details)
        if problem is None and not all(isinstance(part, str) for part in asdict(self.identity).values()):
            problem = "the run's identity must be four texts"
        if problem is None and self.shape[0] * len(self.names) > MAX_SCORES:
            problem = f"{self.shape[0]} frames of {len(self.names)} labels are too many"
        if problem is not None:
            raise StoreError(f"These labels cannot be stored: {problem}.")

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        labels: Sequence[int] | Mapping[int, str],
        identity: RunIdentity,
        details: Mapping[str, Any],
    ) -> StoreHeader:
        """Return a header for labels with or without names; without, label 3 is called "object 3"."""
        numbers = _whole_numbers(labels, "labels")
        if len(set(numbers)) != len(numbers):
            raise StoreError(f"The labels {numbers} name one twice; give each object its own label.")
        names = labels.values() if isinstance(labels, Mapping) else [f"object {label}" for label in numbers]
        sides = _whole_numbers(shape, "shape")
        return cls(tuple(sides), dict(zip(numbers, names)), identity, dict(details))  # type: ignore[arg-type]

    @classmethod
    def read(cls, folder: Path, identity: RunIdentity | None = None) -> StoreHeader:
        """Return the header of a label store; `StoreError` if it is not one, damaged, or of another run."""
        if not folder.exists():
            raise StoreError(f"There is no label store {folder}; give the folder that a tracking run wrote.")
        metadata = _read_metadata(folder)
        own = _own_attributes(metadata)
        if own is None:
            raise StoreError(f"{folder} is not a label store; give the folder that a tracking run wrote.")
        if own.get("version") != VERSION:
            raise StoreError(
                f"The label store {folder} has the format version {own.get('version')!r}, and this "
                f"napari-samexp reads version {VERSION}; update it, or track again to another --out.",
                code="labels-of-another-run",
            )
        try:
            header = cls(**_fields(metadata["shape"], own))
        except (StoreError, LookupError, TypeError, ValueError, AttributeError):
            raise _damaged(folder) from None
        if not header._describes(metadata):
            raise _damaged(folder)
        if identity is not None:
            header._require_identity(identity, folder)
        return header

    @property
    def dtype(self) -> str:
        """The smallest unsigned integer type that holds every label."""
        return "uint8" if max(self.names) <= 255 else "uint16"

    def build(self, folder: Path) -> None:
        """Write the zarr array's metadata, all frames empty, to the new folder `folder`."""
        own: dict[str, Any] = {
            "version": VERSION,
            "labels": {str(label): name for label, name in self.names.items()},
            "identity": asdict(self.identity),
            "details": self.details,
        }
        zarr.create_array(
            LocalStore(folder),
            shape=self.shape,
            chunks=(1, *self.shape[1:]),
            dtype=self.dtype,
            # Blosc with bit shuffle makes files a third smaller, but reading takes three times as long
            compressors=[ZstdCodec(level=3, checksum=True)],
            fill_value=0,
            # "c.7.0.0": the default "c/7/0/0" makes two folders for each frame, both larger than the frame
            chunk_key_encoding={"name": "default", "separator": "."},
            dimension_names=("t", "y", "x"),
            attributes={KEY: own},
        )

    def open_array(self, folder: Path, *, writable: bool) -> zarr.Array[Any]:
        """Return the store's zarr array; `StoreError` if zarr cannot open it."""
        try:
            files = ChunkFiles(folder, read_only=not writable)
            files.follows_links = False
            files.chunk_bytes = self.shape[1] * self.shape[2] * (1 if self.dtype == "uint8" else 2)
            return zarr.open_array(files, mode="r+" if writable else "r")
        except Exception as error:  # zarr raises many kinds of errors for metadata that are almost right
            raise _damaged(folder) from error

    def require_labels(self, labels: npt.ArrayLike, index: int, path: Path) -> None:
        """Raise `StoreError` unless a frame's labels have the store's size and no values but 0 and its labels."""
        labels = np.asarray(labels)
        if labels.shape != self.shape[1:] or labels.dtype != np.uint16:
            raise StoreError(
                f"The labels of frame {index} are {labels.shape} {labels.dtype}; "
                f"the label store {path} takes {self.shape[1:]} uint16."
            )
        allowed = np.zeros(MAX_LABEL + 1, np.bool_)
        allowed[list(self.names)] = True
        inside = labels[labels > 0]  # usually few pixels, which makes the check five times faster
        if not allowed[inside].all():
            other = int(inside[~allowed[inside]][0])
            raise StoreError(f"Frame {index} has the label {other}; {path} takes {tuple(self.names)} and 0.")

    def _require_identity(self, identity: RunIdentity, path: Path) -> None:
        mine, other = asdict(self.identity), asdict(identity)
        different = [words for part, words in _DIFFERENCES.items() if mine[part] != other[part]]
        if different:
            raise StoreError(
                f"The label store {path} was made with {' and '.join(different)}; "
                "choose another --out, or --overwrite to replace it.",
                code="labels-of-another-run",
            )

    def _describes(self, metadata: dict[str, Any]) -> bool:
        """Whether `metadata` describe the array that `build` creates, with no codec but zstd."""
        codecs = metadata.get("codecs")
        if not isinstance(codecs, list) or not all(isinstance(codec, dict) for codec in codecs):
            return False
        expected = {
            **_ALWAYS,
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, *self.shape[1:]]}},
        }
        return [codec.get("name") for codec in codecs] == ["bytes", "zstd"] and all(
            metadata.get(key) == value for key, value in expected.items()
        )


_ALWAYS = {
    "zarr_format": 3,
    "node_type": "array",
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
    "fill_value": 0,
    "storage_transformers": [],
}


def require_replaceable(path: Path, overwrite: bool) -> None:
    """Raise `StoreError` if there is anything at `path` except a label store that `overwrite` allows to replace."""
    if not os.path.lexists(path):
        return
    if _own_attributes(_read_metadata(path)) is None:
        raise StoreError(f"{path} exists and is no label store, so it is not replaced; choose another --out.")
    if not overwrite:
        raise StoreError(
            f"The label store {path} exists; choose another --out, or --overwrite it.",
            code="labels-of-another-run",
        )
    with os_errors_as_store_errors("look into", path), open_folder(path) as folder:
        foreign = foreign_in(folder)
    if foreign is not None:
        raise StoreError(
            f"The label store {path} also holds {foreign}, which overwriting would delete; move it away.",
            code="labels-of-another-run",
        )


def require_there(path: Path) -> None:
    """Raise `FileNotFoundError` if a store was removed: zarr would create its folder again, on the local disk."""
    if kind_at(path / "zarr.json") != "file":
        raise FileNotFoundError(errno.ENOENT, "its folder is no longer there")


def _read_metadata(folder: Path) -> dict[str, Any]:
    """Return the zarr metadata in `folder`, or an empty dict if they cannot be read."""
    try:
        metadata = json.loads(read_whole(folder / "zarr.json", MAX_METADATA))
    except NotOrdinaryError as error:
        raise StoreError(error, code=error.code) from error
    except (OSError, ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _own_attributes(metadata: dict[str, Any]) -> dict[str, Any] | None:
    attributes = metadata.get("attributes")
    own = attributes.get(KEY) if isinstance(attributes, dict) else None
    return own if isinstance(own, dict) else None


def _fields(shape: Any, own: dict[str, Any]) -> dict[str, Any]:
    return {
        "shape": tuple(shape),
        "names": {int(label): clean_name(name) for label, name in own["labels"].items()},
        "identity": RunIdentity(**own["identity"]),
        "details": own["details"],
    }


def _whole_numbers(values: Iterable[Any], what: str) -> list[int]:
    try:
        return [operator.index(value) for value in values]
    except TypeError:
        raise StoreError(f"The {what} {values!r} are not whole numbers; give integers.") from None


def _shape_problem(shape: tuple[Any, ...]) -> str | None:
    limits = (MAX_FRAMES, MAX_SIDE, MAX_SIDE)
    if len(shape) == 3 and all(type(n) is int and 1 <= n <= limit for n, limit in zip(shape, limits)):
        return None
    return f"the shape is {shape}, expected (T, Y, X) of at least 1 and at most {limits}"


def _names_problem(names: dict[Any, Any]) -> str | None:
    if not names:
        return "there is no label; give at least one object"
    for label, name in names.items():
        if type(label) is not int or not 1 <= label <= MAX_LABEL:
            return f"{label!r} is no label; use whole numbers from 1 to {MAX_LABEL}"
        if not isinstance(name, str):
            return f"the name of label {label} is {name!r}, expected a text"
    return None


def _details_problem(details: Any) -> str | None:
    try:
        json.dumps(details, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return f"the details are not JSON ({error})"
    return None if isinstance(details, dict) else "the details are not a JSON object"


def _damaged(folder: Path) -> StoreError:
    return StoreError(
        f"The label store {folder} is damaged: its zarr.json is not what napari-samexp writes; "
        "track again to another --out, or with --overwrite.",
        code="labels-of-another-run",
    )
