"""Frame-exact reading of video files with PyAV."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from napari_samexp.errors import VideoError
from napari_samexp.images import to_rgb8
from napari_samexp.io._av_file import EXPECTED, AvFile, LostPlace
from napari_samexp.io._cache import FrameCache
from napari_samexp.io._indexing import FrameNotWanted, OnWay
from napari_samexp.io._packets import FrameTable, PacketList
from napari_samexp.io._paths import content_digest

__all__ = ["AvSource"]

logger = logging.getLogger(__name__)

# packets; seeking discards what the decoder's threads have begun, so decoding a few frames more costs less
_DETOUR = 8
# no codec reorders over more frames than this, so after as many later ones a missing frame is lost
_PATIENCE = 16
_INTER_IMAGES = (2, 3, 4, 6)  # P, B and S images, made from other frames

Limits = tuple[float, float]


class AvSource:
    """A video file as 8-bit RGB frames.

    Stepping forward continues decoding. Any other step seeks to the last key frame from which the frame can be
    decoded exactly, and caches the frames just before the requested one on the way.

    Parameters
    ----------
    path : Path
    cache_bytes : int
        Memory for decoded frames, cached in the decoder's pixel format, which takes half of RGB or less.
    limits : (low, high), optional
        The values for black and white; by default 0 and 255.

    Raises
    ------
    VideoError
        If the file cannot be opened or no frame of it can be decoded.
    """

    shape: tuple[int, int, int, int]
    times: npt.NDArray[np.float64]
    fps: float | None  # mean frames a second
    _table: FrameTable
    _frame_of: npt.NDArray[np.int64]  # by packet
    _run: Iterator[tuple[int, Any]]  # (index, frame) pairs, being decoded
    _last: int  # the last frame of the run so far, or -1
    _on_way: OnWay | None = None
    _back: int  # how many frames before the requested one are cached
    _size: tuple[int, int]  # stored width and height, before rotation
    _matrix: npt.NDArray[np.int32] | None

    def __init__(self, path: Path, *, cache_bytes: int, limits: Limits | None) -> None:
        self.name = path.name
        self._limits = limits
        self._cache: FrameCache[Any] = FrameCache(cache_bytes)
        # one for all frames: PyAV's default makes one per frame, which lives as long with a thread for each core
        self._converter = VideoReformatter()
        self._file = AvFile(path, "AUTO")
        try:
            self._read_table()
            self._read_first()
        except BaseException:
            self._file.close()
            raise

    @cached_property
    def fingerprint(self) -> str:
        """A hash of parts of the file, and of the sizes and times of all its packets."""
        packets = self._table.packets
        digest = hashlib.sha256(content_digest(self._file.path).encode())
        for column in (packets.sizes, packets.pts[self._table.order]):
            digest.update(column.astype("<i8").tobytes())
        digest.update(f"{self.shape} {self._limits}".encode())
        return digest.hexdigest()

    def frame(self, index: int, on_way: OnWay | None = None) -> npt.NDArray[np.uint8]:
        """Return frame `index`, 0 to T - 1, as a new (Y, X, 3) uint8 array."""
        frame = self._cache.get(index)
        if frame is None:
            self._on_way = on_way
            try:
                frame = self._find(index)
            finally:
                self._on_way = None
        return self._image(index, frame)

    def _image(self, index: int, frame: Any) -> npt.NDArray[np.uint8]:
        if (frame.width, frame.height) != self._size:
            width, height = self._size
            raise VideoError(
                f"Frame {index} of {self.name} is {frame.width} wide and {frame.height} high, but the first "
                f"is {width} wide and {height} high; convert the video to one size.",
                code="video-size-changes",
            )
        rgb24 = self._converter.reformat(frame, format="rgb24", threads=1)
        rgb = _rotated(rgb24.to_ndarray(), self._matrix)
        return np.array(to_rgb8(rgb, self._limits))

    def close(self) -> None:
        """Close the file and drop the cached frames."""
        self._cache.clear()
        self._run = iter(())
        self._file.close()

    def _read_table(self) -> None:
        stream = self._file.stream
        packets = PacketList.of(self._file.packets(), stream.codec_context.name)
        if not packets.shown.any():
            raise self._no_frames()
        self._table = FrameTable.by_time(packets)
        if packets.in_doubt:
            logger.info("%s has no usable timestamps; decoding it to find the order of its frames", self.name)
            decoded = self._file.frames(packets, 0, self._table.seek_times(0))
            self._table = FrameTable.by_decoding(packets, (packet for packet, _ in decoded))

    def _read_first(self) -> None:
        """Decode the first frame; frames before it cannot be decoded, as after a cut in an open GOP."""
        index, frame = self._restart()
        if index:
            logger.warning("%s: its first %d frames cannot be decoded and are left out", self.name, index)
            self._table = self._table.from_frame(index)
            _, frame = self._restart()
        # put back: the first frame has not been requested yet
        self._run = chain([(0, frame)], self._run)
        self._size = frame.width, frame.height
        self._matrix = _display_matrix(frame)
        height, width = _rotated(np.empty((frame.height, frame.width)), self._matrix).shape
        self.shape = (len(self._table), height, width, 3)
        self.times = self._times()
        self.fps = self._mean_rate()
        # frames on the way may take half of the cache, so that a long jump does not flush it
        self._back = self._cache.limit_bytes // _nbytes(frame) // 2

    def _restart(self) -> tuple[int, Any]:
        """Return the index of the first frame that the table as it is now decodes to, and the frame."""
        self._frame_of = self._table.frame_of
        self._decode_from(0)
        first = next(self._run, None)
        if first is None:
            raise self._no_frames()
        return first

    def _no_frames(self) -> VideoError:
        return VideoError(
            f"{self._file.path} has no frame that can be decoded: it is damaged or cut short, or its frames have "
            f"more pixels ({self._file.most_pixels}) than a small file may. Copy it again or convert it; "
            f"expected {EXPECTED}.",
            code="video-unreadable",
        )

    def _times(self) -> npt.NDArray[np.float64]:
        stream = self._file.stream
        rate = stream.average_rate or stream.guessed_rate
        return self._table.times(float(stream.time_base), float(rate) if rate else None)

    def _mean_rate(self) -> float | None:
        rate = float(self._file.stream.average_rate or 0)
        if len(self.times) > 1 and self.times[-1] > 0:
            mean = float((len(self.times) - 1) / self.times[-1])
            # the stated rate is more precise than times, which mkv rounds to milliseconds, but may be wrong
            return rate if abs(rate - mean) < 0.01 * mean else mean
        return rate or None

    def _find(self, index: int) -> Any:
        """Return frame `index` as decoded; `VideoError` if it cannot be."""
        frame = self._advance(index) if self._is_ahead(index) else None
        if frame is None:
            frame = self._seek(index)
        if frame is None and self._file.threads == "AUTO":
            # with frame threading, damage can also lose whole frames that are decoded in parallel
            self._file.close()
            self._file.threads = "SLICE"
            self._file.open()
            frame = self._seek(index)
        if frame is None:
            raise VideoError(
                f"Frame {index} of {self.name} cannot be decoded: its data are damaged. Copy the file again.",
                code="video-unreadable",
            )
        return frame

    def _is_ahead(self, index: int) -> bool:
        start = self._table.start_for(index)
        return start is not None and index > self._last and start <= self._file.fed + _DETOUR

    def _seek(self, index: int) -> Any:
        """Return frame `index`, decoding from the key frame before it, or failing that from the one before."""
        before = None
        while (start := self._table.start_for(index, before=before)) is not None:
            if self._decode_from(start):
                frame = self._advance(index)
                if frame is not None or before is not None:
                    return frame
                before = start
        return None

    def _decode_from(self, start: int) -> bool:
        """Start decoding at packet `start`; return False, and drop it from the key frames, if that is impossible."""
        table, frame_of = self._table, self._frame_of
        self._run = iter(())
        decoded = self._file.frames(table.packets, start, table.seek_times(start))
        # frames stored after a key frame but shown before it may lack their references
        usable = ((p, frame) for p, frame in decoded if start == 0 or table.clock[p] >= table.clock[start])
        self._last = -1
        try:
            first = list(islice(usable, 1))
        except LostPlace:
            self._table = table.with_one_key()
            return start == 0
        if start and table.packets.shown[start] and not (first and _stands_alone(first[0], start)):
            self._table = table.without_key(start)
            return False
        self._run = ((int(frame_of[p]), frame) for p, frame in chain(first, usable) if frame_of[p] >= 0)
        return True

    def _advance(self, index: int) -> Any:
        """Return frame `index` by continuing to decode, or None if it does not come."""
        try:
            for passed, frame in self._run:
                self._last = passed
                if passed > index - self._back or passed == index:
                    self._cache.put(passed, frame, _nbytes(frame))
                if passed == index:
                    return frame
                if passed > index + _PATIENCE:
                    break
                if self._on_way is not None and not self._on_way(passed, partial(self._image, passed, frame)):
                    raise FrameNotWanted(f"Frame {index} of {self.name} was given up on request.")
        except LostPlace:
            self._table = self._table.with_one_key()
        return None


def _stands_alone(decoded: tuple[int, Any], start: int) -> bool:
    """Whether the first decoded frame is that of packet `start` and needs no other frames.

    A file may also mark as key frames places from which the image recovers bit by bit (intra refresh).
    """
    packet, frame = decoded
    return packet == start and (frame.key_frame or int(frame.pict_type) not in _INTER_IMAGES)


def _nbytes(frame: Any) -> int:
    return sum(plane.buffer_size for plane in frame.planes)


def _display_matrix(frame: Any) -> npt.NDArray[np.int32] | None:
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV has no name for some kinds of side data, such as EXIF, and then lists none
        return None
    return None if data is None else np.frombuffer(bytes(data), np.int32).reshape(3, 3)


def _rotated(image: npt.NDArray[Any], matrix: npt.NDArray[np.int32] | None) -> npt.NDArray[Any]:
    """Return an image rotated and mirrored as a player shows it, by the display matrix that cameras store.

    The matrix maps (x, y) to (a x + c y, b x + d y), with a, b in its first row and c, d in its second.
    """
    if matrix is None:
        return image
    (a, b), (c, d) = matrix[:2, :2].tolist()
    if abs(b) > abs(a):
        image, a, d = np.swapaxes(image, 0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
