"""The Labels layer of a run, redrawn only when the frame in view has changed on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.utils.colormaps import label_colormap
from qtpy.QtCore import QTimer

from napari_samexp._qt.image_layers import spatial_settings, time_of
from napari_samexp._qt.text import for_napari
from napari_samexp.types import ObjectScore

if TYPE_CHECKING:  # zarr is slow to import, and the window would wait for it
    from napari_samexp.io.label_edits import EditableLabels

__all__ = ["OF_A_DOCK", "RunLabels", "labels_settings"]

OF_A_DOCK = "napari-samexp run"  # metadata key of a layer that a dock added for its own run

# setting features costs napari as much as drawing the frame, and they are only shown under a resting mouse
_SETTLE_MS = 150


def labels_settings(labels: EditableLabels) -> dict[str, Any]:
    """Return the settings of the Labels layer of a run."""
    return {
        "name": for_napari(labels.path.stem),
        "axis_labels": ("t", "y", "x"),
        "opacity": 0.6,
        # napari's default starts with a brown that is hard to see; this seed starts with bright yellow
        "colormap": label_colormap(49, seed=0.46),
    }


class RunLabels:
    """Shows a run's labels over its video.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._scores: tuple[dict[int, ObjectScore], dict[int, str], bool] = {}, {}, False
        self._settle_timer = QTimer()
        self._settle_timer.setSingleShot(True)
        self._settle_timer.setInterval(_SETTLE_MS)
        self._settle_timer.timeout.connect(self._enter_scores)
        self.layer: Any = None

    @property
    def shown(self) -> bool:
        """Whether there is a layer in the viewer."""
        return self.layer is not None and self.layer in self._viewer.layers

    @property
    def frame(self) -> int:
        """The frame in view."""
        return time_of(self.layer, self._viewer.dims)

    def show(self, labels: EditableLabels | None, video: Any) -> None:
        """Show labels; the layer of another run stays in the viewer."""
        if labels is None:
            self._drop()
        elif not self.shown or self.layer.data is not labels:
            self.layer = self._layer_of(labels) or self._add(labels, video)

    def written(self, index: int) -> None:
        """Redraw if this frame is in view."""
        if self.shown and self.layer.visible and self.frame == index:
            self.layer.refresh(extent=False, thumbnail=False)

    def show_scores(
        self, scores: dict[int, ObjectScore], names: dict[int, str], painted: bool = False
    ) -> None:
        """Put the scores of the frame in view into the layer's features, which napari shows under the mouse.

        Delayed until the slider rests, because it is slow.
        """
        self._scores = scores, names, painted
        self._settle_timer.start()

    def _enter_scores(self) -> None:
        if not self.shown:
            return
        import pandas as pd  # slow to import, but imported by now

        scores, names, painted = self._scores
        rows = [(0, "", None, None, None)]
        for label, name in names.items():
            score = scores.get(label)
            known = (
                (None, None, None)
                if score is None
                else (score.presence, score.iou, score.lost and not painted)
            )
            rows.append((label, for_napari(name) or f"object {label}", *known))
        self.layer.features = pd.DataFrame(rows, columns=["index", "name", "presence", "iou", "lost"])

    def colours(self, names: dict[int, str]) -> dict[int, Any]:
        """Return each label's colour."""
        return {label: self.layer.get_color(label) for label in names} if self.shown else {}

    def _layer_of(self, labels: EditableLabels) -> Any:
        """Return the layer of the same store, with these labels, or None."""
        kind = type(labels)
        ours = [layer for layer in self._viewer.layers if isinstance(getattr(layer, "data", None), kind)]
        same = [layer for layer in ours if layer.data.path == labels.path]
        if not same:
            return None
        same[0].data = labels
        return same[0]

    def _add(self, labels: EditableLabels, video: Any) -> Any:
        lies = {} if video is None else spatial_settings(video, 3)
        active = self._viewer.layers.selection.active
        layer = self._viewer.add_labels(
            labels, metadata={OF_A_DOCK: True}, **{**labels_settings(labels), **lies}
        )
        if active is not None:  # a person may be working with it
            self._viewer.layers.selection.active = active
        return layer

    def _drop(self) -> None:
        # the store may be replaced, and a layer would still read it
        if self.shown:
            self._viewer.layers.remove(self.layer)
        self.layer = None
