"""Scenes for the pools: what is drawn, by which process, and where it goes."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from training import data, scenes
from training.recipe import PoolConfig, Recipe

TINY = scenes.SceneConfig(side=32, frames=1)
POOLS = {
    "examples": PoolConfig("example", TINY, 2, 8, (0.0, 0.5)),
    "lineups": PoolConfig("lineup", TINY, 2, 8, (1.0, 0.5)),
}


def made():
    return {name: data.Pool(config, torch.device("cpu")) for name, config in POOLS.items()}


def test_a_pool_keeps_the_newest_scenes():
    pool = data.Pool(replace(POOLS["examples"], room=5), torch.device("cpu"))
    for k in range(1, 5):
        pool.put({name: torch.full((2, *x.shape[1:]), k, dtype=x.dtype) for name, x in pool.arrays.items()})
        assert pool.held == min(2 * k, 4)
    # a fifth place would never be filled: pairs stay whole
    assert pool.arrays["areas"][:, 0, 0].tolist() == [3, 3, 4, 4]


def test_scenes_become_images_with_what_they_show(make_pool):
    held = {name: array[:4] for name, array in make_pool("example", frames=3, priors=2).arrays.items()}
    seed = scenes.FIRST_TRAINING_SEED + 2
    example = scenes.make_example(scenes.SceneConfig(side=64, frames=3, priors=2), seed)
    assert np.array_equal(held["images"][2, 0], example.prior)
    assert np.array_equal(held["images"][2, 2:], example.frames)
    assert np.array_equal(held["instances"][2, 0] == 1, example.prior_mask)
    assert np.array_equal(held["instances"][2, 1] == 1, example.more_prior_masks[0])
    assert np.array_equal(held["instances"][2, 2:] == 1, example.masks)
    assert held["areas"].sum(2).eq(64 * 64).all()
    assert torch.equal(held["areas"][..., 1], (held["instances"] == 1).sum((2, 3)).int())


def test_all_pools_are_drawn_for():
    stream = data.SceneStream(POOLS, 0)
    assert all(stream.message(k)[0] == "lineups" for k in range(8))
    stream.encoder_only.value = 0
    names = [stream.message(k)[0] for k in range(16)]
    assert 3 < names.count("lineups") < 13


@pytest.mark.parametrize("workers", [1, 2])
def test_messages_do_not_depend_on_the_number_of_processes(workers):
    stream, pools = data.SceneStream(POOLS, 5, first=3), made()
    stream.encoder_only.value = 0
    with data.Feed(stream, pools, workers) as feed:
        feed.fill(2, 60)
        drawn = {name: (pool.drawn, pool.arrays["images"].clone()) for name, pool in pools.items()}
    expected = made()
    for k in range(3, 3 + sum(count for count, _ in drawn.values()) // 2):
        name, arrays = stream.message(k)
        expected[name].put({key: torch.from_numpy(array) for key, array in arrays.items()})
    for name, (count, images) in drawn.items():
        assert expected[name].drawn == count and torch.equal(expected[name].arrays["images"], images)


def test_a_feed_waits_until_small_pools_are_full():
    pools = made()
    stream = data.SceneStream(POOLS, 0)
    stream.encoder_only.value = 0
    with data.Feed(stream, pools, 1) as feed:
        feed.fill(300, 600)  # more than they hold
    assert [pool.held for pool in pools.values()] == [8, 8]


class Broken(data.SceneStream):
    def message(self, number):
        raise ValueError("there is nothing to draw")


def test_a_process_that_fails_is_an_error():
    with data.Feed(Broken(POOLS, 0), made(), 1) as feed, pytest.raises(RuntimeError, match="has ended"):
        feed.fill(1, 60)


def test_a_feed_ends_while_its_queue_is_full(monkeypatch):
    monkeypatch.setattr(data, "QUEUED", 1)
    with data.Feed(data.SceneStream(POOLS, 0), made(), 1) as feed:
        while not feed._messages.full():
            time.sleep(0.01)
    assert not feed._thread.is_alive()


def test_training_never_draws_held_out_seeds_or_families():
    recipe, stream = Recipe(), data.SceneStream({}, 0)
    assert scenes.FIRST_TRAINING_SEED not in scenes.HELD_OUT_SEEDS and stream.first == 0
    for config in recipe.pools.values():
        assert config.scene.shapes == () and config.scene.textures == ()
        assert config.at_once <= data.SEEDS
