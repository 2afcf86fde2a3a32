"""The variant that a state dict belongs to, by its keys and shapes. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from napari_samexp._text import plain
from napari_samexp.errors import CheckpointError
from napari_samexp.sam.variants import VARIANTS, EdgeTamVariant, Sam1Variant, Sam2Variant, Variant

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["identify"]

_REPVIT = "image_encoder.trunk.body."
_REPVIT_BLOCK = re.compile(re.escape(_REPVIT) + r"stages_(\d+)\.blocks\.(\d+)\.")


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
        f"The file holds {first}; expected the keys of SAM 1, SAM 2, SAM 2.1 or EdgeTAM. Choose an official or fine-tuned SAM file.",
        code="weights-refused",
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
        "give its configuration (in a safetensors file's metadata, or as an argument).",
        code="weights-refused",
    )
