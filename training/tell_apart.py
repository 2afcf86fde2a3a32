"""Measure how well the encoder's features tell things apart, apart from any tracking.

Pairs of pictures that no run has seen are encoded. With the true masks given, the mean of what memory keeps of a thing's
features in one picture is compared with the same of all things of the other, and the most similar one is
taken. Line-ups (`scenes.make_lineup`) say what they go by: nine things of one surface can be told by their
outlines alone, and where three outlines come with three surfaces, either can be right without the other.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import scenes
import torch
import train
import train_pairs
from torch import Tensor
from torch.nn import functional

from napari_samexp.sam.models import Sam2

SEED = 600_000
SHOWN = 1.0  # tokens that a thing covers, from which on it counts
Pair = tuple[np.ndarray, np.ndarray]  # two pictures and the numbers of their things


def means_of(sam: Sam2, pictures: np.ndarray, things: np.ndarray, side: int) -> tuple[Tensor, Tensor]:
    """Return the mean token of each thing and how many tokens it covers.

    Parameters
    ----------
    pictures
        (N, 2, H, W, 3) uint8.
    things
        (N, 2, H, W) uint8.
    side
        At which pictures are encoded.

    Returns
    -------
    means : Tensor, shape (N, 2, K, E)
        Of length one; number 0 is ground.
    areas : Tensor, shape (N, 2, K)
    """
    with torch.no_grad():
        shown = [train.to_pixels(torch.from_numpy(each), side) for each in np.split(pictures, len(pictures))]
        embedding = torch.stack([sam.image_features(each)[0] for each in shown])
        tokens = train_pairs.kept_tokens(sam, embedding)
        numbers = torch.from_numpy(things).flatten(0, 1)
        there = (
            train_pairs.shares(numbers, tokens.shape[-1], int(things.max()) + 1)
            .unflatten(0, things.shape[:2])
            .flatten(3)
        )
        means = torch.einsum("ntkp,ntep->ntke", there, tokens.flatten(3))
    return functional.normalize(means, dim=3), there.sum(3)


def chosen(means: Tensor, areas: Tensor) -> list[tuple[int, int, int]]:
    """Return of each thing that both pictures show its number, the one that is taken for it, and among how many."""
    answers = []
    for (first, second), shown in zip(means, areas > SHOWN):
        there = [k for k in range(1, len(first)) if shown[1, k]]
        for number in there if len(there) > 1 else []:
            if shown[0, number]:
                best = int((second[there] @ first[number]).argmax())
                answers.append((number, there[best], len(there)))
    return answers


def figures(sam: Sam2, count: int, side: int) -> dict[str, dict[str, float]]:
    """Return, of each kind of pairs, the share of things that are told right, what chance would give, and their number."""
    config = train_pairs.SCENE
    lineups = [scenes.make_lineup(config, SEED + k) for k in range(2 * count)]
    one = [len(set(kinds[1:])) == scenes.LINEUP for _, _, kinds in lineups]
    pairs: dict[str, list[Pair]] = {
        "one surface": [each[:2] for each, plain in zip(lineups, one) if plain],
        "three surfaces": [each[:2] for each, plain in zip(lineups, one) if not plain],
        "elsewhere": [scenes.make_shared(replace(config, microscopy=0.0), SEED + k) for k in range(count)],
        "cells": [scenes.make_shared(replace(config, microscopy=1.0), SEED + k) for k in range(count)],
    }
    told = {}
    for name, drawn in pairs.items():
        pictures, things = (np.stack(each) for each in zip(*drawn))
        answers = np.array(chosen(*means_of(sam, pictures, things, side)))
        told[name] = {
            "right": float((answers[:, 0] == answers[:, 1]).mean()),
            "chance": float((1 / answers[:, 2]).mean()),
            "things": len(answers),
        }
        if name == "three surfaces":  # numbers go through the surfaces of one outline first
            outline, surface = ((answers[:, :2] - 1) // 3).T, ((answers[:, :2] - 1) % 3).T
            told[name]["right outline"] = float((outline[0] == outline[1]).mean())
            told[name]["right surface"] = float((surface[0] == surface[1]).mean())
    return told


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", nargs="+", type=Path)
    parser.add_argument("--pairs", type=int, default=100, help="of each kind, about")
    parser.add_argument("--side", type=int, default=384)
    args = parser.parse_args(words)
    for weights in args.weights:
        model = train.Starter()
        train.load_exported(model, weights)
        print(weights)
        for name, each in figures(model.sam, args.pairs, args.side).items():
            print(f"  {name:15}", ", ".join(f"{key} {value:.3g}" for key, value in each.items()), flush=True)


if __name__ == "__main__":
    main()
