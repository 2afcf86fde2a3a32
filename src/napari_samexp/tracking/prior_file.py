"""The prior file: safetensors, with memories, thumbnails and masks as tensors and the recordings as JSON metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors

from napari_samexp._text import clean_name, plain
from napari_samexp.errors import PriorError, PromptError
from napari_samexp.sam.features import Memory
from napari_samexp.tracking.recording import Recording
from napari_samexp.types import Prompt

__all__ = ["FORMAT", "LARGEST_FILE", "read_prior", "to_bytes"]

FORMAT = "napari_samexp_prior"
VERSION = 1
LARGEST_FILE = 4 * 2**30  # bytes; 32 recordings of the largest model stay far below

# fields of `Recording` that JSON holds as they are, and their types
_FIELDS: dict[str, tuple[type, ...]] = {
    "label": (int,),
    "name": (str,),
    "image_name": (str,),
    "image_hash": (str,),
    "model": (str,),
    "weights": (str,),
    "side": (int,),
    "square": (bool,),
    "mask_index": (int, type(None)),
    "iou": (float, int),
    "presence": (float, int),
}
_NAMES = ("name", "image_name", "model")  # shown to people, and part of no fingerprint or hash

Pair = tuple[Recording, Memory]
Tensors = dict[str, torch.Tensor]


def to_bytes(pairs: Sequence[Pair]) -> bytes:
    """Return the content of a prior file with these recordings and their memories."""
    tensors: Tensors = {}
    for i, (recording, memory) in enumerate(pairs):
        tensors[f"{i}.spatial"] = memory.spatial.detach().cpu().contiguous()
        tensors[f"{i}.pointer"] = memory.pointer.detach().cpu().contiguous()
        tensors[f"{i}.thumbnail"] = torch.tensor(recording.thumbnail)
        if recording.mask is not None:
            tensors[f"{i}.mask"] = torch.from_numpy(np.packbits(recording.mask))
    recordings = [_to_json(recording) for recording, _ in pairs]
    return to_safetensors(tensors, {FORMAT: json.dumps({"version": VERSION, "recordings": recordings})})


def read_prior(path: Path) -> list[Pair]:
    """Return the recordings and memories in a prior file.

    Raises
    ------
    PriorError
        If the file is missing, damaged or not a prior.
    """
    entries, tensors = _read(path)
    return [_from_json(path, i, entry, tensors) for i, entry in enumerate(entries)]


def _to_json(recording: Recording) -> dict[str, Any]:
    prompt = recording.prompt
    return {
        **{key: getattr(recording, key) for key in _FIELDS},
        "enabled": recording.enabled,
        "image_hw": list(recording.image_hw),
        "points_xy": prompt.points_xy.tolist(),
        "point_labels": prompt.labels.tolist(),
        "box_xyxy": None if prompt.box_xyxy is None else prompt.box_xyxy.tolist(),
    }


def _read(path: Path) -> tuple[list[Any], Tensors]:
    wrong = f"{path} is no prior file"
    try:
        if not path.is_file():
            raise PriorError(f"There is no prior file {path}; give the path of a file that `record` wrote.")
        if path.stat().st_size > LARGEST_FILE:
            raise PriorError(f"{wrong}: it is larger than 4 GB; give a file that `record` wrote.")
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[FORMAT])
            # copies: Windows cannot replace a file that is still mapped
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - no iterator
        if header["version"] != VERSION:
            raise PriorError(
                f"{path} has prior version {plain(header['version'])}, but this program reads {VERSION}; update it."
            )
        entries = header["recordings"]
        if not isinstance(entries, list):
            raise ValueError("its list of recordings is missing")
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise PriorError(
            f"{wrong} or is damaged ({type(error).__name__}); give a file that `record` wrote."
        ) from None
    except OSError as error:
        raise PriorError(
            f"{path} cannot be read ({error.strerror or error}); check the path and its permissions."
        ) from error
    return entries, tensors


def _from_json(path: Path, i: int, entry: Any, tensors: Tensors) -> Pair:
    try:
        _require_types(entry)
        height, width = (int(n) for n in entry["image_hw"])
        values: dict[str, Any] = {key: entry[key] for key in _FIELDS}
        values |= {key: clean_name(entry[key]) for key in _NAMES}
        recording = Recording(
            **values,
            prompt=Prompt(entry["points_xy"], entry["point_labels"], entry["box_xyxy"]),
            image_hw=(height, width),
            thumbnail=_thumbnail(tensors[f"{i}.thumbnail"]),
            enabled=entry.get("enabled", True) is not False,  # the first files lack it
            mask=_unpacked(tensors.get(f"{i}.mask"), (height, width)),
        )
        return recording, _memory(tensors[f"{i}.spatial"], tensors[f"{i}.pointer"])
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError, PromptError, PriorError) as error:
        raise PriorError(f"Recording {i} of {path} is damaged ({plain(error)}); record it again.") from None


def _require_types(entry: Any) -> None:
    for key, types in _FIELDS.items():
        if not isinstance(entry[key], types) or (isinstance(entry[key], bool) and bool not in types):
            raise ValueError(key)


def _memory(spatial: torch.Tensor, pointer: torch.Tensor) -> Memory:
    if spatial.ndim != 3 or pointer.ndim != 1 or not spatial.numel():
        raise ValueError("shapes")
    if not (spatial.is_floating_point() and pointer.is_floating_point()):
        raise ValueError("memories that are not floating point")
    if not (spatial.isfinite().all() and pointer.isfinite().all()):
        raise ValueError("values that are not finite")
    return Memory(spatial, pointer)


def _thumbnail(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    thumbnail: npt.NDArray[np.uint8] = tensor.numpy()
    if thumbnail.ndim != 3 or thumbnail.shape[2] != 3 or thumbnail.dtype != np.uint8:
        raise ValueError("thumbnail")
    return thumbnail


def _unpacked(bits: torch.Tensor | None, image_hw: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    if bits is None:
        return None
    count = image_hw[0] * image_hw[1]
    if bits.dtype != torch.uint8 or bits.ndim != 1 or min(image_hw) < 1 or len(bits) != -(-count // 8):
        raise ValueError("a mask of another size than its image")
    return np.unpackbits(bits.numpy(), count=count).astype(np.bool_).reshape(image_hw)
