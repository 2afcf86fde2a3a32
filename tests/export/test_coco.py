"""COCO's run lengths: cases made by hand, and masks that come back."""

import json

import numpy as np
import pytest

from napari_samexp.errors import StoreError
from napari_samexp.export.coco import decode_rle, encode_rle, write_coco
from napari_samexp.measure.masks import Masks
from napari_samexp.types import ObjectScore


def test_counts_made_by_hand():
    mask = np.array([[0, 1], [1, 1], [0, 0]], bool)
    # down the columns: 0 1 0 | 1 1 0, so 1 outside, 1 inside, 1 outside, 2 inside, 1 outside;
    # the last two less the numbers two before: 2 - 1 = 1, 1 - 1 = 0; each plus 48
    assert encode_rle(mask) == {"size": [3, 2], "counts": "11110"}


def test_a_mask_that_begins_inside_and_a_negative_difference():
    mask = np.zeros((1, 12), bool)
    mask[0, [0, 1, 2, 3, 4, 9]] = True
    # 0 outside, 5 inside, 4 outside, 1 inside (1 - 5 = -4), 2 outside (2 - 4 = -2)
    assert encode_rle(mask)["counts"] == "054" + chr(48 + (-4 & 31)) + chr(48 + (-2 & 31))


def test_a_number_of_more_than_five_bits():
    # 1000 = 0b11111_01000: the low group with its sixth bit set, then 31, whose top bit would be a sign, so a third
    counts = encode_rle(np.zeros((40, 25), bool))["counts"]
    assert counts == chr(48 + (8 | 32)) + chr(48 + (31 | 32)) + chr(48)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97, 1.0])
def test_masks_come_back(share):
    random = np.random.default_rng(7)
    for shape in ((1, 1), (1, 40), (33, 1), (64, 81), (300, 200)):
        mask = random.random(shape) < share
        assert (decode_rle(encode_rle(mask)) == mask).all()
    blocks = np.kron(random.random((9, 11)) < share, np.ones((31, 45), bool))
    assert (decode_rle(encode_rle(blocks)) == blocks).all()


def test_counts_that_do_not_fill_the_mask_are_refused():
    with pytest.raises(StoreError, match="do not fill"):
        decode_rle({"size": [3, 3], "counts": "11110"})


def test_the_file(tmp_path):
    labels = np.zeros((3, 10, 12), np.uint8)
    labels[0, 1:4, 2:7] = 1
    labels[2, 5:7, 0:3] = 2
    scores = {t: {1: ObjectScore(1.0, 0.5), 2: ObjectScore(1.0, 0.25)} for t in (0, 2)}
    write_coco(
        tmp_path / "c.json",
        Masks(labels.shape, lambda t: labels[t], {1: "cat", 2: ""}, scores),
        video="a.mp4",
    )
    made = json.loads((tmp_path / "c.json").read_text())
    assert [(i["id"], i["file_name"]) for i in made["images"]] == [(1, "a.mp4@0"), (3, "a.mp4@2")]
    first, second = made["annotations"]
    assert first["bbox"] == [2, 1, 5, 3] and first["area"] == 15 and first["score"] == 0.5
    assert (second["image_id"], second["category_id"], second["track_id"]) == (3, 2, 2)
    assert (decode_rle(second["segmentation"]) == (labels[2] == 2)).all()
    assert made["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "object 2"}]
