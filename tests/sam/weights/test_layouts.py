"""Meta's 12 official files: their keys and shapes are our models', and files of these shapes load."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_samexp.errors import CheckpointError
from napari_samexp.sam import VARIANTS, EdgeTam, Sam1, Sam2, load_model
from napari_samexp.sam.identify import identify
from napari_samexp.sam.weights.catalogue import OFFICIAL
from napari_samexp.sam.weights.checkpoint import load_strict
from napari_samexp.sam.weights.loading import build, convert_state_dict, identify_file
from napari_samexp.types import Prompt

LAYOUTS: dict[str, Any] = json.loads(
    gzip.decompress((Path(__file__).parents[2] / "data" / "layouts.json.gz").read_bytes())
)
NAMES = {official.file: name for name, official in OFFICIAL.items()}


def meta_state(file: str) -> dict[str, Tensor]:
    """Return the state dict of an official file, without numbers."""
    return {key: torch.empty(shape, device="meta") for key, shape in LAYOUTS[file]["shapes"].items()}


def random_file(file: str, folder: Path) -> Path:
    """Write a file of an official one's keys, shapes and wrapping, with random numbers in it."""
    generator = torch.Generator().manual_seed(3)
    state = {
        key: torch.empty(shape).uniform_(-0.05, 0.05, generator=generator)
        for key, shape in LAYOUTS[file]["shapes"].items()
    }
    for key in state:
        if key.endswith(".running_var"):
            state[key] = state[key].abs() + 0.5
        elif key.endswith(".num_batches_tracked"):
            state[key] = torch.tensor(1000)
    torch.save(state if LAYOUTS[file]["flat"] else {"model": state}, folder / file)
    return folder / file


def test_there_are_twelve_official_files_of_known_sizes() -> None:
    assert len(LAYOUTS) == 12
    assert set(LAYOUTS) == set(NAMES)
    assert {NAMES[file] for file in LAYOUTS} == set(VARIANTS)


@pytest.mark.parametrize("file", LAYOUTS)
def test_a_model_has_exactly_the_keys_and_shapes_of_its_official_file(file: str) -> None:
    variant = VARIANTS[NAMES[file]]
    expected = {
        key: tuple(tensor.shape) for key, tensor in convert_state_dict(meta_state(file), variant).items()
    }
    ours = {key: tuple(tensor.shape) for key, tensor in build(variant).state_dict().items()}
    assert len(expected) == len(LAYOUTS[file]["shapes"])  # no two keys became one
    assert ours == expected


@pytest.mark.parametrize("file", LAYOUTS)
def test_every_official_file_is_told_from_the_others(file: str) -> None:
    assert identify(meta_state(file)) is VARIANTS[NAMES[file]]


@pytest.mark.parametrize("file", LAYOUTS)
def test_only_sam_1s_two_mlp_layers_are_renamed(file: str) -> None:
    state = meta_state(file)
    renamed = set(state) - set(convert_state_dict(state, VARIANTS[NAMES[file]]))
    assert renamed == {key for key in state if ".mlp.lin1." in key or ".mlp.lin2." in key}
    assert bool(renamed) == file.startswith("sam_vit")


@pytest.mark.parametrize("file", ["sam2.1_hiera_tiny.pt", "sam2_hiera_tiny.pt"])
def test_a_file_of_official_shapes_loads_segments_and_remembers(file: str, tmp_path: Path) -> None:
    path = random_file(file, tmp_path)
    model = load_model(path, device="cpu")
    assert isinstance(model, Sam2)
    assert model.variant is VARIANTS[NAMES[file]]
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    image = np.arange(50 * 70 * 3, dtype=np.uint8).reshape(50, 70, 3)
    features = model.encode(image, side=64)
    prediction = model.segment(features, Prompt.from_lists([[20, 30]]))
    assert prediction.mask().shape == (50, 70)
    assert np.isfinite(prediction.image_logits()).all()
    memory = model.remember(features, prediction)
    assert memory.spatial.shape == (64, 4, 4)
    assert memory.pointer.shape == (256,)
    assert identify_file(path)[0] is model.variant
    path.unlink()


def test_a_file_of_edgetams_shapes_loads_segments_and_remembers(tmp_path: Path) -> None:
    path = random_file("edgetam.pt", tmp_path)
    model = load_model(path, device="cpu")
    assert isinstance(model, EdgeTam)
    assert model.variant is VARIANTS["edgetam"]
    assert sum(parameter.numel() for parameter in model.parameters()) == 13_895_794
    counters = [t for key, t in model.state_dict().items() if key.endswith(".num_batches_tracked")]
    assert len(counters) > 100 and {int(t) for t in counters} == {1000}
    features = model.encode(np.arange(50 * 70 * 3, dtype=np.uint8).reshape(50, 70, 3), side=256)
    prediction = model.segment(features, Prompt.from_lists([[20, 30]]))
    assert np.isfinite(prediction.image_logits()).all()
    assert model.remember(features, prediction).spatial.shape == (64, 1, 512)
    assert identify_file(path)[0] is model.variant
    path.unlink()


def test_a_file_of_official_sam_1_shapes_loads_and_segments(tmp_path: Path) -> None:
    path = random_file("sam_vit_b_01ec64.pth", tmp_path)
    model = load_model(path, device="cpu")
    assert isinstance(model, Sam1)
    assert model.variant is VARIANTS["sam_vit_b"]
    features = model.encode(np.zeros((40, 30), np.uint8), side=64)
    prediction = model.segment(features, Prompt.from_lists(box=[2, 2, 20, 30]))
    assert prediction.mask().shape == (40, 30)
    assert prediction.presence is None
    path.unlink()


def flat_state(file: str) -> dict[str, Tensor]:
    """Return a state dict of official shapes whose numbers take no memory."""
    return {key: torch.zeros(1).expand(tensor.shape) for key, tensor in meta_state(file).items()}


def refused(state: dict[str, Tensor]) -> str:
    variant = identify(state)
    with pytest.raises(CheckpointError) as error:
        load_strict(build(variant), convert_state_dict(state, variant), source="the file")
    return str(error.value)


@pytest.mark.parametrize("key", ["memory_encoder.fuser.layers.1.gamma", "no_obj_ptr"])
def test_a_missing_key_is_named(key: str) -> None:
    state = flat_state("sam2_hiera_tiny.pt")
    del state[key]
    assert f"it lacks '{key}'" in refused(state)


def test_unexpected_keys_and_wrong_shapes_are_named() -> None:
    state = flat_state("sam2_hiera_tiny.pt")
    state["teacher.weight"] = torch.zeros(1)
    state["maskmem_tpos_enc"] = torch.zeros(6, 1, 1, 64)
    message = refused(state)
    assert "the unexpected 'teacher.weight'" in message
    assert "'maskmem_tpos_enc' (6, 1, 1, 64) instead of (7, 1, 1, 64)" in message


def test_half_of_a_files_keys_is_too_few_and_the_first_are_named() -> None:
    state = flat_state("sam_vit_b_01ec64.pth")
    for key in [key for key in state if key.startswith("mask_decoder.transformer")]:
        del state[key]
    message = refused(state)
    assert "mask_decoder.transformer.layers.0.self_attn.q_proj.weight" in message
    assert " more" in message
    assert len(message) < 600
