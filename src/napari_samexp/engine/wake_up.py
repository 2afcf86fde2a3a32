"""Waking a thread that waits for connections."""

from __future__ import annotations

import multiprocessing
import threading

__all__ = ["WakeUp"]


class WakeUp:
    """A pipe that is readable once `set` was called, until `clear`.

    Attributes
    ----------
    connection : Connection
        For `multiprocessing.connection.wait`.
    """

    def __init__(self) -> None:
        self.connection, self._writer = multiprocessing.Pipe(duplex=False)
        self._lock = threading.Lock()
        self._is_set = False

    def set(self) -> None:
        """Wake the waiting thread; does nothing if that is done already, or after `close`."""
        with self._lock:
            if not self._is_set:
                self._is_set = True
                self._writer.send_bytes(b"!")

    def clear(self) -> None:
        """Wait for the next `set`."""
        with self._lock:
            self.connection.recv_bytes()
            self._is_set = False

    def close(self) -> None:
        """Close the pipe; `set` does nothing from now on."""
        with self._lock:
            self._is_set = True
            self.connection.close()
            self._writer.close()
