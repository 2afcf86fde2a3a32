"""A model whose heavy parts become faster once their inputs' shapes have settled: compiled, or recorded on a GPU.

While a run's memory fills, every frame looks at more tokens than the one before; compiling for each length would
take far longer than it saves. So a part is computed as it is until shapes come back, and is then compiled or
recorded for just these shapes. At most a few shapes of a part are.

A CUDA graph is recorded of each part on a GPU: to start a frame's two thousand small pieces of work one by one
takes a processor several times as long as they take the GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, UntypedStorage, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from napari_samexp.errors import SettingsError
from napari_samexp.sam.hiera import ImageEncoder, nested
from napari_samexp.sam.models import Sam2

__all__ = ["Recorded", "ShapeCache", "compile_model"]

Model = TypeVar("Model", bound=Sam2)
Start = Callable[[], object]
Record = Callable[[Callable[[], Any]], tuple[Start, Any]]
PARTS = ("image_features", "before_recall", "recall", "track", "encode_memory")
SETTLED = 3  # calls with the same shapes before they are compiled for
MOST_SHAPES = 4  # of one part that are compiled


class ShapeCache:
    """A function of tensors that is compiled for shapes that come back.

    Parameters
    ----------
    function : callable
        Its arguments, and what it returns, are tensors, sequences of them, and plain values.
    compile : callable
        Returns a faster function, which is only called with one layout of arguments; `torch.compile` with its
        options, or `Recorded`.
    """

    def __init__(self, function: Callable[..., Any], compile: Callable[[Any], Any]) -> None:
        self._function, self._compile = function, compile
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
        with warnings.catch_warnings():
            # it remarks that tables which we keep are computed in the compiled part instead
            warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`")
            return _each(Tensor.clone, fast(*given, **named))  # a graph's next start would overwrite it

    def _settle(self, key: Any) -> Callable[..., Any] | None:
        self._seen[key] = self._seen.get(key, 0) + 1
        if self._seen[key] < SETTLED or len(self.compiled) >= MOST_SHAPES:
            if len(self._seen) > 64:  # shapes that never come back are no reason to remember them
                self._seen.clear()
            return None
        self.compiled[key] = self._compile(self._function)
        return self.compiled[key]


class Recorded:
    """A function whose work on a GPU is recorded at its first call, and started as one piece from then on.

    Where it cannot be recorded it is called as it is, and a warning says why.

    Parameters
    ----------
    function : callable
        As that of `ShapeCache`, called with one layout of arguments. It was called before, so that tables which it
        keeps are there; and what it does follows from that layout alone, not from the numbers in the tensors.
    device : torch.device
        Where all its tensors are.
    record : callable
        Takes a function without arguments, calls it, and returns what does its work again and what it returned.
    """

    def __init__(self, function: Callable[..., Any], device: torch.device, record: Record) -> None:
        self._function, self._device, self._record = function, device, record
        self._tried = False
        self._start: Start | None = None
        self._rooms: list[Tensor] = []  # where the recorded work reads its arguments
        self._out: Any = None
        self._used: _Used | None = None

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Return what the function returns, in memory that the next call overwrites."""
        if torch.is_grad_enabled():  # recorded work keeps no gradients
            return self._function(*given, **named)
        if not self._tried:
            self._tried = True
            try:
                self._prepare(given, named)
            except RuntimeError as error:  # also all that CUDA and torch's compiler raise
                said = f"A part of the model stays slower, since its work could not be recorded: {error}"
                warnings.warn(said, RuntimeWarning, stacklevel=3)
        if self._start is None:
            return self._function(*given, **named)
        for room, tensor in zip(self._rooms, _tensors((given, named))):
            room.copy_(tensor)
        self._start()
        return self._out

    def _prepare(self, given: Any, named: Any) -> None:
        with torch.inference_mode(False):  # rooms that may be written to in every mode
            given, named = _each(torch.empty_like, (given, named))
        self._rooms = list(_tensors((given, named)))
        for room in self._rooms:
            room.zero_()  # numbers left in memory might be none
        run = partial(self._function, *given, **named)
        self._used = _Used(self._device)
        with self._used:
            run()
        self._used.keep()
        self._start, self._out = self._record(run)


class _Used(TorchDispatchMode):
    """Sees which memory work uses, and keeps what is still there after it: recorded work goes on reading that.

    A table that the model keeps for the grid of the last image is replaced when an image has another grid.
    Raises `RuntimeError` where work goes between devices or numbers are read: a recording cannot wait for that.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device
        self._seen: dict[int, StorageWeakRef] = {}
        self.kept: list[UntypedStorage] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = operation(*args, **kwargs)
        if isinstance(out, int | float):
            raise RuntimeError(f"{operation} reads a number from the device.")
        if any(tensor.device.type != self._device.type for tensor in _tensors((args, kwargs, out))):
            raise RuntimeError(f"{operation} has tensors that are not on the device {self._device}.")
        for tensor in _tensors((args, kwargs)):
            memory = tensor.untyped_storage()
            self._seen.setdefault(memory._cdata, StorageWeakRef(memory))
        return out

    def keep(self) -> None:
        """Keep what was seen and is still there."""
        there = [UntypedStorage._new_with_weak_ptr(seen.cdata) for seen in self._seen.values()]
        self.kept = [memory for memory in there if memory is not None]
        self._seen.clear()


def compile_model(model: Model, *, graphs_only: bool = False, **options: Any) -> Model:
    """Let the encoder, memory attention, mask decoder and memory encoder of a model become faster as they settle.

    On a CUDA device torch fuses the small operations of blocks, which takes it seconds at the first frame, and
    a CUDA graph is recorded of each part. On a CPU each part is compiled as a whole.

    Parameters
    ----------
    model : Sam2
        Is changed, and returned. Results differ from before by rounding only. Its weights may be changed in
        their places, but not moved.
    graphs_only : bool
        Record CUDA graphs of the model as it is, for which nothing is compiled.
    **options
        For `torch.compile`, in the place of ``dynamic=False``.

    Raises
    ------
    SettingsError
        If only graphs are wanted and the model is on no CUDA device.

    Notes
    -----
    torch needs a C++ compiler on a CPU and Triton on a GPU. On a CPU the first frames after the memory is full
    take as long as compiling does, about a minute.
    """
    device = model.device
    on_gpu = device.type == "cuda"
    if graphs_only and not on_gpu:
        raise SettingsError(f"CUDA graphs need a CUDA device, but the model is on {device.type}.")
    compile: Callable[[Any], Any] = partial(torch.compile, **({"dynamic": False} | options))
    if on_gpu:
        if not graphs_only:
            fuse(model, compile)
        record = partial(_record_graph, device, torch.cuda.graph_pool_handle())
        compile = partial(Recorded, device=device, record=record)
    for name in PARTS:
        setattr(model, name, ShapeCache(getattr(model, name), compile))
    return model


def fuse(model: Sam2, compile: Callable[[Any], Any]) -> None:
    """Compile the blocks of a model one by one: equal ones are compiled once, and small ones in seconds.

    Attention to memories is not among them: what is compiled computes its tables of places anew, on the CPU.
    """
    parts: list[tuple[nn.Module, str]] = [
        (model.sam_mask_decoder, "forward"),
        (model.memory_encoder, "forward"),
    ]
    if isinstance(model.image_encoder, ImageEncoder):
        blocks = list(model.image_encoder.trunk.blocks)
        _, count = nested(blocks)
        parts += [(block, "inside" if i < count else "forward") for i, block in enumerate(blocks)]
    for part, name in parts:
        plain = getattr(part, name)
        setattr(part, name, _unless_watched(compile(plain), plain))


def _unless_watched(fast: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is plain under a dispatch mode: what torch was asked to compile there stays slow."""

    def call(*given: Any, **named: Any) -> Any:
        function = plain if torch._C._len_torch_dispatch_stack() else fast
        return function(*given, **named)

    return call


def _record_graph(device: torch.device, pool: Any, run: Callable[[], Any]) -> tuple[Start, Any]:
    """Record a CUDA graph of what a function does.

    Graphs may share the memory of `pool`, since no two run at a time and results are copied at once.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device):
        current, beside = torch.cuda.current_stream(), torch.cuda.Stream()
        try:
            beside.wait_stream(current)
            with torch.cuda.stream(beside):
                run()  # libraries prepare themselves for each stream
            current.wait_stream(beside)
            # other threads may go on working
            with torch.cuda.graph(graph, pool=pool, stream=beside, capture_error_mode="thread_local"):
                out = run()
        except BaseException:
            _end_recording(device)
            raise
        finally:
            torch.cuda.set_stream(current)  # a recording that fails leaves the other one
    return graph.replay, out


def _end_recording(device: torch.device) -> None:
    """Let random numbers be drawn on a device again, which takes a recording that failed for one that goes on."""
    index = torch.cuda.current_device() if device.index is None else device.index
    generator = torch.cuda.default_generators[index]
    with suppress(AttributeError, RuntimeError):  # earlier releases of torch have no such states
        generator.graphsafe_set_state(generator.clone_state())


def _layout(value: Any) -> Any:
    """Return what a compiled function depends on: the shapes and types of tensors, and all other values."""
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.stride(), value.dtype, value.device)
    if isinstance(value, tuple | list):
        return tuple(_layout(part) for part in value)
    if isinstance(value, dict):
        return tuple((key, _layout(part)) for key, part in sorted(value.items()))
    return value


def _each(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return a value with each tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _each(change, part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        parts = [_each(change, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a value, those of a mapping in the order of its keys."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for part in [value[key] for key in sorted(value)] if isinstance(value, dict) else value:
            yield from _tensors(part)
