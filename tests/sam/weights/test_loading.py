"""From a file to a model: configurations, devices and number types, and files that do not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_samexp.errors import CheckpointError, SettingsError
from napari_samexp.sam import Sam1, Sam2, load_model
from napari_samexp.sam.weights import loading
from napari_samexp.sam.weights.loading import (
    CONFIG_KEY,
    DTYPES,
    choose_device,
    choose_dtype,
    identify_file,
    metadata_for,
)
from napari_samexp.types import Prompt
from tests.parity import golden, parity

STATES = {family: parity.SELECTION / f"{stem}_state.safetensors" for family, stem in golden.FAMILIES.items()}
IMAGE = np.random.default_rng(1).integers(0, 255, (40, 60, 3), np.uint8)


def described_file(model: Any, family: str, path: Path) -> Path:
    """Write a reference's weights with their configuration in the metadata."""
    save_file(load_file(STATES[family]), path, metadata_for(model.variant))
    return path


@pytest.mark.parametrize("family", golden.FAMILIES)
def test_a_reduced_file_loads_by_its_metadata(family: str, models: dict[str, Any], tmp_path: Path) -> None:
    path = described_file(models[family], family, tmp_path / "small.safetensors")
    model = load_model(str(path))
    assert model.variant == models[family].variant
    assert identify_file(path)[0] == model.variant
    ours, theirs = (m.encode(IMAGE).embedding for m in (model, models[family]))
    assert torch.equal(ours.cpu().float(), theirs)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("form", ["a variant", "a mapping"])
def test_a_reduced_file_loads_by_an_argument(form: str, suffix: str, sam21: Sam2, tmp_path: Path) -> None:
    state, path = load_file(STATES["SAM 2.1"]), tmp_path / f"small{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"model": state}, path)
    variant = sam21.variant if form == "a variant" else asdict(sam21.variant)
    model = load_model(path, device="cpu", variant=variant)
    assert model.variant == sam21.variant
    assert torch.equal(model.no_obj_ptr, sam21.no_obj_ptr)


def test_the_argument_outweighs_the_metadata(sam21: Sam2, tmp_path: Path) -> None:
    path = described_file(sam21, "SAM 2.1", tmp_path / "small.safetensors")
    model = load_model(path, device="cpu", variant=replace(sam21.variant, name="mine"))
    assert model.variant.name == "mine"


def test_a_model_is_ready_for_use_and_knows_its_file(tmp_path: Path, sam21: Sam2) -> None:
    path = described_file(sam21, "SAM 2.1", tmp_path / "small.safetensors")
    model = load_model(path, device="cpu")
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    assert model.weights == "small.safetensors"
    assert model.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


# ---- files that do not fit


def test_a_reduced_file_without_a_configuration_says_what_is_needed() -> None:
    with pytest.raises(CheckpointError, match="configuration") as error:
        load_model(STATES["SAM 2"])
    assert STATES["SAM 2"].name in str(error.value)


@pytest.mark.parametrize("family", golden.FAMILIES)
@pytest.mark.parametrize(
    ("spoil", "key"),
    [
        (lambda state, key: state.pop(key), None),
        (lambda state, key: state.update({key: state[key][..., :-1].clone()}), None),
        (lambda state, key: state.update({key: state[key][None].clone()}), None),
        (lambda state, _: state.update({"optimizer.step": torch.ones(1)}), "optimizer.step"),
    ],
    ids=["missing", "narrower", "one axis more", "unexpected"],
)
def test_a_file_that_does_not_fit_is_refused_by_its_first_keys(
    family: str, spoil: Callable[..., Any], key: str | None, models: dict[str, Any], tmp_path: Path
) -> None:
    state = load_file(STATES[family])
    broken = "mask_decoder.mask_tokens.weight" if family == "SAM 1" else "sam_mask_decoder.mask_tokens.weight"
    spoil(state, broken)
    save_file(state, tmp_path / "broken.safetensors", metadata_for(models[family].variant))
    with pytest.raises(CheckpointError, match=r"broken\.safetensors") as error:
        load_model(tmp_path / "broken.safetensors")
    assert f"'{key or broken}'" in str(error.value)
    with pytest.raises(CheckpointError):
        identify_file(tmp_path / "broken.safetensors")


def test_a_missing_click_table_is_a_checkpoint_error(sam21: Sam2, tmp_path: Path) -> None:
    """That table is put in place by itself, in float32."""
    state = load_file(STATES["SAM 2.1"])
    key = next(key for key in state if "gaussian_matrix" in key)
    del state[key]
    save_file(state, tmp_path / "broken.safetensors", metadata_for(sam21.variant))
    with pytest.raises(CheckpointError, match="gaussian_matrix"):
        load_model(tmp_path / "broken.safetensors")


def test_values_that_are_no_numbers_make_no_other_error(sam21: Sam2, tmp_path: Path) -> None:
    state = load_file(STATES["SAM 2.1"])
    state["no_mem_embed"][:] = torch.nan
    del state["no_obj_ptr"]
    save_file(state, tmp_path / "nan.safetensors", metadata_for(sam21.variant))
    with pytest.raises(CheckpointError, match="'no_obj_ptr'"):
        load_model(tmp_path / "nan.safetensors")


@pytest.mark.parametrize("text", ["{}", "not json", '{"version": "2.1"}', '{"depth": 4, "eval": "1"}'])
def test_a_hostile_configuration_is_a_checkpoint_error(text: str, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors", {CONFIG_KEY: text})
    for door in (load_model, identify_file):
        with pytest.raises(CheckpointError, match="configuration"):
            door(tmp_path / "odd.safetensors")


def test_the_configuration_of_another_family_is_refused(models: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "mixed.safetensors"
    save_file(load_file(STATES["SAM 1"]), path, metadata_for(models["SAM 2"].variant))
    with pytest.raises(CheckpointError, match="lacks"):
        load_model(path)


def test_an_argument_that_is_no_configuration_is_refused() -> None:
    with pytest.raises(CheckpointError, match="'shape'"):
        load_model(STATES["SAM 2"], variant={"shape": 3})
    with pytest.raises(CheckpointError, match="configuration"):
        load_model(STATES["SAM 2"], variant={"depth": np.int64(3)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float, sam21: Sam2, tmp_path: Path) -> None:
    state = load_file(STATES["SAM 2.1"])
    state["no_obj_ptr"][0, 1] = value
    path = tmp_path / "broken.safetensors"
    save_file(state, path, metadata_for(sam21.variant))
    with pytest.raises(CheckpointError, match="not finite numbers in 'no_obj_ptr'"):
        load_model(path, device="cpu")


def test_a_file_that_is_not_there_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        load_model(tmp_path / "none.safetensors")


# ---- devices and number types


def test_the_cpu_is_always_there() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("cpu:0").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize(
    "name", ["", "gpu", "cudaa", "cpu:x", "cpu:7", "cuda:-1", "cuda:99", "xpu", "meta", "vulkan:0"]
)
def test_an_unknown_device_is_a_settings_error(name: str) -> None:
    with pytest.raises(SettingsError, match="device"):
        choose_device(name)
    with pytest.raises(SettingsError):
        load_model(STATES["SAM 2"], device=name)


@pytest.mark.parametrize("there", ["cuda", "mps", "cpu"])
def test_auto_takes_the_best_device(there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there == "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 * (there == "cuda"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there == "mps")
    assert choose_device("auto").type == there
    if there == "cuda":
        assert choose_device("cuda:1") == torch.device("cuda:1")
        with pytest.raises(SettingsError, match="cuda:2"):
            choose_device("cuda:2")
    for other in {"cuda", "mps"} - {there}:
        with pytest.raises(SettingsError, match=f"no device '{other}'"):
            choose_device(other)


@pytest.mark.parametrize(
    ("name", "kind", "fast", "expected"),
    [
        ("auto", "cpu", True, torch.float32),
        ("fast", "cpu", True, torch.bfloat16),
        ("fast", "cpu", False, torch.float32),
        ("fast", "mps", True, torch.float32),
        ("fast", "cuda", True, torch.bfloat16),
        ("auto", "mps", True, torch.float32),
        ("auto", "cuda", True, torch.bfloat16),
        ("auto", "cuda", False, torch.float32),
        ("float32", "cuda", True, torch.float32),
        ("bfloat16", "cpu", False, torch.bfloat16),
        ("float16", "cuda", False, torch.float16),
    ],
)
def test_the_number_type_follows_name_and_device(
    name: str, kind: str, fast: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: fast)
    monkeypatch.setattr(loading, "gain", lambda: 2.3 if fast else 0.1)
    assert choose_dtype(name, torch.device(kind)) == expected


@pytest.mark.parametrize("name", ["", "float64", "half", "Float32", "torch.float32", "int8"])
def test_an_unknown_dtype_is_a_settings_error(name: str) -> None:
    with pytest.raises(SettingsError, match="bfloat16"):
        choose_dtype(name, torch.device("cpu"))
    with pytest.raises(SettingsError, match="dtype"):
        load_model(STATES["SAM 2"], dtype=name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", golden.FAMILIES)
def test_a_file_loads_in_every_number_type(family: str, dtype: str, models: dict[str, Any]) -> None:
    model = load_model(STATES[family], device="cpu", dtype=dtype, variant=models[family].variant)
    kind = choose_dtype(dtype, torch.device("cpu"))
    mixed = kind == torch.bfloat16 and family != "EdgeTAM"
    expected = torch.float32 if mixed else kind
    assert isinstance(model, Sam1 if family == "SAM 1" else Sam2)
    assert (model.dtype, model.compute_dtype) == (expected, str(kind).removeprefix("torch."))
    assert {parameter.dtype for parameter in model.parameters()} == {expected, kind}
    exact, encoder = models[family], "prompt_encoder" if family == "SAM 1" else "sam_prompt_encoder"
    ours, theirs = (getattr(m, encoder).pe_layer.positional_encoding_gaussian_matrix for m in (model, exact))
    assert ours.dtype == torch.float32  # rounded, clicks would be as well
    assert torch.equal(ours, theirs)
    features = model.encode(IMAGE)
    assert features.embedding.dtype == expected
    assert model.segment(features, Prompt.from_lists([[9, 9]])).mask().shape == (40, 60)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_file_of_halves_loads_in_any_type(dtype: str, sam21: Sam2, tmp_path: Path) -> None:
    path, state = tmp_path / "half.safetensors", load_file(STATES["SAM 2.1"])
    save_file({key: tensor.half() for key, tensor in state.items()}, path, metadata_for(sam21.variant))
    model = load_model(path, device="cpu", dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32, getattr(torch, dtype)}
    matrix = model.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    assert matrix.dtype == torch.float32
    assert torch.allclose(
        matrix, sam21.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix, rtol=1e-3
    )
    ours, theirs = (m.encode(IMAGE).embedding.float() for m in (model, sam21))
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 0.05
