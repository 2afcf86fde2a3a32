"""Every part of every family computes what Meta's code computed from the same weights and inputs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from napari_samexp.sam import fast
from tests.parity import golden, parity, reproduce

POINTS = {"point1", "points3", "box", "boxpoint", "mask"}
EXPECTED = {  # what a selection of golden files must not lose
    ("SAM 1", "image_encoder"): {"patch_embed", "block_0", "block_1", "block_2", "block_3", "output"},
    ("SAM 1", "predict"): {f"img{j}.{case}" for j in (0, 1) for case in (*POINTS, "embedding")},
    **{
        (family, part): cases
        for family in ("SAM 2", "SAM 2.1")
        for part, cases in {
            "image_encoder": {"native", "other"},
            "prompt_decoder": {*reproduce.PROMPT_CASES, "dense_pe"},
            "memory_encoder": {
                "tracked_present",
                "tracked_absent",
                "from_points",
                "mask_prompt",
                "mask_downsampler_out",
                "maskmem_pos_enc",
            },
            "memory_attention": {
                "cond_only",
                "full7",
                "long_ptrs",
                "two_cond",
                "short_video",
                "gap",
                "reverse",
                "init_frame",
                "in",
            },
            "image_predict": {*POINTS, "image_embed"},
        }.items()
    },
    ("SAM 2", "hiera_pos_embed"): {"tiny", "base_plus"},
    ("EdgeTAM", "image_encoder"): {"native", "other"},
    ("EdgeTAM", "perceiver"): {"random", "tracked_present", "tracked_absent", "from_points", "out_pos"},
    ("EdgeTAM", "memory_attention"): {"full7", "long_ptrs", "two_priors", "gap", "init_frame", "in"},
}


def case_of(name: str) -> str:
    """Return the case that a tensor belongs to."""
    first, _, rest = name.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first in ("img0", "img1", "absent") else first


def names_by_case(family: str, part: str) -> dict[str, list[str]]:
    cases: dict[str, list[str]] = {}
    for name in parity.outputs(golden.load(parity.SELECTION, f"{golden.FAMILIES[family]}_{part}")):
        cases.setdefault(case_of(name), []).append(name)
    return cases


CASES = [
    pytest.param(family, part, names, id=f"{family}-{part}-{case}")
    for family, part in EXPECTED
    for case, names in names_by_case(family, part).items()
]


@pytest.fixture(params=[False, True], ids=["fast", "reference"])
def _both_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test with the fast paths, and with the reference alone."""
    with fast.reference(request.param):
        yield


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize(("family", "part", "names"), CASES)
def test_every_tensor_is_that_of_the_reference(family: str, part: str, names: list[str]) -> None:
    rows = [parity.compared(parity.SELECTION, family, part, name) for name in names]
    assert [row for row in rows if not row.error <= row.allowed] == []


@pytest.mark.parametrize(("family", "part"), EXPECTED)
def test_the_selection_has_every_case(family: str, part: str) -> None:
    missing = EXPECTED[family, part] - set(names_by_case(family, part))
    assert missing == set()


def test_the_table_has_every_part() -> None:
    parts = {(family, part) for family in golden.FAMILIES for part in parity.parts_of(family)}
    runs = {(family, f"e2e_{case}") for family, cases in parity.CASES.items() for case in cases}
    assert parts == set(EXPECTED) | runs


@pytest.mark.parametrize(
    ("part", "name", "allowed"),
    [
        ("image_predict", "image_embed", 1e-4),
        ("hiera_pos_embed", "tiny.composed_128x96_bhwc", 1e-5),
        ("image_encoder", "other.composed_pos_embed_bhwc", 1e-5),
        ("e2e_long", "frame07.maskmem_features", 1e-3),
        ("e2e_asis", "frame03.maskmem_features", 1e-2),
        ("e2e_asis", "frame03.pred_masks", 2e-3),
    ],
)
def test_tolerances_are_those_of_the_golden_files(part: str, name: str, allowed: float) -> None:
    assert parity.allowed(part, name) == allowed


@pytest.mark.parametrize("wrong", [3e-4, -3e-4, float("nan"), float("inf")])
def test_one_wrong_value_is_noticed(monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    name = "image_embed"
    ours = parity.reproduced(parity.SELECTION, "SAM 2", "image_predict")[name].clone()
    ours[0, 3, 2, 1] += wrong * ours.abs().max()
    monkeypatch.setattr(parity, "reproduced", lambda *_: {name: ours})
    row = parity.compared(parity.SELECTION, "SAM 2", "image_predict", name)
    assert row.error > 2.9e-4 > row.allowed


def test_a_wrong_shape_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "reproduced", lambda *_: {"image_embed": torch.zeros(1)})
    with pytest.raises(ValueError, match="instead of"):
        parity.compared(parity.SELECTION, "SAM 2", "image_predict", "image_embed")


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert parity.main(parity.SELECTION) == 0
    printed = capsys.readouterr().out
    for family in golden.FAMILIES:
        for part in parity.parts_of(family):
            assert f"| {family} | {part} |" in printed
