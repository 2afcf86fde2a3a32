"""What the encoder's features shall be: alike for one thing, unlike for two, and telling of outlines."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from napari_samexp.sam.build import new_model
from napari_samexp.sam.sam2 import Sam2
from training.losses import Losses
from training.model import STARTER, Starter, load_weights, memory_projection

CLEAR = 0.4  # share of a token that a thing covers, from which on the token is asked about it
SEEN = 0.35  # tokens that a thing covers, from which on it counts as shown
NUMBERS = 20  # of things of an image, with the ground; cells have at most 18
SCALE = 10.0  # logit of a thing whose tokens have a cosine of 1
UNKNOWN = -1  # kind of ground's outline
NOTHING = 6.0  # logit of ground
OTHERS = -2.0  # added to the logits of things of other scenes
# Weights of how far features move from where they were: memory's part may, the rest and the high-res ones shall not.
OUTSIDE, HIGH_RES, INSIDE = 0.9, 0.6, 0.015
POOLED, BY_TOKEN, KEPT = 1.0, 0.7, 0.35  # weights of what says the kind of an outline

Features = tuple[Tensor, tuple[Tensor, ...]]  # embedding and high-res features


def shares(instances: Tensor, size: int, numbers: int = NUMBERS) -> Tensor:
    """(N, H, W) numbers of things to (N, K, size, size): the share of each token that each of K covers, ground first."""
    each = instances[:, None] == torch.arange(numbers, device=instances.device)[:, None, None]
    return functional.adaptive_avg_pool2d(each.float(), size)


def memory_tokens(sam: Sam2, embedding: Tensor) -> Tensor:
    """Features (N, T, D, h, w) to what memory keeps of them, less its mean, of length one: (N, T, E, h, w)."""
    tokens = torch.einsum("ed,ntdhw->ntehw", memory_projection(sam), embedding.float())
    return functional.normalize(tokens - tokens.mean((0, 1, 3, 4), keepdim=True), dim=2)


def likeness(sam: Sam2, embedding: Tensor, instances: Tensor, numbers: int = NUMBERS) -> Tensor:
    """Return the loss between the first two images of each scene, both ways.

    The embedding is (N, 1 + T, D, h, w); the numbers of things, below `numbers`, (N, 1 + T, H, W).
    """
    tokens, instances = memory_tokens(sam, embedding[:, :2]), instances[:, :2]
    there = shares(instances.flatten(0, 1), tokens.shape[-1], numbers).unflatten(0, instances.shape[:2])
    ways = ((0, 1), (1, 0))
    losses = [likeness_loss(tokens[:, a], there[:, a], tokens[:, b], there[:, b]) for a, b in ways]
    return torch.stack(losses).mean()


def likeness_loss(known: Tensor, known_shares: Tensor, seen: Tensor, seen_shares: Tensor) -> Tensor:
    """Return how badly the tokens of one image say which thing of another image they are.

    Parameters
    ----------
    known, seen : Tensor, shape (N, D, h, w)
        Tokens of length one of the image whose things are known, and of the one that is asked.
    known_shares, seen_shares : Tensor, shape (N, K, h, w)
        What `shares` gives.

    Returns
    -------
    Tensor, shape ()
        A cross entropy, in which every thing counts alike and ground as two. What is not in the known image is
        ground there, and so are the things of other scenes.
    """
    known_shares, seen_shares, tokens = known_shares.flatten(2), seen_shares.flatten(2), seen.flatten(2)
    means = functional.normalize(known_shares @ known.flatten(2).transpose(1, 2), dim=2)  # (N, K, D)
    shown = known_shares.sum(2) > SEEN
    shown[:, 0] = False
    logits = (SCALE * means @ tokens).masked_fill(~shown[:, :, None], -1e4)  # (N, K, h w)
    nothing = _ground_logit(means, shown, tokens)
    predicted = torch.cat((nothing, logits[:, 1:]), 1).log_softmax(1)
    unknown = ~shown[:, :, None]
    unknown[:, 0] = False
    target = seen_shares.masked_fill(unknown, 0)
    target[:, 0] += (seen_shares * unknown).sum(1)
    weight = seen_shares / seen_shares.sum(2, keepdim=True).clamp(min=2)
    weight[:, 0] *= 2
    weight = weight.sum(1)
    return -((target * predicted).sum(1) * weight).sum() / weight.sum()


def _ground_logit(means: Tensor, shown: Tensor, tokens: Tensor) -> Tensor:
    """Logits (N, 1, P) of being ground, or a thing of another scene."""
    scenes, kinds = shown.shape
    scene = torch.arange(scenes, device=tokens.device).repeat_interleave(kinds)
    # all of them, and those that are not shown without weight: a GPU would wait for their number
    others = SCALE * torch.einsum("md,ndp->nmp", means.flatten(0, 1), tokens)
    own = scene == torch.arange(scenes, device=tokens.device)[:, None]
    others = others.masked_fill((own | ~shown.flatten())[:, :, None], -1e4)
    ground = torch.full_like(others[:, :1], NOTHING)
    return torch.cat((others + OTHERS, ground), 1).logsumexp(1, keepdim=True)


def outline_losses(
    losses: Losses, model: Starter, embedding: Tensor, instances: Tensor, kinds: Tensor
) -> None:
    """Add how badly the kinds of outlines are said: from each token, from what memory keeps of it, from a whole thing.

    Parameters
    ----------
    embedding : Tensor, shape (N, D, h, w)
    instances : Tensor, shape (N, H, W)
        Numbers of things.
    kinds : Tensor, shape (N, K), int64
        Of each number the kind of the outline, -1 of ground.
    """
    there = shares(instances, embedding.shape[-1], kinds.shape[1])[:, 1:].flatten(2)  # (N, K - 1, h w)
    kinds, area, tokens = kinds[:, 1:], there.sum(2), embedding.float().flatten(2).transpose(1, 2)
    most, thing = there.max(1)
    mine = kinds.gather(1, thing).masked_fill(most < CLEAR, UNKNOWN)
    weight = (mine != UNKNOWN) / area.gather(1, thing).clamp(min=2)
    weight = weight / weight.sum().clamp(min=1e-6)
    kept = 8 * functional.normalize(tokens @ memory_projection(model.sam).T, dim=2)
    losses.add("outline", (_kind_loss(model.by_token(tokens), mine) * weight).sum(), BY_TOKEN)
    losses.add("outline_kept", (_kind_loss(model.kept(kept), mine) * weight).sum(), KEPT)
    whole = area.clamp(min=1)[..., None]
    mean = there @ tokens / whole
    spread = (there @ tokens**2 / whole - mean**2).clamp(min=1e-4).sqrt()
    target = kinds.masked_fill(area <= 1, UNKNOWN)
    predicted, count = model.pooled(torch.cat((mean, spread), 2)), (target != UNKNOWN).sum().clamp(min=1)
    losses.add("outline_whole", _kind_loss(predicted, target).sum() / count, POOLED)
    losses.figures["outline_right"] = (predicted.argmax(2) == target).sum() / count


def _kind_loss(logits: Tensor, kinds: Tensor) -> Tensor:
    """(N, M, C) logits and (N, M) kinds to cross entropies (N, M), zero where the kind is unknown."""
    return functional.cross_entropy(logits.transpose(1, 2), kinds, reduction="none", ignore_index=UNKNOWN)


class Anchor:
    """The model that a run began with, near which features stay while the encoder learns alone.

    Parameters
    ----------
    weights
        Exported weights.
    device
        Where the model computes.
    """

    def __init__(self, weights: Path, device: torch.device) -> None:
        self.sam = new_model(STARTER)
        load_weights(self.sam, weights)
        self.sam.requires_grad_(False).to(device)
        self.basis = torch.linalg.qr(memory_projection(self.sam).T)[0]


def change_loss(basis: Tensor, now: Features, before: Features) -> Tensor:
    """Return how far features have moved, relative to their variance: little may what memory does not keep.

    The basis (d_model, 3/4 mem_dim) is of what it keeps.
    """
    kept = [torch.einsum("ndhw,de,fe->nfhw", each[0].float(), basis, basis) for each in (now, before)]
    pairs = [(now[0] - kept[0], before[0] - kept[1]), *zip(now[1], before[1]), (kept[0], kept[1])]
    moved = [((a.float() - b.float()) ** 2).mean() / b.float().var((0, 2, 3)).mean() for a, b in pairs]
    weights = (OUTSIDE, HIGH_RES, HIGH_RES, INSIDE)
    return torch.stack([weight * each for weight, each in zip(weights, moved)]).sum()
