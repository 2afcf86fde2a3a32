"""A worker for position encodings, and the two maps that are shown."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_samexp.engine.client import EngineClient
from napari_samexp.engine.messages.base import Reply, WorkerDied
from napari_samexp.engine.process import WorkerOptions
from napari_samexp.posenc.map import PosencMap
from napari_samexp.session.encodings import EncodingSource
from napari_samexp.session.folders import new_folder, sessions_dir
from napari_samexp.session.latest import Latest
from napari_samexp.session.proxy import Deliver, EngineProxy, MakeEngine, at_once

__all__ = ["EncodingSession"]

Analysis = tuple[PosencMap, Callable[[npt.NDArray[np.float32]], None]]

_log = logging.getLogger(__name__)


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
