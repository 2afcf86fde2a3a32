"""The scores of a run: the timeline, the frame in view, and the way to lost frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_samexp._qt.dock import Dock
from napari_samexp._qt.image_layers import step_to, time_of
from napari_samexp._qt.layer_choice import LayerChoice
from napari_samexp._qt.signals import dock_signals
from napari_samexp._qt.tracking.run_labels import RunLabels
from napari_samexp.session.session import Session
from napari_samexp.types import ObjectScore

if TYPE_CHECKING:  # zarr is slow to import, and the window would wait for it
    from napari_samexp.io.label_edits import EditableLabels

__all__ = ["TimelineControl", "score_lines"]

MAX_NAME = 16  # characters of an object's name beside its scores


def score_lines(scores: dict[int, ObjectScore], names: dict[int, str], painted: bool = False) -> list[str]:
    """Return a frame's scores, one line per object; those of a painted frame are from before the painting."""
    lines = [
        f"{_shortened(names.get(label) or f'object {label}')}: "
        + ("painted" if painted else "lost" if score.lost else f"IoU {score.iou:.2f}")
        + f", presence {score.presence:.1f}"
        for label, score in scores.items()
    ]
    return lines or ["this frame is not tracked yet"]


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1].rstrip()}…"


class TimelineControl:
    """Fills the timeline, follows the slider, and goes to lost frames.

    Parameters
    ----------
    dock : Dock
    videos : LayerChoice
        The layer to track in.
    labels : RunLabels
        The layer of the run.
    """

    def __init__(self, dock: Dock, videos: LayerChoice, labels: RunLabels) -> None:
        self._dock, self._panel, self._viewer = dock, dock.panel, dock.viewer
        self._session: Session = dock.session
        self._videos, self._labels = videos, labels
        tracking, results, timeline = self._session.tracking, self._session.results, self._panel.timeline
        for signal, call in (
            (self._panel.previous_lost.clicked, lambda: self.go_to_lost(-1)),
            (self._panel.next_lost.clicked, lambda: self.go_to_lost(1)),
            (timeline.frame_chosen, self._go_to),
            (videos.changed, self._moved),
            (self._viewer.dims.events.point, self._moved),
            (tracking.frame_done, self._frame_done),
            (results.labels_changed, self._labels_changed),
            (results.scores_changed, self._scores_changed),
            (results.edited_changed, self._edited_changed),
            (dock_signals.evaluated, self._evaluated),
        ):
            dock.connections.add(signal, call)
        self._moved()

    def go_to_lost(self, step: int) -> None:
        """Go to the next (1) or previous (-1) place where an object was lost."""
        layer = self._layer_in_view()
        if layer is None:
            return
        index = self._panel.timeline.next_lost(time_of(layer, self._viewer.dims), step)
        if index is None:
            where = "after" if step > 0 else "before"
            self._dock.notify(f"Nothing was lost {where} this frame.")
        else:
            step_to(layer, self._viewer.dims, index)

    def _go_to(self, index: int) -> None:
        layer = self._layer_in_view()
        if layer is not None:
            step_to(layer, self._viewer.dims, index)

    def _layer_in_view(self) -> Any:
        return self._labels.layer if self._labels.shown else self._videos.current

    def _moved(self, event: Any = None) -> None:
        layer = self._layer_in_view()
        if layer is not None:
            self._panel.timeline.set_current(time_of(layer, self._viewer.dims))
            self._show_scores()

    def _frame_done(self, index: int) -> None:
        self._enter_scores(index)
        if self._labels.shown and self._labels.frame == index:
            self._show_scores()

    def _labels_changed(self, labels: EditableLabels | None) -> None:
        if labels is not None:
            colours = self._labels.colours(labels.names)
            self._panel.timeline.reset(labels.shape[0], labels.names, colours)
            self._panel.timeline.set_painted(labels.edited)
            self._moved()

    def _scores_changed(self) -> None:
        for index in self._session.results.scores:
            self._enter_scores(index)
        self._show_scores()
        self._dock.refresh()

    def _edited_changed(self) -> None:
        self._panel.timeline.set_painted(self._session.results.edited)
        self._show_scores()
        self._dock.refresh()

    def _evaluated(self, layer: Any, evaluation: Any) -> None:
        """Show J per frame of this run against ground truth."""
        if layer is not self._labels.layer:
            return
        curves = {label: np.full(len(layer.data), np.nan, np.float32) for label in evaluation.names}
        for score in evaluation.frames:
            curves[score.label][score.frame] = score.j
        self._panel.timeline.set_measured(curves)

    def _enter_scores(self, index: int) -> None:
        for label, score in self._session.results.scores.get(index, {}).items():
            self._panel.timeline.set_score(index, label, score.presence, score.iou)

    def _show_scores(self) -> None:
        results = self._session.results
        if not self._labels.shown or results.labels is None:
            return
        index, names = self._labels.frame, results.labels.names
        scores, painted = results.scores.get(index, {}), index in results.edited
        self._labels.show_scores(scores, names, painted)
        self._panel.scores_line.setVisible(self._session.settings.show_scores)
        self._panel.show_scores(score_lines(scores, names, painted), len(names))
