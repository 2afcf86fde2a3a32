"""Models of reduced size with the reference's random weights, and a small video, for all tests."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests import tiny_run
from tests.parity import golden, parity

# torch.compile's Triton, where it comes with torch, ends the process if a software OpenGL was loaded before it
if importlib.util.find_spec("triton"):
    importlib.import_module("triton")

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
