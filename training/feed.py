"""Processes that draw batches ahead of the one that trains.

Batch k has the same scenes wherever it is drawn. With a number of steps the stage of batch k is known too, so
that the whole batch is the same for any number of processes; where a run ends by the clock, a batch is of the
stage that the run has reached when the batch is drawn.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any

import numpy as np
import scenes
from prompts import Arrays, with_prompts

FIRST_SEED = scenes.FIRST_TRAINING_SEED  # seeds below are held out
SEEDS_A_STEP = 256  # examples of one step have consecutive seeds; no step may need more
AHEAD = 2  # batches that each process may be ahead


@dataclass(frozen=True)
class Plan:
    """What is drawn: the stages, the steps drawn by other runs, the size of a batch, the steps if they are known, and whose share it is."""

    recipe: Sequence[Any]
    skipped: int = 0
    factor: float = 1
    steps: int | None = None
    share: tuple[int, int] = (0, 1)  # of processes that train together: which one this is, of how many

    def draw(self, step: int, stage: int) -> Arrays:
        """Draw the batch of one step, or this process's share of it; all shares are of the same kind and size."""
        place, processes = self.share
        scene, count = self.recipe[stage].at(self.skipped + step, self.factor / processes)
        first = FIRST_SEED + (self.skipped + step) * SEEDS_A_STEP + place * count
        batch = scenes.make_batch(scene, range(first, first + count))
        return with_prompts(batch, np.random.default_rng((self.skipped + step, 7, place)))


def _produce(
    queue: Any, plan: Plan, first: int, stride: int, stage_at: Callable[..., int], share: Any
) -> None:
    with suppress(AttributeError):  # Windows has no nice
        os.nice(2)
    parent, step = os.getppid(), first
    while plan.steps is None or step < plan.steps:
        done = share.value if plan.steps is None else step / plan.steps
        if done >= 1:
            break
        stage = stage_at(plan.recipe, done)
        batch = plan.draw(step, stage)
        while os.getppid() == parent:  # a training that was killed takes nothing out any more
            with suppress(Full):
                queue.put((stage, batch), timeout=5)
                break
        else:
            queue.cancel_join_thread()
            return
        step += stride


class Feed:
    """Batches in their order, each with the number of its stage; a context manager that ends its processes.

    Parameters
    ----------
    plan
        What is drawn.
    first
        First step.
    workers
        Number of processes.
    stage_at
        Gives the number of the stage of (recipe, share of the run).
    share
        How far the run has come; the attribute of that name is to be kept true.
    """

    def __init__(
        self, plan: Plan, first: int, workers: int, stage_at: Callable[..., int], share: float = 0.0
    ) -> None:
        context = multiprocessing.get_context("fork")
        self.share = context.Value("d", share, lock=False)
        self._queues = [context.Queue(maxsize=AHEAD) for _ in range(workers)]
        self._processes = [
            context.Process(
                target=_produce, args=(queue, plan, first + k, workers, stage_at, self.share), daemon=True
            )
            for k, queue in enumerate(self._queues)
        ]
        for process in self._processes:
            process.start()
        self._ready: Queue[tuple[int, Arrays]] = Queue(maxsize=AHEAD)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        """Take the batches out of the pipes in turn while the caller computes."""
        turn, ready = 0, None
        while not self._ended.is_set():
            try:
                ready = ready or self._queues[turn % len(self._queues)].get(timeout=0.5)
                self._ready.put(ready, timeout=0.5)
            except (Empty, Full):
                continue
            ready, turn = None, turn + 1

    def get(self) -> tuple[int, Arrays]:
        """Return the next batch and the number of its stage.

        Raises
        ------
        RuntimeError
            If the processes have ended and nothing is left.
        """
        while True:
            with suppress(Empty):
                return self._ready.get(timeout=2)
            if not any(process.is_alive() for process in self._processes):
                with suppress(Empty):
                    return self._ready.get(timeout=2)
                raise RuntimeError("The processes that draw scenes have ended.")

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()  # before the processes end: one that is killed within a message leaves it waiting
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
