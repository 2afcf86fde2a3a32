"""Attention to memory: one object at a time on a CPU, all keys at once on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from napari_samexp.sam.fast import on_cpu
from napari_samexp.sam.position_encoding import Rope, rotate, rotate_

__all__ = ["one_by_one", "rotated"]


def one_by_one(
    run: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, keys: Tensor, memory: Tensor
) -> Tensor:
    """Run the layers for one object after the other: projected keys take four times the place of a memory.

    Parameters
    ----------
    x : Tensor, shape (N or 1, h w, D)
    keys, memory : Tensor, shape (N, L, mem_dim)

    Returns
    -------
    Tensor, shape (N, h w, D)
    """
    if len(memory) == 1:
        return run(x, keys, memory)
    objects = zip(x.expand(len(memory), -1, -1).split(1), keys.split(1), memory.split(1))
    return torch.cat([run(*one) for one in objects])


def rotated(k: Tensor, ropes: Sequence[Rope]) -> Tensor:
    """Return keys (N, L, C) with the tokens of each spatial memory rotated; those after them are pointers."""
    lengths = [len(cos) for cos, _ in ropes]
    if lengths and not on_cpu(k) and all(rope is ropes[0] for rope in ropes):
        # memories one after the other would be many launches for a GPU
        spatial, pointers = k.tensor_split([sum(lengths)], dim=1)
        together = rotate(spatial.unflatten(1, (len(ropes), -1)), ropes[0])  # (N, M, h w, C)
        return torch.cat((together.flatten(1, 2), pointers), dim=1)
    if torch.is_grad_enabled():
        *spatial_parts, pointers = k.split([*lengths, k.shape[1] - sum(lengths)], dim=1)
        return torch.cat([*(rotate(part, rope) for part, rope in zip(spatial_parts, ropes)), pointers], dim=1)
    for part, rope in zip(k[:, : sum(lengths)].split(lengths, dim=1), ropes):
        rotate_(part, rope)
    return k
