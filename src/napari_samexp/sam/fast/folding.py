"""Layers that follow each other and are one, computed as one. Parameters stay as the file has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Kept", "Kernel", "is_trained", "kernel", "on_pixels"]

T = TypeVar("T")
Kernel = tuple[Tensor, Tensor]  # a convolution's weight (out, in / groups, h, w) and bias (out,)


class Kept(Generic[T]):
    """What was made of parameters, which themselves stay as the file has them.

    So a state dict always has the official keys and numbers, and a parameter that is changed is seen.
    """

    def __init__(self) -> None:
        self._made_of: list[Tensor] = []
        self._key: tuple[object, ...] = ()
        self._made: T | None = None

    def of(self, made_of: list[Tensor], make: Callable[[], T], *also: object) -> T:
        """Return what `make` returns, which is called anew if a tensor or a value of `also` is another or has changed."""
        key = (
            also,
            *((id(t), t.data_ptr(), t.dtype, 0 if t.is_inference() else t._version) for t in made_of),
        )
        if self._made is None or key != self._key:
            # no inference tensors, although first made within `inference_mode`
            with torch.inference_mode(False), torch.no_grad():
                self._made = make()
            self._made_of, self._key = made_of, key  # held, so that no other tensor gets the same `id`
        return self._made

    def __deepcopy__(self, memo: object) -> Kept[T]:
        return Kept()


def kernel(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Kernel:
    """Return a convolution in a type, its weight laid out with the channels last."""
    return weight.to(dtype).contiguous(memory_format=torch.channels_last), bias.to(dtype)


def is_trained(module: nn.Module, x: Tensor) -> bool:
    """Whether gradients or statistics are wanted, so that every parameter has to be used as it is."""
    if module.training or not torch.is_grad_enabled():
        return module.training
    return x.requires_grad or any(parameter.requires_grad for parameter in module.parameters())


def on_pixels(x: Tensor, kernel: Kernel) -> Tensor:
    """Apply a 1 x 1 convolution: (..., in) to (..., out). With the channels last it is a matrix product."""
    weight, bias = kernel
    return functional.linear(x, weight.flatten(1), bias)
