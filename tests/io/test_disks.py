"""Disks that are full, slow, far away or Windows's, and names that are long: nothing is lost or half-written."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from napari_samexp.errors import StoreError
from napari_samexp.io import atomic
from napari_samexp.io.label_edits import EditableLabels
from napari_samexp.io.labels import LabelStore
from napari_samexp.types import FrameResult, ObjectScore, RunIdentity

IDENTITY = RunIdentity("video", "prior", "model", "{}")


def store_at(path: Path, *, frames: int = 0, **options: Any) -> LabelStore:
    made = LabelStore.create(path, shape=(5, 4, 6), labels=[1], identity=IDENTITY, **options)
    for index in range(frames):
        made.write(result_of(index))
    return made


def result_of(index: int) -> FrameResult:
    return FrameResult(index, np.ones((4, 6), np.uint16), {1: ObjectScore(1.0, 0.5)})


def in_use(times: int) -> tuple[Callable[..., Any], list[int]]:
    """Return an os.replace that Windows refuses so often, as while another program reads the file."""
    replace, calls = os.replace, [0]

    def refusing(*args: Any, **places: Any) -> None:
        calls[0] += 1
        if calls[0] <= times:
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        replace(*args, **places)

    return refusing, calls


# ---- Windows


def test_windows_waits_until_a_file_is_no_longer_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "WINDOWS", True)
    refusing, calls = in_use(3)
    monkeypatch.setattr(os, "replace", refusing)
    atomic.write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new" and calls[0] == 4
    calls[0] = 1
    with atomic.partial_file(tmp_path / "a") as partial:
        partial.write_bytes(b"newer")
    assert (tmp_path / "a").read_bytes() == b"newer"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_windows_does_not_wait_for_ever_and_keeps_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "WINDOWS", True)
    monkeypatch.setattr(atomic, "_PATIENCE_S", 0.05)
    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", in_use(10**9)[0])
    with pytest.raises(PermissionError):
        atomic.write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_elsewhere_a_refusal_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "WINDOWS", False)
    refusing, calls = in_use(10**9)
    monkeypatch.setattr(os, "replace", refusing)
    with pytest.raises(PermissionError):
        atomic.write_atomic(tmp_path / "a", b"new")
    assert calls[0] == 1


@pytest.mark.parametrize("what", ["write", "paint", "replace"])
def test_windows_waits_for_a_viewer_that_reads_the_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = tmp_path / "run.zarr"
    store_at(path, frames=2).close()
    monkeypatch.setattr(atomic, "WINDOWS", True)
    refusing, calls = in_use(2)
    monkeypatch.setattr(os, "replace", refusing)
    monkeypatch.setattr(os, "rename", refusing)
    if what == "write":
        with LabelStore.open(path) as store:
            store.write(result_of(2))
        assert LabelStore.open(path, mode="r").done.sum() == 3
    elif what == "paint":
        labels = EditableLabels(path)
        labels[1, 2, 3] = 0
        assert labels[1][2, 3] == 0 and labels.edited == {1}
    else:
        store_at(path, overwrite=True).close()
        assert LabelStore.open(path, mode="r").done.sum() == 0
    assert calls[0] > 2


def test_windows_flushes_files_but_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses to open a folder, and flushes only what is open for writing."""
    opened: list[tuple[str, int]] = []
    really = os.open

    def opening(path: Any, flags: int, *rest: Any) -> int:
        opened.append((Path(path).name, flags))
        return really(path, flags, *rest)

    monkeypatch.setattr(atomic, "WINDOWS", True)
    monkeypatch.setattr(os, "open", opening)
    (tmp_path / "a").write_bytes(b"a")
    opened.clear()
    atomic.sync(tmp_path / "a")
    atomic.sync(tmp_path)
    assert opened == [("a", os.O_RDWR)]


# ---- far away


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF])
def test_a_disk_that_cannot_flush_folders_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    flush = os.fsync

    def flushing(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        flush(handle)

    monkeypatch.setattr(os, "fsync", flushing)
    with store_at(tmp_path / "run.zarr", frames=2) as store:
        assert store.done.sum() == 2


def test_a_disk_that_fails_to_flush_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with store_at(tmp_path / "run.zarr", frames=1) as store:

        def flushing(handle: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", flushing)
        with pytest.raises(StoreError, match="Could not write frame 1"):
            store.write(result_of(1))
        assert store.done.tolist() == [True, False, False, False, False]


def test_a_store_that_was_taken_away_is_not_made_again(tmp_path: Path) -> None:
    """zarr would: on this computer's own disk, below the place where a network's was."""
    store = store_at(tmp_path / "far" / "run.zarr", frames=1)
    labels = EditableLabels(store.path)
    labels[0, 1, 1] = 0
    shutil.move(tmp_path / "far", tmp_path / "away")
    with pytest.raises(StoreError, match=r"Could not write frame 1 .* no longer there"):
        store.write(result_of(1))
    with pytest.raises(StoreError, match="no longer there"):
        labels[0, 2, 2] = 0
    store.close()
    assert not (tmp_path / "far").exists()
    shutil.move(tmp_path / "away", tmp_path / "far")
    with LabelStore.open(tmp_path / "far" / "run.zarr") as again:
        assert again.done.sum() == 1
        again.write(result_of(1))


def test_a_disk_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def acquire(*_: Any, **__: Any) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with pytest.raises(StoreError, match="cannot lock"):
        store_at(tmp_path / "run.zarr")
    assert not (tmp_path / "run.zarr").exists()


# ---- names


@pytest.mark.parametrize("name", ["x" * 250 + ".zarr", "ü" * 120 + ".zarr", "x" * 200])
def test_names_may_be_as_long_as_the_system_lets_them(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with store_at(path, frames=1), pytest.raises(StoreError, match="Another process"):
        LabelStore.open(path)
    store_at(path, overwrite=True).close()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    atomic.write_atomic(tmp_path / ("y" * 255), b"1")
    with atomic.partial_file(tmp_path / ("z" * 255)) as partial:
        partial.write_bytes(b"1")
