"""Train the starter: a small SAM 2.1 of our own, on procedurally drawn scenes.

One step takes a batch of examples. Each has one to three prior pictures and a clip, and is used in three ways:

1. one thing of each picture is segmented from points, a box or both, some of them with corrective clicks;
2. each frame of the clip is decoded with the prior's memories alone;
3. later in training, each frame once more with the memories of the frames before it as well.

All frames go through the encoder together, and 2 is batched over frames, so a step costs little more
than encoding its pictures. Long clips are taken a few frames at a time: what is remembered goes on from one
part to the next, gradients do not. Two helpers keep the memory path from staying at chance: a loss on the
encoder's tokens (those of the object in the clip shall resemble those in the prior) and a linear read-out of
the object from the conditioned features. Neither is in the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import feed
import numpy as np
import scenes
import torch
from muon import Muon
from prompts import COARSE, FINE
from safetensors.torch import load_file
from torch import Tensor, distributed, nn
from torch.nn import functional

from napari_samexp.sam.features import mean_and_deviation
from napari_samexp.sam.mask_decoder import Decoded
from napari_samexp.sam.models import PRIOR_SLOT, Sam2
from napari_samexp.sam.prompt_encoder import NO_POINT
from napari_samexp.sam.variants import MAX_POINTERS, Sam2Variant

STARTER = Sam2Variant(
    name="starter",
    version="2.1",
    embed_dim=40,
    num_heads=1,
    stages=(1, 2, 4, 1),
    global_blocks=(5, 6),
    window_spec=(8, 4, 8, 4),
    image_size=384,
    d_model=128,
    mem_dim=32,
    mem_ff=256,
    mem_layers=2,
    mlp_dim=256,
    iou_hidden=64,
)


@dataclass(frozen=True)
class Stage:
    """A part of the training; it runs until `until`, a share of all steps or of the time."""

    until: float
    scene: scenes.SceneConfig
    batch: int  # examples with a prior and four frames at the scene's side; fewer of longer or larger ones
    true_memory: float  # share of examples whose true mask is remembered, not the predicted one
    recent: tuple[int, ...] = (0,)  # memories of earlier frames, one of these numbers a step; 0: prior alone
    lengths: tuple[int, ...] = (4,)  # frames of a clip, one of these numbers a step
    priors: tuple[int, ...] = (1,)  # prior pictures, one of these numbers a step
    part: int = 4  # frames between which gradients flow
    sides: tuple[int, ...] = ()  # sides of the pictures, one a step; empty for the scene's own
    soft: float = 0.0  # share of the steps whose pictures are enlarged from two thirds of their side

    def at(self, step: int, factor: float = 1) -> tuple[scenes.SceneConfig, int]:
        """Return what the scenes of one step look like and how many there are."""
        rng = np.random.default_rng((step, 11))
        frames, priors = int(rng.choice(self.lengths)), int(rng.choice(self.priors))
        side = int(rng.choice(self.sides or (self.scene.side,)))
        pixels = (side / self.scene.side) ** 2
        at_once = min(frames, 2 * self.part) + priors  # a longer clip takes more time, but no more memory
        count = max(2, round(self.batch * factor * 5 / at_once / pixels))
        return replace(self.scene, frames=frames, priors=priors, side=side), min(count, feed.SEEDS_A_STEP)


def stages(
    side: int | None = None, long_from: float = 0.75, longest: int = 24, soft: float = 0.0
) -> list[Stage]:
    """Return the recipe: from small motions of the prior's own scene to unrelated, crowded pictures and long clips.

    `side` replaces the side of the pictures of every stage; `long_from` is the share of the run from which clips are
    long, and `longest` how long they may be; `soft` is the share of the steps whose pictures come from smaller ones.
    """
    calm = scenes.SceneConfig(side=128, small=0.0, hiding=0.0, leaving=0.0, deform=0.0, effects=0.3)
    easy = replace(calm, distractors=(1, 2), unrelated=0.5, absent=0.05, occlusion=0.1, appearance=0.3,
                   hard=0.0, scale=(0.2, 0.55))  # fmt: skip
    middle = replace(easy, distractors=(1, 3), unrelated=0.9, absent=0.08, appearance=0.6, hard=0.1,
                     scale=(0.15, 0.5), deform=0.5, effects=0.6)  # fmt: skip
    # more cells than where it is measured, since look-alike ones are the hardest to follow
    full = scenes.SceneConfig(side=192, unrelated=0.85, microscopy=0.3, halos=0.5)
    # and absent twice as often: what is not there is the harder thing to say
    harder = replace(full, absent=0.25, hard=0.4)
    recipe = [
        Stage(0.08, easy, 16, true_memory=1.0, lengths=(2,)),
        Stage(0.22, middle, 12, true_memory=0.7, lengths=(3,)),
        Stage(long_from, harder, 10, true_memory=0.3, recent=(0, 1, 3), priors=(1, 1, 1, 2),
              sides=(128, 128, 128, 192)),
        Stage((long_from + 1) / 2, harder, 10, true_memory=0.2, recent=(2, 4, 6), lengths=(4, 8, 16), priors=(1, 1, 1, 1, 2, 3),
              sides=(128, 192, 256)),
        Stage(1.01, replace(full, side=256), 6, true_memory=0.2, recent=(2, 4, 6), lengths=(4, 8, 16, 24),
              priors=(1, 1, 1, 1, 2, 3)),
    ]  # fmt: skip
    if side:
        recipe = [replace(stage, scene=replace(stage.scene, side=side), sides=()) for stage in recipe]
    return [
        replace(stage, soft=soft, lengths=tuple(n for n in stage.lengths if n <= longest)) for stage in recipe
    ]


SHARPNESS = 0.1  # difference of predicted IoU at which one mask is clearly taken before another
Groups = list[tuple[int, Tensor]]  # numbers of points, each with the pictures that have so many


# ---------------------------------------------------------------------------------------- the model


class Starter(nn.Module):
    """The model and the two read-outs that only training has."""

    def __init__(self) -> None:
        super().__init__()
        self.sam = Sam2(STARTER)
        self.readout = nn.Linear(STARTER.d_model, 1)
        self.token_scale = nn.Parameter(torch.tensor([8.0, -3.0]))


def initialise(model: Starter, seed: int) -> None:
    """Set the weights that torch's own defaults leave at zero or too large, and pre-wire the memory."""
    torch.manual_seed(seed)
    for name, value in model.sam.named_parameters():
        if any(part in name for part in ("pos_embed", "tpos_enc", "no_mem", "no_obj")):
            nn.init.trunc_normal_(value, std=0.05)
        elif name.endswith("gamma"):
            nn.init.constant_(value, 0.1)
        elif name.endswith("bias") and value.ndim == 1 and "norm" not in name:
            nn.init.zeros_(value)
    wire_memory(model.sam)


@torch.no_grad()
def wire_memory(sam: Sam2, gain: float = 6.0) -> None:
    """Let cross attention begin as a comparison of appearance.

    Keys keep a random projection of the frame's features and queries use the same one, in channels
    that the rotary encoding hardly turns; so a token of the object looks at tokens like itself
    wherever they are, which random weights take very long to find.
    """
    dim, mem = sam.variant.d_model, sam.variant.mem_dim
    kept = mem * 3 // 4
    basis = torch.linalg.qr(torch.randn(dim, dim))[0]
    encoder = sam.memory_encoder
    encoder.pix_feat_proj.weight.copy_(torch.eye(dim)[..., None, None])
    encoder.out_proj.weight[:kept] = basis[:kept, :, None, None]
    slow = torch.cat([torch.arange(dim // 4, dim // 2), torch.arange(dim * 3 // 4, dim)])
    spread = torch.linalg.qr(torch.randn(len(slow), kept))[0]
    for layer in sam.memory_attention.layers:
        attention = layer.cross_attn_image
        attention.q_proj.weight.mul_(0.1)
        attention.k_proj.weight.mul_(0.1)
        attention.k_proj.weight[slow] = torch.cat((spread, torch.zeros(len(slow), mem - kept)), 1)
        attention.q_proj.weight[slow] = gain * spread @ basis[:kept]


# ------------------------------------------------------------------------------------------- losses


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """(..., h, w) logits and soft targets to (...) losses: cross entropy and soft Dice."""
    bce = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((-2, -1))
    p = logits.sigmoid()
    dice = 1 - (2 * (p * target).sum((-2, -1)) + 1) / (p.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    return 3 * bce + dice


def overlap(logits: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of thresholded masks, (..., h, w) to (...)."""
    a, b = logits > 0, target > 0.5
    union = (a | b).sum((-2, -1))
    return torch.where(union > 0, (a & b).sum((-2, -1)) / union.clamp(min=1), 1.0)


def choice_loss(iou: Tensor, truth: Tensor) -> Tensor:
    """(N, 4) predicted and true IoU to (N,): what taking one of the masks from the second on gives away.

    An error of the predicted IoU matters most where it changes which mask is taken.
    """
    taken = ((iou[:, 1:] / SHARPNESS).softmax(1) * truth[:, 1:]).sum(1)
    return truth[:, 1:].amax(1) - taken


@dataclass
class Losses:
    """A sum of losses and the figures worth a line in the log, which stay on the device until one is written."""

    total: Tensor
    figures: dict[str, Tensor]

    def add(self, name: str, loss: Tensor, weight: float = 1.0) -> None:
        self.total = self.total + weight * loss
        self.figures[name] = loss.detach()


def decoded_loss(
    losses: Losses,
    name: str,
    decoded: Decoded,
    target: Tensor,
    present: Tensor,
    sure: Tensor,
    weight: float = 1.0,
) -> None:
    """Add the losses of N decoded prompts.

    Presence is asked where it is `sure`, or, of clicks, nowhere: what is clicked on is there.
    """
    masks, iou, presence = decoded.masks.float(), decoded.iou.float(), decoded.presence.float()
    each = mask_loss(masks, target[:, None].expand_as(masks))
    best = each[:, 1:].min(dim=1).values
    rows = torch.arange(len(masks), device=masks.device)
    trusted = 1 + iou[:, 1:].argmax(1)
    # inference takes the first mask of prompts that say enough, and one of the others elsewhere
    plain = name in ("click_2", "click_3")
    several = 0.7 * best + 0.5 * each[rows, trusted]  # the better of three, and the one that will be taken
    per_item = (
        (1.2 if plain else 0.2) * each[:, 0] + (0.35 if plain else 1) * several + 0.1 * each[:, 1:].mean(1)
    )
    shown = present.float()
    total = shown.sum().clamp(min=1)
    losses.add(f"{name}_mask", (per_item * shown).sum() / total, weight)
    truth = overlap(masks.detach(), target[:, None].expand_as(masks))
    losses.add(f"{name}_iou", ((iou - truth).abs().mean(1) * shown).sum() / total, 0.8 * weight)
    if not plain:
        losses.add(f"{name}_choice", (choice_loss(iou, truth) * shown).sum() / total, 0.5 * weight)
    if name.startswith("click"):
        losses.add(f"{name}_presence", functional.softplus(-presence).mean(), 0.3 * weight)
    else:
        asked = functional.binary_cross_entropy_with_logits(presence, shown, sure.float(), reduction="sum")
        losses.add(f"{name}_presence", asked / sure.sum().clamp(min=1), 0.4 * weight)
        right = ((presence > 0) == present) & sure
        losses.figures[f"{name}_presence_right"] = right.sum() / sure.sum().clamp(min=1)
    choice = torch.zeros_like(rows) if plain else trusted
    losses.figures[f"{name}_J"] = (truth[rows, choice] * shown).sum() / total
    losses.figures[f"{name}_iou_error"] = ((iou - truth)[rows, choice].detach().abs() * shown).sum() / total


# -------------------------------------------------------------------------------------------- steps


def to_pixels(images: Tensor, side: int) -> Tensor:
    """(..., H, W, 3) uint8 to (N, 3, side, side) normalised, as `prepare` does."""
    x = images.flatten(0, -4).permute(0, 3, 1, 2).float() / 255
    mean, std = mean_and_deviation(x.device)
    x = (x - mean) / std
    if x.shape[2] == side:
        return x
    return functional.interpolate(x, (side, side), mode="bilinear", align_corners=False)


def softened(images: Tensor) -> Tensor:
    """Return pictures (..., H, W, 3) uint8 as if they had been enlarged from two thirds of their side.

    A model meets many pictures that are smaller than its encode side.
    """
    height, width = images.shape[-3:-1]
    x = images.flatten(0, -4).permute(0, 3, 1, 2).float()
    small = functional.interpolate(x, (height * 2 // 3, width * 2 // 3), mode="bilinear", antialias=True)
    large = functional.interpolate(small, (height, width), mode="bilinear", align_corners=False)
    return large.round().clamp(0, 255).byte().permute(0, 2, 3, 1).reshape(images.shape)


def to_device(batch: Mapping[str, Tensor | np.ndarray], device: torch.device) -> dict[str, Tensor]:
    """Copy a batch to the device."""
    pinned = device.type == "cuda"
    arrays = {name: torch.as_tensor(array) for name, array in batch.items()}
    return {
        name: (array.pin_memory() if pinned else array).to(device, non_blocking=pinned)
        for name, array in arrays.items()
    }


def shares(covered: Tensor, coarser: int = FINE) -> Tensor:
    """(N, h, w) pixels of each 4 x 4 that are covered to covered shares, on a grid of `coarser` pixels."""
    whole = covered.float() / FINE**2
    return whole if coarser == FINE else functional.avg_pool2d(whole[:, None], coarser // FINE)[:, 0]


def corrective(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return a click (N, 1, 2) and its label (N, 1) in the middle of the largest error of each mask.

    Logits and target are (N, h, w); the click is in input pixels, four times as fine.
    """
    mask, truth = logits > 0, target > 0.5
    wrong = torch.stack((~truth & mask, truth & ~mask), 1).float()
    depth = functional.avg_pool2d(wrong, 5, 1, 2) + 0.01 * torch.rand_like(wrong)
    where = (depth * wrong + 1e-3 * wrong).flatten(1).argmax(1)
    height, width = mask.shape[1:]
    label, place = where // (height * width), where % (height * width)
    xy = torch.stack((place % width, place // width), 1) * 4 + 1.5
    nothing = wrong.flatten(1).sum(1) == 0  # any point inside will do then
    inside = torch.where(truth.flatten(1), torch.rand_like(truth.flatten(1), dtype=torch.float32), -1).argmax(
        1
    )
    other = torch.stack((inside % width, inside // width), 1) * 4 + 1.5
    return torch.where(nothing[:, None], other, xy)[:, None], torch.where(nothing, 1, label)[:, None]


@dataclass
class Prompted:
    """What the last prompt of each of N pictures gave: the mask that a user would keep, and its pointer."""

    logits: Tensor
    pointer: Tensor


def prompt_losses(
    losses: Losses, sam: Sam2, embedding: Tensor, finer: tuple[Tensor, ...], asking: dict[str, Tensor],
    groups: Groups,
) -> Prompted:  # fmt: skip
    """Segment N pictures, those with equally many points together, since padding would be seen.

    `asking` holds `points` (N, 3, 2), `labels` (N, 3), `target` (N, h, w) and `asked` (N,) of
    `prompts.with_prompts`.
    """
    device, target, ask = embedding.device, shares(asking["target"]), asking["asked"]
    side = FINE * target.shape[1]
    base = embedding + sam.no_mem_embed.transpose(1, 2)[..., None]
    kept = Prompted(torch.zeros_like(target), embedding.new_zeros(len(target), embedding.shape[1]).float())

    def decode(rows: Tensor, points: Tensor, labels: Tensor, earlier: Tensor | None, weight: float) -> Tensor:
        dense = sam.sam_prompt_encoder.dense(None)
        if earlier is not None:  # shown to three of ten
            given = torch.rand(len(rows), 1, 1, 1, device=device) < 0.3
            dense = torch.where(given, sam.sam_prompt_encoder.dense(earlier), dense)
        none = labels.new_full((len(rows), 1), NO_POINT)
        sparse = sam.sam_prompt_encoder.sparse(
            torch.cat((points, points.new_zeros(len(rows), 1, 2)), 1),
            torch.cat((labels, none), 1),
            (side, side),
        )
        decoded = sam.decode(base[rows], (finer[0][rows], finer[1][rows]), sparse, dense)
        single = labels.shape[1] == 1
        name = "click_1" if single else "click_3" if labels.shape[1] == 3 else "click_2"
        decoded_loss(losses, name, decoded, target[rows], ask[rows], ask[rows], weight)
        every = torch.arange(len(rows), device=device)
        choice = 1 + decoded.iou[:, 1:].argmax(1) if single else torch.zeros_like(every)
        kept.logits[rows] = decoded.masks[every, choice].detach().float()
        kept.pointer = kept.pointer.index_put((rows,), sam.pointers(decoded)[every, choice].float())
        return kept.logits[rows]

    for count, rows in groups:
        points, labels = asking["points"][rows, :count], asking["labels"][rows, :count]
        share = len(rows) / len(target)
        logits = decode(rows, points, labels, None, share)
        half = len(rows) // 2  # of the single clicks, in the order of chance, is corrected, twice
        if count > 1 or not half:
            continue
        rows, points, labels, logits = rows[:half], points[:half], labels[:half], logits[:half]
        for _ in range(2):
            more, kind = corrective(logits, target[rows])
            points, labels = torch.cat((points, more), 1), torch.cat((labels, kind), 1)
            logits = decode(rows, points, labels, logits[:, None], 0.5 * share)
    return kept


def by_count(counts: np.ndarray, rng: np.random.Generator, device: torch.device) -> Groups:
    """Return the places of one, two and three in an array, each in the order of chance, where there are any."""
    places = [(count, rng.permutation(np.flatnonzero(counts == count))) for count in (1, 2, 3)]
    return [(count, torch.from_numpy(mine).to(device)) for count, mine in places if len(mine)]


@dataclass
class Remembered:
    """What goes on from one part of a clip to the next: the prior, and the last frames that showed the object.

    Parameters
    ----------
    spatial : list of P Tensors, each of shape (B, mem_dim, h, w)
    pointers : Tensor, shape (B, P, D)
    token : Tensor, shape (B, D)
        The mean of the encoder's tokens of the object in the prior.
    past : list of (spatial (B, mem_dim, h, w), pointer (B, D), kept (B,)), newest last
    """

    spatial: list[Tensor]
    pointers: Tensor
    token: Tensor
    past: list[tuple[Tensor, Tensor, Tensor]]

    def detached(self) -> Remembered:
        """Return the same without a way for gradients."""
        past = [(a.detach(), b.detach(), kept) for a, b, kept in self.past]
        spatial = [part.detach() for part in self.spatial]
        return Remembered(spatial, self.pointers.detach(), self.token.detach(), past)

    def bank(self, recent: int) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        """Return the arguments of `Sam2.recall` for the next frame.

        As in tracking, frames that lost the object are passed over. Examples with fewer memories than
        others look at the prior instead, so that all fit one batch.
        """
        count, device = len(self.pointers), self.pointers.device
        spatial, pointers = list(self.spatial), [self.pointers]
        slots = [torch.full((count, len(spatial)), PRIOR_SLOT, device=device)]
        times = [torch.ones(count, len(spatial), device=device)]
        if self.past and recent:
            kept = torch.stack([kept for *_, kept in self.past], 1)
            all_spatial = torch.stack([*(a for a, *_ in self.past), self.spatial[0]], 1)
            all_pointers = torch.stack([*(b for _, b, _ in self.past), self.pointers[:, 0]], 1)
            rank = kept.flip(1).cumsum(1).flip(1) * kept  # 1 for the newest that is kept
            rows = torch.arange(count, device=device)
            for k in range(1, min(recent, len(self.past)) + 1):
                there = (rank == k).any(1)
                place = torch.where(there, (rank == k).float().argmax(1), len(self.past))
                spatial.append(all_spatial[rows, place])
                pointers.append(all_pointers[rows, place][:, None])
                slots.append(torch.where(there, k - 1, PRIOR_SLOT)[:, None])
                back = (len(self.past) - place).clamp(1, MAX_POINTERS).float()
                times.append(torch.where(there, back, 1.0)[:, None])
        return spatial, torch.cat(slots, 1), torch.cat(pointers, 1), torch.cat(times, 1) / MAX_POINTERS


def encoder_of(sam: Sam2) -> tuple[nn.Module, ...]:
    """Return the modules that pictures are encoded with."""
    return sam.image_encoder, sam.sam_mask_decoder.conv_s0, sam.sam_mask_decoder.conv_s1


def freeze_encoder(sam: Sam2) -> None:
    """Keep what pictures are encoded with as it is: a clip's frames then cost a CPU half as much."""
    for module in encoder_of(sam):
        module.requires_grad_(False)


def is_frozen(sam: Sam2) -> bool:
    return not any(p.requires_grad for p in sam.image_encoder.parameters())


def in_pictures(frames: slice, priors: int, first: bool) -> slice:
    """Return which of a batch's pictures some frames are, with the prior pictures where the clip begins."""
    return slice(0 if first else frames.start + priors, frames.stop + priors)


def part_losses(
    model: Starter, batch: dict[str, Tensor], true_memory: float, frames: slice, state: Remembered | None,
    recent: int, groups: Groups,
) -> tuple[Losses, Remembered]:  # fmt: skip
    """Return the losses of some frames of a batch's clips and what is remembered after them.

    Without a state the clips begin, and the prior pictures are seen as well. `groups` says which of the seen
    pictures have how many points.
    """
    sam, device = model.sam, model.readout.weight.device
    before = batch["own"].shape[1]
    length, priors = frames.stop - frames.start, 0 if state else before
    seen = in_pictures(frames, before, state is None)
    part = {key: batch[key][:, seen] for key in ("pictures", "points", "labels", "target", "asked")}
    count, side = len(part["pictures"]), FINE * part["target"].shape[-1]
    with torch.set_grad_enabled(not is_frozen(sam)):
        embedding, finer = sam.image_features(to_pixels(part.pop("pictures"), side))
    losses = Losses(torch.zeros((), device=device), {})

    # 1. clicks on every picture
    asking = {key: value.flatten(0, 1) for key, value in part.items()}
    prompted = prompt_losses(losses, sam, embedding, finer, asking, groups)
    embedding = embedding.unflatten(0, (count, priors + length))
    fine = tuple(x.unflatten(0, (count, priors + length))[:, priors:] for x in finer)
    if state is None:
        state = remember_priors(sam, batch, true_memory, embedding[:, :priors], prompted)

    tracked_losses(losses, model, batch, frames, state, embedding[:, priors:], fine, recent)
    return losses, state


def tracked_losses(
    losses: Losses, model: Starter, batch: dict[str, Tensor], frames: slice, state: Remembered,
    embedding: Tensor, fine: tuple[Tensor, ...], recent: int, alone: int | None = None,
) -> None:  # fmt: skip
    """Add the losses of some encoded frames (B, T, ...) of a batch's clips, and their memories to the state.

    The first `alone` frames, or all, are also found with the prior's memories alone.
    """
    sam, side, before = model.sam, COARSE * embedding.shape[-1], batch["own"].shape[1]
    count, length = embedding.shape[:2]
    truth, present, sure = (
        batch["truth"][:, before:][:, frames],
        batch["present"][:, frames],
        batch["sure"][:, frames],
    )
    first = slice(0, length if alone is None else alone)
    tracked = None

    # 2. frames with the prior's memory alone
    if alone != 0:
        flat = embedding[:, first].flatten(0, 1)
        each = torch.arange(count, device=flat.device).repeat_interleave(len(flat) // count)
        bank = replace(state, past=[]).bank(0)
        recalled = sam.recall(flat, [memory[each] for memory in bank[0]], *(rest[each] for rest in bank[1:]))
        covered, there = truth[:, first].flatten(0, 1), present[:, first].flatten()
        tracked = decode_tracked(sam, recalled, tuple(x[:, first].flatten(0, 1) for x in fine), side)
        decoded_loss(losses, "track", tracked, shares(covered), there, sure[:, first].flatten())
        read, coarse = model.readout(recalled.permute(0, 2, 3, 1))[..., 0].float(), shares(covered, COARSE)
        shown = there.sum().clamp(min=1)
        losses.add("readout", (mask_loss(read, coarse) * there).sum() / shown, 0.5)
        alike = (functional.normalize(flat.float(), dim=1) * state.token[each][:, :, None, None]).sum(1)
        logits = alike * model.token_scale[0] + model.token_scale[1]
        losses.add("tokens", (mask_loss(logits, coarse) * there).sum() / shown, 0.4)

    # 3. one after the other, with the memories of those before
    if recent:
        target = shares(truth.flatten(0, 1))
        follow(
            losses, sam, embedding, fine, tracked, state, target, present.flatten(), sure.flatten(), recent
        )


def remember_priors(
    sam: Sam2, batch: dict[str, Tensor], true_memory: float, embedding: Tensor, prompted: Prompted
) -> Remembered:
    """Return the memories of the prior pictures (B, P, D, h, w), of a share of them with the true masks."""
    own, shape = batch["own"], batch["own"].shape
    covered = batch["truth"][:, : shape[1]].flatten(0, 1)
    truth = shares(covered) * 20 - 10
    # a click on another thing makes a memory of that other thing: only the true mask may be remembered then
    given = own & (torch.rand(shape, device=own.device) >= true_memory)
    logits, pointers = (
        x.unflatten(0, (shape[0], -1))[:, : shape[1]] for x in (prompted.logits, prompted.pointer)
    )
    logits = torch.where(given[..., None, None], logits, truth.unflatten(0, shape))
    pointers = torch.where(own[..., None], pointers, sam.no_obj_ptr)
    spatial = sam.encode_memory(
        embedding.flatten(0, 1), logits.flatten(0, 1)[:, None], truth.new_ones(len(truth)), binary=True
    ).unflatten(0, shape)
    share = shares(covered, COARSE).unflatten(0, shape)
    share = share / share.sum((1, 2, 3), keepdim=True).clamp(min=1e-3)
    token = (embedding.float() * share[:, :, None]).sum((1, 3, 4))
    return Remembered(list(spatial.unbind(1)), pointers, functional.normalize(token, dim=1), [])


def decode_tracked(sam: Sam2, recalled: Tensor, fine: tuple[Tensor, ...], side: int) -> Decoded:
    """Decode without a prompt, as `Sam2.track` does, keeping all choices."""
    nothing = torch.full((len(recalled), 2), NO_POINT, device=recalled.device)
    sparse = sam.sam_prompt_encoder.sparse(
        nothing[..., None].expand(-1, -1, 2).float(), nothing, (side, side)
    )
    return sam.decode(recalled, (fine[0], fine[1]), sparse, sam.sam_prompt_encoder.dense(None))


def follow(
    losses: Losses, sam: Sam2, embedding: Tensor, fine: tuple[Tensor, ...], alone: Decoded | None,
    state: Remembered, target: Tensor, present: Tensor, sure: Tensor, recent: int,
) -> None:  # fmt: skip
    """Track the frames (B, T, D, h, w) in their order and add their memories to the state.

    A clip's first frame has no past: what the prior alone gave (`alone`, of its first frames) holds for it.
    """
    count, length = embedding.shape[:2]
    side = 16 * embedding.shape[-1]
    rows = torch.arange(count, device=embedding.device)
    again, order = [], []
    for t in range(length):
        if state.past:
            recalled = sam.recall(embedding[:, t], *state.bank(recent))
            now = decode_tracked(sam, recalled, tuple(x[:, t] for x in fine), side)
            again.append(now)
            order.append(rows * length + t)
        else:
            assert alone is not None  # where a clip begins
            now = Decoded(*(part.unflatten(0, (count, -1))[:, t] for part in alone))
        best = 1 + now.iou[:, 1:].argmax(1)
        kept = now.presence.detach() > 0
        logits = torch.where(kept[:, None, None], now.masks[rows, best].float(), -1024.0)
        spatial = sam.encode_memory(
            embedding[:, t], logits.detach()[:, None], now.presence.detach(), binary=False
        )
        state.past = [*state.past, (spatial, sam.pointers(now)[rows, best], kept)][-MAX_POINTERS:]
    if again:
        rows = torch.cat(order)
        decoded = Decoded(*(torch.cat(parts) for parts in zip(*again)))
        decoded_loss(losses, "recent", decoded, target[rows], present[rows], sure[rows])


# --------------------------------------------------------------------------------------------- loop


@dataclass
class Clock:
    """How far a run has come: a share of its steps, or of the minutes it has in all calls together.

    With minutes, what is learnt when follows the clock, so that a slow machine sees fewer examples of
    every stage and the learning rate still ends near zero.
    """

    steps: int | None
    minutes: float | None
    step: int = 0
    seconds: float = 0.0  # of earlier calls
    started: float = 0.0

    def spent(self) -> float:
        return self.seconds + time.monotonic() - self.started

    def share(self) -> float:
        """0 at the beginning, 1 at the end."""
        if self.minutes is not None:
            return min(1.0, self.spent() / (60 * self.minutes))
        return self.step / self.steps if self.steps else 1.0


def stage_at(recipe: list[Stage], share: float) -> int:
    return next(k for k, stage in enumerate(recipe) if share < stage.until)


def learning_rate(share: float, steps_here: int, peak: float, warm_up: int = 100) -> float:
    """Return a cosine over the whole run, with a short warm-up where a call begins."""
    warm = min(1.0, (steps_here + 1) / warm_up)
    return peak * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """Attention by matrix products: on a CPU and with gradients, faster than torch's own."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return scores.softmax(-1).to(v.dtype) @ v


def prepare_cpu(threads: int) -> None:
    """Let this process train on a CPU with so many threads."""
    functional.scaled_dot_product_attention = plain_attention
    torch.set_num_threads(threads)
    # sharp attention gives weights below float32's normal range, with which products take ten times as long
    torch.set_flush_denormal(True)


def make_optimisers(model: Starter, lr: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the weights of linear layers and of their like among convolutions, and AdamW for the rest.

    The last layers of small heads, tokens, norms and position tables are no maps from many channels to many.
    """
    matrices, others = [], []
    for name, value in model.named_parameters():
        shape = value.flatten(1).shape if value.ndim in (2, 4) else (0,)
        wide = min(shape) >= 32 and value.shape[2:].numel() == 1
        (matrices if wide and "pos_embed" not in name else others).append(value)
    adam = torch.optim.AdamW(others, lr=lr, weight_decay=0.02, betas=(0.9, 0.98))
    return [Muon(matrices, lr=lr, weight_decay=0.02), adam]


@torch.no_grad()
def soften(model: Starter, factors: Sequence[float]) -> None:
    """Multiply the queries of each layer that looks at memories.

    They begin so large (`wire_memory`) that every place looks at a single one of memory's, and what is compared
    gets next to no gradient through that.

    Raises
    ------
    ValueError
        If there is not one factor for each layer.
    """
    for layer, factor in zip(model.sam.memory_attention.layers, factors, strict=True):
        project = layer.cross_attn_image.q_proj
        project.weight.mul_(factor)
        project.bias.mul_(factor)


def offer_softening(parser: argparse.ArgumentParser) -> None:
    """Let a program's run begin with `soften`."""
    parser.add_argument(
        "--soften", type=float, nargs=2, metavar="FACTOR",
        help="by which queries of the layers that look at memories are multiplied where the run begins",
    )  # fmt: skip


def load_exported(model: Starter, source: Path) -> None:
    """Load exported weights, which have neither the optimiser's state nor the two read-outs."""
    model.sam.load_state_dict({key: value.float() for key, value in load_file(source).items()})
    # a read-out that knows nothing must not teach the features that it reads
    nn.init.zeros_(model.readout.weight)


def begin(
    model: Starter, optimisers: list[torch.optim.Optimizer], state_file: Path, start: Path | None,
    factors: Sequence[float] | None = None,
) -> tuple[dict[str, Tensor], int, float]:  # fmt: skip
    """Load the run's own state or the one to start from; return the averaged weights, the first step and seconds.

    Where the run begins, its attention to memories is softened by the factors.
    """
    resumed = state_file.exists()
    source, average = state_file if resumed else start, None
    if source is not None and source.suffix == ".safetensors":
        load_exported(model, source)
    elif source is not None:
        saved = torch.load(source, weights_only=True, map_location=model.readout.weight.device)
        model.load_state_dict(saved["model"])
        for optimiser, state in zip(optimisers, saved["optimisers"]):
            optimiser.load_state_dict(state)
        average = saved["average"]
        if resumed:
            return average, saved["step"], saved.get("seconds", 0.0)
    if factors:
        soften(model, factors)
    if factors or average is None:
        average = {key: value.clone() for key, value in model.state_dict().items()}
    return average, 0, 0.0


def parts_of(length: int, part: int) -> list[slice]:
    """Return the parts of a clip, between which gradients do not flow."""
    return [slice(k, min(k + part, length)) for k in range(0, length, part)]


def gather(sums: dict[str, list[Tensor]], figures: Mapping[str, Tensor]) -> None:
    """Add figures to those of their names."""
    for key, value in figures.items():
        sums.setdefault(key, []).append(value)


def means(sums: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    return {key: torch.stack(values).mean() for key, values in sums.items()}


def take_step(
    model: Starter, optimisers: list[torch.optim.Optimizer], batch: Mapping[str, Tensor | np.ndarray], stage: Stage,
    seed: tuple[int, int], bfloat16: bool,
) -> dict[str, Tensor]:  # fmt: skip
    """Change the weights by one batch of `prompts.with_prompts`; return the figures of its log line."""
    rng, device = np.random.default_rng(seed), model.readout.weight.device
    here, counts = to_device(batch, device), np.asarray(batch["count"])
    length, priors = here["present"].shape[1], here["own"].shape[1]
    parts, sums = parts_of(length, stage.part), dict[str, list[Tensor]]()
    recent, state = int(rng.choice(stage.recent)), None
    if stage.soft and rng.random() < stage.soft:
        here["pictures"] = softened(here["pictures"])
    model.zero_grad(set_to_none=True)
    for part in parts:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            seen = in_pictures(part, priors, state is None)
            groups = by_count(counts[:, seen].ravel(), rng, device)
            losses, state = part_losses(model, here, stage.true_memory, part, state, recent, groups)
        (losses.total / len(parts)).backward()
        state = state.detached()
        gather(sums, losses.figures)
    norm = change(model, optimisers)
    return means(sums) | {"norm": norm}


def change(model: Starter, optimisers: list[torch.optim.Optimizer]) -> Tensor:
    """Change the weights by their gradients, unless these are no numbers; return the norm of the gradients.

    Processes that train together take the same step, by the mean of their gradients.
    """
    if distributed.is_initialized():
        average_gradients(model)
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if torch.isfinite(norm):
        for optimiser in optimisers:
            optimiser.step()
    return norm


def average_gradients(model: nn.Module) -> None:
    """Give the processes that train together the mean of their gradients; what one did not use counts as zero."""
    learning = [p for p in model.parameters() if p.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
    together = torch.cat([gradient.flatten() for gradient in gradients]) / distributed.get_world_size()
    distributed.all_reduce(together)
    for p, part in zip(learning, together.split([p.numel() for p in learning])):
        p.grad = part.view_as(p)


def agree(share: float, go_on: bool) -> tuple[float, bool]:
    """Return what the first of the processes that train together says: their clocks differ."""
    if distributed.is_initialized():
        said = torch.tensor([share, go_on], dtype=torch.float64)
        distributed.broadcast(said, 0)
        share, go_on = float(said[0]), bool(said[1])
    return share, go_on


def set_rate(optimisers: list[torch.optim.Optimizer], rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in (group for each in optimisers for group in each.param_groups):
        group["lr"] = rate


def decay_at(step: int, decay: float) -> float:
    """Return the decay of the averaged weights, which is short while there is little to average."""
    return min(decay, step / (step + 19))


@torch.no_grad()
def blend(average: dict[str, Tensor], model: nn.Module, decay: float | Tensor) -> None:
    """Move averaged weights towards the model's; a decay that is on the device is not waited for."""
    now, means = model.state_dict(), list(average.values())
    apart = torch._foreach_sub([now[key] for key in average], means)
    torch._foreach_mul_(apart, 1 - decay)
    torch._foreach_add_(means, apart)


def write_line(log: Path, clock: Clock, stage: int, sums: dict[str, list[Tensor]]) -> None:
    line: dict[str, Any] = {"step": clock.step, "seconds": round(clock.spent(), 1), "stage": stage}
    line |= {key: round(float(torch.stack(values).mean()), 4) for key, values in sums.items()}
    with log.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def save(
    state_file: Path, model: Starter, average: dict[str, Tensor], optimisers: list[torch.optim.Optimizer],
    clock: Clock,
) -> None:  # fmt: skip
    """Replace the state as a whole, so that a kill leaves the one before or this one."""
    part = state_file.with_suffix(".part")
    torch.save({"model": model.state_dict(), "average": average, "step": clock.step,
                "optimisers": [each.state_dict() for each in optimisers],
                "seconds": clock.spent()}, part)  # fmt: skip
    part.replace(state_file)


@dataclass
class Course:
    """A run under way. After each step weights are averaged; the first of some processes writes log and state.

    Attributes
    ----------
    args
        With `run`, the folder, `average`, the decay, `every`, steps between lines, and `keep`, minutes between states.
    """

    args: argparse.Namespace
    place: int
    clock: Clock
    model: Starter
    optimisers: list[torch.optim.Optimizer]
    average: dict[str, Tensor]
    sums: dict[str, list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first, self._saved = self.clock.step, self.clock.spent()

    @classmethod
    def start(
        cls, args: argparse.Namespace, place: int, on: str = "cpu", threads: int = 1,
        make: Callable[[], Starter] = Starter,
    ) -> Course:  # fmt: skip
        """Begin a run of the model that `make` gives on a device, with so many threads of a CPU, or go on with it."""
        device = torch.device(on)
        if device.type == "cpu":
            prepare_cpu(threads)
        else:
            # what autocast leaves in float32 may be rounded a little
            torch.set_float32_matmul_precision("high")
        args.run.mkdir(parents=True, exist_ok=True)
        clock, model = Clock(args.steps, args.minutes, started=time.monotonic()), make()
        initialise(model, args.seed)
        model.to(device)
        optimisers = make_optimisers(model, args.lr)
        begun = begin(model, optimisers, args.run / "state.pt", args.start, args.soften)
        average, clock.step, clock.seconds = begun
        return cls(args, place, clock, model, optimisers, average)

    def add(self, figures: Mapping[str, Tensor], stage: int = 0) -> None:
        """Count a step, whose figures these are."""
        self.clock.step += 1
        blend(self.average, self.model, decay_at(self.clock.step, self.args.average))
        gather(self.sums, figures)
        if self.clock.step % self.args.every == 0:
            self._tell(stage)
        if self.clock.spent() - self._saved > 60 * self.args.keep:
            self._keep()

    def end(self, stage: int = 0) -> None:
        """Write what is left, if any step was taken."""
        if self.clock.step > self.first:
            if self.sums:
                self._tell(stage)
            self._keep()

    def _tell(self, stage: int) -> None:
        if self.place == 0:
            write_line(self.args.run / "log.jsonl", self.clock, stage, self.sums)
        self.sums.clear()

    def _keep(self) -> None:
        if self.place == 0:
            save(self.args.run / "state.pt", self.model, self.average, self.optimisers, self.clock)
        self._saved = self.clock.spent()


@contextmanager
def stoppable() -> Iterator[list[int]]:
    """Give a list that is no more empty once SIGTERM has come."""
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def in_processes(work: Callable[..., None], args: argparse.Namespace) -> None:
    """Do `work(args, place, processes)` as one of the processes that torchrun started, or as the only one."""
    place, processes = 0, 1
    if "RANK" in os.environ:  # torchrun says so
        distributed.init_process_group("gloo")
        place, processes = distributed.get_rank(), distributed.get_world_size()
    try:
        work(args, place, processes)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def train(args: argparse.Namespace, place: int = 0, processes: int = 1) -> None:
    """Train as one of some processes that train together; the first writes the log and the state."""
    course = Course.start(args, place, args.device, args.threads)
    clock, model, optimisers, first = course.clock, course.model, course.optimisers, course.first
    if args.freeze_encoder:
        freeze_encoder(model.sam)
    recipe = stages(args.side, args.long_from, args.longest, args.soft)[args.stage :]
    ends = clock.spent() + 60 * args.stop_after
    steps = args.steps if args.minutes is None else None
    plan = feed.Plan(recipe, args.skip, args.batch_factor, steps, (place, processes), args.uses)
    pinned = model.readout.weight.is_cuda
    with feed.Feed(plan, first, args.workers, stage_at, clock.share(), pinned) as batches:
        with stoppable() as asked_to_stop:
            while True:
                share = clock.share()
                share, go_on = agree(share, share < 1 and clock.spent() < ends and not asked_to_stop)
                if not go_on:
                    break
                batches.share.value = share
                k, batch = batches.get()
                rate = learning_rate(share, clock.step - first, args.lr)
                set_rate(optimisers, rate)
                figures = take_step(
                    model, optimisers, batch, recipe[k], (args.seed, args.skip + clock.step), args.bfloat16
                )
                course.add(figures, args.stage + k)
        if clock.step > first:
            course.end(args.stage + k)
    if place == 0:
        print(
            f"{args.run / 'state.pt'}: step {clock.step}, {clock.spent() / 60:.1f} min, {clock.share():.0%} of the run"
        )


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path(__file__).parent / "runs" / "starter")
    parser.add_argument(
        "--start", type=Path, help="a state.pt of another run, or a .safetensors file, to begin from"
    )
    parser.add_argument(
        "--minutes", type=float, help="length of the whole run, all calls together; the schedule fits itself"
    )
    parser.add_argument(
        "--steps", type=int, default=12000, help="the same in steps, where no minutes are given"
    )
    parser.add_argument(
        "--stop-after", type=float, default=math.inf, help="minutes after which this call saves and ends"
    )
    parser.add_argument("--side", type=int, help="side of all pictures, by default what the recipe says")
    parser.add_argument(
        "--long-from", type=float, default=0.75, help="share of the run from which clips are long"
    )
    parser.add_argument(
        "--longest", type=int, default=24, choices=(4, 8, 16, 24), help="most frames of a clip"
    )
    parser.add_argument(
        "--soft", type=float, default=0.0, help="share of the steps whose pictures come from smaller ones"
    )
    offer_softening(parser)
    parser.add_argument("--stage", type=int, default=0, help="first stage of the recipe")
    parser.add_argument(
        "--skip", type=int, default=0, help="steps whose scenes another run has drawn already"
    )
    parser.add_argument(
        "--freeze-encoder",
        action="store_true",
        help="train memory and decoder alone, for long clips on a CPU",
    )
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--average", type=float, default=0.998, help="decay of the averaged weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
    parser.add_argument("--batch-factor", type=float, default=1, help="times as many examples a step")
    parser.add_argument(
        "--uses", type=int, default=1, help="times that the same scenes are shown, turned over"
    )
    parser.add_argument("--every", type=int, default=25, help="steps between lines of the log")
    parser.add_argument("--keep", type=float, default=2, help="minutes between saved states")
    parser.add_argument("--bfloat16", action="store_true", help="slower on a CPU without bfloat16 units")
    return parser.parse_args(words)


if __name__ == "__main__":
    in_processes(train, parse())
