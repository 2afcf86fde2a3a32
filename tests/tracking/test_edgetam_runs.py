"""EdgeTAM through priors, tracking and stores, as people use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_samexp.errors import PriorError, PriorMismatch
from napari_samexp.io.labels import LabelStore
from napari_samexp.sam import EdgeTam
from napari_samexp.tracking import PriorMemory, Tracker
from napari_samexp.tracking.recording import image_hash
from napari_samexp.tracking.run import open_store, track_into
from napari_samexp.types import FrameResult
from tests import tiny_run

IMAGE = tiny_run.drawn_frames(1)[0]


@pytest.fixture(scope="module")
def edgetam(models: dict[str, Any]) -> EdgeTam:
    return models["EdgeTAM"]


@pytest.fixture(scope="module")
def prior(edgetam: EdgeTam) -> PriorMemory:
    return tiny_run.prior_of(edgetam, tiny_run.PROMPTS)


@pytest.mark.parametrize("other", ["SAM 2", "SAM 2.1"])
def test_priors_of_sam_2_are_a_mismatch_both_ways(
    models: dict[str, Any], edgetam: EdgeTam, prior: PriorMemory, other: str
) -> None:
    sam2 = models[other]
    theirs = tiny_run.prior_of(sam2, tiny_run.PROMPTS)
    for model, made_by_other in ((edgetam, theirs), (sam2, prior)):
        with pytest.raises(PriorMismatch, match="images"):
            Tracker(model, made_by_other)


def test_a_prior_of_sam_2_is_encoded_again_from_its_images(
    models: dict[str, Any], edgetam: EdgeTam, video: Any
) -> None:
    theirs = tiny_run.prior_of(models["SAM 2.1"], tiny_run.PROMPTS)
    again = theirs.encoded_again(edgetam, {image_hash(IMAGE): IMAGE})
    expected = tiny_run.prior_of(edgetam, tiny_run.PROMPTS, side=edgetam.variant.image_size)
    assert again.fingerprint == expected.fingerprint
    assert {memory.spatial.shape for memory in again.memories} == {(8, 1, 28)}
    result = Tracker(edgetam, again, tiny_run.settings_of()).step(video.frame(0), 0)
    assert set(result.scores) == {1, 3, 300}
    with pytest.raises(PriorMismatch):
        theirs.encoded_again(edgetam, {})


def test_a_prior_survives_its_file(prior: PriorMemory, edgetam: EdgeTam, tmp_path: Path) -> None:
    prior.save(tmp_path / "prior.safetensors")
    loaded = PriorMemory.load(tmp_path / "prior.safetensors")
    assert loaded.fingerprint == prior.fingerprint
    loaded.require(edgetam)
    assert loaded.recordings[0].model == "golden EdgeTAM"


def test_memories_of_other_sizes_are_refused(prior: PriorMemory, edgetam: EdgeTam) -> None:
    square = prior.memories[0].spatial.reshape(8, 4, 7)  # as many numbers, but a grid
    memories = (type(prior.memories[0])(square, prior.memories[0].pointer), *prior.memories[1:])
    with pytest.raises(PriorError, match="damaged"):
        Tracker(edgetam, PriorMemory(prior.recordings, memories))


def tracked(model: EdgeTam, prior: PriorMemory, video: Any) -> list[FrameResult]:
    return list(Tracker(model, prior, tiny_run.settings_of(keep_lost=True)).run(video))


def test_labels_together_are_the_labels_one_by_one(edgetam: EdgeTam, prior: PriorMemory, video: Any) -> None:
    together = tracked(edgetam, prior, video)
    for label in prior.labels:
        alone = prior
        for index, entry in enumerate(prior.recordings):
            alone = alone.with_change(index, enabled=entry.label == label)
        for one, many in zip(tracked(edgetam, alone, video), together):
            assert one.scores[label].presence == pytest.approx(many.scores[label].presence, abs=1e-3)
            assert one.scores[label].iou == pytest.approx(many.scores[label].iou, abs=1e-3)
    assert any(result.labels.any() for result in together)


def into(path: Path, model: EdgeTam, prior: PriorMemory, video: Any) -> Iterator[FrameResult]:
    settings = tiny_run.settings_of(keep_lost=True)
    with open_store(path, model, prior, settings, video, resume=True) as store:
        yield from track_into(store, Tracker(model, prior, settings), video, range(len(video)))


@pytest.mark.parametrize("stop", [1, 4, 9])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    edgetam: EdgeTam, prior: PriorMemory, video: Any, tmp_path: Path, stop: int
) -> None:
    list(into(tmp_path / "whole.zarr", edgetam, prior, video))
    for count, _ in enumerate(run := into(tmp_path / "parts.zarr", edgetam, prior, video), start=1):
        if count == stop:
            run.close()
    rest = [result.index for result in into(tmp_path / "parts.zarr", edgetam, prior, video)]
    assert rest == list(range(stop, len(video)))
    with (
        LabelStore.open(tmp_path / "whole.zarr", mode="r") as whole,
        LabelStore.open(tmp_path / "parts.zarr", mode="r") as parts,
    ):
        assert whole.scores == parts.scores
        assert np.array_equal(whole.array[:], parts.array[:])
        assert whole.array[:].any()


@pytest.mark.parametrize(("side", "square"), [(96, True), (160, False)])
def test_any_side_tracks_with_a_prior_of_another(
    edgetam: EdgeTam, prior: PriorMemory, video: Any, side: int, square: bool
) -> None:
    settings = type(tiny_run.settings_of())(side=side, square=square)
    tracker = Tracker(edgetam, prior, settings)
    for index in (0, 1, 2):
        result = tracker.step(video.frame(index), index)
        assert all(np.isfinite(score.presence) for score in result.scores.values())
    assert all(memory.spatial.shape == torch.Size((8, 1, 28)) for memory in tracker.last_memories.values())
