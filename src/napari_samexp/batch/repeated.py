"""A video whose first frame is shown more than once. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import SettingsError
from napari_samexp.types import VideoSource

__all__ = ["RepeatedStart"]


class RepeatedStart:
    """A `VideoSource` with the first frame `times` times, then the others.

    Frame ``t`` of the video has the index ``t + times - 1`` here. A tracker that sees it has memories of
    the first frame before it looks for the object there once more.
    """

    def __init__(self, video: VideoSource, times: int) -> None:
        if times < 1:
            raise SettingsError(f"The first frame is to be shown {times} times; give 1 or more.")
        self._video, self._times = video, times
        self.name = getattr(video, "name", "")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T + times - 1, Y, X, 3)."""
        count, height, width, channels = self._video.shape
        return count + self._times - 1, height, width, channels

    @property
    def fps(self) -> float | None:
        """As the video's."""
        return self._video.fps

    @property
    def fingerprint(self) -> str:
        """The video's, and how often its first frame is shown."""
        return f"{self._video.fingerprint} first frame {self._times} times"

    def frame(self, index: int) -> npt.NDArray[np.uint8]:
        """Return frame `index` as (Y, X, 3) uint8 RGB."""
        return self._video.frame(max(0, index - self._times + 1))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> npt.NDArray[np.uint8]:
        return self.frame(range(len(self))[key])
