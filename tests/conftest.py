"""Models of reduced size with the reference's random weights, and a small video, for all tests."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

# torch.compile's Triton, where it comes with torch, ends the process if a software OpenGL was loaded before it
if importlib.util.find_spec("triton"):
    importlib.import_module("triton")

ROOT = Path(__file__).resolve().parents[1]


def _register(path: Path) -> None:
    """Make a script importable by its name; the folders of scripts stay off the search path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


# in the order in which they import each other
for _script in (
    "benchmarks/golden.py",
    "benchmarks/reproduce.py",
    "benchmarks/reproduce_edgetam.py",
    "benchmarks/parity.py",
    "benchmarks/turns.py",
    "benchmarks/optional_modes.py",
    "tests/tiny_run.py",
    "tests/hostile_archive.py",
):
    _register(ROOT / _script)

import golden  # noqa: E402
import parity  # noqa: E402
import tiny_run  # noqa: E402

FAMILIES = tuple(golden.FAMILIES)


@pytest.fixture(autouse=True, scope="session")
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sessions, settings and what is known of weights go to a folder of the tests, also from child processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_SAMEXP_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """On arrays this small, threads only wait for each other: a hundred times longer on a busy machine.

    For each test anew, since some of what is tested sets their number.
    """
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def models() -> dict[str, Any]:
    """A reduced model of each family by the family's name; never to be changed."""
    return {family: golden.load_reference(parity.SELECTION, family) for family in FAMILIES}


@pytest.fixture(scope="session")
def sam1(models: dict[str, Any]) -> Any:
    return models["SAM 1"]


@pytest.fixture(scope="session")
def sam21(models: dict[str, Any]) -> Any:
    return models["SAM 2.1"]


@pytest.fixture(scope="session", params=FAMILIES)
def any_model(models: dict[str, Any], request: pytest.FixtureRequest) -> Any:
    return models[request.param]


@pytest.fixture(scope="session", params=FAMILIES[:3])
def placed_model(models: dict[str, Any], request: pytest.FixtureRequest) -> Any:
    """A model whose encoder adds a position encoding."""
    return models[request.param]


@pytest.fixture(scope="session", params=("SAM 2", "SAM 2.1"))
def hiera_model(models: dict[str, Any], request: pytest.FixtureRequest) -> Any:
    return models[request.param]


@pytest.fixture(scope="session", params=FAMILIES[1:])
def memory_model(models: dict[str, Any], request: pytest.FixtureRequest) -> Any:
    """A model that remembers."""
    return models[request.param]


@pytest.fixture(scope="session")
def video() -> tiny_run.ArrayVideo:
    return tiny_run.ArrayVideo(tiny_run.drawn_frames())
