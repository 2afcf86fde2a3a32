"""Opening and naming label stores and videos for a session."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from napari_samexp._text import clean_name
from napari_samexp.engine.messages.base import VideoRef
from napari_samexp.errors import SamexpError
from napari_samexp.io.elsewhere import other_computer
from napari_samexp.io.labels import LabelStore
from napari_samexp.session.frames import frames_from_details
from napari_samexp.session.videos import reference_at
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.types import ObjectScore

__all__ = ["OpenedStore", "default_store", "read_store"]

LONGEST_STEM = 150  # bytes; names may have 255, and on Windows a whole path 260 letters
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]')  # on Windows, whose users are sent labels too
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}


@dataclass(frozen=True, slots=True)
class OpenedStore:
    """A label store as read from disk.

    Parameters
    ----------
    frames : sequence of int
        Those of its run.
    done : int
        How many of them are finished.
    video : VideoRef or None
        The run's video, if it was a file that is still there.
    notice : str
        Why the video was not opened, if so.
    """

    path: Path
    frames: Sequence[int]
    done: int
    settings: TrackSettings
    scores: dict[int, dict[int, ObjectScore]]
    video: VideoRef | None
    notice: str = ""


def default_store(name: str, folder: Path) -> Path:
    """Return a free path in `folder` for the labels of a video of that name."""
    stem = _file_name(Path(name).stem)
    first = folder / f"{stem}.labels.zarr"
    others = (folder / f"{stem}.labels-{number}.zarr" for number in range(2, 10_000))
    return next((path for path in (first, *others) if not os.path.lexists(path)), first)


def _file_name(stem: str) -> str:
    """Return a name that is valid on every system, and leaves room for suffixes."""
    name = _UNSAFE.sub("_", stem).strip(" .")
    while len(os.fsencode(name)) > LONGEST_STEM:
        name = name[:-1]
    if name.split(".")[0].upper() in _RESERVED:
        name = f"{name}_"
    return name or "video"


def read_store(path: Path, known_video: str | None = None) -> OpenedStore:
    """Read a store; `SamexpError` if it is none. This may take seconds.

    Parameters
    ----------
    known_video : str, optional
        The video that the person tracked into this store. A video on another computer is opened only if it is
        this one: the store may come from somebody else.
    """
    store = LabelStore.open(path, mode="r")
    frames = frames_from_details(store.details, store.shape[0])
    notice = _elsewhere(store.details.get("video_path"), path, known_video)
    return OpenedStore(
        path,
        frames,
        len(frames) - len(store.missing(frames)),
        _settings_of(store.details),
        store.scores,
        None if notice else _video_of(store.details),
        notice,
    )


def _settings_of(details: Mapping[str, Any]) -> TrackSettings:
    values = details.get("settings")
    known = {field.name for field in fields(TrackSettings)}
    if not isinstance(values, dict):
        return TrackSettings()
    return TrackSettings(**{name: value for name, value in values.items() if name in known})


def _elsewhere(video: Any, store: Path, known_video: str | None) -> str:
    """Return why a store's video is not opened by itself, or an empty text if it may be."""
    host = other_computer(video, store) if isinstance(video, str) and video != known_video else ""
    if not host:
        return ""
    return (
        f"The video of these labels is on the computer {clean_name(host)}, so it was not opened by itself; open "
        f"{clean_name(video)} if you trust where the labels come from."
    )


def _video_of(details: Mapping[str, Any]) -> VideoRef | None:
    path = details.get("video_path")
    limits = details.get("limits")
    try:
        both = None if limits is None else (float(limits[0]), float(limits[1]))
        return reference_at(path, limits=both) if isinstance(path, str) else None
    except (SamexpError, TypeError, ValueError, LookupError):
        return None  # the labels can be shown without it
