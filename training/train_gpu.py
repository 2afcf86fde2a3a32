"""Train the starter on a GPU, as fast as it computes: scenes stay in its memory, steps are recorded once.

`train.py` is limited there by what one process can launch and by what the cores beside the GPU can draw. Here

- scenes are drawn into a pool in the GPU's memory, the newest in place of the oldest, and used several times, each
  time turned, mirrored, in other colours, backwards, and asked for something else;
- prompts are drawn on the GPU as well;
- losses and gradients of a step are a CUDA graph (all sizes are fixed, nothing waits for a number), one for each
  kind of step; the losses themselves are those of `train.py`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import feed
import numpy as np
import scenes
import torch
import train
from prompts import FINE, KIND_ENDS, MOST, OWN, SMALLEST, Arrays, in_view
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from napari_samexp.sam.prompt_encoder import BOX_END, BOX_START

THINGS = 64  # numbers that things of a picture can have; those beyond are never asked for
TRIES = 8  # places of which the one with most of the thing around it is clicked on
QUEUED = 200  # messages with scenes that wait to be copied to the device
SHAPE_TURNS = tuple(itertools.product((False, True), repeat=3))
COLOUR_TURNS = tuple(itertools.permutations(range(3)))
ROUND = len(SHAPE_TURNS) * len(COLOUR_TURNS) // 2  # examples after which shapes and colours turn as before


@dataclass(frozen=True)
class Drawn:
    """What scenes of one pool are like, and how many one message holds."""

    scene: scenes.SceneConfig
    at_once: int
    room: int


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
        Examples; for CUDA all steps of a kind are of the same size.
    frames, priors, side
        Frames in a row and prior pictures that are used, and the side that pictures are enlarged to.
    recent
        Memories of earlier frames.
    """

    name: str
    pool: int
    batch: int
    frames: int
    priors: int
    side: int
    recent: int


def recipe(room: tuple[int, int], factor: float) -> tuple[list[Drawn], list[Kind]]:
    """Return the pools and the kinds of steps."""
    full = scenes.SceneConfig(side=256, unrelated=0.85, microscopy=0.25, halos=0.5, absent=0.25, hard=0.4)
    pools = [Drawn(full, 16, room[0]), Drawn(replace(full, frames=8, priors=2), 8, room[1])]

    def kind(name: str, pool: int, batch: int, *more: int) -> Kind:
        return Kind(name, pool, max(2, round(batch * factor)), *more)

    return pools, [
        kind("short-256", 0, 112, 4, 1, 256, 3),
        kind("short-384", 0, 50, 4, 1, 384, 3),
        kind("two-priors", 1, 96, 4, 2, 256, 3),
        kind("long-384", 1, 28, 8, 1, 384, 6),
    ]


def turn_of(share: float, step: int, begin: float = 0.0) -> int:
    """Return which kind of step comes: pictures as they are drawn first, then more and more enlarged and longer ones.

    A run of weights that know the first part passes it over up to `begin`, a share of it all.
    """
    share = begin + (1 - begin) * share
    if step % 10 == 9:
        return 2
    if share < 0.45:
        return 0 if step % 5 else 1
    if share < 0.75:
        return step % 2
    return (1, 3, 1)[step % 3]


# ------------------------------------------------------------------------------------------- scenes


@dataclass(frozen=True)
class Drawing:
    """What processes draw for `feed.Feed`: every fifth message is for the second pool."""

    pools: list[Drawn]
    skipped: int
    uses: int = 1
    steps: None = None

    @property
    def recipe(self) -> list[Drawn]:
        return self.pools

    def scenes(self, step: int, _: int) -> Arrays:
        """Draw one message."""
        drawn = self.pools[int(step % 5 == 4)]
        first = feed.FIRST_SEED + (self.skipped + step) * feed.SEEDS_A_STEP
        return as_pictures(scenes.make_batch(drawn.scene, range(first, first + drawn.at_once)))

    def asked(self, batch: Arrays, *_: Any, **__: Any) -> Arrays:
        """Return the scenes: what they are asked is drawn on the device."""
        return batch


def as_pictures(batch: Arrays) -> Arrays:
    """Return B scenes of P prior pictures and T frames as arrays of P + T pictures each.

    Returns
    -------
    dict
        pictures (B, P + T, H, W, 3) uint8; things (B, P + T, H, W) uint8, the number of what each pixel shows, the
        object's being one, of all things but for priors after the first; areas (B, P + T, THINGS) int32, the pixels
        of each number.
    """
    pictures = np.concatenate((batch["prior"][:, None], batch["more_priors"], batch["frames"]), 1)
    first = batch["prior_instances"][:, None].astype(np.uint8)
    things = np.concatenate((first, batch["more_prior_masks"].astype(np.uint8), batch["frame_instances"]), 1)
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
        scene = drawn.scene
        self.priors, self.frames = scene.priors, scene.frames
        self.room = drawn.room - drawn.room % drawn.at_once  # no message is split
        shape = (self.room, scene.priors + scene.frames)
        self.arrays = {
            "pictures": torch.zeros(*shape, scene.side, scene.side, 3, dtype=torch.uint8, device=device),
            "things": torch.zeros(*shape, scene.side, scene.side, dtype=torch.uint8, device=device),
            "areas": torch.zeros(*shape, THINGS, dtype=torch.int32, device=device),
        }
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
    """Turns scenes of a pool into what `train.part_losses` takes, all on their device."""

    def __init__(self, kind: Kind, pool: Pool) -> None:
        self.kind, self.pool = kind, pool
        device = pool.arrays["areas"].device
        self.places = torch.zeros(kind.batch, dtype=torch.long, device=device)
        self.starts = torch.zeros(kind.batch, dtype=torch.long, device=device)
        kinds = draw_kinds(kind.batch * (kind.priors + kind.frames))
        count = np.array((1, 2, 3, 2, 3))[kinds - 1]
        self.groups = train.by_count(count, np.random.default_rng(6), device)
        self.kinds = torch.from_numpy(kinds).to(device)[:, None]
        forwards = torch.arange(kind.frames).repeat(kind.batch, 1)
        backwards = (torch.arange(kind.batch) // ROUND % 2 == 1)[:, None]
        self.order = torch.where(backwards, forwards.flip(1), forwards).to(device)
        self.labels_of_box = torch.tensor([BOX_START, BOX_END, 1], device=device)

    def choose(self) -> None:
        """Choose the scenes of the next step."""
        self.places.random_(0, max(1, self.pool.held))
        self.starts.random_(0, self.pool.frames - self.kind.frames + 1)

    def batch(self) -> dict[str, Tensor]:
        """Return the chosen scenes with what they are asked; see `prompts.with_prompts`."""
        kind, priors = self.kind, self.kind.priors
        before = torch.arange(priors, device=self.places.device).expand(kind.batch, -1)
        which = torch.cat((before, self.pool.priors + self.starts[:, None] + self.order), 1)
        taken = {name: array[self.places[:, None], which] for name, array in self.pool.arrays.items()}
        pictures, things, areas = (
            recoloured(turned(taken["pictures"])),
            turned(taken["things"]),
            taken["areas"],
        )
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

        flat = target.flatten(0, 1)
        points, labels = draw_clicks(flat)
        box = self.kinds > 3
        points = torch.where(box[..., None], torch.cat((draw_boxes(flat), points[:, :1]), 1), points)
        labels = torch.where(box, self.labels_of_box, labels)
        scale = kind.side / things.shape[2]
        shape = asked.shape
        present, sure = in_view(areas[:, priors:, scenes.OBJECT_ID] / pixels)
        return {
            "pictures": pictures,
            "own": own,
            "asked": asked,
            "points": ((points + 0.5) * scale - 0.5).unflatten(0, shape),
            "labels": labels.unflatten(0, shape),
            "target": self._covered(target),
            "truth": self._covered(things == scenes.OBJECT_ID),
            "present": present,
            "sure": sure,
        }

    def _covered(self, masks: Tensor) -> Tensor:
        """(B, S, H, W) to pixels of 16 that are covered on the grid of the decoder's masks."""
        grid = self.kind.side // FINE
        return functional.adaptive_avg_pool2d(masks.float(), (grid, grid)) * FINE**2


# -------------------------------------------------------------------------------------------- steps


class Step:
    """Losses and gradients of one kind of step, on CUDA recorded once and then replayed."""

    def __init__(self, model: train.Starter, asking: Asking, true_memory: float) -> None:
        self.model, self.asking, self.true_memory = model, asking, true_memory
        self.graph: torch.cuda.CUDAGraph | None = None
        self.gradients: list[Tensor | None] = []
        self.figures: dict[str, Tensor] = {}

    def warm_up(self) -> None:
        """Let everything that is made once be made, beside the stream that records."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self._compute()
        torch.cuda.current_stream().wait_stream(aside)
        torch.cuda.synchronize()
        self.figures = {}
        self.model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()

    def record(self, memory: Any = None) -> Any:
        """Record the step; the memory that it computes in can be that of others, which never run at the same time."""
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=memory, capture_error_mode="thread_local"):
            self._compute()
        self.gradients = [p.grad for p in self.model.parameters()]
        self.model.zero_grad(set_to_none=True)
        return self.graph.pool()

    def run(self) -> dict[str, Tensor]:
        """Take other scenes; leave gradients with the parameters and return the figures."""
        self.asking.choose()
        if self.graph is None:
            self._compute()
        else:
            self.graph.replay()
            for p, gradient in zip(self.model.parameters(), self.gradients):
                p.grad = gradient
        return self.figures

    def _compute(self) -> None:
        self.model.zero_grad(set_to_none=True)
        kind, device = self.asking.kind, self.asking.places.device
        batch = self.asking.batch()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            losses, _ = train.part_losses(
                self.model,
                batch,
                self.true_memory,
                slice(0, kind.frames),
                None,
                kind.recent,
                self.asking.groups,
            )
        losses.total.backward()
        self.figures = losses.figures


def warm(pools: list[Pool]) -> None:
    """Fill the pools' first places with noise, so that steps can be recorded before scenes are there."""
    for arrays in (pool.arrays for pool in pools):
        arrays["pictures"][:1].random_(0, 256)
        arrays["things"][:1].random_(0, 3)
        arrays["areas"][:1, :, :3] = arrays["things"][0, 0].numel() // 3


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


def run(args: argparse.Namespace) -> None:
    """Train for some minutes and write the state and the averaged weights."""
    device = torch.device(args.device)
    torch.set_float32_matmul_precision("high")
    torch.backends.cuda.enable_cudnn_sdp(False)  # it compiles for every size anew
    torch.manual_seed(args.seed + args.skip)
    args.run.mkdir(parents=True, exist_ok=True)
    clock = train.Clock(None, args.minutes, started=time.monotonic())
    model, state_file = train.Starter(), args.run / "state.pt"
    train.initialise(model, args.seed)
    model.to(device)
    optimisers = train.make_optimisers(model, args.lr)
    average, clock.step, clock.seconds = train.begin(model, optimisers, state_file, args.start, args.soften)
    first, examples = clock.step, 0
    drawn, kinds = recipe(tuple(args.room), args.batch_factor)
    sums: dict[str, list[Tensor]] = {}
    drawing = Drawing(drawn, args.skip)
    with (
        feed.Feed(drawing, first, args.workers, lambda *_: 0, clock.share(), ahead=QUEUED) as batches,
        train.stoppable() as asked_to_stop,
    ):
        pools = [Pool(each, device) for each in drawn]
        source = Source(batches, pools)
        steps = [Step(model, Asking(kind, pools[kind.pool]), args.true_memory) for kind in kinds]
        if device.type == "cuda":
            warm(pools)
            for step in steps:
                step.warm_up()
                print(f"warmed {step.asking.kind.name} after {clock.spent():.1f} s", flush=True)
            memory = None
            for step in steps:
                memory = step.record(memory)
                print(f"recorded {step.asking.kind.name} after {clock.spent():.1f} s", flush=True)
        source.fill(args.fill, 60)
        print(f"{[pool.held for pool in pools]} scenes after {clock.spent():.1f} s", flush=True)
        saved = clock.spent()
        while clock.share() < 1 and not asked_to_stop:
            share = batches.share.value = clock.share()
            step = steps[turn_of(share, clock.step, args.begin)]
            name = step.asking.kind.name
            figures = step.run()
            source.drain()
            train.set_rate(optimisers, train.learning_rate(share, clock.step - first, args.lr))
            norm = train.change(model, optimisers)
            clock.step += 1
            train.blend(average, model, train.decay_at(clock.step, args.average))
            # figures of a recorded step are overwritten by the next one
            now = torch.stack([*figures.values(), norm])
            for key, value in zip((*figures, "norm"), now.unbind()):
                sums.setdefault(key, []).append(value)
            sums.setdefault(f"{name}_J", []).append(now[list(figures).index("track_J")])
            examples += step.asking.kind.batch
            if clock.step % args.every == 0:
                for key, pool in zip(("scenes", "long_scenes"), pools):
                    sums[key] = [torch.tensor(float(pool.drawn))]
                sums["examples"] = [torch.tensor(float(examples))]
                train.write_line(args.run / "log.jsonl", clock, 2, sums)
                sums = {}
            if clock.spent() - saved > 60 * args.keep:
                write(args.run, model, average, optimisers, clock)
                saved = clock.spent()
    write(args.run, model, average, optimisers, clock)
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


def write(
    folder: Path, model: train.Starter, average: dict[str, Tensor], optimisers: list[torch.optim.Optimizer],
    clock: train.Clock,
) -> None:  # fmt: skip
    """Write the state of `train.py`, and its weights alone, for where files must be small."""
    train.save(folder / "state.pt", model, average, optimisers, clock)
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
    parser.add_argument("--start", type=Path, help="a state.pt or a .safetensors file to begin from")
    train.offer_softening(parser)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument(
        "--begin", type=float, default=0.0, help="share of what is shown in turn that is passed over"
    )
    parser.add_argument(
        "--skip", type=int, default=0, help="steps whose scenes another run has drawn already"
    )
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--average", type=float, default=0.998, help="decay of the averaged weights")
    parser.add_argument(
        "--true-memory", type=float, default=0.25, help="share of priors with their true masks"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=15, help="processes that draw scenes")
    parser.add_argument("--batch-factor", type=float, default=1)
    parser.add_argument("--room", type=int, nargs=2, default=(12000, 2500), help="scenes in each pool")
    parser.add_argument("--fill", type=int, default=300, help="scenes in each pool before it begins")
    parser.add_argument("--every", type=int, default=25, help="steps between lines of the log")
    parser.add_argument("--keep", type=float, default=2, help="minutes between saved states")
    return parser.parse_args(words)


if __name__ == "__main__":
    run(parse())
