"""A worker process and the pipe to it."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_samexp._children import starting_python
from napari_samexp.engine.launch import run_worker
from napari_samexp.errors import SamexpError

__all__ = ["WorkerOptions", "WorkerProcess"]


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How the worker process runs.

    Parameters
    ----------
    threads : int or None
        Of torch; None for torch's choice.
    niceness : int
        Added to the worker's, on systems that have it.
    cached_images : int
        Encoded images that the worker keeps.
    patience_s : float
        Seconds that a cancelled worker has to react, besides twice the time of the last frame.
    """

    threads: int | None = None
    niceness: int = 5
    cached_images: int = 3
    patience_s: float = 3.0


class WorkerProcess:
    """A worker that has been started.

    Parameters
    ----------
    folder : Path
        The session's folder, where the prior is journalled.

    Raises
    ------
    SamexpError
        If the system starts no process.
    """

    def __init__(self, folder: Path, options: WorkerOptions) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        arguments = (other, str(folder), options.threads, options.niceness, options.cached_images)
        self._process = context.Process(
            target=run_worker, args=arguments, name="napari-samexp model", daemon=True
        )
        try:
            with starting_python:
                self._process.start()
        except (OSError, ValueError, AssertionError) as error:
            self.connection.close()
            raise SamexpError(
                f"The model's process cannot be started ({error}); close other programs and try again."
            ) from error
        finally:
            other.close()
        self.pid = self._process.pid
        self.sentinel = self._process.sentinel

    def send(self, message: Any) -> bool:
        """Send a message; return False if the process is gone."""
        try:
            self.connection.send(message)
        except (OSError, ValueError):
            return False
        return True

    def end(self, patience_s: float = 0.0) -> int | None:
        """Wait for the process to end, or end it; return its exit code."""
        self._process.join(patience_s)
        if self._process.exitcode is None:
            self._process.terminate()
            self._process.join(0.5)
        if self._process.exitcode is None:  # stopped, or deep in a driver
            self._process.kill()
            self._process.join()
        code = self._process.exitcode
        self.connection.close()
        self._process.close()
        return code
