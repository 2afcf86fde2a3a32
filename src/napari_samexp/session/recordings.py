"""The recordings of the session, as in the worker's journal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from psygnal import Signal

from napari_samexp.engine.messages.base import Failed, Reply
from napari_samexp.engine.messages.prompts import (
    ChangeRecording,
    ClearPrior,
    LoadPrior,
    PriorChanged,
    PriorEdit,
    PriorState,
    RecordingInfo,
    RemoveRecording,
    SavePrior,
    UndoChange,
)
from napari_samexp.errors import PriorError
from napari_samexp.session.proxy import EngineProxy

__all__ = ["Recordings"]


class Recordings:
    """The prior as a list that can be edited, undone, saved and loaded.

    Every change is on disk in the session's folder before it is shown.

    Signals
    -------
    changed : tuple of RecordingInfo
    saved : Path
        The prior was written to this file.
    failed : str, str
        One sentence, and its code; nothing has changed.

    Attributes
    ----------
    undoable : bool
        Whether there is a change to undo.
    unsaved : bool
        Whether there are recordings that were not saved to a prior file.
    """

    changed = Signal(tuple)
    saved = Signal(object)
    failed = Signal(str, str)

    def __init__(self, proxy: EngineProxy) -> None:
        self._proxy = proxy
        self._state = PriorState()
        self._saved: tuple[object, ...] = ()
        self.undoable = False

    @property
    def all(self) -> tuple[RecordingInfo, ...]:
        """The recordings, in the order in which they were made."""
        return self._state.recordings

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels that a run would track, ascending."""
        return tuple(sorted({info.label for info in self.all if info.enabled}))

    @property
    def in_use(self) -> tuple[tuple[str, int], ...]:
        """Key and label of every enabled recording, which are those of a run that starts now."""
        return tuple((info.key, info.label) for info in self.all if info.enabled)

    @property
    def unsaved(self) -> bool:
        """Whether there are recordings that were not saved to a prior file."""
        return bool(self.all) and _content(self.all) != self._saved

    def next_label(self) -> int:
        """Return the smallest label that has no recording."""
        taken = {info.label for info in self.all}
        return next(label for label in range(1, len(taken) + 2) if label not in taken)

    def name_of(self, label: int) -> str:
        """Return the name of a label, or an empty text."""
        return next((info.name for info in reversed(self.all) if info.label == label and info.name), "")

    def rename(self, key: str, name: str) -> None:
        """Give a recording another name."""
        self.edit(ChangeRecording(key, name=name))

    def relabel(self, key: str, label: int) -> None:
        """Give a recording another label."""
        self.edit(ChangeRecording(key, label=label))

    def switch(self, key: str, on: bool) -> None:
        """Enable or disable a recording."""
        self.edit(ChangeRecording(key, enabled=on))

    def remove(self, key: str) -> None:
        """Remove a recording."""
        self.edit(RemoveRecording(key))

    def clear(self) -> None:
        """Remove all recordings."""
        self.edit(ClearPrior())

    def undo(self) -> None:
        """Undo the last change."""
        self.edit(UndoChange())

    def load(self, path: str | os.PathLike[str], *, append: bool = False) -> None:
        """Load the recordings of a prior file, instead of the present ones or after them."""
        target = Path(path).absolute()
        self.edit(LoadPrior(str(target), append), None if append else lambda: self._note_saved(target))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a prior file.

        Raises
        ------
        PriorError
            If there is nothing to save.
        """
        if not self.all:
            raise PriorError("There is no recording to save; record a prompt first.")
        target, content = Path(path).absolute(), _content(self.all)

        def on_reply(reply: Reply) -> None:
            if isinstance(reply, Failed):
                self.failed.emit(reply.sentence, reply.code)
            elif reply.final:
                self._saved = content
                self.saved.emit(target)

        self._proxy.request(SavePrior(str(target)), on_reply)

    def edit(self, request: PriorEdit, done: Callable[[], None] | None = None) -> None:
        """Change the prior; `done` is called once that is on disk."""

        def on_reply(reply: Reply) -> None:
            if isinstance(reply, Failed):
                self.failed.emit(reply.sentence, reply.code)
            elif isinstance(reply, PriorChanged):
                self.show(reply.prior)
                if done is not None:
                    done()

        self._proxy.request(request, on_reply)

    def show(self, state: PriorState) -> None:
        """Show the worker's prior."""
        self._state = state
        self.undoable = state.undoable
        self.changed.emit(state.recordings)

    def _note_saved(self, path: Path) -> None:
        self._saved = _content(self.all)


def _content(recordings: tuple[RecordingInfo, ...]) -> tuple[object, ...]:
    """Return what a prior file would hold, in a form that can be compared."""
    return tuple((info.key, info.label, info.name, info.enabled) for info in recordings)
