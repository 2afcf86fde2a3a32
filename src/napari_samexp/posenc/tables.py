"""The position encodings of a weights file, of which only the tables are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_samexp.errors import CheckpointError, SettingsError
from napari_samexp.sam.encoding_spec import ABSOLUTE, MAP_DTYPES, EncodingSpec, require_part
from napari_samexp.sam.identify import identify
from napari_samexp.sam.position_encoding import (
    hiera_map,
    memory_map,
    relative_map,
    rotary_map,
    sine_map,
    tile_map,
    vit_map,
)
from napari_samexp.sam.variant_json import variant_from_json
from napari_samexp.sam.variants import MAX_RECENT, EdgeTamVariant, Sam1Variant, Variant
from napari_samexp.sam.weights.cache import fetch
from napari_samexp.sam.weights.checkpoint import CheckpointFile, read_state, require_finite
from napari_samexp.sam.weights.download import Progress
from napari_samexp.sam.weights.loading import CONFIG_KEY

__all__ = ["PositionTables", "read_tables"]

HW = tuple[int, int]
_ERROR = "-error"  # suffix of a dtype: its rounding error
_NO_VARIANT_SIZE = 1024  # pixels a side, of all official models

_TABLE = "image_encoder.pos_embed"
_BACKGROUND = "image_encoder.trunk.pos_embed"
_WINDOW = "image_encoder.trunk.pos_embed_window"
_TIMES = "maskmem_tpos_enc"
_QUERY = "memory_attention.layers.0.self_attn.q_proj.weight"  # its shape gives the number of rotated channels
_RELATIVE = re.compile(r"image_encoder\.blocks\.([0-9]{1,3})\.attn\.rel_pos_[hw]")


@dataclass(frozen=True, eq=False)
class PositionTables:
    """The learned tables of a weights file, and the maps computed from them.

    Parameters
    ----------
    name : str
        The model's name, or the file's if its sizes are those of no known model.
    family, weights : str
        Such as ``"SAM 2.1"`` (empty if unknown), and the name of the file.
    tables : mapping of str to Tensor
        By Meta's keys; copies, so that the file can be closed.
    parts : tuple of EncodingSpec
        The encodings of the model.
    """

    name: str
    family: str
    weights: str
    tables: Mapping[str, Tensor]
    parts: tuple[EncodingSpec, ...]

    def part(self, name: str) -> EncodingSpec:
        """Return an encoding by its name; `CheckpointError` if the model has no such one."""
        return require_part(self.parts, name, self.name)

    @torch.inference_mode()
    def values(
        self,
        part: str = ABSOLUTE,
        grid_hw: HW | None = None,
        *,
        window_tile: bool = True,
        dtype: str = "float32",
    ) -> npt.NDArray[np.float32]:
        """Return a map as the model computes it.

        Parameters
        ----------
        part : str
            The name of an encoding in `parts`.
        grid_hw : (int, int), optional
            Height and width in tokens; by default the model's own.
        window_tile : bool
            Whether SAM 2's tiled window table is added.
        dtype : str
            The dtype of the computation: ``"float32"``, ``"bfloat16"`` or ``"float16"``; with ``"-error"``
            appended, its difference from float32.

        Returns
        -------
        array, shape (C, h, w), float32
            For relative positions of h x w tokens, (C, 2 h - 1, 2 w - 1).

        Raises
        ------
        CheckpointError
            If the model has no such encoding.
        SettingsError
            If the grid or the dtype cannot be used.
        """
        about = self.part(part)
        grid = about.require_grid(grid_hw)
        if dtype not in MAP_DTYPES:
            raise SettingsError(f"The dtype {dtype!r} is unknown; choose {', '.join(MAP_DTYPES)}.")
        kind = getattr(torch, dtype.removesuffix(_ERROR))
        computed = self._compute(about, grid, window_tile, kind).float()
        if dtype.endswith(_ERROR):
            computed = computed - self._compute(about, grid, window_tile, torch.float32)
        out: npt.NDArray[np.float32] = computed.contiguous().numpy()
        return out

    def _compute(self, part: EncodingSpec, grid: HW, window_tile: bool, kind: torch.dtype) -> Tensor:
        name, _, which = part.name.partition(":")
        if name == "relative":
            block = f"image_encoder.blocks.{which}.attn.rel_pos"
            rows, columns = self._table(f"{block}_h", kind), self._table(f"{block}_w", kind)
            return relative_map(
                rows.float(), columns.float(), grid
            )  # the model never computes this sum, so it is not rounded
        if name == "rotary":
            return rotary_map(part.channels, grid, kind, part.spread_hw)
        if name == "perceiver":
            return sine_map(part.channels, grid, torch.device("cpu"), kind)[0]
        if name == "memory":
            return memory_map(self._table(_TIMES, kind)[_slot(which), 0, 0], grid)
        if name == "times":
            return self._table(_TIMES, kind)[:, 0, 0].T[:, None]
        if name == "window":
            return tile_map(self._table(_WINDOW, kind), grid)[0]
        if _TABLE in self.tables:
            return vit_map(self._table(_TABLE, kind), grid)[0].permute(2, 0, 1)
        return hiera_map(self._table(_BACKGROUND, kind), self._table(_WINDOW, kind), grid, window_tile)[0]

    def _table(self, key: str, kind: torch.dtype) -> Tensor:
        return self.tables[key].to(kind)


def read_tables(name_or_path: str | Path, *, progress: Progress | None = None) -> PositionTables:
    """Return the position encodings of a model by name or of a weights file.

    The file is memory-mapped and only the tables are copied: 21 MB of the 2.4 GB of the largest SAM 1 model.

    Parameters
    ----------
    name_or_path : str or Path
        As `load_model` takes it; an official model is downloaded once.
    progress : callable, optional
        Called while downloading, with the bytes so far and in total.

    Raises
    ------
    CheckpointError
        If the weights cannot be loaded, or have no position encodings of SAM 1, 2 or 2.1.
    """
    file = read_state(fetch(name_or_path, progress=progress))
    variant = _variant(file)
    # clones: views would keep the whole file mapped
    tables = {key: t.clone() for key, t in file.state.items() if _is_table(key)}
    require_finite(tables, source=file.path)
    for key, table in tables.items():
        _require_shape(key, table, file.path)
    parts = tuple(_parts(file, tables, variant))
    if not parts:
        raise CheckpointError(
            f"{file.path} has no position encodings; expected {_TABLE} of SAM 1 or {_BACKGROUND} of SAM 2."
        )
    known = variant is not None
    name = variant.name if known and variant else file.path.stem
    return PositionTables(name, variant.family if variant else "", file.path.name, tables, parts)


def _is_table(key: str) -> bool:
    return key in (_TABLE, _BACKGROUND, _WINDOW, _TIMES) or _RELATIVE.fullmatch(key) is not None


def _require_shape(key: str, table: Tensor, path: Path) -> None:
    """Raise `CheckpointError` for tables that would fail deep inside a resize."""
    dims = 2 if _RELATIVE.fullmatch(key) else 4
    odd = dims == 2 and table.shape[0] % 2 == 0
    times = key == _TIMES and (table.shape[0] != MAX_RECENT + 1 or table.shape[-1] % 4)
    if table.ndim != dims or 0 in table.shape or odd or times:
        raise CheckpointError(
            f"{path} has {key} of shape {tuple(table.shape)}, which no SAM model has; use another file."
        )


def _variant(file: CheckpointFile) -> Variant | None:
    """Return the variant that the metadata or the shapes of a file give; None for an unsupported family."""
    if text := file.metadata.get(CONFIG_KEY):
        return variant_from_json(text)
    try:
        return identify(file.state)
    except CheckpointError:
        return None


def _slot(which: str) -> int:
    """Return the row of the learned temporal encoding: k - 1 for the k-th memory back, the last for a prior."""
    return MAX_RECENT if which == "prior" else int(which) - 1


def _parts(
    file: CheckpointFile, tables: Mapping[str, Tensor], variant: Variant | None
) -> Iterator[EncodingSpec]:
    size = _NO_VARIANT_SIZE if variant is None else variant.image_size
    if _TABLE in tables:
        table = tables[_TABLE]
        yield _absolute(table.shape[3], (table.shape[1], table.shape[2]), tiled=False)
        yield from _relative(tables, variant)
    if _BACKGROUND in tables and _WINDOW in tables:
        yield from _hiera(tables, (size // 4, size // 4))
        if _QUERY in file.state:
            yield _rotary(file.state[_QUERY].shape[0], (size // 16, size // 16))
    if isinstance(variant, EdgeTamVariant) and _TIMES in tables:
        yield from _edgetam(variant)
    elif _TIMES in tables:
        yield from _memory(tables[_TIMES].shape[-1], (size // 16, size // 16))


def _absolute(channels: int, grid: HW, tiled: bool) -> EncodingSpec:
    help_ = "What the image encoder adds to its patch tokens."
    return EncodingSpec(ABSOLUTE, "absolute", help_, channels, grid, tiled=tiled)


def _hiera(tables: Mapping[str, Tensor], grid: HW) -> Iterator[EncodingSpec]:
    channels = tables[_BACKGROUND].shape[1]
    if tables[_WINDOW].shape[1] != channels:
        raise CheckpointError(
            f"The background table has {channels} channels and the window table {tables[_WINDOW].shape[1]}; "
            "use a file in which they agree."
        )
    yield _absolute(channels, grid, tiled=True)
    yield EncodingSpec(
        "window", "window tile alone", "The window table, tiled over the grid.", channels, grid
    )


def _relative(tables: Mapping[str, Tensor], variant: Variant | None) -> Iterator[EncodingSpec]:
    own = tables[_TABLE].shape[1]
    for block in sorted({int(m[1]) for key in tables if (m := _RELATIVE.fullmatch(key))}):
        key = f"image_encoder.blocks.{block}.attn.rel_pos"
        if f"{key}_h" not in tables or f"{key}_w" not in tables:
            continue
        rows, columns = tables[f"{key}_h"], tables[f"{key}_w"]
        grid = ((rows.shape[0] + 1) // 2, (columns.shape[0] + 1) // 2)
        is_global = block in variant.global_blocks if isinstance(variant, Sam1Variant) else grid[0] == own
        yield EncodingSpec(
            f"relative:{block}",
            f"relative, block {block}" + (" (global)" if is_global else " (window)"),
            "What a query is multiplied with, by where the key lies from it; the query is in the middle.",
            rows.shape[1],
            grid,
            resizable=is_global,
            kind="offsets",
        )


def _rotary(channels: int, grid: HW) -> EncodingSpec:
    help_ = "What memory attention's rotary encoding makes of (1, 0); computed, the same in every model."
    return EncodingSpec("rotary", "rotary, memory attention", help_, channels, grid)


def _edgetam(variant: EdgeTamVariant) -> Iterator[EncodingSpec]:
    """Yield EdgeTAM's encodings; it has no absolute one."""
    grid = (variant.image_size // variant.patch,) * 2
    help_ = "What memory attention's rotary encoding makes of (1, 0) for a frame's tokens; other grids are spread over its own."
    yield EncodingSpec("rotary", "rotary, memory attention", help_, variant.d_model, grid, spread_hw=grid)
    help_ = "What the perceiver adds to a memory's tokens before it packs them: a sine map, nothing learned."
    yield EncodingSpec("perceiver", "perceiver, sine map", help_, variant.mem_dim, grid)
    yield from _memory(variant.mem_dim, (variant.windows, variant.windows), resizable=False)


def _memory(channels: int, grid: HW, resizable: bool = True) -> Iterator[EncodingSpec]:
    help_ = "What is added to the keys of a memory's tokens: a sine map, and the learned time of that memory."
    for which in (*map(str, range(1, MAX_RECENT + 1)), "prior"):
        when = "the prior" if which == "prior" else f"{which} frame{'s' * (which != '1')} back"
        yield EncodingSpec(f"memory:{which}", f"memory, {when}", help_, channels, grid, resizable)
    help_ = "The learned times alone: 1 to 6 frames back, and the prior."
    yield EncodingSpec(
        "times", "memory, times alone", help_, channels, (1, MAX_RECENT + 1), resizable=False, kind="frames"
    )
