"""Steps: what changes the weights, and how one is recorded as a CUDA graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.features import Anchor
from training.model import Starter, soften
from training.muon import Muon
from training.sampling import Sampler


def make_optimisers(model: Starter, lr: Tensor) -> list[torch.optim.Optimizer]:
    """Return Muon for the weights of linear layers and of their like among convolutions, and AdamW for the rest.

    The last layers of small heads, tokens, norms and position tables are no maps from many channels to many.
    """
    matrices, others = [], []
    for name, value in model.named_parameters():
        shape = value.flatten(1).shape if value.ndim in (2, 4) else (0,)
        wide = min(shape) >= 32 and value.shape[2:].numel() == 1
        (matrices if wide and "pos_embed" not in name else others).append(value)
    adam = torch.optim.AdamW(others, lr=lr, weight_decay=0.02, betas=(0.9, 0.98))
    return [Muon(matrices, lr=lr, weight_decay=0.02), adam]


class Learner:
    """Changes weights, and their average, by gradients; nothing in it waits for the device.

    Parameters
    ----------
    model
        What learns, on its device.
    lr
        The first learning rate.
    """

    def __init__(self, model: Starter, lr: float) -> None:
        self.model, device = model, model.readout.weight.device
        self.lr = torch.tensor(lr, device=device)
        self.decay = torch.ones((), device=device)  # of the averaged weights
        self.optimisers = make_optimisers(model, self.lr)
        self.average: dict[str, Tensor] = {}

    def begin(self, start: Path | None, factors: Sequence[float]) -> None:
        """Begin from exported weights, if any, whose attention to memories is softened."""
        if start:
            self.model.load(start)
            soften(self.model.sam, factors)
        self.average = {key: value.clone() for key, value in self.model.state_dict().items()}
        self._make_state()

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self._make_state()

    def state(self) -> dict[str, Any]:
        """Return all that a run goes on from."""
        optimisers = [each.state_dict() for each in self.optimisers]
        return {"model": self.model.state_dict(), "average": self.average, "optimisers": optimisers}

    def memory(self) -> list[Tensor]:
        """Return what the optimisers remember."""
        states = (state for each in self.optimisers for state in each.state.values())
        return [value for state in states for value in state.values()]

    def change(self) -> Tensor:
        """Change everything that has a gradient; return the norm of the gradients.

        Gradients that are no numbers count as zero.
        """
        learnt = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(learnt, 1.0)
        for p in learnt:
            p.grad.nan_to_num_(0.0, 0.0, 0.0)
        for each in self.optimisers:
            each.step()
        self._blend()
        return norm

    @torch.no_grad()
    def _blend(self) -> None:
        now, means = self.model.state_dict(), list(self.average.values())
        apart = torch._foreach_sub([now[key] for key in self.average], means)
        torch._foreach_mul_(apart, 1 - self.decay)
        torch._foreach_add_(means, apart)

    def _make_state(self) -> None:
        """Make all that steps change, at the places where recorded steps look for it."""
        for group in (group for each in self.optimisers for group in each.param_groups):
            group["lr"] = self.lr  # a loaded one is another tensor, or a number
            group["capturable"] = self.lr.is_cuda
        if any(each.state for each in self.optimisers):
            return
        for p in self.model.parameters():
            p.grad = torch.zeros_like(p)
        lr = self.lr.clone()
        self.lr.zero_()
        for each in self.optimisers:
            each.step()
        self.lr.copy_(lr)
        for tensor in self.memory():
            tensor.zero_()
        self.model.zero_grad(set_to_none=True)


class Step:
    """A kind of step, on CUDA recorded once and then replayed."""

    def __init__(self, learner: Learner, anchor: Anchor | None, sampler: Sampler, true_memory: float) -> None:
        self.learner, self.anchor, self.sampler, self.true_memory = learner, anchor, sampler, true_memory
        self.graph: torch.cuda.CUDAGraph | None = None
        self.names: list[str] = []
        self.sums = torch.zeros(0)
        self.count = 0

    def warm_up(self) -> None:
        """Let everything that is made once be made, beside the stream that records, and change nothing."""
        learner = self.learner
        memory = [tensor.clone() for tensor in learner.memory()]
        lr, decay = learner.lr.clone(), learner.decay.clone()
        learner.lr.zero_()
        learner.decay.fill_(1)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self._compute()
        torch.cuda.current_stream().wait_stream(aside)
        torch.cuda.synchronize()
        for tensor, kept in zip(learner.memory(), memory, strict=True):
            tensor.copy_(kept)
        learner.lr.copy_(lr)
        learner.decay.copy_(decay)
        self.figures()
        torch.cuda.empty_cache()

    def record(self, memory: Any = None) -> Any:
        """Record the step; it can compute in the memory of others, which never run at the same time."""
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=memory, capture_error_mode="thread_local"):
            self._compute()
        self.figures()
        return self.graph.pool()

    def run(self) -> None:
        """Take other scenes and change the weights."""
        self.sampler.choose()
        if self.graph is None:
            self._compute()
        else:
            self.graph.replay()
        self.count += 1

    def figures(self) -> dict[str, float]:
        """Return the sums of the figures of all steps since the last call."""
        sums = dict(zip(self.names, self.sums.tolist()))
        self.sums.zero_()
        self.count = 0
        return sums

    def _compute(self) -> None:
        model = self.learner.model
        model.train_encoder_only(self.sampler.config.encoder_only)
        model.zero_grad(set_to_none=True)
        losses = self.sampler.losses(model, self.anchor, self.true_memory)
        losses.total.backward()
        figures = losses.figures | {"norm": self.learner.change()}
        if not self.names:
            self.names = list(figures)
            self.sums = torch.zeros(len(figures), device=losses.total.device)
        self.sums += torch.stack([figure.detach().float() for figure in figures.values()])
        model.zero_grad(set_to_none=True)
