"""Small videos whose headers claim very much: samples, edits, fragments, tracks, pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av

_MATRIX = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_TABLE = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return numbers(8 + len(content)) + kind + content


def full(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, numbers(version << 24 | flags), *parts)


def table(count: int, each: int = 1, chunks: int = 1, sizes: bytes = b"", step: int = 1) -> bytes:
    """Return a sample table of `count` samples, of one byte each unless `sizes` has their sizes."""
    raw = bytes(6) + struct.pack(">H", 1) + bytes(16) + struct.pack(">HH", 64, 48)
    raw += numbers(0x480000, 0x480000, 0) + struct.pack(">H", 1) + bytes(32) + struct.pack(">Hh", 24, -1)
    return box(
        b"stbl",
        full(b"stsd", numbers(1), box(b"raw ", raw)),
        full(b"stts", numbers(1, count, step)),
        full(b"stsc", numbers(1, 1, each, 1)),
        full(b"stsz", numbers(0 if sizes else 1, count), sizes),
        full(b"stco", numbers(chunks), numbers(48) * chunks),
    )


def track(samples: bytes, number: int = 1, more: bytes = b"", handler: bytes = b"vide") -> bytes:
    shown = numbers(0, 0, number, 0, 1000, 0, 0, 0, 0) + _MATRIX + numbers(64 << 16, 48 << 16)
    head = full(b"mdhd", numbers(0, 0, 1000, 1000), struct.pack(">HH", 0x55C4, 0))
    media = box(
        b"mdia", head, full(b"hdlr", numbers(0), handler, bytes(13)),
        box(b"minf", full(b"vmhd", bytes(8)), samples),
    )  # fmt: skip
    return box(b"trak", full(b"tkhd", shown, flags=7), more, media)


def header(*tracks: bytes) -> bytes:
    movie = numbers(0, 0, 1000, 1000, 1 << 16, 1 << 24, 0, 0) + _MATRIX + bytes(24) + numbers(2)
    return box(b"moov", full(b"mvhd", movie), *tracks)


def mp4(*boxes: bytes, data: int = 100_000) -> bytes:
    kind = box(b"ftyp", b"isom", numbers(512), b"isomiso2mp41")
    return kind + box(b"mdat", bytes(data)) + b"".join(boxes)


def fragmented(fragments: bytes, tracks: int = 1) -> bytes:
    known = b"".join(track(table(0), number + 1) for number in range(tracks))
    defaults = box(b"mvex", *(full(b"trex", numbers(n + 1, 1, 1, 1, 0)) for n in range(tracks)))
    return mp4(header(known, defaults), fragments)


def fragment(samples: int) -> bytes:
    parts = (
        full(b"tfhd", numbers(1), flags=0x20000) + full(b"tfdt", numbers(0)) + full(b"trun", numbers(samples))
    )
    return box(b"moof", full(b"mfhd", numbers(1)), box(b"traf", parts))


@cache
def encoded(codec: str, side: int = 64, pixels: str = "yuv420p", kind: str = "mp4", count: int = 6) -> bytes:
    """Return a black video."""
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {"preset": "ultrafast"}
    with TemporaryDirectory() as folder:
        path = Path(folder, f"a.{kind}")
        with av.open(str(path), "w") as file:
            stream: Any = file.add_stream(codec, rate=25, options=options if codec.startswith("libx") else {})
            stream.height = stream.width = side
            stream.pix_fmt = pixels
            frame = av.VideoFrame(side, side, pixels)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            for number in range(count):
                frame.pts = number
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        return path.read_bytes()


def grown(data: bytes, path: tuple[bytes, ...], more: bytes) -> bytes:
    """Return an MP4 with boxes put at the end of the box at `path`, the last of which lies behind its frames."""
    out, place, places = bytearray(data), 0, []
    for kind in path:
        while data[place + 4 : place + 8] != kind:
            place += int.from_bytes(data[place : place + 4], "big")
        places.append(place)
        place += 8
    end = places[-1] + int.from_bytes(data[places[-1] : places[-1] + 4], "big")
    for place in places:
        length = int.from_bytes(data[place : place + 4], "big")
        out[place : place + 4] = numbers(length + len(more))
    out[end:end] = more
    return bytes(out)


def edits(count: int, length: int = 60_000) -> bytes:
    return box(b"edts", full(b"elst", numbers(count), numbers(length, 0, 1 << 16) * count))


def _grouped(samples: int, *more: bytes) -> bytes:
    groups = full(b"sgpd", b"sync", numbers(1, 1), b"\x15", version=1)
    groups += full(b"sbgp", b"sync", numbers(1), numbers(samples, 1))
    return grown(encoded("libx265"), _TABLE, groups + b"".join(more))


def _packed() -> bytes:
    count = 80_000_000
    content = header(track(table(count, count, sizes=bytes(4 * count))))
    packed = box(b"cmvd", numbers(len(content)), zlib.compress(content))
    return mp4(box(b"moov", box(b"cmov", box(b"dcom", b"zlib"), packed)), data=1000)


def _backwards() -> bytes:
    """Index boxes of fragments, each before the one before."""
    rows = numbers(1, 1, 0) * 15_000
    return b"".join(
        full(b"sidx", numbers(1, 1000, 0, 0x7FFFFFFF - 70_000 * n), struct.pack(">HH", 0, 15_000), rows)
        for n in range(4)
    )


def _gif(side: int) -> bytes:
    image = b"\x21\xf9\x04\0\x0a\0\0\0,\0\0\0\0\1\0\1\0\0\x02\x02D\x01\0"
    return b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\0\0\0\0\0\xff\xff\xff" + image * 4 + b";"


# each is refused; the name's last word is the file's ending
CLAIMS: dict[str, Callable[[], bytes]] = {
    "80 million samples of one byte mp4": lambda: mp4(header(track(table(80_000_000, 80_000_000))), data=232_000),
    "80 million samples in chunks over each other mp4": lambda: mp4(header(track(table(80_000_000, 20_000, 4000)))),
    "a sound of 100 million samples mp4": lambda: mp4(
        header(track(table(100_000_000, 100_000_000, step=2), handler=b"soun"))
    ),
    "a sound of chunks without end mp4": lambda: mp4(
        header(track(table(10_000, 0x7FFFFFFF, 60), handler=b"soun"))
    ),
    "2000 edits of 60,000 samples mp4": lambda: mp4(header(track(table(60_000, 60_000), more=edits(2000)))),
    "20,000 edits of a sound video mp4": lambda: grown(encoded("libx264"), (b"moov", b"trak"), edits(20_000)),
    "a fragment of 100 million samples mp4": lambda: fragmented(fragment(100_000_000)),
    "a hundred fragments of a million mp4": lambda: fragmented(fragment(1_000_000) * 100),
    "20,000 fragments of 900 tracks mp4": lambda: fragmented(box(b"moof") * 20_000, 900),
    "60,000 fragments in an index mp4": lambda: fragmented(_backwards()),
    "a group of 300 million samples mp4": lambda: _grouped(300_000_000),
    "shifts of 500 million samples mp4": lambda: _grouped(6, full(b"ctts", numbers(1, 500_000_000, 1))),
    "a packed header of 320 MB mov": _packed,
    "a header marked as free mp4": lambda: mp4(
        box(b"free", header(track(table(80_000_000, 80_000_000)))[8:])
    ),
    "999 tracks mp4": lambda: mp4(header(*(track(table(1), n + 1) for n in range(999)))),
    "16,000 x 16,000 gif": lambda: _gif(16_000),
    "4608 x 4608 mkv": lambda: encoded("libx264", 4608, kind="mkv", count=2),
    "5000 x 5000 mov": lambda: encoded("png", 5000, "rgb24", "mov", 1),
}  # fmt: skip


def write_claim(name: str, folder: Path) -> Path:
    """Write the video of this name into a folder, and return its path."""
    path = folder / f"lock.{name.split()[-1]}"
    path.write_bytes(CLAIMS[name]())
    return path
