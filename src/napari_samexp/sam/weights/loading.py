"""From a name or a file to a model that is ready to use."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from napari_samexp.errors import CheckpointError, SettingsError
from napari_samexp.sam.base import UNKNOWN, Provenance
from napari_samexp.sam.build import new_model
from napari_samexp.sam.fast.mixed_precision import WORTH, gain, mix
from napari_samexp.sam.identify import identify
from napari_samexp.sam.sam1 import Sam1
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.sam.variant_json import variant_from_json, variant_to_json
from napari_samexp.sam.variants import EdgeTamVariant, Sam1Variant, Variant
from napari_samexp.sam.weights.cache import fetch
from napari_samexp.sam.weights.catalogue import OFFICIAL, OfficialFile
from napari_samexp.sam.weights.checkpoint import CheckpointFile, load_strict, read_state, require_finite
from napari_samexp.sam.weights.download import Progress

__all__ = [
    "CONFIG_KEY",
    "DEVICES",
    "DTYPES",
    "build",
    "identify_file",
    "load_model",
    "metadata_for",
    "convert_state_dict",
]

FREQUENCIES = "positional_encoding_gaussian_matrix"  # float32 in every dtype, see its class
CONFIG_KEY = "napari_samexp_variant"  # in a safetensors file's metadata
DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "fast", "bfloat16", "float16")


def load_model(
    name_or_path: str | Path,
    *,
    device: str = "auto",
    dtype: str = "float32",
    graphs: bool = False,
    variant: Variant | Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Sam1 | Sam2:
    """Return a model by name or from a file.

    Parameters
    ----------
    name_or_path : str or Path
        ``"starter"``, an official name such as ``"sam2.1_hiera_tiny"`` (downloaded once), the path of
        a .pt, .pth or .safetensors file, or an address of one's own with its hash,
        ``https://host/file.pt#sha256=...`` (downloaded once, and used only if it is that file).
    device : str
        ``"auto"`` takes a CUDA or Apple GPU where there is one. ``"cuda:1"`` and the like work too.
    dtype : str
        ``"float32"``, ``"bfloat16"``, ``"float16"``; ``"auto"``: bfloat16 on a GPU that computes in it, else
        float32; ``"fast"``: as auto, and bfloat16 also on a CPU that was measured to multiply in it much
        faster. On a CPU, bfloat16 multiplies in it and keeps the rest float32; see `fast.mixed_precision`.
    graphs : bool
        On a CUDA device, record CUDA graphs of a SAM 2's parts, which saves most of a frame's launch time; see `fast.graphs.compile_model`. Elsewhere nothing changes.
    variant : Variant or mapping, optional
        The sizes of a model that is no official one, where the file itself does not say.
    progress : callable, optional
        Called with the bytes on disk and in all while downloading.

    Returns
    -------
    Sam1, Sam2 or EdgeTam
        In evaluation mode, without gradients.

    Raises
    ------
    CheckpointError
        If the weights cannot be had, or are not those of a SAM model.
    SettingsError
        If there is no such device or dtype.
    """
    where = choose_device(device)
    kind = choose_dtype(dtype, where)
    file = read_state(fetch(name_or_path, progress=progress))
    row = _variant(file, variant)
    official = OFFICIAL.get(str(name_or_path))
    mixed = _is_mixed(kind, where, row)
    model = build(row, _provenance(file, official, kind if mixed else None))
    state = convert_state_dict(file.state, row)
    load_strict(model, state, source=file.path, dtype=torch.float32 if mixed else kind, exact=FREQUENCIES)
    if official is None:  # those were verified when they were downloaded
        require_finite(state, source=file.path)
    if mixed:
        mix(model, kind)
    model.requires_grad_(False).eval().to(where)
    if graphs and where.type == "cuda" and isinstance(model, Sam2):
        from napari_samexp.sam.fast.graphs import compile_model  # slow to import

        compile_model(model, graphs_only=True)
    return model


def _provenance(
    file: CheckpointFile, official: OfficialFile | None, compute_dtype: torch.dtype | None
) -> Provenance:
    # an official file was verified when it was downloaded: hashing gigabytes again would only cost time
    pinned = official.sha256 if official else ""
    name = str(compute_dtype).removeprefix("torch.") if compute_dtype else ""
    return Provenance(file.path.name, lambda: pinned or file.sha256, name)


def _is_mixed(kind: torch.dtype, device: torch.device, variant: Variant) -> bool:
    """Whether only the large products are in another dtype; not for EdgeTAM, which consists of convolutions."""
    return kind == torch.bfloat16 and device.type == "cpu" and not isinstance(variant, EdgeTamVariant)


def build(variant: Variant, provenance: Provenance = UNKNOWN) -> Sam1 | Sam2:
    """Return a model of a variant on the meta device: right keys and shapes, no values yet."""
    with torch.device("meta"), _NoInitialisation():
        return new_model(variant, provenance)


class _NoInitialisation(TorchFunctionMode):
    """Layers do not draw initial values, of which there are none on the meta device.

    To find that out takes torch longer than to read a large model: it imports a compiler for it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, unless it is one of `torch.nn.init`."""
        kwargs = dict(kwargs or {})
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def convert_state_dict(state: Mapping[str, Tensor], variant: Variant) -> dict[str, Tensor]:
    """Return a state dict with our keys, which are Meta's but for SAM 1's two MLP layers."""
    if not isinstance(variant, Sam1Variant):
        return dict(state)
    return {
        key.replace(".mlp.lin1.", ".mlp.layers.0.").replace(".mlp.lin2.", ".mlp.layers.1."): t
        for key, t in state.items()
    }


def identify_file(path: str | Path) -> tuple[Variant, CheckpointFile]:
    """Return the variant of a weights file and its content, checked against each other, without reading its values."""
    file = read_state(path)
    row = _variant(file, None)
    load_strict(
        build(row),
        {key: t.to("meta") for key, t in convert_state_dict(file.state, row).items()},
        source=file.path,
    )
    return row, file


def _variant(file: CheckpointFile, given: Variant | Mapping[str, Any] | None) -> Variant:
    if given is not None:
        return (
            given if isinstance(given, Variant) else variant_from_json(json.dumps(dict(given), default=repr))
        )
    if text := file.metadata.get(CONFIG_KEY):
        return variant_from_json(text)
    try:
        return identify(file.state)
    except CheckpointError as error:
        raise CheckpointError(f"{file.path}: {error}") from None


def choose_device(name: str) -> torch.device:
    """Return the device that a name means; raise `SettingsError` if this machine has none."""
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise SettingsError(f"The device {name!r} is unknown; choose {', '.join(DEVICES)}.") from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device.type not in there:
        raise SettingsError(f"The device {name!r} is not supported; choose {', '.join(DEVICES)}.")
    if not there[device.type] or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise SettingsError(f"This machine (or its torch) has no device {name!r}; choose cpu or auto.")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype that a name means on a device; ``"fast"`` on a CPU measures for less than a second."""
    if name in ("auto", "fast"):
        short = device.type == "cuda" and torch.cuda.is_bf16_supported()
        if device.type == "cpu" and name == "fast":
            short = gain() >= WORTH
        return torch.bfloat16 if short else torch.float32
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in kinds:
        raise SettingsError(f"The dtype {name!r} is unknown; choose {', '.join(DTYPES)}.")
    return kinds[name]


def metadata_for(variant: Variant) -> dict[str, str]:
    """Return the safetensors metadata that lets `load_model` read a file of any size."""
    return {CONFIG_KEY: variant_to_json(variant)}
