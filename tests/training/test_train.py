"""The trainer: the recipe, and runs that end, stop and go on."""

import json
import os
import signal
from collections import Counter
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from napari_samexp.sam import load_model
from training import export, sampling, scenes, train
from training.export import BUNDLED
from training.model import STARTER
from training.recipe import PoolConfig, Recipe, Stage, StepConfig
from training.steps import Step

# ---- the recipe


def test_every_kind_of_step_comes():
    recipe = Recipe()
    first, early, late = (
        Counter(recipe.step_at(share, step).name for step in range(360)) for share in (0.1, 0.3, 0.95)
    )
    named = {kind.name: kind for kind in recipe.steps}
    assert all(named[name].encoder_only for name in first)
    assert not any(named[name].encoder_only for name in early + late)
    assert set(first) | set(early) | set(late) == set(named)
    assert early["short-256"] > 60 and "long-384" not in early
    assert late["long-384"] > 80 and "short-256" not in late
    assert recipe.step_at(1.0, 1) == recipe.step_at(0.99, 1)
    for kind in recipe.steps:
        pool = recipe.pools[kind.pool]
        assert kind.frames <= pool.frames and kind.priors <= pool.priors and kind.side % 32 == 0
        assert kind.batch >= 2 * len(sampling.FLIPS)
    often = np.array([pool.often for pool in recipe.pools.values()])
    assert np.allclose(often.sum(0), 1) and (often > 0).all()


def test_a_smaller_machine_takes_less_of_everything():
    small = Recipe().scaled(0.15, 0.03)
    assert [kind.batch for kind in small.steps] == [round(0.15 * kind.batch) for kind in Recipe().steps]
    assert small.pools["returning"].room == 90 and small.stages == Recipe().stages
    assert all(pool.room >= pool.at_once for pool in Recipe().scaled(1, 0).pools.values())


def test_the_learning_rate_warms_up_and_ends_near_zero():
    recipe = Recipe(lr=1.0, warm_up=10)
    rates = [train.learning_rate(share, 100, recipe) for share in (0, 0.5, 1)]
    assert rates == pytest.approx([1, 0.51, 0.02])
    assert train.learning_rate(0, 0, recipe) == pytest.approx(0.1)


# ---- runs


@pytest.fixture
def quick():
    """A run of small scenes that is over in a moment."""
    scene = scenes.SceneConfig(side=64, frames=2)
    pools = {
        "examples": PoolConfig("example", scene, 2, 8, (0.4, 0.5)),
        "shared": PoolConfig("shared", replace(scene, frames=3), 2, 4, (0.3, 0.25)),
        "lineups": PoolConfig("lineup", scene, 2, 4, (0.3, 0.25)),
    }
    steps = (
        StepConfig("alone", "lineups", 2, 64, encoder_only=True),
        StepConfig("short", "examples", 2, 64, frames=2, recent=1),
        StepConfig("clips", "shared", 2, 64, frames=3, recent=2),
    )
    stages = (Stage(0.4, ("alone",)), Stage(1.0, ("short", "clips")))
    return Recipe(minutes=0.15, pools=pools, steps=steps, stages=stages, fill=1, every=1)


@pytest.fixture
def run(tmp_path):
    return lambda recipe: train.train(recipe, tmp_path, BUNDLED, torch.device("cpu"), 2)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_ends_by_the_clock_leaves_weights_and_goes_on(quick, run, tmp_path, monkeypatch):
    ticks = count(step=0.25)  # seconds that a look at the clock takes; nothing else takes time
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    run(quick)
    log = lines_of(tmp_path)
    assert log[-1]["scenes"] == 2 * log[-1]["step"]
    assert all(log[-1][f"drawn_{name}"] >= 2 for name in quick.pools)
    assert all("likeness" in line and "change" in line for line in log if "alone_outline_right" in line)
    assert {"alone_outline_right", "short_track_J"} <= set().union(*log)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == log[-1]["step"] and state["seconds"] >= 60 * quick.minutes
    average = load_file(tmp_path / "average.safetensors")
    assert torch.equal(average["no_mem_embed"], state["average"]["sam.no_mem_embed"])
    assert set(average) == set(load_file(BUNDLED))  # what only training has stays here

    run(quick)  # its time is used up
    assert len(lines_of(tmp_path)) == len(log)
    run(replace(quick, minutes=0.2))  # with what the optimisers know
    later = torch.load(tmp_path / "state.pt", weights_only=True)
    assert later["step"] > state["step"]
    assert later["optimisers"][1]["state"][0]["step"] > state["optimisers"][1]["state"][0]["step"]


def test_a_terminated_run_saves_first(quick, run, tmp_path, monkeypatch):
    step = Step.run

    def terminated(self):
        os.kill(os.getpid(), signal.SIGTERM)
        step(self)

    monkeypatch.setattr(Step, "run", terminated)
    before = signal.getsignal(signal.SIGTERM)
    run(replace(quick, minutes=60))
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_command_fits_the_recipe_to_the_machine(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(train, "train", lambda *args: given.append(args))
    words = ["--run", str(tmp_path), "--start", str(BUNDLED), "--device"]
    train.main([*words, "cuda"])
    train.main([*words, "cpu", "--minutes", "600"])
    assert given[0][0] == Recipe().scaled(1, 1) == Recipe()
    assert given[1][0] == replace(Recipe().scaled(0.15, 0.03), minutes=600)


def test_exported_weights_are_those_of_the_run_with_presence_shifted(tmp_path, capsys):
    source, out = BUNDLED, tmp_path / "out.safetensors"
    export.main([str(source), "--out", str(out), "--presence", "1.5"])
    assert "4.14 M parameters" in capsys.readouterr().out
    before, after = load_file(source), load_file(out)
    assert float(after[export.PRESENCE] - before[export.PRESENCE]) == pytest.approx(1.5, abs=0.01)
    assert all(key == export.PRESENCE or torch.equal(after[key], before[key]) for key in before)
    with safe_open(source, "pt") as one, safe_open(out, "pt") as other:
        assert one.metadata() == other.metadata()
    assert load_model(out, device="cpu").variant == STARTER


@pytest.mark.gpu
def test_a_run_on_a_gpu_leaves_weights(quick, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("There is no CUDA device.")
    train.train(replace(quick, minutes=1.0), tmp_path, BUNDLED, torch.device("cuda"), 2)
    assert {"alone_outline_right", "short_track_J"} <= set().union(*lines_of(tmp_path))
