"""Position-encoding maps in one session: which model, which map, and the newest request wins."""

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
from napari_samexp.engine.messages import (
    Cancel,
    ComputeEncoding,
    DescribeEncodings,
    EncodingComputed,
    Encodings,
    Failed,
    Progress,
    Reply,
    WorkerDied,
)
from napari_samexp.engine.process import WorkerOptions
from napari_samexp.engine.sharing import SharedArray
from napari_samexp.errors import SamexpError
from napari_samexp.posenc.map import PosencMap
from napari_samexp.sam.encoding_spec import ABSOLUTE, EncodingSpec, require_part
from napari_samexp.session.folders import new_folder, sessions_dir
from napari_samexp.session.proxy import Deliver, EngineProxy, MakeEngine, at_once

__all__ = ["EncodingSession", "EncodingSource", "MapRequest"]

HW = tuple[int, int]
_Question = tuple[PosencMap, Callable[[npt.NDArray[np.float32]], None]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MapRequest:
    """What a map shall show; `grid_hw` None is the model's own grid."""

    part: str = ABSOLUTE
    grid_hw: HW | None = None
    window_tile: bool = True
    dtype: str = "float32"


class EncodingSource:
    """The maps of one model at a time.

    While one map is on its way, of all requests only the newest is kept.

    Signals
    -------
    described : Encodings
        What the chosen model has; requests can be made from here on.
    changed : PosencMap
        The newest map, its norm and limits computed.
    failed : str
        One sentence.
    progress : int, int or None
        Bytes of a download, done and in all.

    Attributes
    ----------
    model : str
        As it was asked for; empty if there is none.
    encodings : Encodings or None
        None while the model's file is being opened.
    current : PosencMap or None
    """

    described = Signal(object)
    changed = Signal(object)
    failed = Signal(str)
    progress = Signal(int, object)

    def __init__(self, proxy: EngineProxy) -> None:
        self._proxy = proxy
        self._block: SharedArray | None = None
        self._busy = False
        self._next: MapRequest | None = None
        self._turn = 0  # what was asked for an earlier model comes too late
        self.model = ""
        self.encodings: Encodings | None = None
        self.current: PosencMap | None = None

    @property
    def opening(self) -> bool:
        """Whether the model's file is being downloaded or opened."""
        return bool(self.model) and self.encodings is None

    def choose(self, model: str) -> None:
        """Open a model by name or path; its encodings are told by `described`."""
        self._turn += 1
        self.model, self.encodings, self.current, self._next = model, None, None, None
        self._proxy.ask(DescribeEncodings(model), partial(self._on_description, self._turn))

    def leave(self) -> None:
        """Have no model."""
        self._turn += 1
        self.model, self.encodings, self.current, self._next = "", None, None, None

    def cancel(self) -> None:
        """Stop a download."""
        if self.opening:
            self._proxy.tell(Cancel())

    def request(self, wanted: MapRequest) -> None:
        """Ask for a map; it comes by `changed`, unless a newer request overtakes it.

        Raises
        ------
        SamexpError
            If no model is open, it has no such part, or the grid cannot be used.
        """
        part = self.part(wanted.part)
        self._next = replace(wanted, grid_hw=part.require_grid(wanted.grid_hw))
        if not self._busy:
            self._send()

    def part(self, name: str) -> EncodingSpec:
        """Return a part of the model by its name."""
        if self.encodings is None:
            raise SamexpError("No model is open; choose one first.")
        return require_part(self.encodings.parts, name, self.encodings.name)

    def release(self) -> None:
        """Give shared memory back."""
        if self._block is not None:
            self._block.release()
            self._block = None

    # ---- what comes

    def _on_description(self, turn: int, reply: Reply) -> None:
        if turn != self._turn:
            return
        if isinstance(reply, Progress):
            self.progress.emit(reply.done, reply.total)
        elif isinstance(reply, Encodings):
            self.encodings = reply
            self.described.emit(reply)
        elif isinstance(reply, Failed):
            self.model = ""
            self.failed.emit(reply.sentence)

    def _send(self) -> None:
        wanted, self._next = self._next, None
        if wanted is None or self.encodings is None or wanted.grid_hw is None:
            return
        try:
            block = self._room_for(self.part(wanted.part).map_shape(wanted.grid_hw))
        except SamexpError as error:
            self.failed.emit(str(error))
            return
        request = ComputeEncoding(
            self.model, wanted.part, wanted.grid_hw, wanted.window_tile, wanted.dtype, block.ref
        )
        self._busy = True
        self._proxy.ask(request, partial(self._on_map, self._turn, wanted, block), (block,))

    def _room_for(self, shape: tuple[int, int, int]) -> SharedArray:
        """Return a block that holds a map; a larger one that is there will do, but not for ever."""
        wanted = 4 * shape[0] * shape[1] * shape[2]
        if self._block is None or not wanted <= self._block.nbytes <= 16 * wanted + 2**20:
            self.release()
            self._block = SharedArray(shape, np.float32)
        return self._block

    def _on_map(self, turn: int, wanted: MapRequest, block: SharedArray, reply: Reply) -> None:
        if not reply.final:
            return
        if isinstance(reply, EncodingComputed) and turn == self._turn:
            work = partial(self._finished, wanted, block, reply.shape)
            self._proxy.aside(work, partial(self._show, turn), self._broke)
            return
        self._go_on()
        if isinstance(reply, Failed) and turn == self._turn:
            self.failed.emit(reply.sentence)

    def _finished(self, wanted: MapRequest, block: SharedArray, shape: tuple[int, int, int]) -> PosencMap:
        """Copy a map out of shared memory and compute what every view of it needs; not on the window's thread."""
        encodings = self.encodings
        if encodings is None or wanted.grid_hw is None:
            raise SamexpError("The model was left.")
        part = require_part(encodings.parts, wanted.part, encodings.name)
        made = PosencMap(
            block.read(shape),
            encodings.name,
            wanted.part,
            wanted.grid_hw,
            wanted.window_tile or not part.tiled,
            wanted.dtype,
            part.kind,
            encodings.weights,
        )
        made.norm()
        made.limits()
        return made

    def _show(self, turn: int, made: PosencMap) -> None:
        self._go_on()
        if turn == self._turn:
            self.current = made
            self.changed.emit(made)

    def _broke(self, error: Exception) -> None:
        self._go_on()
        if isinstance(error, SamexpError) and self.encodings is not None:
            self.failed.emit(str(error))

    def _go_on(self) -> None:
        self._busy = False
        self._send()


class EncodingSession:
    """A worker of its own for position encodings, so that a run of tracking makes no slider wait.

    Parameters
    ----------
    deliver, home, options, make_engine
        As for `Session`.

    Signals
    -------
    notice : str
        One sentence for people.

    Attributes
    ----------
    first, second : EncodingSource
        The map, and another to compare it with.
    """

    notice = Signal(str)

    def __init__(
        self,
        *,
        deliver: Deliver = at_once,
        home: Path | None = None,
        options: WorkerOptions | None = None,
        make_engine: MakeEngine | None = None,
    ) -> None:
        self._folder, _ = new_folder(sessions_dir(home))
        # half of the processors, so that a slider that is dragged is not slowed down by what it asks for
        options = options or WorkerOptions(threads=max(1, (os.cpu_count() or 2) // 2))
        make = make_engine or (lambda on_reply: EngineClient(on_reply, self._folder.path, options))
        self._deliver = deliver
        self._proxy = EngineProxy(make, deliver, self._on_other, lambda what: None)
        self._question: _Question | None = None  # the newest
        self._analysing = False
        self._lock = threading.Lock()
        self._closed = False
        self.first, self.second = EncodingSource(self._proxy), EncodingSource(self._proxy)

    def start(self) -> None:
        """Have the worker started before it is needed."""
        self._proxy.engine.start()

    def frequencies(self, shown: PosencMap, then: Callable[[npt.NDArray[np.float32]], None]) -> None:
        """Compute the dominant frequency of each channel aside; only the newest question is answered."""
        with self._lock:
            self._question = shown, then
            if self._analysing:  # one thread, however often a slider asks
                return
            self._analysing = True
        # not behind the maps, which a large analysis would hold up
        threading.Thread(target=self._analyse, name="napari-samexp frequencies", daemon=True).start()

    def _analyse(self) -> None:
        question = self._question_after(None)
        while question is not None:
            try:
                self._deliver(partial(self._answer, question, question[0].frequencies()))
            except Exception:
                _log.exception("the frequencies of a map could not be found")
            question = self._question_after(question)

    def _question_after(self, answered: _Question | None) -> _Question | None:
        with self._lock:
            self._analysing = self._question is not answered and not self._closed
            return self._question if self._analysing else None

    def _answer(self, question: _Question, found: npt.NDArray[np.float32]) -> None:
        if question is self._question and not self._closed:
            question[1](found)

    def close(self) -> None:
        """End the worker and let go of everything; a second call does nothing."""
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
            self.notice.emit(reply.sentence)
