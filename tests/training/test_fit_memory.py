"""The training of the memory alone, on pictures that stay encoded."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

SIDE = 64


@pytest.fixture(scope="module")
def fit_memory(parts):
    return parts["fit_memory"]


@pytest.fixture
def small(fit_memory, monkeypatch, on_cpu):
    """The stage, on small pictures and always of the same shape."""
    scene = replace(fit_memory.SCENE, side=SIDE)
    stage = replace(fit_memory.STAGE, scene=scene, batch=4, lengths=(4,), priors=(1,), recent=(2,), soft=0.0)
    monkeypatch.setattr(fit_memory, "SCENE", scene)
    monkeypatch.setattr(fit_memory, "STAGE", stage)
    return stage


@pytest.fixture
def model(train, parts, tmp_path):
    model = train.Starter()
    train.initialise(model, 0)
    train.begin(model, [], tmp_path / "none.pt", parts["export"].BUNDLED)
    return model


def drawn(parts, stage, step=3):
    """Return a batch on the CPU and its numbers of points."""
    arrays = parts["feed"].Plan([stage]).draw(step, 0)
    return parts["train"].to_device(arrays, torch.device("cpu")), arrays["count"]


def kept(parts, model, stage, step=3):
    batch, counts = drawn(parts, stage, step)
    return parts["fit_memory"].encoded(model, batch, np.random.default_rng(0), counts)


def test_encoded_pictures_are_followed_as_fresh_ones_are(parts, train, fit_memory, small, model):
    stage = replace(small, true_memory=1.0)
    batch, counts = drawn(parts, stage)
    with torch.no_grad():
        groups = train.by_count(counts.ravel(), np.random.default_rng(0), torch.device("cpu"))
        fresh, _ = train.part_losses(model, batch, 1.0, slice(0, 4), None, 2, groups)
    examples = fit_memory.together(kept(parts, model, stage))
    figures = fit_memory.clip_losses(model, examples, stage, np.random.default_rng(0), learn=False)
    for name in ("recent_mask", "recent_presence", "recent_J"):
        assert float(figures[name]) == pytest.approx(float(fresh.figures[name]), rel=0.02, abs=0.02)
    assert not any(p.grad is not None for p in model.parameters())


def test_the_first_frame_alone_is_found_without_a_past_where_others_have_one(
    parts, train, fit_memory, small, model
):
    batch, past = fit_memory.together(kept(parts, model, small)), []

    def seen(losses, name, decoded, *rest):
        past.append((name, len(decoded.masks)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "decoded_loss", seen)
        fit_memory.clip_losses(model, batch, small, np.random.default_rng(0), learn=False)
        fit_memory.clip_losses(
            model, batch, replace(small, recent=(0,)), np.random.default_rng(0), learn=False
        )
    count = len(batch["own"])
    assert past == [("track", count), ("recent", 3 * count), ("track", 4 * count)]


def test_a_step_changes_the_memory_and_no_click(parts, train, fit_memory, small, model):
    fit_memory.freeze(model)
    batch, counts = drawn(parts, small)
    optimisers = train.make_optimisers(model, 1e-3)
    before = {name: value.clone() for name, value in model.sam.state_dict().items()}
    clicked = fit_memory.encoded(model, batch, np.random.default_rng(0), counts)
    fit_memory.clip_losses(model, fit_memory.together(clicked), small, np.random.default_rng(0), learn=True)
    train.change(model, optimisers)
    changed = {name for name, value in model.sam.state_dict().items() if not torch.equal(value, before[name])}
    assert {
        "memory_attention.layers.0.cross_attn_image.k_proj.weight",
        "memory_encoder.out_proj.weight",
    } <= changed
    assert all(name.startswith(fit_memory.LEARNING) for name in changed)
    again = fit_memory.encoded(model, batch, np.random.default_rng(0), counts)
    for one, other in zip(clicked, again):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_steps_lower_the_loss_of_what_they_see(parts, train, fit_memory, small, model):
    train.soften(model, (0.1, 0.05))
    fit_memory.freeze(model)
    batch, optimisers, seen = (
        fit_memory.together(kept(parts, model, small)),
        train.make_optimisers(model, 1e-3),
        [],
    )
    for _ in range(8):
        torch.manual_seed(0)
        model.zero_grad(set_to_none=True)
        seen.append(
            fit_memory.clip_losses(
                model, batch, replace(small, true_memory=1.0), np.random.default_rng(0), learn=True
            )
        )
        train.change(model, optimisers)
    assert seen[-1]["recent_mask"] < seen[0]["recent_mask"]


def test_a_swapped_example_looks_for_what_is_not_there(parts, fit_memory, small, model):
    batch = fit_memory.together(kept(parts, model, small))
    given = {key: value.clone() for key, value in batch.items()}
    after = fit_memory.swapped(batch, 1.0, np.random.default_rng(0))
    assert all(torch.equal(batch[key], value) for key, value in given.items())  # what is kept stays
    assert not after["present"].any() and after["sure"].all() and not after["truth"][:, 1:].any()
    assert torch.equal(after["embedding"][:, 1:], batch["embedding"][:, 1:])
    for key in ("embedding", "truth"):
        assert torch.equal(after[key][:, 0], batch[key].roll(-1, 0)[:, 0])
    for key in ("logits", "pointer", "own"):
        assert torch.equal(after[key], batch[key].roll(-1, 0))
    assert fit_memory.swapped(batch, 0.0, np.random.default_rng(0)) is batch


def example(priors, frames, number):
    return {
        "own": torch.ones(priors),
        "present": torch.ones(frames),
        "embedding": torch.full((priors + frames, 1), float(number)),
    }


def test_a_pool_keeps_the_newest_and_draws_examples_of_one_shape(fit_memory):
    pool = fit_memory.Pool(30)
    pool.add([example(1, 4, number) for number in range(5)])
    pool.add([example(2, 8, 10)])  # 35 pictures: the oldest has to go
    numbers, shapes = set(), set()
    for seed in range(40):
        batch = pool.draw(10, random.Random(seed))
        shapes.add((tuple(batch["own"].shape), tuple(batch["present"].shape)))
        numbers |= {int(number) for number in batch["embedding"][:, 0, 0]}
    assert shapes == {((2, 1), (2, 4)), ((1, 2), (1, 8))}
    assert numbers == {1, 2, 3, 4, 10}


def test_a_run_goes_on_where_it_stopped_and_softens_once(parts, train, fit_memory, small, tmp_path):
    words = ["--run", str(tmp_path), "--start", str(parts["export"].BUNDLED), "--soften", "0.5", "0.5", "--side", str(SIDE),
             "--every", "1", "--uses", "2", "--pictures", "10", "--lr", "1e-6"]  # fmt: skip
    fit_memory.fit(fit_memory.parse([*words, "--steps", "2"]), 0, 1)
    fit_memory.fit(fit_memory.parse([*words, "--steps", "3"]), 0, 1)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3]
    # new scenes come every other step of a call
    assert ["new_recent_J" in line for line in log] == [True, False, True]
    assert all("recent_J" in line for line in log)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    model = train.Starter()
    train.begin(model, [], tmp_path / "none.pt", parts["export"].BUNDLED)
    name = "sam.memory_attention.layers.0.cross_attn_image.q_proj.weight"
    halved = 0.5 * model.state_dict()[name]
    assert (state["model"][name] - halved).norm() < 0.01 * halved.norm()
    assert (state["average"][name] - halved).norm() < 0.01 * halved.norm()
    assert torch.equal(state["average"]["sam.image_encoder.neck.convs.0.conv.weight"],
                       model.state_dict()["sam.image_encoder.neck.convs.0.conv.weight"])  # fmt: skip
