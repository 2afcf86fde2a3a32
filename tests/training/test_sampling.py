"""What a step takes of its pool: scenes, flipped and asked for something; losses of that."""

import contextlib
from collections import Counter

import pytest
import torch

from training import data, sampling, scenes
from training.export import BUNDLED
from training.features import Anchor
from training.model import Starter
from training.recipe import PoolConfig, StepConfig


@pytest.fixture(scope="module")
def small(make_pool):
    """Examples with two priors and three frames."""
    return make_pool("example", frames=3, priors=2)


def sampler(pool, batch, side, seed=0, **more):
    torch.manual_seed(seed)
    made = sampling.make_sampler(StepConfig("x", "", batch, side, **more), pool)
    made.choose()
    return made


@pytest.fixture
def of_examples(small):
    return sampler(small, 48, 64, frames=2, priors=2, recent=1)


@pytest.fixture(scope="module", params=["shared", "lineup"])
def of_things(request, make_pool):
    frames = 3 if request.param == "shared" else 1
    pool = make_pool(request.param, frames=frames)
    return sampler(pool, 48, 64, seed=1, frames=frames, recent=6 if frames > 1 else 0)


def test_examples_are_flipped_alike_and_each_in_another_way():
    things = torch.arange(64 * 64).view(1, 1, 64, 64).repeat(16, 2, 1, 1)
    flipped = sampling.flipped(things)
    assert torch.equal(flipped[:, 0], flipped[:, 1])
    assert len({tuple(x.flatten().tolist()) for x in flipped[:8, 0]}) == 8
    assert torch.equal(flipped[:8], flipped[8:])
    colours = sampling.recoloured(torch.tensor([1, 2, 3]).view(1, 1, 1, 1, 3).repeat(12, 1, 1, 1, 1))
    assert len({tuple(x.flatten().tolist()) for x in colours[:6]}) == 6
    assert all(sorted(x.flatten().tolist()) == [1, 2, 3] for x in colours)


def test_what_is_asked_fits_the_scenes(of_examples):
    batch = of_examples.batch()
    covered = batch["covered"] / 16
    assert batch["images"].shape == (48, 4, 64, 64, 3) and covered.shape == (48, 4, 16, 16)
    assert torch.equal(batch["present"], covered[:, 2:].mean((2, 3)) > sampling.SURE)
    assert batch["own"][:, 1].all() and 0.5 < batch["own"][:, 0].float().mean() < 0.95
    own, target = batch["own"][..., None, None], batch["target"][:, :2] / 16
    there = (covered[:, :2].sum((2, 3)) > 0)[..., None, None]
    assert torch.equal(torch.where(own & there, target, 0), torch.where(own & there, covered[:, :2], 0))
    others = (batch["target"] != batch["covered"]).flatten(2).any(2)
    assert others[:, 2:].any() and others[:, 0].any()
    # what is clicked on is the target
    labels, points = batch["labels"], batch["points"]
    x, y = ((points[..., k] / 4).long().clamp(0, 15) for k in (0, 1))
    near = torch.nn.functional.max_pool2d(batch["target"].flatten(0, 1)[:, None], 3, 1, 1)[:, 0]
    for k in range(3):
        first = labels[..., k].flatten() == 1
        assert (near[torch.arange(len(near)), y[..., k].flatten(), x[..., k].flatten()][first] > 0).all()
    assert {tuple(row) for row in labels.flatten(0, 1).tolist()} >= {(2, 3, 1), (1, 1, 1)}
    clips = {(tuple(a.tolist())) for a in of_examples.order}
    assert clips == {(0, 1), (1, 0)}


def test_groups_are_the_images_with_so_many_tokens(of_examples):
    counts = {count: len(rows) for count, rows in of_examples.groups}
    images = 48 * 4
    assert sum(counts.values()) == images and counts[1] == images / 2
    labels = of_examples.batch()["labels"].flatten(0, 1)
    for count, rows in of_examples.groups:
        boxes = labels[rows][:, 0] == 2
        assert (count == 1 and not boxes.any()) or (count > 1 and boxes.any() and not boxes.all())


def test_enlarged_images_keep_their_prompts_in_place(small):
    plain, large = (sampler(small, 8, side, seed=3, frames=2, recent=1).batch() for side in (64, 96))
    assert torch.allclose((large["points"] + 0.5) / 96, (plain["points"] + 0.5) / 64)
    assert large["target"].shape[-1] == 24
    assert torch.allclose(large["target"].mean((2, 3)), plain["target"].mean((2, 3)), atol=0.1)
    assert torch.equal(large["present"], plain["present"])


def test_things_of_shared_scenes_are_asked_for(of_things):
    batch = of_things.batch()
    frames = of_things.config.frames
    things, covered = batch["instances"], batch["covered"]
    assert things.shape == (48, 1 + frames, 64, 64) and batch["images"].shape == (*things.shape, 3)
    assert covered.shape == (48 * sampling.SOUGHT, 1 + frames, 16, 16)
    assert batch["rows"].tolist() == [k // sampling.SOUGHT for k in range(48 * sampling.SOUGHT)]
    asked = batch["asked"]
    assert asked.float().mean() > 0.8
    seen = Counter()
    for k in torch.nonzero(asked)[:, 0].tolist():
        inside = batch["points"][k][batch["labels"][k] == 1].long()
        numbers = {int(things[k // sampling.SOUGHT, 0, y, x]) for x, y in inside}
        if not numbers:
            continue  # a box
        (number,) = numbers
        assert number
        seen[k // sampling.SOUGHT, number] += 1
        mask = things[k // sampling.SOUGHT] == number
        shown = torch.nn.functional.avg_pool2d(mask.float()[:, None], 4)[:, 0] * 16
        assert torch.equal(covered[k], shown)
        assert torch.equal(batch["present"][k], mask[1:].float().mean((1, 2)) > sampling.SURE)
    assert len(seen) > 40 and max(seen.values()) == 1  # each once
    assert not batch["sure"][~asked].any() and (covered[~asked] == 16).all()
    if of_things.pool.config.family == "lineup":
        kinds = of_things.pool.arrays["kinds"][of_things.places]
        assert torch.equal(batch["kinds"], kinds) and kinds[:, 1:].min() >= 0
    else:
        assert "kinds" not in batch


def test_a_scene_without_large_things_asks_nothing(make_pool, model, anchor):
    pool = make_pool("lineup")
    pool.arrays["instances"].zero_()
    pool.arrays["areas"].zero_()
    made = sampler(pool, 2, 64)
    batch = made.batch()
    assert not batch["asked"].any() and not batch["sure"].any()
    losses = made.losses(model, anchor, 0.5)
    losses.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert losses.figures["track_mask"] == 0


@pytest.mark.parametrize("family", ["example", "shared", "lineup", "lineup alone"])
def test_losses_and_gradients_never_wait_for_the_device(family, monkeypatch):
    """A tensor without data cannot be read: nothing between the pool and the gradients looks at a number."""
    away, (family, *alone) = torch.device("meta"), family.split()
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # there is none
    scene = scenes.SceneConfig(side=64, frames=3, priors=2)
    pool = data.Pool(PoolConfig(family, scene, 4, 8, (1, 1)), away)
    frames = {"example": 2, "shared": 3, "lineup": 1}[family]
    priors, recent = 2 if family == "example" else 1, 0 if family == "lineup" else 6
    made = sampler(pool, 16, 96, frames=frames, priors=priors, recent=recent, encoder_only=bool(alone))
    model = Starter().to(away)
    losses = made.losses(model, Anchor(BUNDLED, away), 0.5)
    losses.total.backward()
    assert {figure.device for figure in losses.figures.values()} == {away}
    assert ("change" in losses.figures) == bool(alone) and ("track_mask" in losses.figures) != bool(alone)
    assert ("recent_mask" in losses.figures) == bool(recent)
    assert model.sam.image_encoder.neck.convs[0].conv.weight.grad.device == away
