"""Images of any format as arrays."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from napari_samexp.errors import ImageError, SamexpError
from napari_samexp.io._paths import readable_file
from napari_samexp.io._tiff import MAX_PIXELS, TiffStack, is_tiff, known_orientation, require_honest

__all__ = ["IMAGE_SUFFIXES", "image_size", "opened_image", "read_image"]

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)

# Those of the suffixes, and GIF and AVIF. Pillow knows others, of which some run a program (EPS, WMF), and some
# unpack before their size can be known (ICO, ICNS).
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
_EXPECTED = "an image (png, jpg, tif, ...) or, for one frame of a video, VIDEO@FRAME such as clip.mp4@12"
_ORIENTATION = 0x0112
_PNG_MARK = b"\x89PNG\r\n\x1a\n"
AnyArray = npt.NDArray[Any]


def read_image(path: str | os.PathLike[str]) -> AnyArray:
    """Return an image as it is in its file, upright.

    PNG, JPEG, JPEG 2000, TIFF, WebP, AVIF, BMP, GIF, TGA or PPM, whatever its suffix. Of a file with several
    images, the first.

    Parameters
    ----------
    path : str or Path
        ``~`` is filled in.

    Returns
    -------
    array, shape (H, W), (H, W, 3) or (H, W, 4)
        The file's own type: uint8 for most, uint16 for 16-bit PNG and TIFF, bool for black and white,
        float32 for float TIFF. A palette, CMYK and the like become RGB. `to_rgb8` makes it 8-bit RGB.

    Raises
    ------
    ImageError
        If there is no such file, or it is empty, broken, no image, or of more than 179 million pixels.
    """
    file = readable_file(path, ImageError, _EXPECTED)
    if is_tiff(file):
        with closing(TiffStack(file)) as stack:
            return _upright(stack.frame(0), stack.orientation)
    with opened_image(file) as image:
        orientation = _orientation(image)
        return _upright(_deep_png(file) if _is_deep_png(file) else _values(image), orientation)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return the (height, width) of an upright image from its header, without decoding it.

    Raises
    ------
    ImageError
        As `read_image`, as far as a header shows it.
    """
    file = readable_file(path, ImageError, _EXPECTED)
    if is_tiff(file):
        with closing(TiffStack(file)) as stack:
            (height, width), orientation = stack.frame_shape[:2], stack.orientation
    else:
        with opened_image(file) as image:
            (width, height), orientation = image.size, _orientation(image)
    return (width, height) if orientation >= 5 else (height, width)


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """Open an image with Pillow for the block, in which its size can be relied on and nothing is decoded yet.

    Raises
    ------
    ImageError
        For whatever goes wrong in the block; and before it, if the image is of another format, or has too many
        pixels for any image or for its own bytes.
    """
    try:
        # Pillow warns of each odd entry, of which a file may have as many as it likes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                if math.prod(image.size) > MAX_PIXELS:
                    raise Image.DecompressionBombError
                require_honest(path, math.prod(image.size) * _pixel_bytes(image), path.stat().st_size)
                yield image
    except SamexpError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} has more than {MAX_PIXELS} pixels; make it smaller.") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path} is not an image that can be read; give {_EXPECTED}.", code="image-unreadable"
        ) from error
    except Exception as error:  # damaged bytes raise anything, also syntax, struct and zlib errors
        raise ImageError(f"{path} is broken ({error}); copy or save it again.") from error


def _pixel_bytes(image: Image.Image) -> int:
    return {"1": 1, "L": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}.get(image.mode, 4)


def _orientation(image: Image.Image) -> int:
    # a PNG may say it behind its pixels, which would have to be decoded to find out
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        return known_orientation(image.getexif().get(_ORIENTATION))
    except Exception:  # damage there is none to the pixels
        return 1


def _upright(image: AnyArray, orientation: int) -> AnyArray:
    if orientation in (2, 7):
        image = image[:, ::-1]
    elif orientation in (4, 5):
        image = image[::-1]
    turns = {3: 2, 5: -1, 6: -1, 7: -1, 8: 1}.get(orientation, 0)
    return np.ascontiguousarray(np.rot90(image, turns))


def _values(image: Image.Image) -> AnyArray:
    mode = image.mode
    if mode in ("P", "PA", "LA", "La", "RGBa"):
        has_alpha = mode != "P" or "transparency" in image.info
        return np.array(image.convert("RGBA" if has_alpha else "RGB"))
    if mode not in ("1", "L", "I", "F", "RGB", "RGBA") and not mode.startswith("I;16"):
        return np.array(image.convert("RGB"))
    values = np.array(image)
    if mode == "I" and image.format in ("PNG", "PPM"):  # older Pillow widens their 16 bits
        return values.astype(np.uint16)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _is_deep_png(path: Path) -> bool:
    """Return whether a PNG has 16 bits a colour, of which Pillow would drop the lower 8."""
    with path.open("rb") as file:
        head = file.read(26)
    return head.startswith(_PNG_MARK) and head[24] == 16 and head[25] != 0


def _deep_png(path: Path) -> AnyArray:
    import av  # for these images alone, and it takes long

    decoder: Any = av.CodecContext.create("png", "r")
    frames = [*decoder.decode(av.Packet(path.read_bytes())), *decoder.decode(None)]
    return np.array(frames[0].to_ndarray(format="rgb48le"))
