"""How the starter is trained and measured: prompts, long clips in parts, resumable runs, figures."""

import json
import multiprocessing
import os
import signal
import socket
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

TRAINING = Path(__file__).parents[2] / "training"


@pytest.fixture(scope="module")
def prompts(parts):
    return parts["prompts"]


@pytest.fixture(scope="module")
def evaluate(parts):
    return parts["evaluate"]


@pytest.fixture
def disc():
    y, x = np.mgrid[:64, :64]
    return (x - 40) ** 2 + (y - 20) ** 2 < 100


@pytest.fixture(scope="module")
def tiny(parts):
    """A stage that takes a moment: clips of four frames in two parts, two priors."""
    scene = parts["scenes"].SceneConfig(side=64)
    return parts["train"].Stage(
        1.01, scene, 2, true_memory=0.5, recent=(2,), lengths=(4,), priors=(2,), part=2
    )


def drawn(parts, stage, step=0):
    return parts["feed"].Plan([stage]).draw(step, 0)


def groups(train, batch, pictures, device="cpu"):
    counts = np.asarray(batch["count"])[:, pictures].ravel()
    return train.by_count(counts, np.random.default_rng(0), torch.device(device))


def fresh(train, seed=0):
    model = train.Starter()
    train.initialise(model, seed)
    return model, train.make_optimisers(model, 1e-3)


def test_clicks_are_on_the_side_that_their_label_says(prompts, disc):
    for seed in range(50):
        xy, labels = prompts.clicks(disc, 3, np.random.default_rng(seed))
        assert labels[0] == 1
        assert all(disc[int(y), int(x)] == bool(label) for (x, y), label in zip(xy, labels))


def test_deep_points_are_deeper_than_random_ones(prompts, disc):
    rng = np.random.default_rng(0)
    far = [np.hypot(*(prompts.deep_point(disc, rng) - (40, 20))) for _ in range(100)]
    assert np.mean(far) < 5  # points spread evenly over a disc of radius 10 are 6.7 away from its middle


def test_boxes_are_around_the_thing(prompts, disc):
    for seed in range(20):
        (x0, y0), (x1, y1) = prompts.box_around(disc, np.random.default_rng(seed))
        assert np.allclose([x0, y0, x1, y1], [31, 11, 49, 29], atol=2)


def test_prompts_of_every_kind_are_drawn(prompts, disc):
    kinds = {tuple(sorted(prompts.draw_prompt(disc, np.random.default_rng(s))[1])) for s in range(200)}
    assert {(1,), (2, 3), (1, 2, 3)} <= kinds
    assert any(len(kind) == 3 and 2 not in kind for kind in kinds)
    assert max(len(kind) for kind in kinds) == 3


def test_a_corrective_click_is_in_the_largest_error(train):
    target, logits = torch.zeros(2, 16, 16), torch.full((2, 16, 16), -5.0)
    target[:, 2:12, 2:12] = 1
    logits[0, 2:12, 2:6] = 5  # most of the thing is missed
    logits[1, 2:12, 2:12] = 5
    logits[1, 2:12, 12:16] = 5  # four columns too many
    xy, label = train.corrective(logits, target)
    assert label[:, 0].tolist() == [1, 0]
    x, y = xy[0, 0].tolist()
    assert 6 * 4 <= x < 12 * 4 and 2 * 4 <= y < 12 * 4
    assert 12 * 4 <= xy[1, 0, 0] < 16 * 4


def test_a_corrective_click_on_a_right_mask_is_inside(train):
    target = torch.zeros(1, 8, 8)
    target[:, 3:6, 3:6] = 1
    xy, label = train.corrective(target * 10 - 5, target)
    assert label.item() == 1
    assert 12 <= xy[0, 0, 0] < 24 and 12 <= xy[0, 0, 1] < 24


def test_the_bank_passes_over_lost_frames_and_falls_back_on_the_prior(train):
    past = [
        (torch.full((2, 1, 1, 1), float(t)), torch.full((2, 4), float(t)), torch.tensor([t != 2, False]))
        for t in (1, 2, 3)
    ]
    state = train.Remembered([torch.full((2, 1, 1, 1), -1.0)], torch.full((2, 1, 4), -1.0), None, past)
    spatial, slots, pointers, times = state.bank(2)
    assert [float(part[0]) for part in spatial] == [-1, 3, 1]  # the second frame lost the object
    assert [float(part[1]) for part in spatial] == [-1, -1, -1]
    assert slots.tolist() == [[train.PRIOR_SLOT, 0, 1], [train.PRIOR_SLOT] * 3]
    assert pointers[0, :, 0].tolist() == [-1, 3, 1]
    assert (times * train.MAX_POINTERS)[0].round().tolist() == [1, 1, 3]


def test_gradients_end_where_a_part_of_a_clip_does(train, parts, tiny):
    model, _ = fresh(train)
    batch = train.to_device(drawn(parts, tiny), torch.device("cpu"))
    _, state = train.part_losses(model, batch, 0.5, slice(0, 2), None, 2, groups(train, batch, slice(0, 4)))
    assert len(state.past) == 2 and len(state.spatial) == 2
    assert state.spatial[0].requires_grad
    state = state.detached()
    assert not state.spatial[0].requires_grad
    before = state.past[0][0].clone()
    losses, after = train.part_losses(
        model, batch, 0.5, slice(2, 4), state, 2, groups(train, batch, slice(4, 6))
    )
    losses.total.backward()
    assert len(after.past) == 4 and torch.equal(after.past[0][0], before)


def test_losses_and_gradients_never_wait_for_the_device(train, parts, tiny):
    """A tensor without data cannot be read: nothing between the batch and the gradients looks at a number."""
    away = torch.device("meta")
    model = train.Starter().to(away)
    here = drawn(parts, tiny)
    batch = train.to_device(here, away)
    first, second = (groups(train, here, pictures, away) for pictures in (slice(0, 4), slice(4, 6)))
    losses, state = train.part_losses(model, batch, 0.5, slice(0, 2), None, 2, first)
    losses.total.backward()
    losses, _ = train.part_losses(model, batch, 0.5, slice(2, 4), state.detached(), 2, second)
    losses.total.backward()
    assert {figure.device for figure in losses.figures.values()} == {away}
    assert model.readout.weight.grad.device == away


def test_steps_lower_the_loss_of_what_they_see(train, parts, tiny):
    model, optimisers = fresh(train)
    batch = drawn(parts, tiny)
    seen = [train.take_step(model, optimisers, batch, tiny, (0, 0), False) for _ in range(5)]
    assert all(torch.isfinite(torch.stack(list(figures.values()))).all() for figures in seen)
    assert seen[-1]["track_mask"] < seen[0]["track_mask"]


def test_a_frozen_encoder_stays_as_it_is(train, parts, tiny):
    model, optimisers = fresh(train)
    train.freeze_encoder(model.sam)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train.take_step(model, optimisers, drawn(parts, tiny), tiny, (0, 0), False)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not [name for name in changed if "image_encoder" in name or "conv_s" in name]
    assert {"sam.memory_encoder.out_proj.weight", "sam.obj_ptr_proj.layers.0.weight"} <= changed
    assert any("memory_attention" in name for name in changed)


def test_muon_takes_matrices_a_step_along_their_singular_vectors(parts):
    muon = parts["muon"]
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 40, 64), (2, 96, 32)):
        matrices = torch.randn(shape, generator=generator)
        u, s, v = torch.linalg.svd(muon.orthogonal(matrices, 10), full_matrices=False)
        assert s.min() > 0.6 and s.max() < 1.3
        a, _, b = torch.linalg.svd(matrices, full_matrices=False)
        assert torch.allclose((u @ v), (a @ b), atol=1e-3)

    weight = torch.nn.Parameter(torch.zeros(32, 48, 1, 1))
    weight.grad = torch.randn(weight.shape, generator=generator)
    muon.Muon([weight], lr=0.01, weight_decay=0.0).step()
    # as large a change of an entry as AdamW's, whatever the size of the gradient
    assert weight.detach().square().mean().sqrt() == pytest.approx(0.2 * 0.01, rel=0.3)


def test_every_weight_has_one_optimiser(train):
    model = train.Starter()
    names = {parameter: name for name, parameter in model.named_parameters()}
    muon, adam = (
        [names[p] for group in optimiser.param_groups for p in group["params"]]
        for optimiser in train.make_optimisers(model, 1e-3)
    )
    assert sorted(muon + adam) == sorted(names.values())
    assert "sam.image_encoder.trunk.blocks.0.attn.qkv.weight" in muon
    assert "sam.image_encoder.neck.convs.0.conv.weight" in muon
    kept = ("pos_embed", "tpos_enc", "mask_tokens", "output_hypernetworks_mlps.0.layers.2", "readout", "bias")
    assert not [name for name in muon if any(part in name for part in kept)]


def _one_of_two(place, port, train, said):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(place), WORLD_SIZE="2")
    torch.distributed.init_process_group("gloo")
    model = torch.nn.ModuleList([torch.nn.Linear(2, 1, bias=False), torch.nn.Linear(1, 1, bias=False)])
    model[0].weight.grad = torch.tensor([[1.0, 2.0 + place]])
    if place:
        model[1].weight.grad = torch.tensor([[4.0]])  # what the other did not use
    train.average_gradients(model)
    gradients = [parameter.grad.tolist() for parameter in model.parameters()]
    said.put((gradients, train.agree(0.25 + place / 2, not place)))
    torch.distributed.destroy_process_group()


def test_two_processes_take_the_same_step_at_the_same_time(train):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    said = context.Queue()
    both = [context.Process(target=_one_of_two, args=(place, port, train, said)) for place in (0, 1)]
    for process in both:
        process.start()
    one, other = said.get(timeout=120), said.get(timeout=120)
    for process in both:
        process.join()
    assert one == other == ([[[1.0, 2.5]], [[2.0]]], (0.25, True))
    assert train.agree(0.5, False) == (0.5, False)  # alone


def test_processes_share_a_batch(parts, tiny):
    large = replace(tiny, batch=8)
    draw = [
        parts["feed"].Plan([large], steps=1, share=share).draw(0, 0) for share in ((0, 1), (0, 2), (1, 2))
    ]
    whole, first, second = (batch["pictures"] for batch in draw)
    assert len(first) == len(second) == len(whole) // 2
    assert np.array_equal(whole[: 2 * len(first)], np.concatenate((first, second)))


@pytest.fixture
def quick(train, tiny, tmp_path, monkeypatch, on_cpu):
    """Words of a command that trains on tiny scenes in a moment."""
    monkeypatch.setattr(train, "stages", lambda *_: [replace(tiny, until=0.5), tiny])
    return ["--run", str(tmp_path), "--threads", "1", "--every", "1", "--workers", "2"]


def state_and_log(run):
    state = torch.load(run / "state.pt", weights_only=True)
    return state, [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_run_is_resumed_where_it_stopped(train, quick, tmp_path):
    train.train(train.parse([*quick, "--steps", "1"]))
    first, _ = state_and_log(tmp_path)
    train.train(train.parse([*quick, "--steps", "2"]))
    state, log = state_and_log(tmp_path)
    assert [line["step"] for line in log] == [1, 2]
    assert (first["step"], state["step"]) == (1, 2)
    assert state["seconds"] > first["seconds"] > 0
    assert not torch.equal(first["model"]["readout.weight"], state["model"]["readout.weight"])


def test_attention_is_softened_where_a_run_begins_and_not_again(train, tmp_path):
    model, state = train.Starter(), tmp_path / "state.pt"
    before = [layer.cross_attn_image.q_proj.weight.clone() for layer in model.sam.memory_attention.layers]
    average, _, _ = train.begin(model, [], state, None, (0.5, 0.25))
    for k, (weight, factor) in enumerate(zip(before, (0.5, 0.25))):
        name = f"sam.memory_attention.layers.{k}.cross_attn_image.q_proj.weight"
        assert torch.equal(average[name], factor * weight)
        assert torch.equal(model.state_dict()[name], factor * weight)
    train.save(state, model, average, [], train.Clock(10, None, step=3))
    again = train.Starter()
    average, step, _ = train.begin(again, [], state, None, (0.5, 0.25))
    assert step == 3 and all(torch.equal(average[key], value) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match="shorter"):
        train.soften(model, (0.5,))


def test_a_run_ends_by_the_clock_and_a_longer_one_goes_on(train, quick, tmp_path, monkeypatch):
    ticks = count(step=0.25)  # seconds that a look at the clock takes; nothing else takes time
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    train.train(train.parse([*quick, "--minutes", "0.03"]))
    first, log = state_and_log(tmp_path)
    assert first["step"] >= 1 and first["seconds"] >= 1.8
    train.train(train.parse([*quick, "--minutes", "0.03"]))  # its time is used up
    assert state_and_log(tmp_path)[0]["step"] == first["step"]
    train.train(train.parse([*quick, "--minutes", "60", "--stop-after", "0.02"]))
    state, log = state_and_log(tmp_path)
    assert state["step"] > first["step"]
    assert log[-1]["stage"] == 0  # two of sixty minutes are in the first half


def test_a_terminated_run_saves_first(train, quick, tmp_path, monkeypatch):
    step = train.take_step

    def terminated(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return step(*args)

    monkeypatch.setattr(train, "take_step", terminated)
    before = signal.getsignal(signal.SIGTERM)
    train.train(train.parse([*quick, "--steps", "50"]))
    assert state_and_log(tmp_path)[0]["step"] == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_clock_decides_stage_and_learning_rate(train):
    recipe = train.stages()
    shares = (0, 0.1, 0.3, 0.7, 0.8, 0.9, 1.0)
    assert [train.stage_at(recipe, share) for share in shares] == [0, 1, 2, 2, 3, 4, 4]
    assert [stage.until for stage in train.stages(long_from=0.5)[2:]] == [0.5, 0.75, 1.01]
    short = train.stages(longest=8, soft=0.5)
    assert [stage.lengths for stage in short] == [(2,), (3,), (4,), (4, 8), (4, 8)]
    assert {stage.soft for stage in short} == {0.5} and {stage.soft for stage in recipe} == {0.0}
    clock = train.Clock(None, 30, seconds=900, started=train.time.monotonic())
    assert clock.share() == pytest.approx(0.5, abs=0.01)
    assert train.Clock(10, None, step=4).share() == 0.4
    rates = [train.learning_rate(share, 500, 1e-3) for share in (0, 0.5, 1)]
    assert rates == pytest.approx([1e-3, 0.51e-3, 0.02e-3])
    assert train.learning_rate(0.5, 0, 1e-3) < 0.01e-3  # a call begins gently


def test_a_run_begins_from_exported_weights(train, parts, tmp_path):
    from safetensors.torch import load_file

    bundled = parts["export"].BUNDLED
    model, optimisers = fresh(train)
    average, step, seconds = train.begin(model, optimisers, tmp_path / "state.pt", bundled)
    name = "obj_ptr_proj.layers.0.weight"
    assert step == 0 and seconds == 0
    assert torch.equal(model.sam.state_dict()[name], load_file(bundled)[name].float())
    assert torch.equal(average["sam." + name], model.sam.state_dict()[name])
    assert not model.readout.weight.any()  # what is not in the weights begins to learn before it teaches


def test_exported_weights_can_be_averaged_with_earlier_ones(train, parts, quick, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    train.train(train.parse([*quick, "--steps", "1"]))
    words = ["export.py", str(tmp_path / "state.pt"), "--out"]
    made, bundled, presence = {}, parts["export"].BUNDLED, parts["export"].PRESENCE
    mixed = ["--blend", str(bundled), "--share", "0.25"]
    for name, more in (("plain", []), ("mixed", mixed), ("shifted", ["--presence", "1.5"])):
        monkeypatch.setattr(sys, "argv", [*words, str(tmp_path / name), *more])
        parts["export"].main()
        made[name] = load_file(tmp_path / name)
    assert float(made["shifted"][presence] - made["plain"][presence]) == pytest.approx(1.5, abs=0.01)
    for key, earlier in load_file(bundled).items():
        assert key == presence or torch.equal(made["shifted"][key], made["plain"][key])
        between = 0.75 * made["plain"][key].float() + 0.25 * earlier.float()
        assert torch.allclose(made["mixed"][key].float(), between, rtol=1e-3, atol=1e-6)


def test_batches_do_not_depend_on_the_number_of_workers(train, parts, tiny):
    def fed(workers):
        plan = parts["feed"].Plan([replace(tiny, until=0.7), tiny], steps=6)
        with parts["feed"].Feed(plan, 3, workers, train.stage_at) as feed:
            return [feed.get() for _ in range(3)]

    one, two = fed(1), fed(2)
    assert [stage for stage, _ in one] == [stage for stage, _ in two] == [0, 0, 1]
    for (_, a), (_, b) in zip(one, two):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(one[0][1]["pictures"][0], one[1][1]["pictures"][0])


def test_batches_too_large_for_shared_memory_arrive_as_well(train, parts, tiny, monkeypatch):
    def fed():
        with parts["feed"].Feed(parts["feed"].Plan([tiny], steps=4), 0, 1, train.stage_at) as feed:
            return [feed.get()[1] for _ in range(4)]

    expected = fed()
    monkeypatch.setattr(parts["feed"], "LARGEST", expected[0]["pictures"].nbytes - 1)
    for a, b in zip(expected, fed()):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_scenes_come_again_turned_and_asked_for_something_else(train, parts, tiny):
    plan = parts["feed"].Plan([tiny], steps=4, uses=2)
    with parts["feed"].Feed(plan, 0, 1, train.stage_at) as feed:
        first, again, other, _ = (feed.get()[1] for _ in range(4))
    assert torch.equal(first["truth"].sum((2, 3)).sort(1).values, again["truth"].sum((2, 3)).sort(1).values)
    assert not torch.equal(first["pictures"], again["pictures"])
    assert not torch.equal(first["points"], again["points"])
    assert not torch.equal(first["truth"].sum((2, 3)), other["truth"].sum((2, 3)))


def test_masks_turn_with_their_pictures(parts, prompts, tiny):
    scenes = parts["scenes"].make_batch(tiny.at(0)[0], range(1_000_000, 1_000_002))
    scenes["prior"] = 200 * scenes["prior_mask"][..., None] * np.ones(3, np.uint8)
    scenes["frames"] = scenes["frame_instances"][..., None] * np.array([1, 2, 3], np.uint8)
    backwards = set()
    for seed in range(30):
        turned = prompts.turned(scenes, np.random.default_rng(seed))
        assert np.array_equal(turned["prior"][..., 0] > 0, turned["prior_mask"])
        assert np.array_equal(turned["frames"].min(-1), turned["frame_instances"])
        assert np.array_equal(turned["frame_instances"] == 1, turned["masks"])
        assert not np.array_equal(turned["prior_mask"], scenes["prior_mask"])
        areas = turned["masks"].sum((2, 3))
        backwards.add(not np.array_equal(areas, scenes["masks"].sum((2, 3))))
        assert np.array_equal(np.sort(areas, 1), np.sort(scenes["masks"].sum((2, 3)), 1))
    assert backwards == {True, False}


@pytest.mark.parametrize("factor", [2, 4])
def test_covered_pixels_are_counted(prompts, factor):
    masks = np.random.default_rng(0).random((3, 2, 32, 64)) < 0.4
    covered = prompts.covered(masks, factor)
    assert covered.dtype == np.uint8 and covered.shape == (3, 2, 32 // factor, 64 // factor)
    y, x = 1, 3
    square = masks[2, 1, y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
    assert covered[2, 1, y, x] == square.sum()
    assert covered.sum(dtype=int) == masks.sum()


def test_the_mask_that_will_be_taken_learns_also_where_another_is_better(train):
    target = torch.zeros(1, 8, 8)
    target[:, :4] = 1
    logits = torch.zeros(1, 4, 8, 8)
    logits[:, 1], logits[:, 2:] = target * 4 - 2, 2 - target * 4
    logits.requires_grad_()
    iou = torch.tensor([[0.0, 0.1, 0.9, 0.2]])  # the second is trusted, the first is right
    decoded = train.Decoded(logits, iou, torch.zeros(1, 4, 2), torch.zeros(1))
    losses = train.Losses(torch.zeros(()), {})
    there = torch.ones(1, dtype=torch.bool)
    train.decoded_loss(losses, "track", decoded, target, there, there)
    losses.figures.clear()
    losses.total.backward()
    trusted, neither = logits.grad[0, 2].abs().sum(), logits.grad[0, 3].abs().sum()
    assert trusted > 5 * neither > 0  # both are as wrong


def test_the_best_mask_shall_be_taken(train):
    target = torch.zeros(1, 8, 8)
    target[:, :4] = 1
    logits = (target * 4 - 2)[:, None] * torch.tensor([1.0, 1.0, -1.0, -1.0]).reshape(1, 4, 1, 1)
    iou = torch.tensor(
        [[0.5, 0.8, 0.9, 0.2]], requires_grad=True
    )  # the first is right, the second would be taken
    there = torch.ones(1, dtype=torch.bool)
    grads = {}
    for name in ("track", "click_2"):
        losses = train.Losses(torch.zeros(()), {})
        train.decoded_loss(losses, name, train.Decoded(logits, iou, torch.zeros(1, 4, 2), torch.zeros(1)), target,
                           there, there)  # fmt: skip
        assert (f"{name}_choice" in losses.figures) == (name == "track")  # several points have one mask
        grads[name] = torch.autograd.grad(losses.total, iou)[0][0]
    more = grads["track"] - grads["click_2"]
    assert more[1] < 0 < more[2] and abs(more[3]) < 0.1 * more[2]


def test_softened_pictures_are_those_of_a_smaller_one(train):
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.integers(0, 256, (2, 3, 48, 48, 3), np.uint8))
    plain = torch.full_like(noise, 77)
    assert torch.equal(train.softened(plain), plain)
    soft = train.softened(noise)
    assert soft.shape == noise.shape and soft.dtype == torch.uint8
    fine = [x.float().diff(dim=3).abs().mean() for x in (noise, soft)]
    assert fine[1] < 0.5 * fine[0]
    assert soft.float().mean() == pytest.approx(float(noise.float().mean()), abs=1)


def test_no_more_batches_is_an_error(train, parts, tiny):
    with parts["feed"].Feed(parts["feed"].Plan([tiny], steps=1), 0, 1, train.stage_at) as feed:
        feed.get()
        with pytest.raises(RuntimeError, match="have ended"):
            feed.get()


def test_a_batch_is_what_the_scenes_show(parts, prompts, tiny):
    config, count = tiny.at(0)
    scenes = parts["scenes"].make_batch(config, range(1_000_000, 1_000_000 + count))
    batch = prompts.with_prompts(scenes, np.random.default_rng(0))
    assert np.array_equal(batch["pictures"][:, 0], scenes["prior"])
    assert np.array_equal(batch["pictures"][:, 2:], scenes["frames"])
    assert np.array_equal(batch["truth"][:, 2:].sum((2, 3), dtype=int), scenes["masks"].sum((2, 3)))
    assert batch["truth"].max() == 16 and batch["truth"].shape[2:] == (16, 16)
    assert np.array_equal(batch["present"], scenes["masks"].mean((2, 3)) > prompts.SURE)
    first = batch["points"][:, 0][np.isin(batch["labels"][:, 0], (0, 1)).all(1) & batch["own"][:, 0]]
    assert ((first >= 0) & (first < 64)).all()


def test_training_never_draws_held_out_seeds_or_families(train, parts):
    feed = parts["feed"]
    assert feed.FIRST_SEED not in parts["scenes"].HELD_OUT_SEEDS
    for stage in train.stages():
        assert stage.scene.shapes == () and stage.scene.textures == ()
        assert max(stage.at(step, 99)[1] for step in range(30)) <= feed.SEEDS_A_STEP


def test_larger_pictures_come_in_smaller_batches(train):
    stage = replace(train.stages()[3], lengths=(4,), priors=(1,))
    drawn = {config.side: count for config, count in (stage.at(step) for step in range(60))}
    assert set(drawn) == {128, 192, 256}
    assert drawn[128] > drawn[192] > drawn[256] >= 2


def test_the_longest_clips_come_in_no_smaller_batches_than_those_of_two_parts(train):
    stage = train.stages()[-1]
    drawn = {
        config.frames: count for config, count in (stage.at(k, 6) for k in range(60)) if config.priors == 1
    }
    assert drawn[4] > drawn[8] == drawn[16] == drawn[24]


def test_the_last_stages_have_long_clips_several_priors_and_absent_objects(train):
    drawn = [stage.at(step)[0] for stage in train.stages()[-2:] for step in range(60)]
    assert {config.priors for config in drawn} == {1, 2, 3}
    assert {8, 16, 24} <= {config.frames for config in drawn}
    assert {config.absent for config in drawn} == {0.125, 0.25}


# ---- measuring


def test_times_of_return_are_found(evaluate):
    shown = np.array([0, 0.1, 0.1, 0, 0, 0.1, 0.1, 0.1, 0.0002, 0.1, 0.1, 0.1, 0, 0.1])
    # it comes for the first time; it is back; it was never quite out of sight; it is back for one frame only
    assert evaluate.returns(shown) == [slice(5, 8)]


def test_the_most_overlapped_thing(evaluate):
    things = np.zeros((10, 10), int)
    things[:, :5], things[:2, 5:] = 1, 2
    found = np.zeros((10, 10), bool)
    found[:2] = True
    assert evaluate.most_overlapped(found, things) == 2
    found[:, :5] = True
    assert evaluate.most_overlapped(found, things) == 1
    assert evaluate.most_overlapped(np.zeros((10, 10), bool), things) == 0


def test_the_next_point_corrects(evaluate, disc):
    rng = np.random.default_rng(0)
    (x, y), label = evaluate.next_point(np.zeros_like(disc), disc, rng)
    assert label == 1 and np.hypot(x - 40, y - 20) < 4
    spilled = disc.copy()
    spilled[40:60, 10:30] = True
    (x, y), label = evaluate.next_point(spilled, disc, rng)
    assert label == 0 and 40 <= y < 60 and 10 <= x < 30
    (x, y), label = evaluate.next_point(disc, disc, rng)
    assert label == 1 and disc[int(y), int(x)]


class Perfect:
    """Stands for the model and the tracker; it knows the truth, or takes another thing for the object."""

    def __init__(self, example, thing):
        self.example, self.thing = example, thing

    def encode(self, picture, side):
        return None

    def segment(self, features, prompt):
        return self

    def mask(self):
        return self.example.prior_mask

    def step(self, frame, t):
        found = self.example.frame_instances[t] == self.thing
        score = type("Score", (), {"lost": not found.any(), "iou": 0.9})
        return type("Result", (), {"labels": found.astype(np.uint16), "scores": {1: score}})


@pytest.mark.parametrize("thing, right", [(1, 1.0), (2, 0.0)])
def test_figures_of_a_perfect_and_of_a_mistaken_tracker(parts, evaluate, monkeypatch, thing, right):
    config = replace(
        parts["scenes"].SceneConfig(side=64, frames=4, distractors=(1, 1)), absent=0.0, occlusion=0.0
    )
    example = next(
        e
        for e in (parts["scenes"].make_example(config, seed) for seed in range(50))
        if all((e.frame_instances == k).any((1, 2)).all() for k in (1, 2))
    )
    model = Perfect(example, thing)
    monkeypatch.setattr(evaluate, "record", lambda *_: ())
    monkeypatch.setattr(
        evaluate, "PriorMemory", lambda: type("P", (), {"with_recording": lambda self: self})()
    )
    monkeypatch.setattr(evaluate, "Tracker", lambda *_: model)
    settings = type("S", (), {"side": None})
    got = evaluate.measure_clip(model, example, np.random.default_rng(0), settings)
    assert got.points == {1: [1.0], 2: [1.0], 3: [1.0]}
    assert np.mean(got.right) == right and len(got.tracked) == 4
    assert np.mean(got.tracked) == right  # another thing has no pixel in common
    assert got.iou_error == pytest.approx([abs(0.9 - right)] * 4)


def test_the_table_tells_reached_from_missed(evaluate):
    text = evaluate.table({"one-point J": 0.86, "encode, ms": 70.0, "predicted IoU, mean error": 0.09})
    one, encode, error = text.splitlines()
    assert one.endswith("reached") and encode.endswith("missed") and error.endswith("reached")


def test_coins_are_told_apart_from_the_ground(evaluate):
    pytest.importorskip("skimage")
    picture, parts = evaluate.coins()
    assert picture.shape == parts.shape
    assert len(np.unique(parts)) - 1 == 24  # as one counts in the picture
    assert picture[parts > 0].mean() > picture[parts == 0].mean() + 40


def test_the_cell_is_told_apart_from_its_halo(evaluate):
    pytest.importorskip("skimage")
    picture, mask = evaluate.cell()
    assert picture.shape == mask.shape
    rows, columns = np.nonzero(mask)
    size = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert size == pytest.approx((122, 124), abs=4)  # as one measures in the picture
    assert mask.sum() == pytest.approx(np.pi / 4 * size[0] * size[1], rel=0.03)  # it is round


def test_all_figures_of_two_small_clips(parts, evaluate):
    pytest.importorskip("skimage")
    words = "--clips 2 --kept-out-clips 1 --hidden-clips 1 --frames 3 --picture 64 --threads 1 --no-speed"
    figures = evaluate.evaluate(evaluate.parse(words.split()))
    missing = set(evaluate.TARGETS) - set(figures)
    assert missing == {"frames/s, one label", "encode, ms"}
    assert 0 < figures["one-point J"] <= 1 and 0 < figures["coins, one-click J"] <= 1


def test_logs_join_and_later_lines_of_a_step_hold(parts, tmp_path):
    module = parts["learning_curve"]
    one, two = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    one.write_text('{"step": 10, "J": 0.1}\n{"step": 20, "J": 0.2}\n{"step": 20, "J": 0.3}\n')
    two.write_text('{"step": 5, "K": 0.7}\n')
    steps, values = module.curve([module.read_log(path) for path in (one, two)], ("J", "K"))
    assert steps.tolist() == [10, 20, 25]
    assert values.tolist() == [0.1, 0.3, 0.7]
    assert module.smooth(np.array([1.0, np.nan, 3.0]), 3)[0] == 1.0
    names = ["run-10-b.jsonl", "run-9.jsonl", "run-1-c.jsonl", "run-1-a.jsonl"]
    assert sorted(map(Path, names), key=module.in_order) == [Path(names[k]) for k in (3, 2, 1, 0)]
