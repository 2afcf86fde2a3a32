"""A reader's folder: bundled samples under the names that the docs use, and small stand-ins for official models.

A page names the files that it begins with in a comment, ``<!-- files: cat.jpg fox.mp4 -->``; they are made here.
Official names lead to files in a cache folder as they do for a reader, but those files are small: the
starter under the names of SAM 2.1, reduced models with random weights under the others. Their published hashes are
replaced by those of the stand-ins, within the tests only.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from napari_samexp.cli import run
from napari_samexp.io.video import open_video
from napari_samexp.render.mp4 import write_mp4
from napari_samexp.sam.weights.cache import locate
from napari_samexp.sam.weights.catalogue import CACHE_VARIABLE, OFFICIAL, STARTER
from napari_samexp.sam.weights.loading import identify_file, metadata_for
from napari_samexp.samples import load_sample
from tests.parity import golden, parity

SAMPLE = load_sample()
FRAMES, FEW = slice(0, 5), slice(0, 2)  # of the clip: as few as show what is meant
CLICK = f"--point={SAMPLE.points_xy[0][0]:g},{SAMPLE.points_xy[0][1]:g}"


@pytest.fixture(scope="session")
def stand_ins(
    tmp_path_factory: pytest.TempPathFactory, models: dict[str, Any]
) -> tuple[Path, dict[str, str]]:
    """A cache folder in which every official model is, as a stand-in, and the SHA-256 of each."""
    cache = tmp_path_factory.mktemp("weights")
    return cache, {name: _stand_in(name, cache / entry.file, models) for name, entry in OFFICIAL.items()}


@pytest.fixture
def official_models(stand_ins: tuple[Path, dict[str, str]]) -> Iterator[Path]:
    """The folder of the stand-ins, while they count as the official models; other tests look at the real ones."""
    cache, digests = stand_ins
    with pytest.MonkeyPatch.context() as patch:
        for name, entry in list(OFFICIAL.items()):
            patch.setitem(OFFICIAL, name, replace(entry, sha256=digests[name], git_blob=""))
        patch.setenv(CACHE_VARIABLE, str(cache))
        yield cache


def _stand_in(name: str, path: Path, models: dict[str, Any]) -> str:
    if name.startswith("sam2.1"):
        starter = locate(STARTER)
        assert starter is not None
        variant, state = identify_file(starter)[0], load_file(starter)
    else:
        family = "EdgeTAM" if name == "edgetam" else "SAM 1" if name.startswith("sam_") else "SAM 2"
        variant = models[family].variant
        state = load_file(parity.SELECTION / f"{golden.FAMILIES[family]}_state.safetensors")
    save_file(state, path, metadata_for(replace(variant, name=name)))
    with safe_open(path, "pt") as file:  # the name in the cache ends in .pt; what it is shows in its bytes
        assert file.metadata()
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes each of the reader's files once, and says where it is."""
    folder = tmp_path_factory.mktemp("shelf")

    def get(name: str) -> Path:
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            MAKERS[name](path, get)
        return path

    return get


def _image(path: Path, _: Any) -> None:
    """The sample image, in a corner of a larger one, so that (320, 200) is on the object."""
    x, y = SAMPLE.points_xy[0].astype(int)
    canvas = np.full((420, 600, 3), 90, np.uint8)
    canvas[200 - y : 456 - y, 320 - x : 576 - x] = SAMPLE.prior
    Image.fromarray(canvas).save(path, quality=95)


def _bundled_image(path: Path, _: Any) -> None:
    Image.fromarray(SAMPLE.prior).save(path, quality=95)


def _clip(path: Path, _: Any) -> None:
    with open_video(SAMPLE.clip_path) as video:
        write_mp4(path, video[FRAMES], 12)


def _short_clip(path: Path, _: Any) -> None:
    with open_video(SAMPLE.clip_path) as video:
        write_mp4(path, video[FEW], 12)


def _bundled_clip(path: Path, _: Any) -> None:
    shutil.copyfile(SAMPLE.clip_path, path)


def _ground_truth(path: Path, _: Any) -> None:
    tifffile.imwrite(path, SAMPLE.ground_truth[FRAMES].astype(np.uint8), photometric="minisblack")


def _prior(path: Path, get: Any) -> None:
    image = get("prior.png")
    assert run(["record", str(image), CLICK, "--name", path.stem, "--out", str(path)]) == 0


def _labels(path: Path, get: Any) -> None:
    prior, clip = get("cat.safetensors"), get("fox.mp4")
    assert run(["track", str(clip), "--prior", str(prior), "--out", str(path)]) == 0


def _own_checkpoint(path: Path, _: Any) -> None:
    starter = locate(STARTER)
    assert starter is not None
    shutil.copyfile(starter, path)


MAKERS: dict[str, Callable[[Path, Callable[[str], Path]], None]] = {
    "cat.jpg": _image,
    "cat-side.jpg": _image,
    "prior.png": _bundled_image,
    "fox.mp4": _clip,
    "clip.mp4": _bundled_clip,
    "clips/garden.mp4": _short_clip,
    "clips/street.mp4": _short_clip,
    "images/one.jpg": _bundled_image,
    "truth.tif": _ground_truth,
    "cat.safetensors": _prior,
    "fox.safetensors": _prior,
    "priors/cat.safetensors": _prior,
    "fox.zarr": _labels,
    "my-sam2.safetensors": _own_checkpoint,
}
