"""Bad and odd videos, images and prompts."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
import tifffile
from PIL import Image

from napari_samexp.engine.sharing import SharedImage
from napari_samexp.errors import SamexpError
from napari_samexp.images import to_rgb8
from napari_samexp.io.image import image_size, read_image
from napari_samexp.io.video import open_video, read_frame
from napari_samexp.sam.weights.loading import load_model
from napari_samexp.types import Prompt
from tests.fuzz.crafted import png, png_chunk, zeros
from tests.fuzz.guard import Case
from tests.fuzz.valid_input import CLIPS, HEIGHT, WIDTH, damaged, frames, write_video
from tests.fuzz.videos import CLAIMS, write_claim

# ---- videos


def watched(
    path: Any, chance: Random, expected: np.ndarray | None = None, wrong: int = 40
) -> Callable[[], object]:
    """Return a person's use of a video: opened, identified, its first, middle, last and any frame shown.

    `expected` is what the frames have to look like, but for `wrong` of 255 on the mean.
    """

    def use() -> str:
        refused: SamexpError | None = None
        with open_video(path) as video:
            count = len(video)
            assert video.shape[0] == count and min(video.shape) >= 1, video.shape
            assert len(video.times) == count and np.isfinite(video.times).all()
            assert video.fps is None or 0 < video.fps < 1e9, video.fps
            assert video.fingerprint == video.fingerprint
            shown = 0
            for index in {0, count // 2, count - 1, chance.randrange(count), -1 % count}:
                try:
                    frame = video.frame(index)
                except SamexpError as error:  # one bad frame is no bad video
                    refused = error
                    continue
                shown += 1
                assert frame.shape == video.shape[1:] and frame.dtype == np.uint8
                if expected is not None:
                    difference = np.abs(frame.astype(int) - expected[index].astype(int)).mean()
                    assert difference < wrong, f"frame {index} differs by {difference:.1f}"
            if expected is not None:
                assert count == len(expected), f"{count} frames instead of {len(expected)}"
            if refused is not None:
                raise refused
            return f"{video.shape}, {shown} frames shown"

    return use


def damaged_video(chance: Random, sound: Path, folder: Path) -> Case:
    name = chance.choice(CLIPS)[0]
    data, how = damaged((sound / name).read_bytes(), chance)
    ending = chance.choice((Path(name).suffix, Path(name).suffix, ".mp4", ".avi", ""))
    path = folder / f"clip{ending}"
    path.write_bytes(data)
    return Case(f"{name}: {how}", watched(path, chance))


def mp4_boxes(data: bytes, names: set[bytes]) -> list[int]:
    """Return where the boxes of these names begin in an MP4 file."""
    found: list[int] = []
    for name in names:
        place = data.find(name)
        while place >= 4:
            found.append(place)
            place = data.find(name, place + 4)
    return found


def broken_index(chance: Random, sound: Path, folder: Path) -> Case:
    """An MP4, AVI or MKV whose index or header says something that is not so."""
    name, marks = chance.choice(
        (
            ("h264.mp4", (b"stts", b"stsz", b"stco", b"stsc", b"stss", b"ctts", b"mdhd", b"mvhd", b"tkhd", b"elst", b"avcC", b"stsd")),
            ("bframes.mp4", (b"ctts", b"stts", b"elst", b"stss", b"stsz")),
            ("fragmented.mp4", (b"trun", b"tfhd", b"tfdt", b"moof", b"mfhd", b"sidx")),
            ("mpeg4.avi", (b"avih", b"strh", b"strf", b"idx1", b"movi")),
            ("h264.mkv", (b"\x1c\x53\xbb\x6b", b"\x16\x54\xae\x6b", b"\x44\x89", b"\x1f\x43\xb6\x75")),
            ("raw.mov", (b"stsz", b"stsd", b"stco", b"tkhd")),
        )
    )  # fmt: skip
    data = bytearray((sound / name).read_bytes())
    places = mp4_boxes(bytes(data), set(marks))
    for _ in range(chance.choice((1, 1, 2))):
        place = chance.choice(places or [0]) + chance.choice((-4, 4, 8, 12, 16, 20, 24, 28, 40, 60, 76))
        value = chance.choice((0, 1, 2, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 20, 100_000_000))
        if 0 <= place < len(data) - 4:
            struct.pack_into(chance.choice(("<I", ">I")), data, place, value)
    path = folder / name
    path.write_bytes(bytes(data))
    return Case(f"{name}: index or header", watched(path, chance))


def odd_video(chance: Random, sound: Path, folder: Path) -> Case:
    """A video that is whole, and of a kind that is easily forgotten."""
    how = chance.choice(sorted(_ODD))
    if how == "sound alone":
        name = chance.choice(("sound.wav", "sound.m4a"))
        path = folder / chance.choice((name, "sound.mp4"))
        path.write_bytes((sound / name).read_bytes())
        return Case(how, watched(path, chance), must="refuse")
    return _ODD[how](chance, folder, how)


def _lossless(path: Path, images: np.ndarray, chance: Random, how: str, **more: Any) -> Case:
    if path.suffix == ".mov":
        write_video(path, list(images), "png", "rgb24", **more)
    else:
        write_video(path, list(images), "ffv1", "bgr0", **more)
    return Case(how, watched(path, chance, images, 1), must="work")


def _sized(height: int, width: int) -> Callable[..., Case]:
    def make(chance: Random, folder: Path, how: str) -> Case:
        images = np.random.default_rng(1).integers(
            0, 255, (chance.choice((1, 2, 5)), height, width, 3), np.uint8
        )
        return _lossless(folder / "odd.mov", images, chance, how)

    return make


def _variable_rate(chance: Random, folder: Path, how: str) -> Case:
    count = chance.choice((2, 5, 12))
    times = list(
        np.cumsum([chance.choice((1, 2, 7, 40, 1000)) for _ in range(count)]) + chance.choice((0, 137))
    )
    images = frames(count)
    path = folder / chance.choice(("vfr.mkv", "vfr.mp4", "vfr.mov"))
    if path.suffix == ".mkv":
        return _lossless(path, images, chance, how, times=[int(t) for t in times])
    write_video(path, list(images), "libx264", "yuv444p", {"crf": "1", "bf": "2"}, [int(t) for t in times])
    return Case(how, watched(path, chance, images, 12), must="work")


def _rotated(chance: Random, folder: Path, how: str) -> Case:
    """An MP4 whose header turns it, as a phone's; the matrix lies 40 bytes into the track header's content."""
    path = write_video(folder / "turned.mp4", list(frames()), "libx264", "yuv444p", {"crf": "1"})
    data = bytearray(path.read_bytes())
    place = data.find(b"tkhd") + 4 + 40
    one, odd = 0x10000, chance.random() < 0.3
    quarter = {1: (0, one, -one, 0), 2: (-one, 0, 0, -one), 3: (0, -one, one, 0)}
    turns = chance.choice((1, 2, 3))
    a, b, c, d = quarter[turns] if not odd else [chance.randint(-(1 << 31), (1 << 31) - 1) for _ in range(4)]
    for offset, value in ((0, a), (4, b), (12, c), (16, d)):
        struct.pack_into(">i", data, place + offset, value)
    path.write_bytes(bytes(data))
    if odd:
        return Case("a matrix of any numbers", watched(path, chance))
    return Case(how, watched(path, chance, np.rot90(frames(), -turns, axes=(1, 2)), 12), must="work")


def _alpha(chance: Random, folder: Path, how: str) -> Case:
    images = np.concatenate((frames(), np.full((6, HEIGHT, WIDTH, 1), 128, np.uint8)), axis=3)
    if chance.random() < 0.5:
        path = write_video(folder / "alpha.mov", list(images), "png", "rgba", source="rgba")
    else:
        path = write_video(folder / "alpha.mkv", list(images), "ffv1", "bgra", source="rgba")
    return Case(how, watched(path, chance, images[..., :3], 1), must="work")


def _deep(chance: Random, folder: Path, how: str) -> Case:
    grey = frames()[..., 0].astype(np.uint16) << 8
    path = write_video(folder / "deep.mkv", list(grey), "ffv1", "gray16le", source="gray16le")
    return Case(how, watched(path, chance, np.repeat(frames()[..., :1], 3, axis=3), 3), must="work")


def _ten_bits(chance: Random, folder: Path, how: str) -> Case:
    pixels = chance.choice(("yuv420p10le", "yuv422p10le", "yuv444p10le"))
    path = write_video(folder / "ten.mp4", list(frames()), "libx264", pixels, {"crf": "4"})
    return Case(how, watched(path, chance, frames(), 25), must="work")


def _no_frames(chance: Random, folder: Path, how: str) -> Case:
    ending = chance.choice(("mp4", "mkv", "avi", "mov"))
    path = folder / f"none.{ending}"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("mpeg4", rate=Fraction(25))
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        out.start_encoding()
    return Case(how, watched(path, chance), must="refuse")


def _one_frame(chance: Random, folder: Path, how: str) -> Case:
    name, codec, pixels, options = chance.choice(CLIPS)
    path = write_video(folder / name, list(frames(1)), codec, pixels, options)
    return Case(f"{how}: {name}", watched(path, chance, frames(1), 60), must="work")


def _large(chance: Random, folder: Path, how: str) -> Case:
    """Few bytes, many pixels: black frames as large as a codec allows."""
    side = chance.choice((8192, 12_000, 16_000))
    height, width = chance.choice(((side, side), (side, 64), (64, side)))
    codec, pixels = chance.choice((("mpeg4", "yuv420p"), ("mjpeg", "yuvj420p"), ("ffv1", "yuv420p")))
    if codec == "mpeg4" and max(height, width) > 8191:
        codec, pixels = "mjpeg", "yuvj420p"
    path = folder / "large.mkv"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = height, width, pixels
        frame = av.VideoFrame(width, height, pixels)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        for number in range(chance.choice((1, 2, 4)) if height * width < 3e7 else 1):
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return Case(f"{how}: {width} x {height} {codec}", watched(path, chance))


def _changing_size(chance: Random, folder: Path, how: str) -> Case:
    parts = [
        write_video(folder / f"{n}.ts", list(frames(3, *size)), "libx264", "yuv420p", {"g": "1"})
        for n, size in enumerate(((48, 64), (96, 32)))
    ]
    path = folder / "two.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return Case(how, watched(path, chance))


def _play_list(chance: Random, folder: Path, how: str) -> Case:
    """A text that FFmpeg would follow to other files or addresses."""
    texts = (
        "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n",
        "ffconcat version 1.0\nfile '/etc/passwd'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        '<?xml version="1.0"?><MPD><Period><BaseURL>file:///etc/passwd</BaseURL></Period></MPD>',
    )
    path = folder / chance.choice(("a.m3u8", "a.mp4", "a.txt", "a.sdp", "a.mpd"))
    path.write_text(chance.choice(texts))
    return Case(how, watched(path, chance), must="refuse")


def _image_folder(chance: Random, folder: Path, how: str) -> Case:
    place = folder / "pictures"
    place.mkdir()
    images = frames(4)
    for number, image in enumerate(images):
        Image.fromarray(image).save(place / f"f{number}.png")
    wrong = chance.choice(
        ("none", "empty", "other size", "broken", "16 bit", "grey", "text", "folder", "link", "float")
    )
    path = place / f"f{chance.randrange(4)}.png"
    if wrong == "empty":
        path.write_bytes(b"")
    elif wrong == "other size":
        Image.fromarray(images[0][:20]).save(path)
    elif wrong == "broken":
        path.write_bytes(damaged(path.read_bytes(), chance)[0])
    elif wrong == "16 bit":
        Image.fromarray(images[0][..., 0].astype(np.uint16)).save(path)
    elif wrong == "grey":
        Image.fromarray(images[0][..., 0]).save(path)
    elif wrong == "text":
        (place / "a.png").write_text("no image")
    elif wrong == "folder":
        (place / "a.png").mkdir()
    elif wrong == "link":
        (place / "a.png").symlink_to("/etc/passwd")
    elif wrong == "float":
        tifffile.imwrite(place / "a.tif", np.full((HEIGHT, WIDTH), np.nan, np.float32))
    return Case(f"{how}: {wrong}", watched(place, chance))


_ODD: dict[str, Callable[..., Case]] = {
    "1 x 1": _sized(1, 1),
    "1 x 1000": _sized(1, 1000),
    "1000 x 1": _sized(1000, 1),
    "17 x 31": _sized(17, 31),
    "3 x 4099": _sized(3, 4099),
    "frames at any time": _variable_rate,
    "turned": _rotated,
    "alpha": _alpha,
    "16 bits": _deep,
    "10 bits": _ten_bits,
    "0 frames": _no_frames,
    "1 frame": _one_frame,
    "sound alone": _no_frames,
    "large": _large,
    "another size within": _changing_size,
    "play list": _play_list,
    "folder of images": _image_folder,
}

# ---- videos that claim more than they have


def claiming_video(chance: Random, sound: Path, folder: Path) -> Case:
    """A small video whose headers claim very much."""
    name = chance.choice(sorted(CLAIMS))
    return Case(name, watched(write_claim(name, folder), chance), must="refuse")


# ---- arrays as videos


def odd_array_video(chance: Random, sound: Path, folder: Path) -> Case:
    array, how = odd_array(chance, 3)
    return Case(f"array as video: {how}", watched(array, chance))


def odd_array(chance: Random, ndim: int) -> tuple[Any, str]:
    """Return an array that is seldom an image."""
    shapes: dict[str, tuple[int, ...]] = {
        "sound": (5, 12, 14)[-ndim:],
        "colour": (*(5, 12, 14)[-ndim:], 3),
        "alpha": (*(5, 12, 14)[-ndim:], 4),
        "two channels": (*(5, 12, 14)[-ndim:], 2),
        "empty": (0,) * ndim,
        "no rows": (*(5, 12)[1 - ndim :], 0) if ndim > 1 else (0,),
        "1 x 1": (1,) * ndim,
        "1 x 20000": (*(1,) * (ndim - 1), 20_000),
        "20000 x 1": (20_000, *(1,) * (ndim - 1)),
        "5-D": (2, 2, 2, 2, 2),
        "number": (),
        "line": (30,),
        "3 last": (*(5, 12, 14)[1 - ndim :], 3) if ndim > 1 else (3,),
    }
    how = chance.choice(sorted(shapes))
    kind = chance.choice(
        ("u1", "u2", "u4", "u8", "i1", "i2", "i8", "f2", "f4", "f8", ">u2", ">f4", "?", "c8", "O", "U3", "M8[s]", "V4", "S2")
    )  # fmt: skip
    random = np.random.default_rng(chance.randrange(1 << 30))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = np.array(random.random(shapes[how]) * chance.choice((1, 255, 4000, 1e30)))
        array: Any = np.array(values, kind if kind not in ("V4", "M8[s]") else "u4")
    if kind in ("V4", "M8[s]"):
        array = array.astype("i8").astype(kind) if kind != "V4" else array.view("V4") if array.ndim else array
    special = chance.choice(
        ("none", "NaN", "inf", "mixed", "all NaN", "all inf", "constant", "negative", "view", "subclass")
    )
    if array.dtype.kind == "f" and array.size:
        flat = array.reshape(-1)
        many = max(1, flat.size // 3)
        if special in ("NaN", "mixed"):
            flat[:many] = np.nan
        if special in ("inf", "mixed"):
            flat[-many:] = np.inf
            flat[0] = -np.inf
        if special.startswith("all"):
            flat[:] = np.nan if special == "all NaN" else np.inf
        if special == "negative":
            flat[:] = -flat
    if special == "constant" and array.size and array.dtype.kind in "buif":
        array[...] = array.reshape(-1)[0]
    if special == "view" and array.ndim:
        array = array[::-1]
    if special == "subclass":
        array = (
            chance.choice(
                (
                    np.ma.masked_less,
                    lambda a, _: a.tolist(),
                    lambda a, _: memoryview(a) if a.dtype.kind in "buif" and a.ndim else a,
                )
            )(array, 1)
            if array.dtype.kind in "buif"
            else array.tolist()
        )
    return array, f"{how}, {kind}, {special}"


# ---- images


def odd_image(chance: Random, sound: Path, folder: Path) -> Case:
    """An array as the layer that is clicked on."""
    array, how = odd_array(chance, 2)

    def use() -> str:
        image = SharedImage(array)
        try:
            rgb = to_rgb8(array)
            assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3, rgb.shape
            model = load_model(sound / "tiny.safetensors", device="cpu")
            features = model.encode(array, square=chance.random() < 0.7)
            height, width = rgb.shape[:2]
            prediction = model.segment(features, Prompt.from_lists([(width // 2, height // 2)]))
            assert prediction.mask().shape == (height, width)
            assert np.isfinite(prediction.image_logits()).all()
            return f"{rgb.shape}"
        finally:
            image.release()

    return Case(f"image: {how}", use)


def damaged_image(chance: Random, sound: Path, folder: Path) -> Case:
    name = chance.choice(
        ("a.png", "a.jpg", "a.bmp", "a.webp", "a.gif", "a.ppm", "a.tga", "a.jp2", "palette.png", "deep.png", "stack.tif",
         "imagej.tif", "deflate.tif", "ome.ome.tif", "lzw.tif")
    )  # fmt: skip
    data, how = damaged((sound / name).read_bytes(), chance)
    path = folder / name
    path.write_bytes(data)
    return Case(f"{name}: {how}", _seen(path, chance))


def _seen(path: Path, chance: Random) -> Callable[[], object]:
    def use() -> str:
        how = chance.choice(("image", "video", "frame", "mask"))
        if how == "video":
            return watched(path, chance)()  # type: ignore[return-value]
        if how == "mask":
            from napari_samexp.measure.masks import open_masks

            with open_masks(path) as masks:
                return f"{masks.shape} {masks.frame(0).max()}"
        if how == "frame":
            return str(read_frame(str(path)).shape)
        image = read_image(path)
        size = image_size(path)
        assert size == image.shape[:2], f"{size} is not {image.shape}"
        return str(to_rgb8(image).shape)

    return use


def claiming_image(chance: Random, sound: Path, folder: Path) -> Case:
    """A few bytes that claim to be a very large image."""
    how = chance.choice(sorted(_CLAIMS))
    path = folder / ("large.tif" if "TIFF" in how else f"large.{how.split()[0].lower()}")
    _CLAIMS[how](path, chance)
    return Case(f"image: {how}", _seen(path, chance))


def _black_png(path: Path, chance: Random, side: int, depth: int, colour: int) -> None:
    channels = {0: 1, 2: 3, 6: 4}[colour]
    path.write_bytes(png(side, side, depth, colour, zeros(side * (1 + side * channels * depth // 8))))


def _black_palette(path: Path) -> None:
    path.write_bytes(png(11_000, 11_000, 8, 3, zeros(11_000 * 11_001), png_chunk(b"PLTE", bytes(3))))


def _text_bomb(path: Path, chance: Random) -> None:
    chunk = png_chunk(b"zTXt", b"Comment\0\0" + zeros(200 << 20))
    path.write_bytes(png(4, 4, 8, 0, zlib.compress(bytes(20)), chunk))


def _tiff(path: Path, chance: Random, shape: tuple[int, ...], kind: str) -> None:
    """A TIFF that is sound but for its size, of which there are no pixels."""
    tifffile.imwrite(path, np.zeros((4, 4), kind))
    with tifffile.TiffFile(path, mode="r+b") as file:
        tags = file.pages[0].tags
        tags["ImageLength"].overwrite(shape[-2])
        tags["ImageWidth"].overwrite(shape[-1])
        tags["RowsPerStrip"].overwrite(shape[-2])


def _deflated_tiff(path: Path, chance: Random) -> None:
    side = 13_000
    tifffile.imwrite(
        path, np.broadcast_to(np.zeros((), np.uint16), (side, side)), compression="zlib", rowsperstrip=side
    )


def _described(text: str) -> Callable[[Path, Random], None]:
    return lambda path, chance: tifffile.imwrite(path, frames(1)[0, ..., 0], description=text, metadata=None)


_CLAIMS: dict[str, Callable[[Path, Random], object]] = {
    "PNG 13000 x 13000 RGB": lambda p, c: _black_png(p, c, 13_000, 8, 2),
    "PNG 13000 x 13000 grey": lambda p, c: _black_png(p, c, 13_000, 8, 0),
    "PNG 9000 x 9000 RGBA of 16 bits": lambda p, c: _black_png(p, c, 9_000, 16, 6),
    "PNG 13000 x 13000 grey of 16 bits": lambda p, c: _black_png(p, c, 13_000, 16, 0),
    "PNG 11000 x 11000 palette": lambda p, c: _black_palette(p),
    "TIFF 8000 x 8000 deflated, eight pages": lambda p, c: tifffile.imwrite(
        p, np.broadcast_to(np.zeros((), np.uint16), (8, 8000, 8000)), compression="zlib", rowsperstrip=8000
    ),
    "PNG 30000 x 30000": lambda p, c: p.write_bytes(png(30_000, 30_000, 8, 2, zlib.compress(bytes(100)))),
    "PNG 2^31 x 1": lambda p, c: p.write_bytes(png((1 << 31) - 1, 1, 8, 2, zlib.compress(bytes(100)))),
    "PNG 0 x 0": lambda p, c: p.write_bytes(png(0, 0, 8, 2, zlib.compress(b""))),
    "PNG 4 x 4 with a text of 200 MB": _text_bomb,
    "TIFF 13000 x 13000": lambda p, c: _tiff(p, c, (13_000, 13_000), "u2"),
    "TIFF 2^31 x 2^31": lambda p, c: _tiff(p, c, ((1 << 31) - 1, (1 << 31) - 1), "u1"),
    "TIFF 0 x 0": lambda p, c: _tiff(p, c, (0, 0), "u1"),
    "TIFF 13000 x 13000 deflated": _deflated_tiff,
    "TIFF described as a stack": _described('{"shape": [100000, 48, 64]}'),
    "TIFF described as ImageJ": _described("ImageJ=1.53t\nimages=4000000000\nslices=4000000000\n"),
    "TIFF described as OME": _described(
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="a"><Pixels ID="b" '
        'DimensionOrder="XYZCT" SizeX="64" SizeY="48" SizeZ="1" SizeC="1" SizeT="9999999" Type="uint8">'
        '<TiffData IFD="0"><UUID FileName="../../../../etc/passwd">urn:uuid:0</UUID></TiffData></Pixels></Image></OME>'
    ),
    "TIFF described in XML that grows": _described(
        '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "lol">'
        + "".join(f'<!ENTITY {chr(98 + n)} "{("&" + chr(97 + n) + ";") * 10}">' for n in range(10))
        + ']><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image>&k;</Image></OME>'
    ),
    "TIFF described in XML that reads a file": _described(
        '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a SYSTEM "file:///dev/zero">]>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image>&a;</Image></OME>'
    ),
    "TIFF described in deep JSON": _described('{"shape": ' + "[" * 50_000 + "]" * 50_000 + "}"),
    "EPS that runs": lambda p, c: p.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n(%pipe%touch code-has-run) (w) file\nshowpage\n%%EOF\n"
    ),
    "GIF 65535 x 65535": lambda p, c: p.write_bytes(
        b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;"
    ),
    "BMP 2^31 x 2^31": lambda p, c: p.write_bytes(
        b"BM" + struct.pack("<IHHI", 58, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 4, 0, 0, 0, 0) + bytes(4)
    ),
    "PPM 100000 x 100000": lambda p, c: p.write_bytes(b"P6 100000 100000 255\n" + bytes(100)),
    "JPG 65535 x 65535": lambda p, c: p.write_bytes(
        b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00" + bytes(100)
    ),
}  # fmt: skip

# ---- prompts


def odd_prompt(chance: Random, sound: Path, folder: Path) -> Case:
    how = chance.choice(sorted(_PROMPTS))
    points, labels, box, must = _PROMPTS[how](chance)

    def use() -> str:
        prompt = Prompt(points, labels, box)
        model = load_model(sound / "tiny.safetensors", device="cpu")
        features = model.encode(frames(1)[0], side=chance.choice((None, 256)))
        prediction = model.segment(features, prompt)
        assert np.isfinite(prediction.iou).all() and prediction.mask().shape == (HEIGHT, WIDTH)
        model.remember(features, prediction)  # type: ignore[operator]
        return f"{len(prompt.points_xy)} points"

    return Case(f"prompt: {how}", use, must=must)


def _point(x: Any, y: Any, must: str = "refuse") -> Callable[..., Any]:
    return lambda c: ([[x, y]], [c.choice((0, 1))], None, must)


def _box_of(*box: Any, must: str = "refuse") -> Callable[..., Any]:
    return lambda c: (np.zeros((0, 2)), [], list(box), must)


def _many(count: int) -> Callable[..., Any]:
    return lambda c: (
        [[c.uniform(0, 63), c.uniform(0, 47)] for _ in range(count)],
        [c.choice((0, 1)) for _ in range(count)],
        None,
        "either",
    )


_PROMPTS: dict[str, Callable[..., Any]] = {
    "none": lambda c: (np.zeros((0, 2)), [], None, "either"),
    "a corner": _point(0, 0, "work"),
    "the last pixel": _point(63, 47, "work"),
    "between pixels": _point(0.5, 46.9, "work"),
    "left of it": _point(-1, 5),
    "below it": _point(5, 48),
    "far away": _point(1e9, 1e9),
    "too large for a float": _point(1e300, 0),
    "a number without end": _point(10**400, 0),
    "NaN": _point(float("nan"), 1),
    "infinite": _point(1, float("-inf")),
    "a text": _point("here", "there"),
    "a text that is a number": _point("12", "13", "either"),
    "None": _point(None, None),
    "complex": _point(1j, 1),
    "lists within": _point([1], [2], "either"),
    "true": _point(True, False, "either"),
    "3-D": lambda c: ([[1, 2, 3]], [1], None, "refuse"),
    "one number": lambda c: ([1], [1], None, "refuse"),
    "ragged": lambda c: ([[1, 2], [3]], [1, 1], None, "refuse"),
    "more labels": lambda c: ([[1, 2]], [1, 1], None, "refuse"),
    "fewer labels": lambda c: ([[1, 2], [3, 4]], [1], None, "refuse"),
    "label 2": lambda c: ([[1, 2]], [2], None, "refuse"),
    "label -1": lambda c: ([[1, 2]], [-1], None, "refuse"),
    "label 0.5": lambda c: ([[1, 2]], [0.5], None, "refuse"),
    "label NaN": lambda c: ([[1, 2]], [float("nan")], None, "refuse"),
    "label text": lambda c: ([[1, 2]], ["object"], None, "refuse"),
    "label ragged": lambda c: ([[1, 2]], [[1], [1, 2]], None, "refuse"),
    "label None": lambda c: ([[1, 2]], None, None, "refuse"),
    "a dict": lambda c: ({"x": 1}, [1], None, "refuse"),
    "100 points": _many(100),
    "3000 points": _many(3000),
    "20,000 points": _many(20_000),
    "1,000,000 points": lambda c: (np.ones((1_000_000, 2)), np.ones(1_000_000), None, "either"),
    "the same point often": lambda c: ([[5, 5]] * 500, [1, 0] * 250, None, "either"),
    "whole box": _box_of(0, 0, 63, 47, must="work"),
    "box of a pixel": _box_of(5, 5, 6, 6, must="work"),
    "box half outside": _box_of(-20, -20, 30, 30, must="work"),
    "box beyond all sides": _box_of(-1e6, -1e6, 1e6, 1e6, must="either"),
    "box outside": _box_of(100, 100, 200, 200),
    "box of nothing": _box_of(5, 5, 5, 5),
    "box turned round": _box_of(30, 30, 10, 10),
    "box with NaN": _box_of(0, 0, float("nan"), 9),
    "box of three": _box_of(0, 0, 9),
    "box of five": _box_of(0, 0, 9, 9, 9),
    "box of texts": _box_of("a", "b", "c", "d"),
    "box of nothing at all": lambda c: (np.zeros((0, 2)), [], [], "refuse"),
    "box as a text": lambda c: (np.zeros((0, 2)), [], "0,0,9,9", "refuse"),
}  # fmt: skip

KINDS = {
    "video: damaged bytes": damaged_video,
    "video: broken index": broken_index,
    "video: odd": odd_video,
    "video: claims": claiming_video,
    "video: odd array": odd_array_video,
    "image: odd array": odd_image,
    "image: damaged bytes": damaged_image,
    "image: claims": claiming_image,
    "prompt": odd_prompt,
}
