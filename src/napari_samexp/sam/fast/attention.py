"""Attention on a CPU in chunks: the same sums as torch's own, in an order that computes and moves less.

torch's attention computes in float32 whatever the dtype, so plain matrix products in bfloat16 take a third of
its time on a processor with instructions for them. And memories have a quarter of the channels of the attention
to them: weighted sums of the memories that are projected afterwards have the same values for less work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.fast import on_cpu

__all__ = ["attend", "attend_on_grid", "attend_to_memory"]

CHUNK = 256  # queries whose scores are in memory at a time
LOW_PRECISION_CHUNK = 4096  # the same for bfloat16 products, which are too fast for small chunks to pay
LANES = 2  # chunks that are multiplied in one batch: two threads share a single product badly
BLOCK = 512  # keys whose scores are in memory at a time, where sums go on over blocks of keys
MIN_SUM, MAX_SUM = 2.0**-60, 2.0**120  # between them a sum of powers is as exact as float32 is
LOG2_E = 1.4426950408889634
NEGLIGIBLE = 2.0**-100  # a weight too small to change a sum: those of a row add up to one
PROBES = 16  # queries whose scores show whether a softmax without subtracting the maximum will do
MANY_KEYS = 1024  # from which on a grid's terms are added to the scores of a chunk at a time
MIN_KEYS = 32  # below, matrix products are too small to pay
MAX_SCORES = 2**22  # scores in memory at a time for many small windows


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
    if not _is_chunked(q) or q.dtype != torch.bfloat16 or k.shape[2] < MIN_KEYS:
        return functional.scaled_dot_product_attention(q, k, v)
    q = q * q.shape[-1] ** -0.5
    scores = q.shape[1] * q.shape[2] * k.shape[2]  # of one batch item
    if scores > MAX_SCORES:
        return torch.stack(
            [torch.stack([_softmax_chunks(*head) for head in zip(*one)]) for one in zip(q, k, v)]
        )
    step = max(1, MAX_SCORES // scores)
    parts = zip(q.split(step), k.split(step), v.split(step))
    return torch.cat([(a @ b.transpose(-1, -2)).softmax(-1) @ c for a, b, c in parts])


@contextmanager
def _low_precision_products() -> Iterator[None]:
    """Let float32 matrix products of this process round their factors to bfloat16, where the CPU has instructions for it.

    Sums and results stay float32: rounded scores would cost an attention three times as much precision as
    rounded queries and keys do.
    """
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # the program uses torch's newer settings, which cannot be mixed with this one
        yield
        return
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def attend_to_memory(
    q: Tensor, k: Tensor, memory: Tensor, project: nn.Linear, low_precision: bool = False
) -> Tensor:
    """Return softmax(q k^T / sqrt(C)) project(memory).

    Since every row of the softmax sums to one, this is project(softmax(q k^T / sqrt(C)) memory).

    Parameters
    ----------
    q : Tensor, shape (N or 1, L, C)
    k : Tensor, shape (N, S, C)
    memory : Tensor, shape (N, S, M)
    project : Linear, M to C
    low_precision : bool
        Whether the two products with all memory tokens round their factors to bfloat16.

    Returns
    -------
    Tensor, shape (N, L, C)
    """
    q = q.expand(len(k), -1, -1)  # (N, L, C)
    if not _is_chunked(q):
        out = functional.scaled_dot_product_attention(q[:, None], k[:, None], project(memory)[:, None])
        return out[:, 0]
    q = q * q.shape[-1] ** -0.5
    if q.dtype == torch.float32:
        if not low_precision:
            return _projected(project, [_unshifted(*one, LANES * CHUNK, LANES) for one in zip(q, k, memory)])
        with _low_precision_products():
            mixed = [_unshifted(*one, LOW_PRECISION_CHUNK, 1) for one in zip(q, k, memory)]
        return _projected(project, mixed)
    # a softmax ignores what all scores of a query have in common; without it they are smaller, and rounded less
    k = k - k.mean(dim=1, keepdim=True)
    return _projected(project, [_softmax_chunks(*one) for one in zip(q, k, memory)])


def _projected(project: nn.Linear, mixed: list[Tensor]) -> Tensor:
    out: Tensor = project(torch.stack(mixed))
    return out


def _is_chunked(q: Tensor) -> bool:
    return on_cpu(q) and q.dtype in (torch.float32, torch.bfloat16)


def attend_on_grid(q: Tensor, k: Tensor, v: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(D) + down + right) v for keys on a grid, with a term for each row and column.

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
    if not _is_chunked(q) or q.dtype != torch.float32 or k.shape[2] < MANY_KEYS:
        bias = (down[..., :, None] + right[..., None, :]).flatten(3)  # (n, heads, L, H x W)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    parts = (x.flatten(0, 1) for x in (q * q.shape[-1] ** -0.5, k, v, down, right))
    return torch.stack([_grid_chunks(*one) for one in zip(*parts)]).view_as(q)


def _grid_chunks(q: Tensor, k: Tensor, v: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """(L, D) scaled, (S, D), (S, D), (L, H), (L, W) to (L, D); see `_unshifted`."""
    values = _with_one(v)  # (S, D + 1)
    out = q.new_empty(len(q), v.shape[1])
    buffer = q.new_empty(min(CHUNK, len(q)), len(k))
    for start in range(0, len(q), CHUNK):
        chunk = slice(start, start + CHUNK)
        part, rows, columns = q[chunk], down[chunk], right[chunk]
        scores = buffer[: len(part)]
        torch.add(rows[:, :, None], columns[:, None, :], out=scores.view(len(part), rows.shape[1], -1))
        scores.addmm_(part, k.T).mul_(LOG2_E).exp2_()
        if not _divide(scores @ values, out[chunk]):
            bias = (rows[:, :, None] + columns[:, None, :]).flatten(1)
            out[chunk] = torch.softmax(torch.addmm(bias, part, k.T), dim=-1) @ v
    return out


def _unshifted(q: Tensor, k: Tensor, v: Tensor, at_once: int, most_lanes: int) -> Tensor:
    """(L, D) scaled, (S, D), (S, M) to (L, M), without subtracting each row's maximum first.

    float32 holds powers of two up to 127, so a block of keys is read only once. Where a row's sum leaves the
    range that is exact, its chunk is computed anew in the usual way; if the scores of a few probed queries
    leave it, all are. `at_once` queries at a time go in up to `most_lanes` lanes.
    """
    exponents = q * LOG2_E
    if not _fits(exponents[:: -(-len(q) // PROBES)] @ k.T):
        return _softmax_chunks(q, k, v)
    values = _with_one(v).T.contiguous()  # (M + 1, S)
    out = q.new_empty(len(q), v.shape[1])
    buffer = q.new_empty(min(BLOCK, len(k)) * min(at_once, len(q)))
    for start in range(0, len(q), at_once):
        chunk = slice(start, start + at_once)
        lanes = most_lanes if len(q[chunk]) % most_lanes == 0 else 1
        part = exponents[chunk].unflatten(0, (lanes, -1)).transpose(1, 2)
        mixed = q.new_zeros(lanes, len(values), part.shape[2])  # sums so far, (lanes, M + 1, queries)
        for keys, some in zip(k.split(BLOCK), values.split(BLOCK, dim=1)):
            # (lanes, keys, queries): both products are faster this way round
            scores = buffer[: len(keys) * lanes * part.shape[2]].view(lanes, len(keys), -1)
            torch.bmm(keys.expand(lanes, -1, -1), part, out=scores)
            mixed.baddbmm_(some.expand(lanes, -1, -1), scores.exp2_())
        if not _divide(mixed.transpose(1, 2), out[chunk].unflatten(0, (lanes, -1))):
            out[chunk] = _softmax_chunks(q[chunk], k, v)
    return out


def _fits(scores: Tensor) -> bool:
    """Whether the largest of scores (L, S) promise sums of powers of two that `_divide` accepts."""
    highest = scores.amax(dim=1)
    return bool(((highest > math.log2(MIN_SUM)) & (highest < math.log2(MAX_SUM))).all())


def _with_one(v: Tensor) -> Tensor:
    """Return values with one more channel of ones, which adds up the weights."""
    return torch.cat((v, v.new_ones(len(v), 1)), dim=1)


def _divide(mixed: Tensor, out: Tensor) -> bool:
    """Divide weighted sums by their last channel, the sum of the weights; False if any is out of range."""
    total = mixed[..., -1:]  # (..., 1)
    torch.div(mixed[..., :-1], total, out=out)
    return bool(((total > MIN_SUM) & (mixed.abs() < MAX_SUM)).all())


def _softmax_chunks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(L, D) scaled, (S, D), (S, M) to (L, M), the scores of `CHUNK` queries at a time in one buffer."""
    out = q.new_empty(len(q), v.shape[1])
    buffer = q.new_empty(min(CHUNK, len(q)), len(k))
    for start in range(0, len(q), CHUNK):
        part = q[start : start + CHUNK]
        scores = torch.mm(part, k.T, out=buffer[: len(part)])
        torch.softmax(scores, -1, out=scores)
        if scores.dtype == torch.float32:
            # sharp attention has weights so small (subnormal) that a CPU multiplies them slowly
            torch.threshold_(scores, NEGLIGIBLE, 0.0)
        torch.mm(scores, v, out=out[start : start + CHUNK])
    return out
