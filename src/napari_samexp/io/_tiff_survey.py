"""What a TIFF file holds, counted before a library believes what the file says of itself."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import ImageError

__all__ = ["TiffSurvey", "own_ome", "survey"]

# A sound file stores each value once, or a few that pages have in common
_MAX_SHARE = 2
_FREE_BYTES = 1 << 16
_MAX_TAGS = 4096  # more are damage to tifffile too
_MIN_TAGS, _MAX_BARE = 4, 100  # an image has more tags; some programs add a directory that is none
_WIDTH, _HEIGHT, _DESCRIPTION, _SUB_DIRECTORIES = 256, 257, 270, 330
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}

_MAX_LISTED = 1 << 20  # entries of a list that tifffile makes of an OME description

Entries = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class TiffSurvey:
    """What a TIFF file holds.

    Parameters
    ----------
    pages : int
        Directories in the chain that begins in the header, one an image.
    smallest : int
        Pixels of the smallest of them.
    description : str
        The ImageDescription of the first, "" if there is none.
    """

    pages: int
    smallest: int
    description: str


def survey(path: Path) -> TiffSurvey:
    """Count what a TIFF file holds, without its pixels.

    A chain that is cut short ends where it is cut, as in the libraries that read the file afterwards.

    Raises
    ------
    ImageError
        If directories form a loop, or list more bytes of values than the file can hold.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        form = _Form(path, data)
        pages, smallest, description = 0, 2**63, ""
        for entries, within in form.directories():
            if not pages:
                description = form.text(entries, _DESCRIPTION)
            pages += not within
            smallest = min(smallest, form.number(entries, _WIDTH) * form.number(entries, _HEIGHT))
        return TiffSurvey(pages, max(1, smallest), description)


class _Form:
    """The directories of a TIFF file, classic or BigTIFF."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data = path, data
        self._order = "<" if data[:2] == b"II" else ">"
        self._big = 43 in data[2:4]
        self._offset = np.dtype(f"{self._order}u{8 if self._big else 4}")
        self._count = np.dtype(f"{self._order}u{8 if self._big else 2}")
        short = f"{self._order}u2"
        self._entry = np.dtype(
            [("tag", short), ("kind", short), ("count", self._offset), ("value", self._offset)]
        )
        self._listed = self._bare = 0

    def directories(self) -> Iterator[tuple[Entries, bool]]:
        """Yield each directory's entries, and whether it lies within another instead of in the chain."""
        waiting, seen = [(self._at(8 if self._big else 4, self._offset), False)], set[int]()
        while waiting:
            offset, within = waiting.pop()
            entries = self._entries(offset)
            if entries is None:
                continue
            if offset in seen:
                raise ImageError(f"The images of {self._path} form a loop; it is damaged, so save it again.")
            seen.add(offset)
            self._require_held(entries)
            yield entries, within
            if not within:
                after = offset + self._count.itemsize + entries.nbytes
                waiting.append((self._at(after, self._offset), False))
            waiting += [(int(place), True) for place in self._values(entries, _SUB_DIRECTORIES)]

    def text(self, entries: Entries, tag: int) -> str:
        """Return the text of a tag, "" if there is none."""
        values = self._values(entries, tag)
        return values.tobytes().decode("utf-8", "replace").rstrip("\0") if values.itemsize == 1 else ""

    def number(self, entries: Entries, tag: int) -> int:
        """Return the first number of a tag, 0 if there is none."""
        values = self._values(entries, tag)
        return int(values[0]) if len(values) else 0

    def _at(self, offset: int, kind: np.dtype[Any]) -> int:
        """Return the number at an offset, 0 behind the end."""
        held = self._data[offset : offset + kind.itemsize]
        return int(np.frombuffer(held, kind)[0]) if len(held) == kind.itemsize else 0

    def _entries(self, offset: int) -> Entries | None:
        count, start = self._at(offset, self._count), offset + self._count.itemsize
        end = start + count * self._entry.itemsize
        if not offset or count > _MAX_TAGS or end > len(self._data):
            return None
        return np.frombuffer(self._data[start:end], self._entry)

    def _values(self, entries: Entries, tag: int) -> Entries:
        """Return the whole numbers or bytes of a tag's first entry; none if there is no such entry."""
        found = np.flatnonzero(entries["tag"] == tag)
        size = _SIZES.get(int(entries["kind"][found[0]]), 0) if len(found) else 0
        if not size:
            return np.empty(0, np.uint64)
        nbytes, place = int(entries["count"][found[0]]) * size, int(entries["value"][found[0]])
        if nbytes <= self._offset.itemsize:
            data = entries["value"][found[:1]].tobytes()[:nbytes]
        else:
            data = self._data[place : place + nbytes]
        return np.frombuffer(data[: len(data) // size * size], f"{self._order}u{size}")

    def _require_held(self, entries: Entries) -> None:
        """Raise `ImageError` if the directories up to these list more bytes than the file can hold."""
        sizes = entries["count"] * np.array(
            [_SIZES.get(int(kind), 0) for kind in entries["kind"]], np.float64
        )
        apart = (sizes > self._offset.itemsize) & (entries["value"] + sizes <= len(self._data))
        self._listed += int(sizes[apart].sum()) + entries.nbytes
        self._bare += len(entries) < _MIN_TAGS
        if self._bare > _MAX_BARE:
            raise ImageError(
                f"{self._path} has more than {_MAX_BARE} images without a size; it is damaged, so save it again."
            )
        if self._listed > _MAX_SHARE * len(self._data) + _FREE_BYTES:
            raise ImageError(
                f"{self._path} has {len(self._data)} bytes but lists more than {self._listed} bytes of values "
                "about its images; it is damaged, so save it again."
            )


def own_ome(path: Path, found: TiffSurvey) -> str | None:
    """Return a file's OME description without what could lead to other files or to more than the file holds.

    Returns
    -------
    str or None
        None if the file has no such description, or one of more pages than its own: then these are all.

    Raises
    ------
    ImageError
        If the pages that are described, but not all here, are not of one time axis.
    """
    root = _ome(found.description)
    if root is None:
        return None
    pixels = [part for image in _parts(root, "Image") for part in _parts(image, "Pixels")]
    if not pixels:  # they are described in another file
        return None
    files = {uuid.text for uuid in root.iter() if uuid.tag.endswith("UUID")}
    if len(files) <= 1 and _is_held(pixels, found):
        return _stripped(root)
    axes = [axis for part in pixels for axis, count in _counts(part).items() if axis != "T" and count > 1]
    if found.pages > 1 and axes:
        raise ImageError(
            f"{path} has only some of the images that it describes, with the axes {''.join(axes)} beside time; "
            "other files are not opened. Save one channel and one plane as one file."
        )
    return None


def _ome(description: str) -> ElementTree.Element | None:
    # OME needs no document type, which is where entities that grow are declared
    if not description.rstrip().endswith("OME>") or "<!DOCTYPE" in description:
        return None
    try:
        return ElementTree.fromstring(description)
    except ElementTree.ParseError:
        return None


def _parts(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [part for part in element if part.tag.endswith(name)]


def _counts(pixels: ElementTree.Element) -> dict[str, int]:
    """Return how many pages there are along each axis but Y and X."""
    order = pixels.attrib["DimensionOrder"][2:]
    counts = {axis: int(pixels.attrib[f"Size{axis}"]) for axis in order}
    samples = max((int(c.get("SamplesPerPixel", 1)) for c in _parts(pixels, "Channel")), default=1)
    if samples > 1 and "C" in counts:
        counts["C"] //= samples
    return counts


def _is_held(pixels: list[ElementTree.Element], found: TiffSurvey) -> bool:
    """Return whether a file has the pages that its description speaks of, each read a few times at most."""
    planes = [math.prod(max(1, count) for count in _counts(part).values()) for part in pixels]
    areas = [int(part.attrib["SizeX"]) * int(part.attrib["SizeY"]) for part in pixels]
    listed = sum(plane * area for plane, area in zip(planes, areas)) // found.smallest
    reads = sum(_reads(data) or found.pages for part in pixels for data in _parts(part, "TiffData"))
    return sum(planes) <= found.pages and reads <= 4 * found.pages and listed <= _MAX_LISTED


def _reads(data: ElementTree.Element) -> int:
    number = data.get("PlaneCount", data.get("NumPlanes", "1" if "IFD" in data.attrib else "0"))
    return max(0, int(number))


def _stripped(root: ElementTree.Element) -> str:
    root[:] = _parts(root, "Image")
    for data in [part for part in root.iter() if part.tag.endswith("TiffData")]:
        data[:] = []  # the files' names
    return ElementTree.tostring(root, "unicode")
