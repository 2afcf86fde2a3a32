"""napari readers: lazy videos, priors and label stores."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari

from napari_samexp._qt.shown_video import ShownVideo, layer_settings
from napari_samexp._qt.text import plain_errors
from napari_samexp._qt.tracking.run_labels import labels_settings
from napari_samexp.errors import PriorError
from napari_samexp.io.image import IMAGE_SUFFIXES
from napari_samexp.io.label_edits import EditableLabels
from napari_samexp.io.video import open_video

__all__ = ["label_store_reader", "open_dock", "prior_reader", "video_reader"]

Reader = Callable[[Any], list[Any]]
_NOTHING: list[Any] = [(None,)]  # napari's sentinel for "read, but no layer to add"


def video_reader(path: Any) -> Reader | None:
    """Return a reader of videos, TIFF stacks and folders of images; None for other folders."""
    first = _only(path)
    if first is None or (first.is_dir() and not _has_images(first)):
        return None
    return _read_video


def prior_reader(path: Any) -> Reader | None:
    """Return a reader that loads a prior into the dock, which it opens."""
    return None if _only(path) is None else _read_prior


def label_store_reader(path: Any) -> Reader | None:
    """Return a reader of a tracking run's labels; None for other folders."""
    first = _only(path)
    is_store = first is not None and (first / "zarr.json").is_file() and (first / "scores.jsonl").is_file()
    return _read_labels if is_store else None


def open_dock(viewer: Any) -> Any:
    """Return the Prior tracking dock of a viewer, opened if necessary."""
    _, widget = viewer.window.add_plugin_dock_widget("napari-samexp", "Prior tracking")
    return widget


@plain_errors()
def _read_video(path: Any) -> list[Any]:
    video = open_video(str(_only(path)))
    return [(ShownVideo(video, _only(path)), layer_settings(video), "image")]


@plain_errors()
def _read_labels(path: Any) -> list[Any]:
    labels = EditableLabels(str(_only(path)))
    return [(labels, labels_settings(labels), "labels")]


@plain_errors()
def _read_prior(path: Any) -> list[Any]:
    viewer = napari.current_viewer()
    if viewer is None:
        raise PriorError("A prior is opened in a viewer; in Python, use napari_samexp.PriorMemory.load.")
    open_dock(viewer).load_prior_from(str(_only(path)))
    return _NOTHING


def _only(path: Any) -> Path | None:
    """Return the path if there is exactly one."""
    if isinstance(path, str | os.PathLike):
        return Path(path)
    return Path(path[0]) if len(path) == 1 else None


def _has_images(folder: Path) -> bool:
    return any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.iterdir())
