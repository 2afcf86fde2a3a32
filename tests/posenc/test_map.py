"""PosencMap: what is shown of an encoding, and what is written of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_samexp import position_encoding
from napari_samexp.errors import CheckpointError, SettingsError, StoreError
from napari_samexp.posenc.map import PosencMap, frequency_order
from napari_samexp.posenc.sheet import save_sheet, viridis


@pytest.fixture
def made() -> PosencMap:
    values = np.random.default_rng(0).normal(size=(6, 9, 14)).astype(np.float32)
    return PosencMap(values, "tiny", "absolute", weights="tiny.pt")


def waves(*cycles: tuple[float, float], hw: tuple[int, int] = (32, 48)) -> PosencMap:
    y, x = np.mgrid[: hw[0], : hw[1]]
    turns = [fy * y / hw[0] + fx * x / hw[1] for fy, fx in cycles]
    return PosencMap(np.stack([np.sin(2 * np.pi * turn) + 3 for turn in turns]).astype(np.float32))


def test_the_norm_is_that_of_every_tokens_vector(made: PosencMap) -> None:
    np.testing.assert_allclose(made.norm(), np.linalg.norm(made.values, axis=0), rtol=1e-5)


def test_similarity_is_the_cosine_with_one_token(made: PosencMap) -> None:
    unit = made.values / np.linalg.norm(made.values, axis=0)
    expected = np.einsum("chw,c->hw", unit, unit[:, 3, 11])
    shown = made.similarity(3, 11)
    np.testing.assert_allclose(shown, expected, atol=1e-5)
    assert shown[3, 11] == pytest.approx(1) and shown.max() <= 1 and shown.min() >= -1


def test_a_token_of_zeros_is_like_nothing() -> None:
    values = np.ones((3, 2, 2), np.float32)
    values[:, 0, 1] = 0
    made = PosencMap(values)
    np.testing.assert_array_equal(made.similarity(0, 0), [[1, 0], [1, 1]])
    np.testing.assert_array_equal(made.similarity(0, 1), np.zeros((2, 2)))


@pytest.mark.parametrize("place", [(-1, 0), (9, 0), (0, 14)])
def test_places_and_channels_outside_are_refused(made: PosencMap, place: tuple[int, int]) -> None:
    with pytest.raises(SettingsError, match="9 x 14"):
        made.similarity(*place)
    for channel in (-1, 6):
        with pytest.raises(SettingsError, match="the map has 6"):
            made.channel(channel)


@pytest.mark.parametrize("values", [np.zeros((3, 4)), np.zeros((0, 4, 4)), np.zeros(5)])
def test_only_channels_of_a_grid_make_a_map(values: np.ndarray) -> None:
    with pytest.raises(SettingsError, match=r"expected \(C, h, w\)"):
        PosencMap(values)


def test_limits_are_percentiles(made: PosencMap) -> None:
    assert made.limits() == pytest.approx(np.percentile(made.values, (1, 99)))
    assert made.limits(2) == pytest.approx(np.percentile(made.values[2], (1, 99)))
    assert made.norm_limits() == pytest.approx(np.percentile(made.norm(), (1, 99)))


def test_limits_of_a_large_map_are_near() -> None:
    values = np.random.default_rng(1).normal(size=(200, 64, 64)).astype(np.float32)
    values *= np.linspace(0.1, 3, 64, dtype=np.float32)  # columns differ, and every one has to be met
    assert PosencMap(values).limits() == pytest.approx(np.percentile(values, (1, 99)), rel=0.03)


def test_limits_differ_where_values_do_not() -> None:
    flat = np.full((2, 4, 4), 3.0, np.float32)
    flat[0, 0, 0] += 1e-6  # rounding, which colours shall not blow up
    low, high = PosencMap(flat).limits()
    assert low < 3 < high and high - low > 1e-3
    low, high = PosencMap(np.zeros((2, 4, 4))).limits()
    assert low < 0 < high


@pytest.mark.parametrize("cycles", [(0, 5), (7, 0), (3, 4)])
def test_the_spectrum_of_a_wave_has_two_peaks(cycles: tuple[int, int]) -> None:
    spectrum = waves(cycles).spectrum(0)
    peaks = np.argwhere(spectrum > 0.5 * spectrum.max()) - np.array([16, 24])  # frequency 0 is in the middle
    assert sorted(map(tuple, peaks.tolist())) == sorted([cycles, (-cycles[0], -cycles[1])])
    assert spectrum[16, 24] < 1e-2  # the mean is left out


def test_dominant_frequencies_are_cycles_across_the_map() -> None:
    made = waves((0, 5), (7, 0), (3, 4), (0, 0))
    np.testing.assert_allclose(made.frequencies(), [5, 7, 5, 0])


def test_the_frequency_does_not_change_with_the_grid() -> None:
    for hw in ((32, 32), (16, 64), (51, 40)):
        np.testing.assert_allclose(waves((3, 4), hw=hw).frequencies(), [5])


def test_order_is_a_rank_correlation() -> None:
    rising = np.array([1, 2, 3, 9, 40], np.float32)
    assert frequency_order(rising) == pytest.approx(1)
    assert frequency_order(rising[::-1]) == pytest.approx(-1)
    assert frequency_order(np.array([1, 2, 2, 3])) == pytest.approx(0.9486833)  # ties share a rank
    assert frequency_order(np.ones(4)) == 0


def test_places_have_words() -> None:
    values = np.zeros((2, 7, 7))
    assert PosencMap(values).place(3, 5) == "token (3, 5)"
    assert PosencMap(values, kind="offsets").place(1, 6) == "key at (-2, +3)"
    times = PosencMap(np.zeros((2, 1, 7)), kind="frames")
    assert (times.place(0, 0), times.place(0, 6)) == ("1 back", "the prior")


# ---- files


def test_npy_is_the_array(made: PosencMap, tmp_path: Path) -> None:
    made.save(tmp_path / "map.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "map.npy"), made.values)
    made.save(tmp_path / "some.npy", channels=[4, 1])
    np.testing.assert_array_equal(np.load(tmp_path / "some.npy"), made.values[[4, 1]])


def page_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("name", ["map.tif", "MAP.TIFF"])
def test_tiff_is_a_stack_that_says_what_it_is(made: PosencMap, tmp_path: Path, name: str) -> None:
    made.save(tmp_path / name, channels=[5, 0, 2])
    with tifffile.TiffFile(tmp_path / name) as file:
        assert file.series[0].axes == "CYX"
        about = file.imagej_metadata
        np.testing.assert_array_equal(file.asarray(), made.values[[5, 0, 2]])
    assert about is not None and about["Labels"] == ["channel 5", "channel 0", "channel 2"]
    facts = json.loads(about["Info"])
    assert facts["model"] == "tiny" and facts["part"] == "absolute" and facts["channels"] == [5, 0, 2]
    assert (about["min"], about["max"]) == pytest.approx(made.limits())


def test_a_sheet_shows_norm_and_channels(made: PosencMap, tmp_path: Path) -> None:
    made.save(tmp_path / "one.png", channels=[3])
    page = page_of(tmp_path / "one.png")
    factor = 128 // 14
    left = 8 + 126 + 8  # beside the norm
    tile = page[30 : 30 + 9 * factor, left : left + 14 * factor]
    np.testing.assert_array_equal(tile[factor // 2 :: factor, factor // 2 :: factor], viridis(made.channel(3), made.limits()))  # fmt: skip


def test_contrast_can_be_each_channels_own(made: PosencMap, tmp_path: Path) -> None:
    quiet = PosencMap(np.concatenate([made.values, 1e-3 * made.values[:1]]))
    for name, own in (("global.png", False), ("own.png", True)):
        quiet.save(tmp_path / name, channels=[6], per_channel=own)
    flat, seen = (
        page_of(tmp_path / name)[30:111, 142:268].std(axis=(0, 1)).max() for name in ("global.png", "own.png")
    )
    assert seen > 10 * flat


def test_several_maps_share_a_sheet(made: PosencMap, tmp_path: Path) -> None:
    save_sheet(tmp_path / "one.png", [made])
    save_sheet(tmp_path / "two.png", [made, PosencMap(np.random.default_rng(3).normal(size=(40, 20, 20)))])
    one, two = (page_of(tmp_path / name) for name in ("one.png", "two.png"))
    assert len(two) > len(one) + 3 * 120  # 25 tiles of the second take three lines
    with pytest.raises(SettingsError, match="no map"):
        save_sheet(tmp_path / "none.png", [])


def test_viridis_is_naparis() -> None:
    pytest.importorskip("napari")
    from napari.utils.colormaps import ensure_colormap

    values = np.linspace(0, 1, 200).astype(np.float32)
    theirs = ensure_colormap("viridis").map(values)[:, :3] * 255
    assert np.abs(viridis(values, (0, 1)) - theirs).max() < 3.5
    np.testing.assert_array_equal(viridis(np.array([-9, 9], np.float32), (0, 1))[1], [253, 231, 37])


def test_a_refused_file_leaves_the_old_one(made: PosencMap, tmp_path: Path) -> None:
    for name in ("map.gif", "map"):
        with pytest.raises(SettingsError, match=r"give a path in \.npy, \.tif"):
            made.save(tmp_path / name)
    (tmp_path / "map.npy").write_bytes(b"old")
    with pytest.raises(SettingsError, match="no channel 77"):
        made.save(tmp_path / "map.npy", channels=[77])
    with pytest.raises(StoreError, match="Could not write the map"):
        made.save(tmp_path / "none" / "map.npy")
    assert [file.name for file in tmp_path.iterdir()] == ["map.npy"]
    assert (tmp_path / "map.npy").read_bytes() == b"old"


# ---- from a name


def test_from_a_name_to_a_map() -> None:
    made = position_encoding("starter", (10, 12), window_tile=False, dtype="bfloat16")
    assert made.values.shape == (40, 10, 12)
    assert (made.model, made.part, made.grid_hw, made.dtype) == ("starter", "absolute", (10, 12), "bfloat16")
    assert made.title == "starter · absolute, no window tile · 10 × 12 · bfloat16"
    whole = position_encoding("starter", part="rotary", window_tile=False)
    assert whole.grid_hw == (24, 24) and whole.window_tile  # it has no tile to leave out
    with pytest.raises(CheckpointError, match="no model of that name"):
        position_encoding("nobody")
