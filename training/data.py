"""Scenes without end: drawn by other processes, kept in the device's memory and used several times."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training import scenes
from training.recipe import PoolConfig

THINGS = 64  # numbers that things of an image can have; those beyond are never asked for
SEEDS = 256  # of one message; no message may need more
QUEUED = 64  # messages that wait to be copied to the device

Arrays = dict[str, np.ndarray]
Message = tuple[str, dict[str, Tensor]]  # the name of a pool, and scenes for it


def draw(config: PoolConfig, seeds: Sequence[int]) -> Arrays:
    """Draw scenes for a pool.

    Returns
    -------
    dict
        images (B, P + T, H, W, 3) uint8; instances (B, P + T, H, W) uint8, the number of what each pixel shows; areas
        (B, P + T, THINGS) int32, the pixels of each number; and of line-ups kinds (B, 10) int64, of each number the
        place of its outline's kind in `scenes.KINDS`, -1 of ground.
    """
    if config.family == "example":
        return _with_areas(*_joined(scenes.make_batch(config.scene, seeds)))
    if config.family == "shared":
        drawn = [scenes.make_shared(config.scene, seed, config.frames) for seed in seeds]
        return _with_areas(*(np.stack(each) for each in zip(*drawn)))
    lineups = [scenes.make_lineup(config.scene, seed) for seed in seeds]
    images, instances, kinds = (np.stack(each) for each in zip(*lineups))
    return _with_areas(images, instances) | {"kinds": kinds}


def _joined(batch: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Images and instances of examples, prior images before frames.

    The object is one, in all images; of priors after the first, nothing else is known.
    """
    images = np.concatenate((batch["prior"][:, None], batch["more_priors"], batch["frames"]), 1)
    first = batch["prior_instances"][:, None].astype(np.uint8)
    more = batch["more_prior_masks"].astype(np.uint8)
    return images, np.concatenate((first, more, batch["frame_instances"]), 1)


def _with_areas(images: np.ndarray, instances: np.ndarray) -> Arrays:
    maps = instances.reshape(-1, *instances.shape[2:])
    areas = [np.bincount(each.ravel(), minlength=THINGS)[:THINGS] for each in maps]
    areas = np.array(areas, np.int32).reshape(*instances.shape[:2], THINGS)
    return {"images": images, "instances": instances, "areas": areas}


class SceneStream(IterableDataset[tuple[str, Arrays]]):
    """Messages, each with scenes for one of the pools; a message is the same whichever process draws it.

    Attributes
    ----------
    encoder_only
        Whether the encoder learns alone, which decides how often each pool gets a message. Shared with the processes.
    """

    def __init__(self, pools: Mapping[str, PoolConfig], skip: int, first: int = 0) -> None:
        self.pools, self.skip, self.first = pools, skip, first
        self.encoder_only = multiprocessing.Value("b", 1, lock=False)

    def message(self, number: int) -> tuple[str, Arrays]:
        """Draw one message."""
        often = np.array([pool.often[0 if self.encoder_only.value else 1] for pool in self.pools.values()])
        which = np.random.default_rng((number, 9)).choice(len(self.pools), p=often / often.sum())
        name, config = list(self.pools.items())[which]
        seed = scenes.FIRST_TRAINING_SEED + (self.skip + number) * SEEDS
        return name, draw(config, range(seed, seed + config.at_once))

    def __iter__(self) -> Iterator[tuple[str, Arrays]]:
        worker = get_worker_info()
        place, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        return map(self.message, itertools.count(self.first + place, stride))


class Pool:
    """Scenes in the device's memory, the newest in place of the oldest."""

    def __init__(self, config: PoolConfig, device: torch.device) -> None:
        self.config, side = config, config.scene.side
        self.room = config.room - config.room % config.at_once  # no message is split
        shape = (self.room, config.priors + config.frames)
        self.arrays = {
            "images": torch.zeros(*shape, side, side, 3, dtype=torch.uint8, device=device),
            "instances": torch.zeros(*shape, side, side, dtype=torch.uint8, device=device),
            "areas": torch.zeros(*shape, THINGS, dtype=torch.int32, device=device),
        }
        if config.family == "lineup":
            self.arrays["kinds"] = torch.zeros(self.room, 1 + scenes.LINEUP, dtype=torch.long, device=device)
        self.drawn = 0

    @property
    def held(self) -> int:
        """Number of scenes that are there."""
        return min(self.drawn, self.room)

    def put(self, arrays: Mapping[str, Tensor]) -> None:
        """Add the scenes of one message."""
        count, place = len(arrays["images"]), self.drawn % self.room
        for name, array in arrays.items():
            self.arrays[name][place : place + count].copy_(array, non_blocking=True)
        self.drawn += count

    def fill_with_noise(self) -> None:
        """Fill the first place, so that steps can be recorded before scenes are there."""
        self.arrays["images"][:1].random_(0, 256)
        self.arrays["instances"][:1].random_(0, 3)
        self.arrays["areas"][:1, :, :3] = self.arrays["instances"][0, 0].numel() // 3
        if "kinds" in self.arrays:
            self.arrays["kinds"][:1, 1:].random_(0, len(scenes.KINDS))


class Feed:
    """Takes what other processes draw into the pools; a context manager that ends them.

    Parameters
    ----------
    stream
        What is drawn.
    pools
        Where it goes.
    workers
        Number of processes.
    """

    def __init__(self, stream: SceneStream, pools: Mapping[str, Pool], workers: int) -> None:
        self.pools, pinned = pools, any(pool.arrays["areas"].is_cuda for pool in pools.values())
        loader = DataLoader(
            stream, batch_size=None, num_workers=workers, pin_memory=pinned, worker_init_fn=_be_nice,
            generator=torch.Generator(),  # else it takes a number from the one that prompts are drawn by
        )  # fmt: skip
        self._messages: Queue[Message | Exception] = Queue(maxsize=QUEUED)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._collect, args=(iter(loader),), daemon=True)

    def _collect(self, messages: Iterator[Message]) -> None:
        """Take messages over in turn while the device computes."""
        message: Message | Exception | None = None
        while not self._ended.is_set():
            if message is None:
                try:
                    message = next(messages)
                except Exception as error:
                    message = error
            with suppress(Full):
                self._messages.put(message, timeout=0.5)
                message = None

    def drain(self) -> int:
        """Put what is there into the pools; return the number of messages."""
        for done in range(QUEUED):
            try:
                message = self._messages.get_nowait()
            except Empty:
                return done
            if isinstance(message, Exception):
                raise RuntimeError("A process that draws scenes has ended.") from message
            name, arrays = message
            self.pools[name].put(arrays)
        return QUEUED

    def fill(self, least: int, seconds: float) -> None:
        """Wait until each pool is full or has some scenes, but no longer than some seconds if it has any."""
        until, pools = time.monotonic() + seconds, self.pools.values()
        while any(pool.held < min(least, pool.room) for pool in pools) and time.monotonic() < until:
            if not self.drain():
                time.sleep(0.02)
        if not all(pool.held for pool in pools):
            raise RuntimeError(f"There is a pool for which nothing was drawn in {seconds:g} s.")

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._thread.join()


def _be_nice(_: int) -> None:
    with suppress(AttributeError):  # Windows has no nice
        os.nice(2)
