"""A model whose heavy parts are compiled by torch once their inputs' shapes have settled.

While a run's memory fills, every frame looks at more tokens than the one before; compiling for each length would
take far longer than it saves. So a part is computed as it is until shapes come back, and is then compiled for just
these shapes, static ones, with which torch can record CUDA graphs. At most a few shapes of a part are compiled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from napari_samexp.sam.models import Sam2

__all__ = ["Settled", "compile_model"]

Model = TypeVar("Model", bound=Sam2)
SETTLED = 3  # calls with the same shapes before they are compiled for
MOST_SHAPES = 4  # of one part that are compiled


class Settled:
    """A function of tensors that is compiled for shapes that come back.

    Parameters
    ----------
    function : callable
        Its arguments, and what it returns, are tensors, sequences of them, and plain values.
    compile : callable
        Returns a faster function; `torch.compile` with its options.
    before : callable
        Called before each call of a faster function.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        compile: Callable[[Any], Any],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._function, self._compile, self._before = function, compile, before
        self._seen: dict[Any, int] = {}
        self.compiled: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Return what the function returns, in memory of its own."""
        key = _layout((given, named))
        fast = self.compiled.get(key)
        if fast is None:
            fast = self._settle(key)
        if fast is None:
            return self._function(*given, **named)
        self._before()
        with warnings.catch_warnings():
            # it remarks that tables which we keep are computed in the compiled part instead
            warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`")
            return _copied(fast(*given, **named))  # a graph's next replay would overwrite it

    def _settle(self, key: Any) -> Callable[..., Any] | None:
        self._seen[key] = self._seen.get(key, 0) + 1
        if self._seen[key] < SETTLED or len(self.compiled) >= MOST_SHAPES:
            if len(self._seen) > 64:  # shapes that never come back are no reason to remember them
                self._seen.clear()
            return None
        self.compiled[key] = self._compile(self._function)
        return self.compiled[key]


def compile_model(model: Model, **options: Any) -> Model:
    """Let the encoder, memory attention, mask decoder and memory encoder of a model be compiled as they settle.

    Parameters
    ----------
    model : Sam2
        Is changed, and returned. Results differ from before by rounding only.
    **options
        For `torch.compile`, in the place of ``dynamic=False`` and, on a CUDA device, ``mode="reduce-overhead"``,
        which records CUDA graphs.

    Notes
    -----
    torch needs a C++ compiler on a CPU and Triton on a GPU. The first frames after the memory is full take as
    long as compiling does, about a minute.
    """
    chosen: dict[str, Any] = {"dynamic": False}
    if model.device.type == "cuda":
        chosen["mode"] = "reduce-overhead"
    chosen |= options
    before = torch.compiler.cudagraph_mark_step_begin if model.device.type == "cuda" else _nothing

    def compile(function: Any) -> Any:
        return torch.compile(function, **chosen)

    for name in ("image_features", "before_recall", "recall", "track", "encode_memory"):
        setattr(model, name, Settled(getattr(model, name), compile, before))
    return model


def _nothing() -> None: ...


def _layout(value: Any) -> Any:
    """Return what a compiled function depends on: the shapes and types of tensors, and all other values."""
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.stride(), value.dtype, value.device)
    if isinstance(value, tuple | list):
        return tuple(_layout(part) for part in value)
    if isinstance(value, dict):
        return tuple((key, _layout(part)) for key, part in sorted(value.items()))
    return value


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, tuple):
        parts = [_copied(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
