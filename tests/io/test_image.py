import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from napari_samexp.errors import ImageError
from napari_samexp.io.image import IMAGE_SUFFIXES, image_size, read_image

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (20, 30), np.uint8)
COLOUR = RNG.integers(0, 256, (20, 30, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (20, 30, 4), np.uint8)
DEEP = RNG.integers(0, 4096, (20, 30)).astype(np.uint16)
DEEP_COLOUR = RNG.integers(0, 65536, (20, 30, 3)).astype(np.uint16)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, pixels: bytes) -> bytes:
    """A PNG file; Pillow cannot write 16-bit colour."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(pixels)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def deep_png(values: np.ndarray, colour: int) -> bytes:
    rows = values.astype(">u2").reshape(len(values), -1)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    return png(values.shape[1], values.shape[0], 16, colour, pixels)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "ppm", "tga"])
@pytest.mark.parametrize("values", [GREY, COLOUR], ids=["grey", "colour"])
def test_lossless_formats(tmp_path: Path, suffix: str, values: np.ndarray) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(values).save(path, lossless=True)
    read = read_image(path)
    assert read.dtype == np.uint8
    # WebP knows no grey
    expected = np.repeat(values[..., None], 3, 2) if suffix == "webp" and values.ndim == 2 else values
    np.testing.assert_array_equal(read, expected)
    assert image_size(path) == (20, 30)


def test_jpeg_equals_pillow(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), np.asarray(Image.open(tmp_path / "a.jpg")))


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "a.jpg")
    assert read_image(str(tmp_path / "a.jpg")).shape == (20, 30, 3)


def test_alpha_palette_and_bits(tmp_path: Path) -> None:
    Image.fromarray(ALPHA).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), ALPHA)

    palette = Image.fromarray(COLOUR).quantize(16)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")))
    palette.save(tmp_path / "clear.png", transparency=0)
    assert read_image(tmp_path / "clear.png").shape == (20, 30, 4)

    Image.fromarray(ALPHA).convert("LA").save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png").shape == (20, 30, 4)

    Image.fromarray(GREY > 99).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png"), GREY > 99)


def test_16_bit_png(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "grey.png")
    read = read_image(tmp_path / "grey.png")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, DEEP)

    (tmp_path / "colour.png").write_bytes(deep_png(DEEP_COLOUR, 2))
    read = read_image(tmp_path / "colour.png")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, DEEP_COLOUR)

    with_alpha = np.concatenate([DEEP_COLOUR, np.full((20, 30, 1), 65535, np.uint16)], axis=2)
    (tmp_path / "alpha.png").write_bytes(deep_png(with_alpha, 6))
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png")[..., :3], DEEP_COLOUR)


@pytest.mark.parametrize("values", [GREY, DEEP, DEEP.astype(np.float32) / 7, DEEP.astype(np.int16)], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"bigtiff": True}], ids=str
)
def test_tiff_keeps_values_and_type(tmp_path: Path, values: np.ndarray, options: dict[str, object]) -> None:
    tifffile.imwrite(tmp_path / "a.tiff", values, **options)
    read = read_image(tmp_path / "a.tiff")
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize("values", [COLOUR, DEEP_COLOUR, ALPHA[..., :3]], ids=["8 bit", "16 bit", "view"])
def test_tiff_colours(tmp_path: Path, values: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="rgb")
    np.testing.assert_array_equal(read_image(path), values)
    tifffile.imwrite(path, np.moveaxis(values, -1, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_image(path), values)
    tifffile.imwrite(path, values, photometric="minisblack", compression="zlib")
    np.testing.assert_array_equal(read_image(path), values)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "jpeg"])
def test_tiff_compressions_that_tifffile_cannot_decode_alone(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(COLOUR).save(path, compression=compression)
    with Image.open(path) as file:
        np.testing.assert_array_equal(read_image(path), np.asarray(file))


def test_tiff_palette_and_white_is_zero(tmp_path: Path) -> None:
    palette = Image.fromarray(COLOUR).quantize(16)
    palette.save(tmp_path / "palette.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.tif"), np.asarray(palette.convert("RGB")))
    palette.save(tmp_path / "packed.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read_image(tmp_path / "packed.tif"), np.asarray(palette.convert("RGB")))
    tifffile.imwrite(tmp_path / "white.tif", 255 - GREY, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "white.tif"), GREY)


def test_first_image_of_several(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY, 255 - GREY]))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), GREY)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(COLOUR).save(path, exif=exif)
    with Image.open(path) as file:
        expected = np.asarray(ImageOps.exif_transpose(file))
    np.testing.assert_array_equal(read_image(path), expected)
    assert image_size(path) == expected.shape[:2]

    # a suffix says nothing: it is a TIFF all the same
    tifffile.imwrite(
        tmp_path / "b.png", COLOUR, photometric="rgb", extratags=[(274, "H", 1, orientation, True)]
    )
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), expected)
    assert image_size(tmp_path / "b.png") == expected.shape[:2]


def test_home_and_what_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    read = read_image("~/a.png")
    read[:] = 0  # is the caller's own
    assert read.flags.c_contiguous
    assert ".gif" not in IMAGE_SUFFIXES  # an animation is a video


def broken(path: Path) -> Path:
    """A file that is wrong in the way that its name tells."""
    name = path.stem
    Image.fromarray(COLOUR).save(path.parent / "whole.png")
    whole = (path.parent / "whole.png").read_bytes()
    tifffile.imwrite(path.parent / "whole.tif", COLOUR, photometric="rgb", compression="zlib")
    tiff = (path.parent / "whole.tif").read_bytes()
    if name == "folder":
        path.mkdir()
    elif name != "missing":
        path.write_bytes(
            {
                "empty": b"",
                "text": b"not an image\n" * 50,
                "cut": whole[: len(whole) // 2],
                "head": whole[:20],
                "bomb": png(60000, 60000, 8, 0, b"\0"),
                "large": png(15000, 12000, 8, 0, b"\0"),
                "tiffcut": tiff[: len(tiff) // 2],
                "tiffhead": tiff[:8],
                "tiffnoise": tiff[:8] + bytes(RNG.integers(0, 256, 400, np.uint8)),
            }[name]
        )
    return path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.png", "does not exist"),
        ("folder.png", "is a folder"),
        ("empty.png", "is empty"),
        ("text.png", "not an image"),
        ("cut.png", "broken"),
        ("head.png", "not an image|broken"),
        ("bomb.png", "more than 178956970 pixels"),
        ("large.png", "more than 178956970 pixels"),
        ("tiffcut.tif", "broken|cannot be read"),
        ("tiffhead.tif", "broken"),
        ("tiffnoise.tif", "broken"),
    ],
)
def test_bad_files_give_one_sentence(tmp_path: Path, name: str, says: str) -> None:
    path = broken(tmp_path / name)
    with pytest.raises(ImageError, match=says) as caught:
        read_image(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_files_have_no_size(tmp_path: Path) -> None:
    for name in ("missing.png", "text.png", "bomb.png", "tiffhead.tif"):
        with pytest.raises(ImageError):
            image_size(broken(tmp_path / name))


def test_too_large_tiff_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as file:
        tags = file.pages[0].tags
        tags["ImageWidth"].overwrite(60000)
        tags["ImageLength"].overwrite(60000)
    with pytest.raises(ImageError, match="pixels"):
        read_image(path)


def test_tiff_with_other_axes_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((5, 2, 20, 30), np.uint8), metadata={"axes": "TCYX"})
    with pytest.raises(ImageError, match="axes TCYX"):
        read_image(tmp_path / "a.ome.tif")


def test_what_is_no_path() -> None:
    with pytest.raises(ImageError, match=r"not a path|does not exist"):
        read_image("a\0b.png")
    with pytest.raises(ImageError, match="not a path"):
        read_image(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_a_few_bytes_do_not_become_gigabytes(tmp_path: Path, kind: str) -> None:
    black = np.broadcast_to(np.uint8(0), (12_000, 12_000))
    path = tmp_path / f"black.{kind}"
    if kind == "png":
        Image.fromarray(np.asarray(black)).save(path, compress_level=9)
    else:
        tifffile.imwrite(path, black, compression="zlib", rowsperstrip=12_000)
    with pytest.raises(ImageError, match=r"unpack to 137 MB, which no image of things does"):
        read_image(path)


def test_only_formats_of_the_list_are_read_whatever_the_name(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.ico")
    (tmp_path / "a.ico").rename(tmp_path / "a.png")
    with pytest.raises(ImageError, match="not an image that can be read"):
        read_image(tmp_path / "a.png")
    Image.fromarray(COLOUR).save(tmp_path / "b.webp", lossless=True)
    (tmp_path / "b.webp").rename(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), COLOUR)
    Image.new("RGB", (30, 20), (10, 200, 90)).save(tmp_path / "c.avif")
    assert np.abs(read_image(tmp_path / "c.avif").astype(int) - (10, 200, 90)).max() < 6


def exif_of(value: int, kind: int = 3, entries: int = 0) -> bytes:
    """EXIF with an orientation, and entries that each say they hold half of it."""
    pairs = [(0x0112, kind, 1, value), *((0x0400 + n, 7, 6 * entries, 8) for n in range(entries))]
    fields = b"".join(struct.pack("<HHII", *pair) for pair in pairs)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(pairs)) + fields + bytes(68)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    "exif", [exif_of(0), exif_of(60_000), exif_of(40, 5), exif_of(0x36, 2), exif_of(6)[:22]], ids=range(5)
)
def test_an_orientation_that_is_none_turns_nothing(tmp_path: Path, suffix: str, exif: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.fromarray(COLOUR).save(path, exif=exif)
    assert read_image(path).shape == COLOUR.shape and image_size(path) == COLOUR.shape[:2]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif"])
def test_exif_of_many_entries_is_read_without_a_word(tmp_path: Path, suffix: str) -> None:
    """In these tests a warning is an error: Pillow has one for each entry that cannot be true."""
    path = tmp_path / f"a.{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.fromarray(COLOUR).save(path, exif=exif_of(6, entries=4000))
    assert read_image(path).shape == (30, 20, 3) and image_size(path) == (30, 20)


def test_a_large_image_of_something_is_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 4, (12_000, 12_000), np.uint8)
    tifffile.imwrite(tmp_path / "noise.tif", noise)
    assert read_image(tmp_path / "noise.tif").shape == noise.shape
