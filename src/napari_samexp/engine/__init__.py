"""One model in one worker process; the process that asks never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_samexp._lazy import lazy_names

if TYPE_CHECKING:
    from napari_samexp.engine.client import EngineClient
    from napari_samexp.engine.process import WorkerOptions
    from napari_samexp.engine.protocol import Engine

__all__ = ["Engine", "EngineClient", "WorkerOptions"]

__getattr__ = lazy_names(
    __name__, {"Engine": "protocol", "EngineClient": "client", "WorkerOptions": "process"}
)
