"""Attention on a CPU: the same sums as torch's own, ordered so that less is computed and less is moved.

What pays there: Torch's attention computes in float32 whatever the type, so that in bfloat16 plain matrix
products take a third of its time where a processor has instructions for it. And memories have a quarter of the channels that attention to them works
in: weighing the memories first and projecting the few outcomes gives the same values for less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["attend", "attend_on_grid", "attend_to_memory"]

CHUNK = 256  # queries whose scores are held at a time
AT_ONCE = 4096  # the same where products are short, which are too quick for small blocks to pay
LANES = 2  # chunks of queries that are multiplied in one batch: two threads share a single product badly
BLOCK = 512  # keys whose scores are held at a time, where blocks of keys add up
LEAST, MOST = 2.0**-60, 2.0**120  # between them a sum of powers is as exact as float32 is
LOG2_E = 1.4426950408889634
NOTHING = 2.0**-100  # a weight too small to change a sum: those of a row add up to one
PROBED = 16  # queries whose scores tell whether all are to be weighed without their largest taken from them
MANY = 1024  # keys from which a grid's terms are added to the scores of some queries at a time
SHORT = 32  # tokens; below, matrix products are too small to pay
FEW_SCORES = 2**22  # scores that are held at a time for many small windows


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
        return torch.stack([torch.stack([_chunked(*head) for head in zip(*one)]) for one in zip(q, k, v)])
    step = max(1, FEW_SCORES // each)
    parts = zip(q.split(step), k.split(step), v.split(step))
    return torch.cat([(a @ b.transpose(-1, -2)).softmax(-1) @ c for a, b, c in parts])


@contextmanager
def _short_products() -> Iterator[None]:
    """Let this process's matrix products of float32 round what they multiply to bfloat16 where the CPU has instructions.

    Sums and results stay float32: rounded scores would cost an attention three times as much precision
    as rounded queries and keys do. Elsewhere nothing changes.
    """
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # the program has set it with torch's newer names, and torch refuses a mixture
        yield
        return
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def attend_to_memory(q: Tensor, k: Tensor, memory: Tensor, project: nn.Linear, short: bool = False) -> Tensor:
    """Return softmax(q k^T / sqrt(C)) project(memory).

    Since every row of the softmax sums to one, this is project(softmax(q k^T / sqrt(C)) memory).

    Parameters
    ----------
    q : Tensor, shape (N or 1, L, C)
    k : Tensor, shape (N, S, C)
    memory : Tensor, shape (N, S, M)
    project : Linear, M to C
    short : bool
        Whether the two products with all memories round what they multiply to bfloat16.

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
        if not short:
            return _projected(project, [_weighed(*one, LANES * CHUNK, LANES) for one in zip(q, k, memory)])
        with _short_products():
            mixed = [_weighed(*one, AT_ONCE, 1) for one in zip(q, k, memory)]
        return _projected(project, mixed)
    # what all keys of a query have in common does not count; without it scores are small, and rounded less
    k = k - k.mean(dim=1, keepdim=True)
    return _projected(project, [_chunked(*one) for one in zip(q, k, memory)])


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
    if not _is_plain(q) or q.dtype != torch.float32 or k.shape[2] < MANY:
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


def _weighed(q: Tensor, k: Tensor, v: Tensor, at_once: int, most_lanes: int) -> Tensor:
    """(L, D) scaled, (S, D), (S, M) to (L, M), `at_once` queries at a time in so many lanes.

    The largest score of a row is not taken from the others before they become powers: float32 holds powers
    up to 2^127, so that a block of keys is done with once it was seen. Where a row's powers leave that range
    or vanish its chunk is computed anew as usual; of a model whose scores do so, some queries tell beforehand.
    """
    powers_of = q * LOG2_E
    if not _fits(powers_of[:: -(-len(q) // PROBED)] @ k.T):
        return _chunked(q, k, v)
    values = _with_one(v).T.contiguous()
    out = q.new_empty(len(q), v.shape[1])
    room = q.new_empty(min(BLOCK, len(k)) * min(at_once, len(q)))
    for start in range(0, len(q), at_once):
        chunk = slice(start, start + at_once)
        lanes = most_lanes if len(q[chunk]) % most_lanes == 0 else 1
        part = powers_of[chunk].unflatten(0, (lanes, -1)).transpose(1, 2)
        mixed = q.new_zeros(lanes, len(values), part.shape[2])
        for keys, some in zip(k.split(BLOCK), values.split(BLOCK, dim=1)):
            # keys are the rows: both products are faster so
            scores = room[: len(keys) * lanes * part.shape[2]].view(lanes, len(keys), -1)
            torch.bmm(keys.expand(lanes, -1, -1), part, out=scores)
            mixed.baddbmm_(some.expand(lanes, -1, -1), scores.exp2_())
        if not _divide(mixed.transpose(1, 2), out[chunk].unflatten(0, (lanes, -1))):
            out[chunk] = _chunked(q[chunk], k, v)
    return out


def _fits(scores: Tensor) -> bool:
    """Whether powers of two of scores (L, S) have sums over S that `_divide` accepts, as their largest tell."""
    highest = scores.amax(dim=1)
    return bool(((highest > math.log2(LEAST)) & (highest < math.log2(MOST))).all())


def _with_one(v: Tensor) -> Tensor:
    """Values with one more channel that is 1: what is summed there is the sum of the weights."""
    return torch.cat((v, v.new_ones(len(v), 1)), dim=1)


def _divide(mixed: Tensor, out: Tensor) -> bool:
    """Divide sums by their last channel, the sum of the weights; False where float32 could not hold them."""
    total = mixed[..., -1:]
    torch.div(mixed[..., :-1], total, out=out)
    return bool(((total > LEAST) & (mixed.abs() < MOST)).all())


def _chunked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(L, D) scaled, (S, D), (S, M) to (L, M), with the scores of `CHUNK` queries in one reused buffer."""
    out = q.new_empty(len(q), v.shape[1])
    room = q.new_empty(min(CHUNK, len(q)), len(k))
    for start in range(0, len(q), CHUNK):
        part = q[start : start + CHUNK]
        scores = torch.mm(part, k.T, out=room[: len(part)])
        torch.softmax(scores, -1, out=scores)
        if scores.dtype == torch.float32:
            # sharp attention has weights below the range in which a CPU multiplies at full speed
            torch.threshold_(scores, NOTHING, 0.0)
        torch.mm(scores, v, out=out[start : start + CHUNK])
    return out
