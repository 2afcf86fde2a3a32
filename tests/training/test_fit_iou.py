"""The head of the predicted IoU that is fitted to what it meets in tracking."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from napari_samexp.sam import load_model
from napari_samexp.tracking import TrackSettings


@pytest.fixture(scope="module")
def fit_iou(parts):
    return parts["fit_iou"]


@pytest.fixture(scope="module")
def starter():
    return load_model("starter", device="cpu")


@pytest.fixture(scope="module")
def example(parts):
    config = parts["scenes"].SceneConfig(side=128, frames=3, absent=0.0, occlusion=0.0, leaving=0.0)
    example = parts["scenes"].make_example(config, 5)
    masks = example.masks.copy()
    masks[2] = False  # as if it were gone
    return replace(example, masks=masks)


def test_what_is_kept_is_what_tracking_says(parts, fit_iou, starter, example):
    met = fit_iou.met_in(starter, example, 7, TrackSettings(side=128))
    evaluate = parts["evaluate"]
    measured = evaluate.measure_clip(starter, example, np.random.default_rng(7), TrackSettings(side=128))
    assert met.tokens.shape == (5, 128) and met.truth.shape == (5, 4)
    assert met.tracked.tolist() == [False, False, False, True, True]
    assert met.several.tolist() == [True, False, False, True, True] and met.clip.tolist() == [7] * 5
    with torch.inference_mode():
        iou = starter.sam_mask_decoder.iou_prediction_head(met.tokens).sigmoid()
    taken = met.truth[torch.arange(5), 1 + iou[:, 1:].argmax(1)]
    assert taken[0] == pytest.approx(measured.points[1][0], abs=0.02)
    assert taken[3:].tolist() == pytest.approx(measured.tracked, abs=0.02)
    said = fit_iou.figures(iou, met)
    assert said["tracked, error"] == pytest.approx(float(np.mean(measured.iou_error)), abs=0.02)
    assert said["tracked, J of the taken"] == pytest.approx(float(np.mean(measured.tracked)), abs=0.02)
    assert said["one click, J of the taken"] == pytest.approx(measured.points[1][0], abs=0.02)
    assert said["one click, J of the best"] == met.truth[0, 1:].max()
    assert not starter.sam_mask_decoder.iou_prediction_head._forward_hooks


def made_up(fit_iou, count=6000):
    """Frames whose IoU can be read from their tokens, otherwise than the starter's head does."""
    tokens = torch.randn(count, 128, generator=torch.Generator().manual_seed(0))
    places = torch.arange(count)
    return fit_iou.Met(tokens, (tokens[:, :4] * 2).sigmoid(), places % 20 > 0, torch.ones(count, dtype=torch.bool),
                       places // 20)  # fmt: skip


def test_the_head_learns_what_clips_left_out_show_too(fit_iou, starter, capsys):
    head, met = starter.sam_mask_decoder.iou_prediction_head, made_up(fit_iou)
    before = {key: value.clone() for key, value in head.state_dict().items()}
    fit_iou.fitted(head, met, epochs=40, lr=3e-3)
    assert all(torch.equal(value, before[key]) for key, value in head.state_dict().items())
    first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first.pop("head"), last.pop("head")) == ("before", "after")
    for kind in ("tracked", "one click"):
        assert last[f"{kind}, error"] < 0.5 * first[f"{kind}, error"]
        assert last[f"{kind}, J of the taken"] > first[f"{kind}, J of the taken"] + 0.05
        assert last[f"{kind}, J of the best"] == first[f"{kind}, J of the best"]


def test_a_head_that_can_learn_nothing_stays_as_it_is(fit_iou, starter):
    head, met = starter.sam_mask_decoder.iou_prediction_head, made_up(fit_iou)
    with torch.inference_mode():
        said = head(met.tokens).sigmoid()
    right = replace(met, truth=said.clone(), several=torch.zeros_like(met.several))
    new = fit_iou.fitted(head, right, epochs=3)
    assert all(torch.equal(new.state_dict()[key], value) for key, value in head.state_dict().items())


def test_a_file_gets_a_new_head_and_nothing_else(parts, fit_iou, tmp_path, capsys):
    bundled, out = parts["export"].BUNDLED, tmp_path / "fitted.safetensors"
    fit_iou.main([str(bundled), "--out", str(out), "--clips", "8", "--frames", "2", "--workers", "1"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    before, after = load_file(bundled), load_file(out)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed <= {key for key in before if key.startswith("sam_mask_decoder.iou_prediction_head")}
    with safe_open(bundled, "pt") as one, safe_open(out, "pt") as other:
        assert one.metadata() == other.metadata()
    assert load_model(out, device="cpu").variant.name == "starter"
