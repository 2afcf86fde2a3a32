"""A combo box of Image layers to click on or to track in, which follows the viewer's layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.layers import Image
from psygnal import Signal

from napari_samexp._qt.dock import Dock
from napari_samexp._qt.posenc.encoding_frame import is_encoding

__all__ = ["LayerChoice", "is_video"]


def is_video(layer: Any) -> bool:
    """Return whether an Image layer is a (t, y, x) stack, and not one of channels."""
    return bool(layer.ndim == 3 and not layer.multiscale and layer.axis_labels[0] not in ("c", "channel"))


class LayerChoice:
    """A combo box of a viewer's Image layers.

    Parameters
    ----------
    combo : QComboBox
    dock : Dock
    accepts, prefers : callable
        Which layers can be chosen, and which are chosen by default.
    gives_way : callable
        Whether a preferred layer that is opened now replaces the current choice.

    Signals
    -------
    changed : napari.layers.Image or None
    """

    changed = Signal(object)

    def __init__(
        self,
        combo: Any,
        dock: Dock,
        *,
        accepts: Callable[[Any], bool] = lambda layer: True,
        prefers: Callable[[Any], bool] = lambda layer: True,
        gives_way: Callable[[], bool] = lambda: False,
    ) -> None:
        self._combo, self._viewer, self._later = combo, dock.viewer, dock.window_thread
        self._accepts, self._prefers, self._gives_way = accepts, prefers, gives_way
        self._opened: Any = None
        self._layers: list[Any] = []
        self._ended = False
        self.current: Any = None
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            dock.connections.add(event, self._layers_changed)
        dock.connections.add(combo.activated, self._picked)
        dock.connections.later(self._end)
        self.refill()

    def refill(self) -> None:
        """List the layers of now; the current choice stays if it still exists."""
        if self._ended:
            return
        self._layers = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Image) and not is_encoding(layer) and self._accepts(layer)
        ]
        self._combo.clear()
        self._combo.addItems([layer.name for layer in self._layers])
        preferred = [layer for layer in self._layers if self._prefers(layer)] or self._layers
        opened, self._opened = self._opened, None
        stays = self.current in self._layers and not (opened in preferred and self._gives_way())
        self.choose(
            self.current if stays else opened if opened in preferred else next(reversed(preferred), None)
        )

    def choose(self, layer: Any) -> None:
        """Choose a layer."""
        self._combo.setCurrentIndex(self._layers.index(layer) if layer in self._layers else -1)
        if layer is not self.current:
            self.current = layer
            self.changed.emit(layer)

    def _layers_changed(self, event: Any) -> None:
        if event.type == "inserted":
            self._opened = event.value
        self._later(self.refill)  # napari is not done with this layer yet

    def _picked(self, place: int) -> None:
        self.choose(self._layers[place] if 0 <= place < len(self._layers) else None)

    def _end(self) -> None:
        self._ended = True
