"""How well the encoder's features tell things apart, apart from any tracking.

Pairs of images that no run has seen are encoded. With the true masks given, the mean of what memory keeps of a thing's
features in one image is compared with the same of all things of the other, and the most similar one is taken.
Line-ups (`scenes.make_lineup`) show what they go by: nine things of one surface can be told by their outlines alone,
and where three outlines come with three surfaces, either can be right without the other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_samexp.sam import load_model
from napari_samexp.sam.sam2 import Sam2
from training import scenes
from training.features import memory_tokens, shares
from training.memory import to_pixels
from training.recipe import SHARED

SEED = 600_000
SHOWN = 1.0  # tokens that a thing covers, from which on it counts


def mean_tokens(sam: Sam2, images: np.ndarray, instances: np.ndarray, side: int) -> tuple[Tensor, Tensor]:
    """Return the mean token of each thing and how many tokens it covers.

    Parameters
    ----------
    images
        (N, 2, H, W, 3) uint8.
    instances
        (N, 2, H, W) uint8.
    side
        At which images are encoded.

    Returns
    -------
    means : Tensor, shape (N, 2, K, E)
        Of length one; number 0 is ground.
    areas : Tensor, shape (N, 2, K)
    """
    numbers = torch.from_numpy(instances).flatten(0, 1)
    with torch.no_grad():
        pixels = [to_pixels(torch.from_numpy(each), side) for each in np.split(images, len(images))]
        embedding = torch.stack([sam.image_features(each)[0] for each in pixels])
        tokens = memory_tokens(sam, embedding)
        there = shares(numbers, tokens.shape[-1], int(instances.max()) + 1)
        there = there.unflatten(0, instances.shape[:2]).flatten(3)
        means = torch.einsum("ntkp,ntep->ntke", there, tokens.flatten(3))
    return functional.normalize(means, dim=3), there.sum(3)


def chosen(means: Tensor, areas: Tensor) -> list[tuple[int, int, int]]:
    """Return of each thing that both images show its number, the one that is taken for it, and among how many."""
    answers = []
    for (first, second), shown in zip(means, areas > SHOWN):
        there = [k for k in range(1, len(first)) if shown[1, k]]
        for number in there if len(there) > 1 else []:
            if shown[0, number]:
                best = int((second[there] @ first[number]).argmax())
                answers.append((number, there[best], len(there)))
    return answers


def told_apart(weights: str, count: int, side: int | None = None) -> dict[str, float]:
    """Return, of about `count` pairs of each kind, the share of things that are told right, and what chance would give."""
    model = load_model(weights, device="cpu")
    lineups = [scenes.make_lineup(SHARED, SEED + k) for k in range(2 * count)]
    one = [len(set(kinds[1:])) == scenes.LINEUP for *_, kinds in lineups]
    things, cells = replace(SHARED, microscopy=0.0), replace(SHARED, microscopy=1.0)
    pairs = {
        "one surface": [each[:2] for each, plain in zip(lineups, one) if plain],
        "three surfaces": [each[:2] for each, plain in zip(lineups, one) if not plain],
        "elsewhere": [scenes.make_shared(things, SEED + k) for k in range(count)],
        "cells": [scenes.make_shared(cells, SEED + k) for k in range(count)],
    }
    figures = {}
    for name, drawn in pairs.items():
        images, instances = (np.stack(each) for each in zip(*drawn))
        means = mean_tokens(model, images, instances, side or model.variant.image_size)
        number, answer, among = np.array(chosen(*means)).T
        figures[f"told by features, {name}"] = float((number == answer).mean())
        figures[f"the same by chance, {name}"] = float((1 / among).mean())
        if name == "three surfaces":  # numbers go through the surfaces of one outline first
            number, answer = number - 1, answer - 1
            figures["told by features, outline of three"] = float((number // 3 == answer // 3).mean())
            figures["told by features, surface of three"] = float((number % 3 == answer % 3).mean())
    return figures
