"""Position encoding maps from the name of a model or its weights file."""

from __future__ import annotations

from pathlib import Path

from napari_samexp.posenc.map import PosencMap
from napari_samexp.posenc.tables import PositionTables, read_tables
from napari_samexp.sam.encoding_spec import ABSOLUTE
from napari_samexp.sam.weights.download import Progress

__all__ = ["map_of", "position_encoding"]


def position_encoding(
    model: str | Path,
    grid_hw: tuple[int, int] | None = None,
    *,
    part: str = ABSOLUTE,
    window_tile: bool = True,
    dtype: str = "float32",
    progress: Progress | None = None,
) -> PosencMap:
    """Return the map of a model's position encoding; only the tables are read from its file.

    Parameters
    ----------
    model : str or Path
        A name or a weights file, as `load_model` takes it.
    grid_hw : (int, int), optional
        Height and width in tokens, from 1 to 1024; by default the model's own.
    part : str
        ``"absolute"``, what the image encoder adds to its patch tokens. SAM 2 also has ``"window"``,
        ``"rotary"``, ``"memory:1"`` to ``"memory:6"``, ``"memory:prior"`` and ``"times"``; SAM 1 has
        ``"relative:0"`` and so on, one for each block.
    window_tile : bool
        Whether SAM 2's tiled window table is added to the background.
    dtype : str
        The dtype of the computation: ``"float32"``, ``"bfloat16"`` or ``"float16"``; with ``"-error"`` appended,
        the map is the rounding error of that dtype.
    progress : callable, optional
        Called while downloading, with the bytes so far and in total.

    Raises
    ------
    CheckpointError
        If the weights cannot be loaded, or have no such encoding.
    SettingsError
        If the grid or the dtype cannot be used.
    """
    tables = read_tables(model, progress=progress)
    return map_of(tables, part, grid_hw, window_tile=window_tile, dtype=dtype)


def map_of(
    tables: PositionTables,
    part: str = ABSOLUTE,
    grid_hw: tuple[int, int] | None = None,
    *,
    window_tile: bool = True,
    dtype: str = "float32",
) -> PosencMap:
    """Return a map from tables already read; see `position_encoding`."""
    about = tables.part(part)
    values = tables.values(part, grid_hw, window_tile=window_tile, dtype=dtype)
    grid = about.require_grid(grid_hw)
    tile = window_tile or not about.tiled  # nothing was left out where there was nothing
    return PosencMap(values, tables.name, part, grid, tile, dtype, about.kind, tables.weights)
