"""A variant as JSON, the form in which a safetensors file's metadata describes a model. No torch."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any

from napari_samexp._text import plain
from napari_samexp.errors import CheckpointError
from napari_samexp.sam.variants import MAX_SIDE, EdgeTamVariant, Sam1Variant, Sam2Variant, Variant

__all__ = ["variant_from_json", "variant_to_json"]

_COUNTS = {"stages": 4, "background_hw": 2, "window_spec": 4, "global_blocks": None}  # numbers in a tuple
_LAYERS = ("depth", "stages", "mem_layers", "perceiver_depth")


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
    if variant.image_size % variant.side_multiple or variant.image_size > MAX_SIDE:
        raise ValueError(f"image_size must be a multiple of {variant.side_multiple}, at most {MAX_SIDE}")
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
