"""Processes that draw batches ahead of the one that trains.

Batch k has the same scenes wherever it is drawn. With a number of steps the stage of batch k is known too, so
that the whole batch is the same for any number of processes; where a run ends by the clock, a batch is of the
stage that the run has reached when the batch is drawn. Where scenes are used several times, which ones come again
depends on the number of processes.
"""

from __future__ import annotations

import mmap
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
import torch
from prompts import Arrays, turned, with_prompts
from torch import Tensor

FIRST_SEED = scenes.FIRST_TRAINING_SEED  # seeds below are held out
SEEDS_A_STEP = 256  # examples of one step have consecutive seeds; no step may need more
AHEAD = 2  # batches that each process may be ahead
LARGEST = 2**29  # bytes of a batch that is handed over in shared memory; a larger one takes longer


@dataclass(frozen=True)
class Plan:
    """What is drawn.

    Attributes
    ----------
    recipe
        The stages.
    skipped
        Steps whose scenes other runs have drawn.
    factor
        Times as many examples a step as the stages say.
    steps
        Of the whole run, where they are known.
    share
        Of processes that train together: which one this is, of how many.
    uses
        Times that scenes are shown, turned over and asked for something else each time.
    """

    recipe: Sequence[Any]
    skipped: int = 0
    factor: float = 1
    steps: int | None = None
    share: tuple[int, int] = (0, 1)
    uses: int = 1

    def draw(self, step: int, stage: int) -> Arrays:
        """Draw the batch of one step, or this process's share of it; all shares are of the same kind and size."""
        return self.asked(self.scenes(step, stage), step)

    def scenes(self, step: int, stage: int) -> Arrays:
        """Draw what the pictures of a step show."""
        place, processes = self.share
        scene, count = self.recipe[stage].at(self.skipped + step, self.factor / processes)
        first = FIRST_SEED + (self.skipped + step) * SEEDS_A_STEP + place * count
        return scenes.make_batch(scene, range(first, first + count))

    def asked(self, batch: Arrays, step: int, again: bool = False) -> Arrays:
        """Return scenes, turned if they come again, with what a step asks for in them."""
        rng = np.random.default_rng((self.skipped + step, 7, self.share[0]))
        return with_prompts(turned(batch, rng) if again else batch, rng)


class _Room:
    """Memory that one process which draws shares with the one that trains, for `AHEAD` batches in turn.

    A GPU is shown half a gigabyte a second, which is too much for a pipe beside a thread that launches kernels.
    """

    def __init__(self, context: Any) -> None:
        self._memory = mmap.mmap(-1, AHEAD * LARGEST)  # both see it after a fork
        self._free = context.Semaphore(AHEAD)
        self._put = self._taken = 0

    def put(self, arrays: Arrays, timeout: float) -> dict[str, Any]:
        """Keep arrays; return what `take` has to know. Raises `Full` if no place is free in time."""
        if not self._free.acquire(timeout=timeout):
            raise Full
        place, self._put = self._put, (self._put + 1) % AHEAD
        layout: dict[str, Any] = {}
        at = 0
        for name, array in arrays.items():
            end = at + array.nbytes
            if end > LARGEST:
                layout[name] = array  # through the pipe, then
                continue
            layout[name] = (place * LARGEST + at, array.shape, array.dtype)
            self._view(layout[name])[...] = array
            at = end + -end % 64
        return layout

    def take(self, layout: dict[str, Any], pinned: bool) -> dict[str, Tensor]:
        """Return the arrays in memory of their own, and free their place."""
        arrays = {}
        for name, where in layout.items():
            shared = torch.from_numpy(self._view(where) if isinstance(where, tuple) else where)
            arrays[name] = shared.pin_memory() if pinned else shared.clone()
        self._free.release()
        return arrays

    def _view(self, where: tuple[int, tuple[int, ...], np.dtype[Any]]) -> np.ndarray:
        at, shape, kind = where
        return np.frombuffer(self._memory, kind, int(np.prod(shape)), at).reshape(shape)


def _produce(
    queue: Any, room: _Room, plan: Plan, first: int, stride: int, stage_at: Callable[..., int], share: Any
) -> None:
    with suppress(AttributeError):  # Windows has no nice
        os.nice(2)
    parent, step, turn = os.getppid(), first, 0
    while plan.steps is None or step < plan.steps:
        done = share.value if plan.steps is None else step / plan.steps
        if done >= 1:
            break
        if turn % plan.uses == 0:
            stage = stage_at(plan.recipe, done)
            batch = plan.scenes(step, stage)
        arrays = plan.asked(batch, step, again=turn % plan.uses > 0)
        while os.getppid() == parent:  # a training that was killed takes nothing out any more
            with suppress(Full):
                queue.put((stage, room.put(arrays, 5)))
                break
        else:
            queue.cancel_join_thread()
            return
        step, turn = step + stride, turn + 1


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
    pinned
        Whether batches are in memory from which a GPU copies by itself.
    ahead
        Batches of all processes that are held ready.
    """

    def __init__(
        self,
        plan: Plan,
        first: int,
        workers: int,
        stage_at: Callable[..., int],
        share: float = 0.0,
        pinned: bool = False,
        ahead: int = AHEAD,
    ) -> None:
        context = multiprocessing.get_context("fork")
        self.share = context.Value("d", share, lock=False)
        self._pinned = pinned
        self._sources = [(context.Queue(), _Room(context)) for _ in range(workers)]
        self._processes = [
            context.Process(
                target=_produce, args=(*source, plan, first + k, workers, stage_at, self.share), daemon=True
            )
            for k, source in enumerate(self._sources)
        ]
        for process in self._processes:
            process.start()
        self._ready: Queue[tuple[int, dict[str, Tensor]]] = Queue(maxsize=ahead)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        """Take the batches over in turn while the caller computes."""
        turn, ready = 0, None
        while not self._ended.is_set():
            try:
                if ready is None:
                    queue, room = self._sources[turn % len(self._sources)]
                    stage, layout = queue.get(timeout=0.5)
                    ready = stage, room.take(layout, self._pinned)
                self._ready.put(ready, timeout=0.5)
            except (Empty, Full):
                continue
            ready, turn = None, turn + 1

    def ready(self) -> tuple[int, dict[str, Tensor]] | None:
        """Return what `get` returns, or None where it would wait."""
        with suppress(Empty):
            return self._ready.get_nowait()
        return None

    def get(self) -> tuple[int, dict[str, Tensor]]:
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
