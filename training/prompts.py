"""Prompts that ask for masks, drawn on the device: nothing here waits for a number or depends on one."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

MOST = 3  # tokens of a prompt: up to three points, or the two corners of a box and a point
FINE, COARSE = 4, 16  # pixels of the image in one of the decoder's masks and of the encoder's features
KIND_ENDS = (
    0.5,
    0.57,
    0.7,
    0.85,
    1.0,
)  # summed shares of one to three clicks, of a box, and of a box and a click
TRIES = 8  # places of which the one with most of the thing around it is clicked on

Groups = list[tuple[int, Tensor]]  # numbers of tokens, each with the prompts that have so many


def covered_shares(covered: Tensor, cell: int = FINE) -> Tensor:
    """(N, h, w) pixels of each 4 x 4 that are covered to covered shares, on a grid of `cell` pixels."""
    whole = covered.float() / FINE**2
    return whole if cell == FINE else functional.avg_pool2d(whole[:, None], cell // FINE)[:, 0]


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
    chance = torch.rand(len(counted), math.prod(shape), device=counted.device)
    which = (chance * total).to(counted.dtype).clamp(max=total - 1) + 1
    return torch.searchsorted(counted, which).clamp(max=counted.shape[1] - 1).view(-1, *shape)


def draw_clicks(target: Tensor) -> tuple[Tensor, Tensor]:
    """Return clicks on N masks (N, H, W) that are not empty: (N, 3, 2) points and (N, 3) labels.

    The first is inside, the others on either side; most of those inside are deep ones.
    """
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
    """Return the corners (N, 2, 2) of boxes around N masks, each side up to a tenth off."""
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
    """Return which prompt each of some masks gets: one to three clicks (1-3), a box (4), or both (5)."""
    ends = np.round(np.array(KIND_ENDS) * count).astype(int)
    return np.random.default_rng(5).permutation(1 + np.searchsorted(ends, np.arange(count), side="right"))


def group_by_count(kinds: np.ndarray, device: torch.device) -> Groups:
    """Return which of some prompts have one, two and three tokens, each in the order of chance."""
    counts, rng = np.array((1, 2, 3, 2, 3))[kinds - 1], np.random.default_rng(6)
    places = [(count, rng.permutation(np.flatnonzero(counts == count))) for count in (1, 2, 3)]
    return [(count, torch.from_numpy(mine).to(device)) for count, mine in places if len(mine)]


def corrective_click(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return a click (N, 1, 2) and its label (N, 1) in the middle of the largest error of each mask.

    Logits and target are (N, h, w); the click is in input pixels, four times as fine.
    """
    mask, true = logits > 0, target > 0.5
    wrong = torch.stack((~true & mask, true & ~mask), 1).float()  # (N, 2, h, w), by label
    depth = functional.avg_pool2d(wrong, 5, 1, 2) + 0.01 * torch.rand_like(wrong)
    where = (depth * wrong + 1e-3 * wrong).flatten(1).argmax(1)
    height, width = mask.shape[1:]
    label, place = where // (height * width), where % (height * width)
    # where nothing is wrong, any point inside
    chance = torch.where(true.flatten(1), torch.rand_like(true.flatten(1), dtype=torch.float32), -1)
    nothing = wrong.flatten(1).sum(1) == 0
    place, label = torch.where(nothing, chance.argmax(1), place), torch.where(nothing, 1, label)
    xy = torch.stack((place % width, place // width), 1) * FINE + 1.5
    return xy[:, None], label[:, None]
