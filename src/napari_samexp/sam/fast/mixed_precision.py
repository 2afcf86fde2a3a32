"""Fast mode on a CPU: large matrix products in bfloat16, and everything that would lose by it in float32."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from napari_samexp.sam.memory import RotaryAttention

__all__ = ["WORTH", "gain", "mix"]

WORTH = 1.4  # times as fast as float32 that bfloat16 has to multiply before it is taken unasked
SIDE = 256  # of the matrices in the test: without instructions, a product takes a tenth of a second
LONGEST = 0.3  # seconds after which no further product is tried


def mix(model: nn.Module, kind: torch.dtype) -> None:
    """Let the linear layers of the image encoder, and the attention to memories, multiply in another type.

    These are most of a frame's work. What flows between them stays float32: sums over the layers,
    norms, positions, scores, memories, and all of the mask decoder, whose logits are cut at 0. So parameters
    keep their names, and only the encoder's weights their type. How a frame's tokens look at each other and are
    fed forward stays float32 too, which is little work and keeps runs closer together.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name.startswith("image_encoder."):
            layer.to(kind).register_forward_pre_hook(_rounded)
        elif isinstance(layer, RotaryAttention) and name.endswith(".cross_attn_image"):
            layer.short = True


def _rounded(layer: nn.Module, given: Any) -> tuple[Tensor, ...]:
    (x,) = given
    return (x.to(layer.weight.dtype),)


@lru_cache(maxsize=1)
def gain() -> float:
    """Return how many times as fast as float32 this CPU multiplies in bfloat16; tried once a process, in a second.

    Without instructions for it a CPU takes several times as long, whatever it says of itself.
    """
    return _seconds(torch.float32) / _seconds(torch.bfloat16)


def _seconds(kind: torch.dtype, tries: int = 9) -> float:
    """Return the shortest time of the two kinds of product that layers and attention have."""
    with torch.inference_mode():
        a, b = (torch.ones(SIDE, SIDE, dtype=kind) for _ in range(2))
        taken: list[float] = []
        while len(taken) <= tries and sum(taken) < LONGEST:
            start = time.perf_counter()
            a @ b.T
            a @ b
            taken.append(time.perf_counter() - start)
    return min(taken[1:] or taken)  # the first prepares
