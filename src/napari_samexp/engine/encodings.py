"""Position encodings of weights files, in the worker; no model is loaded for them."""

from __future__ import annotations

from collections import OrderedDict

from napari_samexp.engine.messages.encodings import (
    ComputeEncoding,
    DescribeEncodings,
    EncodingComputed,
    Encodings,
)
from napari_samexp.engine.sharing import write_shared
from napari_samexp.posenc.tables import PositionTables, read_tables
from napari_samexp.sam.weights.cache import fetch
from napari_samexp.sam.weights.download import Progress

__all__ = ["EncodingReader"]

CACHED = 3  # files: two that are compared, and the one before

_Key = tuple[str, int, int]


class EncodingReader:
    """Reads tables once, and computes maps of them into shared memory."""

    def __init__(self) -> None:
        self._tables: OrderedDict[_Key, PositionTables] = OrderedDict()

    def describe(self, number: int, request: DescribeEncodings, progress: Progress) -> Encodings:
        """Return which encodings a model has, downloading an official file first."""
        tables = self._read(request.model, progress)
        return Encodings(number, tables.name, tables.family, tables.weights, tables.parts)

    def compute(self, number: int, request: ComputeEncoding) -> EncodingComputed:
        """Compute a map into the shared block of the request."""
        tables = self._read(request.model, None)
        values = tables.values(
            request.part, request.grid_hw, window_tile=request.window_tile, dtype=request.dtype
        )
        write_shared(request.into, values)
        return EncodingComputed(number, (values.shape[0], values.shape[1], values.shape[2]))

    def _read(self, model: str, progress: Progress | None) -> PositionTables:
        path = fetch(model, progress=progress)
        status = path.stat()
        key = (str(path), status.st_size, status.st_mtime_ns)  # a file that was replaced is read again
        if key not in self._tables:
            self._tables[key] = read_tables(path)
            while len(self._tables) > CACHED:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key]
