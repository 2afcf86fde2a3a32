"""Clicks on images, and clips that are followed with what those leave in memory: the losses of a step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from napari_samexp.sam.features import mean_and_deviation
from napari_samexp.sam.mask_decoder import Decoded
from napari_samexp.sam.prompt_encoder import NO_POINT
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.sam.variants import MAX_POINTERS, PRIOR_SLOT
from training.losses import Losses, decoded_loss, mask_loss
from training.model import Starter
from training.prompts import COARSE, FINE, Groups, corrective_click, covered_shares

HighRes = tuple[Tensor, ...]


def to_pixels(images: Tensor, side: int) -> Tensor:
    """(..., H, W, 3) uint8 to (N, 3, side, side) normalised, as the model's `prepare` does."""
    x = images.flatten(0, -4).permute(0, 3, 1, 2).float() / 255
    mean, std = mean_and_deviation(x.device)
    x = (x - mean) / std
    if x.shape[2] == side:
        return x
    return functional.interpolate(x, (side, side), mode="bilinear", align_corners=False)


# ---- prompts


@dataclass
class Prompted:
    """What the last prompt of each of N images gave: the mask that a user would keep, and its pointer."""

    logits: Tensor  # (N, h, w)
    pointer: Tensor  # (N, D)


def prompt_losses(
    losses: Losses, sam: Sam2, embedding: Tensor, high_res: HighRes, asking: dict[str, Tensor], groups: Groups
) -> Prompted:
    """Add the losses of prompting N images, those with equally many tokens together, since padding is attended to.

    Parameters
    ----------
    embedding, high_res
        Features of the images, (N, D, h, w) and high_res_features.
    asking
        `points` (N, 3, 2), `labels` (N, 3), `target` (N, 4 h, 4 w) in covered pixels of 16, and `asked` (N,).
    groups
        Which of the prompts have how many tokens. Half of the single clicks are corrected, twice.
    """
    target = covered_shares(asking["target"])
    base = embedding + sam.no_mem_embed.transpose(1, 2)[..., None]
    kept = Prompted(torch.zeros_like(target), embedding.new_zeros(len(target), embedding.shape[1]).float())

    def decode(rows: Tensor, points: Tensor, labels: Tensor, earlier: Tensor | None, weight: float) -> Tensor:
        sparse, dense = encode_prompts(sam, points, labels, FINE * target.shape[1], earlier)
        decoded = sam.decode(base[rows], (high_res[0][rows], high_res[1][rows]), sparse, dense)
        tokens, asked = labels.shape[1], asking["asked"][rows]
        decoded_loss(losses, f"click_{tokens}", decoded, target[rows], asked, asked, weight)
        every = torch.arange(len(rows), device=rows.device)
        choice = 1 + decoded.iou[:, 1:].argmax(1) if tokens == 1 else torch.zeros_like(every)
        kept.logits[rows] = decoded.masks[every, choice].detach().float()
        kept.pointer = kept.pointer.index_put((rows,), sam.pointers(decoded)[every, choice].float())
        return kept.logits[rows]

    for count, rows in groups:
        points, labels = asking["points"][rows, :count], asking["labels"][rows, :count]
        share = len(rows) / len(target)
        logits = decode(rows, points, labels, None, share)
        half = len(rows) // 2
        if count > 1 or not half:
            continue
        rows, points, labels, logits = rows[:half], points[:half], labels[:half], logits[:half]
        for _ in range(2):
            more, label = corrective_click(logits, target[rows])
            points, labels = torch.cat((points, more), 1), torch.cat((labels, label), 1)
            logits = decode(rows, points, labels, logits[:, None], 0.5 * share)
    return kept


def encode_prompts(
    sam: Sam2, points: Tensor, labels: Tensor, side: int, earlier: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the sparse and dense embeddings of N prompts; three of ten also show an earlier mask's logits."""
    dense = sam.sam_prompt_encoder.dense(None)
    if earlier is not None:
        given = torch.rand(len(points), 1, 1, 1, device=points.device) < 0.3
        dense = torch.where(given, sam.sam_prompt_encoder.dense(earlier), dense)
    points = torch.cat((points, points.new_zeros(len(points), 1, 2)), 1)
    labels = torch.cat((labels, labels.new_full((len(labels), 1), NO_POINT)), 1)
    return sam.sam_prompt_encoder.sparse(points, labels, (side, side)), dense


# ---- memories


@dataclass
class Remembered:
    """The prior's memories, and those of the last frames."""

    spatial: list[Tensor]  # of P prior images, each (B, mem_dim, h, w)
    pointers: Tensor  # (B, P, D)
    token: Tensor  # (B, D), the mean of the encoder's tokens of the object in the prior
    past: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    """Spatial (B, mem_dim, h, w), pointer (B, D) and whether it showed the object (B,), newest last."""

    def bank(self, recent: int) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        """Return the arguments of `Sam2.recall` for the next frame.

        As in tracking, frames that lost the object are passed over. Examples with fewer memories than others attend
        to the prior once more, so that all fit one batch.
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


def remember_priors(
    sam: Sam2, batch: dict[str, Tensor], true_memory: float, embedding: Tensor, prompted: Prompted
) -> Remembered:
    """Return the memories of the prior images (B, P, D, h, w), of a share of them with the true masks."""
    own, shape = batch["own"], batch["own"].shape
    covered = batch["covered"][:, : shape[1]].flatten(0, 1)
    true = covered_shares(covered) * 20 - 10
    # a click on another thing makes a memory of that other thing: only the true mask may be remembered then
    given = own & (torch.rand(shape, device=own.device) >= true_memory)
    logits, pointers = (
        x.unflatten(0, (shape[0], -1))[:, : shape[1]] for x in (prompted.logits, prompted.pointer)
    )
    logits = torch.where(given[..., None, None], logits, true.unflatten(0, shape))
    pointers = torch.where(own[..., None], pointers, sam.no_obj_ptr)
    spatial = sam.encode_memory(
        embedding.flatten(0, 1), logits.flatten(0, 1)[:, None], true.new_ones(len(true)), binary=True
    ).unflatten(0, shape)
    share = covered_shares(covered, COARSE).unflatten(0, shape)
    share = share / share.sum((1, 2, 3), keepdim=True).clamp(min=1e-3)
    token = (embedding.float() * share[:, :, None]).sum((1, 3, 4))
    return Remembered(list(spatial.unbind(1)), pointers, functional.normalize(token, dim=1))


# ---- clips


def tracked_losses(
    losses: Losses, model: Starter, batch: dict[str, Tensor], state: Remembered,
    embedding: Tensor, high_res: HighRes, recent: int, alone: int,
) -> None:  # fmt: skip
    """Add the losses of the encoded frames (B, T, D, h, w) of a batch's clips.

    The first `alone` of them are found with the prior's memories alone. With `recent` memories all are then found
    once more, one after the other, with those of the frames before.
    """
    priors, side = batch["own"].shape[1], COARSE * embedding.shape[-1]
    covered, present, sure = batch["covered"][:, priors:], batch["present"], batch["sure"]
    first = slice(0, alone)
    each = torch.arange(len(embedding), device=embedding.device).repeat_interleave(alone)
    flat, there = embedding[:, first].flatten(0, 1), present[:, first].flatten()
    bank = replace(state, past=[]).bank(0)
    recalled = sam_recall(model.sam, flat, bank, each)
    tracked = decode_tracked(model.sam, recalled, tuple(x[:, first].flatten(0, 1) for x in high_res), side)
    shown = covered[:, first].flatten(0, 1)
    decoded_loss(losses, "track", tracked, covered_shares(shown), there, sure[:, first].flatten())
    coarse, count = covered_shares(shown, COARSE), there.sum().clamp(min=1)
    read = model.readout(recalled.permute(0, 2, 3, 1))[..., 0].float()
    losses.add("readout", (mask_loss(read, coarse) * there).sum() / count, 0.5)
    alike = (functional.normalize(flat.float(), dim=1) * state.token[each][:, :, None, None]).sum(1)
    logits = alike * model.token_scale[0] + model.token_scale[1]
    losses.add("tokens", (mask_loss(logits, coarse) * there).sum() / count, 0.4)
    if recent:
        follow(losses, model.sam, batch, state, embedding, high_res, recent, tracked)


def sam_recall(
    sam: Sam2, embedding: Tensor, bank: tuple[list[Tensor], Tensor, Tensor, Tensor], rows: Tensor
) -> Tensor:
    """Return features conditioned on the memories of some rows of a bank."""
    return sam.recall(embedding, [memory[rows] for memory in bank[0]], *(rest[rows] for rest in bank[1:]))


def decode_tracked(sam: Sam2, recalled: Tensor, high_res: HighRes, side: int) -> Decoded:
    """Decode without a prompt, as `Sam2.track` does, keeping all masks."""
    nothing = torch.full((len(recalled), 2), NO_POINT, device=recalled.device)
    points = nothing[..., None].expand(-1, -1, 2).float()
    sparse = sam.sam_prompt_encoder.sparse(points, nothing, (side, side))
    return sam.decode(recalled, (high_res[0], high_res[1]), sparse, sam.sam_prompt_encoder.dense(None))


def follow(
    losses: Losses, sam: Sam2, batch: dict[str, Tensor], state: Remembered,
    embedding: Tensor, high_res: HighRes, recent: int, alone: Decoded,
) -> None:  # fmt: skip
    """Track the frames (B, T, D, h, w) in their order, adding their memories to the state.

    The first frame has no past: what the prior alone gave (`alone`, of the first frames) holds for it.
    """
    count, length = embedding.shape[:2]
    side = COARSE * embedding.shape[-1]
    rows = torch.arange(count, device=embedding.device)
    later, order = [], []
    for t in range(length):
        if t == 0:
            now = Decoded(*(part.unflatten(0, (count, -1))[:, 0] for part in alone))
        else:
            recalled = sam.recall(embedding[:, t], *state.bank(recent))
            now = decode_tracked(sam, recalled, tuple(x[:, t] for x in high_res), side)
            later.append(now)
            order.append(rows * length + t)
        best = 1 + now.iou[:, 1:].argmax(1)
        kept = now.presence.detach() > 0
        logits = torch.where(kept[:, None, None], now.masks[rows, best].float(), -1024.0)
        spatial = sam.encode_memory(
            embedding[:, t], logits.detach()[:, None], now.presence.detach(), binary=False
        )
        state.past = [*state.past, (spatial, sam.pointers(now)[rows, best], kept)][-MAX_POINTERS:]
    if later:
        frames = torch.cat(order)
        decoded = Decoded(*(torch.cat(parts) for parts in zip(*later)))
        target = covered_shares(batch["covered"][:, -length:].flatten(0, 1))[frames]
        present, sure = batch["present"].flatten()[frames], batch["sure"].flatten()[frames]
        decoded_loss(losses, "recent", decoded, target, present, sure)
