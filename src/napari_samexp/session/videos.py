"""References to videos, by which the worker opens or requests them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_samexp.engine.messages.base import VideoRef
from napari_samexp.io.video import open_video
from napari_samexp.types import VideoSource

__all__ = ["reference_at", "reference_to"]

Limits = tuple[float, float]


def reference_to(
    video: Any,
    share: Callable[[VideoSource], VideoRef],
    *,
    path: str | os.PathLike[str] | None = None,
    name: str = "",
    limits: Limits | None = None,
) -> VideoRef:
    """Return a reference to a video, as `Tracking.set_video` takes it; `share` serves frames of this process."""
    if isinstance(video, str | os.PathLike):
        return reference_at(os.fspath(video), name, limits)
    if path is not None:
        where = str(Path(path).absolute())
        return VideoRef(name or Path(path).name, video.shape, where, fps=video.fps, limits=limits)
    ref = share(video if isinstance(video, VideoSource) else open_video(video, limits=limits))
    return replace(ref, name=name) if name else ref


def reference_at(path: str, name: str = "", limits: Limits | None = None) -> VideoRef:
    """Return a reference to the video at a path; `VideoError` if there is none."""
    with open_video(path, limits=limits) as video:
        where = str(Path(path).absolute())
        return VideoRef(name or video.name, video.shape, where, fps=video.fps, limits=limits)
