"""Areas, centroids and boxes that can be counted."""

import math

import numpy as np

from napari_samexp.measure.masks import Masks, array_masks
from napari_samexp.measure.regions import label_features, regions_of, track_points, write_regions_csv
from napari_samexp.types import ObjectScore

LABELS = np.zeros((3, 20, 30), np.uint8)
LABELS[0, 2:6, 10:20] = 1
LABELS[1, 3, 4] = 2
LABELS[2, 0:2, 28:30] = 1
SCORES = {
    t: {1: ObjectScore(p, 0.5 + t / 4), 2: ObjectScore(0.5, 0.1)} for t, p in enumerate((3.0, -2.0, 2.0))
}
MASKS = Masks(LABELS.shape, lambda index: LABELS[index], {1: "cat", 2: "dot"}, SCORES)


def test_place_and_size():
    rows = list(regions_of(MASKS))
    assert [(r.frame, r.label, r.area) for r in rows] == [
        (0, 1, 40), (0, 2, 0), (1, 1, 0), (1, 2, 1), (2, 1, 4), (2, 2, 0)
    ]  # fmt: skip
    first = rows[0]
    assert (first.x, first.y, first.left, first.top, first.width, first.height) == (14.5, 3.5, 10, 2, 10, 4)
    assert (first.presence, first.iou, first.name) == (3.0, 0.5, "cat")
    assert rows[2].x is None and rows[2].presence == -2.0


def test_labels_without_names_are_known_once_seen():
    rows = list(regions_of(array_masks(LABELS)))
    assert [(r.frame, r.label, r.area) for r in rows] == [
        (0, 1, 40),
        (1, 1, 0),
        (1, 2, 1),
        (2, 1, 4),
        (2, 2, 0),
    ]
    assert rows[0].presence is None


def test_tracks_are_centroids_by_label_and_time():
    data, features = track_points(regions_of(MASKS))
    assert data.tolist() == [[1, 0, 3.5, 14.5], [1, 2, 0.5, 28.5], [2, 1, 3, 4]]
    assert features["area"].tolist() == [40, 4, 1] and features["presence"].tolist() == [3, 2, 0.5]
    empty, none = track_points([])
    assert empty.shape == (0, 4) and len(none["iou"]) == 0


def test_features_of_the_labels():
    made = label_features(regions_of(MASKS))
    assert made["index"] == [1, 2] and made["name"] == ["cat", "dot"] and made["frames found"] == [2, 1]
    assert made["mean area"] == [22, 1] and made["mean presence"] == [1, 0.5] and made["mean IoU"][0] == 0.75
    assert math.isnan(label_features(regions_of(array_masks(LABELS)))["mean IoU"][0])


def test_the_table(tmp_path):
    write_regions_csv(tmp_path / "t.csv", regions_of(MASKS))
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0].startswith("frame,label,name,area,x,y,left") and len(lines) == 7
    assert lines[1] == "0,1,cat,40,14.5,3.5,10,2,10,4,3.0,0.5" and lines[3] == "1,1,cat,0,,,,,,,-2.0,0.75"
