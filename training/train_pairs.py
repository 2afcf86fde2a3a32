"""Train a starter to tell things apart: each picture is encoded once, and all that it shows is looked for.

`train.py` follows one object a clip. Here a picture and a clip elsewhere share some of three to six things, many of which
have the surface or the outline of another (`scenes.make_shared`), and up to three of them are clicked on,
remembered and found again, so that they share the cost of encoding. A loss asks besides that the encoder's tokens of each
thing be like those of that thing in the other picture, more than like those of anything else; it is
taken of the part of the features that memory keeps.

Some steps (`--lineups`) show things that their outlines alone tell apart, and ask features for the kind of each outline.

For its first share (`--alone`) a run trains the encoder with these losses by itself, while what memory does not keep, and
the finer features, stay near those of the weights that the run began with.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import feed
import numpy as np
import prompts
import scenes
import torch
import train
from prompts import Arrays
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.models import Sam2

FIRST = 8_000_000  # steps that other runs have not come to
SCENE = scenes.SceneConfig(side=256, halos=0.5, hard=0.6)
OBJECTS = 3  # most things of a picture that are looked for
SMALLEST = 0.002  # share of a picture that such a thing covers
RECENT = 6
CLEAR = 0.4  # share of a place that a thing covers, from which on the place is asked about it
SEEN = 0.35  # tokens that a thing covers, from which on it is taken as shown
NUMBERS = 20  # of things of a picture, with the ground; cells have at most 18
SCALE = 10.0  # logit of a thing whose tokens have a cosine of 1
UNKNOWN = -1  # kind of ground's outline
NOTHING = 6.0  # logit of ground
OTHERS = -2.0  # added to the logits of things of other scenes
# Weights of how far features move from where they were: memory's part may, the rest and the finer ones shall not.
OUTSIDE, FINER, INSIDE = 0.9, 0.6, 0.015
POOLED, BY_TOKEN, KEPT = 1.0, 0.7, 0.35  # weights of what says the kind of an outline


@dataclass(frozen=True)
class Kind:
    """Pictures of one step: their side, that at which they are drawn, the frames of a clip, and whether they are line-ups."""

    side: int
    drawn: int
    frames: int
    lineup: bool = False

    @classmethod
    def at(cls, step: int, clips: float, lineups: float) -> Kind:
        """Return the kind of a step: most pictures are enlarged, as small ones are in use; a share are clips."""
        rng = np.random.default_rng((step, 5))
        frames, kind = 3 if rng.random() < clips else 1, rng.random()
        side, drawn = (384, 256) if kind < 0.6 else (384, 384) if kind < 0.72 else (256, 256)
        if rng.random() < lineups:
            return cls(256 if kind < 0.75 else 384, 256, 1, True)
        return cls(side, drawn, frames)

    def count(self, pairs: int) -> int:
        """Return the number of scenes that take as long as `pairs` of a single frame at side 256."""
        return max(2, round(pairs * (256 / self.side) ** 2 * (0.45 if self.frames > 1 else 1)))


@dataclass(frozen=True)
class Drawing:
    """What is drawn.

    Attributes
    ----------
    pairs, clips, lineups
        As the program is told.
    skipped
        Steps whose scenes other runs have drawn.
    seed
        Of what is asked.
    share
        Of processes that train together: which one this is, of how many.
    """

    pairs: int
    clips: float
    lineups: tuple[float, float]
    skipped: int
    seed: int
    share: tuple[int, int] = (0, 1)

    def draw(self, step: int, stage: int) -> Arrays:
        """Draw the pictures of one step and what is asked of them."""
        return self.asked(self.scenes(step, stage), step)

    def scenes(self, step: int, stage: int) -> Arrays:
        """Return what the scenes of one step show.

        Returns
        -------
        dict
            `pictures` (N, 1 + T, H, W, 3) uint8; `things` (N, 1 + T, h, w) uint8 at the side asked for; and of line-ups
            `kinds` (N, 10) int64, of each number of a thing the place of its outline's kind in `scenes.KINDS`, -1 of ground.
        """
        step += FIRST + self.skipped
        kind, (place, processes) = Kind.at(step, self.clips if stage else 0, self.lineups[stage]), self.share
        count = min(kind.count(self.pairs), feed.SEEDS_A_STEP // processes)
        first, config = step * feed.SEEDS_A_STEP + place * count, replace(SCENE, side=kind.drawn)
        seeds, more = range(first, first + count), {}
        if kind.lineup:
            lineups = [scenes.make_lineup(config, seed) for seed in seeds]
            drawn = [(pictures, ids) for pictures, ids, _ in lineups]
            more = {"kinds": np.stack([kinds for _, _, kinds in lineups])}
        else:
            drawn = [scenes.make_shared(config, seed, kind.frames) for seed in seeds]
        things = np.stack([ids for _, ids in drawn])
        if kind.side != kind.drawn:
            middle = (np.arange(kind.side) * kind.drawn) // kind.side
            things = things[..., middle[:, None], middle]
        return {"pictures": np.stack([pictures for pictures, _ in drawn]), "things": things} | more

    def asked(self, batch: Arrays, step: int) -> Arrays:
        """Return scenes with up to three of their things to be clicked on and found.

        Returns
        -------
        dict
            What `scenes` returns, and of M things: rows (M,), their scenes; asked (M,) bool, all true here; points (M, 3, 2)
            and labels (M, 3), of which `count` (M,) hold; truth (M, 1 + T, h / 4, w / 4) uint8, pixels of 16 that show
            them; present and sure (M, T) bool, whether a frame of the clip shows them and whether that is clear.
        """
        rng = np.random.default_rng((self.seed, FIRST + self.skipped + step, self.share[0]))
        things = batch["things"]
        wanted = [(row, number) for row in range(len(things)) for number in large(things[row, 0], rng)]
        masks = np.zeros((len(wanted), *things.shape[1:]), bool)
        for mask, (row, number) in zip(masks, wanted):
            mask[...] = things[row] == number
        points, labels, count = prompts.draw_prompts(masks[:, 0], rng)
        present, sure = prompts.in_view(masks[:, 1:].mean((2, 3)))
        return batch | {
            "rows": np.array([row for row, _ in wanted], np.int64),
            "asked": np.ones(len(wanted), bool),
            "points": points,
            "labels": labels,
            "count": count,
            "truth": prompts.covered(masks),
            "present": present,
            "sure": sure,
        }


def large(things: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the numbers of some things that are large enough in a picture to be clicked on."""
    areas = np.bincount(things.ravel(), minlength=2)
    numbers = 1 + np.flatnonzero(areas[1:] >= SMALLEST * things.size)
    return rng.permutation(numbers)[:OBJECTS]


def shares(things: Tensor, size: int, numbers: int = NUMBERS) -> Tensor:
    """(N, H, W) numbers of things to (N, K, size, size), the share of each place that each of K covers, ground first."""
    each = things[:, None] == torch.arange(numbers, device=things.device)[:, None, None]
    return functional.adaptive_avg_pool2d(each.float(), size)


def likeness_loss(known: Tensor, known_shares: Tensor, seen: Tensor, seen_shares: Tensor) -> Tensor:
    """Return how badly the tokens of one picture say which thing of another picture they are.

    Parameters
    ----------
    known, seen : Tensor, shape (N, D, h, w)
        Tokens of length one of the picture whose things are known, and of the one that is asked.
    known_shares, seen_shares : Tensor, shape (N, K, h, w)
        What `shares` gives.

    Returns
    -------
    Tensor, shape ()
        A cross entropy, in which every thing counts alike and ground as two. What is not in the known picture is
        ground there, and so are the things of other scenes.
    """
    count, kinds = known_shares.shape[:2]
    known_shares, seen_shares, tokens = known_shares.flatten(2), seen_shares.flatten(2), seen.flatten(2)
    means = functional.normalize(known_shares @ known.flatten(2).transpose(1, 2), dim=2)  # (N, K, D)
    shown = known_shares.sum(2) > SEEN
    shown[:, 0] = False
    logits = (SCALE * means @ tokens).masked_fill(~shown[:, :, None], -1e4)
    scene = torch.arange(count, device=seen.device).repeat_interleave(kinds)
    # all of them, and those that are not shown without weight: a GPU would wait for their number
    others = SCALE * torch.einsum("md,ndp->nmp", means.flatten(0, 1), tokens)
    own = scene == torch.arange(count, device=seen.device)[:, None]
    others = others.masked_fill((own | ~shown.flatten())[:, :, None], -1e4)
    nothing = torch.cat((others + OTHERS, torch.full_like(others[:, :1], NOTHING)), 1).logsumexp(
        1, keepdim=True
    )
    spoken = torch.cat((nothing, logits[:, 1:]), 1).log_softmax(1)
    unknown = ~shown[:, :, None]
    unknown[:, 0] = False
    truth = seen_shares.masked_fill(unknown, 0)
    truth[:, 0] += (seen_shares * unknown).sum(1)
    weight = seen_shares / seen_shares.sum(2, keepdim=True).clamp(min=2)
    weight[:, 0] *= 2
    weight = weight.sum(1)
    return -((truth * spoken).sum(1) * weight).sum() / weight.sum()


def memory_part(sam: Sam2) -> Tensor:
    """Return the map (3/4 mem_dim, d_model) from features to what memory keeps of them, without gradients."""
    encoder = sam.memory_encoder
    kept = encoder.out_proj.weight.shape[0] * 3 // 4
    return (encoder.out_proj.weight[:kept, :, 0, 0] @ encoder.pix_feat_proj.weight[..., 0, 0]).detach()


def kept_tokens(sam: Sam2, embedding: Tensor) -> Tensor:
    """Features (N, T, D, h, w) to what memory keeps of them, less its mean, as tokens of length one, on axis 2."""
    tokens = torch.einsum("ed,ntdhw->ntehw", memory_part(sam), embedding.float())
    return functional.normalize(tokens - tokens.mean((0, 1, 3, 4), keepdim=True), dim=2)


def likeness(sam: Sam2, embedding: Tensor, things: Tensor, numbers: int = NUMBERS) -> Tensor:
    """Return the loss between the first two pictures of each scene, both ways.

    The embedding is (N, 1 + T, D, h, w), the numbers of things, below `numbers`, (N, 1 + T, H, W).
    """
    tokens, things = kept_tokens(sam, embedding[:, :2]), things[:, :2]
    there = shares(things.flatten(0, 1), tokens.shape[-1], numbers).unflatten(0, things.shape[:2])
    ways = ((0, 1), (1, 0))
    losses = [likeness_loss(tokens[:, a], there[:, a], tokens[:, b], there[:, b]) for a, b in ways]
    return torch.stack(losses).mean()


def unlike(said: Tensor, kinds: Tensor) -> Tensor:
    """(N, M, C) logits and (N, M) kinds to cross entropies (N, M), zero where the kind is unknown."""
    return functional.cross_entropy(said.transpose(1, 2), kinds, reduction="none", ignore_index=UNKNOWN)


class Starter(train.Starter):
    """The model with what says from its features, in training alone, of which kind an outline is."""

    def __init__(self) -> None:
        super().__init__()
        kinds, wide = len(scenes.KINDS), train.STARTER.d_model
        self.by_token = nn.Sequential(nn.Linear(wide, wide), nn.GELU(), nn.Linear(wide, kinds))
        self.pooled = nn.Sequential(nn.Linear(2 * wide, wide), nn.GELU(), nn.Linear(wide, kinds))
        self.kept = nn.Linear(train.STARTER.mem_dim * 3 // 4, kinds)
        for last in (self.by_token[2], self.pooled[2], self.kept):
            # as of the read-out: what knows nothing must not teach the features
            nn.init.zeros_(last.weight)

    def outlines(self, losses: train.Losses, embedding: Tensor, things: Tensor, kinds: Tensor) -> None:
        """Add how badly the kinds of outlines are said: from each place, from what memory keeps of it, and from a whole thing.

        Parameters
        ----------
        embedding : Tensor, shape (N, D, h, w)
            Features of pictures.
        things : Tensor, shape (N, H, W)
            Numbers of things.
        kinds : Tensor, shape (N, K), int64
            Of each number the kind of the outline, -1 of ground.
        """
        there = shares(things, embedding.shape[-1], kinds.shape[1])[:, 1:].flatten(2)
        kinds, area, tokens = kinds[:, 1:], there.sum(2), embedding.float().flatten(2).transpose(1, 2)
        most, thing = there.max(1)
        mine = kinds.gather(1, thing).masked_fill(most < CLEAR, UNKNOWN)
        weight = (mine != UNKNOWN) / area.gather(1, thing).clamp(min=2)
        weight = weight / weight.sum().clamp(min=1e-6)
        kept = 8 * functional.normalize(tokens @ memory_part(self.sam).T, dim=2)
        for name, said, much in (
            ("outline", self.by_token(tokens), BY_TOKEN),
            ("outline_kept", self.kept(kept), KEPT),
        ):
            losses.add(name, (unlike(said, mine) * weight).sum(), much)
        whole = area.clamp(min=1)[..., None]
        mean = there @ tokens / whole
        spread = (there @ tokens**2 / whole - mean**2).clamp(min=1e-4).sqrt()
        truth = kinds.masked_fill(area <= 1, UNKNOWN)
        said, count = self.pooled(torch.cat((mean, spread), 2)), (truth != UNKNOWN).sum().clamp(min=1)
        losses.add("outline_whole", unlike(said, truth).sum() / count, POOLED)
        losses.figures["outline_right"] = (said.argmax(2) == truth).sum() / count


Features = tuple[Tensor, tuple[Tensor, Tensor]]


class Before:
    """The model that a run began with, and the part of features that memory keeps while the encoder learns alone.

    Parameters
    ----------
    start
        Exported weights.
    device
        Where the model computes.
    """

    def __init__(self, start: Path, device: torch.device) -> None:
        model = train.Starter()
        train.load_exported(model, start)
        self.sam = model.sam.requires_grad_(False).to(device)
        self.basis = torch.linalg.qr(memory_part(model.sam).T)[0]


def change_loss(basis: Tensor, now: Features, before: Features) -> Tensor:
    """Return how far features have moved, relative to their variance: little may what memory does not keep.

    The basis (d_model, 3/4 mem_dim) is of what it keeps.
    """
    kept = [torch.einsum("ndhw,de,fe->nfhw", each[0].float(), basis, basis) for each in (now, before)]
    pairs = [(now[0] - kept[0], before[0] - kept[1]), *zip(now[1], before[1]), (kept[0], kept[1])]
    moved = [((a.float() - b.float()) ** 2).mean() / b.float().var((0, 2, 3)).mean() for a, b in pairs]
    return torch.stack([weight * each for weight, each in zip((OUTSIDE, FINER, FINER, INSIDE), moved)]).sum()


def found_losses(
    losses: train.Losses, model: train.Starter, batch: dict[str, Tensor], features: Features,
    groups: train.Groups,
) -> None:  # fmt: skip
    """Add the losses of clicking on things of each first picture and of finding them in the clip.

    The features are those of all pictures, (N, 1 + T, ...); the batch is that of `Drawing.asked`.
    """
    sam, rows, truth = model.sam, batch["rows"], batch["truth"]
    if not len(rows):
        return
    everything = torch.ones(len(rows), 1, dtype=torch.bool, device=rows.device)
    asking = {key: batch[key] for key in ("points", "labels", "asked")} | {"target": truth[:, 0]}
    sought = {"own": everything, **{key: batch[key] for key in ("truth", "present", "sure")}}
    embedding, finer = features[0][rows], tuple(x[rows] for x in features[1])
    first = tuple(x[:, 0] for x in finer)
    prompted = train.prompt_losses(losses, sam, embedding[:, 0], first, asking, groups)
    state = train.remember_priors(sam, sought, 0.3, embedding[:, :1], prompted)
    frames = embedding.shape[1] - 1
    recent, alone = (RECENT, 1) if frames > 1 else (0, None)
    rest = tuple(x[:, 1:] for x in finer)
    train.tracked_losses(
        losses, model, sought, slice(0, frames), state, embedding[:, 1:], rest, recent, alone
    )


def step_losses(
    model: Starter, before: Before | None, batch: dict[str, Tensor], groups: train.Groups,
    bfloat16: bool,
) -> train.Losses:  # fmt: skip
    """Return the losses of some scenes; with the model that the run began with, those of the encoder alone.

    `groups` says which of the things that are looked for have how many points.
    """
    sam, things = model.sam, batch["things"]
    device, side, shape = things.device, train.FINE * batch["truth"].shape[-1], things.shape[:2]
    losses = train.Losses(torch.zeros((), device=device), {})
    rounded = torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)
    with rounded:
        pixels = train.to_pixels(batch["pictures"], side)
        embedding, finer = sam.image_features(pixels)
    numbers = batch["kinds"].shape[1] if "kinds" in batch else NUMBERS
    losses.add("likeness", likeness(sam, embedding.unflatten(0, shape), things, numbers))
    if "kinds" in batch:
        of_each = batch["kinds"].repeat_interleave(shape[1], 0)
        model.outlines(losses, embedding, things.flatten(0, 1), of_each)
    if before is None:
        features = embedding.unflatten(0, shape), tuple(x.unflatten(0, shape) for x in finer)
        with rounded:
            found_losses(losses, model, batch, features, groups)
        return losses
    some = slice(max(2, len(pixels) // 4))
    with torch.no_grad(), rounded:
        was = before.sam.image_features(pixels[some])
    losses.add("change", change_loss(before.basis, (embedding[some], tuple(x[some] for x in finer)), was))
    return losses


def learn_alone(model: Starter, alone: bool) -> None:
    """Let the encoder learn, and the rest too unless it is alone."""
    model.requires_grad_(not alone)
    for part in (*train.encoder_of(model.sam), model.by_token, model.pooled, model.kept):
        part.requires_grad_(True)


def fit(args: argparse.Namespace, place: int, processes: int) -> None:
    """Train as one of some processes; the first writes the log and the state, as `train.py` does."""
    course = train.Course.start(args, place, make=Starter)
    clock, model, optimisers = course.clock, course.model, course.optimisers
    device = model.readout.weight.device
    before = Before(args.start, device)
    drawing = Drawing(args.pairs, args.clips, tuple(args.lineups), args.skip, args.seed, (place, processes))
    with train.stoppable() as asked_to_stop:
        while True:
            share, go_on = train.agree(clock.share(), clock.share() < 1 and not asked_to_stop)
            if not go_on:
                break
            alone = share < args.alone
            batch = drawing.draw(clock.step, int(not alone))
            learn_alone(model, alone)
            rng = np.random.default_rng((args.seed, FIRST + args.skip + clock.step, place, 1))
            torch.manual_seed(int(rng.integers(2**31)))
            groups = train.by_count(batch["count"], rng, device)
            train.set_rate(
                optimisers, train.learning_rate(share, clock.step - course.first, args.lr, warm_up=30)
            )
            model.zero_grad(set_to_none=True)
            here = train.to_device(batch, device)
            losses = step_losses(model, before if alone else None, here, groups, args.bfloat16)
            losses.total.backward()
            losses.figures["norm"] = train.change(model, optimisers)
            course.add(losses.figures)
    course.end()


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of log and state")
    parser.add_argument("--start", type=Path, required=True, help="exported weights to begin from")
    train.offer_softening(parser)
    parser.add_argument("--minutes", type=float, help="length of the whole run, all calls together")
    parser.add_argument(
        "--steps", type=int, default=1000, help="the same in steps, where no minutes are given"
    )
    parser.add_argument(
        "--alone", type=float, default=0.3, help="share of the run that trains the encoder by itself"
    )
    parser.add_argument(
        "--clips", type=float, default=0.5, help="share of the other steps that show clips of three frames"
    )
    parser.add_argument(
        "--lineups", type=float, nargs=2, default=(0.6, 0.2), metavar=("ALONE", "ALL"),
        help="share of line-ups, while the encoder trains by itself and later",
    )  # fmt: skip
    parser.add_argument("--pairs", type=int, default=10, help="scenes of a step and process, at side 256")
    parser.add_argument(
        "--skip", type=int, default=0, help="steps whose scenes another run has drawn already"
    )
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--average", type=float, default=0.99)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=20, help="steps between lines of the log")
    parser.add_argument("--keep", type=float, default=3, help="minutes between saved states")
    parser.add_argument("--bfloat16", action="store_true", help="slower on a CPU without bfloat16 units")
    return parser.parse_args(words)


if __name__ == "__main__":
    train.in_processes(fit, parse())
