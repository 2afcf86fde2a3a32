"""Chunks that claim to be larger than they may, and files that are none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from numcodecs import Blosc, Zstd

from napari_samexp.errors import StoreError
from napari_samexp.io.chunk_files import require_plain_codecs, unpacked_bytes
from napari_samexp.io.guarded import read_whole
from napari_samexp.io.label_edits import EditableLabels
from napari_samexp.io.labels import LabelStore
from napari_samexp.measure.masks import open_masks
from napari_samexp.types import FrameResult, ObjectScore, RunIdentity

SHAPE = (2, 40, 50)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "run.zarr"
    with LabelStore.create(path, shape=SHAPE, labels=[1], identity=RunIdentity("v", "p", "m", "s")) as made:
        for index in range(2):
            labels = np.full(SHAPE[1:], index, np.uint16)
            made.write(FrameResult(index, labels, {1: ObjectScore(1.0, 0.5)}))
    return path


@pytest.mark.parametrize("size", [0, 1, 200, 255, 256, 257, 65_535, 65_791, 65_792, 3_000_000])
@pytest.mark.parametrize("codec", [Zstd(), Zstd(level=9, checksum=True), Blosc("zstd"), Blosc("lz4")])
def test_the_size_that_a_chunk_claims_is_read_from_its_head(codec: object, size: int) -> None:
    data = codec.encode(np.zeros(size, np.uint8).tobytes()) if size else Zstd().encode(b"")  # type: ignore[attr-defined]
    assert unpacked_bytes(bytes(data)[:32]) == size


def test_other_bytes_claim_nothing() -> None:
    assert (
        unpacked_bytes(b"") is None
        and unpacked_bytes(b"\x28\xb5\x2f\xfd") is None
        and unpacked_bytes(bytes(32)) is None
    )


def test_a_chunk_that_claims_gigabytes_is_refused_before_it_is_unpacked(store: Path) -> None:
    chunk = store / "c.1.0.0"
    chunk.write_bytes(b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little") + bytes(20))
    says = f"unpacks to {1 << 40} bytes, and 2000 are expected"
    with LabelStore.open(store, mode="r") as opened:
        assert opened.frame(0).max() == 0
        with pytest.raises(StoreError, match=says):
            opened.frame(1)
    with pytest.raises(StoreError, match=says):
        EditableLabels(store)[1:2]
    with pytest.raises(StoreError, match=says), open_masks(store) as masks:
        masks.frame(1)
    chunk.write_bytes(b"\x28\xb5\x2f\xfd\x00" + bytes(20))  # of no size that it says
    with pytest.raises(StoreError, match="unpacks"):
        EditableLabels(store)[1]


@pytest.mark.parametrize("content", [b"", b"x", b"\x28\xb5\x2f\xfd garbage that is no frame"])
def test_a_damaged_chunk_is_a_sentence_for_a_viewer_too(store: Path, content: bytes) -> None:
    (store / "c.1.0.0").write_bytes(content)
    labels = EditableLabels(store)
    assert labels[0].max() == 0
    with pytest.raises(StoreError, match="cannot be read"):
        labels[1]
    with pytest.raises(IndexError):
        labels[2]


def test_arrays_of_others_are_read_with_their_usual_codecs(tmp_path: Path) -> None:
    labels = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    for number, options in enumerate(
        ({}, {"compressors": zarr.codecs.BloscCodec()}, {"compressors": zarr.codecs.GzipCodec()},
         {"zarr_format": 2}, {"zarr_format": 2, "compressors": Blosc()}, {"shards": (2, 3, 4), "chunks": (1, 3, 4)})
    ):  # fmt: skip
        path = tmp_path / f"{number}.zarr"
        zarr.create_array(path, data=labels, **options)  # type: ignore[arg-type]
        require_plain_codecs(path)
        with open_masks(path) as masks:
            np.testing.assert_array_equal(masks.frame(1), labels[1])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes among its files")
@pytest.mark.parametrize(
    "name", ["zarr.json", "scores.jsonl", "edited.json", "c.0.0.0", "memory/000000001.safetensors"]
)
@pytest.mark.parametrize("what", ["pipe", "device"])
def test_what_is_no_file_is_not_waited_for(store: Path, name: str, what: str) -> None:
    (store / "memory").mkdir(exist_ok=True)
    (store / name).unlink(missing_ok=True)
    os.mkfifo(store / name) if what == "pipe" else (store / name).symlink_to("/dev/zero")
    with pytest.raises(StoreError):
        labels = EditableLabels(store)
        labels[0]
        with LabelStore.open(store, mode="r") as opened:
            opened.frame(0)
            opened.load_memories()


def test_a_file_is_read_whole_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_whole(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes, and at most 4"):
        read_whole(tmp_path / "a", 4)
    with pytest.raises(OSError, match="no ordinary file"):
        read_whole(tmp_path, 4)
