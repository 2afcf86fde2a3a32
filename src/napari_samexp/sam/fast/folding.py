"""Convolutions in a row, or beside each other, as one. Parameters stay as the file has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.fast import is_enabled

__all__ = ["Cached", "Kernel", "folds", "kernel", "on_pixels"]

T = TypeVar("T")
Kernel = tuple[Tensor, Tensor]  # a convolution's weight (out, in / groups, h, w) and bias (out,)


class Cached(Generic[T]):
    """A value computed from parameters, which is computed anew when one of them has changed.

    So a state dict always has the official keys and values.
    """

    def __init__(self) -> None:
        self._sources: list[Tensor] = []
        self._key: tuple[object, ...] = ()
        self._value: T | None = None

    def get(self, sources: list[Tensor], compute: Callable[[], T], *also: object) -> T:
        """Return the value; `compute` is called if a tensor or a value of `also` is another than the last time."""
        key = (
            also,
            *((id(t), t.data_ptr(), t.dtype, 0 if t.is_inference() else t._version) for t in sources),
        )
        if self._value is None or key != self._key:
            # no inference tensor, even if first computed within `inference_mode`
            with torch.inference_mode(False), torch.no_grad():
                self._value = compute()
            self._sources, self._key = sources, key  # referenced, so that no other tensor gets the same `id`
        return self._value

    def __deepcopy__(self, memo: object) -> Cached[T]:
        return Cached()


def kernel(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Kernel:
    """Return a convolution's weight and bias in a dtype, the weight in channels-last layout."""
    return weight.to(dtype).contiguous(memory_format=torch.channels_last), bias.to(dtype)


def folds(module: nn.Module, x: Tensor) -> bool:
    """Whether a module may use folded parameters: not while it is trained, nor for gradients."""
    if module.training or not is_enabled():
        return False
    if not torch.is_grad_enabled():
        return True
    return not (x.requires_grad or any(parameter.requires_grad for parameter in module.parameters()))


def on_pixels(x: Tensor, kernel: Kernel) -> Tensor:
    """Apply a 1 x 1 convolution to (..., in): (..., out). With channels last it is a matrix product."""
    weight, bias = kernel
    return functional.linear(x, weight.flatten(1), bias)
