"""The trainer for GPUs: prompts drawn by tensors, pools of scenes, steps; all but the recording runs anywhere."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def gpu(parts):
    return parts["train_gpu"]


@pytest.fixture(scope="module")
def small(parts, gpu):
    """A pool of four small scenes with two priors and three frames."""
    scene = parts["scenes"].SceneConfig(side=64, frames=3, priors=2)
    drawn = gpu.Drawn(scene, 4, 8)
    pool = gpu.Pool(drawn, torch.device("cpu"))
    batch = gpu.Drawing([drawn, drawn], 0).scenes(0, 0)
    pool.put({name: torch.from_numpy(array) for name, array in batch.items()})
    return pool


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
    pool = gpu.Pool(gpu.Drawn(scene, 2, 5), torch.device("cpu"))
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


def test_steps_lower_the_loss_of_what_they_see(parts, gpu, asking):
    train = parts["train"]
    model = train.Starter()
    train.initialise(model, 0)
    optimisers, average = (
        train.make_optimisers(model, 1e-3),
        {k: v.clone() for k, v in model.state_dict().items()},
    )
    asking.kind = replace(asking.kind, batch=48)
    step = gpu.Step(model, asking, 0.5)
    seen = []
    for _ in range(6):
        seen.append({name: float(value) for name, value in step.run().items()})
        assert torch.isfinite(train.change(model, optimisers))
        train.blend(average, model, 0.5)
    assert np.mean([x["track_mask"] for x in seen[-2:]]) < seen[0]["track_mask"]
    assert not torch.equal(average["readout.weight"], model.state_dict()["readout.weight"])


def test_every_kind_of_step_comes(gpu):
    early, late = (Counter(gpu.turn_of(share, step) for step in range(300)) for share in (0.1, 0.9))
    assert early[0] > 200 and set(early) == {0, 1, 2}
    assert set(late) == {1, 2, 3} and min(late[1], late[3]) > 80
    assert [gpu.turn_of(0.0, step, 0.9) for step in range(300)] == [
        gpu.turn_of(0.9, step) for step in range(300)
    ]
    assert gpu.turn_of(1.0, 1, 0.6) == gpu.turn_of(1.0, 1)
    drawn, kinds = gpu.recipe((8, 8), 1)
    for kind in kinds:
        scene = drawn[kind.pool].scene
        assert kind.frames <= scene.frames and kind.priors <= scene.priors and kind.side % 32 == 0
        assert kind.batch >= gpu.ROUND or kind.side > 256


def test_a_run_ends_by_the_clock_and_leaves_weights(parts, gpu, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    scene = parts["scenes"].SceneConfig(side=64, frames=2)
    pools = [gpu.Drawn(scene, 2, 8), gpu.Drawn(replace(scene, frames=3, priors=2), 2, 4)]
    kinds = [gpu.Kind(f"kind-{k}", int(k > 1), 2, 2, 1, 64, 1) for k in range(4)]
    monkeypatch.setattr(gpu, "recipe", lambda *_: (pools, kinds))
    words = ["--run", str(tmp_path), "--minutes", "0.1", "--device", "cpu", "--workers", "2", "--every", "1"]
    gpu.run(gpu.parse([*words, "--fill", "1"]))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log and log[-1]["examples"] == 2 * log[-1]["step"] and log[-1]["scenes"] >= 2
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == log[-1]["step"]
    average = load_file(tmp_path / "average.safetensors")
    assert torch.equal(average["no_mem_embed"], state["average"]["sam.no_mem_embed"])


@pytest.mark.gpu
def test_recorded_steps_give_what_computed_ones_give(parts, gpu):
    if not torch.cuda.is_available():
        pytest.skip("There is no CUDA device.")
    train, device = parts["train"], torch.device("cuda")
    scene = parts["scenes"].SceneConfig(side=64, frames=3, priors=2)
    drawn = gpu.Drawn(scene, 4, 8)
    pool = gpu.Pool(drawn, device)
    batch = gpu.Drawing([drawn, drawn], 0).scenes(0, 0)
    pool.put({name: torch.from_numpy(array) for name, array in batch.items()})
    model = train.Starter()
    train.initialise(model, 0)
    model.to(device)
    step = gpu.Step(model, gpu.Asking(gpu.Kind("x", 0, 48, 2, 2, 64, 1), pool), 0.5)
    plain = [step.run()["track_mask"].item() for _ in range(20)]
    step.warm_up()
    step.record()
    recorded = [step.run()["track_mask"].item() for _ in range(20)]
    assert len(set(recorded)) > 10  # other scenes and prompts each time
    assert np.mean(recorded) == pytest.approx(np.mean(plain), rel=0.05)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
