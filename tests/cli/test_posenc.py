"""``napari-samexp posenc``: what it writes, what it says, and that bad input writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_samexp import position_encoding
from napari_samexp.cli import run
from tests.parity import golden, parity

Shell = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Run a command line in a folder with the weights of two families."""
    for family in ("SAM 1", "SAM 2.1"):
        stem = f"{golden.FAMILIES[family]}_state.safetensors"
        (tmp_path / stem).write_bytes((parity.SELECTION / stem).read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAPARI_SAMEXP_CACHE", str(tmp_path / "cache"))

    def call(line: str) -> tuple[int, str, str]:
        status = run(line.split())
        out, err = capsys.readouterr()
        return status, out, err

    return call


def test_the_starters_own_grid_is_the_default(shell: Shell) -> None:
    status, out, err = shell("posenc --out maps.npy")
    assert (status, err) == (0, "")
    assert "starter: absolute, 40 channels of 96 x 96, float32" in out and "Saved to maps.npy" in out
    np.testing.assert_array_equal(np.load("maps.npy"), position_encoding("starter").values)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("--grid 5,9 --no-window-tile", {"grid_hw": (5, 9), "window_tile": False}),
        ("--grid 5x9 --part memory:2", {"grid_hw": (5, 9), "part": "memory:2"}),
        ("--dtype bfloat16-error --grid 8,8", {"grid_hw": (8, 8), "dtype": "bfloat16-error"}),
    ],
)
def test_options_choose_the_map(shell: Shell, options: str, wanted: dict) -> None:
    assert shell(f"posenc --model sam2.1_state.safetensors {options} --out maps.npy")[0] == 0
    expected = position_encoding("sam2.1_state.safetensors", **wanted)
    np.testing.assert_array_equal(np.load("maps.npy"), expected.values)


def test_some_channels_as_a_stack_and_facts_as_json(shell: Shell) -> None:
    status, out, _ = shell(
        "posenc --model sam_v1_state.safetensors --part relative:1 --channels 3,9:11 --out m.tif --json"
    )
    facts = json.loads(out)
    assert status == 0 and facts["out"] == "m.tif"
    made = position_encoding("sam_v1_state.safetensors", part="relative:1")
    assert facts["maps"][0]["shape"] == list(made.values.shape) == [16, 19, 19]
    assert facts["maps"][0]["maximum"] == float(made.values.max())
    np.testing.assert_array_equal(tifffile.imread("m.tif"), made.values[[3, 9, 10]])


def test_several_models_make_a_comparison_sheet(shell: Shell) -> None:
    status, out, _ = shell(
        "posenc --model starter --model sam_v1_state.safetensors --grid 12,12 --out sheet.png"
    )
    assert status == 0 and "starter: " in out and "sam_v1_state: absolute, 48 channels of 12 x 12" in out
    assert shell("posenc --model starter --grid 12,12 --out one.png")[0] == 0
    with Image.open("sheet.png") as both, Image.open("one.png") as one:
        assert both.height > 1.8 * one.height


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "Missing option '--out'"),
        ("--out m.gif", "give a path in .npy, .tif, .tiff, .png"),
        ("--out none/m.npy", "does not exist"),
        ("--out m.npy --model nobody", "no model of that name"),
        ("--out m.npy --grid 0,5", "give 1 to 1024"),
        ("--out m.npy --grid 5,4096", "give 1 to 1024"),
        ("--out m.npy --grid 5", "give H,W in tokens"),
        ("--out m.npy --grid=-3,5", "give H,W in tokens"),
        ("--out m.npy --part relative:0", "starter has no position encoding 'relative:0'; it has absolute"),
        ("--out m.npy --part times --grid 3,3", "never used on another grid than 1 x 7"),
        ("--out m.npy --model sam_v1_state.safetensors --part rotary", "it has absolute, relative:0 to"),
        ("--out m.npy --dtype int8", "choose float32"),
        ("--out m.npy --channels 3-9", "numbers and ranges such as"),
        ("--out m.npy --channels 9:9", "picks no channel"),
        ("--out m.npy --channels 40", "the map has 40"),
        ("--out m.npy --model starter --model starter", "one comparison sheet"),
        ("--out old.npy", "old.npy exists; give --overwrite"),
        ("--out w.npy --model w.npy --overwrite", "would overwrite the weights"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(shell: Shell, line: str, words: str) -> None:
    for name in ("old.npy", "w.npy"):
        Path(name).write_bytes(b"old")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    status, out, err = shell(f"posenc {line}")
    assert status == 2 and out == "" and err.count("\n") == 1
    assert words in err, err
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_overwrite_replaces(shell: Shell) -> None:
    Path("m.npy").write_bytes(b"old")
    assert shell("posenc --grid 3,4 --out m.npy --overwrite")[0] == 0
    assert np.load("m.npy").shape == (40, 3, 4)
