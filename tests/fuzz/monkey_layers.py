"""Layers of every kind that `monkey.py` adds, and the names that it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["HOSTILE", "KINDS", "NAMES"]

HOSTILE = [
    '<img src="file:///dev/zero">',
    "<table><tr><td>" * 18 + "x",
    "<b>bold</b>",
    "&lt;b&gt; & co",
    "line\nline\r\n\ttab",
    "\u202egpj.exe\x1b[2J\x00",
    "x" * 10_000,
    "",
    " ",
    "名前 👩\u200d🔬",
    "%p%v %s {}",
    "../../etc",
]
# napari itself takes names for HTML, which its status bar hangs on; names out of files never reach it so
NAMES = [name for name in HOSTILE if "<img" not in name and "<table" not in name]


def _image(viewer: Any, rng: Any, shape: Any, name: str) -> None:
    dtype = rng.choice(["uint8", "uint16", "float32", "bool", "int64"])
    viewer.add_image((rng.random(shape) * 255).astype(dtype), name=name, rgb=False)


def _rgb(viewer: Any, rng: Any, shape: Any, name: str) -> None:
    viewer.add_image(rng.integers(0, 255, (*shape, 3), np.uint8), name=name, rgb=True)


def _odd(viewer: Any, rng: Any, shape: Any, name: str) -> None:
    values = rng.choice([0.0, 1.0, np.nan, np.inf, -np.inf, 1e300], shape)
    viewer.add_image(values, name=name, contrast_limits=(0, 1), rgb=False)


def _levels(viewer: Any, rng: Any, shape: Any, name: str) -> None:
    whole = rng.random((*shape[:-2], 64, 64))
    viewer.add_image([whole, whole[..., ::2, ::2]], name=name, multiscale=True, rgb=False)


def _labels(viewer: Any, rng: Any, shape: Any, name: str) -> None:
    viewer.add_labels(rng.integers(0, 4, shape).astype(rng.choice(["uint8", "int32", "uint16"])), name=name)


def _points(viewer: Any, rng: Any, shape: Any, name: str) -> None:
    viewer.add_points(rng.random((int(rng.integers(0, 9)), len(shape))) * 60, name=name)


def _shapes(viewer: Any, rng: Any, shape: Any, name: str) -> None:
    viewer.add_shapes([rng.random((4, len(shape))) * 60], shape_type="polygon", name=name)


def _vectors(viewer: Any, rng: Any, shape: Any, name: str) -> None:
    viewer.add_vectors(rng.random((3, 2, len(shape))) * 20, name=name)


def _tracks(viewer: Any, rng: Any, shape: Any, name: str) -> None:
    count, axes = 6, max(3, min(len(shape), 4))
    data = np.column_stack(
        [np.repeat([1, 2], 3), *([np.tile(np.arange(3), 2)]), rng.random((count, axes - 1)) * 40]
    )
    viewer.add_tracks(data, name=name)


def _surface(viewer: Any, rng: Any, shape: Any, name: str) -> None:
    viewer.add_surface((rng.random((6, 3)) * 40, np.array([[0, 1, 2], [3, 4, 5]]), rng.random(6)), name=name)


KINDS: dict[str, Callable[[Any, Any, Any, str], None]] = {
    "image": _image, "rgb": _rgb, "odd values": _odd, "levels": _levels, "labels": _labels, "points": _points,
    "shapes": _shapes, "vectors": _vectors, "tracks": _tracks, "surface": _surface,
}  # fmt: skip
