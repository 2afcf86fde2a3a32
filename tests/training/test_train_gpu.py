"""The trainer for GPUs: prompts drawn by tensors, pools of scenes, steps; all but the recording runs anywhere."""

import contextlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def gpu(parts):
    return parts["train_gpu"]


def filled(parts, gpu, what, device="cpu", **more):
    """A pool of four small scenes."""
    drawn = gpu.Drawn(what, parts["scenes"].SceneConfig(side=64, **more), 4, 8, (1.0, 1.0))
    pool = gpu.Pool(drawn, torch.device(device))
    batch = gpu.Drawing([drawn, drawn], 0).scenes(0, 0)
    pool.put({name: torch.from_numpy(array) for name, array in batch.items()})
    return pool


@pytest.fixture(scope="module")
def small(parts, gpu):
    """Examples with two priors and three frames."""
    return filled(parts, gpu, "example", frames=3, priors=2)


@pytest.fixture(scope="module")
def before(parts):
    return parts["train_pairs"].Before(parts["export"].BUNDLED, torch.device("cpu"))


@pytest.fixture
def learning(parts, gpu):
    """What a run that begins with random weights changes."""
    model = parts["train_pairs"].Starter()
    parts["train"].initialise(model, 0)
    made = gpu.Learning(model, 1e-3)
    made.begin(Path("nowhere"), None, None)
    return made


@pytest.fixture
def asking(gpu, small):
    torch.manual_seed(0)
    made = gpu.Asking(gpu.Kind("small", 0, 48, 2, 2, 64, 1), small)
    made.choose()
    return made


@pytest.fixture
def masks():
    """A disc, a bar one pixel wide, a full picture and one pixel."""
    y, x = torch.meshgrid(torch.arange(48), torch.arange(64), indexing="ij")
    disc = (x - 40) ** 2 + (y - 20) ** 2 < 100
    return torch.stack((disc, y == 7, y >= 0, (x == 63) & (y == 47)))


def values_at(masks, points):
    """What masks (N, H, W) are at their points (N, K, 2)."""
    x, y = points.long().unbind(2)
    return torch.stack([mask[b, a] for mask, a, b in zip(masks, x, y)])


def test_clicks_are_on_the_side_that_their_label_says(gpu, masks):
    many = masks.repeat(100, 1, 1)
    points, labels = gpu.draw_clicks(many)
    assert torch.equal(values_at(many, points), labels.bool())
    assert labels[:, 0].all() and labels[2::4].all()
    assert 0.2 < (labels[::4, 1:] == 0).float().mean() < 0.4


def test_random_places_are_spread_over_the_whole_mask(gpu, masks):
    counted = masks.flatten(1).int().cumsum(1, dtype=torch.int32)
    places = gpu.random_places(counted, 4000)
    seen = [set(row.tolist()) for row in places]
    assert seen[3] == {48 * 64 - 1}
    assert seen[1] == set(range(7 * 64, 8 * 64))
    x, y = (places[0] % 64).float(), (places[0] // 64).float()
    assert abs(x.mean() - 40) < 0.5 and abs(y.mean() - 20) < 0.5
    assert ((x - 40).hypot(y - 20)).mean() == pytest.approx(20 / 3, abs=0.3)


def test_the_deepest_of_some_places_is_chosen(gpu, masks):
    disc = masks[:1]
    places = torch.tensor([[[20 * 64 + 31, 20 * 64 + 41, 12 * 64 + 40]]])
    assert gpu.deepest(disc, disc.sum((1, 2)), places).tolist() == [[20 * 64 + 41]]
    points = gpu.draw_clicks(disc.repeat(300, 1, 1))[0][:, 0]
    far = (points - torch.tensor([40.0, 20.0])).norm(dim=1)
    assert far.mean() < 6.2  # points spread evenly are 6.7 away from the middle; six of ten are deep ones


def test_boxes_are_around_the_thing(gpu, masks):
    boxes = gpu.draw_boxes(masks.repeat(50, 1, 1))
    disc = torch.tensor([[31.0, 11.0], [49.0, 29.0]])
    assert (boxes[::4] - disc).abs().max() <= 1.95
    assert (boxes[::4].std(0) > 0.5).all()
    assert torch.equal(boxes[2::4].clamp(min=0), boxes[2::4])
    assert (boxes[3::4] - torch.tensor([63.0, 47.0])).abs().max() <= 0.11


def test_kinds_of_prompts_have_their_shares(gpu):
    counts = Counter(gpu.draw_kinds(200).tolist())
    assert counts == {1: 100, 2: 14, 3: 26, 4: 30, 5: 30}
    assert sum(Counter(gpu.draw_kinds(7).tolist()).values()) == 7


def test_a_pool_keeps_the_newest_scenes(parts, gpu):
    scene = parts["scenes"].SceneConfig(side=8, frames=1)
    pool = gpu.Pool(gpu.Drawn("example", scene, 2, 5, (1.0, 1.0)), torch.device("cpu"))
    for k in range(1, 5):
        pool.put({name: torch.full((2, *x.shape[1:]), k, dtype=x.dtype) for name, x in pool.arrays.items()})
        assert pool.held == min(2 * k, 4)
    # a fifth place would never be filled: pairs stay whole
    assert pool.arrays["areas"][:, 0, 0].tolist() == [3, 3, 4, 4]


def test_scenes_become_pictures_with_what_they_show(parts, gpu, small):
    held = {name: array[:4] for name, array in small.arrays.items()}
    example = parts["scenes"].make_example(
        parts["scenes"].SceneConfig(side=64, frames=3, priors=2), parts["feed"].FIRST_SEED + 2
    )
    assert np.array_equal(held["pictures"][2, 0], example.prior)
    assert np.array_equal(held["pictures"][2, 2:], example.frames)
    assert np.array_equal(held["things"][2, 0] == 1, example.prior_mask)
    assert np.array_equal(held["things"][2, 1] == 1, example.more_prior_masks[0])
    assert np.array_equal(held["things"][2, 2:] == 1, example.masks)
    assert held["areas"].sum(2).eq(64 * 64).all()
    assert torch.equal(held["areas"][..., 1], (held["things"] == 1).sum((2, 3)).int())


def test_examples_are_turned_alike_and_each_in_another_way(gpu):
    things = torch.arange(64 * 64).view(1, 1, 64, 64).repeat(16, 2, 1, 1)
    turned = gpu.turned(things)
    assert torch.equal(turned[:, 0], turned[:, 1])
    assert len({tuple(x.flatten().tolist()) for x in turned[:8, 0]}) == 8
    assert torch.equal(turned[:8], turned[8:])
    colours = gpu.recoloured(torch.tensor([1, 2, 3]).view(1, 1, 1, 1, 3).repeat(12, 1, 1, 1, 1))
    assert len({tuple(x.flatten().tolist()) for x in colours[:6]}) == 6
    assert all(sorted(x.flatten().tolist()) == [1, 2, 3] for x in colours)


def test_what_is_asked_fits_the_scenes(parts, asking):
    batch = asking.batch()
    truth = batch["truth"] / 16
    assert batch["pictures"].shape == (48, 4, 64, 64, 3) and truth.shape == (48, 4, 16, 16)
    assert torch.equal(batch["present"], truth[:, 2:].mean((2, 3)) > parts["prompts"].SURE)
    assert batch["own"][:, 1].all() and 0.5 < batch["own"][:, 0].float().mean() < 0.95
    own, target = batch["own"][..., None, None], batch["target"][:, :2] / 16
    there = (truth[:, :2].sum((2, 3)) > 0)[..., None, None]
    assert torch.equal(torch.where(own & there, target, 0), torch.where(own & there, truth[:, :2], 0))
    others = (batch["target"] != batch["truth"]).flatten(2).any(2)
    assert others[:, 2:].any() and others[:, 0].any()
    # what is clicked on is the target
    labels, points = batch["labels"], batch["points"]
    x, y = ((points[..., k] / 4).long().clamp(0, 15) for k in (0, 1))
    near = torch.nn.functional.max_pool2d(batch["target"].flatten(0, 1)[:, None], 3, 1, 1)[:, 0]
    for k in range(3):
        first = labels[..., k].flatten() == 1
        assert (near[torch.arange(len(near)), y[..., k].flatten(), x[..., k].flatten()][first] > 0).all()
    assert {tuple(row) for row in labels.flatten(0, 1).tolist()} >= {(2, 3, 1), (1, 1, 1)}
    clips = {(tuple(a.tolist())) for a in asking.order}
    assert clips == {(0, 1), (1, 0)}


def test_groups_are_the_pictures_with_so_many_tokens(asking):
    counts = {count: len(rows) for count, rows in asking.groups}
    pictures = 48 * 4
    assert sum(counts.values()) == pictures and counts[1] == pictures / 2
    labels = asking.batch()["labels"].flatten(0, 1)
    for count, rows in asking.groups:
        boxes = labels[rows][:, 0] == 2
        assert (count == 1 and not boxes.any()) or (count > 1 and boxes.any() and not boxes.all())


def test_enlarged_pictures_keep_their_prompts_in_place(gpu, small):
    def made(side):
        torch.manual_seed(3)
        asking = gpu.Asking(gpu.Kind("x", 0, 8, 2, 1, side, 1), small)
        asking.choose()
        return asking.batch()

    plain, large = made(64), made(96)
    assert torch.allclose((large["points"] + 0.5) / 96, (plain["points"] + 0.5) / 64)
    assert large["target"].shape[-1] == 24
    assert torch.allclose(large["target"].mean((2, 3)), plain["target"].mean((2, 3)), atol=0.1)
    assert torch.equal(large["present"], plain["present"])


@pytest.fixture(scope="module", params=["shared", "lineup"])
def all_asked(request, parts, gpu):
    torch.manual_seed(1)
    frames = 3 if request.param == "shared" else 1
    pool = filled(parts, gpu, request.param, frames=frames)
    made = gpu.AskingAll(gpu.Kind(request.param, 0, 48, frames, 1, 64), pool)
    made.choose()
    return made


def test_things_of_shared_scenes_are_asked_for(parts, gpu, all_asked):
    pairs, batch = parts["train_pairs"], all_asked.batch()
    frames = all_asked.kind.frames
    things, truth = batch["things"], batch["truth"]
    assert things.shape == (48, 1 + frames, 64, 64) and batch["pictures"].shape == (*things.shape, 3)
    assert truth.shape == (48 * pairs.OBJECTS, 1 + frames, 16, 16)
    assert batch["rows"].tolist() == [k // pairs.OBJECTS for k in range(48 * pairs.OBJECTS)]
    asked = batch["asked"]
    assert asked.float().mean() > 0.8
    seen = Counter()
    for k in torch.nonzero(asked)[:, 0].tolist():
        inside = batch["points"][k][batch["labels"][k] == 1].long()
        numbers = {int(things[k // pairs.OBJECTS, 0, y, x]) for x, y in inside}
        if not numbers:
            continue  # a box
        (number,) = numbers
        assert number
        seen[k // pairs.OBJECTS, number] += 1
        mask = things[k // pairs.OBJECTS] == number
        covered = torch.nn.functional.avg_pool2d(mask.float()[:, None], 4)[:, 0] * 16
        assert torch.equal(truth[k], covered)
        assert torch.equal(batch["present"][k], mask[1:].float().mean((1, 2)) > parts["prompts"].SURE)
    assert len(seen) > 40 and max(seen.values()) == 1  # each once
    assert not batch["sure"][~asked].any() and (truth[~asked] == 16).all()
    if all_asked.kind.name == "lineup":
        kinds = all_asked.pool.arrays["kinds"][all_asked.places]
        assert torch.equal(batch["kinds"], kinds) and kinds[:, 1:].min() >= 0
    else:
        assert "kinds" not in batch


def test_a_scene_without_large_things_asks_nothing(gpu, parts):
    pool = filled(parts, gpu, "lineup")
    pool.arrays["things"].zero_()
    pool.arrays["areas"].zero_()
    asking = gpu.AskingAll(gpu.Kind("x", 0, 2, 1, 1, 64), pool)
    batch = asking.batch()
    assert not batch["asked"].any() and not batch["sure"].any()
    model = parts["train_pairs"].Starter()
    parts["train"].initialise(model, 0)
    losses = asking.losses(model, None, 0.5)
    losses.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert losses.figures["track_mask"] == 0


def test_losses_of_all_things_never_wait_for_the_device(parts, gpu, all_asked, monkeypatch):
    """As in `test_recipe.py`; a device without data has no autocast."""
    pairs, away = parts["train_pairs"], torch.device("meta")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    pool = gpu.Pool(
        gpu.Drawn(all_asked.pool.what, parts["scenes"].SceneConfig(side=64, frames=3), 4, 8, (1, 1)), away
    )
    for alone in (False, True):
        kind = replace(all_asked.kind, alone=alone, side=96)
        asking = gpu.AskingAll(kind, pool)
        model = pairs.Starter().to(away)
        losses = asking.losses(model, pairs.Before(parts["export"].BUNDLED, away), 0.5)
        losses.total.backward()
        assert {figure.device for figure in losses.figures.values()} == {away}
        assert ("change" in losses.figures) == alone and ("track_mask" in losses.figures) != alone


def test_steps_lower_the_loss_of_what_they_see(gpu, asking, learning, before):
    asking.kind = replace(asking.kind, batch=48)
    step, seen = gpu.Step(learning, before, asking, 0.5), []
    learning.decay.fill_(0.5)
    for _ in range(6):
        step.run()
        assert step.count == 1
        seen.append(step.told())
        assert step.count == 0 and np.isfinite(list(seen[-1].values())).all()
    assert np.mean([x["track_mask"] for x in seen[-2:]]) < seen[0]["track_mask"]
    now = learning.model.state_dict()["readout.weight"]
    assert not torch.equal(learning.average["sam.no_mem_embed"], learning.model.sam.no_mem_embed)
    assert torch.isfinite(now).all()


def test_the_encoder_alone_changes_where_a_step_says_so(gpu, all_asked, learning, before):
    kind = replace(all_asked.kind, alone=True, frames=1, batch=8)
    step = gpu.Step(learning, before, gpu.AskingAll(kind, all_asked.pool), 0.5)
    begun = {key: value.clone() for key, value in learning.model.state_dict().items()}
    step.run()
    changed = {k for k, v in learning.model.state_dict().items() if not torch.equal(v, begun[k])}
    learns = ("sam.image_encoder.", "sam.sam_mask_decoder.conv_s", "by_token", "pooled", "kept")
    assert any(key.startswith(learns[0]) for key in changed)
    assert all(key.startswith(learns) for key in changed)
    assert {"likeness", "change", "norm"} <= set(step.told())


def test_gradients_that_are_no_numbers_change_next_to_nothing(learning):
    begun = {key: value.clone() for key, value in learning.model.state_dict().items()}
    learning.rate.fill_(1e-3)
    for p in learning.model.parameters():
        p.grad = torch.full_like(p, torch.nan)
    assert not torch.isfinite(learning.change())
    for key, value in learning.model.state_dict().items():
        assert torch.allclose(value, begun[key] * (1 - 1e-3 * 0.02), atol=1e-6), key


def test_every_kind_of_step_comes(gpu):
    first, early, late = (
        Counter(gpu.turn_of(share, step, 0.2) for step in range(360)) for share in (0.1, 0.3, 0.95)
    )
    drawn, kinds = gpu.recipe((8,) * 4, 1)
    named = {kind.name: kind for kind in kinds}
    assert all(named[name].alone for name in first) and not any(named[name].alone for name in early + late)
    assert set(first) | set(early) | set(late) == set(named)
    assert early["short-256"] > 60 and "long-384" not in early
    assert late["long-384"] > 80 and "short-256" not in late
    assert [gpu.turn_of(0.2, step, 0.2, 0.9) for step in range(300)] == [
        gpu.turn_of(0.93, step, 0.2) for step in range(300)
    ]
    assert gpu.turn_of(1.0, 1, 0.3, 0.6) == gpu.turn_of(1.0, 1, 0.3)
    for kind in kinds:
        pool = drawn[kind.pool]
        assert kind.frames <= pool.frames and kind.priors <= pool.priors and kind.side % 32 == 0
        assert kind.batch >= 2 * len(gpu.SHAPE_TURNS)
    often = np.array([pool.often for pool in drawn])
    assert np.allclose(often.sum(0), 1) and (often > 0).all()


def test_all_pools_are_drawn_for(gpu, parts):
    scene = parts["scenes"].SceneConfig(side=32, frames=1)
    often = ((0.0, 0.5), (1.0, 0.5))
    pools = [gpu.Drawn(what, scene, 1, 8, each) for what, each in zip(("example", "lineup"), often)]
    drawing = gpu.Drawing(pools, 0)
    assert all("kinds" in drawing.scenes(step, 0) for step in range(8))
    both = [("kinds" in drawing.scenes(step, 1)) for step in range(16)]
    assert 3 < sum(both) < 13


def test_a_run_ends_by_the_clock_and_leaves_weights(parts, gpu, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    scene = parts["scenes"].SceneConfig(side=64, frames=2)
    pools = [
        gpu.Drawn("example", scene, 2, 8, (0.2, 0.4)),
        gpu.Drawn("example", replace(scene, frames=3, priors=2), 2, 4, (0.2, 0.2)),
        gpu.Drawn("shared", replace(scene, frames=3), 2, 4, (0.3, 0.2)),
        gpu.Drawn("lineup", scene, 2, 4, (0.3, 0.2)),
    ]
    kinds = [
        replace(kind, batch=2, side=64, frames=min(kind.frames, pools[kind.pool].frames))
        for kind in gpu.recipe((8,) * 4, 1)[1]
    ]
    monkeypatch.setattr(gpu, "recipe", lambda *_: (pools, kinds))
    start = str(parts["export"].BUNDLED)
    words = ["--run", str(tmp_path), "--start", start, "--device", "cpu", "--workers", "2", "--every", "1"]
    gpu.run(gpu.parse([*words, "--minutes", "0.2", "--alone", "0.4", "--fill", "1"]))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log and log[-1]["examples"] == 2 * log[-1]["step"]
    assert all(log[-1][f"drawn_{k}_{pool.what}"] >= 2 for k, pool in enumerate(pools))
    assert {line["stage"] for line in log} == {0, 1}
    assert all("likeness" in line for line in log if line["stage"] == 0)
    assert any("track_mask" in line for line in log if line["stage"] == 1)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == log[-1]["step"]
    average = load_file(tmp_path / "average.safetensors")
    assert torch.equal(average["no_mem_embed"], state["average"]["sam.no_mem_embed"])
    # the same command goes on from there, with what the optimisers know
    gpu.run(gpu.parse([*words, "--minutes", "0.3", "--alone", "0.4", "--fill", "1"]))
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] > state["step"]


@pytest.mark.gpu
@pytest.mark.parametrize("what", ["example", "shared", "lineup", "lineup alone"])
def test_recorded_steps_give_what_computed_ones_give(parts, gpu, what):
    if not torch.cuda.is_available():
        pytest.skip("There is no CUDA device.")
    device, alone = torch.device("cuda"), "alone" in what
    what = what.split()[0]
    frames, priors = {"example": (2, 2), "shared": (3, 1), "lineup": (1, 1)}[what]
    pool = filled(parts, gpu, what, "cuda", frames=3, priors=priors)
    model = parts["train_pairs"].Starter()
    parts["train"].initialise(model, 0)
    learning = gpu.Learning(model.to(device), 1e-3)
    learning.begin(Path("nowhere"), parts["export"].BUNDLED, None)
    before = parts["train_pairs"].Before(parts["export"].BUNDLED, device)
    make = gpu.Asking if what == "example" else gpu.AskingAll
    step = gpu.Step(learning, before, make(gpu.Kind("x", 0, 48, frames, priors, 64, 1, alone), pool), 0.5)
    key, begun = "likeness" if alone else "track_mask", weights_of(learning)

    def said(times):
        seen = []
        for _ in range(times):
            step.run()
            seen.append(step.told()[key])
        return seen

    learning.rate.zero_()
    plain = said(20)
    step.warm_up()
    step.record()
    recorded = said(20)
    assert len(set(recorded)) > 10  # other scenes and prompts each time
    assert np.mean(recorded) == pytest.approx(np.mean(plain), rel=0.05)
    assert all(torch.equal(value, begun[name]) for name, value in weights_of(learning).items())
    learning.rate.fill_(1e-3)
    learning.decay.fill_(0.9)
    learnt = said(40)
    assert np.mean(learnt[-10:]) < np.mean(recorded)
    moved = [name for name, value in weights_of(learning).items() if not torch.equal(value, begun[name])]
    assert len(moved) > 100 and all(torch.isfinite(value).all() for value in learning.average.values())


def weights_of(learning):
    return {key: value.clone() for key, value in learning.model.state_dict().items()}
