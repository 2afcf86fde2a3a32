"""An open video file as PyAV sees it: packets, and the frames that they decode to."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import av.error
from av.stream import Disposition

from napari_samexp.errors import VideoError
from napari_samexp.io._packets import NO_TIME, PacketList
from napari_samexp.io._video_claims import most_packets, most_pixels, plausible_size

__all__ = ["EXPECTED", "AvFile", "Decoded", "LostPlace"]

logger = logging.getLogger(__name__)

EXPECTED = "mp4, mov, avi, mkv, webm or gif"

# FFmpeg would also open text files, and playlists that name other files; audio is opened to say that it is audio
FORMATS = (
    "3g2,3gp,aac,apng,asf,avi,dv,flac,flv,gif,h264,hevc,ivf,m4a,m4v,matroska,mj2,mov,mp3,mp4,mpeg,mpegts,"
    "mpegvideo,mxf,nut,ogg,rm,wav,webm,wtv,yuv4mpegpipe"
)

_MOST_STREAMS = 100
_THREAD_BYTES = 1 << 29  # for the frames that threads decode at the same time

Decoded = Iterator[tuple[int, Any]]


class LostPlace(VideoError):
    """The packets are not those of the table: a seek went wrong, or the file was changed."""


class AvFile:
    """An open video file: packets, and the frames that they decode to, from any packet on.

    Parameters
    ----------
    path : Path
    threads : {"AUTO", "SLICE"}
        Whether several frames may be decoded at once, or only slices of one.

    Attributes
    ----------
    fed : int
        The packet that was last sent to the decoder.
    most_pixels : int
        Limit for a frame, which grows with the size of the file.

    Raises
    ------
    VideoError
        If the file cannot be opened or has no video.
    """

    def __init__(self, path: Path, threads: str) -> None:
        self.path = path
        self.threads = threads
        self.fed = -1
        self.stream: Any = None
        self._size = plausible_size(path)
        self.most_pixels = most_pixels(self._size)
        self.open()

    def open(self) -> None:
        """Open the file, at its beginning."""
        options = {
            "protocol_whitelist": "file",
            "format_whitelist": FORMATS,
            "max_streams": str(_MOST_STREAMS),
            "max_pixels": str(self.most_pixels),
        }
        try:
            self.container = _opened(self.path, options)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(
                f"{self.path} cannot be opened as a video ({_reason(error)}): it is damaged, cut short or "
                f"something else. Copy it again or convert it; expected {EXPECTED}.",
                code="video-unreadable",
            ) from error
        try:
            self.stream = self._video_stream()
            self._require_small_frames()
        except VideoError:
            self.close()
            raise
        self._set_decoder()

    def _require_small_frames(self) -> None:
        width, height, pixels = self.stream.width, self.stream.height, self.stream.codec_context.format
        bits = 24 if pixels is None else max(24, pixels.padded_bits_per_pixel)
        if width * height * bits > 24 * self.most_pixels:
            raise VideoError(
                f"{self.path} has frames {width} wide and {height} high of {bits} bits a pixel, too large for a "
                f"file of {self._size} bytes: it is damaged or malicious; make its frames smaller."
            )

    def _set_decoder(self) -> None:
        codec = self.stream.codec_context
        codec.options = {"max_pixels": str(self.most_pixels)}
        codec.thread_type = self.threads
        # each thread holds a frame, so large frames would take more memory, the more cores there are
        room = _THREAD_BYTES // max(1, 2 * self.stream.width * self.stream.height)
        if room <= (os.cpu_count() or 1):
            codec.thread_count = max(1, room)

    def _video_stream(self) -> Any:
        # the cover of a song is a video stream too
        streams: list[Any] = list(self.container.streams)
        images = [s for s in streams if s.type == "video" and not s.disposition & Disposition.attached_pic]
        if not images:
            kinds = " and ".join(sorted({stream.type for stream in streams})) or "nothing"
            raise VideoError(
                f"{self.path} has no video, only {kinds}; give {EXPECTED} with images.",
                code="video-unreadable",
            )
        if images[0].codec_context is None:
            raise VideoError(f"FFmpeg does not know how {self.path} is coded; convert it to H.264 mp4.")
        return max(images, key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height))

    def close(self) -> None:
        """Close the file and its decoder, whose threads live as long as the stream; `open` opens it again."""
        self.container.close()
        self.stream = None

    def packets(self) -> Iterator[Any]:
        """Yield the packets from the current position up to the end, or to damage that hides the rest."""
        most = most_packets(self._size)
        try:
            for number, packet in enumerate(self.container.demux(self.stream)):
                if number > most:
                    raise self._too_many(most)
                if packet.size:  # an empty packet would end the decoder's stream
                    yield packet
        except av.error.FFmpegError as error:
            logger.warning("%s cannot be read to its end: %s", self.path, _reason(error))

    def _too_many(self, most: int) -> VideoError:
        return VideoError(
            f"{self.path} claims more than {most} frames, in a file of {self._size} bytes: it is "
            "damaged or was made to do harm. Copy it again or convert it anew from its source."
        )

    def frames(self, packets: PacketList, start: int, sought: Iterator[int]) -> Decoded:
        """Yield (packet, frame) in presentation order, decoding from packet `start` on.

        Each packet's time is replaced by its position in the file, which decoders pass on to the frame.
        """
        self.fed = start - 1
        for place, packet in enumerate(self._packets_from(packets, start, sought), start):
            if place >= len(packets.pts) or _pts(packet) != packets.pts[place]:
                raise LostPlace(f"{self.path} was changed while it was open; open it again.")
            self.fed = place
            if not packet.is_corrupt:
                packet.pts = place
                yield from self._decode(packet)
        yield from self._decode(None)

    def _packets_from(self, packets: PacketList, start: int, sought: Iterator[int]) -> Iterator[Any]:
        for time in sought:
            try:
                self.container.seek(time, stream=self.stream)
            except (av.error.FFmpegError, AssertionError):  # not seekable, or could not be opened again
                break
            found = self.packets()
            first = next(found, None)
            landed = None if first is None else packets.key_places.get(_pts(first))
            if landed is not None and landed <= start:
                return islice(chain([first], found), start - landed, None)
        self.close()
        self.open()
        return islice(self.packets(), start, None)

    def _decode(self, packet: Any) -> Decoded:
        try:
            frames = self.stream.codec_context.decode(packet)
        except av.error.FFmpegError as error:  # one damaged packet; later ones may be intact
            logger.debug("%s: a packet cannot be decoded: %s", self.path, _reason(error))
            return
        yield from ((frame.pts, frame) for frame in frames if frame.pts is not None)


def _opened(path: Path, options: dict[str, str]) -> Any:
    try:
        return av.open(str(path), "r", options=options, metadata_errors="replace")
    except TypeError:  # PyAV 19 has no such setting
        return av.open(str(path), "r", options=options)


def _pts(packet: Any) -> int:
    return NO_TIME if packet.pts is None else int(packet.pts)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
