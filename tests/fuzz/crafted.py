"""Small files made by hand to cost much: each lies about its size or its count, or names another file.

    python -m tests.fuzz.crafted [NAME...]

Without names, all of them. Each is opened in a process of its own under the limits of `guard`: one
sentence or an image, in 10 s of a processor and 1 GB at most. Prints what came of each with its time and memory;
exit status 1 if any was wrong.
"""

from __future__ import annotations

import io
import os
import struct
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np
import tifffile
from PIL import Image

from napari_samexp.errors import SamexpError
from napari_samexp.io.image import image_size, read_image
from napari_samexp.io.video import open_video
from napari_samexp.measure.masks import open_masks
from tests.fuzz.guard import Case, run_all

OME = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
FRAME = np.zeros((48, 64), np.uint8)
SECRET = np.full((48, 64), 99, np.uint8)  # in files that are only named

Make = Callable[[Path], Path]  # from a folder to the file in it that is opened


def png(width: int, height: int, depth: int, colour: int, rows: bytes, more: bytes = b"") -> bytes:
    """Return a PNG file of packed rows, with more chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (png_chunk(b"IHDR", header), more, png_chunk(b"IDAT", rows), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(count: int) -> bytes:
    """Return `count` zeros as zlib packs them, of which a block is packed once and repeated."""
    packer, last = (zlib.compressobj(9, zlib.DEFLATED, -15) for _ in range(2))
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = last.compress(bytes(count & ((1 << 20) - 1))) + last.flush()
    checksum = count % 65521 << 16 | 1  # Adler-32 of zeros
    return b"\x78\xda" + block * (count >> 20) + rest + struct.pack(">I", checksum)


# ---- TIFF


def described(text: str, pages: int = 1, name: str = "a.tif") -> Make:
    """A TIFF of small pages, with a description of its own."""

    def make(folder: Path) -> Path:
        with tifffile.TiffWriter(folder / name) as file:
            for number in range(pages):
                file.write(FRAME, description=text if not number else None, metadata=None, contiguous=False)
        return folder / name

    return make


def ome(
    data: str = "", sizes: str = "", root: str = "", order: str = "XYZCT", more: str = "", pages: int = 1
) -> Make:
    """An OME-TIFF whose description says any sizes and any data."""
    given = dict(part.split("=") for part in sizes.split())
    counts = {"SizeX": "64", "SizeY": "48", "SizeZ": "1", "SizeC": "1", "SizeT": "1"} | given
    said = " ".join(f'{name}="{count}"' for name, count in counts.items())
    text = (
        f'<?xml version="1.0"?><OME {OME} {root}><Image ID="a"><Pixels ID="b" DimensionOrder="{order}" {said} '
        f'Type="uint8">{data}</Pixels></Image>{more}</OME>'
    )
    return described(text, pages, "a.ome.tif")


def names_file(named: str, others: int = 1) -> Make:
    """An OME-TIFF whose images are in other files, one of which is there, and one of which is a pipe."""
    data = "".join(
        f'<TiffData IFD="0" FirstT="{n}" PlaneCount="1"><UUID FileName="{named}">urn:uuid:{n}</UUID></TiffData>'
        for n in range(others)
    )

    def make(folder: Path) -> Path:
        inner = folder / "inner"
        inner.mkdir(exist_ok=True)
        tifffile.imwrite(folder / "other.tif", SECRET)
        for place in (folder, inner):
            os.mkfifo(place / "pipe.tif")
        return ome(data.replace("ABSOLUTE", str(folder)), f"SizeT={others}")(inner)

    return make


def modulo(ends: str) -> str:
    return (
        f'<StructuredAnnotations><XMLAnnotation ID="c" Namespace="openmicroscopy.org/omero/dimension/modulo"><Value>'
        f'<Modulo><ModuloAlongT Type="lifetime" Start="0" Step="1" End="{ends}"/></Modulo></Value></XMLAnnotation>'
        "</StructuredAnnotations>"
    )


def directories(
    count: int, entries: bytes = b"", number: int = 0, loop: bool = False, tail: bytes = b""
) -> bytes:
    """Return a TIFF of directories that all have the same entries, one after the other."""
    each = 2 + len(entries) + 4
    parts = [b"II*\0" + struct.pack("<I", 8)]
    for index in range(count):
        following = 8 + (index + 1) * each if index + 1 < count else 8 if loop else 0
        parts.append(struct.pack("<H", number) + entries + struct.pack("<I", following))
    return b"".join(parts) + tail


def entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


def page_entries(strips: int, offsets: int, counts: int) -> bytes:
    """Return the entries of a grey image of as many rows as strips."""
    fields = ((256, 4, 1, 1), (257, 4, 1, strips), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1))
    more = ((273, 4, strips, offsets), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, strips, counts))
    return b"".join(entry(*field) for field in (*fields, *more))


def written(name: str, data: Callable[[], bytes]) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data())
        return folder / name

    return make


def shared_strips() -> bytes:
    """A thousand images, each of which reads the same 20,000 offsets."""
    strips, pages = 20_000, 1000
    start = 8 + pages * (2 + 9 * 12 + 4)
    tail = struct.pack("<I", start) * strips + struct.pack("<I", 1) * strips
    return directories(pages, page_entries(strips, start, start + 4 * strips), 9, tail=tail)


def branching() -> bytes:
    """Directories that each list the one after twice as their own, so that there are 2^n ways through them."""
    levels = 40
    each = 2 + 10 * 12 + 4 + 8
    data = b"II*\0" + struct.pack("<I", 8)
    for level in range(levels):
        place = 8 + level * each
        after = place + each if level + 1 < levels else 8
        fields = page_entries(1, 8, 1) + entry(330, 4, 2, place + each - 8)
        data += struct.pack("<H", 10) + fields + struct.pack("<I", 0) + struct.pack("<II", after, after)
    return data


def two_widths() -> bytes:
    """An LZW image that is 64 wide for a reader of its first entries and 60,000 for one of its last."""
    data = io.BytesIO()
    Image.fromarray(FRAME).save(data, "TIFF", compression="tiff_lzw")
    whole = data.getvalue()
    start = struct.unpack("<I", whole[4:8])[0]
    count = struct.unpack("<H", whole[start : start + 2])[0]
    entries = whole[start + 2 : start + 2 + 12 * count] + entry(256, 4, 1, 12_000) + entry(257, 4, 1, 12_000)
    place = len(whole)
    return (
        whole[:4] + struct.pack("<I", place) + whole[8:] + struct.pack("<H", count + 2) + entries + bytes(4)
    )


def beside_an_index(folder: Path) -> Path:
    """A file that says it is of an NDTiff set, with an index beside it that is a pipe."""
    os.mkfifo(folder / "NDTiff.index")
    path = described("ImageJ=1.53\nimages=1\n")(folder)
    data = bytearray(path.read_bytes())
    start = struct.unpack("<I", data[4:8])[0]
    text = b'{"MajorVersion":3}'
    data[8:8] = struct.pack("<IIII", 483729, 3, 2355492, len(text)) + text
    moved = 16 + len(text)
    data[4:8] = struct.pack("<I", start + moved)
    path.write_bytes(bytes(data))
    return path


TIFFS: dict[str, Make] = {
    "OME: ten million times": ome('<TiffData IFD="0"/>', "SizeT=9999999"),
    "OME: 10^9 times": ome('<TiffData IFD="0"/>', "SizeT=1000000000"),
    "OME: 10^8 planes of data": ome('<TiffData IFD="0" PlaneCount="100000000"/>', "SizeT=2"),
    "OME: first plane 10^8": ome('<TiffData IFD="0" FirstT="99999999"/>', "SizeT=100000000"),
    "OME: 10^9 wide": ome('<TiffData IFD="0"/>', "SizeX=1000000000"),
    "OME: an axis often": ome('<TiffData IFD="0"/>', "SizeT=1000", order="XYTTT"),
    "OME: an axis of its own": ome('<TiffData IFD="0"/>', "SizeQ=999999999", order="XYZCTQ"),
    "OME: negative": ome('<TiffData IFD="-5" PlaneCount="-7"/>', "SizeT=-1"),
    "OME: divided 10^10 times": ome('<TiffData IFD="0"/>', more=modulo("1e10")),
    "OME: all pages 20,000 times": ome("<TiffData/>" * 20_000, "SizeT=2000", pages=2000),
    "OME: a number of 5000 digits": ome('<TiffData IFD="0"/>', f"SizeT={'9' * 5000}"),
    "OME: no sizes": described(f'<?xml version="1.0"?><OME {OME}><Image><Pixels/></Image></OME>'),
    "OME: 100,000 deep": described(f"<OME {OME}>" + "<a>" * 100_000 + "</a>" * 100_000 + "</OME>"),
    "OME: 500,000 elements": described(f"<OME {OME}>" + "<a/>" * 500_000 + "</OME>"),
    "OME: names a file above": names_file("../other.tif"),
    "OME: names a file by its whole path": names_file("ABSOLUTE/other.tif"),
    "OME: names a pipe": names_file("pipe.tif"),
    "OME: names several pipes": names_file("../pipe.tif", 3),
    "OME: names a device": names_file("/dev/zero"),
    "OME: names another computer": names_file("\\\\localhost\\share\\a.tif"),
    "OME: is a companion": described(
        f'<?xml version="1.0"?><OME {OME}><BinaryOnly MetadataFile="/dev/zero" UUID="urn:uuid:0"/></OME>'
    ),
    "ImageJ: 4 10^9 images": described("ImageJ=1.53t\nimages=4000000000\nslices=4000000000\n"),
    "ImageJ: 10^9 frames": described("ImageJ=1.53t\nimages=1000000000\nframes=1000000000\nhyperstack=true\n"),
    "ImageJ: fewer than there are": described("ImageJ=1.53t\nimages=1000000000\nframes=1000000000\n", 50),
    "shaped: 10^8 images": described('{"shape": [100000000, 48, 64]}'),
    "shaped: 10^12 images of many": described('{"shape": [1000000, 1000000, 48, 64]}', 20),
    "shaped: negative": described('{"shape": [-1, -1000000, 48, 64]}'),
    "shaped: no numbers": described('{"shape": ["a", null, 1e400]}'),
    "ScanImage: 10^12 a slice": described(
        "SI.hChannels.channelSave = 1\nSI.hStackManager.framesPerSlice = 1000000000000\nSI.VERSION_MAJOR = 5\n",
        8,
    ),
    "a loop of 150 directories": written("a.tif", lambda: directories(150, loop=True)),
    "a directory that follows itself": written("a.tif", lambda: directories(1, loop=True)),
    "150,000 directories of nothing": written("a.tif", lambda: directories(150_000)),
    "8000 images of a pixel": written("a.tif", lambda: directories(8000, page_entries(1, 8, 1), 9)),
    "1000 images of one list of strips": written("a.tif", shared_strips),
    "2^40 ways through directories": written("a.tif", branching),
    "two widths": written("a.tif", two_widths),
    "an NDTiff index that is a pipe": beside_an_index,
}

# ---- other images


def ico() -> bytes:
    """An ICO whose one image is a PNG of another size than the ICO says."""
    inner = png(13_000, 13_000, 8, 2, zeros(13_000 * (1 + 13_000 * 3)))
    return (
        struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    )


def icns() -> bytes:
    inner = png(13_000, 13_000, 8, 2, zeros(13_000 * (1 + 13_000 * 3)))
    return b"icns" + struct.pack(">I", len(inner) + 16) + b"ic07" + struct.pack(">I", len(inner) + 8) + inner


def exif(count: int, size: int, value: int = 1, kind: int = 3) -> bytes:
    """Return EXIF whose entries each say that they hold all of it, and an orientation."""
    entries = entry(0x0112, kind, 1, value)
    entries += b"".join(entry(0x0400 + n, 7, size // 2, 8) for n in range(count))
    data = b"II*\0" + struct.pack("<IH", 8, count + 1) + entries + bytes(4)
    return data + bytes(max(0, size - len(data)))


def recursive_exif() -> bytes:
    """EXIF whose directories for EXIF, GPS and interoperability are itself."""
    entries = b"".join(entry(tag, 4, 1, 8) for tag in (0x8769, 0x8825, 0xA005))
    return b"II*\0" + struct.pack("<IH", 8, 3) + entries + struct.pack("<I", 8)


def with_exif(name: str, data: bytes) -> Make:
    def make(folder: Path) -> Path:
        path, out = folder / name, io.BytesIO()
        kind = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF"}[name.split(".")[1]]
        whole = b"Exif\0\0" + data if kind != "JPEG" or len(data) < 60_000 else b""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow too reads what it writes
            Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(out, kind, exif=whole)
        found = out.getvalue()
        if not whole:  # in as many segments as it takes
            parts = [b"Exif\0\0" + data[n : n + 60_000] for n in range(0, len(data), 60_000)]
            segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts)
            found = found[:2] + segments + found[2:]
        path.write_bytes(found)
        return path

    return make


def gif(width: int, height: int, frames: int) -> bytes:
    """Return a GIF of one-pixel frames on a canvas of any size."""
    frame = b"\x21\xf9\x04\x04\x01\x00\x00\x00," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02D\x01\0"
    head = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0\0\0\0\xff\xff\xff"
    return head + frame * frames + b";"


IMAGES: dict[str, Make] = {
    "ICO named PNG": written("a.png", ico),
    "ICNS named PNG": written("a.png", icns),
    "mask of 13,000 x 13,000": written("a.png", lambda: png(13_000, 13_000, 8, 0, zeros(13_000 * 13_001))),
    "mask of 2^31 x 1": written("a.png", lambda: png((1 << 31) - 1, 1, 8, 0, zlib.compress(bytes(9)))),
    "GIF of 13,000 x 13,000": written("a.gif", lambda: gif(13_000, 13_000, 2)),
    "GIF of 65,535 x 65,535": written("a.gif", lambda: gif(65_535, 65_535, 3)),
    "GIF of 40,000 frames": written("a.gif", lambda: gif(64, 48, 40_000)),
    "GIF of 20 frames of 4000 x 4000": written("a.gif", lambda: gif(4000, 4000, 20)),
    "GIF named PNG": written("a.png", lambda: gif(13_000, 13_000, 2)),
    "JPG with EXIF of 700 KB": with_exif("a.jpg", exif(50_000, 700_000)),
    "JPG with EXIF of 60 KB": with_exif("a.jpg", exif(4900, 59_900)),
    "PNG with EXIF of 300 KB": with_exif("a.png", exif(20_000, 300_000)),
    "WebP with EXIF of 300 KB": with_exif("a.webp", exif(20_000, 300_000)),
    "EXIF within itself": with_exif("a.jpg", recursive_exif()),
    "EXIF with orientation 0": with_exif("a.jpg", exif(0, 0, 0)),
    "EXIF with orientation 60,000": with_exif("a.jpg", exif(0, 0, 60_000)),
    "EXIF with a fraction as orientation": with_exif("a.jpg", exif(0, 64, 40, 5)),
    "EXIF with a text as orientation": with_exif("a.webp", exif(0, 64, 0x36, 2)),
    "EXIF that is cut": with_exif("a.jpg", exif(3, 100)[:30]),
}


def black_png(side: int, depth: int, colour: int) -> Make:
    channels = {0: 1, 2: 3, 6: 4}[colour]
    rows = side * (1 + side * channels * depth // 8)
    return written("a.png", lambda: png(side, side, depth, colour, zeros(rows)))


def black_tiff(side: int, kind: str, **more: object) -> Make:
    def make(folder: Path) -> Path:
        zero = np.broadcast_to(np.zeros((), kind), (side, side))
        tifffile.imwrite(folder / "a.tif", zero, compression="zlib", rowsperstrip=side, **more)
        return folder / "a.tif"

    return make


# As many pixels as a few bytes may have
LARGEST: dict[str, Make] = {
    "PNG, grey": black_png(11_500, 8, 0),
    "PNG, grey of 16 bits": black_png(8100, 16, 0),
    "PNG, RGB": black_png(5700, 8, 2),
    "PNG, RGBA of 16 bits": black_png(5700, 16, 6),
    "TIFF, grey": black_tiff(11_500, "u1"),
    "TIFF, palette": black_tiff(11_500, "u1", photometric="palette", colormap=np.zeros((3, 256), np.uint16)),
    "TIFF, 32 bits": black_tiff(5700, "f4"),
    "TIFF, 64 bits": black_tiff(4000, "f8"),
    "TIFF, turned": black_tiff(11_500, "u1", extratags=[(274, "H", 1, 6, True)]),
}

CRAFTED: dict[str, Make] = {**TIFFS, **IMAGES, **LARGEST}


def _image(path: Path) -> None:
    size = image_size(path)
    image = read_image(path)
    assert image.shape[:2] == size, f"{size} is not {image.shape}"
    require_own(image)


def _video(path: Path) -> None:
    with open_video(path) as video:
        assert video.fingerprint
        for index in {0, len(video) - 1}:
            require_own(video.frame(index))


def _masks(path: Path) -> None:
    with open_masks(path) as masks:
        require_own(masks.frame(masks.shape[0] - 1))


def require_own(values: np.ndarray) -> None:
    assert values.flat[0] != SECRET.flat[0], "another file is shown"


def _any(path: Path) -> None:
    """Use a file in all ways; only if none is possible, refuse it."""
    refused = []
    for use in (_image, _video, _masks):
        try:
            use(path)
        except SamexpError as error:
            refused.append(error)
    if len(refused) == 3:
        raise refused[0]


WAYS = {"video": _video, "masks": _masks, "anything": _any}


def crafted(chance: Random, sound: Path, folder: Path) -> Case:
    """A small file that lies about its size or its count, or names another file."""
    name = chance.choice(sorted(CRAFTED))
    return case_of(name, chance.choice(ways_of(name)), folder)


def ways_of(name: str) -> list[str]:
    """Return how a file is used in one process: one after the other, but for what takes much each time."""
    return ["video", "masks"] if name in LARGEST else ["anything"]


def case_of(name: str, way: str, folder: Path) -> Case:
    path = CRAFTED[name](folder)
    return Case(f"{path.stat().st_size} bytes: {name}, as {way}", lambda: WAYS[way](path))


KINDS = {"image: crafted": crafted}


def main(names: Sequence[str]) -> int:
    uses = [(name, way) for name in names or CRAFTED for way in ways_of(name)]
    cases = (
        (way, lambda chance, sound, folder, name=name, way=way: case_of(name, way, folder), number)
        for number, (name, way) in enumerate(uses)
    )
    good = True
    with tempfile.TemporaryDirectory() as place:
        for found in run_all(cases, 0, Path(place), Path(place), workers=2):
            good &= found.good
            detail = "" if found.good else f" {found.detail[-1500:]!r}"
            print(f"{found.result:8} {found.seconds:4.1f} s {found.megabytes:5.0f} MB {found.says}{detail}")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
