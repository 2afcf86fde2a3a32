"""The first lines of a worker process."""

from __future__ import annotations

import importlib
import os
import signal
from contextlib import suppress
from multiprocessing.connection import Connection

from napari_samexp.engine.messages import WorkerDied

__all__ = ["run_worker"]


def run_worker(
    connection: Connection, folder: str, threads: int | None, niceness: int, cached_images: int
) -> None:
    """Serve requests from the connection until it closes."""
    with suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the viewer to decide
    with suppress(AttributeError, OSError):
        os.nice(niceness)  # the window goes first
    # Threads that wait for each other at full speed take the processor from the viewer, and from themselves:
    # on two cores with other work, a click on the starter took 29 ms with two such threads, 3 ms with two that
    # sleep, and 4 ms with one. Then the number of threads can stay torch's choice.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        # By name and here, so that the viewer's process, which imports this module to start a worker,
        # imports neither the worker nor torch; the import linter sees no edge either.
        worker = importlib.import_module("napari_samexp.engine.worker")
    except ImportError as error:
        sentence = f"The model's process cannot start ({error}); install torch for this Python."
        connection.send(WorkerDied(0, sentence, restarting=False))
        return
    worker.serve(connection, folder, threads, cached_images)
