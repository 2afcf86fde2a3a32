"""H.264 videos written frame by frame: whole under their name, or not there at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

from napari_samexp.errors import VideoError
from napari_samexp.io.atomic import absolute_path, os_errors_as_store_errors, partial_file

__all__ = ["write_mp4"]

DEFAULT_FPS = 10.0
ENCODER = "libx264"
_FPS_LIMITS = (0.1, 240.0)
# Say which colours the numbers mean: without a word, players guess by the image's size
_COLOURS = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv")
_TO_COLOURS = ("-vf", "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd")

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
    with os_errors_as_store_errors("write the video", target), partial_file(target) as partial:
        partial.touch()  # FFmpeg would not say why it cannot
        written = _encode(partial, iter(frames), _rate(fps), quality)
        if not partial.stat().st_size:
            raise VideoError(
                f"{target} cannot be encoded as H.264; see that FFmpeg has libx264 and the disk has room."
            )
        _require_whole(partial, written)


def _encode(path: Path, frames: Iterator[RgbImage], rate: Fraction, quality: int) -> int:
    """Have FFmpeg encode the frames, and return how many there were."""
    first = next(frames, None)
    if first is None:
        raise VideoError("There is no frame to write as a video; give at least one.")
    height, width = _even(first).shape[:2]
    options = ("-crf", str(quality), "-preset", "veryfast", "-movflags", "+faststart", "-f", "mp4")
    encoder = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=float(rate), codec=ENCODER, quality=None, macro_block_size=2,
        ffmpeg_log_level="quiet", input_params=["-r", str(rate)], output_params=[*_TO_COLOURS, *_COLOURS, *options],
    )  # fmt: skip
    count = 0
    with closing(encoder):
        encoder.send(None)
        for frame in chain((first,), frames):
            _require_size(frame, first.shape)
            count += 1
            try:
                encoder.send(np.ascontiguousarray(_even(frame)))
            except OSError:  # FFmpeg is gone; what it has written tells more
                break
    return count


def _require_whole(path: Path, count: int) -> None:
    """Raise `OSError` unless a video has `count` frames: FFmpeg's process does not say that a disk was full."""
    try:
        with av.open(str(path)) as container:
            found = sum(packet.size > 0 for packet in container.demux(video=0))
    except av.error.InvalidDataError:
        found = 0
    if found != count:
        raise OSError(errno.EIO, f"{found} of {count} frames could be written")


def _require_size(frame: RgbImage, shape: tuple[int, ...]) -> None:
    if frame.shape != shape:
        raise VideoError(f"A frame has shape {frame.shape}, but the first {shape}; give one size.")


def _even(frame: RgbImage) -> RgbImage:
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _rate(fps: float | None) -> Fraction:
    low, high = _FPS_LIMITS
    return Fraction(min(max(fps or DEFAULT_FPS, low), high)).limit_denominator(1001)
