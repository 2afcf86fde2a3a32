"""What version 0.1 wrote still opens: a prior, label stores, a batch, a comparison, a session."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_samexp import PriorMemory, load_model
from napari_samexp.batch.manifest import Manifest
from napari_samexp.cli import app
from napari_samexp.engine.journal import PriorJournal
from napari_samexp.io.label_edits import edited_frames
from napari_samexp.io.labels import LabelStore
from napari_samexp.measure.comparison import Comparison
from napari_samexp.session import left_sessions
from napari_samexp.session.folders import sessions_dir, settings_file
from napari_samexp.session.preferences import load_preferences

FILES = Path(__file__).parent / "data" / "v0.1"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A copy, since what is opened may be written to."""
    return Path(shutil.copytree(FILES, tmp_path / "v0.1"))


def test_a_prior_has_its_recordings_and_its_identity(files: Path) -> None:
    prior = PriorMemory.load(files / "prior.safetensors")

    assert [(r.label, r.name) for r in prior.recordings] == [(1, "star"), (2, "the box")]
    with LabelStore.open(files / "half.zarr", mode="r") as store:
        assert store.identity.prior == prior.fingerprint


def test_a_painted_recording_keeps_its_mask(files: Path) -> None:
    (recording,) = PriorMemory.load(files / "painted.safetensors").recordings

    assert recording.mask is not None and recording.mask.sum() > 100


def test_a_finished_store_has_its_labels_scores_and_painted_frames(files: Path) -> None:
    with LabelStore.open(files / "whole.zarr", mode="r") as store:
        assert store.done.all() and store.names == {1: "star", 2: "the box"}
        assert sorted(store.scores) == list(range(10))
        assert (store.frame(8)[40:60, 40:60] == 2).all()
        store.write_scores_csv(files / "again.csv")
    assert edited_frames(files / "whole.zarr") == {8}
    assert (files / "again.csv").read_text() == (files / "whole.csv").read_text()


def test_a_stopped_run_resumes_to_the_labels_of_one_that_was_not_stopped(files: Path) -> None:
    arguments = [
        "track",
        files / "clip.mp4",
        "--prior",
        files / "prior.safetensors",
        "--out",
        files / "half.zarr",
    ]
    result = CliRunner().invoke(app, [*map(str, arguments), "--side", "128", "--resume"])

    assert result.exit_code == 0, result.output
    with (
        LabelStore.open(files / "half.zarr", mode="r") as resumed,
        LabelStore.open(FILES / "whole.zarr", mode="r") as whole,
    ):
        assert resumed.done.all()
        for index in {*range(10)} - edited_frames(FILES / "whole.zarr"):
            # processors round differently, which may move an outline by a pixel
            assert np.mean(resumed.frame(index) != whole.frame(index)) < 0.002


def test_a_batch_skips_what_is_done(files: Path) -> None:
    arguments = [
        "batch",
        files / "prior.safetensors",
        "--videos",
        files / "clip.mp4",
        "--out",
        files / "batch",
    ]
    result = CliRunner().invoke(
        app, [*map(str, arguments), "--frames", "0:3", "--side", "128", "--workers", "1", "--json"]
    )

    assert result.exit_code == 0, result.output
    assert Manifest(files / "batch" / "manifest.jsonl").last["prior/clip"]["tracked"] == 3  # as 0.1 noted it
    assert (
        len((files / "batch" / "manifest.jsonl").read_text().splitlines()) == 3
    )  # and that a run began again


def test_a_comparison_names_its_rows_columns_and_stores(files: Path) -> None:
    comparison = Comparison.load(files / "matrix" / "comparison.json")

    assert (comparison.rows, comparison.columns) == (("prior",), ("clip",))
    assert comparison.cell(0, 0).frames == 2


def test_a_session_is_found_again_with_its_recordings_and_settings(files: Path) -> None:
    home = files / "home"
    (left,) = left_sessions(sessions_dir(home))
    settings, notice = load_preferences(settings_file(home))
    journal = PriorJournal(left.path / "prior")

    assert [r.name for r in journal.prior.recordings] == ["star", "background"] and not journal.notice
    assert not notice and settings.track.side == 128 and not settings.hover
    assert settings.last_run is not None and settings.last_run.store == "/data/clip.labels.zarr"


def test_the_run_of_a_session_opens_with_its_own_prior(files: Path) -> None:
    with LabelStore.open(files / "clip.labels.zarr", mode="r") as store:
        assert store.done.tolist() == [True] * 4 + [False] * 6
    prior = PriorMemory.load(files / "clip.labels.zarr" / "prior.safetensors")
    assert prior.names == {1: "star", 2: "background"}
    prior.require(load_model("starter"))
