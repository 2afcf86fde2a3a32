"""LabelStore: what is flagged as done is right, whatever happens to the process, the disk or the files."""

from __future__ import annotations

import csv
import errno
import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace as replace_field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_samexp._text import LONGEST_NAME
from napari_samexp.errors import StoreError
from napari_samexp.io.labels import LabelStore
from napari_samexp.types import FrameResult, ObjectScore, RunIdentity

SHAPE = (6, 8, 10)
NAMES = {1: "cat", 7: "dog"}
IDENTITY = RunIdentity(video="v", prior="p", model="m", settings="{}")


def labels_of(index: int, salt: int = 0) -> np.ndarray:
    """Return a frame that shows which frame and which run it is from; frame 0 is empty."""
    frame = np.zeros(SHAPE[1:], np.uint16)
    frame[:index, salt:] = 1
    frame[index, : salt + 1] = 7 if index else 0
    return frame


def result_of(index: int, salt: int = 0) -> FrameResult:
    scores = {1: ObjectScore(index - 2.5, 0.75), 7: ObjectScore(float(salt), 0.1 * index)}
    return FrameResult(index, labels_of(index, salt), scores)


def create(path: Path, *, frames: int = 0, salt: int = 0, **changes: Any) -> LabelStore:
    store = LabelStore.create(path, **{"shape": SHAPE, "labels": NAMES, "identity": IDENTITY} | changes)
    for index in range(frames):
        store.write(result_of(index, salt))
    return store


def require_right(store: LabelStore) -> None:
    """Check each done frame: labels and both scores must come from one and the same write."""
    for index, scores in store.scores.items():
        salt = int(scores[7].presence)
        assert scores == result_of(index, salt).scores
        np.testing.assert_array_equal(store.frame(index), labels_of(index, salt))


@contextmanager
def refused(*fragments: str) -> Iterator[None]:
    """Expect a StoreError of one sentence that has all the fragments."""
    with pytest.raises(StoreError) as caught:
        yield
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text
    for fragment in fragments:
        assert fragment in text


def do_not_wait_for_the_disk(patch: Callable[[Any, str, Any], None]) -> None:
    """Make fsync do nothing: what a kill leaves is in the system's hands already, and disks are slow."""
    patch(os, "fsync", lambda handle: None)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    do_not_wait_for_the_disk(monkeypatch.setattr)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.zarr"


# --- writing and reading -----------------------------------------------------------------------------


def test_what_was_written_is_read_again(path: Path) -> None:
    details = {"prior": "cat.safetensors", "sizes": [1, 2.5, None]}
    with create(path, frames=3, details=details) as store:
        store.write(result_of(5))
        assert store.missing() == [3, 4]
    for mode in ("r", "a"):
        with LabelStore.open(path, identity=IDENTITY, mode=mode) as again:
            assert again.path == path
            assert again.shape == SHAPE and again.labels == (1, 7) and again.names == NAMES
            assert again.identity == IDENTITY and again.details == details
            assert again.done.tolist() == [True, True, True, False, False, True]
            assert again.missing([5, 4, 0, 3]) == [4, 3]
            assert again.scores == {i: result_of(i).scores for i in (0, 1, 2, 5)}
            assert again.scores[1][1].lost and not again.scores[5][1].lost
            require_right(again)
            assert not again.frame(3).any()


def test_anybody_can_open_it_with_zarr(path: Path) -> None:
    with create(path, frames=3) as store:
        store.save_memory(1, {"tokens": np.ones(3, np.float32)}, {})
    array = zarr.open(path, mode="r")
    assert array.shape == SHAPE and array.chunks == (1, *SHAPE[1:]) and array.dtype == np.uint8
    assert array.metadata.zarr_format == 3 and array.fill_value == 0
    assert array.attrs["napari_samexp"]["version"] == 1
    np.testing.assert_array_equal(array[2], labels_of(2))


@pytest.mark.parametrize(("label", "dtype"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_takes_the_smallest_type_that_holds_the_labels(path: Path, label: int, dtype: type) -> None:
    with create(path, labels=[label]) as store:
        labels = np.full(SHAPE[1:], label, np.uint16)
        store.write(FrameResult(0, labels, {label: ObjectScore(1, 1)}))
        assert store.array.dtype == dtype and store.names == {label: f"object {label}"}
        np.testing.assert_array_equal(store.frame(0), labels)


def test_a_frame_that_became_empty_is_empty(path: Path) -> None:
    with create(path, frames=3) as store:
        store.write(FrameResult(2, np.zeros(SHAPE[1:], np.uint16), result_of(2).scores))
        assert store.done[2] and not store.frame(2).any()


def test_a_reader_sees_new_labels_while_they_are_written(path: Path) -> None:
    with create(path) as store:
        reader = LabelStore.open(path, mode="r")
        store.write(result_of(4))
        np.testing.assert_array_equal(reader.array[4], labels_of(4))
        assert not reader.done.any() and LabelStore.open(path, mode="r").done[4]


def test_forgotten_frames_are_missing_until_written_again(path: Path) -> None:
    with create(path, frames=6) as store:
        store.forget([1, 4])
        store.forget([])
        store.write(result_of(4, salt=2))
        assert store.missing() == [1] and 1 not in store.scores
    with LabelStore.open(path) as again:
        assert again.missing() == [1]
        require_right(again)


def test_done_is_a_copy(path: Path) -> None:
    with create(path) as store:
        store.done[:] = True
        store.names.clear()
        assert store.missing() == list(range(6)) and store.names == NAMES


def test_scores_as_a_table(path: Path, tmp_path: Path) -> None:
    with create(path, frames=4, labels={1: "cat, the\nblack", 7: "dog"}) as store:
        store.write_scores_csv(tmp_path / "scores.csv")
        with (tmp_path / "scores.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 8
        assert list(rows[6]) == ["frame", "label", "name", "presence", "iou", "lost"]
        assert list(rows[6].values()) == ["3", "1", "cat, the black", "0.5", "0.75", "false"]
        assert [row["lost"] for row in rows[::2]] == ["true", "true", "true", "false"]
        with refused("nowhere", "No such file"):
            store.write_scores_csv(tmp_path / "nowhere" / "scores.csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.zarr", "scores.csv"]


# --- what does not fit -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"index": 6}, "0 to 5"),
        ({"index": -1}, "0 to 5"),
        ({"index": 1.0}, "0 to 5"),
        ({"labels": np.zeros((8, 9), np.uint16)}, "(8, 9)"),
        ({"labels": np.zeros((1, 8, 10), np.uint16)}, "(1, 8, 10)"),
        ({"labels": np.zeros((8, 10), np.int64)}, "int64"),
        ({"labels": np.zeros((8, 10), np.float32)}, "float32"),
        ({"labels": np.full((8, 10), 257, np.uint16)}, "257"),
        ({"labels": np.full((8, 10), 2, np.uint16)}, "label 2"),
        ({"scores": {1: ObjectScore(1, 1)}}, "1, 7"),
        ({"scores": {1: ObjectScore(1, 1), 7: ObjectScore(1, 1), 8: ObjectScore(1, 1)}}, "1, 7"),
        ({"scores": {1: ObjectScore(1, 1), 7: ObjectScore(float("nan"), 1)}}, "finite"),
        ({"scores": {1: ObjectScore(1, 1), 7: ObjectScore(1, float("inf"))}}, "finite"),
        ({"scores": {1: ObjectScore(1, 1), 7: None}}, "frame 2"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused_and_nothing_written(
    path: Path, changes: dict[str, Any], fragment: str
) -> None:
    good = {"index": 2, "labels": labels_of(2), "scores": result_of(2).scores}
    with create(path, frames=3) as store:
        before = {file.name: file.read_bytes() for file in path.iterdir()}
        with refused(fragment):
            store.write(FrameResult(**good | changes))
        assert {file.name: file.read_bytes() for file in path.iterdir()} == before
        require_right(store)


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"shape": (8, 10)}, "(T, Y, X)"),
        ({"shape": (0, 8, 10)}, "(T, Y, X)"),
        ({"shape": (6, 8, 10**9)}, "(T, Y, X)"),
        ({"shape": (6, 8, 1.5)}, "whole numbers"),
        ({"shape": 6}, "whole numbers"),
        ({"shape": (10**7, 8, 10), "labels": range(1, 200)}, "too many"),
        ({"labels": []}, "no label"),
        ({"labels": [0]}, "0 is no label"),
        ({"labels": [65536]}, "65536 is no label"),
        ({"labels": [3, 3]}, "twice"),
        ({"labels": ["cat"]}, "whole numbers"),
        ({"labels": {1: None}}, "None"),
        ({"details": {"x": object()}}, "JSON"),
        ({"details": {"x": float("nan")}}, "JSON"),
        ({"identity": RunIdentity("v", "p", "m", None)}, "identity"),  # type: ignore[arg-type]
    ],
)
def test_an_impossible_store_is_refused_and_nothing_made(
    path: Path, changes: dict[str, Any], fragment: str
) -> None:
    with refused(fragment):
        create(path, **changes)
    assert list(path.parent.iterdir()) == []


def test_numpy_integers_are_integers(path: Path) -> None:
    with create(path, shape=np.array(SHAPE), labels=np.array([1, 7])) as store:
        store.write(FrameResult(np.int64(3), labels_of(3), result_of(3).scores))
        store.forget(np.array([3]))
        assert store.shape == SHAPE and store.missing(np.array([3])) == [3]


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.write(result_of(1)),
        lambda store: store.forget([0]),
        lambda store: store.save_memory(1, {}, {}),
        lambda store: store.prune_memories([]),
    ],
)
def test_readers_and_closed_stores_do_not_write(path: Path, use: Callable[[LabelStore], None]) -> None:
    store = create(path, frames=1)
    store.close()
    store.close()
    for closed in (store, LabelStore.open(path, mode="r")):
        with refused("not open for writing"):
            use(closed)
        require_right(closed)


# --- another run, other files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("video", "with another video;"),
        ("prior", "with another prior;"),
        ("model", "with another model;"),
        ("settings", "with other settings;"),
    ],
)
def test_another_run_is_told_what_differs(path: Path, part: str, words: str) -> None:
    create(path).close()
    with refused(words, "another --out", "--overwrite"):
        LabelStore.open(path, identity=replace_field(IDENTITY, **{part: "x"}))
    with refused("another video and another prior and another model and other settings"):
        LabelStore.open(path, identity=RunIdentity("a", "b", "c", "d"))


def test_an_existing_store_is_replaced_only_when_asked(path: Path) -> None:
    create(path, frames=3).close()
    with refused("exists", "--overwrite"):
        create(path)
    require_right(LabelStore.open(path, mode="r"))
    with create(path, shape=(4, 8, 10), overwrite=True) as store:
        assert store.missing() == [0, 1, 2, 3]
        store.write(result_of(1))
    with LabelStore.open(path) as again:
        assert again.shape == (4, 8, 10) and again.missing() == [0, 2, 3]
    assert list(path.parent.iterdir()) == [path]


def test_a_store_that_is_being_written_is_not_replaced(path: Path) -> None:
    with create(path, frames=2) as store:
        with refused("Another process or job"):
            create(path, overwrite=True)
        store.write(result_of(2))
        require_right(store)


def _user_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")


def _user_zarr(path: Path) -> None:
    zarr.create_array(path, shape=(2, 2), dtype="uint8", attributes={"mine": 1})


def _user_json(path: Path) -> None:
    path.mkdir()
    (path / "zarr.json").write_text("[" * 100_000)


@pytest.mark.parametrize(
    "make", [Path.mkdir, _user_folder, _user_zarr, _user_json, lambda path: path.write_text("a text")]
)
def test_what_is_no_label_store_is_never_replaced(path: Path, make: Callable[[Path], Any]) -> None:
    make(path)
    before = sorted((p, p.read_bytes() if p.is_file() else None) for p in path.parent.rglob("*"))
    for overwrite in (False, True):
        with refused("not replaced", "another --out"):
            create(path, overwrite=overwrite)
    for mode in ("r", "a"):
        with refused("not a label store"):
            LabelStore.open(path, mode=mode)
    assert sorted((p, p.read_bytes() if p.is_file() else None) for p in path.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["notes.txt", "c.txt", "memory/notes.txt", "masks", "x.partial"])
def test_a_store_with_the_users_files_in_it_is_not_replaced(path: Path, name: str) -> None:
    with create(path, frames=2) as store:
        store.save_memory(0, {}, {})
    (path / name).mkdir() if name == "masks" else (path / name).write_text("mine")
    with refused(name, "move it"):
        create(path, overwrite=True)
    with LabelStore.open(path) as again:
        require_right(again)
    assert (path / name).exists()


def test_a_link_to_a_store_is_that_store(path: Path, tmp_path: Path) -> None:
    create(path, frames=1).close()
    link = tmp_path / "link"
    link.symlink_to(path)
    with LabelStore.open(link) as store, refused("Another process or job"):
        assert store.done[0]
        LabelStore.open(path)
    create(link, overwrite=True).close()
    assert link.is_symlink() and not LabelStore.open(path).done.any()


def test_missing_parents_are_made_and_bad_paths_refused(tmp_path: Path) -> None:
    create(tmp_path / "a" / "b" / "run", frames=1).close()
    (tmp_path / "file").touch()
    with refused("Could not", "directory"):
        create(tmp_path / "file" / "run")
    with refused("no label store"):
        LabelStore.open(tmp_path / "none")
    with refused("not a path"):
        LabelStore.open(tmp_path / "nul\0byte")
    with refused("not a label store"):
        LabelStore.open("/")
    with refused("mode 'w'"):
        LabelStore.open(tmp_path / "a" / "b" / "run", mode="w")  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "file"]


# --- damaged files -----------------------------------------------------------------------------------


def _own(metadata: dict[str, Any]) -> Any:
    return metadata["attributes"]["napari_samexp"]


DAMAGES: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda m: m.pop("attributes"), "not a label store"),
    (lambda m: m.update(attributes=[]), "not a label store"),
    (lambda m: m["attributes"].update(napari_samexp=None), "not a label store"),
    (lambda m: _own(m).update(version=2), "version 2"),
    (lambda m: _own(m).update(version="1"), "version '1'"),
    (lambda m: _own(m).pop("version"), "version None"),
    (lambda m: _own(m).pop("labels"), "damaged"),
    (lambda m: _own(m).update(labels={}), "damaged"),
    (lambda m: _own(m).update(labels=[1]), "damaged"),
    (lambda m: _own(m).update(labels={"cat": "1"}), "damaged"),
    (lambda m: _own(m).update(labels={"0": "cat"}), "damaged"),
    (lambda m: _own(m).update(labels={"1": 5}), "damaged"),
    (lambda m: _own(m).update(labels={"999": "cat"}), "damaged"),
    (lambda m: _own(m).update(identity=None), "damaged"),
    (lambda m: _own(m)["identity"].pop("video"), "damaged"),
    (lambda m: _own(m)["identity"].update(video=5), "damaged"),
    (lambda m: _own(m)["identity"].update(more="x"), "damaged"),
    (lambda m: _own(m).update(details=[]), "damaged"),
    (lambda m: m.pop("shape"), "damaged"),
    (lambda m: m.update(shape=7), "damaged"),
    (lambda m: m.update(shape=[6, 8, "10"]), "damaged"),
    (lambda m: m.update(shape=[10**18, 8, 10]), "damaged"),
    (lambda m: m.update(shape=[-1, 8, 10]), "damaged"),
    (lambda m: m.update(shape=[6, 8, 11]), "damaged"),
    (lambda m: m.update(data_type="float64"), "damaged"),
    (lambda m: m.update(data_type="uint16"), "damaged"),
    (lambda m: m.update(data_type={"name": ["x"]}), "damaged"),
    (lambda m: m.update(codecs=[{"name": "bytes"}]), "damaged"),
    (lambda m: m.update(codecs=5), "damaged"),
    (lambda m: m.update(codecs=[{"name": "bytes"}, {"name": "numcodecs.pickle"}]), "damaged"),
    (lambda m: m["codecs"][1].update(configuration={"level": "x"}), "damaged"),
    (lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[6, 8, 10]), "damaged"),
    (lambda m: m.update(chunk_key_encoding={"name": "v2"}), "damaged"),
    (lambda m: m.update(fill_value=3), "damaged"),
    (lambda m: m.update(node_type="group"), "damaged"),
    (lambda m: m.update(zarr_format=2), "damaged"),
    (lambda m: m.update(dimension_names=5), "damaged"),
]


@pytest.mark.parametrize("number", range(len(DAMAGES)))
def test_hostile_metadata_are_refused(path: Path, number: int) -> None:
    create(path, frames=1).close()
    damage, fragment = DAMAGES[number]
    metadata = json.loads((path / "zarr.json").read_text())
    damage(metadata)
    (path / "zarr.json").write_text(json.dumps(metadata))
    for mode in ("r", "a"):
        with refused(fragment):
            LabelStore.open(path, mode=mode)
    assert list(path.parent.iterdir()) == [path]


GOOD = '{"frame":0,"scores":{"1":[1,1],"7":[1,1]}}\n'


@pytest.mark.parametrize(
    "line",
    [
        "null",
        "[]",
        "{}",
        '{"frame":0}',
        '{"frame":6,"scores":{"1":[1,1],"7":[1,1]}}',
        '{"frame":-1,"scores":{"1":[1,1],"7":[1,1]}}',
        '{"frame":true,"scores":{"1":[1,1],"7":[1,1]}}',
        '{"frame":"0","scores":{"1":[1,1],"7":[1,1]}}',
        '{"frame":0,"scores":[]}',
        '{"frame":0,"scores":{"1":[1,1]}}',
        '{"frame":0,"scores":{"1":[1,1],"7":[1]}}',
        '{"frame":0,"scores":{"1":[1,1],"7":["1",1]}}',
        '{"frame":0,"scores":{"1":[1,1],"7":[NaN,1]}}',
        '{"frame":0,"scores":{"1":[1,1],"7":[true,1]}}',
        '{"frame":0,"scores":{"1":[1,1],"7":[1' + "0" * 400 + ",1]}}",
        '{"frame":0,"scores":{"1":[1,1],"7":[1,1]},"more":1}',
        '{"forget":0}',
        '{"forget":[6]}',
        '{"forget":[[0]]}',
    ],
)
def test_a_journal_with_wrong_types_is_refused(path: Path, line: str) -> None:
    create(path).close()
    (path / "scores.jsonl").write_text(GOOD + line + "\n")
    with refused("damaged in line 2", "--overwrite"):
        LabelStore.open(path)
    create(path, overwrite=True).close()


@pytest.mark.parametrize("garbage", [b"{", b"\0\0\0\0", b"\xff\xfe", b"[" * 100_000, b"1" * 5000])
def test_garbage_is_forgiven_in_the_last_line_only(path: Path, garbage: bytes) -> None:
    line = garbage + b"\n"
    create(path).close()
    journal = path / "scores.jsonl"
    journal.write_bytes(GOOD.encode() + line)
    with LabelStore.open(path) as store:
        assert store.missing() == [1, 2, 3, 4, 5]
        store.write(result_of(1))
    assert LabelStore.open(path, mode="r").missing() == [2, 3, 4, 5]
    journal.write_bytes(line + GOOD.encode())
    with refused("damaged in line 1"):
        LabelStore.open(path)


def test_a_journal_can_be_cut_anywhere(path: Path) -> None:
    with create(path, frames=3) as store:
        store.forget([1])
    journal = path / "scores.jsonl"
    whole = journal.read_bytes()
    for length in [0, 1, *range(whole.index(b"\n") - 2, len(whole))]:
        journal.write_bytes(whole[:length])
        with LabelStore.open(path) as store:
            assert store.done.sum() == min(3, whole[:length].count(b"\n"))
            require_right(store)
            store.write(result_of(4))
        with LabelStore.open(path, mode="r") as again:
            assert again.done[4] and again.done.sum() == 1 + min(3, whole[:length].count(b"\n"))


def test_a_missing_journal_is_said(path: Path) -> None:
    create(path).close()
    (path / "scores.jsonl").unlink()
    with refused("scores.jsonl", "No such file", "--overwrite"):
        LabelStore.open(path)


def test_a_damaged_chunk_is_said(path: Path) -> None:
    with create(path, frames=4) as store:
        chunk = path / "c.3.0.0"
        data = bytearray(chunk.read_bytes())
        for damaged in (b"", b"junk", bytes(data[:-1]), bytes(data[:-1]) + bytes([data[-1] ^ 1])):
            chunk.write_bytes(damaged)
            with refused("frame 3", "track them again"):
                store.frame(3)
        store.write(result_of(3))
        require_right(store)


# --- memory ------------------------------------------------------------------------------------------


def test_memories_come_back(path: Path) -> None:
    tokens = np.arange(24, dtype=np.float32).reshape(4, 6)
    with create(path) as store:
        assert store.load_memories() == {}
        for index in (0, 3, 5):
            arrays = {
                "tokens": (tokens + index)[:, ::2].T,
                "pointer": np.float16([index]),
                "one": np.int64(5),
            }
            store.save_memory(index, arrays, {"k": "ä"})
        store.save_memory(5, {}, {})
        store.prune_memories({3, 5})
    with LabelStore.open(path, mode="r") as again:
        memories = again.load_memories()
        assert list(memories) == [3, 5] and list(again.load_memories([5, 99])) == [5]
        arrays, meta = memories[3]
        np.testing.assert_array_equal(arrays["tokens"], (tokens + 3)[:, ::2].T)
        assert (
            arrays["pointer"].dtype == np.float16
            and arrays["one"].shape == ()
            and meta == {"k": "ä"}
            and memories[5] == ({}, {})
        )
    assert sorted(file.name for file in (path / "memory").iterdir()) == [
        "000000003.safetensors",
        "000000005.safetensors",
    ]


@pytest.mark.parametrize(
    ("index", "arrays", "meta"),
    [
        (6, {}, {}),
        (0, {"x": np.array(["text"])}, {}),
        (0, {"x": np.array([object()])}, {}),
        (0, {}, {"k": 5}),
    ],
)
def test_a_memory_that_cannot_be_stored_is_refused(path: Path, index: int, arrays: Any, meta: Any) -> None:
    with create(path) as store, refused("frame"):
        store.save_memory(index, arrays, meta)
    assert LabelStore.open(path, mode="r").load_memories() == {}


def test_a_damaged_memory_is_said(path: Path) -> None:
    with create(path) as store:
        store.save_memory(2, {"tokens": np.ones(100, np.float32)}, {})
        file = path / "memory" / "000000002.safetensors"
        whole = file.read_bytes()
        bf16 = whole.replace(b'"F32"', b'"F99"')
        for damaged in (b"", whole[:4], whole[:40], whole[:-1], b"\xff" * 100, bf16):
            file.write_bytes(damaged)
            with refused("000000002.safetensors", "damaged"):
                store.load_memories()
        store.save_memory(2, {}, {})
        assert store.load_memories() == {2: ({}, {})}


# --- a disk that refuses -----------------------------------------------------------------------------

STAGES = ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir", "truncate")


def on_stage(patch: Callable[[str, Any], None], number: int, act: Callable[[], None]) -> Callable[[], int]:
    """Have `act` called before call `number` that changes the disk; return a counter of such calls."""
    calls = 0

    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def stage(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls - 1 == number:
                act()
            return original(*args, **kwargs)

        return stage

    for name in STAGES:
        patch(name, wrapped(getattr(os, name)))
    return lambda: calls


def _no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _fail_at_each_stage(work: Callable[[], None], after: Callable[[bool], None]) -> int:
    """Run `work` again and again, the disk full at one stage later each time; return how many there are."""
    for number in range(1000):
        with pytest.MonkeyPatch.context() as patch:
            count = on_stage(lambda name, new, patch=patch: patch.setattr(os, name, new), number, _no_space)
            try:
                work()
                failed = False
            except StoreError as error:
                failed = True
                assert "No space left" in str(error)
            calls = count()
        if calls <= number:
            return number
        after(failed)
    raise AssertionError("never ends")


def test_labels_reach_the_disk_before_their_flag(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with create(path, frames=3) as store:
        synced: list[int] = []
        monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
        store.write(result_of(3))
        assert synced == [(path / name).stat().st_ino for name in ("c.3.0.0", ".", "scores.jsonl")]
        synced.clear()
        store.save_memory(3, {}, {})
        memory = path / "memory"
        assert synced == [(memory / name).stat().st_ino for name in ("000000003.safetensors", ".")]


@pytest.mark.parametrize("index", [2, 4])
def test_a_full_disk_leaves_the_other_frames(path: Path, index: int) -> None:
    create(path, frames=3).close()

    def work() -> None:
        with LabelStore.open(path) as store:
            store.write(result_of(index, salt=3))

    def after(failed: bool) -> None:
        with LabelStore.open(path) as again:
            require_right(again)
            assert {0, 1} <= again.scores.keys() <= {0, 1, 2, 4}
            again.forget([4])
            again.write(result_of(2))

    assert _fail_at_each_stage(work, after) >= 4


def test_a_full_disk_in_one_sitting(path: Path) -> None:
    with create(path, frames=2) as store:

        def after(failed: bool) -> None:
            assert store.done[3] != failed
            require_right(store)
            require_right(LabelStore.open(path, mode="r"))
            store.write(result_of(3))
            require_right(LabelStore.open(path, mode="r"))
            store.forget([3])

        _fail_at_each_stage(lambda: store.write(result_of(3, salt=1)), after)


def test_a_full_disk_spares_memories_and_tables(path: Path, tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    with create(path, frames=2) as store:
        store.save_memory(0, {}, {"run": "old"})
        store.write_scores_csv(table)
        old = table.read_bytes()
        store.write(result_of(2))

        def after(failed: bool) -> None:
            assert store.load_memories()[0][1]["run"] in ("old", "new")
            assert table.read_bytes().startswith(old)

        assert _fail_at_each_stage(lambda: store.save_memory(0, {}, {"run": "new"}), after) >= 3
        assert _fail_at_each_stage(lambda: store.write_scores_csv(table), after) >= 3
        assert store.load_memories() == {0: ({}, {"run": "new"})}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.zarr", "scores.csv"]


def test_a_full_disk_spares_the_store_that_was_to_be_replaced(path: Path) -> None:
    create(path, frames=3).close()

    def after(failed: bool) -> None:
        with LabelStore.open(path) as again:
            assert again.missing() == ([3, 4, 5] if failed else list(range(6)))
            require_right(again)
        assert list(path.parent.iterdir()) == [path]
        if not failed:
            create(path, frames=3, overwrite=True).close()

    assert _fail_at_each_stage(lambda: create(path, overwrite=True).close(), after) >= 6


def test_a_line_that_only_half_fits_is_taken_back(path: Path) -> None:
    with create(path, frames=2) as store:
        size = (path / "scores.jsonl").stat().st_size
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))  # a real short write, of 20 bytes
        try:
            with refused("frame 2", str(path)):
                store.write(result_of(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (path / "scores.jsonl").stat().st_size == size
        store.write(result_of(3))
    assert LabelStore.open(path, mode="r").missing() == [2, 4, 5]


# --- a process that is killed ------------------------------------------------------------------------


def in_process(function: str, *args: object) -> subprocess.Popen[bytes]:
    """Start a function of this file in another process."""
    load = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('kills', sys.argv[1]);"
        "tests = importlib.util.module_from_spec(spec); spec.loader.exec_module(tests);"
        "getattr(tests, sys.argv[2])(*sys.argv[3:])"
    )
    command = [sys.executable, "-c", load, __file__, function, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def track(path: Path) -> None:
    with create(path) as store:
        for index in (0, 1, 2, 1):
            store.save_memory(index, {"tokens": labels_of(index)}, {})
            store.write(result_of(index, salt=store.done[index] + 1))
        store.forget([0])
        store.prune_memories([2])


def replace(path: Path) -> None:
    with create(path, shape=(4, 8, 10), overwrite=True) as store:
        store.write(result_of(2))


def fork_and_kill(work: Callable[[Path], None], path: Path, arm: Callable[[], object]) -> bool:
    """Run `work` in a fork that `arm` has prepared; return whether it was killed."""
    child = os.fork()
    if child == 0:
        arm()
        work(path)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, status
    return status != 0


def kill_at_each_stage(folder: str, work: str, template: str) -> None:
    """Leave in `folder` one store for each call that changes the disk, killed there; forks save imports."""
    do_not_wait_for_the_disk(setattr)
    for number in range(1000):
        path = Path(folder) / f"{number:03d}" / "run.zarr"
        path.parent.mkdir()
        if template:
            shutil.copytree(template, path)
        patch = functools.partial(setattr, os)
        if not fork_and_kill(globals()[work], path, functools.partial(on_stage, patch, number, kill_me)):
            return
    raise AssertionError("never ends")


def kill_at_times(folder: str) -> None:
    """Leave stores that were killed by the clock, in whatever they were doing."""

    def write_on(path: Path) -> None:
        with LabelStore.open(path) as store:
            for turn in range(100_000):
                store.write(result_of(turn % 6, salt=turn % 9))

    for number in range(8):
        path = Path(folder) / str(number) / "run.zarr"
        assert not fork_and_kill(lambda path: create(path).close(), path, lambda: None)
        clock = threading.Timer(0.04 + 0.017 * number, kill_me)
        assert fork_and_kill(write_on, path, clock.start)


def _finish(process: subprocess.Popen[bytes]) -> None:
    process.communicate(timeout=120)
    assert process.returncode == 0


def _resume(path: Path) -> None:
    """Go on after a kill: all that is done is right, the rest can be written, and nothing is left over."""
    with LabelStore.open(path, identity=IDENTITY) as store:
        require_right(store)
        done = store.done
        for index in store.missing():
            store.write(result_of(index, salt=4))
        require_right(store)
        assert store.missing() == [] and all(store.scores[i][7].presence == 4 for i in np.flatnonzero(~done))
    assert list(path.parent.iterdir()) == [path]
    assert not list(path.rglob("*.partial"))


def test_killed_anywhere_it_resumes(tmp_path: Path) -> None:
    _finish(in_process("kill_at_each_stage", tmp_path, "track", ""))
    runs = sorted(tmp_path.iterdir())
    assert len(runs) > 40
    most = 0
    for run in runs:
        path = run / "run.zarr"
        if not path.exists():  # killed before there was a store: nothing is in the way of a new one
            create(path).close()
        with LabelStore.open(path, mode="r") as store:
            memories = store.load_memories()
            assert all(index in memories for index in store.scores) or 2 in memories
            for index, (arrays, _) in memories.items():
                np.testing.assert_array_equal(arrays["tokens"], labels_of(index))
            most = max(most, int(store.done.sum()))
        _resume(path)
    assert most == 3


def test_killed_while_replacing_there_is_the_old_store_or_the_new(path: Path, tmp_path: Path) -> None:
    create(path, frames=3).close()
    (tmp_path / "runs").mkdir()
    _finish(in_process("kill_at_each_stage", tmp_path / "runs", "replace", path))
    seen = []
    for run in sorted((tmp_path / "runs").iterdir()):
        mode = "r" if int(run.name) % 2 else "a"
        with LabelStore.open(run / "run.zarr", mode=mode) as store:
            seen.append(store.shape[0])
            assert store.shape[0] == 4 or store.missing() == [3, 4, 5]
        _resume(run / "run.zarr")
    assert seen == sorted(seen, reverse=True) and set(seen) == {4, 6}


def test_killed_by_the_clock_it_resumes(tmp_path: Path) -> None:
    _finish(in_process("kill_at_times", tmp_path))
    for run in tmp_path.iterdir():
        _resume(run / "run.zarr")


def hold(path: str) -> None:
    """Keep a store open for writing until killed."""
    store = LabelStore.open(path)
    store.write(result_of(1))
    print("open", flush=True)  # noqa: T201
    sys.stdin.read()


def test_one_writer_at_a_time_and_a_dead_one_does_not_count(path: Path) -> None:
    create(path).close()
    other = in_process("hold", path)
    try:
        assert other.stdout is not None and other.stdout.readline() == b"open\n"
        for attempt in (LabelStore.open, lambda path: create(path, overwrite=True)):
            with refused("Another process or job", "wait until it ends"):
                attempt(path)
        with LabelStore.open(path, mode="r") as reader:
            assert reader.missing() == [0, 2, 3, 4, 5]
    finally:
        other.kill()
        other.communicate()
    _resume(path)


def test_a_store_may_be_closed_by_another_thread(path: Path) -> None:
    store = create(path)
    thread = threading.Thread(target=store.close)
    thread.start()
    thread.join()
    LabelStore.open(path).close()


def test_a_dropped_store_lets_go(path: Path) -> None:
    create(path)
    LabelStore.open(path).close()


def test_io_needs_no_torch() -> None:
    code = "import sys, napari_samexp.io.labels; sys.exit('torch' in sys.modules or 'napari' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_are_cut_when_a_store_is_read(tmp_path: Path) -> None:
    create(tmp_path / "s", frames=1, labels={1: "a\x1b[2J\n" + "x" * 10**5, 7: "\u202e<b>"}).close()
    with LabelStore.open(tmp_path / "s", mode="a", identity=IDENTITY) as store:
        assert store.names[1].startswith("a[2J xxx") and len(store.names[1]) == LONGEST_NAME
        assert store.names[7] == "<b>" and store.done[0]
        store.write(result_of(1))
