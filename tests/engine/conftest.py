"""Fixtures around a real worker process with a tiny model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from napari_samexp.engine import WorkerOptions
from napari_samexp.engine.messages.base import Failed
from napari_samexp.engine.messages.prompts import ClearPrior
from tests.engine import engine_tools
from tests.engine.engine_tools import Line


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return engine_tools.save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="session")
def other_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same sizes with other weights."""
    return engine_tools.save_tiny_model(tmp_path_factory.mktemp("model") / "other.safetensors", seed=1)


@pytest.fixture
def make_line(tmp_path: Path) -> Iterator[Callable[..., Line]]:
    """Clients that are closed in the end, and leave nothing behind."""
    before = engine_tools.left_behind()
    made: list[Line] = []

    def make(options: WorkerOptions = engine_tools.OPTIONS) -> Line:
        made.append(Line(tmp_path / f"session-{len(made)}", options))
        return made[-1]

    yield make
    for line in made:
        line.close()
    assert engine_tools.left_behind() == before


@pytest.fixture(scope="module")
def shared_line(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """One client for all tests of a module, since each worker takes seconds to start."""
    before = engine_tools.left_behind()
    options = getattr(request.module, "OPTIONS", engine_tools.OPTIONS)
    line = Line(tmp_path_factory.mktemp("session"), options)
    yield line
    line.close()
    assert engine_tools.left_behind() == before


@pytest.fixture
def ready(shared_line: Line, tiny_file: Path) -> Line:
    """The shared client with the model and an empty prior."""
    shared_line.replies.on.clear()
    if isinstance(shared_line.preview(), Failed):
        shared_line.load(tiny_file)
    shared_line.ask(ClearPrior())
    shared_line.replies.all.clear()
    return shared_line
