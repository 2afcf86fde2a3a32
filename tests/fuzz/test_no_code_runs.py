"""No file runs code, wherever it is read: a pickle that would, or a codec, or a drawing, is put in every place."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from napari_samexp import PriorMemory, load_model, position_encoding
from napari_samexp.batch.manifest import Manifest
from napari_samexp.cli import run
from napari_samexp.engine.journal import PriorJournal
from napari_samexp.errors import ImageError, SamexpError
from napari_samexp.io import open_video, read_image
from napari_samexp.io.label_edits import EditableLabels
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.video import read_frame
from napari_samexp.measure.masks import open_masks
from napari_samexp.session.folders import left_sessions
from napari_samexp.session.preferences import Preferences, load_preferences
from napari_samexp.session.stores import read_store
from napari_samexp.types import RunIdentity


class Runs:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


@pytest.fixture
def canary(tmp_path: Path) -> Any:
    path = tmp_path / "code-has-run"
    yield path
    assert not path.exists(), "code from the file has run"


def test_the_payload_does_run_where_it_is_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Runs(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def _zipped(path: Path, payload: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3\n")


FORMS: dict[str, Callable[[Path, Path], object]] = {
    "a pickle": lambda path, canary: path.write_bytes(pickle.dumps(Runs(canary))),
    "a text pickle": lambda path, canary: path.write_bytes(pickle.dumps(Runs(canary), 0)),
    "a state dict": lambda path, canary: torch.save({"model": {"a": torch.zeros(2), "b": Runs(canary)}}, path),
    "an old state dict": lambda path, canary: torch.save({"a": Runs(canary)}, path, _use_new_zipfile_serialization=False),
    "an archive": lambda path, canary: _zipped(path, pickle.dumps({"a": Runs(canary)}, 2)),
    "an array of objects": lambda path, canary: np.save(path, np.array([Runs(canary)], object), allow_pickle=True),
    "arrays of objects": lambda path, canary: np.savez(path, a=np.array([Runs(canary)], object)),
}  # fmt: skip
READERS: dict[str, Callable[[Path], object]] = {
    "load_model": lambda path: load_model(path, device="cpu"),
    "position_encoding": position_encoding,
    "PriorMemory.load": PriorMemory.load,
    "open_video": open_video,
    "read_image": read_image,
    "read_frame": read_frame,
    "open_masks": lambda path: open_masks(path).__enter__().frame(0),
    "LabelStore.open": LabelStore.open,
    "EditableLabels": EditableLabels,
    "read_store": read_store,
}


@pytest.mark.parametrize(
    "ending", [".pt", ".pth", ".safetensors", ".npy", ".npz", ".tif", ".png", ".mp4", ".zarr", ""]
)
@pytest.mark.parametrize("form", FORMS)
def test_no_reader_of_files_unpickles(tmp_path: Path, canary: Path, form: str, ending: str) -> None:
    path = tmp_path / f"hostile{ending}"
    FORMS[form](path, canary)
    for written in tmp_path.glob("hostile.np*.np*"):  # numpy adds an ending of its own
        written.rename(path)
    if not path.exists():
        next(tmp_path.glob("hostile*")).rename(path)
    for read in READERS.values():
        with pytest.raises(SamexpError):
            read(path)


@pytest.mark.parametrize("form", FORMS)
def test_no_command_unpickles(
    tmp_path: Path, canary: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    FORMS[form](tmp_path / "h.npz", canary)
    path, out = str(next(tmp_path.glob("h.npz*"))), str(tmp_path / "x.tif")
    for arguments in (
        ["info", path],
        ["record", path, "--point", "1,1", "--out", str(tmp_path / "p.safetensors")],
        ["track", path, "--prior", path, "--out", str(tmp_path / "x.zarr")],
        ["compare", path, "--videos", path, "--out", str(tmp_path / "new")],
        ["evaluate", path, "--ground-truth", path],
        ["export", path, "--to", "tiff", "--out", out],
        ["posenc", "--model", path, "--out", out],
    ):
        assert run(arguments) == 2, arguments
        assert capsys.readouterr().err.count("\n") == 1
    assert not Path(out).exists()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    identity = RunIdentity("v", "p", "m", "{}")
    path = tmp_path / "run.zarr"
    LabelStore.create(path, shape=(2, 4, 5), labels=[1], identity=identity).close()
    return path


@pytest.mark.parametrize("name", ["zarr.json", "c.0.0.0", "scores.jsonl", "edited.json", "prior.safetensors", "added.safetensors", "memory/000000000.safetensors"])  # fmt: skip
@pytest.mark.parametrize("form", FORMS)
def test_no_file_of_a_store_is_unpickled(
    tmp_path: Path, store: Path, canary: Path, form: str, name: str
) -> None:
    (store / "memory").mkdir(exist_ok=True)
    FORMS[form](tmp_path / "h", canary)
    shutil.move(next(tmp_path.glob("h*")), store / name)
    refused = 0
    for read in (
        lambda: LabelStore.open(store).close(),
        lambda: LabelStore.open(store, mode="r").frame(0),
        lambda: LabelStore.open(store, mode="r").load_memories(),
        lambda: EditableLabels(store)[0],
        lambda: read_store(store),
        lambda: PriorMemory.load(store / name),
    ):
        try:
            read()
        except SamexpError:
            refused += 1
    assert refused


@pytest.mark.parametrize("place", ["compressor", "filters", "codecs", "within"])
@pytest.mark.parametrize("codec", ["pickle", "msgpack2", "json2", "categorize", "somebody.elses"])
def test_no_codec_but_plain_ones_is_used(tmp_path: Path, canary: Path, place: str, codec: str) -> None:
    path = tmp_path / "foreign.zarr"
    (path / "c" / "0" / "0").mkdir(parents=True)
    payload = pickle.dumps(Runs(canary))
    if place in ("compressor", "filters"):
        named = {"id": codec}
        metadata: dict[str, Any] = {
            "zarr_format": 2, "shape": [1, 2, 2], "chunks": [1, 2, 2], "dtype": "|u1", "fill_value": 0, "order": "C",
            "compressor": named if place == "compressor" else None, "filters": [named] if place == "filters" else None,
        }  # fmt: skip
        (path / ".zarray").write_text(json.dumps(metadata))
        (path / "0.0.0").write_bytes(payload)
    else:
        named = {"name": f"numcodecs.{codec}", "configuration": {}}
        within = {"name": "sharding_indexed", "configuration": {"chunk_shape": [1, 2, 2], "codecs": [named]}}
        metadata = {
            "zarr_format": 3, "node_type": "array", "shape": [1, 2, 2], "data_type": "uint8", "fill_value": 0,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 2, 2]}}, "attributes": {},
            "chunk_key_encoding": {"name": "default"}, "codecs": [within] if place == "within" else [{"name": "bytes"}, named],
        }  # fmt: skip
        (path / "zarr.json").write_text(json.dumps(metadata))
        (path / "c" / "0" / "0" / "0").write_bytes(payload)
    with pytest.raises(SamexpError, match="names the codec"), open_masks(path) as masks:
        masks.frame(0)


@pytest.mark.parametrize("form", FORMS)
def test_no_file_of_a_session_is_unpickled(tmp_path: Path, canary: Path, form: str) -> None:
    prior = tmp_path / "sessions" / "20260101-000000-abcdef" / "prior"
    (prior / "pictures").mkdir(parents=True)
    FORMS[form](tmp_path / "h", canary)
    payload = next(tmp_path.glob("h*")).read_bytes()
    (prior / "00000001-0001-7.safetensors").write_bytes(payload)
    (prior / "pictures" / "x.png").write_bytes(payload)
    journal = PriorJournal(prior)
    assert not journal.prior.recordings and journal.notice
    journal.images.path("key").write_bytes(payload)
    assert journal.images.get("key") is None
    assert len(left_sessions(tmp_path / "sessions")) == 1
    (tmp_path / "settings.json").write_bytes(payload)
    preferences, notice = load_preferences(tmp_path / "settings.json")
    assert preferences == Preferences() and notice
    (tmp_path / "manifest.jsonl").write_bytes(payload + b'\n{"job": "a", "status": {"__reduce__": 1}}\n')
    assert set(Manifest(tmp_path / "manifest.jsonl").last) <= {"a"}


def test_a_drawing_is_not_handed_to_another_program(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name in ("gs", "gswin64c", "gswin32c", "gsc"):
        (binaries / name).write_text(f"#!/bin/sh\ntouch {canary}\n")
        (binaries / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(binaries), prepend=os.pathsep)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    for name in ("a.eps", "a.png", "a.tga"):
        if name != "a.eps":
            shutil.copy(tmp_path / "a.eps", tmp_path / name)
        with pytest.raises(ImageError):
            read_image(tmp_path / name)
        with pytest.raises(SamexpError), open_masks(tmp_path / name):
            pass


def test_what_a_tiff_says_of_itself_is_not_run(tmp_path: Path, canary: Path) -> None:
    says = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    for number, text in enumerate(
        (says, f'{{"shape": "{says}"}}', f"ImageJ=1.53\nimages={says}\n", f"axes={says}")
    ):
        path = tmp_path / f"{number}.tif"
        tifffile.imwrite(path, np.zeros((4, 5), np.uint8), description=text.encode(), metadata=None)
        try:
            read_image(path)
        except ImageError:
            continue
