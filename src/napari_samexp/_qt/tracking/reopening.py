"""The offer to reopen what the last session left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_samexp._qt.dock import Dock
from napari_samexp._qt.text import button_text
from napari_samexp.session.session import Leftover, Session

__all__ = ["Reopening"]

MAX_NAME = 32  # characters of a file's name on the button


class Reopening:
    """The button that brings back recordings, video and labels, until there is something new.

    Attributes
    ----------
    leftover : Leftover or None
        What is offered.
    """

    def __init__(self, dock: Dock) -> None:
        self._dock, self._button = dock, dock.panel.reopen
        self._session: Session = dock.session
        self.leftover: Leftover | None = None
        for signal, call in (
            (self._session.left_found, self._offer),
            (self._session.tracking.job_changed, self._job_changed),
            (self._session.recordings.changed, self._recordings_changed),
            (self._button.clicked, self.reopen),
        ):
            dock.connections.add(signal, call)

    def reopen(self, *_: Any) -> None:
        """Bring back the recordings, the video and the labels of the last session."""
        leftover = self.leftover
        self._withdraw()
        if leftover is not None:
            with self._dock.errors_shown():
                self._session.reopen(leftover)

    def _offer(self, leftover: Leftover) -> None:
        if not self._session.recordings.all and not self._session.tracking.job.active:
            self.leftover = leftover
            self._button.setText(button_text(_title(leftover)))
            self._button.show()
            self._dock.refresh()

    def _withdraw(self) -> None:
        self.leftover = None
        self._button.hide()

    def _job_changed(self, job: Any) -> None:
        if job.active:
            self._withdraw()

    def _recordings_changed(self, infos: tuple[Any, ...]) -> None:
        if infos:
            self._withdraw()


def _title(leftover: Leftover) -> str:
    if leftover.run is None:
        return "Reopen the last recordings"
    name = Path(leftover.run.video or leftover.run.store).name
    return f"Reopen {name if len(name) < MAX_NAME else name[: MAX_NAME - 2] + '…'}"
