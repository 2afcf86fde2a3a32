"""Position encodings from a file's tables alone: equal to Meta's and to the models', and clear about what is missing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_samexp.errors import CheckpointError, SettingsError
from napari_samexp.posenc.tables import PositionTables, read_tables
from napari_samexp.sam.encoding_spec import (
    MAP_DTYPES,
    MAX_SIDE,
    MAX_VALUES,
    EncodingSpec,
    require_grid,
    require_part,
)
from napari_samexp.sam.position_encoding import axial_rope, rotate
from napari_samexp.sam.vit import _distances
from napari_samexp.sam.weights.loading import load_model, metadata_for
from tests.parity import golden, parity

ABSOLUTE_FAMILIES = [family for family in golden.FAMILIES if family != "EdgeTAM"]
GRIDS = ((2, 2), (10, 10), (8, 8), (5, 40), (33, 20))
TABLE = "image_encoder.pos_embed"
BACKGROUND = "image_encoder.trunk.pos_embed"
WINDOW = "image_encoder.trunk.pos_embed_window"


def tables_of(family: str) -> PositionTables:
    return read_tables(parity.SELECTION / f"{golden.FAMILIES[family]}_state.safetensors")


def write(path: Path, **tables: torch.Tensor) -> Path:
    save_file({key.replace("__", "."): value.contiguous() for key, value in tables.items()}, path)
    return path


# ---- equal to the models and to Meta's


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("family", ABSOLUTE_FAMILIES)
def test_the_absolute_map_is_the_models(models: dict[str, Any], family: str, grid: tuple[int, int]) -> None:
    expected = models[family].position_encoding(grid).numpy()
    np.testing.assert_array_equal(tables_of(family).values("absolute", grid), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", ABSOLUTE_FAMILIES)
def test_other_types_are_what_the_model_adds_in_them(models: dict[str, Any], family: str, dtype: str) -> None:
    path = parity.SELECTION / f"{golden.FAMILIES[family]}_state.safetensors"
    model = load_model(path, device="cpu", variant=models[family].variant)
    model.to(getattr(torch, dtype))  # as on a GPU; on a CPU, bfloat16 is that of the large products alone
    tables = read_tables(path)
    for grid in GRIDS:
        expected = model.position_encoding(grid)
        assert expected.dtype == getattr(torch, dtype)
        made = tables.values("absolute", grid, dtype=dtype)
        np.testing.assert_array_equal(made, expected.float().numpy())
        error = tables.values("absolute", grid, dtype=f"{dtype}-error")
        np.testing.assert_array_equal(error, made - tables.values("absolute", grid))
        assert 0 < np.abs(error).max() < 0.02 * np.abs(made).max()


def test_metas_composed_maps(tmp_path: Path) -> None:
    golds = golden.load(parity.SELECTION, "sam2_hiera_pos_embed")
    seen = 0
    for name, expected in golds.tensors.items():
        if match := re.fullmatch(r"(\w+)\.composed_(\d+)x(\d+)_bhwc", name):
            own = {BACKGROUND: golds[f"{match[1]}.pos_embed"], WINDOW: golds[f"{match[1]}.pos_embed_window"]}
            save_file(own, tmp_path / "tables.safetensors")
            made = read_tables(tmp_path / "tables.safetensors").values(
                "absolute", (int(match[2]), int(match[3]))
            )
            scale = float(expected.abs().max())
            np.testing.assert_allclose(made, expected[0].permute(2, 0, 1), rtol=0, atol=1e-5 * scale)
            seen += 1
    assert seen >= 2


def test_metas_first_block_has_seen_sam_1s_map(sam1: Any) -> None:
    golds = golden.load(parity.SELECTION, "sam_v1_image_encoder")
    shown = torch.from_numpy(tables_of("SAM 1").values("absolute")).permute(1, 2, 0)
    with torch.inference_mode():
        made = sam1.image_encoder.blocks[0](golds["patch_embed"] + shown)
    expected = golds["block_0"]
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5 * float(expected.max() - expected.min()))


@pytest.mark.parametrize("family", ["SAM 2", "SAM 2.1"])
def test_the_two_parts_add_up(models: dict[str, Any], family: str) -> None:
    model, grid = models[family], (21, 34)
    tables = tables_of(family)
    window = tables.values("window", grid)
    background = tables.values("absolute", grid, window_tile=False)
    np.testing.assert_allclose(background + window, tables.values("absolute", grid), atol=1e-6)
    np.testing.assert_array_equal(window, model.position_encoding(grid, background=False).numpy())
    np.testing.assert_array_equal(background, model.position_encoding(grid, window_tile=False).numpy())
    with pytest.raises(SettingsError, match="Neither"):
        model.position_encoding(grid, background=False, window_tile=False)


@pytest.mark.parametrize("family", ["SAM 2", "SAM 2.1"])
def test_memory_maps_are_metas(family: str) -> None:
    golds = golden.load(parity.SELECTION, f"{golden.FAMILIES[family]}_memory_attention")
    places, tables = golds["full7.memory_pos"][:, 0], tables_of(family)
    # the prompted frame comes first, then the frames from 6 back to 1 back, then pointers
    for place, which in enumerate(("prior", 6, 5, 4, 3, 2, 1)):
        made = tables.values(f"memory:{which}", (8, 8)).reshape(tables.part("times").channels, 64).T
        np.testing.assert_allclose(made, places[64 * place : 64 * (place + 1)], rtol=0, atol=1e-5)


def test_times_are_the_memories_less_their_sine(models: dict[str, Any]) -> None:
    tables = tables_of("SAM 2.1")
    times = tables.values("times")
    assert times.shape == (8, 1, 7)
    difference = tables.values("memory:prior", (5, 6)) - tables.values("memory:2", (5, 6))
    expected = (times[:, :, 6] - times[:, :, 1])[..., None]
    np.testing.assert_allclose(difference, np.broadcast_to(expected, difference.shape), atol=1e-6)


def test_the_rotary_map_is_what_turning_makes_of_one_and_zero() -> None:
    made = tables_of("SAM 2.1").values("rotary", (6, 9))
    unit = torch.zeros(1, 54, 32)
    unit[..., 0::2] = 1
    turned = rotate(unit, axial_rope(32, (6, 9), torch.device("cpu")))[0].T.reshape(32, 6, 9)
    np.testing.assert_array_equal(made, turned.numpy())


@pytest.mark.parametrize(("block", "grid"), [(0, (4, 4)), (1, (10, 10)), (1, (7, 12)), (3, (2, 3))])
def test_relative_maps_hold_what_the_encoder_adds_for_every_query_and_key(
    sam1: Any, block: int, grid: tuple[int, int]
) -> None:
    made = tables_of("SAM 1").values(f"relative:{block}", grid)
    assert made.shape == (16, 2 * grid[0] - 1, 2 * grid[1] - 1)
    attention = sam1.image_encoder.blocks[block].attn
    rows = _distances(attention.rel_pos_h, grid[0]).numpy()
    columns = _distances(attention.rel_pos_w, grid[1]).numpy()
    rng = np.random.default_rng(0)
    for _ in range(20):
        qy, ky = rng.integers(0, grid[0], 2)
        qx, kx = rng.integers(0, grid[1], 2)
        place = made[:, grid[0] - 1 + ky - qy, grid[1] - 1 + kx - qx]
        np.testing.assert_allclose(place, rows[qy, ky] + columns[qx, kx], atol=1e-6)


# ---- what there is


def test_parts_of_sam_1_are_its_table_and_its_blocks() -> None:
    parts = tables_of("SAM 1").parts
    assert [part.name for part in parts] == ["absolute", *(f"relative:{i}" for i in range(4))]
    assert [part.resizable for part in parts] == [True, False, True, False, True]  # windows keep their size
    assert not parts[0].tiled and parts[0].grid_hw == (10, 10)


def test_names_and_grids_come_from_the_file(tmp_path: Path, models: dict[str, Any]) -> None:
    model = models["SAM 2.1"]
    path = tmp_path / "own.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path, metadata_for(model.variant))
    tables = read_tables(path)
    assert (tables.name, tables.family, tables.weights) == (model.variant.name, "SAM 2.1", "own.safetensors")
    assert tables.part("absolute").grid_hw == (32, 32) and tables.part("absolute").tiled
    assert tables.part("rotary").grid_hw == tables.part("memory:1").grid_hw == (8, 8)
    assert tables.values().shape == (8, 32, 32)


def test_a_pickle_gives_the_same(tmp_path: Path) -> None:
    state = golden.load(parity.SELECTION, "sam2_state").tensors
    torch.save({"model": state}, tmp_path / "sam2.pt")
    made = read_tables(tmp_path / "sam2.pt").values("absolute", (20, 20))
    np.testing.assert_array_equal(made, tables_of("SAM 2").values("absolute", (20, 20)))


@pytest.mark.parametrize("name", ["sam.pth", "sam.safetensors"])
def test_the_file_is_let_go_of(tmp_path: Path, name: str) -> None:
    state = golden.load(parity.SELECTION, "sam_v1_state").tensors
    path = tmp_path / name
    torch.save(state, path) if name.endswith("pth") else save_file(state, path)
    tables = read_tables(path)
    before = tables.values("absolute").copy()
    with path.open("r+b") as file:  # what is mapped would change along
        file.write(bytes(path.stat().st_size))
    np.testing.assert_array_equal(tables.values("absolute"), before)
    kept = sum(table.nbytes for table in tables.tables.values())
    assert kept < sum(tensor.nbytes for tensor in state.values()) / 4


def test_values_are_nobodys_tables() -> None:
    tables = tables_of("SAM 1")
    for name in ("absolute", "relative:0"):
        before = tables.values(name)
        tables.values(name)[:] = 7
        np.testing.assert_array_equal(tables.values(name), before)


def test_a_family_without_absolute_table_still_shows_its_memories(tmp_path: Path) -> None:
    path = write(tmp_path / "edge.safetensors", maskmem_tpos_enc=torch.rand(7, 1, 1, 64))
    tables = read_tables(path)
    assert tables.values("memory:3", (16, 16)).shape == (64, 16, 16)
    with pytest.raises(CheckpointError, match=r"edge has no position encoding 'absolute'; it has memory:1"):
        tables.values("absolute")


# ---- refusals


@pytest.mark.parametrize("family", ABSOLUTE_FAMILIES)
def test_a_missing_part_is_named_beside_those_that_there_are(family: str) -> None:
    missing = "rotary" if family == "SAM 1" else "relative:0"
    with pytest.raises(CheckpointError, match=f"no position encoding '{missing}'; it has absolute"):
        tables_of(family).values(missing)


def test_many_blocks_are_named_as_a_range() -> None:
    parts = [EncodingSpec(f"relative:{i}", "", "", 8, (4, 4)) for i in range(32)]
    with pytest.raises(CheckpointError, match="it has relative:0 to relative:31"):
        require_part(parts, "rotary", "sam_vit_h")


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ((0, 5), f"0 x 5 tokens; give 1 to {MAX_SIDE}"),
        ((5, -1), "5 x -1"),
        ((MAX_SIDE + 1, 5), f"1 to {MAX_SIDE}"),
        ((5, 10**12), f"1 to {MAX_SIDE}"),
        ((2.5, 4), "whole tokens"),
        ((True, 4), "whole tokens"),
        ((4, 4, 4), "whole tokens"),
    ],
)
@pytest.mark.parametrize("family", ABSOLUTE_FAMILIES)
def test_grids_that_cannot_be_are_refused_with_the_limit(
    models: dict[str, Any], family: str, grid: Any, words: str
) -> None:
    any_model = models[family]
    with pytest.raises(SettingsError, match=re.escape(words)):
        any_model.position_encoding(grid)
    with pytest.raises(SettingsError, match=re.escape(words)):
        tables_of("SAM 2.1").values("absolute", grid)


def test_too_many_values_are_refused_before_they_are_made() -> None:
    with pytest.raises(SettingsError, match=f"{MAX_VALUES / 1e6:.0f} million is the limit"):
        require_grid((MAX_SIDE, MAX_SIDE), 1280)
    assert require_grid((128, 128), 1280) == (128, 128)


def test_windows_and_times_have_one_grid() -> None:
    with pytest.raises(SettingsError, match="never used on another grid than 4 x 4"):
        tables_of("SAM 1").values("relative:0", (8, 8))
    with pytest.raises(SettingsError, match="1 x 7"):
        tables_of("SAM 2").values("times", (2, 7))
    assert tables_of("SAM 1").values("relative:0", (4, 4)).shape == (16, 7, 7)


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(SettingsError, match=f"choose {', '.join(MAP_DTYPES)}"):
        tables_of("SAM 1").values(dtype="int8")


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"other": torch.ones(3)}, "no position encodings; expected"),
        ({TABLE: torch.full((1, 4, 4, 8), torch.nan)}, "not finite"),
        ({TABLE: torch.ones(4, 4, 8)}, r"shape \(4, 4, 8\), which no SAM model has"),
        ({BACKGROUND: torch.ones(1, 8, 4, 4), WINDOW: torch.ones(1, 6, 4, 4)}, "8 channels and the window"),
        ({BACKGROUND: torch.ones(1, 8, 4, 4)}, "no position encodings"),
        ({"maskmem_tpos_enc": torch.ones(5, 1, 1, 8)}, "which no SAM model has"),
        ({"image_encoder.blocks.0.attn.rel_pos_h": torch.ones(6, 8)}, "which no SAM model has"),
    ],
)
def test_files_with_other_tables_are_refused(tmp_path: Path, tables: Any, words: str) -> None:
    save_file(tables, tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match=words):
        read_tables(tmp_path / "odd.safetensors")


# ---- EdgeTAM


def edgetam_tables(models: dict[str, Any], folder: Path) -> PositionTables:
    state = load_file(parity.SELECTION / "edgetam_state.safetensors")
    save_file(state, folder / "edgetam.safetensors", metadata_for(models["EdgeTAM"].variant))
    return read_tables(folder / "edgetam.safetensors")


def test_edgetam_has_its_perceivers_rotary_and_memory_encodings(
    models: dict[str, Any], tmp_path: Path
) -> None:
    model, tables = models["EdgeTAM"], edgetam_tables(models, tmp_path)
    variant = model.variant
    assert [part.name for part in tables.parts] == [
        *("rotary", "perceiver"),
        *(f"memory:{k}" for k in range(1, 7)),
        *("memory:prior", "times"),
    ]
    perceiver = load_file(parity.SELECTION / "edgetam_perceiver.safetensors")
    np.testing.assert_allclose(tables.values("perceiver"), perceiver["in.pos"].squeeze(0), atol=1e-6)
    windows = perceiver["out_pos"].reshape(-1, variant.mem_dim)[variant.num_latents :]
    learned = model.maskmem_tpos_enc[6, 0, 0]
    made = tables.values("memory:prior").reshape(variant.mem_dim, -1).T
    np.testing.assert_allclose(made, windows + learned, atol=1e-5)


def test_edgetams_queries_are_spread_over_its_own_grid(models: dict[str, Any], tmp_path: Path) -> None:
    tables = edgetam_tables(models, tmp_path)
    own = tables.part("rotary").grid_hw
    attention = models["EdgeTAM"].memory_attention.layers[0].cross_attn_image
    for grid in (own, (own[0] // 2, own[1] * 2)):
        cos, sin = attention.frame_rope(grid, torch.device("cpu"))
        made = tables.values("rotary", grid).reshape(-1, grid[0] * grid[1])
        np.testing.assert_allclose(made[0::2], cos.T, atol=1e-6)
        np.testing.assert_allclose(made[1::2], sin.T, atol=1e-6)


def test_edgetam_says_that_it_has_no_absolute_encoding(models: dict[str, Any], tmp_path: Path) -> None:
    tables = edgetam_tables(models, tmp_path)
    with pytest.raises(CheckpointError, match="no position encoding 'absolute'; it has rotary, perceiver"):
        tables.values()
    with pytest.raises(SettingsError, match="never used on another grid"):
        tables.values("memory:1", (3, 3))
