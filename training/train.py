"""Train the starter: a small SAM 2.1 of our own, on procedurally drawn scenes.

    python -m training.train --start WEIGHTS --run FOLDER

`recipe.Recipe` says what is shown when; a step then goes through these files:

1. `data`: scenes are drawn by other processes into pools in the device's memory, the newest in place of the oldest,
   and used several times;
2. `sampling`: a step takes some of a pool's scenes, flips and recolours them and draws `prompts`, all on the device;
3. `memory`: things are clicked on; clips are decoded with the prior's memories alone, and frame by frame with those
   of earlier frames, as in tracking; `losses` says what a decoded mask costs;
4. `features`: what the encoder's features shall be; for its first part a run trains the encoder by itself;
5. `steps`: gradients change the weights and their average; on CUDA a whole step, from the chosen scenes to the changed
   weights, is recorded as a graph, for which all sizes are fixed and nothing waits for a number;
6. here: the loop.

A CPU does the same in smaller batches, and takes days for what a GPU does in minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from training.data import Feed, Pool, SceneStream
from training.features import Anchor
from training.model import Starter, initialise
from training.recipe import Recipe, StepConfig
from training.sampling import make_sampler
from training.steps import Learner, Step


def train(recipe: Recipe, folder: Path, start: Path | None, device: torch.device, workers: int) -> None:
    """Train until the recipe's minutes are used up.

    Log, state and averaged weights are written into the folder, where a run also goes on. Without exported weights to
    `start` from, no step of the recipe may train the encoder alone.
    """
    learner, clock = begin(recipe, folder, start, device)
    anchor = Anchor(start, device) if start else None
    pools = {name: Pool(config, device) for name, config in recipe.pools.items()}
    stream = SceneStream(recipe.pools, recipe.skip, clock.step)
    stream.encoder_only.value = recipe.step_at(clock.share(), clock.step).encoder_only
    with Feed(stream, pools, workers) as feed, stoppable() as asked_to_stop:
        steps = {
            kind.name: Step(learner, anchor, make_sampler(kind, pools[kind.pool]), recipe.true_memory)
            for kind in recipe.steps
        }
        if device.type == "cuda":
            prepare(list(steps.values()), feed, clock)
        feed.fill(recipe.fill, 60)
        print(f"{[pool.held for pool in pools.values()]} scenes after {clock.spent():.1f} s", flush=True)
        saved, scenes, under_way = clock.spent(), 0, deque[torch.cuda.Event]()
        while clock.share() < 1 and not asked_to_stop:
            kind = take_step(recipe, clock, learner, steps, stream)
            feed.drain()
            scenes += kind.batch
            if device.type == "cuda":
                keep_pace(under_way)
            if clock.step % recipe.every == 0:
                write_line(folder / "log.jsonl", clock, scenes, list(steps.values()), pools)
            if clock.spent() - saved > 60 * recipe.keep:
                save(folder, learner, clock)
                saved = clock.spent()
    save(folder, learner, clock)
    print(f"{folder}: step {clock.step} after {clock.spent():.0f} s, {scenes} scenes in this call")


def take_step(
    recipe: Recipe, clock: Clock, learner: Learner, steps: Mapping[str, Step], stream: SceneStream
) -> StepConfig:
    """Change the weights once, by the kind of step whose turn it is."""
    share = clock.share()
    kind = recipe.step_at(share, clock.step)
    stream.encoder_only.value = kind.encoder_only
    learner.lr.fill_(learning_rate(share, clock.step - clock.first, recipe))
    clock.step += 1
    # short while there is little to average
    learner.decay.fill_(min(recipe.average, clock.step / (clock.step + 19)))
    steps[kind.name].run()
    return kind


def begin(recipe: Recipe, folder: Path, start: Path | None, device: torch.device) -> tuple[Learner, Clock]:
    """Begin a run, or go on with the one in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_float32_matmul_precision("high")
    torch.backends.cuda.enable_cudnn_sdp(False)  # it compiles for every size anew
    if device.type == "cpu":
        # sharp attention gives weights below float32's normal range, with which products take ten times as long
        torch.set_flush_denormal(True)
    torch.manual_seed(recipe.seed + recipe.skip)
    clock, model = Clock(recipe.minutes), Starter()
    initialise(model, recipe.seed)
    learner = Learner(model.to(device), recipe.lr)
    if (folder / "state.pt").exists():
        state = torch.load(folder / "state.pt", weights_only=True, map_location=device)
        learner.resume(state)
        clock.step = clock.first = state["step"]
        clock.seconds = state["seconds"]
    else:
        learner.begin(start, recipe.soften)
    return learner, clock


@dataclass
class Clock:
    """How far a run has come: a share of the minutes that it has in all calls together."""

    minutes: float
    step: int = 0
    first: int = 0  # step of this call
    seconds: float = 0.0  # of earlier calls

    def __post_init__(self) -> None:
        self._started = time.monotonic()

    def spent(self) -> float:
        """Seconds of all calls."""
        return self.seconds + time.monotonic() - self._started

    def share(self) -> float:
        """0 at the beginning, 1 at the end."""
        return min(1.0, self.spent() / (60 * self.minutes))


def learning_rate(share: float, steps_here: int, recipe: Recipe) -> float:
    """Return a cosine over the whole run, with a short warm-up where a call begins."""
    warm = min(1.0, (steps_here + 1) / recipe.warm_up)
    return recipe.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))


def keep_pace(under_way: deque[torch.cuda.Event]) -> None:
    """Let no more than two steps be under way: the clock is not to run ahead of the device."""
    under_way.append(torch.cuda.Event())
    under_way[-1].record()
    if len(under_way) > 2:
        under_way.popleft().synchronize()


def prepare(steps: Sequence[Step], feed: Feed, clock: Clock) -> None:
    """Warm up and record steps for CUDA, while scenes come."""
    for pool in feed.pools.values():
        pool.fill_with_noise()
    for step in steps:
        step.warm_up()
        feed.drain()
    print(f"warmed up after {clock.spent():.1f} s", flush=True)
    memory = None
    for step in steps:
        memory = step.record(memory)
        feed.drain()
    print(f"recorded after {clock.spent():.1f} s", flush=True)


def figures_of(steps: Sequence[Step], pools: Mapping[str, Pool]) -> dict[str, float]:
    """Return the figures of a line of the log: means over all steps since the last one, and of each kind."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    line: dict[str, float] = {}
    for step in steps:
        if not (count := step.count):
            continue
        name, figures = step.sampler.config.name, step.figures()
        for key, value in figures.items():
            sums[key] = sums.get(key, 0.0) + value
            counts[key] = counts.get(key, 0) + count
        for key in ("track_J", "outline_right"):
            if key in figures:
                line[f"{name}_{key}"] = figures[key] / count
    line |= {key: value / counts[key] for key, value in sums.items()}
    line |= {f"drawn_{name}": pool.drawn for name, pool in pools.items()}
    return {key: round(value, 4) for key, value in line.items()}


def write_line(
    log: Path, clock: Clock, scenes: int, steps: Sequence[Step], pools: Mapping[str, Pool]
) -> None:
    """Add a line to the log; `scenes` were shown in this call."""
    line = {"step": clock.step, "seconds": round(clock.spent(), 1), "scenes": scenes} | figures_of(
        steps, pools
    )
    with log.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def save(folder: Path, learner: Learner, clock: Clock) -> None:
    """Replace the state as a whole, so that a kill leaves the one before or this one; write the averaged weights too."""
    state, part = folder / "state.pt", folder / "state.part"
    torch.save(learner.state() | {"step": clock.step, "seconds": clock.spent()}, part)
    part.replace(state)
    weights = {key[4:]: value for key, value in learner.average.items() if key.startswith("sam.")}
    weights = {key: value.cpu().contiguous() for key, value in weights.items()}
    save_file(weights, folder / "average.safetensors")


@contextmanager
def stoppable() -> Iterator[list[int]]:
    """Give a list that is no more empty once SIGTERM has come."""
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def main(words: list[str] | None = None) -> None:
    """Train as the command line says."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--run", type=Path, required=True, help="folder of log and state; a run goes on there")
    option("--start", type=Path, required=True, help="exported weights to begin from")
    option("--minutes", type=float, default=Recipe.minutes, help="of the whole run, all calls together")
    option("--device", default="cuda" if cuda else "cpu")
    option("--workers", type=int, default=14 if cuda else 1, help="processes that draw scenes")
    option("--batch", type=float, help="times as many scenes a step; by default 1, or 0.15 on a CPU")
    option("--room", type=float, help="times as many scenes in the pools; by default 1, or 0.03 on a CPU")
    args = parser.parse_args(words)
    batch, room = (0.15, 0.03) if args.device == "cpu" else (1, 1)
    recipe = Recipe(minutes=args.minutes).scaled(args.batch or batch, args.room or room)
    train(recipe, args.run, args.start, torch.device(args.device), args.workers)


if __name__ == "__main__":
    main()
