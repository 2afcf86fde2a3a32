"""State dicts of untrusted weight files, checked, and loaded into a model strictly."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from napari_samexp._text import plain
from napari_samexp.errors import CheckpointError
from napari_samexp.sam.weights.hashes import sha256_of
from napari_samexp.sam.weights.opening import WHAT_TO_DO, content_of, regular_file, unreadable

__all__ = ["CheckpointFile", "load_strict", "read_state", "require_finite"]

Module = TypeVar("Module", bound=nn.Module)

_WRAPPERS = (
    "model",
    "state_dict",
)  # Meta's files and most trainers'; what lies beside (optimizer, epoch) is left
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_COUNTER = ".num_batches_tracked"
_NAMED = 3  # how many keys an error names


@dataclass(frozen=True, eq=False)
class CheckpointFile:
    """The tensors of a weights file.

    Parameters
    ----------
    path : Path
        Where it was read.
    state : dict of str to Tensor
        On the CPU, of the file's own floating types, and mapped from the file: a tensor's bytes are read
        when they are first used, so the file has to stay as it is for as long as they are.
    metadata : dict of str to str
        That of a safetensors file; empty for the others.
    """

    path: Path
    state: dict[str, Tensor]
    metadata: dict[str, str]

    @cached_property
    def sha256(self) -> str:
        """The whole file's SHA-256; computed once, when first asked for."""
        return sha256_of(self.path)


def read_state(path: str | Path) -> CheckpointFile:
    """Open a .safetensors, .pt or .pth file without running anything in it.

    What the file is shows in its first bytes, not in its name. A state dict may lie in it flat, or under
    ``"model"`` or ``"state_dict"``.

    Raises
    ------
    CheckpointError
        If it is missing, empty, cut short, no weights file at all, asks to run code, claims to hold more than
        its size, or has entries that are no floating tensors (nor BatchNorm's counters of batches).
    """
    path = Path(path)
    try:
        path, size = regular_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of odd pickles, which are refused anyway
            content, metadata = content_of(path, size)
        return CheckpointFile(path, _plain_state(_unwrapped(content), path, size), metadata)
    except CheckpointError:
        raise
    except Exception as error:  # a hostile file can make the readers raise nearly anything
        raise unreadable(path, error) from error


def require_finite(state: Mapping[str, Tensor], *, source: str | Path) -> None:
    """Check that every value is a number; this reads all of the file.

    Raises
    ------
    CheckpointError
        If a tensor has NaN or an infinite value.
    """
    bad = [key for key, tensor in state.items() if not _is_finite(tensor)]
    if bad:
        raise CheckpointError(
            f"{source} has values that are not finite numbers in {_listed(map(_shown, bad))}; its training "
            "or its download went wrong, so use another file.",
            code="weights-refused",
        )


def _is_finite(tensor: Tensor) -> bool:
    # a sum takes one pass, and is finite only if all values are; but finite values may add up to infinity
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())


def load_strict(
    module: Module,
    state: Mapping[str, Tensor],
    *,
    source: str | Path,
    dtype: torch.dtype | None = None,
    exact: str | None = None,
) -> Module:
    """Put a state dict into a module that was built on the meta device.

    Parameters
    ----------
    module : nn.Module
        Its parameters and buffers become the state's tensors; nothing is copied but what changes type.
    state : mapping of str to Tensor
        As `read_state` gives it, under the module's own names.
    source : str or Path
        The name of the state in errors.
    dtype : torch.dtype, optional
        The floating dtype to convert to; by default that of each parameter in the module.
    exact : str, optional
        Name of a tensor that is float32 whatever `dtype` is.

    Returns
    -------
    nn.Module
        The same module.

    Raises
    ------
    CheckpointError
        If a key is missing, unexpected, or has another shape. The module is as it was then.
    """
    expected: dict[str, Tensor] = module.state_dict()
    differences = _differences(expected, state)
    if differences:
        raise CheckpointError(
            f"{source} does not fit {type(module).__name__}: {'; '.join(differences)}; use a file of this "
            "model, or give the configuration that it was made with.",
            code="weights-refused",
        )
    kinds = {key: dtype if dtype and t.is_floating_point() else t.dtype for key, t in expected.items()}
    kinds |= {key: torch.float32 for key in expected if exact and key.endswith(exact)}
    module.load_state_dict({key: state[key].to(kinds[key]) for key in expected}, strict=True, assign=True)
    return module


# Checking


# A pickle can give its dicts and parameters attributes that hide their methods (a tensor named ``items``), so
# methods are called on the types here.


def _unwrapped(content: Any) -> Any:
    if isinstance(content, dict):
        for name in _WRAPPERS:
            if isinstance(dict.get(content, name), dict):
                return content[name]
    return content


def _plain_state(state: Any, path: Path, size: int) -> dict[str, Tensor]:
    if not isinstance(state, dict) or not len(state):
        found = "an empty dict" if isinstance(state, dict) else f"a {type(state).__name__}"
        raise CheckpointError(
            f"{path} holds {found}, expected tensors by name; {WHAT_TO_DO}.", code="weights-refused"
        )
    entries = {key: _without_attributes(value) for key, value in dict.items(state)}
    wrong = [
        f"{_shown(key)} ({_kind(value)})"
        for key, value in entries.items()
        if type(key) is not str or not _usable(key, value)
    ]
    if wrong:
        raise CheckpointError(
            f"{path} has entries that are no floating-point tensors by name: {_listed(wrong)}; save the "
            "model's state_dict() alone and load that.",
            code="weights-refused",
        )
    if _claims_more_than(size, entries.values()):
        raise CheckpointError(
            f"{path} claims more values than its {size} bytes can hold, so it is damaged; {WHAT_TO_DO}.",
            code="weights-refused",
        )
    return entries


def _without_attributes(value: Any) -> Any:
    return Tensor.detach(value) if type(value) in (Tensor, nn.Parameter) else value


def _usable(key: str, value: Any) -> bool:
    return (
        type(value) is Tensor
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and (value.dtype in _DTYPES or _is_counter(key, value))
    )


def _is_counter(key: str, value: Tensor) -> bool:
    """Whether this is the one integer in a state dict: BatchNorm's count of batches."""
    return key.endswith(_COUNTER) and value.dtype == torch.int64 and value.ndim == 0


def _claims_more_than(size: int, tensors: Iterable[Tensor]) -> bool:
    """Whether tensors repeat their bytes (a stride of 0) or have more of them than a file."""
    storages: dict[int, int] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            return True
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values()) > size


def _differences(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    missing = [_shown(key) for key in expected if key not in state]
    unexpected = [_shown(key) for key in state if key not in expected]
    reshaped = [
        f"{_shown(key)} {tuple(state[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    named = {"it lacks": missing, "it has the unexpected": unexpected, "it has the shapes": reshaped}
    return [f"{what} {_listed(keys)}" for what, keys in named.items() if keys]


def _shown(key: Any) -> str:
    return repr(plain(key, 80)) if isinstance(key, str) else f"a key of type {type(key).__name__}"


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype}, {value.layout}, {value.device}"
    return type(value).__name__


def _listed(items: Iterable[str]) -> str:
    first = list(items)
    more = f" and {len(first) - _NAMED} more" if len(first) > _NAMED else ""
    return ", ".join(first[:_NAMED]) + more
