"""What a TIFF file says of itself is believed only as far as the file holds it."""

from __future__ import annotations

import builtins
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_samexp.errors import ImageError, VideoError
from napari_samexp.io._tiff_survey import survey
from napari_samexp.io.image import read_image
from napari_samexp.io.video import open_video

FRAMES = np.random.default_rng(3).integers(0, 255, (4, 20, 30), np.uint8)
OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="a"><Pixels ID="b" '
    'DimensionOrder="XYZCT" SizeX="30" SizeY="20" SizeZ="{z}" SizeC="1" SizeT="{t}" Type="uint8">{data}</Pixels></Image></OME>'
)
DATA = (
    '<TiffData IFD="0" FirstT="{t}" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{name}</UUID></TiffData>'
)


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}], ids=str)
def test_pages_and_the_description_are_counted(tmp_path: Path, options: dict[str, Any]) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif", **options) as file:
        for frame in FRAMES:
            file.write(frame, contiguous=False)
    found = survey(tmp_path / "a.tif")
    assert (found.pages, found.smallest) == (4, 600)
    with tifffile.TiffFile(tmp_path / "a.tif") as read:
        assert found.description == read.pages[0].description


def test_pages_before_a_cut_are_counted(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for frame in FRAMES:
            file.write(frame, contiguous=False)
    whole = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as read:
        last = read.pages[3].offset
    (tmp_path / "a.tif").write_bytes(whole[:last])
    assert survey(tmp_path / "a.tif").pages == 3
    np.testing.assert_array_equal(open_video(tmp_path / "a.tif")[2][..., 0], FRAMES[2])


def ome(path: Path, frames: np.ndarray, *, data: str = "", z: int = 1, t: int = 1) -> Path:
    with tifffile.TiffWriter(path) as file:
        for number, frame in enumerate(frames):
            text = OME.format(data=data, z=z, t=t) if not number else None
            file.write(frame, description=text, metadata=None, contiguous=False)
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of all files opened meanwhile."""
    paths: list[str] = []

    def noting(real: Any) -> Any:
        return lambda path, *more, **named: (paths.append(str(path)), real(path, *more, **named))[1]

    for place, name in ((builtins, "open"), (io, "open"), (os, "open")):
        monkeypatch.setattr(place, name, noting(getattr(place, name)))
    return paths


@pytest.mark.parametrize(
    "name", ["other.tif", "../other.tif", "{folder}/other.tif", "\\\\host\\share\\other.tif", "pipe"]
)
def test_an_ome_tiff_opens_no_other_file(tmp_path: Path, opened: list[str], name: str) -> None:
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "other.tif", FRAMES[3])
    tifffile.imwrite(tmp_path / "in" / "other.tif", FRAMES[3])
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "in" / "pipe")
    named = name.format(folder=tmp_path)
    path = ome(tmp_path / "in" / "a.ome.tif", FRAMES[:1], data=DATA.format(t=0, name=named))
    opened.clear()
    np.testing.assert_array_equal(read_image(path), FRAMES[0])  # its own page
    with open_video(path) as video:
        np.testing.assert_array_equal(video[0][..., 0], FRAMES[0])
    assert {Path(each).resolve() for each in opened if each.endswith(("tif", "pipe"))} == {path}


def test_one_file_of_an_ome_set_has_its_own_pages(tmp_path: Path) -> None:
    data = "".join(DATA.format(t=n, name=name) for n, name in enumerate(("a.ome.tif", "b.ome.tif")))
    path = ome(tmp_path / "a.ome.tif", FRAMES[:2], data=data, t=4)
    ome(tmp_path / "b.ome.tif", FRAMES[2:], data=data, t=4)
    np.testing.assert_array_equal(open_video(path)[:][..., 0], FRAMES[:2])


def test_one_file_of_a_set_with_more_axes_is_refused(tmp_path: Path) -> None:
    data = "".join(DATA.format(t=n, name=name) for n, name in enumerate(("a.ome.tif", "b.ome.tif")))
    with pytest.raises(VideoError, match=r"only some of the images.*with the axes Z beside time"):
        open_video(ome(tmp_path / "a.ome.tif", FRAMES, data=data, t=4, z=2))


def test_an_ome_tiff_that_was_renamed_is_whole(tmp_path: Path) -> None:
    data = "".join(
        DATA.format(t=n, name="old.ome.tif").replace('IFD="0"', f'IFD="{3 - n}"') for n in range(4)
    )
    path = ome(tmp_path / "new.ome.tif", FRAMES, data=data, t=4)
    np.testing.assert_array_equal(open_video(path)[:][..., 0], FRAMES[::-1])  # in the order described


def test_an_acquisition_that_was_cut_short_has_the_pages_that_are_there(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.ome.tif", FRAMES, data='<TiffData IFD="0" PlaneCount="1000"/>', t=1000)
    np.testing.assert_array_equal(open_video(path)[:][..., 0], FRAMES)


@pytest.mark.parametrize("text", ['{"shape": [100000000, 20, 30]}', '{"shape": [1000, 1000, 20, 30]}'])
def test_more_images_than_the_file_has_are_refused(tmp_path: Path, text: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FRAMES[0], description=text, metadata=None)
    with pytest.raises(ImageError, match=r"says that it has \d+ images, and the file ends before"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("value", [0, 9, 60_000])
def test_an_orientation_that_is_none_turns_nothing(tmp_path: Path, value: int) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FRAMES[0], extratags=[(274, "H", 1, value, True)])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), FRAMES[0])


def test_a_file_whose_description_is_another_has_its_own_pages(tmp_path: Path) -> None:
    text = '<?xml version="1.0"?><OME xmlns="{}"><BinaryOnly MetadataFile="other.ome.xml" UUID="urn:uuid:0"/></OME>'
    space = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for frame in FRAMES:
            file.write(frame, description=text.format(space), metadata=None, contiguous=False)
    np.testing.assert_array_equal(open_video(tmp_path / "a.ome.tif")[:][..., 0], FRAMES)
