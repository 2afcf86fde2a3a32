"""The recordings of the session, as the worker's journal has them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from psygnal import Signal

from napari_samexp.engine.messages import (
    ChangeRecording,
    ClearPrior,
    Failed,
    LoadPrior,
    PriorChanged,
    PriorEdit,
    PriorState,
    RecordingInfo,
    RemoveRecording,
    Reply,
    SavePrior,
    UndoChange,
)
from napari_samexp.errors import PriorError
from napari_samexp.session.proxy import EngineProxy

__all__ = ["Recordings"]


class Recordings:
    """The prior as a list that can be edited, undone, saved and loaded.

    Every change is on disk in the session's folder before it shows here.

    Signals
    -------
    changed : tuple of RecordingInfo
    saved : Path
        The prior was written to this file.
    failed : str
        One sentence; nothing has changed.

    Attributes
    ----------
    undoable : bool
        Whether there is a change to take back.
    unsaved : bool
        Whether there are recordings that were not saved to a file of the person's.
    """

    changed = Signal(tuple)
    saved = Signal(object)
    failed = Signal(str)

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
        """The labels that a run would follow, ascending."""
        return tuple(sorted({info.label for info in self.all if info.enabled}))

    @property
    def in_use(self) -> tuple[tuple[str, int], ...]:
        """Key and label of every recording that is switched on: what a run would know."""
        return tuple((info.key, info.label) for info in self.all if info.enabled)

    @property
    def unsaved(self) -> bool:
        """Whether there are recordings that were not saved to a file of the person's."""
        return bool(self.all) and _content(self.all) != self._saved

    def next_label(self) -> int:
        """Return the smallest label that has no recording."""
        taken = {info.label for info in self.all}
        return next(label for label in range(1, len(taken) + 2) if label not in taken)

    def name_of(self, label: int) -> str:
        """Return what a label is called, or an empty text."""
        return next((info.name for info in reversed(self.all) if info.label == label and info.name), "")

    def rename(self, key: str, name: str) -> None:
        """Call a recording's object something else."""
        self.edit(ChangeRecording(key, name=name))

    def relabel(self, key: str, label: int) -> None:
        """Give a recording to another object."""
        self.edit(ChangeRecording(key, label=label))

    def switch(self, key: str, on: bool) -> None:
        """Have runs use a recording, or not."""
        self.edit(ChangeRecording(key, enabled=on))

    def remove(self, key: str) -> None:
        """Remove a recording."""
        self.edit(RemoveRecording(key))

    def clear(self) -> None:
        """Remove all recordings."""
        self.edit(ClearPrior())

    def undo(self) -> None:
        """Take the last change back."""
        self.edit(UndoChange())

    def load(self, path: str | os.PathLike[str], *, append: bool = False) -> None:
        """Take the recordings from a prior file, in the place of those here or after them."""
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
                self.failed.emit(reply.sentence)
            elif reply.final:
                self._saved = content
                self.saved.emit(target)

        self._proxy.ask(SavePrior(str(target)), on_reply)

    def edit(self, request: PriorEdit, done: Callable[[], None] | None = None) -> None:
        """Have the worker change the prior; `done` is called once that is on disk."""

        def on_reply(reply: Reply) -> None:
            if isinstance(reply, Failed):
                self.failed.emit(reply.sentence)
            elif isinstance(reply, PriorChanged):
                self.take(reply.prior)
                if done is not None:
                    done()

        self._proxy.ask(request, on_reply)

    def take(self, state: PriorState) -> None:
        """Show the prior as the worker has it."""
        self._state = state
        self.undoable = state.undoable
        self.changed.emit(state.recordings)

    def _note_saved(self, path: Path) -> None:
        self._saved = _content(self.all)


def _content(recordings: tuple[RecordingInfo, ...]) -> tuple[object, ...]:
    """Return what a prior file would hold, in a form that can be compared."""
    return tuple((info.key, info.label, info.name, info.enabled) for info in recordings)
