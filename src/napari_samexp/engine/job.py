"""One tracking run in the worker, a frame at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp.engine.messages.base import VideoRef
from napari_samexp.engine.messages.tracking import FrameReady, Track
from napari_samexp.engine.sharing import read_shared
from napari_samexp.errors import VideoError
from napari_samexp.io.video import LazyVideo, open_video
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.tracking.prior import PriorMemory
from napari_samexp.tracking.run import Run, open_store, run_prior
from napari_samexp.tracking.tracker import Tracker
from napari_samexp.types import FrameResult

__all__ = ["StreamedVideo", "TrackJob", "open_reference"]

RequestFrame = Callable[[int, int], FrameReady]  # stream and index


class StreamedVideo:
    """A video whose frames the viewer's process reads.

    Parameters
    ----------
    request : callable
        Returns a frame, or the fingerprint for index -1.
    """

    def __init__(self, ref: VideoRef, request: RequestFrame) -> None:
        self._ref = ref
        self._request = request
        self.name = ref.name
        self.shape = ref.shape
        self.fps = ref.fps

    @cached_property
    def fingerprint(self) -> str:
        """A string that tells this video's content from another's."""
        return self._get(-1).text

    def frame(self, index: int) -> npt.NDArray[np.uint8]:
        """Return frame `index` as (Y, X, 3) uint8 RGB."""
        found = self._get(index)
        assert found.pixels is not None
        return read_shared(found.pixels)

    def close(self) -> None:
        """Do nothing; the viewer's process owns the source."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> npt.NDArray[np.uint8]:
        return self.frame(key)

    def _get(self, index: int) -> FrameReady:
        assert self._ref.stream is not None
        found = self._request(self._ref.stream, index)
        if found.error:
            raise VideoError(found.error, code=found.code)
        return found


def open_reference(ref: VideoRef, request: RequestFrame) -> LazyVideo | StreamedVideo:
    """Open the video of a reference."""
    if ref.path is None:
        return StreamedVideo(ref, request)
    return open_video(ref.path, cache_bytes=0, limits=ref.limits)  # each frame is read once


class TrackJob:
    """A run with its video and store open.

    Parameters
    ----------
    number : int
        The request's.
    prior : PriorMemory
        The session's; a resumed run continues with its own.

    Raises
    ------
    SamexpError
        If the run cannot start; nothing is open then.
    """

    def __init__(
        self, number: int, request: Track, model: Sam2, prior: PriorMemory, video: LazyVideo | StreamedVideo
    ) -> None:
        self.number = number
        self.request = request
        self.video = video
        self.paused = False
        prior = (run_prior(request.store) if request.resume else None) or prior
        tracker = Tracker(model, prior, request.settings)  # may refuse, before a store is made
        self.store = open_store(
            request.store,
            model,
            prior,
            request.settings,
            video,
            resume=request.resume,
            overwrite=request.overwrite,
            details={"video_path": request.video.path, "frames": _described(request.frames)},
        )
        try:
            if request.again:
                missing = set(self.store.missing(request.frames))
                self.store.forget(i for i in request.frames if i not in missing and i not in request.keep)
            self.run = Run(self.store, tracker, video, request.frames, request.keep)
        except BaseException:
            self.store.close()
            raise
        self._results: Iterator[FrameResult] = iter(self.run)

    @property
    def total(self) -> int:
        """The number of frames of the run, done or not, without those to keep."""
        return sum(index not in self.request.keep for index in self.request.frames)

    def step(self) -> FrameResult | None:
        """Track the next frame and return its result, or None after the last."""
        return next(self._results, None)

    def close(self) -> None:
        """Close store and video."""
        self.store.close()
        self.video.close()


def _described(frames: Sequence[int]) -> dict[str, Any]:
    """Return frames as JSON that stays short for long videos."""
    if isinstance(frames, range):
        return {"range": [frames.start, frames.stop, frames.step]}
    return {"list": list(frames)}
