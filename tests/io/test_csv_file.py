"""Tables that people open in spreadsheets: names come from files, and are never formulas there."""

from __future__ import annotations

import ast
import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import napari_samexp
from napari_samexp.errors import StoreError
from napari_samexp.io.csv_file import write_csv
from napari_samexp.measure.comparison import Cell, Comparison
from napari_samexp.measure.evaluation import evaluate_masks
from napari_samexp.measure.masks import Masks
from napari_samexp.measure.regions import regions_of, write_regions_csv

EVIL = '=HYPERLINK("http://x")\x1b[2J'
SHOWN = '\'=HYPERLINK("http://x")[2J'


def written(path: Path, *cells: Any) -> list[str]:
    write_csv(path, [str(number) for number in range(len(cells))], [cells])
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t=", "\r=", "\n+", " =", "\0=", "\x1b=", "＝", "＠"])
def test_a_text_that_begins_a_formula_has_an_apostrophe(tmp_path: Path, sign: str) -> None:
    (cell,) = written(tmp_path / "t.csv", f"{sign}1+1|cmd")
    assert cell == f"'{sign.strip()[-1:]}1+1|cmd"


def test_a_cell_of_a_spreadsheet_that_separates_by_semicolons_is_no_formula_either(tmp_path: Path) -> None:
    assert written(tmp_path / "t.csv", "cat; =1+1;a=b") == ["cat; '=1+1;a=b"]


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    numbers = (-0.5, -3, np.float64(-1e-9), np.int64(-7), float("-inf"))
    cells = written(tmp_path / "t.csv", *numbers, "", None)
    assert [float(cell) for cell in cells[:5]] == [float(number) for number in numbers]
    assert cells[5:] == ["", ""]


def test_other_text_comes_back_as_it_was(tmp_path: Path) -> None:
    texts = ["cat", 'cat, "the" black', "a=b-c+d@e", "Füchse", "猫", "👩‍🚀", "C:\\clips\\1.mp4", "'quoted'"]
    assert written(tmp_path / "t.csv", *texts) == texts


def test_what_controls_a_terminal_is_dropped_and_breaks_become_spaces(tmp_path: Path) -> None:
    evil = "a\x1b]0;title\x07b\r\nc\td\x7f\x9b\u2028\ud800e\0"
    assert written(tmp_path / "t.csv", evil) == ["a]0;titleb  c de"]


def test_a_head_is_text_too(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", ["=1"], [])
    assert (tmp_path / "t.csv").read_text() == "'=1\n"


def test_a_disk_that_refuses_keeps_the_older_table(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Could not write the table"):
        write_csv(tmp_path / "nowhere" / "t.csv", ["a"], [])


def masks() -> Masks:
    frames = np.ones((1, 4, 4), np.uint8)
    return Masks((1, 4, 4), lambda index: frames[index], {1: EVIL})


def test_every_table_of_names_is_safe(tmp_path: Path) -> None:
    made = evaluate_masks(masks(), masks())
    made.write_frames_csv(tmp_path / "frames.csv")
    made.write_labels_csv(tmp_path / "labels.csv")
    write_regions_csv(tmp_path / "regions.csv", regions_of(masks()))
    Comparison((EVIL,), ("c",), (Cell(EVIL, "c", "v", "s", error=EVIL),), {}).write_csv(tmp_path / "c.csv")
    for path in tmp_path.glob("*.csv"):
        with path.open(newline="") as file:
            (row,) = list(csv.reader(file))[1:]
        assert SHOWN in row and EVIL not in row
        assert "\x1b" not in path.read_text()


def test_there_is_one_writer() -> None:
    root = Path(napari_samexp.__file__).parent
    for path in root.rglob("*.py"):
        names = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert "csv" not in names or path.name == "csv_file.py", path
