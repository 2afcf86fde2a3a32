"""torch.compile and CUDA graphs for the parts of a SAM 2, once the shapes of their inputs repeat.

While the memory of a run fills up, every frame attends to more tokens than the one before, and compiling for
each length would take far longer than it saves. So a part runs eagerly until a shape has come back a few times;
it is then compiled, or captured in a CUDA graph, for that shape alone, and at most for a few shapes.

A CUDA graph spares the CPU the launch of a frame's two thousand kernels, which takes it several times as long as
the GPU takes to run them.
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
from napari_samexp.sam.hiera import ImageEncoder
from napari_samexp.sam.sam2 import Sam2

__all__ = ["CapturedFunction", "ShapeCache", "compile_model"]

Model = TypeVar("Model", bound=Sam2)
Replay = Callable[[], object]
Capture = Callable[[Callable[[], Any]], tuple[Replay, Any]]
PARTS = ("image_features", "before_recall", "recall", "track", "encode_memory")
MIN_CALLS = 3  # with the same shapes before they are compiled for
MAX_SHAPES = 4  # of one part that are compiled for
MAX_COUNTED = 64  # shapes whose calls are counted


class ShapeCache:
    """A function of tensors that is compiled for shapes that repeat.

    Parameters
    ----------
    function : callable
        Its arguments and results are tensors, sequences of them, and plain values.
    compile : callable
        Returns a faster function, which is only called with one layout of arguments; `torch.compile` with its
        options, or `CapturedFunction`.
    """

    def __init__(self, function: Callable[..., Any], compile: Callable[[Any], Any]) -> None:
        self._function, self._compile = function, compile
        self._calls: dict[Any, int] = {}
        self.compiled: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the function returns, in memory of its own."""
        key = _layout((args, kwargs))
        fast = self.compiled.get(key) or self._compile_if_due(key)
        if fast is None:
            return self._function(*args, **kwargs)
        with warnings.catch_warnings():
            # Dynamo traces through the caches of our tables and warns of each
            warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`")
            return _map(Tensor.clone, fast(*args, **kwargs))  # a graph's next replay would overwrite it

    def _compile_if_due(self, key: Any) -> Callable[..., Any] | None:
        self._calls[key] = self._calls.get(key, 0) + 1
        if self._calls[key] < MIN_CALLS or len(self.compiled) >= MAX_SHAPES:
            if len(self._calls) > MAX_COUNTED:  # shapes that never repeat must not fill the memory
                self._calls.clear()
            return None
        self.compiled[key] = self._compile(self._function)
        return self.compiled[key]


class CapturedFunction:
    """A function whose GPU work is captured at the first call and replayed from then on.

    Where it cannot be captured it runs eagerly, and a warning says why.

    Parameters
    ----------
    function : callable
        As that of `ShapeCache`, called with one layout of arguments. It has run before, so that the tables which
        it caches are there; and what it does follows from that layout alone, not from the values of the tensors.
    device : torch.device
        Where all its tensors are.
    capture : callable
        Takes a function without arguments, calls it, and returns a function that replays its work, and the result.
    """

    def __init__(self, function: Callable[..., Any], device: torch.device, capture: Capture) -> None:
        self._function, self._device, self._capture = function, device, capture
        self._tried = False
        self._replay: Replay | None = None
        self._inputs: list[Tensor] = []  # which the captured work reads
        self._out: Any = None
        self._storages: _Storages | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the function returns, in memory that the next call overwrites."""
        if torch.is_grad_enabled():  # a graph records no gradients
            return self._function(*args, **kwargs)
        if not self._tried:
            self._tried = True
            try:
                self._prepare(args, kwargs)
            except RuntimeError as error:  # also all that CUDA and torch's compiler raise
                message = f"A part of the model stays slower, since it could not be captured in a CUDA graph: {error}"
                warnings.warn(message, RuntimeWarning, stacklevel=3)
        if self._replay is None:
            return self._function(*args, **kwargs)
        for own, tensor in zip(self._inputs, _tensors((args, kwargs))):
            own.copy_(tensor)
        self._replay()
        return self._out

    def _prepare(self, args: Any, kwargs: Any) -> None:
        with torch.inference_mode(False):  # tensors that may be written to in every mode
            args, kwargs = _map(torch.empty_like, (args, kwargs))
        self._inputs = list(_tensors((args, kwargs)))
        for own in self._inputs:
            own.zero_()  # whatever was in the memory might be NaN
        run = partial(self._function, *args, **kwargs)
        self._storages = _Storages(self._device)
        with self._storages:
            run()
        self._storages.hold()
        self._replay, self._out = self._capture(run)


class _Storages(TorchDispatchMode):
    """The storages that work uses. Those that outlive it are held, since the captured work goes on reading them.

    A table that the model caches for the grid of the last image is replaced when an image has another grid.
    Raises `RuntimeError` where work moves between devices or reads a value, for which a graph cannot wait.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device
        self._used: dict[int, StorageWeakRef] = {}
        self.held: list[UntypedStorage] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = operation(*args, **kwargs)
        if isinstance(out, int | float):
            raise RuntimeError(f"{operation} reads a number from the device.")
        if any(tensor.device.type != self._device.type for tensor in _tensors((args, kwargs, out))):
            raise RuntimeError(f"{operation} has tensors that are not on the device {self._device}.")
        for tensor in _tensors((args, kwargs)):
            storage = tensor.untyped_storage()
            self._used.setdefault(storage._cdata, StorageWeakRef(storage))
        return out

    def hold(self) -> None:
        """Hold the storages that are still alive."""
        alive = [UntypedStorage._new_with_weak_ptr(used.cdata) for used in self._used.values()]
        self.held = [storage for storage in alive if storage is not None]
        self._used.clear()


def compile_model(model: Model, *, graphs_only: bool = False, **options: Any) -> Model:
    """Compile the encoder, memory attention, mask decoder and memory encoder of a model.

    On a CUDA device torch fuses the small operations of blocks, which takes it seconds at the first frame, and
    each part is captured in a CUDA graph. On a CPU each part is compiled as a whole.

    Parameters
    ----------
    model : Sam2
        Is changed, and returned. Results differ from before by rounding only. Its weights may be changed in
        place, but not moved.
    graphs_only : bool
        Capture CUDA graphs of the model as it is, without compiling anything.
    **options
        For `torch.compile`, instead of ``dynamic=False``.

    Raises
    ------
    SettingsError
        If `graphs_only` and the model is on no CUDA device.

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
        capture = partial(_capture_graph, device, torch.cuda.graph_pool_handle())
        compile = partial(CapturedFunction, device=device, capture=capture)
    for name in PARTS:
        setattr(model, name, ShapeCache(getattr(model, name), compile))
    return model


def fuse(model: Sam2, compile: Callable[[Any], Any]) -> None:
    """Compile the blocks of a model one by one: equal ones are compiled once, and small ones in seconds.

    Memory attention is not among them: compiled code computes its rotary encodings anew, on the CPU.
    """
    parts: list[nn.Module] = [model.sam_mask_decoder, model.memory_encoder]
    if isinstance(model.image_encoder, ImageEncoder):
        parts += model.image_encoder.trunk.blocks
    for part in parts:
        eager = part.forward
        setattr(part, "forward", _eager_in_dispatch_mode(compile(eager), eager))  # noqa: B010


def _eager_in_dispatch_mode(compiled: Callable[..., Any], eager: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is eager under a dispatch mode, where torch would compile once more, in vain."""

    def call(*args: Any, **kwargs: Any) -> Any:
        function = eager if torch._C._len_torch_dispatch_stack() else compiled
        return function(*args, **kwargs)

    return call


def _capture_graph(device: torch.device, pool: Any, run: Callable[[], Any]) -> tuple[Replay, Any]:
    """Capture what a function does in a CUDA graph.

    Graphs may share the memory of `pool`, since no two run at a time and results are copied at once.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device):
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        try:
            side.wait_stream(current)
            with torch.cuda.stream(side):
                run()  # libraries initialise themselves for each stream
            current.wait_stream(side)
            # other threads may go on using the device
            with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                out = run()
        except BaseException:
            _end_capture(device)
            raise
        finally:
            torch.cuda.set_stream(current)  # a capture that fails leaves the other one set
    return graph.replay, out


def _end_capture(device: torch.device) -> None:
    """Let random numbers be drawn on a device again after a capture failed: its generator takes it as going on."""
    index = torch.cuda.current_device() if device.index is None else device.index
    generator = torch.cuda.default_generators[index]
    with suppress(AttributeError, RuntimeError):  # earlier releases of torch have no such states
        generator.graphsafe_set_state(generator.clone_state())


def _layout(value: Any) -> Any:
    """Return what a compiled function depends on: the layouts of tensors, and all other values."""
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.stride(), value.dtype, value.device)
    if isinstance(value, tuple | list):
        return tuple(_layout(part) for part in value)
    if isinstance(value, dict):
        return tuple((key, _layout(part)) for key, part in sorted(value.items()))
    return value


def _map(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return a nested value with each tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _map(change, part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        parts = [_map(change, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a nested value, those of a mapping in the order of its keys."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for part in [value[key] for key in sorted(value)] if isinstance(value, dict) else value:
            yield from _tensors(part)
