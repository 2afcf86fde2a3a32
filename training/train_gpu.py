"""Train the starter on a GPU, as fast as it computes: scenes stay in its memory, steps are recorded once.

`train.py` and `train_pairs.py` are limited there by what one process can launch and by what the cores beside the GPU can
draw. Here

- scenes are drawn into pools in the GPU's memory, the newest in place of the oldest, and used several times, each
  time turned, mirrored, in other colours, backwards, and asked for something else;
- prompts are drawn on the GPU as well;
- a whole step, from the chosen scenes to the changed weights, is a CUDA graph (all sizes are fixed, nothing waits for a
  number), one for each kind of step; the losses themselves are those of the two programs.

For its first share (`--alone`) a run trains the encoder by itself, as `train_pairs.py` does; then everything, by what both
programs show.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import feed
import numpy as np
import scenes
import torch
import train
import train_pairs
from prompts import FINE, KIND_ENDS, MOST, OWN, SMALLEST, Arrays, in_view
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.prompt_encoder import BOX_END, BOX_START

THINGS = 64  # numbers that things of a picture can have; those beyond are never asked for
TRIES = 8  # places of which the one with most of the thing around it is clicked on
QUEUED = 64  # messages with scenes that wait to be copied to the device
SHAPE_TURNS = tuple(itertools.product((False, True), repeat=3))
COLOUR_TURNS = tuple(itertools.permutations(range(3)))


@dataclass(frozen=True)
class Drawn:
    """What scenes of one pool are like.

    Attributes
    ----------
    what
        "example" (`scenes.make_example`), "shared" (`make_shared`) or "lineup" (`make_lineup`).
    at_once
        Scenes of one message; those of all pools take about as long to draw.
    room
        Scenes that are kept.
    often
        Shares of the messages, while the encoder learns alone and later.
    """

    what: str
    scene: scenes.SceneConfig
    at_once: int
    room: int
    often: tuple[float, float]

    @property
    def priors(self) -> int:
        return self.scene.priors if self.what == "example" else 1

    @property
    def frames(self) -> int:
        return 1 if self.what == "lineup" else self.scene.frames

    def draw(self, seeds: Sequence[int]) -> Arrays:
        """Draw scenes.

        Returns
        -------
        dict
            pictures (B, P + T, H, W, 3) uint8; things (B, P + T, H, W) uint8, the number of what each pixel shows; areas
            (B, P + T, THINGS) int32, the pixels of each number; and of line-ups `kinds`, see `train_pairs.Drawing.scenes`.
        """
        if self.what == "example":
            return with_areas(*as_pictures(scenes.make_batch(self.scene, seeds)))
        if self.what == "shared":
            shared = [scenes.make_shared(self.scene, seed, self.frames) for seed in seeds]
            return with_areas(*(np.stack(each) for each in zip(*shared)))
        pictures, things, kinds = (
            np.stack(each) for each in zip(*(scenes.make_lineup(self.scene, seed) for seed in seeds))
        )
        return with_areas(pictures, things) | {"kinds": kinds}


@dataclass(frozen=True)
class Kind:
    """A kind of step: which pool it takes scenes from, and what of them.

    Attributes
    ----------
    name
        In the log.
    pool
        Number of the pool.
    batch
        Scenes; for CUDA all steps of a kind are of the same size.
    frames, priors, side
        Frames in a row and prior pictures that are used, and the side that pictures are enlarged to.
    recent
        Memories of earlier frames, of examples.
    alone
        Whether the encoder learns alone.
    """

    name: str
    pool: int
    batch: int
    frames: int
    priors: int
    side: int
    recent: int = 0
    alone: bool = False


EXAMPLES, LONG, SHARED, LINEUPS = range(4)
ALONE = ("alone-lineups-256", "alone-lineups-384", "alone-lineups-256", "alone-pairs-384", "alone-lineups-256",
         "alone-pairs-256", "alone-lineups-384", "alone-lineups-256", "alone-pairs-384")  # fmt: skip
# Until these shares of the rest: pictures as they are drawn first, then more and more enlarged and longer ones.
LATER = {
    0.4: ("short-256", "pairs-256", "clips-256", "short-384", "lineups-256", "short-256", "pairs-384", "two-priors"),
    0.7: ("short-384", "pairs-384", "clips-256", "long-384", "lineups-256", "short-256", "clips-384", "two-priors",
          "short-384", "pairs-256"),
    1.01: ("short-384", "long-384", "pairs-384", "long-384", "clips-384", "short-384", "two-priors", "long-384",
           "lineups-256", "clips-384"),
}  # fmt: skip


def recipe(room: Sequence[int], factor: float) -> tuple[list[Drawn], list[Kind]]:
    """Return the pools and the kinds of steps."""
    full = scenes.SceneConfig(side=256, unrelated=0.85, microscopy=0.25, halos=0.5, absent=0.25, hard=0.4)
    returning = replace(full, frames=8, priors=2, occlusion=0.5, hiding=0.5)
    shared = replace(train_pairs.SCENE, side=256, frames=3)
    pools = [
        Drawn("example", full, 20, room[EXAMPLES], (0.15, 0.4)),
        Drawn("example", returning, 12, room[LONG], (0.1, 0.25)),
        Drawn("shared", shared, 20, room[SHARED], (0.25, 0.23)),
        Drawn("lineup", train_pairs.SCENE, 24, room[LINEUPS], (0.5, 0.12)),
    ]

    def kind(name: str, pool: int, batch: int, *more: int, alone: bool = False) -> Kind:
        return Kind(name, pool, max(2, round(batch * factor)), *more, alone=alone)

    return pools, [
        kind("alone-lineups-256", LINEUPS, 96, 1, 1, 256, alone=True),
        kind("alone-lineups-384", LINEUPS, 44, 1, 1, 384, alone=True),
        kind("alone-pairs-256", SHARED, 96, 1, 1, 256, alone=True),
        kind("alone-pairs-384", SHARED, 44, 1, 1, 384, alone=True),
        kind("lineups-256", LINEUPS, 56, 1, 1, 256),
        kind("pairs-256", SHARED, 56, 1, 1, 256),
        kind("pairs-384", SHARED, 26, 1, 1, 384),
        kind("clips-256", SHARED, 32, 3, 1, 256),
        kind("clips-384", SHARED, 16, 3, 1, 384),
        kind("short-256", EXAMPLES, 56, 4, 1, 256, 3),
        kind("short-384", EXAMPLES, 26, 4, 1, 384, 3),
        kind("two-priors", LONG, 48, 4, 2, 256, 3),
        kind("long-384", LONG, 16, 8, 1, 384, 6),
    ]


def turn_of(share: float, step: int, alone: float, begin: float = 0.0) -> str:
    """Return which kind of step comes.

    A run of weights that know the first part of what comes after `alone`, a share of the run, passes it over up to `begin`,
    a share of that.
    """
    if share < alone:
        return ALONE[step % len(ALONE)]
    share = begin + (1 - begin) * (share - alone) / (1 - alone)
    turns = next(turns for until, turns in LATER.items() if share < until)
    return turns[step % len(turns)]


# ------------------------------------------------------------------------------------------- scenes


@dataclass(frozen=True)
class Drawing:
    """What processes draw for `feed.Feed`: each message is for one of the pools."""

    pools: list[Drawn]
    skipped: int
    uses: int = 1
    steps: None = None

    @property
    def recipe(self) -> list[Drawn]:
        return self.pools

    def scenes(self, step: int, stage: int) -> Arrays:
        """Draw one message."""
        often = np.array([pool.often[stage] for pool in self.pools])
        drawn = self.pools[np.random.default_rng((step, 9)).choice(len(self.pools), p=often / often.sum())]
        first = feed.FIRST_SEED + (self.skipped + step) * feed.SEEDS_A_STEP
        return drawn.draw(range(first, first + drawn.at_once))

    def asked(self, batch: Arrays, *_: Any, **__: Any) -> Arrays:
        """Return the scenes: what they are asked is drawn on the device."""
        return batch


def as_pictures(batch: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Return the pictures of B scenes of P prior pictures and T frames, and the numbers of what they show.

    The object is one, in all pictures; of priors after the first, nothing else is known.
    """
    pictures = np.concatenate((batch["prior"][:, None], batch["more_priors"], batch["frames"]), 1)
    first = batch["prior_instances"][:, None].astype(np.uint8)
    return pictures, np.concatenate(
        (first, batch["more_prior_masks"].astype(np.uint8), batch["frame_instances"]), 1
    )


def with_areas(pictures: np.ndarray, things: np.ndarray) -> Arrays:
    """Return scenes as a pool keeps them; see `Drawn.draw`."""
    areas = [
        np.bincount(each.ravel(), minlength=THINGS)[:THINGS] for each in things.reshape(-1, *things.shape[2:])
    ]
    return {
        "pictures": pictures,
        "things": things,
        "areas": np.array(areas, np.int32).reshape(*things.shape[:2], THINGS),
    }


class Pool:
    """Scenes in the device's memory, the newest in place of the oldest."""

    def __init__(self, drawn: Drawn, device: torch.device) -> None:
        scene, self.what = drawn.scene, drawn.what
        self.priors, self.frames = drawn.priors, drawn.frames
        self.room = drawn.room - drawn.room % drawn.at_once  # no message is split
        shape = (self.room, self.priors + self.frames)
        self.arrays = {
            "pictures": torch.zeros(*shape, scene.side, scene.side, 3, dtype=torch.uint8, device=device),
            "things": torch.zeros(*shape, scene.side, scene.side, dtype=torch.uint8, device=device),
            "areas": torch.zeros(*shape, THINGS, dtype=torch.int32, device=device),
        }
        if self.what == "lineup":
            self.arrays["kinds"] = torch.zeros(self.room, 1 + scenes.LINEUP, dtype=torch.long, device=device)
        self.drawn = 0

    @property
    def held(self) -> int:
        """Number of scenes that are there."""
        return min(self.drawn, self.room)

    def takes(self, arrays: dict[str, Tensor]) -> bool:
        """Whether scenes are of this pool's kind."""
        return arrays["pictures"].shape[1] == self.priors + self.frames

    def put(self, arrays: dict[str, Tensor]) -> None:
        """Add the scenes of one message."""
        count = len(arrays["pictures"])
        place = self.drawn % self.room
        for name, array in arrays.items():
            pinned = array.pin_memory() if self.arrays[name].is_cuda else array
            self.arrays[name][place : place + count].copy_(pinned, non_blocking=True)
        self.drawn += count


# ------------------------------------------------------------------------------------------ prompts


def deepest(target: Tensor, area: Tensor, places: Tensor) -> Tensor:
    """Return, of some places in each mask, the one with most of the mask around it.

    Parameters
    ----------
    target
        (N, H, W) bool.
    area
        (N,) pixels of each.
    places
        (N, K, tries) int, pixels counted row by row.

    Returns
    -------
    Tensor, shape (N, K)
    """
    height, width = target.shape[1:]
    sums = functional.pad(target.float().cumsum(1).cumsum(2), (1, 0, 1, 0)).flatten(1)
    reach = (0.3 * area.float().sqrt()).round().clamp(min=1).long()[:, None, None]
    y, x = places // width, places % width
    top, bottom = (y - reach).clamp(min=0), (y + reach + 1).clamp(max=height)
    left, right = (x - reach).clamp(min=0), (x + reach + 1).clamp(max=width)

    def at(row: Tensor, column: Tensor) -> Tensor:
        return sums.gather(1, (row * (width + 1) + column).flatten(1)).view_as(row)

    share = at(bottom, right) - at(top, right) - at(bottom, left) + at(top, left)
    return places.gather(2, share.argmax(2, keepdim=True))[..., 0]


def random_places(counted: Tensor, *shape: int) -> Tensor:
    """Return random pixels of each mask, (N, *shape), from its pixels counted row by row, (N, H W)."""
    total = counted[:, -1:]
    chance = torch.rand(len(counted), int(np.prod(shape)), device=counted.device)
    which = (chance * total).to(counted.dtype).clamp(max=total - 1) + 1
    return torch.searchsorted(counted, which).clamp(max=counted.shape[1] - 1).view(-1, *shape)


def draw_clicks(target: Tensor) -> tuple[Tensor, Tensor]:
    """Return `prompts.clicks` of N masks (N, H, W) that are not empty: (N, 3, 2) points and (N, 3) labels."""
    count, _, width = target.shape
    flat = target.flatten(1).to(torch.int32)
    inside = flat.cumsum(1, dtype=torch.int32)
    outside = (1 - flat).cumsum(1, dtype=torch.int32)
    deep = deepest(target, inside[:, -1], random_places(inside, MOST, TRIES))
    chance = torch.rand(2, count, MOST, device=target.device)
    first = torch.arange(MOST, device=target.device) == 0
    positive = first | (chance[0] < 0.7) | (outside[:, -1:] == 0)
    within = torch.where(chance[1] < 0.6, deep, random_places(inside, MOST))
    place = torch.where(positive, within, random_places(outside, MOST))
    return torch.stack((place % width, place // width), 2).float(), positive.long()


def draw_boxes(target: Tensor) -> Tensor:
    """Return `prompts.box_around` of N masks: their corners (N, 2, 2)."""
    corners = []
    for axis in (1, 2):  # columns, then rows
        there = target.any(axis)
        place = torch.arange(there.shape[1], device=target.device).expand_as(there)
        first = torch.where(there, place, there.shape[1]).amin(1)
        corners.append(torch.stack((first, torch.where(there, place, -1).amax(1)), 1).float())
    box = torch.stack(corners, 2)
    size = (box[:, 1:] - box[:, :1]).clamp(min=0) + 1
    box = box + (torch.rand_like(box) - 0.5) * 0.2 * size
    return torch.stack([box[..., k].clamp(0, target.shape[2 - k] - 1) for k in range(2)], 2)


def draw_kinds(count: int) -> np.ndarray:
    """Return which prompt each of some pictures gets: one to three clicks (1-3), a box (4), or both (5)."""
    ends = np.round(np.array(KIND_ENDS) * count).astype(int)
    return np.random.default_rng(5).permutation(1 + np.searchsorted(ends, np.arange(count), side="right"))


def turned(x: Tensor) -> Tensor:
    """Turn examples (B, S, H, W, ...) over, each kind of turn for those at its own places of the batch."""
    out = torch.empty_like(x)
    every = len(SHAPE_TURNS)
    for k, (upside, mirrored, swapped) in enumerate(SHAPE_TURNS):
        some = x[k::every]
        flips = [axis for axis, flip in ((2, upside), (3, mirrored)) if flip]
        some = some.flip(flips) if flips else some
        out[k::every] = some.transpose(2, 3) if swapped else some
    return out


def recoloured(pictures: Tensor) -> Tensor:
    """Let the colours of examples (B, S, H, W, 3) change places."""
    out = torch.empty_like(pictures)
    every = len(COLOUR_TURNS)
    for k, order in enumerate(COLOUR_TURNS):
        for channel, source in enumerate(order):
            out[k::every, ..., channel] = pictures[k::every, ..., source]
    return out


class Asking:
    """Turns scenes of a pool into what a step takes, all on their device."""

    def __init__(self, kind: Kind, pool: Pool) -> None:
        self.kind, self.pool = kind, pool
        device = pool.arrays["areas"].device
        self.places = torch.zeros(kind.batch, dtype=torch.long, device=device)
        self.starts = torch.zeros(kind.batch, dtype=torch.long, device=device)
        kinds = draw_kinds(self.prompted())
        count = np.array((1, 2, 3, 2, 3))[kinds - 1]
        self.groups = train.by_count(count, np.random.default_rng(6), device)
        self.kinds = torch.from_numpy(kinds).to(device)[:, None]
        forwards = torch.arange(kind.frames).repeat(kind.batch, 1)
        backwards = (torch.arange(kind.batch) // len(SHAPE_TURNS) % 2 == 1)[:, None]
        self.order = torch.where(backwards, forwards.flip(1), forwards).to(device)
        self.labels_of_box = torch.tensor([BOX_START, BOX_END, 1], device=device)

    def prompted(self) -> int:
        """Number of prompts of a step."""
        return self.kind.batch * (self.kind.priors + self.kind.frames)

    def choose(self) -> None:
        """Choose the scenes of the next step."""
        self.places.random_(0, max(1, self.pool.held))
        self.starts.random_(0, self.pool.frames - self.kind.frames + 1)

    def shown(self) -> dict[str, Tensor]:
        """Return what the chosen scenes show: some of the arrays of their pool, turned."""
        kind = self.kind
        before = torch.arange(kind.priors, device=self.places.device).expand(kind.batch, -1)
        which = torch.cat((before, self.pool.priors + self.starts[:, None] + self.order), 1)
        taken = {
            name: array[self.places] if name == "kinds" else array[self.places[:, None], which]
            for name, array in self.pool.arrays.items()
        }
        return taken | {
            "pictures": recoloured(turned(taken["pictures"])),
            "things": turned(taken["things"]),
        }

    def batch(self) -> dict[str, Tensor]:
        """Return the chosen scenes with what they are asked; see `prompts.with_prompts`."""
        kind, priors = self.kind, self.kind.priors
        shown = self.shown()
        things, areas = shown["things"], shown["areas"]
        pixels = things.shape[2] * things.shape[3]

        own = torch.rand(kind.batch, priors, device=areas.device) < OWN
        own = own | (
            torch.arange(priors, device=areas.device) > 0
        )  # further priors have no map of other things
        large = (areas >= SMALLEST * pixels) & (torch.arange(THINGS, device=areas.device) > 0)
        chosen = (torch.rand(areas.shape, device=areas.device) * large).argmax(2)
        asked = large.any(2)
        object_there = areas[:, :priors, scenes.OBJECT_ID] > 0
        chosen = torch.cat((torch.where(own, scenes.OBJECT_ID, chosen[:, :priors]), chosen[:, priors:]), 1)
        asked = torch.cat((torch.where(own, object_there, asked[:, :priors]), asked[:, priors:]), 1)
        target = (things == chosen[..., None, None]) | ~asked[..., None, None]

        points, labels = self._prompts(target.flatten(0, 1))
        present, sure = in_view(areas[:, priors:, scenes.OBJECT_ID] / pixels)
        return {
            "pictures": shown["pictures"],
            "own": own,
            "asked": asked,
            "points": points.unflatten(0, asked.shape),
            "labels": labels.unflatten(0, asked.shape),
            "target": self._covered(target),
            "truth": self._covered(things == scenes.OBJECT_ID),
            "present": present,
            "sure": sure,
        }

    def losses(
        self, model: train_pairs.Starter, before: train_pairs.Before, true_memory: float
    ) -> train.Losses:
        """Return the losses of the chosen scenes; `before` is the model that the run began with."""
        batch, kind = self.batch(), self.kind
        with torch.autocast(self.places.device.type, torch.bfloat16, enabled=self.places.is_cuda):
            every = slice(0, kind.frames)
            return train.part_losses(model, batch, true_memory, every, None, kind.recent, self.groups)[0]

    def _prompts(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points and labels that ask for N masks."""
        points, labels = draw_clicks(target)
        box = self.kinds > 3
        points = torch.where(box[..., None], torch.cat((draw_boxes(target), points[:, :1]), 1), points)
        scale = self.kind.side / target.shape[2]
        return (points + 0.5) * scale - 0.5, torch.where(box, self.labels_of_box, labels)

    def _covered(self, masks: Tensor) -> Tensor:
        """(B, S, H, W) to pixels of 16 that are covered on the grid of the decoder's masks."""
        grid = self.kind.side // FINE
        return functional.adaptive_avg_pool2d(masks.float(), (grid, grid)) * FINE**2


class AskingAll(Asking):
    """Asks for some of the things of scenes whose pictures share them, as `train_pairs.Drawing.asked` does."""

    def __init__(self, kind: Kind, pool: Pool) -> None:
        super().__init__(kind, pool)
        self.rows = torch.arange(kind.batch, device=self.places.device).repeat_interleave(train_pairs.OBJECTS)

    def prompted(self) -> int:
        return self.kind.batch * train_pairs.OBJECTS

    def batch(self) -> dict[str, Tensor]:
        """Return the chosen scenes with what they are asked.

        A scene with fewer large things than are asked for has a thing that is the whole picture, and is `asked` for no more.
        """
        shown = self.shown()
        things, areas = shown["things"], shown["areas"]
        pixels = things.shape[2] * things.shape[3]
        large = (areas[:, 0] >= train_pairs.SMALLEST * pixels) & (
            torch.arange(THINGS, device=areas.device) > 0
        )
        chance, numbers = (torch.rand(large.shape, device=areas.device) * large).topk(train_pairs.OBJECTS, 1)
        asked, numbers = chance.flatten() > 0, numbers.flatten()[:, None]
        masks = (things[self.rows] == numbers[..., None, None]) | ~asked[:, None, None, None]
        points, labels = self._prompts(masks[:, 0])
        present, sure = in_view(
            areas[self.rows, 1:].gather(2, numbers[..., None].expand(-1, self.kind.frames, 1))[..., 0]
            / pixels
        )
        return {key: shown[key] for key in ("pictures", "things", "kinds") if key in shown} | {
            "rows": self.rows,
            "asked": asked,
            "points": points,
            "labels": labels,
            "truth": self._covered(masks),
            "present": present & asked[:, None],
            "sure": sure & asked[:, None],
        }

    def losses(
        self, model: train_pairs.Starter, before: train_pairs.Before, true_memory: float
    ) -> train.Losses:
        return train_pairs.step_losses(
            model, before if self.kind.alone else None, self.batch(), self.groups, self.places.is_cuda
        )


# -------------------------------------------------------------------------------------------- steps


class Learning:
    """Changes weights, and their average, by gradients; nothing in it waits for the device.

    Parameters
    ----------
    model
        What learns, on its device.
    rate
        The first learning rate.
    """

    def __init__(self, model: train_pairs.Starter, rate: float) -> None:
        self.model, device = model, model.readout.weight.device
        self.rate = torch.tensor(rate, device=device)
        self.decay = torch.ones((), device=device)  # of the averaged weights
        self.optimisers = train.make_optimisers(model, self.rate)
        self.average: dict[str, Tensor] = {}

    def begin(
        self, state_file: Path, start: Path | None, factors: Sequence[float] | None
    ) -> tuple[int, float]:
        """Load what `train.begin` does, and make all that steps change; return the first step and seconds."""
        began = train.begin(self.model, self.optimisers, state_file, start, factors)
        self.average = began[0]
        for group in (group for each in self.optimisers for group in each.param_groups):
            group["lr"] = self.rate  # a loaded one is another tensor, or a number
            group["capturable"] = self.rate.is_cuda
        if not any(each.state for each in self.optimisers):
            for p in self.model.parameters():
                p.grad = torch.zeros_like(p)
            at = self.rate.clone()
            self.rate.zero_()
            for each in self.optimisers:
                each.step()
            self.rate.copy_(at)
            for tensor in self.memory():
                tensor.zero_()
            self.model.zero_grad(set_to_none=True)
        return began[1:]

    def memory(self) -> list[Tensor]:
        """Return what the optimisers remember."""
        states = (state for each in self.optimisers for state in each.state.values())
        return [value for state in states for value in state.values()]

    def change(self) -> Tensor:
        """Change everything that has a gradient; return the norm of the gradients.

        Gradients that are no numbers count as zero.
        """
        learnt = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(learnt, 1.0)
        for p in learnt:
            p.grad.nan_to_num_(0.0, 0.0, 0.0)
        for each in self.optimisers:
            each.step()
        train.blend(self.average, self.model, self.decay)
        return norm


class Step:
    """A kind of step, on CUDA recorded once and then replayed."""

    def __init__(
        self, learning: Learning, before: train_pairs.Before, asking: Asking, true_memory: float
    ) -> None:
        self.learning, self.before, self.asking, self.true_memory = learning, before, asking, true_memory
        self.graph: torch.cuda.CUDAGraph | None = None
        self.names: list[str] = []
        self.sums = torch.zeros(0)
        self.count = 0

    def warm_up(self) -> None:
        """Let everything that is made once be made, beside the stream that records, and change nothing."""
        memory = [tensor.clone() for tensor in self.learning.memory()]
        rate, decay = self.learning.rate.clone(), self.learning.decay.clone()
        self.learning.rate.zero_()
        self.learning.decay.fill_(1)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self._compute()
        torch.cuda.current_stream().wait_stream(aside)
        torch.cuda.synchronize()
        for tensor, kept in zip(self.learning.memory(), memory, strict=True):
            tensor.copy_(kept)
        self.learning.rate.copy_(rate)
        self.learning.decay.copy_(decay)
        self.told()
        torch.cuda.empty_cache()

    def record(self, memory: Any = None) -> Any:
        """Record the step; the memory that it computes in can be that of others, which never run at the same time."""
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=memory, capture_error_mode="thread_local"):
            self._compute()
        self.told()
        return self.graph.pool()

    def run(self) -> None:
        """Take other scenes and change the weights."""
        self.asking.choose()
        if self.graph is None:
            self._compute()
        else:
            self.graph.replay()
        self.count += 1

    def told(self) -> dict[str, float]:
        """Return the sums of the figures of all steps since the last call."""
        sums = dict(zip(self.names, self.sums.tolist()))
        self.sums.zero_()
        self.count = 0
        return sums

    def _compute(self) -> None:
        model = self.learning.model
        train_pairs.learn_alone(model, self.asking.kind.alone)
        model.zero_grad(set_to_none=True)
        losses = self.asking.losses(model, self.before, self.true_memory)
        losses.total.backward()
        figures = losses.figures | {"norm": self.learning.change()}
        if not self.names:
            self.names = list(figures)
            self.sums = torch.zeros(len(figures), device=losses.total.device)
        self.sums += torch.stack([figure.detach().float() for figure in figures.values()])
        model.zero_grad(set_to_none=True)


def warm(pools: list[Pool]) -> None:
    """Fill the pools' first places with noise, so that steps can be recorded before scenes are there."""
    for arrays in (pool.arrays for pool in pools):
        arrays["pictures"][:1].random_(0, 256)
        arrays["things"][:1].random_(0, 3)
        arrays["areas"][:1, :, :3] = arrays["things"][0, 0].numel() // 3
        if "kinds" in arrays:
            arrays["kinds"][:1, 1:].random_(0, len(scenes.KINDS))


# --------------------------------------------------------------------------------------------- loop


class Source:
    """Takes what the processes have drawn into the pools while the device computes."""

    def __init__(self, batches: feed.Feed, pools: list[Pool]) -> None:
        self.batches, self.pools = batches, pools

    def drain(self, most: int = QUEUED) -> int:
        """Put what is there into the pools; return the number of messages."""
        for done in range(most):
            arrays = self.batches.ready()
            if arrays is None:
                return done
            next(pool for pool in self.pools if pool.takes(arrays[1])).put(arrays[1])
        return most

    def fill(self, least: int, seconds: float) -> None:
        """Wait until each pool has some scenes."""
        until = time.monotonic() + seconds
        while min(pool.held for pool in self.pools) < least and time.monotonic() < until:
            if not self.drain():
                time.sleep(0.02)
        if not min(pool.held for pool in self.pools):
            raise RuntimeError("The processes that draw scenes have drawn nothing in time.")


def prepare(steps: Sequence[Step], source: Source, clock: train.Clock) -> None:
    """Warm up and record steps for CUDA, while scenes come."""
    for step in steps:
        step.warm_up()
        source.drain()
        print(f"warmed {step.asking.kind.name} after {clock.spent():.1f} s", flush=True)
    memory = None
    for step in steps:
        memory = step.record(memory)
        source.drain()
        print(f"recorded {step.asking.kind.name} after {clock.spent():.1f} s", flush=True)


def told(steps: Sequence[Step], pools: Sequence[Pool]) -> dict[str, list[Tensor]]:
    """Return the figures of a line of the log: means over all steps since the last one, and of each kind."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    line = {}
    for step in steps:
        if not (count := step.count):
            continue
        name, figures = step.asking.kind.name, step.told()
        for key, value in figures.items():
            sums[key] = sums.get(key, 0.0) + value
            counts[key] = counts.get(key, 0) + count
        for key in ("track_J", "outline_right"):
            if key in figures:
                line[f"{name}_{key}"] = figures[key] / count
    line |= {key: value / counts[key] for key, value in sums.items()}
    line |= {f"drawn_{k}_{pool.what}": float(pool.drawn) for k, pool in enumerate(pools)}
    return {key: [torch.tensor(value)] for key, value in line.items()}


def run(args: argparse.Namespace) -> None:
    """Train for some minutes and write the state and the averaged weights."""
    device = torch.device(args.device)
    torch.set_float32_matmul_precision("high")
    torch.backends.cuda.enable_cudnn_sdp(False)  # it compiles for every size anew
    torch.manual_seed(args.seed + args.skip)
    args.run.mkdir(parents=True, exist_ok=True)
    clock = train.Clock(None, args.minutes, started=time.monotonic())
    model = train_pairs.Starter()
    train.initialise(model, args.seed)
    learning = Learning(model.to(device), args.lr)
    clock.step, clock.seconds = learning.begin(args.run / "state.pt", args.start, args.soften)
    before = train_pairs.Before(args.start, device)
    first, examples = clock.step, 0  # examples, as scenes that were drawn, are counted anew in each call
    drawn, kinds = recipe(args.room, args.batch_factor)
    drawing = Drawing(drawn, args.skip)
    with (
        feed.Feed(
            drawing,
            first,
            args.workers,
            lambda _, share: int(share >= args.alone),
            clock.share(),
            pinned=device.type == "cuda",
            ahead=QUEUED,
        ) as batches,
        train.stoppable() as asked_to_stop,
    ):
        pools = [Pool(each, device) for each in drawn]
        source = Source(batches, pools)
        steps = {}
        for kind in kinds:
            pool = pools[kind.pool]
            asking = Asking(kind, pool) if pool.what == "example" else AskingAll(kind, pool)
            steps[kind.name] = Step(learning, before, asking, args.true_memory)
        if device.type == "cuda":
            warm(pools)
            prepare(list(steps.values()), source, clock)
        source.fill(args.fill, 60)
        print(f"{[pool.held for pool in pools]} scenes after {clock.spent():.1f} s", flush=True)
        saved, under_way = clock.spent(), deque[torch.cuda.Event]()
        while clock.share() < 1 and not asked_to_stop:
            share = batches.share.value = clock.share()
            step = steps[turn_of(share, clock.step, args.alone, args.begin)]
            learning.rate.fill_(train.learning_rate(share, clock.step - first, args.lr))
            clock.step += 1
            learning.decay.fill_(train.decay_at(clock.step, args.average))
            step.run()
            source.drain()
            examples += step.asking.kind.batch
            if device.type == "cuda":  # the clock is not to run ahead of the device
                under_way.append(torch.cuda.Event())
                under_way[-1].record()
                if len(under_way) > 2:
                    under_way.popleft().synchronize()
            if clock.step % args.every == 0:
                line = told(list(steps.values()), pools)
                line["examples"] = [torch.tensor(float(examples))]
                train.write_line(args.run / "log.jsonl", clock, int(share >= args.alone), line)
            if clock.spent() - saved > 60 * args.keep:
                write(args.run, learning, clock)
                saved = clock.spent()
    write(args.run, learning, clock)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    print(
        json.dumps(
            {
                "step": clock.step,
                "seconds": round(clock.spent(), 1),
                "GiB": round(peak, 1),
                "examples": examples,
            }
        )
    )


def write(folder: Path, learning: Learning, clock: train.Clock) -> None:
    """Write the state of `train.py`, and its weights alone, for where files must be small."""
    model, average = learning.model, learning.average
    train.save(folder / "state.pt", model, average, learning.optimisers, clock)
    for name, weights in (("average", average), ("latest", model.state_dict())):
        save_file(
            {key[4:]: value.cpu().contiguous() for key, value in weights.items() if key.startswith("sam.")},
            folder / f"{name}.safetensors",
        )


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path(__file__).parent / "runs" / "gpu")
    parser.add_argument("--start", type=Path, required=True, help="exported weights to begin from")
    train.offer_softening(parser)
    parser.add_argument("--minutes", type=float, default=12, help="of the whole run, all calls together")
    parser.add_argument(
        "--alone", type=float, default=0.25, help="share of the run that trains the encoder by itself"
    )
    parser.add_argument(
        "--begin", type=float, default=0.0, help="share of what is shown after that which is passed over"
    )
    parser.add_argument(
        "--skip", type=int, default=0, help="steps whose scenes another run has drawn already"
    )
    parser.add_argument("--lr", type=float, default=2.2e-3)
    parser.add_argument("--average", type=float, default=0.998, help="decay of the averaged weights")
    parser.add_argument(
        "--true-memory", type=float, default=0.25, help="share of priors with their true masks"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=14, help="processes that draw scenes")
    parser.add_argument("--batch-factor", type=float, default=1)
    parser.add_argument(
        "--room", type=int, nargs=4, default=(12000, 3000, 10000, 20000), help="scenes in each pool"
    )
    parser.add_argument("--fill", type=int, default=300, help="scenes in each pool before it begins")
    parser.add_argument("--every", type=int, default=25, help="steps between lines of the log")
    parser.add_argument("--keep", type=float, default=2, help="minutes between saved states")
    return parser.parse_args(words)


if __name__ == "__main__":
    run(parse())
