"""What a fresh process has to import: napari's own never sees torch, and the core never sees Qt."""

from __future__ import annotations

import subprocess
import sys

import pytest

FACES = {"napari", "qtpy", "magicgui", "superqt", "PyQt5", "PyQt6", "PySide2", "PySide6", "matplotlib"}


def imported_by(statement: str) -> set[str]:
    """Return the top-level packages that a statement makes a new Python import."""
    script = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import napari_samexp; napari_samexp.__version__",
        "import napari_samexp.types, napari_samexp.images",
        "import napari_samexp.io, napari_samexp.io.labels",
        "from napari_samexp import LabelStore, PosencMap, Prompt, SamexpError, TrackSettings",
        "from napari_samexp.session import EncodingSession, MapRequest",
        "from napari_samexp.sam import VARIANTS; from napari_samexp.sam.weights.catalogue import OFFICIAL",
    ],
)
def test_a_process_without_the_models_imports_no_torch(statement: str) -> None:
    found = imported_by(statement)
    assert "napari_samexp" in found
    assert found.isdisjoint(FACES | {"torch", "torchvision", "safetensors.torch"})


def test_the_tables_of_sizes_and_files_import_no_network() -> None:
    found = imported_by(
        "from napari_samexp.sam.encoding_spec import require_grid; from napari_samexp.sam.identify import identify; "
        "from napari_samexp.sam.variant_json import variant_from_json; "
        "from napari_samexp.sam.weights.catalogue import OFFICIAL"
    )
    assert "napari_samexp" in found
    assert found.isdisjoint({"ssl", "certifi", "filelock", "http", "torch"})


def test_the_dock_imports_no_decoder() -> None:
    pytest.importorskip("qtpy")
    statement = (
        "import warnings; warnings.simplefilter('ignore'); import napari_samexp._qt.tracking.prior_tracking"
    )
    found = imported_by(statement)
    assert "napari" in found
    assert found.isdisjoint({"av", "zarr", "torch", "pandas"})


def test_the_models_import_no_face() -> None:
    found = imported_by("from napari_samexp import Tracker, load_model, record, track_into")
    assert "torch" in found
    assert found.isdisjoint(FACES)


def test_names_are_found_when_first_used() -> None:
    statement = "import napari_samexp as n; assert all(getattr(n, name) is not None for name in n.__all__)"
    assert "torch" in imported_by(statement)
    with pytest.raises(subprocess.CalledProcessError):
        imported_by("import napari_samexp; napari_samexp.no_such_name")
    with pytest.raises(subprocess.CalledProcessError):
        imported_by("from napari_samexp.sam import no_such_name")
