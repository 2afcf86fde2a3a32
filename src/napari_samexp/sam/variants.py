"""Every size of every family as a row of data, and the row that a state dict's shapes belong to."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from napari_samexp.errors import CheckpointError
from napari_samexp.sam.weights.download import plain

if TYPE_CHECKING:  # sizes are read by processes that never import torch
    from torch import Tensor

__all__ = [
    "MAX_POINTERS",
    "MAX_RECENT",
    "VARIANTS",
    "EdgeTamVariant",
    "MemoryVariant",
    "Sam1Variant",
    "Sam2Variant",
    "Variant",
    "identify",
    "variant_from_json",
    "variant_to_json",
]

MAX_RECENT = 6  # memories of the running video that have a learned time of their own
MAX_POINTERS = 15


@dataclass(frozen=True, slots=True)
class Sam1Variant:
    """A size of SAM 1; names follow the paper's ViT.

    Parameters
    ----------
    image_size : int
        Native side of the square model input, in pixels.
    global_blocks : tuple of int
        Blocks that attend to the whole image; all others attend in windows of `window_size` tokens.
    """

    name: str
    depth: int
    embed_dim: int
    num_heads: int
    global_blocks: tuple[int, ...]
    image_size: int = 1024
    window_size: int = 14
    d_model: int = 256
    mlp_dim: int = 2048
    iou_hidden: int = 256

    patch: int = 16

    @property
    def family(self) -> str:
        """The family's name as people write it."""
        return "SAM 1"

    @property
    def side_multiple(self) -> int:
        """What an encode side must be a multiple of."""
        return self.patch


@dataclass(frozen=True, slots=True)
class Sam2Variant:
    """A size of SAM 2 or SAM 2.1; names follow Meta's configuration files.

    Parameters
    ----------
    version : "2.0" or "2.1"
        2.1 gives pointers a time and lost objects an embedding of their own.
    stages, window_spec : tuple of 4 int
        Blocks a stage and window side a stage, in tokens.
    background_hw : (int, int)
        Size of the learned background position table.
    mem_dim : int
        Channels of a spatial memory; an object pointer has `d_model` channels.
    """

    name: str
    version: Literal["2.0", "2.1"]
    embed_dim: int
    num_heads: int
    stages: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    background_hw: tuple[int, int] = (7, 7)
    window_spec: tuple[int, int, int, int] = (8, 4, 14, 7)
    image_size: int = 1024
    d_model: int = 256
    mem_dim: int = 64
    mem_ff: int = 2048
    mem_layers: int = 4
    mlp_dim: int = 2048
    iou_hidden: int = 256

    patch: int = 16

    @property
    def family(self) -> str:
        """The family's name as people write it."""
        return "SAM 2" if self.version == "2.0" else "SAM 2.1"

    @property
    def side_multiple(self) -> int:
        """What an encode side must be a multiple of: the stride of the last stage."""
        return 32


@dataclass(frozen=True, slots=True)
class EdgeTamVariant:
    """A size of EdgeTAM, a SAM 2 with a lighter image encoder and memories of few tokens.

    Parameters
    ----------
    embed_dim : int
        Channels of RepViT at stride 4; each further stage has twice as many.
    stages : tuple of 4 int
        Blocks a stage.
    num_latents, num_latents_2d : int
        Tokens of a memory that look at the whole frame, and that look at one window of it each; the
        windows form a square.
    """

    name: str
    stages: tuple[int, int, int, int]
    embed_dim: int
    num_latents: int = 256
    num_latents_2d: int = 256
    perceiver_depth: int = 2
    image_size: int = 1024
    d_model: int = 256
    mem_dim: int = 64
    mem_ff: int = 2048
    mem_layers: int = 2
    mlp_dim: int = 2048
    iou_hidden: int = 256

    patch: int = 16

    @property
    def family(self) -> str:
        """The family's name as people write it."""
        return "EdgeTAM"

    @property
    def version(self) -> Literal["2.0", "2.1"]:
        """The SAM 2 whose memory it has: pointers without time, nothing of its own for lost objects."""
        return "2.0"

    @property
    def side_multiple(self) -> int:
        """What an encode side must be a multiple of: the stride of the last stage."""
        return 32

    @property
    def windows(self) -> int:
        """Windows along a side of the image, each with a latent of its own."""
        return math.isqrt(self.num_latents_2d)


MemoryVariant = Sam2Variant | EdgeTamVariant
Variant = Sam1Variant | MemoryVariant

_HIERA: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "num_heads": 1, "stages": (1, 2, 7, 2), "global_blocks": (5, 7, 9)},
    "small": {"embed_dim": 96, "num_heads": 1, "stages": (1, 2, 11, 2), "global_blocks": (7, 10, 13)},
    "base_plus": {
        "embed_dim": 112,
        "num_heads": 2,
        "stages": (2, 3, 16, 3),
        "global_blocks": (12, 16, 20),
        "background_hw": (14, 14),
    },
    "large": {
        "embed_dim": 144,
        "num_heads": 2,
        "stages": (2, 6, 36, 4),
        "global_blocks": (23, 33, 43),
        "window_spec": (8, 4, 16, 8),
    },
}
_PREFIXES: tuple[tuple[str, Literal["2.0", "2.1"]], ...] = (("sam2_hiera", "2.0"), ("sam2.1_hiera", "2.1"))

_ROWS: list[Variant] = [
    Sam1Variant("sam_vit_b", 12, 768, 12, (2, 5, 8, 11)),
    Sam1Variant("sam_vit_l", 24, 1024, 16, (5, 11, 17, 23)),
    Sam1Variant("sam_vit_h", 32, 1280, 16, (7, 15, 23, 31)),
    *(
        Sam2Variant(name=f"{prefix}_{size}", version=version, **row)
        for prefix, version in _PREFIXES
        for size, row in _HIERA.items()
    ),
    EdgeTamVariant("edgetam", (2, 2, 14, 2), 48),
]
VARIANTS: dict[str, Variant] = {row.name: row for row in _ROWS}


def identify(state: Mapping[str, Tensor]) -> Variant:
    """Return the variant whose shapes a state dict has.

    Raises
    ------
    CheckpointError
        If the keys are not those of SAM 1, 2, 2.1 or EdgeTAM, or no known size matches.
    """
    if "spatial_perceiver.latents" in state and f"{_REPVIT}stem.conv2.c.weight" in state:
        return _identify_edgetam(state)
    if "maskmem_tpos_enc" in state and "image_encoder.trunk.patch_embed.proj.weight" in state:
        return _identify_sam2(state)
    if "image_encoder.patch_embed.proj.weight" in state and "mask_decoder.iou_token.weight" in state:
        return _identify_sam1(state)
    first = ", ".join(plain(key, 80) for key in list(state)[:3]) or "no keys at all"
    raise CheckpointError(
        f"The file holds {first}; expected the keys of SAM 1, SAM 2, SAM 2.1 or EdgeTAM. Choose an official or fine-tuned SAM file."
    )


def _identify_sam1(state: Mapping[str, Tensor]) -> Variant:
    dim = _channels(state["image_encoder.patch_embed.proj.weight"])
    depth = _count_blocks(state, "image_encoder.blocks.")
    for row in VARIANTS.values():
        if isinstance(row, Sam1Variant) and (row.embed_dim, row.depth) == (dim, depth):
            return row
    raise _no_such_size("SAM 1", dim, depth)


def _identify_sam2(state: Mapping[str, Tensor]) -> Variant:
    version = "2.1" if "no_obj_embed_spatial" in state else "2.0"
    dim = _channels(state["image_encoder.trunk.patch_embed.proj.weight"])
    depth = _count_blocks(state, "image_encoder.trunk.blocks.")
    for row in VARIANTS.values():
        if isinstance(row, Sam2Variant) and (row.version, row.embed_dim, sum(row.stages)) == (
            version,
            dim,
            depth,
        ):
            return row
    raise _no_such_size(f"SAM {version}", dim, depth)


_REPVIT = "image_encoder.trunk.body."
_REPVIT_BLOCK = re.compile(re.escape(_REPVIT) + r"stages_(\d+)\.blocks\.(\d+)\.")


def _identify_edgetam(state: Mapping[str, Tensor]) -> Variant:
    dim = _channels(state[f"{_REPVIT}stem.conv2.c.weight"])
    depth = len({match.groups() for match in map(_REPVIT_BLOCK.match, state) if match})
    for row in VARIANTS.values():
        if isinstance(row, EdgeTamVariant) and (row.embed_dim, sum(row.stages)) == (dim, depth):
            return row
    raise _no_such_size("EdgeTAM", dim, depth)


def _channels(weight: Tensor) -> int:
    return int(weight.shape[0]) if weight.ndim else 0


def _count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def _no_such_size(family: str, dim: int, depth: int) -> CheckpointError:
    return CheckpointError(
        f"The file has the keys of {family} with {depth} encoder blocks of {dim} channels, which is no official size; "
        "give its configuration (in a safetensors file's metadata, or as an argument)."
    )


def variant_to_json(variant: Variant) -> str:
    """Return a variant as JSON, the form in which a safetensors file's metadata holds it."""
    return json.dumps(asdict(variant), sort_keys=True)


def variant_from_json(text: str) -> Variant:
    """Return the variant that JSON text describes.

    Raises
    ------
    CheckpointError
        If the text is not JSON, or lacks or misspells a field.
    """
    try:
        values = json.loads(text)
        row = _row_of(values)
        known = {field.name for field in fields(row)}
        if unknown := set(values) - known:
            raise ValueError(f"unknown field {plain(min(unknown), 60)!r}")
        return _checked(row(**{key: _tupled(value) for key, value in values.items()}))
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        why = plain(error)
        raise CheckpointError(
            f"The file's model configuration cannot be used ({why}); expected the fields of a variant."
        ) from None


def _row_of(values: Any) -> type[Sam1Variant | Sam2Variant | EdgeTamVariant]:
    if "version" in values:
        return Sam2Variant
    return EdgeTamVariant if "num_latents" in values else Sam1Variant


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _checked(variant: Variant) -> Variant:
    """Refuse numbers that would build a model of absurd size or fail deep inside a layer."""
    for field in fields(variant):
        _check_field(field.name, getattr(variant, field.name))
    if variant.d_model % 16 or variant.embed_dim % getattr(variant, "num_heads", 1):
        raise ValueError("d_model must be a multiple of 16, embed_dim of num_heads")
    if variant.image_size % variant.side_multiple:
        raise ValueError(f"image_size must be a multiple of {variant.side_multiple}")
    if not isinstance(variant, Sam1Variant):
        if variant.mem_dim % 4 or variant.d_model % variant.mem_dim:
            raise ValueError("mem_dim must be a multiple of 4 and divide d_model")
        if variant.patch != 16:
            raise ValueError("patch must be 16")
    if isinstance(variant, Sam2Variant) and any(side % 2 for side in variant.window_spec[:3]):
        raise ValueError("the first three of window_spec must be even")
    if isinstance(variant, EdgeTamVariant) and (
        variant.embed_dim % 2 or variant.windows**2 != variant.num_latents_2d
    ):
        raise ValueError("embed_dim must be even and num_latents_2d a square")
    return variant


_COUNTS = {"stages": 4, "background_hw": 2, "window_spec": 4, "global_blocks": None}  # numbers in a tuple
_LAYERS = ("depth", "stages", "mem_layers", "perceiver_depth")


def _check_field(name: str, value: Any) -> None:
    if name == "name":
        if not isinstance(value, str):
            raise ValueError("name is no text")
    elif name == "version":
        if value not in ("2.0", "2.1"):
            raise ValueError(f"version is {plain(value)}, expected 2.0 or 2.1 as text")
    elif isinstance(value, tuple) != (name in _COUNTS):
        raise ValueError(
            f"{name} is {plain(value)}, expected {'a list' if name in _COUNTS else 'one number'}"
        )
    else:
        numbers = value if isinstance(value, tuple) else (value,)
        low, high = int(name != "global_blocks"), 512 if name in _LAYERS else 16384
        if len(numbers) != (_COUNTS.get(name, 1) or len(numbers)):
            raise ValueError(f"{name} has {len(numbers)} numbers, expected {_COUNTS[name]}")
        if not all(type(n) is int and low <= n <= high for n in numbers):
            raise ValueError(f"{name} is {plain(value)}, expected whole numbers from {low} to {high}")
