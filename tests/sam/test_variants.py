"""Sizes as data: what a state dict is recognised by, and configurations that nobody has vouched for."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
import torch

from napari_samexp.errors import CheckpointError
from napari_samexp.sam import VARIANTS, Sam1Variant, Sam2Variant
from napari_samexp.sam.identify import identify
from napari_samexp.sam.variant_json import variant_from_json, variant_to_json
from napari_samexp.sam.weights.loading import build
from napari_samexp.types import Prompt

SMALL1 = {
    "name": "small",
    "depth": 2,
    "embed_dim": 8,
    "num_heads": 2,
    "global_blocks": [1],
    "image_size": 32,
    "window_size": 2,
    "d_model": 16,
    "mlp_dim": 8,
    "iou_hidden": 4,
}
SMALL2 = {
    "name": "small",
    "version": "2.1",
    "embed_dim": 4,
    "num_heads": 1,
    "stages": [1, 1, 1, 1],
    "global_blocks": [2],
    "image_size": 64,
    "d_model": 32,
    "mem_dim": 8,
    "mem_ff": 8,
    "mem_layers": 1,
    "mlp_dim": 8,
    "iou_hidden": 4,
}


def refused(text: str) -> str:
    with pytest.raises(CheckpointError) as error:
        variant_from_json(text)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 300
    return message


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_variant_survives_json(variant: Any) -> None:
    assert variant_from_json(variant_to_json(variant)) == variant


def test_families_are_named_as_people_write_them() -> None:
    families = {name: variant.family for name, variant in VARIANTS.items()}
    assert families["sam_vit_h"] == "SAM 1"
    assert families["sam2_hiera_large"] == "SAM 2"
    assert families["sam2.1_hiera_tiny"] == "SAM 2.1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "{",
        "null",
        "[]",
        '["version"]',
        '"version"',
        "3",
        "{}",
        "[" * 100_000,
        '{"version":' * 50_000,
        '{"version": 1e400}',
        '{"depth": ' + "9" * 5000 + "}",
        "\ud800",
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_text_that_is_no_configuration_is_refused(text: str) -> None:
    refused(text)


@pytest.mark.parametrize("small", [SMALL1, SMALL2], ids=["SAM 1", "SAM 2.1"])
def test_a_field_that_is_missing_unknown_or_hostile_is_named(small: dict[str, Any]) -> None:
    without = {key: value for key, value in small.items() if key != "embed_dim"}
    assert "embed_dim" in refused(json.dumps(without))
    assert "'colour'" in refused(json.dumps({**small, "colour": 3}))
    assert "__class__" in refused(json.dumps({**small, "__class__": "os.system"}))
    refused(json.dumps({**small, "x\n" * 10_000: 3}))
    refused(json.dumps({**small, "name": ["x"] * 10_000}))


@pytest.mark.parametrize("version", ["3.0", "", "2", 2.1, 2, None, ["2.1"], {}])
def test_there_are_two_versions(version: Any) -> None:
    assert "version" in refused(json.dumps({**SMALL2, "version": version}))


BAD = [0, -1, 1.5, True, None, "8", 10**9, 10**400, [], [1], [[1]], {}, [-1, 0, 0, 0], [1, 1, 1, 1, 1], "NaN"]
TRIED = [3, 24, [0, 1, 1, 1], [3, 3, 3, 3], [8, 4, 7, 7], [2, 2, 2, 1], [1, 2], [8, 4], [2, 2, 2, 2, 2]]


@pytest.mark.parametrize("small", [SMALL1, SMALL2], ids=["SAM 1", "SAM 2.1"])
def test_a_configuration_is_refused_or_makes_a_model_that_works(small: dict[str, Any]) -> None:
    fields = asdict(variant_from_json(json.dumps(small)))
    outcomes = set()
    for field in fields:
        for value in (*BAD, *TRIED):
            if field in ("name", "version"):
                continue
            try:
                variant = variant_from_json(json.dumps({**small, field: value}))
            except CheckpointError as error:
                assert field.split("_")[0] in str(error) or field == "patch"
                outcomes.add("refused")
            else:
                assert value not in (-1, 1.5, None, "8", 10**9, 10**400, {}, "NaN") and value is not True
                works(variant)
                outcomes.add("works")
    assert outcomes == {"refused", "works"}


def works(variant: Sam1Variant | Sam2Variant) -> None:
    """Run every part of a model."""
    model = build(variant).to_empty(device="cpu").requires_grad_(False)
    for tensor in model.state_dict().values():
        tensor.fill_(0.01)
    features = model.encode(torch.zeros(20, 30, 3, dtype=torch.uint8).numpy())
    prediction = model.segment(features, Prompt.from_lists([[3, 3]]))
    assert prediction.mask().shape == (20, 30)
    if isinstance(variant, Sam2Variant):
        memory = model.remember(features, prediction)
        spatial, slots, times = [memory.spatial[None]], torch.tensor([[6]]), torch.tensor([[0.1]])
        recalled = model.recall(features.embedding, spatial, slots, memory.pointer[None, None], times)
        assert model.track(
            recalled, features.high_res_features, features.transform.input_hw
        ).presence.shape == (1,)


def test_a_model_of_too_many_layers_is_refused_before_it_is_built() -> None:
    assert "depth" in refused(json.dumps({**SMALL1, "depth": 10_000}))
    assert "stages" in refused(json.dumps({**SMALL2, "stages": [1, 1, 10_000, 1]}))
    assert "mem_layers" in refused(json.dumps({**SMALL2, "mem_layers": 10_000}))


# ---- recognising a state dict


def state_of(name: str) -> dict[str, torch.Tensor]:
    return dict(build(VARIANTS[name]).state_dict())


@pytest.mark.parametrize("name", ["sam_vit_b", "sam2_hiera_small", "sam2.1_hiera_small"])
def test_a_state_of_another_size_says_how_to_go_on(name: str) -> None:
    state = state_of(name)
    first = "trunk." if "hiera" in name else ""
    state[f"image_encoder.{first}blocks.77.norm1.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"no official size.*configuration") as error:
        identify(state)
    assert VARIANTS[name].family in str(error.value)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"weight": torch.zeros(2)},
        {"image_encoder.patch_embed.proj.weight": torch.zeros(2)},
        {"a" * 100_000 + "\n": torch.zeros(2), "b": torch.zeros(1)},
    ],
    ids=["empty", "other", "half", "long names"],
)
def test_what_is_no_sam_is_refused_with_its_first_keys(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(CheckpointError, match="expected the keys of SAM") as error:
        identify(state)
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)
    if state:
        assert next(iter(state))[:30] in str(error.value)


@pytest.mark.parametrize("shape", [(), (0,), (3, 3)])
def test_weights_of_odd_shapes_are_no_official_size(shape: tuple[int, ...]) -> None:
    odd = torch.zeros(shape)
    sam2 = {"maskmem_tpos_enc": odd, "image_encoder.trunk.patch_embed.proj.weight": odd}
    sam1 = {"mask_decoder.iou_token.weight": odd, "image_encoder.patch_embed.proj.weight": odd}
    for state in (sam1, sam2):
        with pytest.raises(CheckpointError, match="no official size"):
            identify(state)


def test_a_file_cannot_ask_for_images_larger_than_any_person_may() -> None:
    values = asdict(VARIANTS["sam2.1_hiera_tiny"]) | {"image_size": 16384}
    with pytest.raises(CheckpointError, match="at most 4096"):
        variant_from_json(json.dumps(values))
