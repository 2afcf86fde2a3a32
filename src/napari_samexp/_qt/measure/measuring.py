"""The dock Measure labels: any Labels layer against a ground truth, its table, and the paths of its centroids."""

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
from napari_samexp._qt.dock import unwrapped
from napari_samexp._qt.news import news
from napari_samexp._qt.text import PlainLabel, for_napari, tooltip
from napari_samexp._qt.tracking.panel import _shrinkable
from napari_samexp.errors import SamexpError
from napari_samexp.io.label_edits import EditableLabels
from napari_samexp.measure.evaluation import Evaluation, evaluate_masks
from napari_samexp.measure.masks import Masks, array_masks, store_masks
from napari_samexp.measure.regions import Region, label_features, regions_of, track_points, write_regions_csv
from napari_samexp.render.evaluation import evaluation_chart

__all__ = ["MeasuringDock", "evaluate_layers", "masks_of", "show_regions"]

_TIPS = {
    "labels": "What is measured.",
    "ground_truth": "What it is compared with.",
    "evaluate": "J, F and presence of each label, as DAVIS defines them.",
    "tracks": "A Tracks layer of the centroids, and areas and scores in the labels' features.",
    "table": "Save area, centroid, box and scores of each frame as CSV.",
}


def masks_of(layer: Any) -> Masks:
    """Return the labels of a napari Labels layer; of a tracking run, its finished frames and scores.

    Raises
    ------
    StoreError
        If the layer has not two or three axes.
    """
    if isinstance(layer.data, EditableLabels):
        from napari_samexp.io.labels import LabelStore

        return store_masks(LabelStore.open(layer.data.path, mode="r"))
    return array_masks(layer.data)


def evaluate_layers(found: Any, ground_truth: Any) -> Evaluation:
    """Return the scores of a Labels layer against another; see `evaluate_masks`. Slow: for a thread."""
    return evaluate_masks(masks_of(found), masks_of(ground_truth))


def show_regions(viewer: Any, layer: Any, regions: list[Region]) -> Any:
    """Add a Tracks layer of centroids, and put what is known of each label into the layer's features."""
    import pandas as pd

    data, features = track_points(regions)
    known = label_features(regions)
    layer.features = pd.DataFrame({**known, "name": [for_napari(name) for name in known["name"]]})
    if not len(data):
        return None
    lies = {"scale": layer.scale, "translate": layer.translate}
    if layer.ndim == 2:
        lies = {key: np.concatenate(([key == "scale"], value)) for key, value in lies.items()}
    return viewer.add_tracks(data, features=features, name=f"{layer.name} centroids", **lies)


class MeasuringDock(QWidget):
    """Two Labels layers to choose, and what can be measured of them.

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
        self.status, self.chart = PlainLabel("Choose labels."), PlainLabel()
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
        """Compare the chosen layers, on a thread."""
        found, ground_truth = self._chosen(self.labels), self._chosen(self.ground_truth)
        if found is None or ground_truth is None or found is ground_truth:
            self.status.setText("Choose two Labels layers.")
            return
        self._start(partial(evaluate_layers, found, ground_truth), partial(self._evaluated, found))

    def _evaluated(self, found: Any, made: Evaluation) -> None:
        self.evaluation = made
        news.measured.emit(found, made)
        lines = [
            f"{s.name}: J {s.j.mean:.3f}, F {s.f.mean:.3f}, J&F {s.jf:.3f}, presence {s.presence:.3f}"
            for s in made.labels
        ]
        self.status.setText("\n".join([*lines, f"J&F {made.jf:.3f}, {made.left_out} frames left out"]))
        chart = np.ascontiguousarray(evaluation_chart(made))
        height, width = chart.shape[:2]
        image = QImage(chart.data, width, height, 3 * width, QImage.Format.Format_RGB888)
        self.chart.setPixmap(QPixmap.fromImage(image).scaledToWidth(max(200, self.width() - 24)))

    def _start_regions(self, then: Any) -> None:
        layer = self._chosen(self.labels)
        if layer is None:
            self.status.setText("Choose labels.")
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
            kept = choice.currentText()
            choice.clear()
            choice.addItems(names)
            if kept in names:
                choice.setCurrentText(kept)

    def _build(self) -> None:
        form = QFormLayout()
        form.addRow("labels", self.labels)
        form.addRow("ground truth", self.ground_truth)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        for name, tip in _TIPS.items():
            widget = getattr(self, name)
            widget.setObjectName(f"measure_{name}")
            widget.setToolTip(tooltip(tip))
        for widget in (self.evaluate, self.tracks, self.table, self.status, self.chart):
            layout.addWidget(widget)
        self.status.setWordWrap(True)
        self.status.setObjectName("measure_status")
        for choice in (self.labels, self.ground_truth):
            _shrinkable(choice)
        layout.addStretch(1)


def _all_regions(layer: Any) -> list[Region]:
    return list(regions_of(masks_of(layer)))
