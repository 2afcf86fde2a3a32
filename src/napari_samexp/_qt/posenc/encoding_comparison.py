"""A second model next to the first, in napari's grid view."""

from __future__ import annotations

from typing import Any

from napari_samexp._qt.posenc.encoding_frame import grid_of
from napari_samexp._qt.posenc.encoding_layers import EncodingLayers
from napari_samexp.posenc.map import PosencMap
from napari_samexp.sam.encoding_spec import ABSOLUTE, MAX_SIDE, EncodingSpec
from napari_samexp.session.encodings import EncodingSource, MapRequest

__all__ = ["EncodingComparison", "same_share"]


class EncodingComparison:
    """Requests the second model's map for what the first one shows, and shows both side by side.

    Parameters
    ----------
    source : EncodingSource
        Of the second model.
    """

    def __init__(self, viewer: Any, layers: EncodingLayers, source: EncodingSource) -> None:
        self._viewer, self._layers, self._source = viewer, layers, source
        self._grid_before: tuple[bool, Any] | None = None  # enabled, shape

    def counterpart(self, part: EncodingSpec) -> EncodingSpec | None:
        """Return the second model's counterpart of an encoding of the first; None without a second model.

        Raises
        ------
        SamexpError
            If the second model has neither this part nor an absolute one.
        """
        if self._source.encodings is None:
            return None
        names = [each.name for each in self._source.encodings.parts]
        return self._source.part(part.name if part.name in names else ABSOLUTE)

    def request(self, part: EncodingSpec, first: MapRequest, dtype: str) -> None:
        """Request the same encoding, on a grid scaled as much from the model's own.

        Raises
        ------
        SamexpError
            If the second model has neither this part nor an absolute one, or the grid would be too large.
        """
        other = self.counterpart(part)
        if other is None:
            return
        grid = None
        if first.grid_hw is not None and part.resizable and other.resizable:
            grid = same_share(first.grid_hw, part.grid_hw, other.grid_hw)
        self._source.request(MapRequest(other.name, grid, first.window_tile, dtype))

    def show(self, made: PosencMap) -> None:
        """Show the second map to the right of the first."""
        grid = grid_of(self._viewer)
        if self._grid_before is None:
            self._grid_before = bool(grid.enabled), grid.shape
            grid.shape, grid.enabled = (-1, 2), True
        self._layers.show(1, made)

    def end(self) -> None:
        """Remove the second map, and restore grid view."""
        self._layers.drop(1)
        if self._grid_before is not None:
            grid, before = grid_of(self._viewer), self._grid_before
            self._grid_before = None
            grid.enabled, grid.shape = before
            self._viewer.reset_view()


def same_share(requested: tuple[int, int], own: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """Return the grid that is to `other` what `requested` is to `own`."""
    height, width = (
        min(max(1, round(size * theirs / ours)), MAX_SIDE)
        for size, ours, theirs in zip(requested, own, other)
    )
    return height, width
