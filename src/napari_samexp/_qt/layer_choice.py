"""Which Image layers can be clicked on or tracked in, kept as objects and followed as they come and go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.layers import Image
from psygnal import Signal

from napari_samexp._qt.connections import Connections
from napari_samexp._qt.posenc.encoding_frame import is_encoding

__all__ = ["LayerChoice", "is_video"]


def is_video(layer: Any) -> bool:
    """Return whether an Image layer is a (t, y, x) stack; what is labelled as channels is none."""
    return bool(layer.ndim == 3 and not layer.multiscale and layer.axis_labels[0] not in ("c", "channel"))


class LayerChoice:
    """A combo box of a viewer's Image layers.

    Parameters
    ----------
    later : callable
        Runs what it is given once the window is idle: while a layer is being added, napari is not ready for
        another.
    accepts, prefers : callable
        Which layers can be chosen, and which is chosen if there are several.
    gives_way : callable
        Whether the choice may go over to a layer that is opened now, if that is one of those preferred.

    Signals
    -------
    changed : napari.layers.Image or None
    """

    changed = Signal(object)

    def __init__(
        self,
        combo: Any,
        viewer: Any,
        connections: Connections,
        later: Callable[[Callable[[], None]], None],
        accepts: Callable[[Any], bool] = lambda layer: True,
        prefers: Callable[[Any], bool] = lambda layer: True,
        gives_way: Callable[[], bool] = lambda: False,
    ) -> None:
        self._combo, self._viewer, self._later = combo, viewer, later
        self._accepts, self._prefers, self._gives_way = accepts, prefers, gives_way
        self._opened: Any = None
        self._layers: list[Any] = []
        self._over = False
        self.current: Any = None
        for event in (
            viewer.layers.events.inserted,
            viewer.layers.events.removed,
            viewer.layers.events.reordered,
        ):
            connections.add(event, self._changed_layers)
        connections.add(combo.activated, self._picked)
        connections.later(self._end)
        self.refill()

    def refill(self) -> None:
        """Show the layers that there are now; a choice that still exists stays."""
        if self._over:
            return
        self._layers = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Image) and not is_encoding(layer) and self._accepts(layer)
        ]
        self._combo.clear()
        self._combo.addItems([layer.name for layer in self._layers])
        liked = [layer for layer in self._layers if self._prefers(layer)] or self._layers
        opened, self._opened = self._opened, None
        stays = self.current in self._layers and not (opened in liked and self._gives_way())
        self.choose(self.current if stays else opened if opened in liked else liked[-1] if liked else None)

    def choose(self, layer: Any) -> None:
        """Choose a layer."""
        self._combo.setCurrentIndex(self._layers.index(layer) if layer in self._layers else -1)
        if layer is not self.current:
            self.current = layer
            self.changed.emit(layer)

    def _changed_layers(self, event: Any) -> None:
        if event.type == "inserted":
            self._opened = event.value
        self._later(self.refill)

    def _picked(self, place: int) -> None:
        self.choose(self._layers[place] if 0 <= place < len(self._layers) else None)

    def _end(self) -> None:
        self._over = True
