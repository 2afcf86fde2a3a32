"""The two heads that are fitted to what they meet in tracking."""

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
def heads(parts):
    return parts["fit_heads"]


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


def test_what_is_kept_is_what_tracking_says(parts, heads, starter, example):
    met = heads.met_in(starter, example, 7, TrackSettings(side=128))
    evaluate = parts["evaluate"]
    measured = evaluate.measure_clip(starter, example, np.random.default_rng(7), TrackSettings(side=128))
    assert met.tokens.shape == (6, 2, 128) and met.truth.shape == (6, 4)
    assert met.there.tolist() == [-1, -1, -1, 1, 1, 0] and met.weight.tolist() == [3, 3, 3, 1, 1, 0]
    assert met.several.tolist() == [True, False, False, True, True, True] and met.clip.unique().tolist() == [
        7
    ]
    decoder = starter.sam_mask_decoder
    with torch.inference_mode():
        iou = decoder.iou_prediction_head(met.tokens[:, 0]).sigmoid()
        presence = decoder.pred_obj_score_head(met.tokens[:, 1])[:, 0]
    taken = met.truth[torch.arange(6), 1 + iou[:, 1:].argmax(1)]
    assert taken[0] == pytest.approx(measured.points[1][0], abs=0.02)
    assert taken[3:5].tolist() == pytest.approx(measured.tracked, abs=0.02)
    assert (presence[3:5] > 0).tolist() == measured.seen and (presence[5:] <= 0).tolist() == measured.absent
    said = heads.figures(iou, presence, met)
    assert said["IoU error"] == pytest.approx(float(np.mean(measured.iou_error)), abs=0.02)
    assert said["click, J of the taken"] == pytest.approx(measured.points[1][0], abs=0.02)
    assert said["presence right"] == pytest.approx(np.mean(measured.seen + measured.absent))
    assert not starter.sam_mask_decoder.iou_prediction_head._forward_hooks


def made_up(heads, count=6000):
    """Frames whose IoU and presence can be read from their tokens, otherwise than the starter's heads do."""
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randn(count, 2, 128, generator=rng)
    truth = (tokens[:, 0, :4] * 2).sigmoid()
    there = (tokens[:, 1, 5] > 0).int()
    return heads.Met(tokens, truth, there, there.float(), torch.ones(count, dtype=torch.bool),
                     torch.arange(count) // 20)  # fmt: skip


def test_heads_learn_what_clips_left_out_show_too(heads, starter, capsys):
    decoder, met = starter.sam_mask_decoder, made_up(heads)
    before = {key: value.clone() for key, value in decoder.state_dict().items()}
    new = heads.fitted(decoder, met, epochs=40, lr=3e-3)
    assert all(torch.equal(value, before[key]) for key, value in decoder.state_dict().items())
    assert set(new) == {key for key in before if key.startswith(heads.HEADS)}
    first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["heads"], last["heads"]) == ("before", "after")
    assert last["IoU error"] < 0.5 * first["IoU error"]
    assert last["J of the taken"] > first["J of the taken"] + 0.05
    assert last["presence right"] > 0.9 > first["presence right"] + 0.2


def test_heads_that_can_learn_nothing_stay_as_they_are(heads, starter):
    met = made_up(heads)
    with torch.inference_mode():
        said = starter.sam_mask_decoder.iou_prediction_head(met.tokens[:, 0]).sigmoid()
    right = heads.Met(
        met.tokens, said.clone(), met.there, met.weight, torch.zeros_like(met.several), met.clip
    )
    new = heads.fitted(starter.sam_mask_decoder, right, epochs=3)
    for key, value in starter.sam_mask_decoder.state_dict().items():
        assert not key.startswith(heads.HEADS[0]) or torch.equal(new[key], value)


def test_a_file_gets_new_heads_and_nothing_else(parts, heads, tmp_path, capsys):
    bundled, out = parts["export"].BUNDLED, tmp_path / "fitted.safetensors"
    heads.main([str(bundled), "--out", str(out), "--clips", "8", "--frames", "2", "--workers", "1"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    before, after = load_file(bundled), load_file(out)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed <= {
        key for key in before if key.startswith(tuple(f"sam_mask_decoder.{h}" for h in heads.HEADS))
    }
    with safe_open(bundled, "pt") as one, safe_open(out, "pt") as other:
        assert one.metadata() == other.metadata()
    assert load_model(out, device="cpu").variant.name == "starter"
