"""The same results in less time, chosen by one switch.

The modules in `sam/` show the forward of the papers. Beside each that has a faster way on some device there is
a module here: chunked attention and layers for a CPU's cache, windows computed once for several blocks, folded
convolutions, mixed precision, CUDA graphs. `reference` turns off all that computes in another order; so does
the environment variable ``NAPARI_SAMEXP_REFERENCE=1``, to find out whether a fast path is to blame.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["REFERENCE_VARIABLE", "is_enabled", "on_cpu", "reference"]

REFERENCE_VARIABLE = "NAPARI_SAMEXP_REFERENCE"

_enabled = os.environ.get(REFERENCE_VARIABLE, "") in ("", "0")


@contextmanager
def reference(only: bool = True) -> Iterator[None]:
    """Compute as the papers write it, in all threads of this process.

    Parameters
    ----------
    only : bool
        False turns the fast paths on instead. What was captured in a CUDA graph before stays as it was captured.
    """
    global _enabled
    before, _enabled = _enabled, not only
    try:
        yield
    finally:
        _enabled = before


def is_enabled() -> bool:
    """Whether fast paths are taken at all."""
    return _enabled


def on_cpu(x: Tensor) -> bool:
    """Whether `x` takes the fast paths of a CPU, which have no gradients."""
    return _enabled and x.device.type == "cpu" and not torch.is_grad_enabled()
