"""Position encodings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from napari_samexp.engine.messages.base import HW, ArrayRef, Reply, Request
from napari_samexp.sam.encoding_spec import EncodingSpec


@dataclass(frozen=True, slots=True)
class DescribeEncodings(Request):
    """Read the position-encoding tables of a model by name or path, and nothing else of it."""

    model: str


@dataclass(frozen=True, slots=True)
class ComputeEncoding(Request):
    """Compute a map of a model's position encoding; see `PositionTables.values`."""

    model: str
    part: str
    grid_hw: HW
    window_tile: bool
    dtype: str
    into: ArrayRef  # float32, with room for the map


@dataclass(frozen=True, slots=True)
class Encodings(Reply):
    """The position encodings that a model has."""

    final: ClassVar[bool] = True

    name: str
    family: str
    weights: str
    parts: tuple[EncodingSpec, ...]


@dataclass(frozen=True, slots=True)
class EncodingComputed(Reply):
    """The map lies in the block that was given, as (C, h, w)."""

    final: ClassVar[bool] = True

    shape: tuple[int, int, int]
