"""Every size of every family as a row of data. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "MAX_POINTERS",
    "MAX_RECENT",
    "MAX_SIDE",
    "PRIOR_SLOT",
    "VARIANTS",
    "EdgeTamVariant",
    "MemoryVariant",
    "Sam1Variant",
    "Sam2Variant",
    "Variant",
]

MAX_SIDE = 4096  # pixels of the input; beyond, attention would take more memory than machines have
MAX_RECENT = 6  # memories of the running video, each with a learned temporal encoding
PRIOR_SLOT = MAX_RECENT  # row of `maskmem_tpos_enc` for memories without a place in time
MAX_POINTERS = 15  # object pointers of the running video that are attended to


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
    d_model: int = 256  # channels of the image embedding and of prompt tokens
    mlp_dim: int = 2048  # of the two-way transformer
    iou_hidden: int = 256  # of the head that predicts the IoU

    patch: int = 16  # pixels a side of a token

    @property
    def family(self) -> str:
        """The name of the family, for people."""
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
        2.1 adds a temporal encoding of pointers and an embedding of lost objects.
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
    d_model: int = 256  # channels of the image embedding and of prompt tokens
    mem_dim: int = 64
    mem_ff: int = 2048  # hidden channels of memory attention
    mem_layers: int = 4
    mlp_dim: int = 2048  # of the two-way transformer
    iou_hidden: int = 256  # of the head that predicts the IoU

    patch: int = 16  # pixels a side of a token

    @property
    def family(self) -> str:
        """The name of the family, for people."""
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
        Tokens of a memory that attend to the whole frame, and that attend to one window each; the windows
        form a square.
    """

    name: str
    stages: tuple[int, int, int, int]
    embed_dim: int
    num_latents: int = 256
    num_latents_2d: int = 256
    perceiver_depth: int = 2
    image_size: int = 1024
    d_model: int = 256  # channels of the image embedding and of prompt tokens
    mem_dim: int = 64
    mem_ff: int = 2048  # hidden channels of memory attention
    mem_layers: int = 2
    mlp_dim: int = 2048  # of the two-way transformer
    iou_hidden: int = 256  # of the head that predicts the IoU

    patch: int = 16  # pixels a side of a token

    @property
    def family(self) -> str:
        """The name of the family, for people."""
        return "EdgeTAM"

    @property
    def version(self) -> Literal["2.0", "2.1"]:
        """The SAM 2 version of its memory: pointers have no time, lost objects no embedding."""
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
