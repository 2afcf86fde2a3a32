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
import contextlib
import json
import math
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Full
from typing import Any

import numpy as np
import scenes
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.features import MEAN, STD
from napari_samexp.sam.mask_decoder import Decoded
from napari_samexp.sam.models import PRIOR_SLOT, Sam2
from napari_samexp.sam.prompt_encoder import BOX_END, BOX_START, NO_POINT
from napari_samexp.sam.variants import MAX_POINTERS, Sam2Variant

STARTER = Sam2Variant(
    name="starter",
    version="2.1",
    embed_dim=40,
    num_heads=1,
    stages=(1, 2, 4, 1),
    global_blocks=(5, 6),
    window_spec=(8, 4, 8, 4),
    image_size=256,
    d_model=128,
    mem_dim=32,
    mem_ff=256,
    mem_layers=2,
    mlp_dim=256,
    iou_hidden=64,
)
FIRST_SEED = scenes.FIRST_TRAINING_SEED  # seeds below are held out


SEEDS_A_STEP = 256  # examples of one step have consecutive seeds; no step may need more
SURE = 0.0003  # share of a picture; with less of it in view, whether an object is there is not asked


@dataclass(frozen=True)
class Stage:
    """A part of the training; it runs until `until`, a share of all steps."""

    until: float
    scene: scenes.SceneConfig
    batch: int  # examples with four frames; fewer of longer ones
    true_memory: float  # share of examples whose true mask is remembered, not the predicted one
    recent: tuple[int, ...] = (0,)  # memories of earlier frames, one of these numbers a step; 0: prior alone
    lengths: tuple[int, ...] = (4,)  # frames of a clip, one of these numbers a step
    priors: tuple[int, ...] = (1,)  # prior pictures, one of these numbers a step
    part: int = 4  # frames between which gradients flow

    def at(self, step: int, factor: int = 1) -> tuple[scenes.SceneConfig, int]:
        """Return what the scenes of one step look like and how many there are."""
        rng = np.random.default_rng((step, 11))
        frames, priors = int(rng.choice(self.lengths)), int(rng.choice(self.priors))
        count = max(2, round(self.batch * factor * 5 / (frames + priors)))
        return replace(self.scene, frames=frames, priors=priors), min(count, SEEDS_A_STEP)


def stages(side: int | None = None) -> list[Stage]:
    """Return the recipe: from small motions of the prior's own scene to unrelated, crowded pictures and long clips.

    `side` replaces the side of the pictures of every stage.
    """
    calm = scenes.SceneConfig(side=128, small=0.0, hiding=0.0, leaving=0.0, deform=0.0, effects=0.3)
    easy = replace(calm, distractors=(1, 2), unrelated=0.5, absent=0.05, occlusion=0.1, appearance=0.3,
                   hard=0.0, scale=(0.2, 0.55))  # fmt: skip
    middle = replace(easy, distractors=(1, 3), unrelated=0.9, absent=0.08, appearance=0.6, hard=0.1,
                     scale=(0.15, 0.5), deform=0.5, effects=0.6)  # fmt: skip
    full = scenes.SceneConfig(side=192, unrelated=0.85)
    recipe = [
        Stage(0.08, easy, 16, true_memory=1.0, lengths=(2,)),
        Stage(0.25, middle, 12, true_memory=0.7, lengths=(3,)),
        Stage(0.60, full, 10, true_memory=0.3, recent=(1, 2, 3), priors=(1, 1, 1, 2)),
        Stage(0.85, full, 10, true_memory=0.2, recent=(2, 4, 6), lengths=(4, 4, 8), priors=(1, 1, 1, 1, 2, 3)),
        Stage(1.01, replace(full, side=256), 6, true_memory=0.2, recent=(2, 4, 6), lengths=(4, 4, 8, 16),
              priors=(1, 1, 1, 1, 2, 3)),
    ]  # fmt: skip
    if side:
        recipe = [replace(stage, scene=replace(stage.scene, side=side)) for stage in recipe]
    return recipe


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


@dataclass
class Losses:
    """A sum of losses and the figures worth a line in the log."""

    total: Tensor
    figures: dict[str, float]

    def add(self, name: str, loss: Tensor, weight: float = 1.0) -> None:
        self.total = self.total + weight * loss
        self.figures[name] = float(loss.detach())


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
    # inference takes the first mask of prompts that say enough, and one of the others elsewhere
    plain = name in ("click_2", "click_3")
    per_item = (
        (1.2 if plain else 0.2) * each[:, 0] + (0.4 if plain else 1.2) * best + 0.1 * each[:, 1:].mean(1)
    )
    shown = present.float()
    total = shown.sum().clamp(min=1)
    losses.add(f"{name}_mask", (per_item * shown).sum() / total, weight)
    truth = overlap(masks.detach(), target[:, None].expand_as(masks))
    losses.add(f"{name}_iou", ((iou - truth).abs().mean(1) * shown).sum() / total, 0.8 * weight)
    if name.startswith("click"):
        losses.add(f"{name}_presence", functional.softplus(-presence).mean(), 0.3 * weight)
    else:
        asked = functional.binary_cross_entropy_with_logits(presence, shown, sure.float(), reduction="sum")
        losses.add(f"{name}_presence", asked / sure.sum().clamp(min=1), 0.4 * weight)
        right = ((presence > 0) == present)[sure]
        losses.figures[f"{name}_presence_right"] = float(right.float().mean()) if len(right) else 1.0
    rows = torch.arange(len(masks), device=masks.device)
    choice = 0 if plain else 1 + iou[:, 1:].argmax(1)
    losses.figures[f"{name}_J"] = float((truth[rows, choice] * shown).sum() / total)
    losses.figures[f"{name}_iou_error"] = float(
        ((iou - truth)[rows, choice].detach().abs() * shown).sum() / total
    )


# -------------------------------------------------------------------------------------------- steps


def to_pixels(images: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """(..., H, W, 3) uint8 to (N, 3, H, W) normalised, as `prepare` does."""
    x = torch.from_numpy(images).to(device).flatten(0, -4).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, STD))
    return (x - mean) / std


def shrink(masks: Tensor, factor: int) -> Tensor:
    """(N, H, W) to covered shares (N, H / factor, W / factor)."""
    return functional.avg_pool2d(masks[:, None].float(), factor)[:, 0]


def deep_point(mask: np.ndarray, rng: np.random.Generator, tries: int = 8) -> np.ndarray:
    """Return (x, y), of a few random points of a mask the one with most of the mask around it."""
    inside = np.argwhere(mask)
    some = inside[rng.integers(len(inside), size=tries)]
    reach = max(1, round(0.3 * len(inside) ** 0.5))
    share = [
        mask[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].sum() for y, x in some
    ]
    return some[int(np.argmax(share))][::-1]


def clicks(target: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` points (x, y) and labels on a (H, W) mask: the first inside, later ones on either side."""
    inside, outside = np.argwhere(target), np.argwhere(~target)
    points, labels = [], []
    for i in range(count):
        positive = i == 0 or rng.random() < 0.7 or not len(outside)
        if positive and rng.random() < 0.6:
            points.append(deep_point(target, rng))
        else:
            pool = inside if positive else outside
            points.append(pool[rng.integers(len(pool))][::-1])
        labels.append(int(positive))
    return np.array(points, np.float32), np.array(labels, np.int64)


def box_around(target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the corners (2, 2) of a box around a mask, each side up to a tenth off."""
    rows, columns = np.flatnonzero(target.any(1)), np.flatnonzero(target.any(0))
    corners = np.array([[columns[0], rows[0]], [columns[-1], rows[-1]]], np.float32)
    corners += rng.uniform(-0.1, 0.1, (2, 2)) * (corners[1] - corners[0] + 1)
    return np.clip(corners, 0, np.array(target.shape[::-1]) - 1).astype(np.float32)


def draw_prompt(target: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return points (K, 2) and labels (K,) that ask for a mask; box corners are labelled 2 and 3."""
    kind = rng.random()
    if kind < 0.7:
        return clicks(target, 1 if kind < 0.5 else 2 if kind < 0.57 else 3, rng)
    xy, labels = box_around(target, rng), np.array([BOX_START, BOX_END])
    if kind < 0.85:
        return xy, labels
    more, kinds = clicks(target, 1, rng)
    return np.concatenate((xy, more)), np.concatenate((labels, kinds))


def any_thing(things: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Return the mask of a random thing that is large enough to click on, None if there is none."""
    areas = np.bincount(things.ravel())
    ids = [i for i in range(1, len(areas)) if areas[i] >= 0.001 * things.size]
    return things == rng.choice(ids) if ids else None


def choose_targets(
    batch: dict[str, np.ndarray], frames: slice, own: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return what is to be prompted in each picture, (B, P + T, H, W), and whether there is anything.

    Prior pictures are asked for the object where `own` (B, P); all others for any thing, which teaches
    clicks. The first prior alone has a map of all things; in the others the object is the one thing known.
    """
    targets, asked = [], []
    for i in range(len(own)):
        masks = [batch["prior_mask"][i], *batch["more_prior_masks"][i]][: own.shape[1]]
        pictures: list[np.ndarray | None] = list(masks)
        if len(masks) and not own[i, 0]:
            pictures[0] = any_thing(batch["prior_instances"][i], rng)
        pictures += [any_thing(things, rng) for things in batch["frame_instances"][i, frames]]
        size = batch["masks"].shape[2:]
        asked.append([target is not None and bool(target.any()) for target in pictures])
        targets.append([np.ones(size, bool) if not ok else t for t, ok in zip(pictures, asked[-1])])
    return np.array(targets), np.array(asked)


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
    losses: Losses, sam: Sam2, embedding: Tensor, finer: tuple[Tensor, ...], targets: np.ndarray,
    asked: np.ndarray, rng: np.random.Generator,
) -> Prompted:  # fmt: skip
    """Segment N pictures, those with equally many points together, since padding would be seen."""
    side, device = targets.shape[-1], embedding.device
    prompts = [draw_prompt(target, rng) for target in targets]
    target = shrink(torch.from_numpy(targets).to(device), 4)
    ask = torch.from_numpy(asked).to(device)
    base = embedding + sam.no_mem_embed.transpose(1, 2)[..., None]
    size = (len(targets), target.shape[1], target.shape[2])
    kept = Prompted(target.new_zeros(size), embedding.new_zeros(len(targets), embedding.shape[1]).float())

    def decode(rows: Tensor, points: Tensor, labels: Tensor, earlier: Tensor | None, weight: float) -> Tensor:
        none = labels.new_full((len(rows), 1), NO_POINT)
        sparse = sam.sam_prompt_encoder.sparse(
            torch.cat((points, points.new_zeros(len(rows), 1, 2)), 1),
            torch.cat((labels, none), 1),
            (side, side),
        )
        decoded = sam.decode(
            base[rows], (finer[0][rows], finer[1][rows]), sparse, sam.sam_prompt_encoder.dense(earlier)
        )
        single = labels.shape[1] == 1
        name = "click_1" if single else "click_3" if labels.shape[1] == 3 else "click_2"
        decoded_loss(losses, name, decoded, target[rows], ask[rows], ask[rows], weight)
        every = torch.arange(len(rows), device=device)
        choice = 1 + decoded.iou[:, 1:].argmax(1) if single else torch.zeros_like(every)
        kept.logits[rows] = decoded.masks[every, choice].detach().float()
        kept.pointer = kept.pointer.index_put((rows,), sam.pointers(decoded)[every, choice].float())
        return kept.logits[rows]

    counts = np.array([len(labels) for _, labels in prompts])
    for count in (1, 2, 3):
        mine = np.flatnonzero(counts == count)
        if not len(mine):
            continue
        rows = torch.from_numpy(mine).to(device)
        points = torch.from_numpy(np.stack([prompts[i][0] for i in mine])).to(device)
        labels = torch.from_numpy(np.stack([prompts[i][1] for i in mine])).to(device)
        share = len(mine) / len(prompts)
        logits = decode(rows, points, labels, None, share)
        if count > 1:
            continue
        # half of the single clicks are corrected, twice
        half = torch.from_numpy(rng.random(len(mine)) < 0.5).to(device)
        rows, points, labels, logits = rows[half], points[half], labels[half], logits[half]
        for _ in range(2):
            if not len(rows):
                break
            more, kind = corrective(logits, target[rows])
            points, labels = torch.cat((points, more), 1), torch.cat((labels, kind), 1)
            earlier = logits[:, None] if rng.random() < 0.3 else None
            logits = decode(rows, points, labels, earlier, 0.5 * share)
    return kept


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


def part_losses(
    model: Starter, batch: dict[str, np.ndarray], stage: Stage, frames: slice, state: Remembered | None,
    recent: int, rng: np.random.Generator,
) -> tuple[Losses, Remembered]:  # fmt: skip
    """Return the losses of some frames of a batch's clips and what is remembered after them.

    Without a state the clips begin, and the prior pictures are seen as well.
    """
    sam, device = model.sam, model.readout.weight.device
    pictures = batch["frames"][:, frames]
    count, length, side = *pictures.shape[:2], pictures.shape[2]
    priors = 0 if state else 1 + batch["more_priors"].shape[1]
    if priors:
        pictures = np.concatenate((batch["prior"][:, None], batch["more_priors"], pictures), axis=1)
    embedding, finer = sam.image_features(to_pixels(pictures, device))
    losses = Losses(torch.zeros((), device=device), {})

    # 1. clicks on every picture
    own = rng.random((count, priors)) < 0.75
    targets, asked = choose_targets(batch, frames, own, rng)
    prompted = prompt_losses(
        losses, sam, embedding, finer, targets.reshape(-1, side, side), asked.flatten(), rng
    )
    embedding = embedding.unflatten(0, (count, priors + length))
    fine = tuple(x.unflatten(0, (count, priors + length))[:, priors:] for x in finer)
    if state is None:
        own[:, 1:] = True  # further priors are always asked for the object
        state = remember_priors(sam, batch, stage, embedding[:, :priors], prompted, own, rng)

    # 2. the frames with the prior's memory alone
    flat = embedding[:, priors:].flatten(0, 1)
    each = torch.arange(count, device=device).repeat_interleave(length)
    alone = replace(state, past=[]).bank(0)
    recalled = sam.recall(flat, [part[each] for part in alone[0]], *(part[each] for part in alone[1:]))
    masks = torch.from_numpy(batch["masks"][:, frames]).to(device).flatten(0, 1)
    share = masks.flatten(1).float().mean(1)
    present, sure = share > SURE, (share > SURE) | (share == 0)
    target = shrink(masks, 4)
    tracked = decode_tracked(sam, recalled, tuple(x.flatten(0, 1) for x in fine), side)
    decoded_loss(losses, "track", tracked, target, present, sure)
    coarse = shrink(masks, 16)
    read = model.readout(recalled.permute(0, 2, 3, 1))[..., 0].float()
    shown = present.sum().clamp(min=1)
    losses.add("readout", (mask_loss(read, coarse) * present).sum() / shown, 0.5)
    alike = (functional.normalize(flat.float(), dim=1) * state.token[each][:, :, None, None]).sum(1)
    logits = alike * model.token_scale[0] + model.token_scale[1]
    losses.add("tokens", (mask_loss(logits, coarse) * present).sum() / shown, 0.4)

    # 3. one after the other, with the memories of those before
    if recent:
        follow(losses, sam, embedding[:, priors:], fine, tracked, state, target, present, sure, recent)
    return losses, state


def remember_priors(
    sam: Sam2, batch: dict[str, np.ndarray], stage: Stage, embedding: Tensor, prompted: Prompted,
    own: np.ndarray, rng: np.random.Generator,
) -> Remembered:  # fmt: skip
    """Return the memories of the prior pictures (B, P, D, h, w)."""
    count, priors = own.shape
    device = embedding.device
    masks = np.concatenate((batch["prior_mask"][:, None], batch["more_prior_masks"]), 1)
    truth = shrink(torch.from_numpy(masks).to(device).flatten(0, 1), 4) * 20 - 10
    # a click on another thing makes a memory of that other thing: only the true mask may be remembered then
    mine = torch.from_numpy(own).to(device)
    given = mine & torch.from_numpy(rng.random(own.shape) >= stage.true_memory).to(device)
    shape = (count, -1, *prompted.logits.shape[1:])
    logits = torch.where(
        given[..., None, None], prompted.logits.view(shape)[:, :priors], truth.unflatten(0, (count, priors))
    )
    pointers = prompted.pointer.view(count, -1, prompted.pointer.shape[1])[:, :priors]
    pointers = torch.where(mine[..., None], pointers, sam.no_obj_ptr)
    spatial = sam.encode_memory(
        embedding.flatten(0, 1), logits.flatten(0, 1)[:, None], truth.new_ones(count * priors), binary=True
    ).unflatten(0, (count, priors))
    share = shrink(torch.from_numpy(masks).to(device).flatten(0, 1), 16).unflatten(0, (count, priors))
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
    losses: Losses, sam: Sam2, embedding: Tensor, fine: tuple[Tensor, ...], alone: Decoded,
    state: Remembered, target: Tensor, present: Tensor, sure: Tensor, recent: int,
) -> None:  # fmt: skip
    """Track the frames (B, T, D, h, w) in their order and add their memories to the state.

    A clip's first frame has no past: what the prior alone gave (`alone`, of B T frames) holds for it.
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
            now = Decoded(*(part[rows * length + t] for part in alone))
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


def stage_at(recipe: list[Stage], step: int, steps: int) -> Stage:
    return next(stage for stage in recipe if step / steps < stage.until)


def produce(queue: Any, recipe: list[Stage], steps: range, last: int, skipped: int, factor: int) -> None:
    """Draw the batches of some steps into a queue; batch k is the same whenever and wherever it is drawn."""
    os.nice(2)
    parent = os.getppid()
    for step in steps:
        scene, count = stage_at(recipe, step, last).at(skipped + step, factor)
        first = FIRST_SEED + (skipped + step) * SEEDS_A_STEP
        batch = scenes.make_batch(scene, range(first, first + count))
        while os.getppid() == parent:  # a training that was killed takes nothing out any more
            with contextlib.suppress(Full):
                queue.put(batch, timeout=5)
                break
        else:
            queue.cancel_join_thread()
            return


def batches(
    recipe: list[Stage], first: int, steps: int, skipped: int, factor: int, workers: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the batches of the steps from `first` on, drawn in turn by several processes."""
    context = multiprocessing.get_context("fork")
    queues = [context.Queue(maxsize=max(2, 6 // workers)) for _ in range(workers)]
    for k, queue in enumerate(queues):
        mine = range(first + k, steps, workers)
        args = (queue, recipe, mine, steps, skipped, factor)
        context.Process(target=produce, args=args, daemon=True).start()
    for step in range(first, steps):
        yield queues[(step - first) % workers].get()


def learning_rate(step: int, first: int, steps: int, peak: float) -> float:
    """Return a cosine over all steps, with a short warm-up where a run begins or goes on."""
    warm = min(1.0, (step - first + 1) / min(100, steps / 10))
    return peak * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """Attention by matrix products: on a CPU, in bfloat16 and with gradients, faster than torch's own."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return scores.softmax(-1).to(v.dtype) @ v


def begin(
    model: Starter, optimiser: torch.optim.Optimizer, state_file: Path, start: Path | None
) -> tuple[dict[str, Tensor], int]:
    """Load the run's own state or the one to start from; return the averaged weights and the first step."""
    source = state_file if state_file.exists() else start
    device = model.readout.weight.device
    if source is None:
        return {key: value.clone() for key, value in model.state_dict().items()}, 0
    if source.suffix == ".safetensors":
        # exported weights have neither the optimiser's state nor the two read-outs
        model.sam.load_state_dict({key: value.float() for key, value in load_file(source).items()})
        return {key: value.clone() for key, value in model.state_dict().items()}, 0
    saved = torch.load(source, weights_only=True, map_location=device)
    model.load_state_dict(saved["model"])
    if state_file.exists() or saved.get("optimiser"):
        optimiser.load_state_dict(saved["optimiser"])
    return saved["average"], saved["step"] if state_file.exists() else 0


def take_step(
    model: Starter, optimiser: torch.optim.Optimizer, batch: dict[str, np.ndarray], stage: Stage, seed: tuple[int, int],
    bfloat16: bool,
) -> dict[str, float]:  # fmt: skip
    """Change the weights by one batch; return the figures of its log line."""
    rng, device = np.random.default_rng(seed), model.readout.weight.device
    length = batch["frames"].shape[1]
    parts = [slice(k, min(k + stage.part, length)) for k in range(0, length, stage.part)]
    recent, state, sums = int(rng.choice(stage.recent)), None, {}
    optimiser.zero_grad(set_to_none=True)
    for part in parts:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            losses, state = part_losses(model, batch, stage, part, state, recent, rng)
        (losses.total / len(parts)).backward()
        state = state.detached()
        for key, value in losses.figures.items():
            sums[key] = [*sums.get(key, []), value]
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if torch.isfinite(norm):
        optimiser.step()
    return {key: float(np.mean(values)) for key, values in sums.items()} | {"norm": float(norm)}


def train(args: argparse.Namespace) -> None:
    device = torch.device(args.device)
    if device.type == "cpu":
        functional.scaled_dot_product_attention = plain_attention
        torch.set_num_threads(args.threads)
    args.run.mkdir(parents=True, exist_ok=True)
    model, state_file = Starter(), args.run / "state.pt"
    initialise(model, args.seed)
    model.to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.02, betas=(0.9, 0.98))
    average, first = begin(model, optimiser, state_file, args.start)
    recipe = stages(args.side)[args.stage :]
    log, started = args.run / "log.jsonl", time.monotonic()
    sums: dict[str, list[float]] = {}
    drawn = batches(recipe, first, args.steps, args.skip, args.batch_factor, args.workers)
    for step, batch in zip(range(first, args.steps), drawn):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, first, args.steps, args.lr)
        stage = stage_at(recipe, step, args.steps)
        figures = take_step(model, optimiser, batch, stage, (args.seed, args.skip + step), args.bfloat16)
        decay = min(args.average, (step + 1) / (step + 20))
        with torch.no_grad():
            for key, value in model.state_dict().items():
                average[key].lerp_(value, 1 - decay)
        for key, value in figures.items():
            sums.setdefault(key, []).append(value)
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            line = {"step": step + 1, "seconds": round(time.monotonic() - started, 1)}
            line |= {key: round(float(np.mean(values)), 4) for key, values in sums.items()}
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            sums = {}
        if (step + 1) % args.keep == 0 or step + 1 == args.steps:
            part = state_file.with_suffix(".part")
            torch.save({"model": model.state_dict(), "average": average, "optimiser": optimiser.state_dict(),
                        "step": step + 1}, part)  # fmt: skip
            part.replace(state_file)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path(__file__).parent / "runs" / "starter")
    parser.add_argument(
        "--start", type=Path, help="a state.pt of another run, or a .safetensors file, to begin from"
    )
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--side", type=int, help="side of all pictures, by default what the recipe says")
    parser.add_argument("--stage", type=int, default=0, help="first stage of the recipe")
    parser.add_argument(
        "--skip", type=int, default=0, help="steps whose scenes another run has drawn already"
    )
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--average", type=float, default=0.998, help="decay of the averaged weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
    parser.add_argument("--batch-factor", type=int, default=1, help="times as many examples a step")
    parser.add_argument("--every", type=int, default=25, help="steps between lines of the log")
    parser.add_argument("--keep", type=int, default=100, help="steps between saved states")
    parser.add_argument("--bfloat16", action="store_true")
    return parser.parse_args(words)


if __name__ == "__main__":
    train(parse())
