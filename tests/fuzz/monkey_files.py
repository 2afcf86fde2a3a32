"""The files that `monkey.py` opens: good ones, damaged ones, and some with hostile names in them."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np

from napari_samexp.io.labels import LabelStore
from napari_samexp.measure.comparison import Cell, Comparison
from napari_samexp.render.mp4 import write_mp4
from napari_samexp.tracking import PriorMemory
from napari_samexp.types import FrameResult, ObjectScore, RunIdentity
from tests.fuzz.monkey_layers import HOSTILE
from tests.fuzz.valid_input import damaged, frames, make_sound_files

KEPT = (
    "h264.mp4",
    "ffv1.mkv",
    "anim.gif",
    "stack.tif",
    "a.png",
    "tiny.safetensors",
    "prior.safetensors",
    "run.zarr",
)


def make_files(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        sound = Path(name)
        make_sound_files(sound)
        for kept in KEPT:
            (shutil.copytree if (sound / kept).is_dir() else shutil.copy)(sound / kept, folder / kept)
    hostile_prior(folder)
    for number, name in enumerate(HOSTILE):
        hostile_store(folder / f"hostile{number}.zarr", name)
    hostile_comparison(folder)
    chance = Random(5)
    for kept in KEPT[:7]:
        (folder / f"damaged-{kept}").write_bytes(damaged((folder / kept).read_bytes(), chance)[0])
    write_mp4(folder / "clip.mp4", list(frames(12)), 5)
    images = folder / "pictures"
    images.mkdir()
    for number in range(3):
        shutil.copy(folder / "a.png", images / f"{number}.png")


def hostile_prior(folder: Path) -> None:
    prior = PriorMemory.load(folder / "prior.safetensors")
    entries = tuple(
        replace(entry, name=HOSTILE[n], image_name=HOSTILE[n + 1]) for n, entry in enumerate(prior.recordings)
    )
    PriorMemory(entries, prior.memories).save(folder / "hostile.safetensors")


def hostile_store(path: Path, name: str) -> None:
    identity = RunIdentity("v", str(path), "m", "s")
    details = {"video_path": str(path.with_name("clip.mp4")), "frames": {"range": [0, 12, 1]}}
    with LabelStore.create(
        path, shape=(12, 48, 64), labels={1: name, 2: f"second {name}"}, identity=identity, details=details
    ) as store:
        for index in range(12):
            labels = np.zeros((48, 64), np.uint16)
            labels[10:20, 3 * index : 3 * index + 9], labels[30:40, :9] = 1, 2
            store.write(FrameResult(index, labels, {n: ObjectScore(2.0 - index % 4, 0.5) for n in (1, 2)}))


def hostile_comparison(folder: Path) -> None:
    rows = tuple(HOSTILE[:3])
    cells = [
        Cell(
            row,
            rows[0],
            str(folder / "clip.mp4"),
            str(folder / f"hostile{n}.zarr"),
            presence=1.0,
            frames=12,
            best=3,
        )
        for n, row in enumerate(rows)
    ]
    cells[1], cells[2] = replace(cells[1], error=HOSTILE[1]), replace(cells[2], video="//host/share/x.mp4")
    Comparison(rows, rows[:1], tuple(cells), {}).save(folder / "comparison.json")
    content = json.loads((folder / "comparison.json").read_text("utf-8"))
    (folder / "broken.json").write_text(json.dumps({**content, "rows": 3, "cells": [[]]}))


if __name__ == "__main__":
    make_files(Path(sys.argv[1]))
