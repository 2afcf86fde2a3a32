"""H.264 videos written frame by frame: whole under their name, or not there at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.codec.codec import UnknownCodecError
from av.video.reformatter import ColorRange, Colorspace

from napari_samexp.errors import VideoError
from napari_samexp.io.atomic import absolute_path, os_errors_as_store_errors, partial_file

__all__ = ["write_mp4"]

DEFAULT_FPS = 10.0
ENCODER = "libx264"
_BT709 = 1  # the code for primaries and transfer alike in ITU-T H.273
_FPS_LIMITS = (0.1, 240.0)

RgbImage = npt.NDArray[np.uint8]


def write_mp4(
    path: str | os.PathLike[str], frames: Iterable[RgbImage], fps: float | None = None, *, quality: int = 20
) -> None:
    """Write frames as an MP4 that every player and browser shows (H.264, 4:2:0).

    Only one frame is held at a time. A file at `path` is replaced once the new one is complete. Odd
    widths and heights, which 4:2:0 cannot have, get one more row or column, a copy of the last.

    Parameters
    ----------
    path : path
    frames : iterable of arrays, shape (H, W, 3), uint8 RGB
        At least one, all of one size.
    fps : float, optional
        Frames a second, by default 10.
    quality : int
        x264's constant rate factor, 0 (exact) to 51; each 6 more halve the file.

    Raises
    ------
    StoreError
        If the file cannot be written.
    VideoError
        If there is no frame or they cannot be encoded.
    """
    target = absolute_path(path)
    # FFmpeg's own errors are OSErrors too where they have an errno, so a full disk ends up here as well
    with os_errors_as_store_errors("write the video", target), partial_file(target) as partial:
        try:
            _encode(partial, iter(frames), _rate(fps), quality)
        except (av.error.FFmpegError, UnknownCodecError) as error:
            if isinstance(error, OSError):
                raise
            reason = f"cannot be encoded as H.264 ({error}); see that PyAV has libx264"
            raise VideoError(f"{target} {reason}.") from error


def _encode(path: Path, frames: Iterator[RgbImage], rate: Fraction, quality: int) -> None:
    first = next(frames, None)
    if first is None:
        raise VideoError("There is no frame to write as a video; give at least one.")
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        options = {"crf": str(quality), "preset": "veryfast"}
        stream: Any = container.add_stream(ENCODER, rate=rate, options=options)
        stream.height, stream.width = (side + side % 2 for side in first.shape[:2])
        stream.pix_fmt = "yuv420p"
        _tag_colours(stream.codec_context)
        container.mux(stream.encode(_frame(first)))
        for image in frames:
            _require_size(image, first.shape)
            container.mux(stream.encode(_frame(image)))
        container.mux(stream.encode(None))


def _require_size(image: RgbImage, shape: tuple[int, ...]) -> None:
    if image.shape != shape:
        raise VideoError(f"A frame has shape {image.shape}, but the first {shape}; give one size.")


def _tag_colours(codec: Any) -> None:
    """Say which colours the numbers mean: without a word, players guess by the image's size."""
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
    codec.color_range = ColorRange.MPEG


def _frame(image: RgbImage) -> av.VideoFrame:
    height, width = image.shape[:2]
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)


def _rate(fps: float | None) -> Fraction:
    low, high = _FPS_LIMITS
    return Fraction(min(max(fps or DEFAULT_FPS, low), high)).limit_denominator(1001)
