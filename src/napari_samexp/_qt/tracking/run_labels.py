"""The Labels layer over a run's store: drawn anew only when what is in view has changed on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.utils.colormaps import label_colormap
from qtpy.QtCore import QTimer

from napari_samexp._qt.image_layers import spatial_settings, time_of
from napari_samexp._qt.text import for_napari
from napari_samexp.types import ObjectScore

if TYPE_CHECKING:  # zarr takes long to import, and the window would wait for it
    from napari_samexp.io.label_edits import EditableLabels

__all__ = ["OF_A_DOCK", "RunLabels", "labels_settings"]

OF_A_DOCK = "napari-samexp run"  # in the metadata of a layer that a dock has added for its own run

# napari takes as long over a layer's new features as over the frame; they are seen under a resting mouse only
_SETTLE_MS = 150


def labels_settings(labels: EditableLabels) -> dict[str, Any]:
    """Return what napari's Labels layer should know about a run's labels."""
    return {
        "name": for_napari(labels.path.stem),
        "axis_labels": ("t", "y", "x"),
        "opacity": 0.6,
        # napari's own begin with a brown that is hardly seen over images; this order begins with bright yellow
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
        self._settled = QTimer()
        self._settled.setSingleShot(True)
        self._settled.setInterval(_SETTLE_MS)
        self._settled.timeout.connect(self._enter_scores)
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
        """Show labels; those of another run stay in the viewer as a layer of their own."""
        if labels is None:
            self._drop()
        elif not self.shown or self.layer.data is not labels:
            self.layer = self._layer_of(labels) or self._add(labels, video)

    def written(self, index: int) -> None:
        """Draw anew if this frame is in view."""
        if self.shown and self.layer.visible and self.frame == index:
            self.layer.refresh(extent=False, thumbnail=False)

    def show_scores(
        self, scores: dict[int, ObjectScore], names: dict[int, str], painted: bool = False
    ) -> None:
        """Put the scores of the frame in view into the layer's features, which napari shows under the mouse.

        That is done once the slider rests, since each step would feel it.
        """
        self._scores = scores, names, painted
        self._settled.start()

    def _enter_scores(self) -> None:
        if not self.shown:
            return
        import pandas as pd  # takes long, and is there by now

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
        """Return the layer that has these labels, as after another run of the same store."""
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
        if active is not None:  # the person was doing something with it
            self._viewer.layers.selection.active = active
        return layer

    def _drop(self) -> None:
        # the store may be about to be replaced, and a layer would go on reading it
        if self.shown:
            self._viewer.layers.remove(self.layer)
        self.layer = None
