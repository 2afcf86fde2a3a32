"""The results of a run: labels that can be painted on, and scores."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_samexp.engine.messages.tracking import FrameDone, Keep, Kept, TrackStarted
from napari_samexp.errors import SettingsError, StoreError, code_of
from napari_samexp.session.frames import lost_frames, next_lost, previous_lost
from napari_samexp.session.proxy import EngineProxy
from napari_samexp.types import ObjectScore

if TYPE_CHECKING:
    from napari_samexp.io.label_edits import EditableLabels
    from napari_samexp.session.stores import OpenedStore

__all__ = ["Results"]


class Results:
    """The labels and scores of the current run, or of a store that was opened.

    No run writes frames that a person painted, not even the current one.

    Signals
    -------
    labels_changed : EditableLabels or None
        Show other labels.
    scores_changed
        Many scores at once; for single frames see `tracking.frame_done`.
    edited_changed
        The set of painted frames has changed.
    failed : str, str
        One sentence, and its code.

    Attributes
    ----------
    labels : EditableLabels or None
        Takes the place of an array (T, Y, X) in a viewer, which may paint on it.
    scores : dict of int to dict of int to ObjectScore
        By frame and label.
    """

    labels_changed = Signal(object)
    scores_changed = Signal()
    edited_changed = Signal()
    failed = Signal(str, str)

    def __init__(self, proxy: EngineProxy) -> None:
        self._proxy = proxy
        self.labels: EditableLabels | None = None
        self.scores: dict[int, dict[int, ObjectScore]] = {}

    # ---- for the user

    @property
    def edited(self) -> frozenset[int]:
        """The frames that a person painted."""
        return frozenset() if self.labels is None else self.labels.edited

    def lost_frames(self, label: int | None = None) -> list[int]:
        """Return the frames in which an object, or this one, was lost, ascending.

        Those that a person painted are not among them: what they show was decided.
        """
        return lost_frames(self.scores, label, self.edited)

    def next_lost(self, current: int, label: int | None = None) -> int | None:
        """Return the first of the lost frames after `current`."""
        return next_lost(self.scores, current, label, self.edited)

    def previous_lost(self, current: int, label: int | None = None) -> int | None:
        """Return the last of the lost frames before `current`."""
        return previous_lost(self.scores, current, label, self.edited)

    def mark_edited(self, frames: Collection[int]) -> None:
        """Keep runs from writing frames; painting on `labels` does so by itself."""
        if self.labels is not None:
            self.labels.mark(frames)

    def release_edited(self, frames: Collection[int]) -> None:
        """Let later runs write frames that were painted."""
        if self.labels is not None:
            self.labels.unmark(frames)
            self.edited_changed.emit()

    def paint(self, store: str, index: int, label: int, mask: npt.NDArray[np.bool_]) -> None:
        """Replace an object in a frame of a run's labels by `mask`, if that run is shown."""
        if self.labels is None or self.labels.path != Path(store):
            return
        frame = np.array(self.labels[index])
        frame[frame == label] = 0
        frame[mask] = label
        self.labels[index] = frame

    def mask_of(self, index: int, label: int) -> npt.NDArray[np.bool_]:
        """Return where a frame has a label; `SettingsError` if nowhere."""
        if self.labels is None:
            raise SettingsError("There are no labels to remember; paint the object, or click on it.")
        if not 0 <= index < len(self.labels):
            raise SettingsError(
                f"The labels have no frame {index}, only 0 to {len(self.labels) - 1}: they are of another video. "
                "Choose that one, or track this one first."
            )
        found: npt.NDArray[np.bool_] = np.asarray(self.labels[index]) == label
        if not found.any():
            raise SettingsError(f"Label {label} is nowhere in frame {index}; paint it, or click on it.")
        return found

    def edits_to_keep(
        self, folder: Path, frames: Sequence[int], *, overwrite: bool = False, over_edits: bool = False
    ) -> frozenset[int]:
        """Return the painted frames of a store that a run must not write.

        Raises
        ------
        StoreError
            If `overwrite` would lose painted frames, and `over_edits` does not allow that.
        """
        from napari_samexp.io.label_edits import EditableLabels, edited_frames

        edited = edited_frames(folder)
        if overwrite and edited and not over_edits:
            raise StoreError(
                f"{len(edited)} frames in {folder} were painted by hand, and replacing it would lose them.",
                code="labels-painted",
            )
        if overwrite:
            return frozenset()
        if over_edits and edited:
            shown = self.labels is not None and self.labels.path == folder
            (self.release_edited if shown else EditableLabels(folder).unmark)(frames)
            return edited - set(frames)
        return edited

    # ---- for the run

    def clear(self) -> None:
        """Show nothing."""
        self._show(None, {})

    def show(self, store: OpenedStore) -> None:
        """Show a store that no run writes."""
        self._show(self._open(store.path), store.scores)
        self.scores_changed.emit()

    def begin(self, reply: TrackStarted) -> None:
        """Show the store of a run that has started."""
        if self.labels is None or self.labels.path != Path(reply.store):
            self._show(self._open(reply.store), {})
            if reply.done:
                from napari_samexp.session.stores import read_store

                path = Path(reply.store)
                self._proxy.in_background(lambda: read_store(path), self._add, self._fail)
        if self.labels is not None:
            self.labels.guarding = True

    def add(self, reply: FrameDone) -> None:
        """Add a frame's scores, and restore what was painted on it at the same time."""
        self.scores[reply.index] = reply.scores
        if self.labels is not None:
            self.labels.repair(reply.index)

    def end(self) -> None:
        """Handle the end of the run."""
        if self.labels is not None:
            self.labels.stop_guarding()

    def on_kept(self, reply: Kept) -> None:
        """Handle that the run keeps frames as they are."""
        if self.labels is not None:
            self.labels.settle(reply.frames)

    def _open(self, path: str | Path) -> EditableLabels:
        from napari_samexp.io.label_edits import (
            EditableLabels,  # zarr takes long, and is imported in the background
        )

        return EditableLabels(path, self._on_edit)

    def _on_edit(self, frames: frozenset[int]) -> None:
        if self.labels is not None and self.labels.guarding:
            self._proxy.send(Keep(frames))
        self.edited_changed.emit()

    def _add(self, found: OpenedStore) -> None:
        if self.labels is not None and self.labels.path == found.path:
            self.scores = {**found.scores, **self.scores}
            self.scores_changed.emit()

    def _fail(self, error: Exception) -> None:
        self.failed.emit(str(error), code_of(error))

    def _show(self, labels: Any, scores: dict[int, dict[int, ObjectScore]]) -> None:
        self.scores = scores
        if labels is not self.labels:
            self.labels = labels
            self.labels_changed.emit(labels)
