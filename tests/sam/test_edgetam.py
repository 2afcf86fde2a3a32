"""EdgeTAM where it differs from SAM 2: folded layers, packed memories of any frame size, no position encoding.

Parity with the reference is in `test_parity.py`, the official file's keys in `test_layouts.py`; what all
families have in common is tested for each in `test_models.py` and `tests/tracking`.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from napari_samexp.errors import CheckpointError, SamexpError
from napari_samexp.sam import VARIANTS, EdgeTam, EdgeTamVariant, Memory, load_model
from napari_samexp.sam.identify import identify
from napari_samexp.sam.perceiver import split_windows
from napari_samexp.sam.position_encoding import axial_rope
from napari_samexp.sam.repvit import ConvNorm
from napari_samexp.sam.variant_json import variant_from_json, variant_to_json
from napari_samexp.sam.variants import PRIOR_SLOT
from napari_samexp.sam.weights.checkpoint import read_state
from napari_samexp.sam.weights.loading import metadata_for
from napari_samexp.types import Prompt
from tests import tiny_run
from tests.parity import golden, parity

STATE = parity.SELECTION / "edgetam_state.safetensors"
IMAGES = tiny_run.drawn_frames(3)
CLICK = Prompt.from_lists([[50, 24]])


@pytest.fixture(scope="module")
def edgetam(models: dict[str, Any]) -> EdgeTam:
    return models["EdgeTAM"]


@pytest.fixture
def own() -> EdgeTam:
    """A model that a test may change."""
    return golden.load_reference(parity.SELECTION, "EdgeTAM")


def close(one: Tensor, other: Tensor, share: float = 1e-5) -> bool:
    return one.shape == other.shape and float((one - other).abs().max()) <= share * float(other.abs().max())


# ---- position encoding


def test_it_says_that_it_has_no_absolute_position_encoding(edgetam: EdgeTam) -> None:
    for tile in (True, False):
        with pytest.raises(SamexpError, match=r"no position encoding of the absolute kind.*convolutions"):
            edgetam.position_encoding((8, 8), window_tile=tile)


# ---- layers that are computed as one


@pytest.mark.parametrize("hw", [(64, 64), (96, 160), (32, 32)])
def test_folded_layers_are_the_layers_one_by_one(own: EdgeTam, hw: tuple[int, int]) -> None:
    pixels = torch.rand(2, 3, *hw) * 4 - 2
    with torch.inference_mode():
        folded = own.image_encoder(pixels)
    own.requires_grad_(True)
    with golden.outputs_of({"norm": own.image_encoder.trunk.body.stem.conv1.bn}) as seen:
        plain = own.image_encoder(pixels)
    assert seen  # every parameter is used as it is
    assert all(close(one, other.detach()) for one, other in zip(folded, plain))


def test_folding_leaves_the_state_as_the_file_has_it(own: EdgeTam) -> None:
    own.encode(IMAGES[0])
    state, file = own.state_dict(), load_file(STATE)
    assert set(state) == set(file)
    for key, tensor in file.items():
        expected = tensor.float() if tensor.is_floating_point() else tensor
        assert torch.equal(state[key], expected), key


def replaced(norm: torch.nn.BatchNorm2d) -> None:
    norm.weight = torch.nn.Parameter(norm.weight * 1.5, requires_grad=False)


def loaded_anew(norm: torch.nn.BatchNorm2d) -> None:
    state = {key: t * 1.5 if t.is_floating_point() else t for key, t in norm.state_dict().items()}
    norm.load_state_dict(state, assign=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda norm: norm.weight.mul_(1.5),
        lambda norm: norm.running_mean.add_(0.5),
        lambda norm: norm.running_var.copy_(norm.running_var * 2),
        replaced,
        loaded_anew,
    ],
    ids=["a weight", "a mean", "a variance", "another parameter", "another state"],
)
@torch.no_grad()
def test_a_changed_parameter_is_seen(change: Any) -> None:
    torch.manual_seed(2)
    layer, x = ConvNorm(4, 6, 3).eval(), torch.randn(1, 4, 8, 8)
    before = layer(x)
    change(layer.bn)
    assert not close(layer(x), before, 1e-2)
    assert close(layer(x), layer.bn(layer.c(x)))


def test_a_folded_model_can_be_copied_and_converted(own: EdgeTam) -> None:
    expected = own.encode(IMAGES[0]).embedding
    other = copy.deepcopy(own)
    assert close(other.encode(IMAGES[0]).embedding, expected)
    with torch.no_grad():
        other.image_encoder.trunk.body.stem.conv2.bn.bias.add_(1)
    assert not close(other.encode(IMAGES[0]).embedding, expected, 1e-2)
    assert close(own.encode(IMAGES[0]).embedding, expected)
    assert own.double().encode(IMAGES[0]).embedding.dtype == torch.float64


def test_training_learns_the_statistics(own: EdgeTam) -> None:
    norm = own.image_encoder.trunk.body.stem.conv1.bn
    before = norm.running_mean.clone()
    own.requires_grad_(True).train()
    own.image_features(torch.rand(2, 3, 64, 64))[0].sum().backward()
    assert not torch.equal(norm.running_mean, before)
    assert own.image_encoder.trunk.body.stages_2.blocks[0].se.fc1.weight.grad.abs().sum() > 0


# ---- packed memories


def test_windows_are_cut_row_by_row() -> None:
    index = torch.arange(8 * 12.0).view(1, 1, 8, 12)
    windows = split_windows(index, 4)
    assert windows.shape == (16, 6, 1)
    assert windows[0, :, 0].tolist() == [0, 1, 2, 12, 13, 14]
    assert windows[1, :, 0].tolist() == [3, 4, 5, 15, 16, 17]
    assert windows[4, :, 0].tolist() == [24, 25, 26, 36, 37, 38]


@pytest.mark.parametrize("hw", [(6, 10), (3, 5), (1, 7), (4, 9), (40, 23)])
def test_windows_of_other_grids_divide_them_as_evenly_as_can_be(hw: tuple[int, int]) -> None:
    y, x = torch.meshgrid(*(torch.arange(float(size)) for size in hw), indexing="ij")
    windows = split_windows(torch.stack((y, x))[None], 4).view(4, 4, -1, 2)
    seen = {tuple(token) for token in windows.flatten(0, 2).int().tolist()}
    assert len(seen) == hw[0] * hw[1]  # no token is lost
    for row in range(4):
        for column in range(4):
            for axis, place in enumerate((row, column)):
                held = sorted({int(n) for n in windows[row, column, :, axis]})
                first, end = place * hw[axis] // 4, -(-(place + 1) * hw[axis] // 4)
                assert held in (list(range(first, end)), list(range(first, end - 1)))


def test_a_latent_of_a_window_sees_nothing_but_its_window(edgetam: EdgeTam) -> None:
    memory = torch.randn(1, 8, 8, 8)
    changed = memory.clone()
    changed[0, :, 5, 2] *= -1  # in row 2, column 1 of 4 x 4 windows
    with torch.inference_mode():
        before, after = (edgetam.spatial_perceiver(tokens)[0] for tokens in (memory, changed))
    differs = (before - after).abs().amax(1) > 1e-6
    assert differs[:12].all()
    assert differs[12:].nonzero().flatten().tolist() == [2 * 4 + 1]


def test_a_frame_of_another_size_is_spread_over_the_native_places(edgetam: EdgeTam) -> None:
    cross = edgetam.memory_attention.layers[0].cross_attn_image
    native, half, wide = (
        torch.stack(cross.frame_rope(hw, torch.device("cpu"))).view(2, *hw, -1)
        for hw in ((8, 8), (4, 4), (4, 8))
    )
    assert torch.equal(native.flatten(1, 2), torch.stack(axial_rope(32, (8, 8), torch.device("cpu"))))
    assert torch.allclose(half, native[:, ::2, ::2])
    assert torch.allclose(wide, native[:, ::2])


def features_of(model: EdgeTam, side: int, square: bool = True) -> Any:
    return model.encode(IMAGES[0], side=side, square=square)


@pytest.mark.parametrize(("side", "square"), [(128, True), (96, True), (160, False), (64, True)])
def test_objects_together_are_the_objects_one_by_one(edgetam: EdgeTam, side: int, square: bool) -> None:
    torch.manual_seed(5)
    features = features_of(edgetam, side, square)
    height, width = features.grid_hw
    logits, presence = torch.randn(3, 1, 4 * height, 4 * width) * 8, torch.tensor([1.0, -1.0, 2.0])
    slots, pointers = torch.tensor([[PRIOR_SLOT, 1, 0]]).expand(3, -1), torch.randn(3, 4, 32)
    with torch.inference_mode():
        together = edgetam.encode_memory(features.embedding, logits, presence, binary=False)
        assert together.shape == (3, 8, 1, 28)
        memories = [together, together.flip(0), together * 0.5]
        recalled = edgetam.recall(features.embedding, memories, slots, pointers, torch.zeros(3, 4))
        tracked = edgetam.track(recalled, features.high_res_features, features.transform.input_hw)
        for i in range(3):
            one = slice(i, i + 1)
            alone = edgetam.encode_memory(features.embedding, logits[one], presence[one], binary=False)
            assert close(together[one], alone)
            parts = [memory[one] for memory in memories]
            single = edgetam.recall(features.embedding, parts, slots[one], pointers[one], torch.zeros(1, 4))
            assert close(recalled[one], single)
            found = edgetam.track(single, features.high_res_features, features.transform.input_hw)
            assert all(close(ours[one], theirs, 1e-4) for ours, theirs in zip(tracked, found))
    assert not close(recalled[:1], recalled[1:2], 1e-2)


def test_what_torch_computes_at_once_is_what_is_computed_in_pieces(edgetam: EdgeTam) -> None:
    """With gradients wanted, attention takes torch's own kernel."""
    features = features_of(edgetam, 128)
    memory = edgetam.remember(features, edgetam.segment(features, CLICK))
    given = [memory.spatial.clone()[None]], torch.tensor([[PRIOR_SLOT]]), memory.pointer.clone()[None, None]
    embedding = features.embedding.clone()
    with torch.inference_mode():
        pieces = edgetam.recall(embedding, *given, torch.zeros(1, 1))
    with torch.enable_grad():
        whole = edgetam.recall(embedding, *given, torch.zeros(1, 1))
    assert close(pieces, whole.detach())


def test_an_absent_object_has_no_memory_of_its_own(edgetam: EdgeTam) -> None:
    features = features_of(edgetam, 128)
    logits = torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        here, gone = (
            edgetam.encode_memory(features.embedding, logits, torch.tensor([score]), binary=True)
            for score in (3.0, -3.0)
        )
    assert torch.equal(here, gone)


def test_only_memories_of_its_own_sizes_are_taken(edgetam: EdgeTam, sam21: Any) -> None:
    features = features_of(edgetam, 64)
    memory = edgetam.remember(features, edgetam.segment(features, CLICK))
    assert edgetam.takes(memory) and not edgetam.takes(Memory(memory.spatial[..., 1:], memory.pointer))
    other = sam21.encode(IMAGES[0], side=64)
    of_sam21 = sam21.remember(other, sam21.segment(other, CLICK))
    assert sam21.takes(of_sam21) and not edgetam.takes(of_sam21)


# ---- its sizes and its file


def test_the_sizes_survive_json_and_are_told_from_the_others() -> None:
    variant = VARIANTS["edgetam"]
    assert isinstance(variant, EdgeTamVariant)
    assert variant_from_json(variant_to_json(variant)) == variant
    assert (variant.family, variant.version, variant.windows) == ("EdgeTAM", "2.0", 16)


@pytest.mark.parametrize(
    "change",
    [
        {"num_latents_2d": 250},
        {"num_latents": 0},
        {"stages": [2, 2, 14]},
        {"embed_dim": 7},
        {"mem_dim": 48},
        {"perceiver_depth": 1000},
        {"patch": 8},
        {"version": "2.0"},
    ],
)
def test_sizes_that_cannot_be_built_are_refused(change: dict[str, Any]) -> None:
    text = json.dumps(asdict(VARIANTS["edgetam"]) | change)
    with pytest.raises(CheckpointError, match="model configuration cannot be used"):
        variant_from_json(text)


def test_a_file_of_no_official_size_says_so() -> None:
    with pytest.raises(CheckpointError, match=r"keys of EdgeTAM with 6 encoder blocks of 8 channels"):
        identify(load_file(STATE))


def test_a_described_file_loads(tmp_path: Path, edgetam: EdgeTam) -> None:
    path = tmp_path / "mine.safetensors"
    variant = replace(edgetam.variant, name="mine")
    save_file(load_file(STATE), path, metadata_for(variant))
    model = load_model(path, device="cpu")
    assert isinstance(model, EdgeTam) and model.variant == variant
    assert torch.equal(model.encode(IMAGES[0]).embedding, edgetam.encode(IMAGES[0]).embedding)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_half_precision_keeps_the_counters_whole(tmp_path: Path, edgetam: EdgeTam, kind: str) -> None:
    model = load_model(STATE, device="cpu", dtype=kind, variant=edgetam.variant)
    types = {key.rpartition(".")[2]: tensor.dtype for key, tensor in model.state_dict().items()}
    assert types["num_batches_tracked"] == torch.int64
    assert types["running_var"] == getattr(torch, kind)


@pytest.mark.parametrize(
    ("key", "value", "usable"),
    [
        ("a.bn.num_batches_tracked", torch.tensor(3), True),
        ("a.bn.num_batches_tracked", torch.tensor([3]), False),
        ("a.bn.num_batches_tracked", torch.tensor(3, dtype=torch.int32), False),
        ("a.bn.running_mean", torch.tensor(3), False),
        ("num_batches_tracked", torch.tensor(3), False),
    ],
)
def test_the_only_whole_numbers_in_a_file_are_counters(
    tmp_path: Path, key: str, value: Tensor, usable: bool
) -> None:
    path = tmp_path / "w.pt"
    torch.save({"model": {"w": torch.zeros(2), key: value}}, path)
    if usable:
        assert set(read_state(path).state) == {"w", key}
    else:
        with pytest.raises(CheckpointError, match="no floating-point tensors"):
            read_state(path)


def test_a_map_with_the_channels_last_or_first_is_the_same(edgetam: EdgeTam) -> None:
    pixels = functional.interpolate(torch.rand(1, 3, 16, 16), 64)
    with torch.inference_mode():
        one, other = (
            edgetam.image_features(pixels.contiguous(memory_format=layout))[0]
            for layout in (torch.contiguous_format, torch.channels_last)
        )
    assert torch.equal(one, other)
    assert np.isfinite(one.numpy()).all()
