"""Muon, an optimiser for matrices, in float32 and for many matrices at once.

torch has one, but it computes in bfloat16 and takes one matrix after the other: on a CPU without units for
bfloat16 that costs more than a training step.

Source: Keller Jordan and others, "Muon: an optimizer for hidden layers in neural networks", 2024; the
scale of a step after "Muon is scalable for LLM training" (arXiv 2502.16982), which makes learning rates and
weight decay mean what they mean for AdamW.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonal"]

# of the quintic polynomial that moves all singular values towards one, fast rather than exactly
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return (N, A, B) matrices with the same singular vectors and singular values of about one."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose direction is made orthogonal before each step.

    Parameters
    ----------
    params
        Tensors of two or more axes; all but the first are taken as one, as of convolutions.
    lr, weight_decay
        As of AdamW.
    momentum
        Share of the past that is kept at each step.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, weight_decay: float = 0.02, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Change all parameters that have a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
                past = self.state[p]["momentum"]
                past.lerp_(p.grad, 1 - group["momentum"])
                direction = p.grad.lerp(past, group["momentum"]).flatten(1)
                alike[direction.shape].append((p, direction))
            for shape, pairs in alike.items():
                changes = orthogonal(torch.stack([direction for _, direction in pairs]))
                scale = 0.2 * max(shape) ** 0.5
                for (p, _), change in zip(pairs, changes):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.sub_(change.view_as(p) * (group["lr"] * scale))  # the rate may be on the device
