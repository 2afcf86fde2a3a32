"""What a session needs of an engine."""

from __future__ import annotations

from typing import Protocol

from napari_samexp.engine.messages.base import Request, VideoRef
from napari_samexp.types import VideoSource

__all__ = ["Engine"]


class Engine(Protocol):
    """An engine: `EngineClient`, or a stand-in in tests."""

    def start(self) -> None:
        """Start the worker now rather than with the first request."""

    def submit(self, request: Request, holds: tuple[object, ...] = ()) -> int:
        """Queue a request and return its number."""

    def share_video(self, source: VideoSource) -> VideoRef:
        """Return a reference to a video that the worker cannot open itself."""

    def release_video(self, ref: VideoRef) -> None:
        """Forget a video."""

    def close(self) -> None:
        """End the worker."""
