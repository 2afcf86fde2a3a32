"""The Measure labels dock: a Labels layer against ground truth, as a table, and its centroids as tracks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QComboBox, QFileDialog, QFormLayout, QPushButton, QVBoxLayout, QWidget

from napari_samexp._qt.background import in_background
from napari_samexp._qt.connections import Connections
from napari_samexp._qt.controls import named, shrinkable
from napari_samexp._qt.napari_internals import unwrapped
from napari_samexp._qt.signals import dock_signals
from napari_samexp._qt.text import PlainLabel, for_napari
from napari_samexp.errors import SamexpError
from napari_samexp.io.label_edits import EditableLabels
from napari_samexp.measure.evaluation import Evaluation, evaluate_masks
from napari_samexp.measure.masks import Masks, array_masks, store_masks
from napari_samexp.measure.regions import Region, label_features, regions_of, track_points, write_regions_csv
from napari_samexp.render.evaluation import evaluation_chart

__all__ = ["MeasuringDock", "evaluate_layers", "masks_of", "show_regions"]

_TIPS = {
    "labels": "The Labels layer to measure.",
    "ground_truth": "The Labels layer to compare it with.",
    "evaluate": "Compute J and F as in DAVIS, and presence, for each label.",
    "tracks": "Add a Tracks layer of the centroids, and areas and scores to the labels' features.",
    "table": "Save area, centroid, box and scores of each frame as CSV.",
    "status": "The result, and what went wrong.",
    "chart": "J and F over time.",
}


def masks_of(layer: Any) -> Masks:
    """Return the labels of a Labels layer; for a tracking run, finished frames with their scores.

    Raises
    ------
    StoreError
        If the layer does not have two or three axes.
    """
    if isinstance(layer.data, EditableLabels):
        from napari_samexp.io.labels import LabelStore

        return store_masks(LabelStore.open(layer.data.path, mode="r"))
    return array_masks(layer.data)


def evaluate_layers(layer: Any, ground_truth: Any) -> Evaluation:
    """Return the scores of a Labels layer against another, as `evaluate_masks`; slow, so call it on a thread."""
    return evaluate_masks(masks_of(layer), masks_of(ground_truth))


def show_regions(viewer: Any, layer: Any, regions: list[Region]) -> Any:
    """Add a Tracks layer of the centroids, and set the layer's features from the regions."""
    import pandas as pd

    data, features = track_points(regions)
    table = label_features(regions)
    layer.features = pd.DataFrame({**table, "name": [for_napari(name) for name in table["name"]]})
    if not len(data):
        return None
    lies = {"scale": layer.scale, "translate": layer.translate}
    if layer.ndim == 2:
        lies = {key: np.concatenate(([key == "scale"], value)) for key, value in lies.items()}
    return viewer.add_tracks(data, features=features, name=f"{layer.name} centroids", **lies)


class MeasuringDock(QWidget):
    """Measures a Labels layer, against another one or by itself.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer = unwrapped(napari_viewer)
        self._connections = Connections()
        self.evaluation: Evaluation | None = None
        self.labels, self.ground_truth = QComboBox(), QComboBox()
        self.evaluate, self.tracks = QPushButton("Evaluate"), QPushButton("Centroids as tracks")
        self.table = QPushButton("Table…")
        self.status, self.chart = PlainLabel("Choose a Labels layer."), PlainLabel()
        self._build()
        self._list_layers()
        layers = viewer.layers.events
        for signal in (layers.inserted, layers.removed):
            self._connections.add(signal, self._list_layers)
        self.destroyed.connect(self._connections.undo)
        self.evaluate.clicked.connect(self.start_evaluation)
        self.tracks.clicked.connect(lambda: self._start_regions(self._show))
        self.table.clicked.connect(self._save)

    def start_evaluation(self) -> None:
        """Evaluate the chosen layers on a thread."""
        layer, ground_truth = self._chosen(self.labels), self._chosen(self.ground_truth)
        if layer is None or ground_truth is None or layer is ground_truth:
            self.status.setText("Choose two Labels layers.")
            return
        self._start(partial(evaluate_layers, layer, ground_truth), partial(self._evaluated, layer))

    def _evaluated(self, layer: Any, evaluation: Evaluation) -> None:
        self.evaluation = evaluation
        dock_signals.evaluated.emit(layer, evaluation)
        lines = [
            f"{s.name}: J {s.j.mean:.3f}, F {s.f.mean:.3f}, J&F {s.jf:.3f}, presence {s.presence:.3f}"
            for s in evaluation.labels
        ]
        self.status.setText(
            "\n".join([*lines, f"J&F {evaluation.jf:.3f}, {evaluation.left_out} frames left out"])
        )
        chart = np.ascontiguousarray(evaluation_chart(evaluation))
        height, width = chart.shape[:2]
        image = QImage(chart.data, width, height, 3 * width, QImage.Format.Format_RGB888)
        self.chart.setPixmap(QPixmap.fromImage(image).scaledToWidth(max(200, self.width() - 24)))

    def _start_regions(self, then: Any) -> None:
        layer = self._chosen(self.labels)
        if layer is None:
            self.status.setText("Choose a Labels layer.")
            return
        self._start(partial(_all_regions, layer), partial(then, layer))

    def _show(self, layer: Any, regions: list[Region]) -> None:
        show_regions(self._viewer, layer, regions)
        self.status.setText(f"{len(regions)} rows; areas and scores are in the layer's features.")

    def _save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the table", "labels.csv", "CSV (*.csv)")
        if path:
            self._start_regions(lambda layer, regions: self._write(Path(path), regions))

    def _write(self, path: Path, regions: list[Region]) -> None:
        try:
            write_regions_csv(path, regions)
            self.status.setText(f"{path.name}: {len(regions)} rows.")
        except SamexpError as error:
            self.status.setText(str(error))

    def _start(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        self.status.setText("Measuring…")
        in_background(work, then, lambda error: self.status.setText(str(error)))

    def _chosen(self, choice: QComboBox) -> Any:
        return next((layer for layer in self._viewer.layers if layer.name == choice.currentText()), None)

    def _list_layers(self, event: Any = None) -> None:
        names = [layer.name for layer in self._viewer.layers if isinstance(layer, Labels)]
        for choice in (self.labels, self.ground_truth):
            current = choice.currentText()
            choice.clear()
            choice.addItems(names)
            if current in names:
                choice.setCurrentText(current)

    def _build(self) -> None:
        form = QFormLayout()
        form.addRow("labels", self.labels)
        form.addRow("ground truth", self.ground_truth)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        for name, tip in _TIPS.items():
            named(getattr(self, name), f"measure_{name}", tip)
        for widget in (self.evaluate, self.tracks, self.table, self.status, self.chart):
            layout.addWidget(widget)
        self.status.setWordWrap(True)
        for choice in (self.labels, self.ground_truth):
            shrinkable(choice)
        layout.addStretch(1)


def _all_regions(layer: Any) -> list[Region]:
    return list(regions_of(masks_of(layer)))
