"""Mixed precision on a CPU: large matrix products in bfloat16, all that would suffer in float32."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from napari_samexp.sam.memory import RotaryAttention

__all__ = ["WORTH", "gain", "mix"]

WORTH = 1.4  # bfloat16 products have to be this many times as fast as float32 ones to be chosen
SIDE = 256  # of the measured matrices: without instructions for bfloat16, a product takes a tenth of a second
LONGEST = 0.3  # seconds after which no further product is measured


def mix(model: nn.Module, kind: torch.dtype) -> None:
    """Convert the linear layers of the image encoder, and the attention to memory, to another dtype.

    These are most of a frame's work. What flows between them stays float32: residual sums, norms, positions,
    scores, memories, and all of the mask decoder, whose logits are thresholded at 0. So parameters keep their
    names, and only the encoder's weights change dtype. Memory attention's self-attention and MLPs stay float32
    too: they are little work, and runs stay closer together.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name.startswith("image_encoder."):
            layer.to(kind).register_forward_pre_hook(_round_input)
        elif isinstance(layer, RotaryAttention) and name.endswith(".cross_attn_image"):
            layer.low_precision = True


def _round_input(layer: nn.Module, args: Any) -> tuple[Tensor, ...]:
    (x,) = args
    return (x.to(layer.weight.dtype),)


@lru_cache(maxsize=1)
def gain() -> float:
    """Return how many times as fast as float32 this CPU multiplies in bfloat16; measured once, in less than a second.

    Without instructions for it a CPU takes several times as long, whatever flags it reports.
    """
    return _seconds(torch.float32) / _seconds(torch.bfloat16)


def _seconds(kind: torch.dtype, tries: int = 9) -> float:
    """Return the shortest time of a pair of products as layers and attention have them."""
    with torch.inference_mode():
        a, b = (torch.ones(SIDE, SIDE, dtype=kind) for _ in range(2))
        times: list[float] = []
        while len(times) <= tries and sum(times) < LONGEST:
            start = time.perf_counter()
            a @ b.T
            a @ b
            times.append(time.perf_counter() - start)
    return min(times[1:] or times)  # the first one warms up
