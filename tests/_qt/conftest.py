"""Windows for tests: a viewer without a window for most, and a session without a model's process."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("qtpy")
pytest.importorskip("pytestqt")

# pytest-xvfb starts a screen where it finds the program, possibly after this is imported
if sys.platform == "linux" and not os.environ.get("DISPLAY") and not shutil.which("Xvfb"):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # napari and its friends deprecate each other
    from napari.components import ViewerModel

from napari_samexp.io.video import LazyVideo, open_video
from napari_samexp.session.session import Session
from tests._qt.fake_engine import FakeEngine

HW = (48, 64)
OTHERS = ("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::PendingDeprecationWarning")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let what is deprecated between other packages pass; all else is an error here too."""
    for text in OTHERS:
        item.add_marker(pytest.mark.filterwarnings(text))


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def engines() -> list[FakeEngine]:
    """The engine of the session, once there is one."""
    return []


@pytest.fixture
def session(tmp_path: Path, qapp: Any, engines: list[FakeEngine]) -> Iterator[Session]:
    def make(on_reply: Callable[[Any], None]) -> FakeEngine:
        engines.append(FakeEngine(on_reply))
        return engines[-1]

    from napari_samexp._qt.connections import WindowThread

    with Session(home=tmp_path / "home", make_engine=make, deliver=WindowThread()) as made:
        yield made


@pytest.fixture
def dock(qtbot: Any, viewer: ViewerModel, session: Session) -> Iterator[Any]:
    from napari_samexp._qt.tracking.prior_tracking import PriorTracking

    widget = PriorTracking(viewer, session)
    qtbot.addWidget(widget)
    widget.show()
    # pandas is imported for the first of them, which a busy machine takes long for
    qtbot.waitUntil(lambda: session.models.state.state == "ready" and widget.prompts.begun, timeout=60_000)
    yield widget
    widget.end()


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (*HW, 3), np.uint8)


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 255, (9, *HW, 3), np.uint8)


@pytest.fixture
def video(frames: np.ndarray) -> LazyVideo:
    return open_video(frames)
