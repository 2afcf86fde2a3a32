"""Pickles of a few hundred bytes that would keep the safe unpickler busy for ever, or take all memory."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from napari_samexp.errors import CheckpointError
from napari_samexp.sam.weights.checkpoint import read_state
from napari_samexp.sam.weights.pickles import DEEPEST, require_shallow


def nested(depth: int) -> bytes:
    """Return a dict whose key is a tuple that holds the one before twice, `depth` times: 2^depth to hash."""
    pairs = b"".join(b"h%ch%c\x86q%c" % (level, level, level + 1) for level in range(1, depth))
    tops = b"0" * (depth - 1)  # what the pairs left on the stack but for the last
    return b"\x80\x02}q\x00)q\x01" + pairs + tops + b"h%c" % depth + b"K\x01s."


def calling(name: str) -> bytes:
    return b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n\x8a\x05\x00\x00\x00\x00\x02\x85R."


def written(folder: Path, pickle: bytes, zipped: bool) -> Path:
    path = folder / "w.pt"
    if not zipped:
        path.write_bytes(pickle)
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", pickle)
        archive.writestr("w/version", "3\n")
    return path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "pickle", [nested(100), nested(DEEPEST + 2), calling("builtins bytearray"), calling("_codecs encode")]
)
def test_what_would_never_end_is_refused_at_once(tmp_path: Path, pickle: bytes, zipped: bool) -> None:
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        read_state(written(tmp_path, pickle, zipped))


def test_an_archive_with_something_before_it_is_refused(tmp_path: Path) -> None:
    """Readers differ in what they take for its records, so that one could be looked at and another opened."""
    path = tmp_path / "w.pt"
    torch.save({"a": torch.zeros(2)}, path)
    path.write_bytes(b"PK\x03\x04" + path.read_bytes())
    with pytest.raises(CheckpointError):
        read_state(path)


@pytest.mark.parametrize("legacy", [True, False])
def test_what_trainers_write_is_let_through(tmp_path: Path, legacy: bool) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(5, 3)).sum().backward()
    optimizer.step()
    beside = {
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "shape": ((1, (2, (3, 4))), torch.Size((1, 2))),
    }
    path = tmp_path / "w.pt"
    torch.save({"model": model.state_dict(), **beside}, path, _use_new_zipfile_serialization=not legacy)
    require_shallow(path)
    assert set(read_state(path).state) == set(model.state_dict())


def test_far_more_tensors_than_a_model_has_are_refused(tmp_path: Path) -> None:
    one = torch.zeros(2)
    torch.save({f"k{number}": one[:1] for number in range(30_000)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        read_state(tmp_path / "w.pt")
