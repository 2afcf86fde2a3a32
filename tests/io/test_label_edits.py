"""Labels that a run writes and a person paints at the same time."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from napari_samexp.errors import StoreError
from napari_samexp.io import label_edits
from napari_samexp.io.label_edits import EditableLabels, TooManyLabelsError, edited_frames
from napari_samexp.io.labels import LabelStore
from napari_samexp.types import FrameResult, ObjectScore, RunIdentity

IDENTITY = RunIdentity("v", "p", "m", "s")
SHAPE = (6, 8, 10)


def frame(index: int, label: int = 1) -> FrameResult:
    labels = np.zeros(SHAPE[1:], np.uint16)
    labels[index, index] = label
    return FrameResult(index, labels, {1: ObjectScore(1.0, 0.9), 2: ObjectScore(1.0, 0.9)})


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore.create(tmp_path / "labels.zarr", shape=SHAPE, labels=[1, 2], identity=IDENTITY)


def test_it_shows_what_a_run_writes(store: LabelStore) -> None:
    labels = EditableLabels(store.path)
    assert (labels.shape, labels.ndim, labels.dtype, labels.size, len(labels)) == (SHAPE, 3, np.uint8, 480, 6)
    assert labels.names == {1: "object 1", 2: "object 2"} and labels.path == store.path
    store.write(frame(2))
    assert labels[2, 2, 2] == 1 and labels[2:3].shape == (1, 8, 10)
    np.testing.assert_array_equal(np.asarray(labels), store.array[:])
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":  # before, it meant "if possible"
        with pytest.raises(ValueError, match="copy=False"):
            np.array(labels, copy=False)
    store.close()


@pytest.mark.parametrize(
    ("key", "frames"),
    [
        (3, {3}),
        (-1, {5}),
        ((2, slice(0, 2)), {2}),
        ((slice(1, 3), 0, 0), {1, 2}),
        ((np.array([4, 4, 0]), np.array([1, 2, 3]), np.array([0, 0, 0])), {0, 4}),
        (([1, 1], [0, 1], [0, 1]), {1}),
        (slice(None), set(range(6))),
        (Ellipsis, set(range(6))),
    ],
)
def test_painting_is_noted_and_outlives_the_sitting(store: LabelStore, key: object, frames: set[int]) -> None:
    store.close()
    told: list[frozenset[int]] = []
    labels = EditableLabels(store.path, told.append)
    expected = np.zeros(SHAPE, np.uint8)
    for value in (2, 1):
        labels[key] = value
        expected[key] = value  # type: ignore[index]
    np.testing.assert_array_equal(labels[:], expected)
    assert labels.edited == frames == edited_frames(store.path) == EditableLabels(store.path).edited
    assert told == [frames]


def test_frames_are_marked_and_given_back(store: LabelStore) -> None:
    labels = EditableLabels(store.path)
    labels.mark([1, 2])
    labels.mark([2])
    labels.unmark([2, 5])
    assert edited_frames(store.path) == {1}
    store.close()
    LabelStore.create(store.path, shape=SHAPE, labels=[1], identity=IDENTITY, overwrite=True).close()
    assert edited_frames(store.path) == frozenset()


def test_a_frame_that_the_run_was_about_to_write_is_painted_again(store: LabelStore) -> None:
    labels = EditableLabels(store.path)
    labels.guarding = True
    labels[3, 0, 0] = 2
    labels[3, 0, 1] = 2
    store.write(frame(3))  # the run did not know yet
    assert labels[3, 0, 0] == 0
    assert labels.repair(3) and not labels.repair(4)
    assert labels[3, 0, 0] == labels[3, 0, 1] == 2 and labels[3, 3, 3] == 0
    labels.settle([3])
    assert not labels.repair(3)
    labels[4, 0, 0] = 2
    store.write(frame(4))
    labels.stop_guarding()  # the run ended before it said that the frame is done
    assert labels[4, 0, 0] == 2 and not labels.guarding
    labels[5, 0, 0] = 2
    assert not labels.repair(5)  # nobody else writes, so nothing is kept for that
    store.close()


def test_bad_keys_and_too_much_at_once(store: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = EditableLabels(store.path)
    with pytest.raises(IndexError):
        labels[6] = 1
    with pytest.raises(IndexError):
        labels[([9], [0], [0])] = 1
    assert not labels.edited
    monkeypatch.setattr(label_edits, "MAX_REQUEST_BYTES", 100)
    assert labels[0].shape == (8, 10)
    with pytest.raises(TooManyLabelsError, match="frame by frame"):
        labels[0:2]
    store.close()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"frames": 3}', b"\xff"])
def test_a_damaged_list_is_one_sentence(store: LabelStore, content: bytes) -> None:
    store.close()
    (store.path / "edited.json").write_bytes(content)
    with pytest.raises(StoreError, match="which frames were painted"):
        edited_frames(store.path)


def test_a_disk_that_refuses_the_note_refuses_the_stroke(store: LabelStore) -> None:
    store.close()
    if os.geteuid() == 0:
        (store.path / "edited.json").mkdir()
    else:
        store.path.chmod(0o500)
    with pytest.raises(StoreError):
        labels = EditableLabels(store.path)
        labels[0, 0, 0] = 1
    store.path.chmod(0o700)
    assert not store.array[0].any()
