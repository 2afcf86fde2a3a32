"""TIFF files, one page at a time: single images, and stacks as microscopes and ImageJ write them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from napari_samexp.errors import ImageError
from napari_samexp.io._tiff_survey import own_ome, survey

__all__ = ["MAX_PIXELS", "TiffStack", "is_tiff", "known_orientation", "require_honest"]

# Where Pillow refuses too: a file of a few bytes can claim to be as large as it likes.
MAX_PIXELS = 2 * 89_478_485

# A file may unpack to this much whatever its size, and to more only as far as images of things do
FREE_BYTES = 128 * 2**20
MAX_RATIO = 100

# What tifffile would follow to other files, or read as slides and gels are read
_LEFT_OUT = frozenset(
    [
        "avs",
        "bif",
        "eer",
        "indica",
        "mdgel",
        "micromanager",
        "mmstack",
        "ndpi",
        "ndtiff",
        "philips",
        "qpi",
        "scn",
        "sis",
        "svs",
    ]
)

_ORIENTATION = 274
_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
AnyArray = npt.NDArray[Any]


def require_honest(path: Path, unpacked: int, packed: int) -> None:
    """Raise `ImageError` if an image takes so much more memory than bytes of its file that it can only be a bomb."""
    if unpacked > max(FREE_BYTES, MAX_RATIO * packed):
        raise ImageError(
            f"{path} says that {packed} bytes of it unpack to {unpacked / 2**20:.0f} MB, which no image of things "
            "does; make it smaller, or save it without compression."
        )


def known_orientation(value: Any) -> int:
    """Return an EXIF orientation, 1 to 8; 1 for whatever else a file may say."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def is_tiff(path: Path) -> bool:
    """Return whether a file begins as a TIFF does."""
    with path.open("rb") as file:
        return file.read(4) in _MARKS


class TiffStack:
    """The images of a TIFF file, read when asked for.

    The first axis is time, whatever the file calls it; a file with one image has one frame.

    Attributes
    ----------
    count : int
        How many images there are.
    frame_shape : tuple of int
        (Y, X) or (Y, X, C) with C of 1, 3 or 4, as in the file.
    orientation : int
        The EXIF orientation, 1 to 8, which `frame` does not apply.

    Raises
    ------
    ImageError
        If the file is broken, too large, or has more axes than time, Y, X and colour.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        try:
            self._file = self._opened()
            self._read_layout()
        except ImageError:
            self.close()
            raise
        except Exception as error:  # damaged bytes raise anything, also struct, key and zlib errors
            self.close()
            raise ImageError(f"{path} is a broken TIFF file ({error}); copy or save it again.") from error

    def _opened(self) -> Any:
        """Return the file as tifffile sees it, with no page but its own."""
        found = survey(self._path)
        self._held = found.pages
        ome = own_ome(self._path, found)
        kinds: dict[str, Any] = {f"is_{kind}": False for kind in _LEFT_OUT & tifffile.TIFF.FILE_FLAGS}
        return tifffile.TiffFile(self._path, **kinds, **({"omexml": ome} if ome else {"is_ome": False}))

    def _read_layout(self) -> None:
        series = self._file.series[0]
        self._require_held(series)
        shape, axes, self._pages = tuple(series.shape), series.axes, list(series.pages)
        self._keyframe = series.keyframe
        alike = [s for s in self._file.series if tuple(s.shape) == shape and s.dtype == series.dtype]
        if len(self._pages) == 1 and 1 < len(alike) == len(self._file.series):  # saved one at a time
            self._pages = [other.pages[0] for other in alike]
            shape, axes = (len(alike), *shape), "I" + axes
        if len(shape) == 2 or (len(shape) == 3 and (shape[-1] in (3, 4) or axes.startswith("S"))):
            shape, axes = (1, *shape), "I" + axes
        self.count, self._stored = int(shape[0]), shape[1:]
        self._planar = len(self._stored) == 3 and axes[1] in "SC" and self._stored[0] in (1, 3, 4)
        self.frame_shape = (*self._stored[1:], self._stored[0]) if self._planar else self._stored
        self._require_usable(shape, axes)
        self.dtype = np.dtype(series.dtype).newbyteorder("=")
        self.orientation = self._orientation()
        self._read = self._reader(series, shape)

    def _require_held(self, series: Any) -> None:
        """Raise `ImageError` if a file describes more images than it has, as pages or one behind the other."""
        planes = math.prod(series.shape) // max(1, math.prod(series.keyframe.shape))
        nbytes = math.prod(series.shape) * series.dtype.itemsize
        end = math.inf if series.dataoffset is None else series.dataoffset + nbytes
        if planes > self._held and end > self._path.stat().st_size:
            raise ImageError(
                f"{self._path} says that it has {planes} images, and the file ends before; copy or save it again."
            )

    def _require_usable(self, shape: tuple[int, ...], axes: str) -> None:
        frame = self.frame_shape
        if 0 in shape or len(frame) not in (2, 3) or (len(frame) == 3 and frame[-1] not in (1, 3, 4)):
            raise ImageError(
                f"{self._path} has the axes {axes} with the shape {shape}; expected at most one time axis, "
                "then Y and X, and 1, 3 or 4 colours. Save one channel and one plane of it.",
                code="image-unreadable",
            )
        if math.prod(frame[:2]) > MAX_PIXELS:
            raise ImageError(
                f"{self._path} says it is {frame[1]} wide and {frame[0]} high, more than {MAX_PIXELS} "
                "pixels; make it smaller."
            )

    def _orientation(self) -> int:
        tag = self._keyframe.tags.get(_ORIENTATION)
        return known_orientation(None if tag is None else tag.value)

    def _reader(self, series: Any, shape: tuple[int, ...]) -> Callable[[int], AnyArray]:
        # ImageJ writes large stacks as one page and raw numbers behind it, so pages do not always help
        if series.dataoffset is not None and math.prod(series.shape) == math.prod(shape):
            try:
                mapped = np.memmap(
                    self._path,
                    dtype=self._file.byteorder + series.dtype.char,
                    mode="r",
                    offset=series.dataoffset,
                    shape=shape,
                )
            except ValueError:  # cut short: the pages before the cut can still be read
                pass
            else:
                return lambda index: _shown(self._keyframe, np.array(mapped[index]))
        return self._from_pages

    def _from_pages(self, index: int) -> AnyArray:
        each = len(self._pages) // self.count
        parts = [self._page(page) for page in self._pages[index * each : (index + 1) * each]]
        return (parts[0] if each == 1 else np.stack(parts)).reshape((*self._stored, *self._colours(parts[0])))

    def _colours(self, part: AnyArray) -> tuple[int, ...]:
        """Return the axis that a palette adds to the stored shape."""
        return (3,) if part.ndim == 3 and len(self._stored) == 2 else ()

    def _page(self, page: Any) -> AnyArray:
        colours = 3 if self._keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE else 1
        packed = min(sum(page.databytecounts), self._path.stat().st_size)
        require_honest(self._path, page.nbytes * colours, packed)
        try:
            return _shown(self._keyframe, page.asarray())
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
        with Image.open(
            self._path, formats=("TIFF",)
        ) as file:  # knows LZW and JPEG, which tifffile leaves to imagecodecs
            file.seek(page.index)
            if file.size != (page.imagewidth, page.imagelength):
                raise ValueError(f"its size is given twice, as {file.size} too")
            image = file.convert("RGB") if file.mode in ("P", "CMYK", "YCbCr") else file
            return np.asarray(image)

    def frame(self, index: int) -> AnyArray:
        """Return image `index`, 0 to count - 1, in the file's own type; `ImageError` if it is damaged."""
        try:
            stored = self._read(index)
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(
                f"Image {index} of {self._path} cannot be read ({error}); save the file again without "
                "compression."
            ) from error
        frame = np.moveaxis(stored, 0, -1) if self._planar else stored
        return frame.astype(frame.dtype.newbyteorder("="), copy=False)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _shown(page: Any, data: AnyArray) -> AnyArray:
    """Return what a page's numbers look like: a palette's colours, and white on black where 0 is white."""
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
        colours: AnyArray = (page.colormap >> 8).astype(np.uint8).T
        return colours[data]
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and data.dtype.kind in "bu":
        return np.invert(data)
    return data
