"""A lazy video as the data of an Image layer.

The canvas may show a placeholder while a frame is decoded; everyone else reads exact frames.
"""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Any

import napari
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from qtpy.QtCore import QObject, Qt, Signal

from napari_samexp._qt.frame_feed import FrameFeed
from napari_samexp._qt.napari_internals import called_by_slicing
from napari_samexp._qt.text import for_napari
from napari_samexp.io.video import LazyVideo

__all__ = ["ShownVideo", "add_video", "know_viewer", "layer_settings", "video_of"]

Frame = npt.NDArray[np.uint8]

PATIENCE_S = 0.02  # a wait that nobody notices, and that saves most steps the placeholder
_viewers: weakref.WeakSet[Any] = weakref.WeakSet()


class _Arrival(QObject):
    """Passes the index of a decoded frame from the feed's thread to the window's."""

    arrived = Signal(int)


class ShownVideo:
    """A video as napari's Image layer takes it, (T, Y, X, 3) uint8.

    napari's slicing gets the exact frame if it is ready within `PATIENCE_S`, else the nearest decoded one,
    darkened and marked; the layer refreshes once the exact one is ready. All other reads are exact and block.

    Parameters
    ----------
    video : LazyVideo
    path : path, optional
        The file it was opened from, so that the worker can open it too.

    Attributes
    ----------
    exact : LazyVideo
        The video itself, for tracking, recording and export.
    """

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(self, video: LazyVideo, path: str | os.PathLike[str] | None = None) -> None:
        self.exact = video
        self.path = None if path is None else Path(path).absolute()
        self.shape = video.shape
        self.feed = FrameFeed(video)
        self._waiting: int | None = None
        self._placeholder: int | None = None  # the frame shown while another one is decoded
        self._arrival = _Arrival()
        self._arrival.arrived.connect(self._refresh, Qt.ConnectionType.QueuedConnection)
        arrival = weakref.ref(self._arrival)
        self.feed.on_frame = lambda index: _announce(arrival, index)
        self.feed.put(0, video.frame(0))  # decoded when opened; a first placeholder

    @property
    def size(self) -> int:
        """Elements in all frames."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def waiting(self) -> int | None:
        """The frame being decoded while a placeholder is shown, or None."""
        return self._waiting

    def __len__(self) -> int:
        return len(self.exact)

    def __getitem__(self, key: Any) -> Any:
        index = _whole_frame(key, len(self))
        on_main_thread = threading.current_thread() is threading.main_thread()
        if index is None or not on_main_thread or not called_by_slicing():
            return self.exact[key]
        frame = self._shown(index)
        return frame[None] if isinstance(key[0], slice) else frame

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self.exact.__array__(dtype, copy)

    def __repr__(self) -> str:
        return f"<ShownVideo of {self.exact!r}>"

    def _shown(self, index: int) -> Frame:
        frame = self.feed.request(index, PATIENCE_S)
        if frame is not None:
            self._waiting = None
            return frame
        problem = self.feed.problem(index)
        self._waiting = None if problem else index
        near = self.feed.nearest(index)
        self._placeholder = None if near is None else near[0]
        frame = np.zeros(self.shape[1:], np.uint8) if near is None or problem else near[1]
        return _marked(frame, f"frame {index} cannot be decoded" if problem else f"decoding frame {index} …")

    def _refresh(self, index: int) -> None:
        if self._waiting is not None and self._is_better(index, self._waiting):
            for layer in _layers_of(self):
                layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _is_better(self, index: int, target: int) -> bool:
        return self._placeholder is None or abs(index - target) < abs(self._placeholder - target)


def _announce(arrival: weakref.ref[_Arrival], index: int) -> None:
    receiver = arrival()
    if receiver is not None:
        receiver.arrived.emit(index)


def _whole_frame(key: Any, count: int) -> int | None:
    """Return the frame index if the key selects one whole frame, else None."""
    if not isinstance(key, tuple) or not key or any(part != slice(None) for part in key[1:]):
        return None
    time = key[0]
    if isinstance(time, slice):
        frames = range(*time.indices(count))
        return frames[0] if len(frames) == 1 else None
    return int(time) if isinstance(time, int | np.integer) and 0 <= time < count else None


def _marked(frame: Frame, text: str) -> Frame:
    """Return the frame darkened, with text at its top."""
    marked: Frame = np.right_shift(frame, np.uint8(1))
    size = max(10, frame.shape[0] // 24)
    # drawn on a strip: Pillow would copy the whole frame three times
    strip = np.ascontiguousarray(marked[: 2 * size])
    image = Image.fromarray(strip)
    ImageDraw.Draw(image).text((size, size // 2), text, (255, 255, 255), ImageFont.load_default(size))
    marked[: len(strip)] = np.asarray(image)
    return marked


def _layers_of(shown: ShownVideo) -> list[Any]:
    viewer = napari.current_viewer()
    viewers = {id(v): v for v in [*_viewers, viewer] if v is not None}
    return [layer for v in viewers.values() for layer in v.layers if layer.data is shown]


def know_viewer(viewer: Any) -> None:
    """Also refresh videos in this viewer; the current one is always included."""
    _viewers.add(viewer)


def layer_settings(video: LazyVideo, name: str | None = None) -> dict[str, Any]:
    """Return the settings of a video's Image layer."""
    return {
        "name": for_napari(name or video.name),
        "rgb": True,
        "contrast_limits": (0, 255),
        "multiscale": False,
        "axis_labels": ("t", "y", "x"),
        "cache": False,
    }


def add_video(
    viewer: Any, video: LazyVideo, name: str | None = None, path: str | os.PathLike[str] | None = None
) -> Any:
    """Add a video to a viewer, go to its first frame, and return the Image layer."""
    know_viewer(viewer)
    layer = viewer.add_image(ShownVideo(video, path), **layer_settings(video, name))
    axis = viewer.dims.ndim - 3
    viewer.dims.set_current_step(axis, 0)
    return layer


def video_of(layer: Any) -> LazyVideo | None:
    """Return the exact video behind an Image layer of ours, or None."""
    return layer.data.exact if isinstance(getattr(layer, "data", None), ShownVideo) else None
