"""Recordings that are switched off or painted, and runs that are taught on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_samexp.errors import ImageError, PriorError
from napari_samexp.io.labels import LabelStore
from napari_samexp.sam import Sam2
from napari_samexp.tracking import PriorMemory, Tracker, record_mask
from napari_samexp.tracking.prior import MAX_RECORDINGS
from napari_samexp.tracking.run import Run, add_to_run, open_store, run_prior
from tests import tiny_run

SETTINGS = tiny_run.settings_of(keep_lost=True)
FRAMES = range(tiny_run.FRAMES)


def painted(model: Sam2, label: int = 1, index: int = 4) -> Any:
    image = tiny_run.drawn_frames()[index]
    mask = np.zeros(image.shape[:2], bool)
    mask[10:30, 20:44] = True
    features = model.encode(image, side=tiny_run.SIDE)
    return record_mask(model, image, features, mask, label=label, name="painted", side=tiny_run.SIDE)


def test_a_recording_that_is_switched_off_is_kept_but_not_used(sam21: Sam2, tmp_path: Path) -> None:
    prior = tiny_run.prior_of(sam21, tiny_run.PROMPTS)
    off = prior.with_change(0, enabled=False)
    assert prior.labels == (1, 3, 300) and off.labels == (3, 300)
    assert off.fingerprint == prior.without(0).fingerprint != prior.fingerprint
    assert off.names == {3: "", 300: ""} and off.of_label(1) == []
    off.save(tmp_path / "off.safetensors")
    again = PriorMemory.load(tmp_path / "off.safetensors")
    assert [entry.enabled for entry in again.recordings] == [False, True, True, True]
    assert again.with_change(0, enabled=True).fingerprint == prior.fingerprint
    for index in range(1, 4):
        off = off.with_change(index, enabled=False)
    with pytest.raises(PriorError, match="switched off"):
        Tracker(sam21, off, SETTINGS)


def test_recordings_are_given_other_labels_and_names(sam21: Sam2) -> None:
    prior = tiny_run.prior_of(sam21, tiny_run.PROMPTS).with_change(0, label=9, name="nine")
    assert prior.names == {3: "", 9: "nine", 300: ""}
    for index, label in ((0, 0), (7, 1), (-1, 1)):
        with pytest.raises(PriorError):
            prior.with_change(index, label=label)
    full = PriorMemory(prior.recordings[:1] * MAX_RECORDINGS, prior.memories[:1] * MAX_RECORDINGS)
    full = full.with_recording(prior.recordings[3], prior.memories[3])
    with pytest.raises(PriorError, match="the most"):
        full.with_change(MAX_RECORDINGS, label=9)
    assert full.with_change(0, name="other").names[9]


def test_a_painted_mask_is_saved_and_encoded_again(sam21: Sam2, tmp_path: Path) -> None:
    recording, memory = painted(sam21)
    PriorMemory().with_recording(recording, memory).save(tmp_path / "p.safetensors")
    again = PriorMemory.load(tmp_path / "p.safetensors")
    np.testing.assert_array_equal(again.recordings[0].mask, recording.mask)
    image = tiny_run.drawn_frames()[4]
    assert again.encoded_again(sam21, {recording.image_hash: image}).fingerprint == again.fingerprint
    features = sam21.encode(image, side=tiny_run.SIDE)
    with pytest.raises(PriorError, match="empty"):
        record_mask(sam21, image, features, np.zeros(image.shape[:2], bool))
    with pytest.raises(ImageError):
        record_mask(sam21, image, features, np.ones((3, 3), bool))


@pytest.mark.parametrize("stop", [3, 5, 9])
def test_a_run_that_is_taught_resumes_as_if_never_stopped(sam21: Sam2, tmp_path: Path, stop: int) -> None:
    prior, video = tiny_run.prior_of(sam21, tiny_run.PROMPTS), tiny_run.ArrayVideo(tiny_run.drawn_frames())

    def run(path: Path, *, stopped: bool) -> np.ndarray:
        for part in range(1 + stopped):
            began_with = prior if part == 0 else run_prior(path)
            assert began_with is not None
            with open_store(path, sam21, began_with, SETTINGS, video, resume=True) as store:
                tracked = Run(store, Tracker(sam21, began_with, SETTINGS), video, FRAMES)
                for result in tracked:
                    if result.index == 4:
                        tracked.remember(*painted(sam21))
                        tracked.remember(*painted(sam21))  # the same again changes nothing
                    if stopped and part == 0 and result.index == stop:
                        break
        return np.asarray(LabelStore.open(path, mode="r").array[:])

    whole = run(tmp_path / "whole.zarr", stopped=False)
    np.testing.assert_array_equal(run(tmp_path / "stopped.zarr", stopped=True), whole)


def test_what_a_run_does_not_follow_is_refused_and_nothing_changes(sam21: Sam2, tmp_path: Path) -> None:
    prior, video = tiny_run.prior_of(sam21, tiny_run.PROMPTS), tiny_run.ArrayVideo(tiny_run.drawn_frames())
    with open_store(tmp_path / "s.zarr", sam21, prior, SETTINGS, video) as store:
        tracker = Tracker(sam21, prior, SETTINGS)
        run = Run(store, tracker, video, FRAMES)
        recording, memory = painted(sam21, label=2)
        for refuse in (
            lambda: run.remember(recording, memory),
            lambda: add_to_run(store, recording, memory),
            lambda: tracker.add_prior(2, memory),
        ):
            with pytest.raises(PriorError, match="not 2"):
                refuse()
        assert not (store.path / "added.safetensors").exists()
        assert add_to_run(store, *painted(sam21)) and not add_to_run(store, *painted(sam21))


def test_frames_that_are_kept_are_neither_tracked_nor_written(sam21: Sam2, tmp_path: Path) -> None:
    prior, video = tiny_run.prior_of(sam21, tiny_run.PROMPTS), tiny_run.ArrayVideo(tiny_run.drawn_frames())
    with open_store(tmp_path / "s.zarr", sam21, prior, SETTINGS, video) as store:
        run = Run(store, Tracker(sam21, prior, SETTINGS), video, FRAMES, keep={0, 5})
        tracked = []
        for result in run:
            tracked.append(result.index)
            run.keep |= {7, 2} if result.index == 3 else set()
        assert tracked == [index for index in FRAMES if index not in {0, 5, 7}]
        assert store.missing() == [0, 5, 7]
        assert set(video.asked) == set(tracked)


def test_memory_that_was_reset_stays_so_after_a_stop(sam21: Sam2, tmp_path: Path) -> None:
    prior, video = tiny_run.prior_of(sam21, tiny_run.PROMPTS), tiny_run.ArrayVideo(tiny_run.drawn_frames())

    def run(path: Path, *, stopped: bool) -> np.ndarray:
        for part in range(1 + stopped):
            with open_store(path, sam21, prior, SETTINGS, video, resume=True) as store:
                tracked = Run(store, Tracker(sam21, prior, SETTINGS), video, FRAMES)
                for result in tracked:
                    if result.index == 5:
                        tracked.reset_recent()
                        if stopped and part == 0:
                            break
        return np.asarray(LabelStore.open(path, mode="r").array[:])

    whole = run(tmp_path / "whole.zarr", stopped=False)
    np.testing.assert_array_equal(run(tmp_path / "stopped.zarr", stopped=True), whole)
