"""Train the starter: a small SAM 2.1 of our own, on procedurally drawn scenes.

One step takes a batch of examples. Each has a prior picture and a clip, and is used in three ways:

1. one thing of the prior picture is segmented from one to three clicks;
2. each frame of the clip is decoded with the prior's memory alone;
3. later in training, each frame once more with the memories of the frames before it as well.

All frames go through the encoder together, and 2 and 3 are batched over frames, so a step costs
little more than encoding its pictures. Two helpers keep the memory path from staying at chance: a
loss on the encoder's tokens (those of the object in the clip shall resemble those in the prior) and
a linear read-out of the object from the conditioned features. Neither is in the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scenes
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.features import MEAN, STD
from napari_samexp.sam.mask_decoder import Decoded
from napari_samexp.sam.models import PRIOR_SLOT, Sam2
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


@dataclass(frozen=True)
class Stage:
    """A part of the training; it runs until `until`, a share of all steps."""

    until: float
    scene: scenes.SceneConfig
    batch: int
    true_memory: float  # share of examples whose true mask is remembered, not the predicted one
    recent: int  # memories of earlier frames, 0 for the prior alone


def stages(side: int) -> list[Stage]:
    """Return the recipe: from small motions of the prior's own scene to unrelated, crowded pictures."""
    easy = scenes.SceneConfig(side=side, frames=2, distractors=(1, 2), unrelated=0.5, absent=0.05, occlusion=0.1,
                              appearance=0.3, hard=0.0, scale=(0.2, 0.55))  # fmt: skip
    middle = replace(easy, frames=3, distractors=(1, 3), unrelated=0.9, absent=0.08, appearance=0.6, hard=0.1,
                     scale=(0.15, 0.5))  # fmt: skip
    full = scenes.SceneConfig(side=side, frames=4, leaving=0.12)
    return [
        Stage(0.12, easy, 16, true_memory=1.0, recent=0),
        Stage(0.45, middle, 12, true_memory=0.7, recent=0),
        Stage(1.01, full, 10, true_memory=0.3, recent=3),
    ]


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


def decoded_loss(losses: Losses, name: str, decoded: Decoded, target: Tensor, present: Tensor) -> Tensor:
    """Add the losses of N decoded prompts; return the IoU of the choice that inference would take, (N,)."""
    masks, iou, presence = decoded.masks.float(), decoded.iou.float(), decoded.presence.float()
    each = mask_loss(masks, target[:, None].expand_as(masks))
    best = each[:, 1:].min(dim=1).values
    per_item = 0.5 * each[:, 0] + best + 0.2 * each[:, 1:].mean(1)
    weight = present.float()
    losses.add(f"{name}_mask", (per_item * weight).sum() / weight.sum().clamp(min=1))
    truth = overlap(masks.detach(), target[:, None].expand_as(masks))
    losses.add(f"{name}_iou", ((iou - truth).abs().mean(1) * weight).sum() / weight.sum().clamp(min=1), 0.5)
    if name != "click":  # what is clicked on is there
        losses.add(f"{name}_presence", functional.binary_cross_entropy_with_logits(presence, weight), 0.3)
    else:
        losses.add(f"{name}_presence", functional.softplus(-presence).mean(), 0.3)
    rows = torch.arange(len(masks))
    chosen = truth[rows, 1 + iou[:, 1:].argmax(1)]
    losses.figures[f"{name}_J"] = float((chosen * weight).sum() / weight.sum().clamp(min=1))
    losses.figures[f"{name}_presence_right"] = float(((presence > 0) == present).float().mean())
    return chosen


# -------------------------------------------------------------------------------------------- steps


def to_pixels(images: np.ndarray) -> Tensor:
    """(..., H, W, 3) uint8 to (N, 3, H, W) normalised, as `prepare` does."""
    x = torch.from_numpy(images).flatten(0, -4).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (x - mean) / std


def shrink(masks: Tensor, factor: int) -> Tensor:
    """(N, H, W) to covered shares (N, H / factor, W / factor)."""
    return functional.avg_pool2d(masks[:, None].float(), factor)[:, 0]


def clicks(target: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` points (x, y) and labels on a (H, W) mask: the first inside, later ones on either side."""
    inside, outside = np.argwhere(target), np.argwhere(~target)
    points, labels = [], []
    for i in range(count):
        positive = i == 0 or rng.random() < 0.7 or not len(outside)
        pool = inside if positive else outside
        points.append(pool[rng.integers(len(pool))][::-1])
        labels.append(int(positive))
    return np.array(points, np.float32), np.array(labels, np.int64)


def sample_prompts(
    batch: dict[str, np.ndarray], own: np.ndarray, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return points (N, 4, 2), labels (N, 4), the masks (N, H, W) they ask for and whether these are worth asking.

    One prompt a picture, N = B (T + 1): the prior picture's is on the prior's object where `own`; all
    others are on any thing, which teaches clicks.
    """
    instances = np.concatenate((batch["prior_instances"][:, None], batch["frame_instances"]), axis=1)
    points, labels, targets, asked = [], [], [], []
    for i, pictures in enumerate(instances):
        for t, things in enumerate(pictures):
            target = batch["prior_mask"][i] if t == 0 and own[i] else any_thing(things, rng)
            asked.append(target is not None)
            if target is None:
                target = things == 0
            count = int(rng.integers(1, 4))
            xy, kind = clicks(target, count, rng)
            points.append(np.concatenate((xy, np.zeros((4 - count, 2), np.float32))))
            labels.append(np.concatenate((kind, np.full(4 - count, -1))))
            targets.append(target)
    stacked = (torch.from_numpy(np.stack(values)) for values in (points, labels, targets, asked))
    return tuple(stacked)


def any_thing(things: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Return the mask of a random thing that is large enough to click on, None if there is none."""
    areas = np.bincount(things.ravel())
    ids = [i for i in range(1, len(areas)) if areas[i] >= 0.003 * things.size]
    return things == rng.choice(ids) if ids else None


def step_losses(
    model: Starter, batch: dict[str, np.ndarray], stage: Stage, rng: np.random.Generator
) -> Losses:
    """Return the losses of one batch."""
    sam, side = model.sam, stage.scene.side
    count, frames = batch["frames"].shape[:2]
    images = np.concatenate((batch["prior"][:, None], batch["frames"]), axis=1)
    embedding, finer = sam.image_features(to_pixels(images))
    embedding = embedding.unflatten(0, (count, frames + 1))
    finer = tuple(x.unflatten(0, (count, frames + 1)) for x in finer)
    losses = Losses(torch.zeros(()), {})

    # 1. clicks on every picture
    own = rng.random(count) < 0.6
    points, labels, targets, asked = sample_prompts(batch, own, rng)
    decoded = sam.decode(
        embedding.flatten(0, 1) + sam.no_mem_embed.transpose(1, 2)[..., None],
        tuple(x.flatten(0, 1) for x in finer),
        sam.sam_prompt_encoder.sparse(points, labels, (side, side)),
        sam.sam_prompt_encoder.dense(None),
    )
    decoded_loss(losses, "click", decoded, shrink(targets, 4), asked)
    first = torch.arange(count) * (frames + 1)
    decoded, labels = Decoded(*(part[first] for part in decoded)), labels[first]
    prior = embedding[:, 0]

    # 2. the clip with the prior's memory
    prior_mask = torch.from_numpy(batch["prior_mask"])
    chosen = torch.where((labels >= 0).sum(1) > 1, 0, 1 + decoded.iou[:, 1:].argmax(1))
    rows = torch.arange(count)
    logits = decoded.masks[rows, chosen].detach().float()
    keep_truth = torch.from_numpy(~own | (rng.random(count) < stage.true_memory))
    truth = shrink(prior_mask, 4) * 20 - 10
    logits = torch.where(keep_truth[:, None, None], truth, logits)
    spatial = sam.encode_memory(prior, logits[:, None], torch.ones(count), binary=True)
    pointer = sam.pointers(decoded)[rows, chosen]
    # a click on another thing makes a pointer to that other thing: only the true mask may be remembered then
    pointer = torch.where(torch.from_numpy(own)[:, None], pointer, sam.no_obj_ptr)
    flat = embedding[:, 1:].flatten(0, 1)
    fine = tuple(x[:, 1:].flatten(0, 1) for x in finer)
    each = torch.arange(count).repeat_interleave(frames)
    recalled = sam.recall(
        flat,
        [spatial[each]],
        torch.full((len(flat), 1), PRIOR_SLOT),
        pointer[each][:, None],
        torch.full((len(flat), 1), 1 / MAX_POINTERS),
    )
    masks = torch.from_numpy(batch["masks"]).flatten(0, 1)
    present = masks.flatten(1).sum(1) > 0.001 * side * side
    target = shrink(masks, 4)
    tracked = decode_tracked(sam, recalled, fine, side)
    decoded_loss(losses, "track", tracked, target, present)
    coarse = shrink(masks, 16)
    read = model.readout(recalled.permute(0, 2, 3, 1))[..., 0].float()
    losses.add("readout", (mask_loss(read, coarse) * present).sum() / present.sum().clamp(min=1))
    losses.add("tokens", token_loss(model, prior, flat, shrink(prior_mask, 16), coarse, present, frames), 0.5)

    # 3. once more with the memories of the frames before
    if stage.recent:
        recents_loss(losses, sam, stage, embedding, finer, spatial, pointer, tracked, target, present)
    return losses


def token_loss(
    model: Starter,
    prior: Tensor,
    clip: Tensor,
    prior_share: Tensor,
    share: Tensor,
    present: Tensor,
    frames: int,
) -> Tensor:
    """Ask that the clip's tokens of the object, and no others, resemble the mean of the prior's."""
    weight = prior_share / prior_share.sum((1, 2), keepdim=True)
    mean = functional.normalize((prior.float() * weight[:, None]).sum((2, 3)), dim=1).repeat_interleave(
        frames, 0
    )
    alike = (functional.normalize(clip.float(), dim=1) * mean[:, :, None, None]).sum(1)
    logits = alike * model.token_scale[0] + model.token_scale[1]
    return (mask_loss(logits, share) * present).sum() / present.sum().clamp(min=1)


def decode_tracked(sam: Sam2, recalled: Tensor, fine: tuple[Tensor, ...], side: int) -> Decoded:
    """Decode without a prompt, as `Sam2.track` does, keeping all choices."""
    nothing = torch.full((len(recalled), 2), -1)
    sparse = sam.sam_prompt_encoder.sparse(torch.zeros(len(recalled), 2, 2), nothing, (side, side))
    return sam.decode(recalled, (fine[0], fine[1]), sparse, sam.sam_prompt_encoder.dense(None))


def recents_loss(
    losses: Losses, sam: Sam2, stage: Stage, embedding: Tensor, finer: tuple[Tensor, ...], spatial: Tensor,
    pointer: Tensor, first: Decoded, target: Tensor, present: Tensor,
) -> None:  # fmt: skip
    """Track each later frame with the memories that the first pass made of the frames before it."""
    count, frames = embedding.shape[0], embedding.shape[1] - 1
    rows = torch.arange(count * frames)
    best = 1 + first.iou[:, 1:].argmax(1)
    logits = torch.where((first.presence > 0)[:, None, None], first.masks[rows, best], -1024.0).detach()
    flat = embedding[:, 1:].flatten(0, 1)
    memories = sam.encode_memory(flat, logits[:, None], first.presence.detach(), binary=False).unflatten(
        0, (count, frames)
    )
    pointers = sam.pointers(first)[rows, best].unflatten(0, (count, frames))
    again: list[Decoded] = []
    side = stage.scene.side
    for t in range(1, frames):
        back = range(1, min(t, stage.recent) + 1)
        slots = torch.tensor([PRIOR_SLOT, *(k - 1 for k in back)]).expand(count, -1)
        times = torch.tensor([1.0, *back]).expand(count, -1) / MAX_POINTERS
        recalled = sam.recall(
            embedding[:, t + 1],
            [spatial, *(memories[:, t - k] for k in back)],
            slots,
            torch.stack([pointer, *(pointers[:, t - k] for k in back)], 1),
            times,
        )
        again.append(decode_tracked(sam, recalled, tuple(x[:, t + 1] for x in finer), side))
    decoded = Decoded(*(torch.cat(parts) for parts in zip(*again)))
    order = torch.arange(count * frames).unflatten(0, (count, frames))[:, 1:].T.flatten()
    decoded_loss(losses, "recent", decoded, target[order], present[order])


# --------------------------------------------------------------------------------------------- loop


def stage_at(recipe: list[Stage], step: int, steps: int) -> Stage:
    return next(stage for stage in recipe if step / steps < stage.until)


def produce(queue: Any, recipe: list[Stage], first: int, steps: int, skipped: int) -> None:
    """Draw batches into a queue; batch k is the same whenever and wherever it is drawn."""
    os.nice(2)
    for step in range(first, steps):
        stage = stage_at(recipe, step, steps)
        seeds = [FIRST_SEED + (skipped + step) * 64 + i for i in range(stage.batch)]
        queue.put(scenes.make_batch(stage.scene, seeds))


def batches(recipe: list[Stage], first: int, steps: int, skipped: int) -> Iterator[dict[str, np.ndarray]]:
    context = multiprocessing.get_context("fork")
    queue = context.Queue(maxsize=6)
    process = context.Process(target=produce, args=(queue, recipe, first, steps, skipped), daemon=True)
    process.start()
    for _ in range(first, steps):
        yield queue.get()


def learning_rate(step: int, steps: int, peak: float) -> float:
    warm = min(1.0, (step + 1) / min(150, steps / 10))
    return peak * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """Attention by matrix products: on a CPU, in bfloat16 and with gradients, faster than torch's own."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return scores.softmax(-1).to(v.dtype) @ v


def train(args: argparse.Namespace) -> None:
    functional.scaled_dot_product_attention = plain_attention
    torch.set_num_threads(args.threads)
    args.run.mkdir(parents=True, exist_ok=True)
    model, state_file = Starter(), args.run / "state.pt"
    initialise(model, args.seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.02, betas=(0.9, 0.98))
    average = {key: value.clone() for key, value in model.state_dict().items()}
    first = 0
    source = state_file if state_file.exists() else args.start
    if source:
        saved = torch.load(source, weights_only=True)
        model.load_state_dict(saved["model"])
        average = saved["average"]
        if state_file.exists():
            optimiser.load_state_dict(saved["optimiser"])
            first = saved["step"]
    recipe = stages(args.side)[args.stage :]
    log, started, sums, n = args.run / "log.jsonl", time.monotonic(), {}, 0
    for step, batch in zip(range(first, args.steps), batches(recipe, first, args.steps, args.skip)):
        stage = stage_at(recipe, step, args.steps)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bfloat16):
            losses = step_losses(model, batch, stage, np.random.default_rng((args.seed, step)))
        optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm):
            optimiser.step()
        decay = min(0.998, (step + 1) / (step + 20))
        with torch.no_grad():
            for key, value in model.state_dict().items():
                average[key].lerp_(value, 1 - decay)
        for key, value in losses.figures.items():
            sums[key] = sums.get(key, 0.0) + value
        n += 1
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            line = {
                "step": step + 1,
                "seconds": round(time.monotonic() - started, 1),
                "norm": round(float(norm), 3),
            }
            line |= {key: round(value / n, 4) for key, value in sums.items()}
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            sums, n = {}, 0
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            part = state_file.with_suffix(".part")
            torch.save({"model": model.state_dict(), "average": average, "optimiser": optimiser.state_dict(),
                        "step": step + 1}, part)  # fmt: skip
            part.replace(state_file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path(__file__).parent / "runs" / "starter")
    parser.add_argument("--start", type=Path, help="a state.pt of another run to begin from")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument(
        "--stage", type=int, default=0, help="first stage of the recipe; 2 for the last alone"
    )
    parser.add_argument(
        "--skip", type=int, default=0, help="steps whose scenes another run has drawn already"
    )
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--bfloat16", action="store_true")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
