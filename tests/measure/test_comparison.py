"""A matrix of stores whose numbers are known, its files and its images."""

import json
import math
import os

import numpy as np
import pytest

from napari_samexp._text import LONGEST_NAME
from napari_samexp.errors import StoreError
from napari_samexp.io.labels import LabelStore
from napari_samexp.measure.comparison import Cell, Comparison, compare_column, measure_cell
from napari_samexp.render.comparison import best_and_worst, heat_maps, vary_charts
from napari_samexp.render.mp4 import write_mp4
from napari_samexp.types import FrameResult, ObjectScore, RunIdentity

SHAPE = (4, 20, 30)


def make_store(path, squares, presences, labels=(1,)):
    """Write a store with a square at each frame's column, None for nothing."""
    identity = RunIdentity("v", str(path), "m", "s")
    with LabelStore.create(path, shape=SHAPE, labels=labels, identity=identity) as store:
        for index, (left, presence) in enumerate(zip(squares, presences)):
            frame = np.zeros(SHAPE[1:], np.uint16)
            if left is not None:
                frame[5:15, left : left + 10] = labels[0]
            store.write(FrameResult(index, frame, {label: ObjectScore(presence, 0.5) for label in labels}))
    return str(path)


@pytest.fixture
def cells(tmp_path):
    write_mp4(tmp_path / "v.mp4", [np.full((20, 30, 3), 50 * t, np.uint8) for t in range(4)], 5)
    video = str(tmp_path / "v.mp4")
    one = make_store(tmp_path / "one.zarr", [0, 5, 5, None], [1.0, 2.0, 4.0, -3.0])
    two = make_store(tmp_path / "two.zarr", [0, 10, None, None], [1.0, 1.0, -1.0, -1.0], labels=(7,))
    return [
        Cell("a", "v", video, one),
        Cell("b", "v", video, two),
        Cell("c", "v", video, str(tmp_path / "none.zarr"), error="it broke"),
    ]


@pytest.fixture
def comparison(cells):
    measured, table = compare_column([measure_cell(cell) for cell in cells])
    return Comparison(("a", "b", "c"), ("v",), tuple(measured), {"v": table})


def test_what_a_store_says(cells):
    made = measure_cell(cells[0])
    assert (made.frames, made.presence, made.found, made.iou) == (4, 1.0, 0.75, 0.5)
    assert (made.best, made.worst) == (2, 3)
    none = measure_cell(cells[2])
    assert none.error == "it broke" and math.isnan(none.presence) and none.best is None


def test_frames_that_were_shown_before_do_not_count(cells):
    made = measure_cell(Cell("a", "v", cells[0].video, cells[0].store, skip=2))
    assert (made.frames, made.presence, made.found, made.best) == (2, 0.5, 0.5, 2)


def test_agreement_is_j_where_either_found_something(comparison):
    # frame 0: 1; frame 1: 5 of 15 columns; frame 2: 0; frame 3: neither, which is no agreement about anything
    expected = (1 + 5 / 15 + 0) / 3
    assert [cell.agreement for cell in comparison.cells[:2]] == pytest.approx([expected] * 2)
    assert math.isnan(comparison.cells[2].agreement)
    table = np.array(comparison.agreement["v"])
    assert table[0, 1] == table[1, 0] == pytest.approx(expected) and (np.diag(table) == 1).all()
    assert np.isnan(table[2, :2]).all()


def test_agreement_of_stores_with_different_beginnings(cells, tmp_path):
    late = make_store(tmp_path / "late.zarr", [None, 0, 5, 5], [1.0] * 4)
    agreed, _ = compare_column([cells[0], Cell("d", "v", cells[0].video, late, skip=1)])
    assert agreed[0].agreement == agreed[1].agreement == 1


def test_a_ground_truth_gives_j_and_f(cells, tmp_path):
    import tifffile

    ground_truth = np.zeros(SHAPE, np.uint8)
    for t, left in enumerate((0, 5, 5)):
        ground_truth[t, 5:15, left : left + 10] = 255
    tifffile.imwrite(tmp_path / "t.tif", ground_truth, photometric="minisblack")
    assert measure_cell(cells[0], tmp_path / "t.tif").jf == 1
    assert 0 < measure_cell(cells[1], tmp_path / "t.tif").jf < 1
    shifted = make_store(tmp_path / "skip.zarr", [3, 0, 5, 5], [1.0] * 4)
    late = measure_cell(Cell("d", "v", cells[0].video, shifted, skip=1), tmp_path / "t.tif")
    assert "truth" in late.error  # three frames against four


def test_files(comparison, tmp_path):
    comparison.save(tmp_path / "comparison.json")
    again = Comparison.load(tmp_path / "comparison.json")
    assert (again.rows, again.columns) == (comparison.rows, comparison.columns)
    assert again.cell(0, 0) == comparison.cell(0, 0) and math.isnan(again.cell(2, 0).iou)
    assert json.loads((tmp_path / "comparison.json").read_text())["cells"][0]["video"] == "v.mp4"
    comparison.write_csv(tmp_path / "c.csv")
    lines = (tmp_path / "c.csv").read_text().splitlines()
    assert len(lines) == 4 and lines[1].startswith("a,v,") and lines[3].endswith(",,,it broke")


def refused(path):
    """Return the one sentence with which a comparison is refused."""
    with pytest.raises(StoreError) as caught:
        Comparison.load(path)
    said = str(caught.value)
    assert str(path) in said and said.endswith(".") and "\n" not in said
    return said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 9}',
        '{"version": 1, "rows": ["a"], "columns": ["b"], "cells": [], "agreement": {}}',
        "[" * 100_000,
        "\ud800",
        '{"version": ' + "1" * 5000 + "}",
    ],
)
def test_what_is_no_comparison(tmp_path, text):
    (tmp_path / "c.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert "no comparison" in refused(tmp_path / "c.json")


WRONG = [
    (("version",), True, "version is not 1"),
    (("version",), 1.0, "version is not 1"),
    (("rows",), "abc", "rows are no list of names"),
    (("rows",), None, "rows are no list of names"),
    (("rows",), ["a", 5, "c"], "rows are no list of names"),
    (("columns",), [["v"]], "columns are no list of names"),
    (("columns",), {"v": 1}, "columns are no list of names"),
    (("rows",), ["a"], "cells are missing or too many"),
    (("rows",), ["a"] * 100_001, "more than 100000 cells"),
    (("cells",), {}, "cells are missing"),
    (("cells", 1), None, "cell 1 has not the entries"),
    (("cells", 1), {}, "cell 1 has not the entries"),
    (("cells", 0, "more"), 1, "cell 0 has not the entries"),
    (("cells", 0, "row"), 5, "row of cell 0"),
    (("cells", 0, "video"), None, "video of cell 0"),
    (("cells", 0, "video"), 7, "video of cell 0"),
    (("cells", 0, "store"), "a\0b", "store of cell 0"),
    (("cells", 0, "error"), ["x"], "error of cell 0"),
    (("cells", 0, "skip"), -1, "skip of cell 0"),
    (("cells", 0, "skip"), 1.5, "skip of cell 0"),
    (("cells", 0, "frames"), True, "frames of cell 0"),
    (("cells", 0, "best"), "3", "best of cell 0"),
    (("cells", 0, "best"), 10**30, "best of cell 0"),
    (("cells", 0, "presence"), "1.0", "presence of cell 0"),
    (("cells", 0, "presence"), True, "presence of cell 0"),
    (("cells", 0, "presence"), 10**400, "presence of cell 0"),
    (("cells", 0, "found"), [1.0], "found of cell 0"),
    (("cells", 0, "iou"), math.nan, "NaN"),
    (("cells", 0, "iou"), math.inf, "Infinity"),
    (("agreement",), None, "agreement is not of its columns"),
    (("agreement",), [], "agreement is not of its columns"),
    (("agreement",), {"other": []}, "agreement is not of its columns"),
    (("agreement", "v"), None, "no table of 3 x 3"),
    (("agreement", "v"), [[1, 1, 1]] * 2, "no table of 3 x 3"),
    (("agreement", "v"), [[1, 1, 1], [1, 1], [1, 1, 1]], "no table of 3 x 3"),
    (("agreement", "v"), [[1, 1, "x"]] * 3, "no table of 3 x 3"),
]


@pytest.mark.parametrize(("place", "value", "words"), WRONG)
def test_a_comparison_with_a_wrong_type_is_told_where(comparison, tmp_path, place, value, words):
    comparison.save(tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text())
    *there, last = place
    part = content
    for key in there:
        part = part[key]
    part[last] = value
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert words in refused(tmp_path / "c.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes among its files")
def test_a_comparison_that_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe or a device and no ordinary file" in refused(tmp_path / "pipe")
    assert "a pipe or a device and no ordinary file" in refused("/dev/zero")
    assert "a folder and no ordinary file" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "nothing")


def test_a_comparison_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "c.json").open("wb") as file:
        file.truncate(2**40)
    assert "at most" in refused(tmp_path / "c.json")


def test_a_comparison_may_be_a_link_that_a_person_made(comparison, tmp_path):
    comparison.save(tmp_path / "c.json")
    (tmp_path / "link.json").symlink_to(tmp_path / "c.json")
    assert Comparison.load(tmp_path / "link.json").rows == comparison.rows


def test_images(comparison):
    assert comparison.measures == ["presence", "found", "iou", "agreement"]
    maps = heat_maps(comparison)
    assert maps.dtype == np.uint8 and maps.shape[0] > 400
    sheet = best_and_worst(comparison)
    assert sheet.shape[1] > 4 * 200  # two of each store that is there
    charts = vary_charts("recent", ["0", "6", "x"], {"cat": [0, 1, 2]}, comparison)
    assert charts.shape == (4 * 360, 760, 3)


def test_images_of_nothing():
    empty = Comparison(("a",), ("v",), (Cell("a", "v", "none.mp4", "none.zarr", error="x"),), {})
    assert heat_maps(empty).shape == (8, 8, 3) and best_and_worst(empty).ndim == 3


def test_names_are_cut_when_a_comparison_is_read(comparison, tmp_path):
    comparison.save(tmp_path / "c.json")
    long = "v\n\x1b" + "x" * 10**5
    content = (tmp_path / "c.json").read_text().replace('"v"', json.dumps(long))
    (tmp_path / "c.json").write_text(content.replace('"it broke"', json.dumps("it\0\n" + "broke " * 10**4)))
    loaded = Comparison.load(tmp_path / "c.json")
    (column,) = loaded.columns
    assert column.startswith("v xxx") and len(column) == LONGEST_NAME
    assert loaded.cells[0].column == column and set(loaded.agreement) == {column}
    assert loaded.cells[2].error.startswith("it broke broke") and len(loaded.cells[2].error) <= 1000


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 3},
        {"rows": [["a"], "b", "c"]},
        {"columns": None},
        {"cells": [[], {}, "x"]},
        {"cells": None},
        {"agreement": []},
        {"agreement": {"v": 3}},
        *({"cell": {key: value}} for key in ("row", "video", "store", "error") for value in (3, None, ["a"])),
        *({"cell": {key: value}} for key in ("presence", "skip", "best") for value in ("1", [1], True, {})),
        *({"cell": {key: 10**400}} for key in ("presence", "skip", "best", "frames")),
        {"cell": {"other": 1}},
    ],
)
def test_values_of_other_kinds_are_a_sentence(comparison, tmp_path, change):
    comparison.save(tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text())
    content["cells"][0] |= change.pop("cell", {})
    (tmp_path / "c.json").write_text(json.dumps(content | change))
    with pytest.raises(StoreError, match="no comparison"):
        Comparison.load(tmp_path / "c.json")
