"""The first lines of a worker process."""

from __future__ import annotations

import importlib
import os
import signal
from contextlib import suppress
from multiprocessing.connection import Connection

from napari_samexp.engine.messages.base import WorkerDied

__all__ = ["run_worker"]


def run_worker(
    connection: Connection, folder: str, threads: int | None, niceness: int, cached_images: int
) -> None:
    """Serve requests from the connection until it closes."""
    with suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the viewer decides about Ctrl-C in a terminal
    with suppress(AttributeError, OSError):
        os.nice(niceness)  # the window goes first
    # Busy-waiting threads take the processor from the viewer and from each other: on two cores with other work,
    # a click on the starter took 29 ms with two busy-waiting threads, 3 ms with two sleeping ones, 4 ms with one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        # by name, so that the viewer's process, which imports this module to start a worker, never imports torch
        worker = importlib.import_module("napari_samexp.engine.worker")
    except ImportError as error:
        sentence = f"The model's process cannot start ({error}); install torch for this Python."
        connection.send(WorkerDied(0, sentence, restarting=False, code="worker-start"))
        return
    worker.serve(connection, folder, threads, cached_images)
