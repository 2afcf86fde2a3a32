"""Labels of every origin read as the same numbers."""

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_samexp.errors import StoreError
from napari_samexp.io.label_edits import EditableLabels
from napari_samexp.io.labels import LabelStore
from napari_samexp.measure.masks import array_masks, open_masks
from napari_samexp.types import FrameResult, ObjectScore, RunIdentity

LABELS = np.zeros((3, 12, 16), np.uint8)
LABELS[0, 2:6, 3:9] = 1
LABELS[1, 4:9, 1:4] = 2
LABELS[2, 0, 0] = 1


def make_store(path, labels=LABELS, frames=None, presence=2.0):
    identity = RunIdentity("v", "p", "m", "s")
    names = {1: "cat", 2: "dog"}
    with LabelStore.create(path, shape=labels.shape, labels=names, identity=identity) as store:
        for index in range(len(labels)) if frames is None else frames:
            there = {label: bool((labels[index] == label).any()) for label in names}
            scores = {label: ObjectScore(presence if there[label] else -1.0, 0.75) for label in names}
            store.write(FrameResult(index, labels[index].astype(np.uint16), scores))
    return path


def written(folder, kind):
    path = folder / kind
    if kind == "store.zarr":
        return make_store(path)
    if kind == "plain.zarr":
        zarr.create_array(path, data=LABELS)
    elif kind == "group.zarr":
        group = zarr.open_group(path, mode="w")
        group.create_array("0", shape=LABELS.shape, dtype=LABELS.dtype)[:] = LABELS
    elif kind == "stack.tif":
        tifffile.imwrite(path, LABELS, metadata={"axes": "TYX"}, photometric="minisblack")
    else:
        path.mkdir()
        for index, frame in enumerate(LABELS):
            image = Image.fromarray(frame)
            if kind == "palette":
                image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
            image.save(path / f"{index * 5}.png")  # 0, 5, 10: natural order
    return path


@pytest.mark.parametrize("kind", ["store.zarr", "plain.zarr", "group.zarr", "stack.tif", "palette", "gray"])
def test_every_kind_gives_the_same_numbers(tmp_path, kind):
    with open_masks(written(tmp_path, kind)) as masks:
        assert masks.shape == LABELS.shape and masks.frames == [0, 1, 2]
        assert all((masks.frame(index) == LABELS[index]).all() for index in range(3))
        assert masks.names == ({1: "cat", 2: "dog"} if kind == "store.zarr" else {})


def test_a_store_gives_only_finished_frames(tmp_path):
    with open_masks(make_store(tmp_path / "s.zarr", frames=[0, 2])) as masks:
        assert masks.frames == [0, 2] and masks.scores[2][1].presence == 2.0


def test_a_store_tells_which_frames_were_painted(tmp_path):
    EditableLabels(make_store(tmp_path / "s.zarr", frames=[0, 2]))[2, 0, 0] = 1
    with open_masks(tmp_path / "s.zarr") as masks:
        assert masks.edited() == {2}
        (tmp_path / "s.zarr" / "edited.json").write_text("{")
        assert masks.frame(0).any()  # labels are read without it
        with pytest.raises(StoreError, match="which frames were painted"):
            masks.edited()


def test_one_image_is_one_frame(tmp_path):
    Image.fromarray(LABELS[0] > 0).save(tmp_path / "m.png")
    with open_masks(tmp_path / "m.png") as masks:
        assert masks.shape == (1, 12, 16) and (masks.frame(0) == LABELS[0]).all()


def test_an_array_is_labels_too():
    assert array_masks(LABELS[0]).shape == (1, 12, 16)
    assert (array_masks(LABELS)[1] == LABELS[1]).all()
    with pytest.raises(StoreError, match="whole numbers"):
        array_masks(LABELS.astype(float))
    with pytest.raises(StoreError, match="T, Y, X"):
        array_masks(LABELS[None])


def test_what_are_no_labels(tmp_path):
    colour = np.zeros((4, 5, 3), np.uint8)
    Image.fromarray(colour).save(tmp_path / "rgb.png")
    tifffile.imwrite(tmp_path / "rgb.tif", colour, photometric="rgb")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text("{}")
    for name, phrase in (
        ("rgb.png", "colours"), ("rgb.tif", "colours"), ("text.png", "cannot be read"),
        ("nothing", "no mask images"), ("bad.zarr", "no zarr array"), ("none", "does not exist"),
    ):  # fmt: skip
        with pytest.raises(StoreError, match=phrase), open_masks(tmp_path / name):
            pass


@pytest.mark.parametrize("place", ["m.png", "folder/0.png"])
def test_a_mask_that_its_bytes_cannot_hold_is_refused_by_its_header(tmp_path, place, monkeypatch):
    (tmp_path / "folder").mkdir()
    Image.new("L", (13_000, 13_000)).save(tmp_path / place, compress_level=9)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("its pixels were unpacked"))
    with pytest.raises(StoreError, match="unpack to 161 MB"), open_masks(tmp_path / place.split("/")[0]):
        pass
