"""The Labels layer that shows the mask of the prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

from napari_samexp._qt.image_layers import spatial_settings
from napari_samexp._qt.tracking.prompt_layers import COLOURS, OBJECT, PromptLayers

__all__ = ["PreviewLayer"]


class PreviewLayer:
    """One layer for all previews on an image, which is reused: napari is slow to add and to remove layers.

    Attributes
    ----------
    layer : napari.layers.Labels or None
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._prompt: PromptLayers | None = None  # whose image the layer lies over
        self.layer: Any = None

    def show(self, mask: Any, prompt: PromptLayers) -> None:
        """Show a mask, bool (H, W), over the image of a prompt."""
        labels = mask.view(np.uint8)
        if self.layer is None or self._prompt is not prompt or self.layer.data.shape != labels.shape:
            self.remove()
            self.layer, self._prompt = self._add(labels, prompt), prompt
            return
        self.layer.data[...] = (
            labels  # in place: assigning data makes napari measure and list everything again
        )
        if self.layer.visible:
            self.layer.refresh(extent=False, thumbnail=False)
        else:
            self.layer.visible = True

    def hide(self) -> None:
        """Show no mask, but keep the layer for the next one."""
        if self.layer is not None and self.layer.visible:
            self.layer.data[...] = 0  # a person may make it visible
            self.layer.visible = False

    def remove(self) -> None:
        """Remove the layer from the viewer."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self.forget()

    def remove_with(self, prompt: PromptLayers) -> None:
        """Remove the layer if it belongs to a prompt that is gone."""
        if prompt is self._prompt:
            self.remove()

    def forget(self) -> None:
        """Let go of a layer that is no longer in the viewer."""
        self.layer = self._prompt = None

    def _add(self, labels: Any, prompt: PromptLayers) -> Any:
        layers = self._viewer.layers
        active = layers.selection.active
        layer = self._viewer.add_labels(
            labels.copy(),
            name="mask preview",
            opacity=0.5,
            # the colour of object clicks: a label's own colour may be that of the image below
            colormap=DirectLabelColormap(color_dict={1: COLOURS[OBJECT], None: "transparent"}),
            **spatial_settings(prompt.image, 2),
        )
        layer.editable = False
        layers.move(layers.index(layer), layers.index(prompt.points))
        layers.selection.active = active
        return layer
