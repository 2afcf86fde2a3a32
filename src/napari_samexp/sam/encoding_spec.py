"""Which position encodings a model has, and on which grids they can be shown. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from napari_samexp._text import plain
from napari_samexp.errors import CheckpointError, SettingsError

__all__ = [
    "ABSOLUTE",
    "MAP_DTYPES",
    "MAX_SIDE",
    "MAX_VALUES",
    "Kind",
    "EncodingSpec",
    "require_grid",
    "require_part",
]

ABSOLUTE = "absolute"
MAX_SIDE = 1024  # tokens; four times SAM 2's own grid
MAX_VALUES = 2**27  # of all channels together: half a gigabyte of float32
MAP_DTYPES = ("float32", "bfloat16", "float16", "bfloat16-error", "float16-error")

HW = tuple[int, int]
Kind = Literal["tokens", "offsets", "frames"]


@dataclass(frozen=True, slots=True)
class EncodingSpec:
    """One encoding of a model.

    Parameters
    ----------
    name : str
        Such as ``"absolute"``, ``"window"``, ``"relative:7"``, ``"rotary"``, ``"memory:1"`` or ``"times"``.
    title : str
        What people read.
    help : str
        What the map shows, in one sentence.
    channels : int
    grid_hw : (int, int)
        The model's own grid of tokens.
    resizable : bool
        Whether the model computes it for other grids too.
    tiled : bool
        Whether it holds a window tile that can be left out.
    kind : "tokens", "offsets" or "frames"
        What a place of the map is: a token; a key's distance from its query, of which h x w tokens have
        2 h - 1 by 2 w - 1; or a frame's distance in time.
    spread_hw : (int, int), optional
        The grid over whose places other grids are spread; by default they go beyond it.
    """

    name: str
    title: str
    help: str
    channels: int
    grid_hw: HW
    resizable: bool = True
    tiled: bool = False
    kind: Kind = "tokens"
    spread_hw: HW | None = None

    def map_shape(self, grid_hw: HW) -> tuple[int, int, int]:
        """Return the shape (C, h, w) of the map for a grid of tokens."""
        height, width = grid_hw
        if self.kind == "offsets":
            return self.channels, 2 * height - 1, 2 * width - 1
        return self.channels, height, width

    def require_grid(self, grid_hw: HW | None) -> HW:
        """Return the grid to use, by default the model's own; `SettingsError` if it cannot be."""
        if grid_hw is None:
            return self.grid_hw
        if not self.resizable and tuple(grid_hw) != self.grid_hw:
            height, width = self.grid_hw
            raise SettingsError(
                f"The part {self.name} is never used on another grid than {height} x {width}, and "
                f"{plain(grid_hw)} was asked for; leave the grid out."
            )
        return require_grid(grid_hw, self.channels * (4 if self.kind == "offsets" else 1))


def require_grid(grid_hw: Sequence[int], channels: int = 1) -> HW:
    """Return a grid as (height, width) of tokens.

    Parameters
    ----------
    channels : int
        Values a token, which bound how many tokens there may be.

    Raises
    ------
    SettingsError
        If it is not two whole numbers from 1 to `MAX_SIDE`, or more than `MAX_VALUES` values in all.
    """
    numbers = tuple(grid_hw)
    if len(numbers) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        raise SettingsError(f"The grid is {plain(numbers)}; give height and width in whole tokens.")
    height, width = numbers
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise SettingsError(
            f"The grid is {plain(height)} x {plain(width)} tokens; give 1 to {MAX_SIDE} for height and width."
        )
    if channels * height * width > MAX_VALUES:
        raise SettingsError(
            f"A map of {height} x {width} tokens would have {channels * height * width / 1e6:.0f} million "
            f"values, and {MAX_VALUES / 1e6:.0f} million is the limit; choose a smaller grid."
        )
    return height, width


def require_part(parts: Sequence[EncodingSpec], name: str, source: str) -> EncodingSpec:
    """Return the part of a name; `CheckpointError` with what there is if `source` has none of that name."""
    for part in parts:
        if part.name == name:
            return part
    names = [part.name for part in parts]
    relative = [name for name in names if name.startswith("relative:")]
    if len(relative) > 2:
        first = names.index(relative[0])
        names = [
            *names[:first],
            f"{relative[0]} to {relative[-1]}",
            *names[first + len(relative) :],
        ]
    raise CheckpointError(
        f"{source} has no position encoding {plain(name, 40)!r}; it has {', '.join(names) or 'none at all'}."
    )
