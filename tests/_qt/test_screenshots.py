"""The images of the docks do not lie: the window of today looks and reads as they say."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.version import Version
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "docs" / "images"
SCREEN = (
    "xvfb-run",
    "-a",
    "-s",
    "-screen 0 1400x900x24",
)  # pytest's own screen may be smaller and of 16 bits
COARSE = (64, 40)  # 20 x 20 pixels of the window: letters blur, controls and colours stay
FAR = 1.5  # of 255: the same window made twice differs by 0.3 at most, the nearest other scene by 2.4
FILMS = ("tracking", "channels")

pytestmark = pytest.mark.skipif(
    shutil.which("xvfb-run") is None,
    reason="the images are made on Linux, on a virtual screen of their own",
)


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of the window as it is now."""
    folder = tmp_path_factory.mktemp("images")
    command = [
        *SCREEN,
        sys.executable,
        str(ROOT / "docs" / "make_screenshots.py"),
        "--no-films",
        "--out",
        str(folder),
    ]
    run = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "QT_QPA_PLATFORM": "xcb"}
    )
    assert run.returncode == 0, run.stderr
    return folder


def contents(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "contents.json").read_text(encoding="utf-8")))


def coarse(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        small = image.convert("RGB").resize(COARSE, Image.Resampling.BOX)
    return np.asarray(small, np.float32)


def distance(one: Path, other: Path) -> float:
    """Mean difference of colours, of 255, where letters and edges no longer count."""
    return float(np.abs(coarse(one) - coarse(other)).mean())


def names(folder: Path) -> list[str]:
    return [f"{name}-{theme}.webp" for name in contents(folder) for theme in ("dark", "light")]


def test_every_image_and_film_is_there() -> None:
    for name in names(COMMITTED):
        with Image.open(COMMITTED / name) as image:
            # a narrow window is as wide as its docks need, which depends on the fonts
            assert image.height == 700 if "narrow" in name else image.size == (1280, 800)
    for name in FILMS:
        for theme in ("dark", "light"):
            with Image.open(COMMITTED / f"{name}-{theme}.webp") as film:
                assert film.n_frames > 5


def test_the_images_are_light() -> None:
    made = [COMMITTED / name for name in names(COMMITTED)]
    films = [COMMITTED / f"{name}-{theme}.webp" for name in FILMS for theme in ("dark", "light")]
    assert max(path.stat().st_size for path in made) < 150_000
    assert sum(path.stat().st_size for path in films) < 1_000_000


def test_the_bound_tells_images_apart() -> None:
    """No committed image could stand for another scene, or for the same in another theme."""
    for one, other in itertools.combinations(names(COMMITTED), 2):
        assert distance(COMMITTED / one, COMMITTED / other) > FAR, (one, other)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_controls_are_those_of_the_images(today: Path) -> None:
    then, now = contents(COMMITTED), contents(today)
    assert then.keys() == now.keys()
    for scene in then:
        assert now[scene] == then[scene], f"{scene} shows other controls; look at them, and run `make images`"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(Version(version("napari")) < Version("0.9"), reason="the images show napari 0.9's window")
def test_the_window_looks_like_the_images(today: Path) -> None:
    for name in names(COMMITTED):
        found = distance(COMMITTED / name, today / name)
        assert found < FAR, f"{name} differs by {found:.1f} of 255; look at it, and run `make images`"
