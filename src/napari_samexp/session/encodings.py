"""Position-encoding maps in one session: of requests for maps, the newest wins."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_samexp.engine.client import EngineClient
from napari_samexp.engine.messages.base import CANCEL, Failed, Progress, Reply, WorkerDied
from napari_samexp.engine.messages.encodings import (
    ComputeEncoding,
    DescribeEncodings,
    EncodingComputed,
    Encodings,
)
from napari_samexp.engine.process import WorkerOptions
from napari_samexp.engine.sharing import SharedArray
from napari_samexp.errors import SamexpError
from napari_samexp.posenc.map import PosencMap
from napari_samexp.sam.encoding_spec import ABSOLUTE, EncodingSpec, require_part
from napari_samexp.session.folders import new_folder, sessions_dir
from napari_samexp.session.latest import Latest
from napari_samexp.session.proxy import Deliver, EngineProxy, MakeEngine, at_once

__all__ = ["EncodingSession", "EncodingSource", "MapRequest"]

HW = tuple[int, int]
Analysis = tuple[PosencMap, Callable[[npt.NDArray[np.float32]], None]]

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


class EncodingSession:
    """A separate worker for position encodings, so that no slider waits for a tracking run.

    Parameters
    ----------
    deliver, home, options, make_engine
        As for `Session`.

    Signals
    -------
    notice : str, str
        One sentence for people, and its code.

    Attributes
    ----------
    first, second : EncodingSource
        The map, and another to compare it with.
    """

    notice = Signal(str, str)

    def __init__(
        self,
        *,
        deliver: Deliver = at_once,
        home: Path | None = None,
        options: WorkerOptions | None = None,
        make_engine: MakeEngine | None = None,
    ) -> None:
        self._folder, _ = new_folder(sessions_dir(home))
        # half of the processors, so that computing maps does not slow down the slider that requests them
        options = options or WorkerOptions(threads=max(1, (os.cpu_count() or 2) // 2))
        make = make_engine or (lambda on_reply: EngineClient(on_reply, self._folder.path, options))
        self._deliver = deliver
        self._proxy = EngineProxy(make, deliver, self._on_other, lambda what: None)
        self._analyses: Latest[Analysis] = Latest(self._start_analysis)
        self._closed = False
        self.first, self.second = EncodingSource(self._proxy), EncodingSource(self._proxy)

    def start(self) -> None:
        """Start the worker before it is needed."""
        self._proxy.engine.start()

    def frequencies(self, shown: PosencMap, then: Callable[[npt.NDArray[np.float32]], None]) -> None:
        """Compute the dominant frequency of each channel in the background; only the newest request is answered."""
        self._analyses.request((shown, then))

    def _start_analysis(self, analysis: Analysis) -> None:
        # a thread beside that of the maps, which a large analysis would hold up
        threading.Thread(
            target=self._analyse, args=(analysis,), name="napari-samexp frequencies", daemon=True
        ).start()

    def _analyse(self, analysis: Analysis) -> None:
        shown, then = analysis
        found = None
        try:
            found = shown.frequencies()
        except Exception:
            _log.exception("the frequencies of a map could not be computed")
        self._deliver(partial(self._on_frequencies, found, then))

    def _on_frequencies(
        self, found: npt.NDArray[np.float32] | None, then: Callable[[npt.NDArray[np.float32]], None]
    ) -> None:
        if self._closed:
            return
        newest = self._analyses.done()
        if newest and found is not None:
            then(found)

    def close(self) -> None:
        """End the worker and free all memory; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._proxy.close()
        self.first.release()
        self.second.release()
        self._folder.close()

    def __enter__(self) -> EncodingSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_other(self, reply: Reply) -> None:
        if isinstance(reply, WorkerDied):
            self.notice.emit(reply.sentence, reply.code)
