"""Compare what a video file claims to contain with its size, before FFmpeg allocates memory for it.

FFmpeg builds the whole index of an MP4 when it opens one: 24 to 80 bytes for every sample that the header claims,
times each edit of an edit list. A file of kilobytes can claim a hundred million samples. In the other containers
that we open, claims are limited by the size of the file; their packets are counted while they are read.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import VideoError

__all__ = ["most_packets", "most_pixels", "plausible_size"]

_ALWAYS = 100_000  # of anything: harmless, whatever the file's size
_FEWEST_BYTES = 4  # of the file for each frame: its index entry alone takes as many
_SAMPLES_TOGETHER = 160  # samples of uncompressed audio that share an entry of FFmpeg's index, at least
_FRAGMENT_BYTES = 128  # of the file for each fragment
_FRAGMENTS_ALWAYS = 20_000
_MOST_HEADER = 1 << 28  # bytes; a file with a longer header is not small
_MOST_UNPACKED = 1 << 26  # bytes of a compressed QuickTime header
_PIXELS_ALWAYS = 17_000_000  # 4096 x 4096, of which a decoder may hold 17 frames
_RATIO = 100  # bytes of a decoded frame for each byte of the file, as for images

_BOXES = re.compile(b"trak|hdlr|stsz|stz2|stsc|stco|co64|stts|ctts|sbgp|elst|sidx|trun|cmvd")
_NO_HEADERS = (b"mdat", b"free", b"skip")

UInts = npt.NDArray[np.uint32]


def most_packets(size: int) -> int:
    """Return how many packets a file of `size` bytes can contain."""
    return max(_ALWAYS, size // _FEWEST_BYTES)


def most_pixels(size: int) -> int:
    """Return how many pixels a frame in a file of `size` bytes may have."""
    return max(_PIXELS_ALWAYS, size * _RATIO // 3)


def plausible_size(path: Path) -> int:
    """Return the size of a file in bytes, if it can contain what its headers claim.

    Files other than MP4 and MOV have no such headers, and pass.

    Raises
    ------
    VideoError
        If the headers claim more, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            found = _Claims(os.fstat(file.fileno()).st_size)
            for kind, header in _headers(file, found.size):
                found.read(kind, header)
            found.check()
            return found.size
    except _TooMuch as claim:
        raise VideoError(
            f"{path} claims {claim}, more than a file of {found.size} bytes can hold: it is damaged or was "
            "made to do harm. Copy it again or convert it again from its source."
        ) from None
    except OSError as error:
        raise VideoError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error


class _TooMuch(Exception):
    """A claim that the file is too small for, in words."""


class _Box(NamedTuple):
    """A box of a header: its type and its content."""

    kind: bytes
    content: memoryview


def _headers(file: BinaryIO, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the top-level boxes of an MP4 except those of media data; of other files, almost nothing."""
    place = 0
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:
            length = size - place
        if length < 8:
            return
        # FFmpeg also reads a header that is marked as free space
        if (kind.isalnum() and kind not in _NO_HEADERS) or head[12:16] in (b"mvhd", b"cmov"):
            file.seek(place)
            yield kind, file.read(min(length, size - place, _MOST_HEADER))
        place += length


def _boxes(header: bytes) -> Iterator[_Box]:
    """Yield the boxes that count something, at any depth.

    They are found by searching for their names: the tables of a header hold small numbers and offsets, whose
    bytes are not such letters.
    """
    view = memoryview(header)
    for found in _BOXES.finditer(header):
        start, place = found.start() - 4, found.end()
        length = int.from_bytes(header[max(0, start) : start + 4], "big")
        if length == 1:
            length, place = int.from_bytes(header[place : place + 8], "big"), place + 8
        yield _Box(found[0], view[place : start + length if length else len(view)])


class _Track:
    """What the boxes of a track claim together; of repeated boxes, the larger counts."""

    def __init__(self) -> None:
        self.samples = self.chunks = self.edits = self.runs = 0
        self.chunk_runs: list[UInts] = []
        self.handlers: set[bytes] = set()
        self.uniform = True  # all samples have one duration, as in uncompressed audio

    def read(self, box: _Box) -> None:
        content = box.content
        if box.kind == b"hdlr":
            self.handlers.add(bytes(content[8:12]))
        elif box.kind in (b"stsz", b"stz2"):
            self.samples = max(self.samples, _number(content, 8))
        elif box.kind == b"stsc":
            self.chunk_runs.append(_table(content, 4, 3))
        elif box.kind in (b"stco", b"co64"):
            self.chunks = max(self.chunks, len(_table(content, 4, 1 if box.kind == b"stco" else 2)))
        elif box.kind == b"elst":
            self.edits = max(self.edits, (len(content) - 8) // (20 if _version(content) == 1 else 12))
        elif box.kind in (b"stts", b"ctts"):
            counts = _table(content, 4, 2)
            self.uniform &= box.kind == b"stts" and len(counts) == 1 and counts[0, 1] == 1
            self.runs = max(self.runs, int(counts[:, 0].sum(dtype=np.int64)))
        elif box.kind == b"sbgp":
            counts = _table(content, 12 if _version(content) == 1 else 8, 2)
            self.runs = max(self.runs, int(counts[:, 0].sum(dtype=np.int64)))

    def check(self, size: int) -> None:
        """Raise `_TooMuch` if FFmpeg's index would have more entries than the file has room for."""
        sound = b"soun" in self.handlers and b"vide" not in self.handlers
        room = max(_ALWAYS, size if sound else size // _FEWEST_BYTES)
        together = _SAMPLES_TOGETHER if sound and self.uniform else 1
        for count in (self.samples, self.runs):
            if count > room * together:
                raise _TooMuch(f"{count} samples in one track")
        in_chunks = max((_samples_in_chunks(runs, self.chunks) for runs in self.chunk_runs), default=0)
        if in_chunks > max(_ALWAYS, size) * _SAMPLES_TOGETHER:
            raise _TooMuch(f"{in_chunks} samples in the chunks of one track")
        if self.samples * self.edits > room * together:
            raise _TooMuch(f"{self.edits} edits of {self.samples} samples")


class _Claims:
    """What all headers of a file claim together."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.tracks: list[_Track] = []
        self.fragments = self.samples = 0

    def read(self, kind: bytes, header: bytes) -> None:
        self.fragments += kind == b"moof"
        for box in _boxes(header):
            if box.kind == b"trak" or not self.tracks:
                self.tracks.append(_Track())
            if box.kind == b"sidx":
                self.fragments += len(_table(box.content, 22 + 8 * (_version(box.content) == 1), 3))
            elif box.kind == b"trun":
                self.samples += _number(box.content, 4)
            elif box.kind == b"cmvd":
                self.read(b"moov", _unpacked(box.content[4:]))
            else:
                self.tracks[-1].read(box)

    def check(self) -> None:
        for track in self.tracks:
            track.check(self.size)
        if self.samples > max(_ALWAYS, self.size):
            raise _TooMuch(f"{self.samples} samples in its fragments")
        most = max(_FRAGMENTS_ALWAYS, self.size // _FRAGMENT_BYTES)
        # FFmpeg has an entry for every track in every fragment, present or not
        if self.fragments > most or self.fragments * len(self.tracks) > max(10 * _ALWAYS, self.size):
            raise _TooMuch(f"{self.fragments} fragments of {len(self.tracks)} tracks")


def _version(content: memoryview) -> int:
    return int(content[0]) if len(content) else 0


def _number(content: memoryview, place: int) -> int:
    return int.from_bytes(content[place : place + 4], "big")


def _table(content: memoryview, place: int, columns: int) -> UInts:
    """Return a table of 32-bit integers whose row count is at `place`, as far as there is data."""
    rows = min(_number(content, place), max(0, len(content) - place - 4) // (4 * columns))
    values = np.frombuffer(content, ">u4", rows * columns, min(place + 4, len(content)))
    return values.reshape(rows, columns).astype(np.uint32)


def _samples_in_chunks(runs: UInts, chunks: int) -> int:
    """Return the number of samples in `chunks` chunks, from runs of (first chunk, samples each, description)."""
    first, each = runs[:, 0].astype(np.float64), runs[:, 1].astype(np.float64)
    return int((np.abs(np.diff(first, append=chunks + 1.0)) * each).sum())


def _unpacked(packed: memoryview) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        header = unpacker.decompress(packed, _MOST_UNPACKED)
    except zlib.error:  # FFmpeg will report it
        return b""
    if unpacker.unconsumed_tail:
        raise _TooMuch(f"a header of more than {_MOST_UNPACKED >> 20} MB in {len(packed)} bytes")
    return header
