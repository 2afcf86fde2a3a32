"""What a decoded mask, its predicted IoU and its presence cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from napari_samexp.sam.mask_decoder import Decoded

SHARPNESS = 0.1  # difference of predicted IoU at which one mask is clearly chosen before another


@dataclass
class Losses:
    """A sum of losses, and the figures for the log; both stay on the device until a line is written."""

    total: Tensor
    figures: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, loss: Tensor, weight: float = 1.0) -> None:
        """Add a loss, which is also a figure."""
        self.total = self.total + weight * loss
        self.figures[name] = loss.detach()


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """(..., h, w) logits and soft targets to (...) losses: cross entropy and soft Dice."""
    bce = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((-2, -1))
    p = logits.sigmoid()
    dice = 1 - (2 * (p * target).sum((-2, -1)) + 1) / (p.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    return 3 * bce + dice


def true_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of thresholded masks, (..., h, w) to (...)."""
    a, b = logits > 0, target > 0.5
    union = (a | b).sum((-2, -1))
    return torch.where(union > 0, (a & b).sum((-2, -1)) / union.clamp(min=1), 1.0)


def choice_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """(N, 4) predicted and true IoU to (N,): what choosing one of the masks from the second on gives away.

    An error of the predicted IoU matters most where it changes which mask is chosen.
    """
    chosen = ((predicted[:, 1:] / SHARPNESS).softmax(1) * true[:, 1:]).sum(1)
    return true[:, 1:].amax(1) - chosen


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

    Parameters
    ----------
    name
        ``click_1``, ``click_2`` or ``click_3`` by the number of tokens, ``track`` or ``recent``.
    decoded
        Masks (N, 4, h, w), predicted IoU (N, 4), presence (N,).
    target
        (N, h, w), the covered share of each pixel.
    present, sure
        (N,) bool: whether the object is there, and whether that is clear. Presence is asked where it is; of clicks
        nowhere, since what is clicked on is there.
    """
    masks, iou, presence = decoded.masks.float(), decoded.iou.float(), decoded.presence.float()
    targets = target[:, None].expand_as(masks)  # (N, 4, h, w)
    rows, trusted = torch.arange(len(masks), device=masks.device), 1 + iou[:, 1:].argmax(1)
    # inference takes the first mask of prompts that say enough, and one of the others elsewhere
    plain = name in ("click_2", "click_3")
    chosen = torch.zeros_like(rows) if plain else trusted
    shown = present.float()
    count = shown.sum().clamp(min=1)
    each = _each_loss(mask_loss(masks, targets), rows, trusted, plain)
    losses.add(f"{name}_mask", (each * shown).sum() / count, weight)
    true = true_iou(masks.detach(), targets)
    losses.add(f"{name}_iou", ((iou - true).abs().mean(1) * shown).sum() / count, 0.8 * weight)
    if not plain:
        losses.add(f"{name}_choice", (choice_loss(iou, true) * shown).sum() / count, 0.5 * weight)
    _presence_loss(losses, name, presence, present, sure, weight)
    losses.figures[f"{name}_J"] = (true[rows, chosen] * shown).sum() / count
    losses.figures[f"{name}_iou_error"] = ((iou - true)[rows, chosen].detach().abs() * shown).sum() / count


def _each_loss(each: Tensor, rows: Tensor, trusted: Tensor, plain: bool) -> Tensor:
    """Losses of all masks (N, 4) to those of the prompts (N,)."""
    best = each[:, 1:].min(dim=1).values
    several = 0.7 * best + 0.5 * each[rows, trusted]  # the best of three, and the one that will be chosen
    single, multiple = (1.2, 0.35) if plain else (0.2, 1.0)
    return single * each[:, 0] + multiple * several + 0.1 * each[:, 1:].mean(1)


def _presence_loss(
    losses: Losses, name: str, presence: Tensor, present: Tensor, sure: Tensor, weight: float
) -> None:
    if name.startswith("click"):
        losses.add(f"{name}_presence", functional.softplus(-presence).mean(), 0.3 * weight)
        return
    asked = functional.binary_cross_entropy_with_logits(
        presence, present.float(), sure.float(), reduction="sum"
    )
    losses.add(f"{name}_presence", asked / sure.sum().clamp(min=1), 0.4 * weight)
    right = ((presence > 0) == present) & sure
    losses.figures[f"{name}_presence_right"] = right.sum() / sure.sum().clamp(min=1)
