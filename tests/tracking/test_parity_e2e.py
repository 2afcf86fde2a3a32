"""Whole runs through `record`, `PriorMemory` and `Tracker` give what Meta's video predictor gave."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from napari_samexp.sam import MaskPrediction, fast
from napari_samexp.sam.features import ImageTransform
from tests.parity import golden, parity, reproduce

RUNS = [(family, case) for family, cases in parity.CASES.items() for case in cases]
QUANTITIES = {
    "low_res_multimasks",
    "ious",
    "pred_masks",
    "obj_ptr",
    "object_score_logits",
    "maskmem_features",
    "pix_feat_with_mem",
}


def golden_run(family: str, case: str) -> golden.Golden:
    return golden.load(parity.SELECTION, f"{golden.FAMILIES[family]}_e2e_{case}")


def names_by_quantity(family: str, case: str) -> dict[str, list[str]]:
    """Return the tensors of a run: of the prompts, and of the frames by kind."""
    quantities: dict[str, list[str]] = {}
    for name in parity.outputs(golden_run(family, case)):
        first, _, kind = name.rpartition(".")
        quantities.setdefault("prompt" if first.startswith("prompt") else kind, []).append(name)
    return quantities


CASES = [
    pytest.param(family, case, names, id=f"{family}-{case}-{quantity}")
    for family, case in RUNS
    for quantity, names in names_by_quantity(family, case).items()
]


@pytest.fixture(params=[False, True], ids=["fast", "reference"])
def _both_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test with the fast paths, and with the reference alone."""
    with fast.reference(request.param):
        yield


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize(("family", "case", "names"), CASES)
def test_every_tensor_is_that_of_the_reference(family: str, case: str, names: list[str]) -> None:
    rows = [parity.compared(parity.SELECTION, family, f"e2e_{case}", name) for name in names]
    assert [row for row in rows if not row.error <= row.allowed] == []


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize(("family", "case"), RUNS)
def test_painted_labels_are_the_masks_of_the_reference(family: str, case: str) -> None:
    wrong = parity.painted_wrongly(parity.SELECTION, family, case)
    assert set(wrong) == set(golden_run(family, case).json("tracked"))
    assert set(wrong.values()) == {0}
    painted = parity.tracked(parity.SELECTION, family, case).labels
    assert any(labels.any() for labels in painted.values())


@pytest.mark.parametrize(("family", "case"), RUNS)
def test_the_selection_shows_every_quantity(family: str, case: str) -> None:
    names = names_by_quantity(family, case)
    assert set(names) >= QUANTITIES | {"prompt", "maskmem_pos_enc"}
    tracked = golden_run(family, case).json("tracked")
    for quantity in ("pred_masks", "obj_ptr", "object_score_logits", "maskmem_features"):
        assert {f"frame{index:02d}.{quantity}" for index in tracked} <= set(names[quantity])


def test_the_selection_shows_masks_at_the_size_of_the_video() -> None:
    shown = {(family, case) for family, case in RUNS if "video_res_logits" in names_by_quantity(family, case)}
    assert shown >= {(family, case) for family in ("SAM 2", "SAM 2.1") for case in ("long", "two_priors")}


@pytest.mark.parametrize("family", parity.CASES)
def test_the_long_run_outlives_both_windows(family: str) -> None:
    """Else a bank that never forgets would pass."""
    assert len(golden_run(family, "long").json("tracked")) > 16


def test_a_pixel_that_decides_by_almost_nothing_may_flip_and_no_other() -> None:
    reference = golden_run("SAM 2.1", "mask")["prompt0.pred_masks"].clone()
    size = ImageTransform((128, 128), (128, 128), (128, 128))
    ours = reference[None].clone()
    prediction = MaskPrediction(ours, golden.np.ones(1), 1.0, 0, size)
    assert reproduce._settled(prediction, reference) is prediction
    reference[:], ours[:] = 5e-5, -5e-5
    assert (reproduce._settled(prediction, reference).logits[0] == reference).all()
    reference[:] = 2e-4
    assert reproduce._settled(prediction, reference) is prediction
