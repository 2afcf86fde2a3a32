"""Reading the content of a weights file by its first bytes, with nothing in it run."""

from __future__ import annotations

import re
import stat
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from napari_samexp._text import plain
from napari_samexp.errors import CheckpointError
from napari_samexp.sam.weights.pickles import require_shallow

__all__ = ["WHAT_TO_DO", "content_of", "regular_file", "unreadable"]

WHAT_TO_DO = "download it again, or ask where you got it for a .safetensors file"


def regular_file(path: Path) -> tuple[Path, int]:
    """Return the path without ``~`` and the size in bytes; `CheckpointError` if it is no ordinary file."""
    try:
        path = path.expanduser()
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, RuntimeError, ValueError):  # also ~nobody, and a NUL byte
        raise CheckpointError(f"There is no file {plain(path, 300)}; check the path.") from None
    if not stat.S_ISREG(status.st_mode):  # a device or pipe may never end
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no ordinary file"
        raise CheckpointError(f"{path} is {kind}; give the path of a .safetensors, .pt or .pth file.")
    if status.st_size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes), so its download may have failed; get it again.")
    return path, status.st_size


def content_of(path: Path, size: int) -> tuple[Any, dict[str, str]]:
    """Return what a file holds, wrapped as it is, and its metadata."""
    with path.open("rb") as file:
        head = file.read(512)
    if head[8:9] == b"{":  # after eight bytes of length, a JSON header
        return _from_safetensors(path)
    if head.startswith(b"PK\x03\x04"):
        _check_archive(path, size)
        require_shallow(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True), {}
    if head.startswith(b"\x80"):  # a bare pickle, torch's format before 1.6, which cannot be mapped
        require_shallow(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=False), {}
    raise CheckpointError(f"{path} is {_guess(head)}, no weights file; {WHAT_TO_DO}.", code="weights-refused")


def _from_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt", device="cpu") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def _check_archive(path: Path, size: int) -> None:
    """Refuse archives that torch would not have written, before torch unpacks anything."""
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    if not any(record.header_offset == 0 for record in records):
        raise zipfile.BadZipFile(
            "its directory is not of this file"
        )  # other readers would find other records
    names = {record.filename.rpartition("/")[2] for record in records}
    if "constants.pkl" in names:
        raise CheckpointError(
            f"{path} is a TorchScript program, not plain weights; save its state_dict() and load that.",
            code="weights-refused",
        )
    if "data.pkl" not in names:
        raise CheckpointError(
            f"{path} is a zip archive without weights in it; {WHAT_TO_DO}.", code="weights-refused"
        )
    # torch stores its records as they are: one that unpacks to more than it takes can only be a bomb
    claimed = sum(record.file_size for record in records)
    if claimed > size or any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise CheckpointError(
            f"{path} has compressed records that would unpack to {claimed} bytes from {size}, which no "
            f"checkpoint of torch has; {WHAT_TO_DO}.",
            code="weights-refused",
        )


def _guess(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "a web page (often a server's error message saved under the file's name)"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer to the real file"
    return "of an unknown kind (neither safetensors nor saved by torch)"


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """Return the error to raise for whatever a reader raised."""
    if isinstance(error, OSError) and error.errno is not None:
        return CheckpointError(
            f"{plain(path, 300)} cannot be read ({plain(error.strerror)}); see to that first."
        )
    asked = re.search(r"GLOBAL (\S+)", str(error))
    if asked:  # torch's own sentence goes on to say how to switch its protection off
        return CheckpointError(
            f"{path} asks to run {plain(asked[1], 60)!r} when it is opened, so it is hostile, damaged, or "
            f"more than plain weights (nothing was run); {WHAT_TO_DO}.",
            code="weights-refused",
        )
    own_words = isinstance(error, (SafetensorError, zipfile.BadZipFile))
    why = plain(error) if own_words else type(error).__name__
    return CheckpointError(
        f"{plain(path, 300)} cannot be read as weights ({why}): it is cut short, damaged, or holds more than "
        f"plain tensors; {WHAT_TO_DO}.",
        code="weights-refused",
    )
