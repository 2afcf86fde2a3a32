"""Train the memory of a starter alone, on pictures that are encoded once and shown many times.

A training step on a CPU spends most of its time on encoding pictures and on clicks. With the encoder and the mask
decoder as they are, pictures stay encoded: what a clip's frames and priors are to the memory is kept, and a
clip costs a third. Clicks give exactly the masks that they gave before. Each process draws a few new scenes, says
how well they are followed before they were ever shown, and takes some steps on all that it keeps.

`--soften` multiplies the queries of the layers that look at memories first: see `train.soften`.
"""

from __future__ import annotations

import argparse
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import feed
import numpy as np
import scenes
import torch
import train
from torch import Tensor

LEARNING = ("memory_attention.", "memory_encoder.", "maskmem_tpos_enc", "obj_ptr_tpos_proj.", "no_obj_",
            "sam_mask_decoder.pred_obj_score_head.")  # fmt: skip
FIRST = 250_000  # steps that other runs have not come to
SWAPPED = 0.08  # share of examples that look for another example's object, which is not there
FRESH = "new_"  # before the name of a figure: of scenes that were not shown before
SCENE = scenes.SceneConfig(side=384, unrelated=0.85, microscopy=0.3, halos=0.5, absent=0.2, hard=0.4)
STAGE = train.Stage(
    1.01, SCENE, 16, true_memory=0.2, recent=(0, 2, 4, 6), lengths=(4, 4, 8), priors=(1, 1, 1, 2), soft=0.6
)

Example = dict[str, Tensor]


def freeze(model: train.Starter) -> None:
    """Let the memory's parameters alone learn, and the head that says whether the object is there."""
    for name, value in model.sam.named_parameters():
        value.requires_grad_(name.startswith(LEARNING))


@torch.no_grad()
def encoded(
    model: train.Starter, batch: Example, rng: np.random.Generator, counts: np.ndarray
) -> list[Example]:
    """Return the examples of a batch of `prompts.with_prompts`, encoded, with what the prompts of their priors gave."""
    sam, priors = model.sam, batch["own"].shape[1]
    pictures, side = batch["pictures"], train.FINE * batch["target"].shape[-1]
    parts = [sam.image_features(train.to_pixels(some[None], side)) for some in pictures]  # each fits a cache
    embedding = torch.stack([part[0] for part in parts])
    fine = [torch.stack([part[1][k] for part in parts]) for k in (0, 1)]
    asking = {key: batch[key][:, :priors].flatten(0, 1) for key in ("points", "labels", "target", "asked")}
    prompted = train.prompt_losses(
        train.Losses(torch.zeros(()), {}), sam, embedding[:, :priors].flatten(0, 1),
        tuple(x[:, :priors].flatten(0, 1) for x in fine), asking,
        train.by_count(counts[:, :priors].ravel(), rng, pictures.device),
    )  # fmt: skip
    whole = {
        "embedding": embedding.half(), "fine_0": fine[0][:, priors:].half(), "fine_1": fine[1][:, priors:].half(),
        "logits": prompted.logits.half().unflatten(0, (-1, priors)), "pointer": prompted.pointer.unflatten(0, (-1, priors)),
    } | {key: batch[key] for key in ("own", "truth", "present", "sure")}  # fmt: skip
    return [{key: value[i].clone() for key, value in whole.items()} for i in range(len(pictures))]


def together(examples: Sequence[Example]) -> Example:
    """Return examples of one shape as a batch."""
    whole = {key: torch.stack([one[key] for one in examples]) for key in examples[0]}
    return {key: value.float() if value.dtype == torch.float16 else value for key, value in whole.items()}


def swapped(batch: Example, share: float, rng: np.random.Generator) -> Example:
    """Let a share of the examples look for the object of the next one, which is in none of their frames."""
    rows = torch.from_numpy(np.flatnonzero(rng.random(len(batch["own"])) < share))
    priors, other = batch["own"].shape[1], (rows + 1) % len(batch["own"])
    if not len(rows) or len(batch["own"]) < 2:
        return batch
    batch = {key: value.clone() if key in ("embedding", "logits", "pointer", "own", "truth", "present", "sure") else value
             for key, value in batch.items()}  # fmt: skip
    source = {key: batch[key][other] for key in ("embedding", "logits", "pointer", "own", "truth")}
    for key in ("logits", "pointer", "own"):
        batch[key][rows] = source[key]
    for key in ("embedding", "truth"):
        batch[key][rows, :priors] = source[key][:, :priors]
    batch["truth"][rows, priors:] = 0
    batch["present"][rows], batch["sure"][rows] = False, True
    return batch


def clip_losses(
    model: train.Starter, batch: Example, stage: train.Stage, rng: np.random.Generator, learn: bool
) -> dict[str, Tensor]:
    """Return the figures of a batch of encoded examples; where `learn`, with its gradients."""
    priors, length = batch["own"].shape[1], batch["present"].shape[1]
    recent, state = int(rng.choice(stage.recent)), None
    sums: dict[str, list[Tensor]] = {}
    parts = train.parts_of(length, stage.part)
    for frames in parts:
        with torch.set_grad_enabled(learn):
            losses = train.Losses(torch.zeros(()), {})
            if state is None:
                prompted = train.Prompted(batch["logits"].flatten(0, 1), batch["pointer"].flatten(0, 1))
                state = train.remember_priors(
                    model.sam, batch, stage.true_memory, batch["embedding"][:, :priors], prompted
                )
            seen = batch["embedding"][:, priors:][:, frames]
            fine = (batch["fine_0"][:, frames], batch["fine_1"][:, frames])
            # where frames look back, what they recall holds the prior as well
            alone = int(not state.past) if recent else None
            train.tracked_losses(losses, model, batch, frames, state, seen, fine, recent, alone)
        if learn:
            (losses.total / len(parts)).backward()
        state = state.detached()
        train.gather(sums, losses.figures)
    return train.means(sums)


class Pool:
    """Encoded examples, the newest so many pictures of them, told apart by how many priors and frames they have."""

    def __init__(self, room: int) -> None:
        self._room, self._held = room, 0
        self._examples: deque[Example] = deque()

    def add(self, examples: Sequence[Example]) -> None:
        for one in examples:
            self._examples.append(one)
            self._held += len(one["embedding"])
        while self._held > self._room and len(self._examples) > 1:
            self._held -= len(self._examples.popleft()["embedding"])

    def draw(self, pictures: int, rng: random.Random) -> Example:
        """Return a batch of about so many pictures, of examples that have as many priors and frames as a random one."""
        first = rng.choice(self._examples)
        shape = _shape(first)
        alike = [one for one in self._examples if _shape(one) == shape]
        return together(rng.sample(alike, min(len(alike), max(2, round(pictures / sum(shape))))))


def _shape(example: Example) -> tuple[int, int]:
    return len(example["own"]), len(example["present"])


def fit(args: argparse.Namespace, place: int, processes: int) -> None:
    """Train as one of some processes; the first writes the log and the state, as `train.py` does."""
    course = train.Course.start(args, place)
    clock, model, optimisers = course.clock, course.model, course.optimisers
    freeze(model)
    plan = feed.Plan(
        [replace(STAGE, scene=replace(SCENE, side=args.side))],
        FIRST + args.skip,
        args.batch_factor,
        share=(place, processes),
    )
    pool = Pool(args.room // processes)
    chance, turn = random.Random(f"{args.seed} {args.skip} {clock.step} {place}"), 0
    with train.stoppable() as asked_to_stop:
        while True:
            share, go_on = train.agree(clock.share(), clock.share() < 1 and not asked_to_stop)
            if not go_on:
                break
            step = clock.step
            rng = np.random.default_rng((args.seed, FIRST + args.skip + step, place))
            torch.manual_seed(int(rng.integers(2**31)))
            if turn % args.uses == 0:
                drawn = plan.draw(step, 0)
                batch = train.to_device(drawn, torch.device("cpu"))
                if rng.random() < STAGE.soft:
                    batch["pictures"] = train.softened(batch["pictures"])
                new = encoded(model, batch, rng, drawn["count"])
                met = clip_losses(model, together(new), STAGE, rng, learn=False)
                pool.add(new)
                train.gather(course.sums, {FRESH + key: value for key, value in met.items()})
            train.set_rate(optimisers, train.learning_rate(share, step - course.first, args.lr, warm_up=40))
            model.zero_grad(set_to_none=True)
            shown = swapped(pool.draw(args.pictures, chance), SWAPPED, rng)
            figures = clip_losses(model, shown, STAGE, rng, learn=True)
            figures["norm"] = train.change(model, optimisers)
            turn += 1
            course.add(figures)
    course.end()


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of log and state")
    parser.add_argument("--start", type=Path, required=True, help="weights to begin from")
    train.offer_softening(parser)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--side", type=int, default=train.STARTER.image_size)
    parser.add_argument(
        "--skip", type=int, default=0, help="steps whose scenes another run has drawn already"
    )
    parser.add_argument("--uses", type=int, default=4, help="steps between new scenes")
    parser.add_argument("--pictures", type=int, default=40, help="of a step and process")
    parser.add_argument(
        "--room", type=int, default=10_000, help="pictures that all processes keep, 1 MB each at side 384"
    )
    parser.add_argument("--batch-factor", type=float, default=1.0, help="times as many new scenes")
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--average", type=float, default=0.995)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=12)
    parser.add_argument("--keep", type=float, default=3, help="minutes between saved states")
    return parser.parse_args(words)


if __name__ == "__main__":
    train.in_processes(fit, parse())
