"""Position-encoding maps in one session: of requests for maps, the newest wins."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from psygnal import Signal

from napari_samexp.engine.messages.base import CANCEL, Failed, Progress, Reply
from napari_samexp.engine.messages.encodings import (
    ComputeEncoding,
    DescribeEncodings,
    EncodingComputed,
    Encodings,
)
from napari_samexp.engine.sharing import SharedArray
from napari_samexp.errors import SamexpError
from napari_samexp.posenc.map import PosencMap
from napari_samexp.sam.encoding_spec import ABSOLUTE, EncodingSpec, require_part
from napari_samexp.session.latest import Latest
from napari_samexp.session.proxy import EngineProxy

__all__ = ["EncodingSource", "MapRequest"]

HW = tuple[int, int]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MapRequest:
    """A map; `grid_hw` None is the model's own grid."""

    part: str = ABSOLUTE
    grid_hw: HW | None = None
    window_tile: bool = True
    dtype: str = "float32"


class EncodingSource:
    """The maps of one model at a time.

    While a map is being computed, only the newest of further requests is kept.

    Signals
    -------
    described : Encodings
        What the chosen model has; maps can be requested from now on.
    changed : PosencMap
        The newest map, its norm and limits computed.
    failed : str, str
        One sentence, and its code.
    progress : int, int or None
        Bytes of a download, done and in all.

    Attributes
    ----------
    model : str
        As requested; empty if there is none.
    encodings : Encodings or None
        None while the model's file is being opened.
    current : PosencMap or None
    """

    described = Signal(object)
    changed = Signal(object)
    failed = Signal(str, str)
    progress = Signal(int, object)

    def __init__(self, proxy: EngineProxy) -> None:
        self._proxy = proxy
        self._block: SharedArray | None = None
        self._maps: Latest[MapRequest] = Latest(self._compute)
        self._description = 0  # number of the request
        self.model = ""
        self.encodings: Encodings | None = None
        self.current: PosencMap | None = None

    @property
    def opening(self) -> bool:
        """Whether the model's file is being downloaded or opened."""
        return bool(self.model) and self.encodings is None

    def choose(self, model: str) -> None:
        """Open a model by name or path; `described` follows."""
        self.leave()
        self.model = model
        self._description = self._proxy.request(DescribeEncodings(model), self._on_description)

    def leave(self) -> None:
        """Have no model."""
        self._proxy.forget(self._description)
        self._maps.drop_pending()
        self.model, self.encodings, self.current = "", None, None

    def cancel(self) -> None:
        """Stop a download."""
        if self.opening:
            self._proxy.send(CANCEL)

    def request(self, request: MapRequest) -> None:
        """Request a map; `changed` follows, unless a newer request takes its place.

        Raises
        ------
        SamexpError
            If no model is open, it has no such part, or the grid cannot be used.
        """
        part = self.part(request.part)
        self._maps.request(replace(request, grid_hw=part.require_grid(request.grid_hw)))

    def part(self, name: str) -> EncodingSpec:
        """Return a part of the model by its name."""
        if self.encodings is None:
            raise SamexpError("No model is open; choose one first.")
        return require_part(self.encodings.parts, name, self.encodings.name)

    def release(self) -> None:
        """Free shared memory."""
        if self._block is not None:
            self._block.release()
            self._block = None

    # ---- replies

    def _on_description(self, reply: Reply) -> None:
        if isinstance(reply, Progress):
            self.progress.emit(reply.done, reply.total)
        elif isinstance(reply, Encodings):
            self.encodings = reply
            self.described.emit(reply)
        elif isinstance(reply, Failed):
            self.model = ""
            self.failed.emit(reply.sentence, reply.code)

    def _compute(self, request: MapRequest) -> None:
        encodings = self.encodings
        assert encodings is not None and request.grid_hw is not None
        try:
            block = self._block_for(self.part(request.part).map_shape(request.grid_hw))
        except SamexpError as error:
            self._maps.done()
            self.failed.emit(str(error), error.code)
            return
        compute = ComputeEncoding(
            self.model, request.part, request.grid_hw, request.window_tile, request.dtype, block.ref
        )
        self._proxy.request(compute, partial(self._on_map, encodings, request, block), (block,))

    def _block_for(self, shape: tuple[int, int, int]) -> SharedArray:
        """Return a block that holds a map: the present one, unless it is too small or far too large."""
        nbytes = 4 * shape[0] * shape[1] * shape[2]
        if self._block is None or not nbytes <= self._block.nbytes <= 16 * nbytes + 2**20:
            self.release()
            self._block = SharedArray(shape, np.float32)
        return self._block

    def _on_map(self, encodings: Encodings, request: MapRequest, block: SharedArray, reply: Reply) -> None:
        if not reply.final:
            return
        current = encodings is self.encodings  # otherwise another model was chosen meanwhile
        if isinstance(reply, EncodingComputed) and current:
            work = partial(_finished_map, encodings, request, block, reply.shape)
            self._proxy.in_background(work, partial(self._show, encodings), self._fail)
            return
        self._maps.done()
        if isinstance(reply, Failed) and current:
            self.failed.emit(reply.sentence, reply.code)

    def _show(self, encodings: Encodings, made: PosencMap) -> None:
        self._maps.done()
        if encodings is self.encodings:
            self.current = made
            self.changed.emit(made)

    def _fail(self, error: Exception) -> None:
        self._maps.done()
        if isinstance(error, SamexpError) and self.encodings is not None:
            self.failed.emit(str(error), error.code)


def _finished_map(
    encodings: Encodings, request: MapRequest, block: SharedArray, shape: tuple[int, int, int]
) -> PosencMap:
    """Copy a map out of shared memory, and compute what every view of it needs; in the background."""
    part = require_part(encodings.parts, request.part, encodings.name)
    assert request.grid_hw is not None
    made = PosencMap(
        block.read(shape),
        encodings.name,
        request.part,
        request.grid_hw,
        request.window_tile or not part.tiled,
        request.dtype,
        part.kind,
        encodings.weights,
    )
    made.norm()
    made.limits()
    return made
