"""A second model beside the first, in napari's grid view."""

from __future__ import annotations

from typing import Any

from napari_samexp._qt.posenc.encoding_frame import grid_of
from napari_samexp._qt.posenc.encoding_layers import EncodingLayers
from napari_samexp.posenc.map import PosencMap
from napari_samexp.sam.encoding_spec import ABSOLUTE, MAX_SIDE, EncodingSpec
from napari_samexp.session.encodings import EncodingSource, MapRequest

__all__ = ["Comparison", "same_share"]


class Comparison:
    """Asks for the second model's map of what the first one shows, and puts the two side by side.

    Parameters
    ----------
    source : EncodingSource
        The second model's.
    """

    def __init__(self, viewer: Any, layers: EncodingLayers, source: EncodingSource) -> None:
        self._viewer, self._layers, self._source = viewer, layers, source
        self._kept: tuple[bool, Any] | None = None  # what grid view was before

    def part_beside(self, part: EncodingSpec) -> EncodingSpec | None:
        """Return what of the second model is shown beside a part of the first; None without a second one.

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
        """Ask for the same part, on a grid that is as much finer or coarser than the model's own.

        Raises
        ------
        SamexpError
            If the second model has neither this part nor an absolute one, or the grid would be too large.
        """
        other = self.part_beside(part)
        if other is None:
            return
        grid = None
        if first.grid_hw is not None and part.resizable and other.resizable:
            grid = same_share(first.grid_hw, part.grid_hw, other.grid_hw)
        self._source.request(MapRequest(other.name, grid, first.window_tile, dtype))

    def show(self, made: PosencMap) -> None:
        """Show the second map, the first to the left and this one to the right."""
        grid = grid_of(self._viewer)
        if self._kept is None:
            self._kept = bool(grid.enabled), grid.shape
            grid.shape, grid.enabled = (-1, 2), True
        self._layers.show(1, made)

    def end(self) -> None:
        """Take the second map away, and leave grid view as it was."""
        self._layers.drop(1)
        if self._kept is not None:
            grid, kept = grid_of(self._viewer), self._kept
            self._kept = None
            grid.enabled, grid.shape = kept
            self._viewer.reset_view()


def same_share(asked: tuple[int, int], own: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """Return the grid that is as large a share of `other` as `asked` is of `own`."""
    height, width = (
        min(max(1, round(size * theirs / ours)), MAX_SIDE) for size, ours, theirs in zip(asked, own, other)
    )
    return height, width
