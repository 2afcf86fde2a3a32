"""Which model is in use, and which there are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from psygnal import Signal

from napari_samexp.engine.messages.base import CANCEL, Failed, Progress, Reply, WorkerDied
from napari_samexp.engine.messages.model import Loaded, LoadModel, ModelInfo
from napari_samexp.sam.variants import VARIANTS
from napari_samexp.sam.weights.cache import cache_dir
from napari_samexp.sam.weights.catalogue import OFFICIAL, STARTER
from napari_samexp.session.proxy import EngineProxy

__all__ = ["SUGGESTED_ON_CPU", "ModelOffer", "ModelState", "Models", "model_offers"]


SUGGESTED_ON_CPU = "edgetam"  # a frame takes it less than a quarter of the time of Meta's smallest SAM 2.1

State = Literal["none", "loading", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """A model that is available by name.

    Parameters
    ----------
    bytes : int
        Of the download; 0 for the bundled starter.
    here : bool
        Whether its file is on this computer.
    suggested : bool
        Whether it is the official model to start with on a computer without a GPU.
    """

    name: str
    family: str
    bytes: int
    licence: str
    here: bool
    suggested: bool = False


def model_offers() -> tuple[ModelOffer, ...]:
    """Return the models that are available by name: the starter, the suggested one, then by family."""
    folder = cache_dir()
    official = (
        ModelOffer(
            row.name,
            VARIANTS[row.name].family,
            row.bytes,
            row.licence,
            (folder / row.file).exists(),
            suggested=row.name == SUGGESTED_ON_CPU,
        )
        for row in OFFICIAL.values()
    )
    first = ModelOffer(STARTER, "SAM 2.1", 0, "Apache-2.0", True)
    return (first, *sorted(official, key=lambda offer: not offer.suggested))


@dataclass(frozen=True, slots=True)
class ModelState:
    """The model of the session.

    Parameters
    ----------
    state : str
        "none"; "loading", also when a worker that ended is replaced; "ready"; or "failed".
    name : str
        As requested.
    info : ModelInfo or None
        The model in use; None while the first one is loading.
    sentence, code : str
        Why loading failed.
    doing : str
        While loading: "bytes" of a download, or "recordings" encoded again; empty otherwise.
    done, total : int
        How far that is; `total` is None where unknown.
    """

    state: State = "none"
    name: str = ""
    info: ModelInfo | None = None
    sentence: str = ""
    code: str = ""
    doing: str = ""
    done: int = 0
    total: int | None = None

    @property
    def usable(self) -> bool:
        """Whether a model is in use, although another may be loading."""
        return self.info is not None


class Models:
    """Loads models.

    Signals
    -------
    changed : ModelState
    loaded : Loaded, bool
        A model is ready; the bool says whether a new worker loaded the same model again.
    failed : str, str
        One sentence, and its code.
    """

    changed = Signal(ModelState)
    loaded = Signal(object, bool)
    failed = Signal(str, str)

    def __init__(self, proxy: EngineProxy) -> None:
        self._proxy = proxy
        self._requested = self._worker_id = 0
        self._in_worker = ModelState()  # the worker's, which a new worker loads again
        self.state = ModelState()

    def load(self, name: str, device: str = "auto", dtype: str = "float32", graphs: bool = False) -> None:
        """Load a model; the one in use stays until that has succeeded."""
        self._set(ModelState("loading", name, self._in_worker.info))
        self._requested = self._proxy.request(
            LoadModel(name, device, dtype, graphs), partial(self._on_reply, name)
        )

    def cancel(self) -> None:
        """Stop loading."""
        if self.state.state == "loading":
            self._proxy.send(CANCEL)

    def on_other(self, reply: Reply) -> None:
        """Handle the end of a worker, and the model that its successor loads again."""
        if isinstance(reply, WorkerDied):
            self._on_death(reply)
        elif reply.id != self._worker_id:
            return
        elif isinstance(reply, Loaded):
            self._on_loaded(self._in_worker.name, reply, again=True)
        elif isinstance(reply, Failed):
            self._in_worker = ModelState()
            self._on_failed(reply)

    def _on_reply(self, name: str, reply: Reply) -> None:
        newest = reply.id == self._requested
        if isinstance(reply, Loaded):
            self._on_loaded(name, reply, again=False)
        elif isinstance(reply, Progress) and newest:
            self._set(replace(self.state, doing=reply.what, done=reply.done, total=reply.total))
        elif isinstance(reply, Failed) and newest:
            self._requested = 0
            self._on_failed(reply)

    def _on_loaded(self, name: str, reply: Loaded, *, again: bool) -> None:
        self._in_worker, self._worker_id = ModelState("ready", name, reply.model), reply.id
        if reply.id == self._requested:
            self._requested = 0
        # while another one is loading, this one can be used
        self._set(replace(self.state, info=reply.model) if self._requested else self._in_worker)
        self.loaded.emit(reply, again)

    def _on_failed(self, reply: Failed) -> None:
        if not self._requested:
            fallback = (
                ModelState("failed", self.state.name) if self._in_worker.state == "none" else self._in_worker
            )
            self._set(replace(fallback, sentence=reply.sentence, code=reply.code))
        self.failed.emit(reply.sentence, reply.code)

    def _on_death(self, reply: WorkerDied) -> None:
        gone = not reply.restarting or self._in_worker.state == "none"
        self._in_worker = ModelState() if gone else ModelState("loading", self._in_worker.name)
        if self._requested:
            self._set(replace(self.state, info=None))
        elif self.state.state != "none":
            state: State = "loading" if reply.restarting else "failed"
            self._set(ModelState(state, self.state.name, sentence=reply.sentence, code=reply.code))

    def _set(self, state: ModelState) -> None:
        self.state = state
        self.changed.emit(state)
