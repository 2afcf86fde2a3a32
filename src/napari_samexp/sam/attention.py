"""Attention on a CPU: the same sums as torch's own, ordered so that less is computed and less is moved.

What pays there: Torch's attention computes in float32 whatever the type, so that in bfloat16 plain matrix
products take a third of its time where a processor has instructions for it. And memories have a quarter of the channels that attention to them works
in: weighing the memories first and projecting the few outcomes gives the same values for less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "OnAxes",
    "attend",
    "attend_on_axes",
    "attend_on_grid",
    "attend_to_memory",
    "pays_on_axes",
    "weighed",
]

CHUNK = 256  # queries whose scores are held at a time
QUERIES, BLOCK = 512, 1024  # queries and keys whose scores are held at a time, where blocks of keys add up
LEAST, MOST = 2.0**-60, 2.0**120  # between them a sum of powers is as exact as float32 is
LOG2_E = 1.4426950408889634
WORTH, SMALL = (
    0.9,
    128,
)  # share of the usual work, and keys of a row or column, from which rows and columns pay
SHORT = 32  # tokens; below, matrix products are too small to pay
FEW_SCORES = 2**22  # scores that are held at a time for many small windows, or rows of a grid


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(D)) v.

    Parameters
    ----------
    q : Tensor, shape (B, heads, L, D)
    k, v : Tensor, shape (B, heads, S, D)

    Returns
    -------
    Tensor, shape (B, heads, L, D)
    """
    if not _is_plain(q) or q.dtype != torch.bfloat16 or k.shape[2] < SHORT:
        return functional.scaled_dot_product_attention(q, k, v)
    q = q * q.shape[-1] ** -0.5
    each = q.shape[1] * q.shape[2] * k.shape[2]
    if each > FEW_SCORES:
        return torch.stack([torch.stack([weighed(*head) for head in zip(*one)]) for one in zip(q, k, v)])
    step = max(1, FEW_SCORES // each)
    parts = zip(q.split(step), k.split(step), v.split(step))
    return torch.cat([(a @ b.transpose(-1, -2)).softmax(-1) @ c for a, b, c in parts])


def attend_to_memory(q: Tensor, k: Tensor, memory: Tensor, project: nn.Linear) -> Tensor:
    """Return softmax(q k^T / sqrt(C)) project(memory).

    Since every row of the softmax sums to one, this is project(softmax(q k^T / sqrt(C)) memory).

    Parameters
    ----------
    q : Tensor, shape (N or 1, L, C)
    k : Tensor, shape (N, S, C)
    memory : Tensor, shape (N, S, M)
    project : Linear, M to C

    Returns
    -------
    Tensor, shape (N, L, C)
    """
    q = q.expand(len(k), -1, -1)
    if not _is_plain(q):
        out = functional.scaled_dot_product_attention(q[:, None], k[:, None], project(memory)[:, None])
        return out[:, 0]
    q = q * q.shape[-1] ** -0.5
    if q.dtype == torch.float32:
        return _projected(project, [_weighed(*one) for one in zip(q, k, memory)])
    # what all keys of a query have in common does not count; without it scores are small, and rounded less
    k = k - k.mean(dim=1, keepdim=True)
    return _projected(project, [weighed(*one) for one in zip(q, k, memory.to(q.dtype))])


def pays_on_axes(queries: Tensor, grid_hw: tuple[int, int], memories: int, channels: int) -> bool:
    """Whether `attend_on_axes` is less work than `attend_to_memory` for memories of some channels on one grid."""
    if not _is_plain(queries) or queries.dtype != torch.float32:
        return False
    (height, width), dim = grid_hw, queries.shape[-1]
    usual = memories * height * width * dim
    parts = memories * height * width * 2 * (channels + 1) + (height + width) * dim // 2 * (channels + 1)
    return memories * min(height, width) >= SMALL and parts < WORTH * usual


@dataclass(frozen=True)
class OnAxes:
    """What is remembered of one object, ordered for `attend_on_axes`; the same for all layers.

    Parameters
    ----------
    rows : Tensor, shape (H, T W, M + 1)
        The keys of T memories on one grid before they are projected and turned, and a channel that is 1.
    columns : Tensor, shape (W, H T, M + 1)
        The same once more.
    values : Tensor, shape (M + 1, H T W)
        Memories, in the order of the rows.
    others, other_values : Tensor, shapes (P, M) and (M + 1, P)
        Keys and memories without a place.
    """

    rows: Tensor
    columns: Tensor
    values: Tensor
    others: Tensor
    other_values: Tensor

    @classmethod
    def of(cls, keys: Tensor, memory: Tensor, grid_hw: tuple[int, int], memories: int) -> OnAxes:
        """Order keys and memory (S, M), of which T memories on a grid come first."""
        height, width = grid_hw
        spatial = memories * height * width
        placed = _with_one(keys[:spatial]).view(memories, height, width, -1)
        values = _with_one(memory[:spatial]).view(memories, height, width, -1)
        return cls(
            placed.transpose(0, 1).reshape(height, memories * width, -1),
            placed.permute(2, 1, 0, 3).reshape(width, height * memories, -1),
            values.permute(3, 1, 0, 2).reshape(values.shape[3], -1),
            keys[spatial:],
            _with_one(memory[spatial:]).T.contiguous(),
        )


def attend_on_axes(
    q: Tensor,
    seen: OnAxes,
    project_key: nn.Linear,
    turn_rows: Callable[[Tensor], Tensor],
    turn_columns: Callable[[Tensor], Tensor],
    usual: Callable[[slice], Tensor],
) -> Tensor:
    """Return softmax(q k^T / sqrt(C)) memory for keys k that are projected from few channels and turned by their places.

    Half of the channels of a key is turned by its column and half by its row. So the product of a query and
    a key is a sum of two, and in each the turned projection can go to the query's side once for a whole row or
    column: what is left to multiply are the M channels of the memories, not the C that they are projected to, and
    keys are neither projected nor turned.

    Parameters
    ----------
    q : Tensor, shape (L, C)
        Turned queries.
    seen : OnAxes
    project_key : Linear, M to C
    turn_rows, turn_columns : callable
        Turn (H or W, M + 1, C / 2) halves of keys of each row or column.
    usual : callable
        Computes the result for some of the queries in the usual way, where float32 cannot hold the powers of scores.

    Returns
    -------
    Tensor, shape (L, M)
    """
    height, stretch, channels = seen.rows.shape
    width = len(seen.columns)
    memories, half = stretch // width, q.shape[-1] // 2
    weight = torch.cat((project_key.weight, cast(Tensor, project_key.bias)[:, None]), dim=1).T
    # columns turn the first half of the channels, rows the second
    to_columns = turn_columns(weight[None, :, :half].expand(width, -1, -1)).flatten(0, 1)
    to_rows = turn_rows(weight[None, :, half:].expand(height, -1, -1)).flatten(0, 1)
    others = project_key(seen.others)
    powers_of = q * (q.shape[-1] ** -0.5 * LOG2_E)
    out = q.new_empty(len(q), channels - 1)
    at_once = max(1, min(height, FEW_SCORES // (stretch * min(QUERIES, len(q)))))
    room = q.new_empty(at_once * stretch * min(QUERIES, len(q)))
    for start in range(0, len(q), QUERIES):
        chunk = slice(start, start + QUERIES)
        part = powers_of[chunk].T
        for_columns = torch.mm(to_columns, part[:half]).view(width, channels, -1)
        for_rows = torch.mm(to_rows, part[half:]).view(height, channels, -1)
        mixed = torch.mm(seen.other_values, torch.mm(others, part).exp2_())
        for top in range(0, height, at_once):
            some = seen.rows[top : top + at_once]
            count = len(some)
            scores = room[: count * stretch * part.shape[1]].view(count, stretch, -1)
            by_column = scores.view(count * memories, width, -1)
            keys = slice(top * memories, (top + count) * memories)
            for column, (these, wanted) in enumerate(zip(seen.columns, for_columns)):
                torch.mm(these[keys], wanted, out=by_column[:, column])
            scores.baddbmm_(some, for_rows[top : top + count])
            values = seen.values[:, top * stretch : (top + count) * stretch]
            mixed.addmm_(values, scores.exp2_().flatten(0, 1))
        if not _divide(mixed.T, out[chunk]):
            out[chunk] = usual(chunk)
    return out


def _projected(project: nn.Linear, mixed: list[Tensor]) -> Tensor:
    out: Tensor = project(torch.stack(mixed))
    return out


def _is_plain(q: Tensor) -> bool:
    return (
        q.device.type == "cpu" and q.dtype in (torch.float32, torch.bfloat16) and not torch.is_grad_enabled()
    )


def attend_on_grid(q: Tensor, k: Tensor, v: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(D) + down + right) v for keys on a grid, whose rows and columns have a term each.

    Parameters
    ----------
    q : Tensor, shape (n, heads, L, D)
    k, v : Tensor, shape (n, heads, H x W, D)
    down : Tensor, shape (n, heads, L, H)
    right : Tensor, shape (n, heads, L, W)

    Returns
    -------
    Tensor, shape (n, heads, L, D)
    """
    if not _is_plain(q) or q.dtype != torch.float32 or k.shape[2] < BLOCK:
        bias = (down[..., :, None] + right[..., None, :]).flatten(3)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    parts = (x.flatten(0, 1) for x in (q * q.shape[-1] ** -0.5, k, v, down, right))
    return torch.stack([_on_grid(*one) for one in zip(*parts)]).view_as(q)


def _on_grid(q: Tensor, k: Tensor, v: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """(L, D) scaled, (S, D), (S, D), (L, H), (L, W) to (L, D); see `_weighed`."""
    values = _with_one(v)
    out = q.new_empty(len(q), v.shape[1])
    room = q.new_empty(min(CHUNK, len(q)), len(k))
    for start in range(0, len(q), CHUNK):
        chunk = slice(start, start + CHUNK)
        part, rows, columns = q[chunk], down[chunk], right[chunk]
        scores = room[: len(part)]
        torch.add(rows[:, :, None], columns[:, None, :], out=scores.view(len(part), rows.shape[1], -1))
        scores.addmm_(part, k.T).mul_(LOG2_E).exp2_()
        if not _divide(scores @ values, out[chunk]):
            bias = (rows[:, :, None] + columns[:, None, :]).flatten(1)
            out[chunk] = torch.softmax(torch.addmm(bias, part, k.T), dim=-1) @ v
    return out


def _weighed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(L, D) scaled, (S, D), (S, M) to (L, M).

    The largest score of a row is not taken from the others before they become powers: float32 holds powers
    up to 2^127, so that a block of keys is done with once it was seen. Where a row's powers leave that range
    or vanish, which takes scores beyond what trained models have, its chunk is computed anew as usual.
    """
    powers_of, values = q * LOG2_E, _with_one(v).T.contiguous()
    out = q.new_empty(len(q), v.shape[1])
    room = q.new_empty(min(BLOCK, len(k)) * min(QUERIES, len(q)))
    for start in range(0, len(q), QUERIES):
        chunk = slice(start, start + QUERIES)
        part = powers_of[chunk]
        mixed = q.new_zeros(len(values), len(part))
        for keys, some in zip(k.split(BLOCK), values.split(BLOCK, dim=1)):
            # keys are the rows: both products are faster so
            scores = torch.mm(keys, part.T, out=room[: len(keys) * len(part)].view(len(keys), -1))
            mixed.addmm_(some, scores.exp2_())
        if not _divide(mixed.T, out[chunk]):
            out[chunk] = weighed(q[chunk], k, v)
    return out


def _with_one(v: Tensor) -> Tensor:
    """Values with one more channel that is 1: what is summed there is the sum of the weights."""
    return torch.cat((v, v.new_ones(len(v), 1)), dim=1)


def _divide(mixed: Tensor, out: Tensor) -> bool:
    """Divide sums by their last channel, the sum of the weights; False where float32 could not hold them."""
    total = mixed[:, -1:]
    torch.div(mixed[:, :-1], total, out=out)
    return bool(((total > LEAST) & (mixed.abs() < MOST)).all())


def weighed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T) v of one head: (L, D), (S, D), (S, M) to (L, M), with the scores of `CHUNK` queries in one reused buffer."""
    out = q.new_empty(len(q), v.shape[1])
    room = q.new_empty(min(CHUNK, len(q)), len(k))
    for start in range(0, len(q), CHUNK):
        part = q[start : start + CHUNK]
        scores = torch.mm(part, k.T, out=room[: len(part)])
        torch.mm(torch.softmax(scores, -1, out=scores), v, out=out[start : start + CHUNK])
    return out
