"""Labels written as TIFF, PNG and OME-Zarr read back as they were."""

import json

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_samexp.errors import StoreError
from napari_samexp.export.images import davis_palette, write_png_folder, write_tiff
from napari_samexp.export.ome_zarr import write_ome_zarr
from napari_samexp.measure.masks import Masks, array_masks, open_masks
from napari_samexp.types import ObjectScore

LABELS = np.zeros((4, 10, 14), np.uint16)
LABELS[:, 2:5, 3:9] = 1
LABELS[2, 6, 6] = 3
SCORES = {t: {1: ObjectScore(1.0, 0.5), 3: ObjectScore(1.0, 0.5)} for t in (0, 1, 2)}
MASKS = Masks(LABELS.shape, lambda t: LABELS[t], {1: "cat", 3: "dot"}, SCORES)


def test_the_palette_is_that_of_pascal_voc():
    colours = davis_palette().tolist()
    assert colours[:5] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert colours[8] == [64, 0, 0] and colours[255] == [224, 224, 192]


def test_png_folder(tmp_path):
    seen = []
    write_png_folder(tmp_path / "p", MASKS, on_frame=seen.append)
    assert seen == [0, 1, 2]
    assert sorted(f.name for f in (tmp_path / "p").iterdir()) == ["00000.png", "00001.png", "00002.png"]
    with Image.open(tmp_path / "p" / "00002.png") as image:
        assert image.mode == "P" and image.getpalette()[3:6] == [128, 0, 0]
        assert (np.array(image) == LABELS[2]).all()
    with pytest.raises(StoreError, match="not empty"):
        write_png_folder(tmp_path / "p", MASKS)
    with pytest.raises(StoreError, match="label 300"):
        write_png_folder(tmp_path / "q", array_masks(LABELS * 300))


def test_tiff(tmp_path):
    write_tiff(tmp_path / "t.tif", MASKS)
    with tifffile.TiffFile(tmp_path / "t.tif") as file:
        assert len(file.pages) == 3 and file.series[0].axes == "TYX" and file.series[0].dtype == np.uint8
        assert (file.asarray() == LABELS[:3]).all()
    write_tiff(tmp_path / "t.tif", array_masks(LABELS * 300), frames=[2])
    assert (tifffile.imread(tmp_path / "t.tif") == LABELS[2] * 300).all()
    assert [f.name for f in tmp_path.iterdir()] == ["t.tif"]


def test_ome_zarr(tmp_path):
    write_ome_zarr(tmp_path / "o.zarr", MASKS, fps=25)
    ome = json.loads((tmp_path / "o.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    level = ome["multiscales"][0]
    assert ome["version"] == "0.5" and [axis["name"] for axis in level["axes"]] == ["t", "y", "x"]
    assert level["datasets"][0]["coordinateTransformations"] == [{"type": "scale", "scale": [0.04, 1, 1]}]
    assert [p["label-value"] for p in ome["image-label"]["properties"]] == [1, 3]
    array = zarr.open_group(tmp_path / "o.zarr", mode="r")["0"]
    assert array.chunks == (1, 10, 14) and (array[:3] == LABELS[:3]).all() and not array[3].any()
    with open_masks(tmp_path / "o.zarr") as masks:
        assert (masks.frame(2) == LABELS[2]).all()
    with pytest.raises(StoreError, match="exists"):
        write_ome_zarr(tmp_path / "o.zarr", MASKS)


def test_a_fault_leaves_nothing_behind(tmp_path):
    def broken(index):
        if index:
            raise StoreError("no frame 1")
        return LABELS[0]

    for write in (write_ome_zarr, write_tiff):
        with pytest.raises(StoreError, match="no frame 1"):
            write(tmp_path / "out", Masks(LABELS.shape, broken, {1: "cat"}))
        assert not list(tmp_path.iterdir())


def test_ome_zarr_removes_nothing_of_anybody_else(tmp_path):
    """A folder of that name was taken for one left by a kill."""
    for name in (".o.zarr.partial", ".o.zarr.0123.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine")
    (tmp_path / ".link.zarr.partial").symlink_to(tmp_path / ".o.zarr.partial")
    write_ome_zarr(tmp_path / "o.zarr", MASKS)
    write_ome_zarr(tmp_path / "link.zarr", MASKS)
    with pytest.raises(StoreError, match="exists"):
        write_ome_zarr(tmp_path / "o.zarr", MASKS)

    def fail(frame):
        raise StoreError("The frame is gone.")

    with pytest.raises(StoreError, match="gone"):
        write_ome_zarr(tmp_path / "p.zarr", MASKS, on_frame=fail)
    mine = {".o.zarr.partial", ".o.zarr.0123.partial", ".link.zarr.partial"}
    assert {path.name for path in tmp_path.iterdir()} == mine | {"o.zarr", "link.zarr"}
    assert all((tmp_path / name / "notes.txt").read_text() == "mine" for name in mine)
