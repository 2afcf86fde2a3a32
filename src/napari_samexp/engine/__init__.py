"""One model in one worker process; the process that asks never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_samexp._lazy import lazy_names

if TYPE_CHECKING:
    from napari_samexp.engine.client import Engine, EngineClient
    from napari_samexp.engine.process import WorkerOptions

__all__ = ["Engine", "EngineClient", "WorkerOptions"]

__getattr__ = lazy_names(__name__, {"Engine": "client", "EngineClient": "client", "WorkerOptions": "process"})
