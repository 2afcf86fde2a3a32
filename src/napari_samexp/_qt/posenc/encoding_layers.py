"""The layers of position encodings: maps, norms and similarities of one or two models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_samexp._qt.connections import Connections
from napari_samexp._qt.posenc.encoding_frame import (
    Spot,
    Surroundings,
    grid_of,
    is_encoding,
    surroundings,
)
from napari_samexp._qt.posenc.encoding_slot import KINDS, MAP, NORM, SIMILARITY, EncodingSlot
from napari_samexp._qt.shortcuts import ENCODINGS
from napari_samexp.posenc.map import PosencMap

__all__ = ["EncodingLayers"]

Values = npt.NDArray[np.float32]


class EncodingLayers:
    """Shows one or two maps in a viewer, updates them in place, and removes them.

    Parameters
    ----------
    later : callable
        Runs a call once napari is done with the layer that it is adding or removing.

    Signals
    -------
    channel_changed : no value
    removed : str
        The kind of layer that a person removed: "map", "norm" or "similarity".
    pressed : str
        One of the names in `ENCODINGS`, while one of these layers is the active one.
    """

    channel_changed = Signal()
    removed = Signal(str)
    pressed = Signal(str)

    def __init__(
        self, viewer: Any, connections: Connections, later: Callable[[Callable[[], None]], None]
    ) -> None:
        self._viewer, self._later = viewer, later
        self._slots: dict[int, EncodingSlot] = {}
        self._kinds = {MAP, NORM}
        self._around = Surroundings()
        self._own_change = self._ended = False
        self._per_channel = False
        self._last_channels: tuple[int, ...] = ()
        self._channel = 0  # of the first map; it outlives the layer
        self._stale = False  # whether axes are about to change, as when a video is added
        connections.add(viewer.layers.events.inserted, self._inserted)
        connections.add(viewer.layers.events.removed, self._removed)
        connections.add(viewer.dims.events.current_step, self._stepped)
        connections.add(grid_of(viewer).events.enabled, self._grid_switched)
        connections.later(self._end)

    # ---- what is shown

    @property
    def shown(self) -> bool:
        """Whether the first map is in the viewer."""
        return 0 in self._slots

    def maps(self) -> list[tuple[int, PosencMap]]:
        """Return the maps in the viewer with their slots."""
        return [(number, slot.made) for number, slot in sorted(self._slots.items())]

    def layer(self, slot: int, kind: str = MAP) -> Any:
        """Return a layer, or None."""
        return self._slots[slot].layers.get(kind) if slot in self._slots else None

    def show(self, slot: int, made: PosencMap) -> None:
        """Show a map in a slot, replacing the one that is there."""
        new, channel = slot not in self._slots, self._channel
        if new:
            self._slots[slot] = EncodingSlot(made)
            self._around = surroundings(self._viewer.layers)
        self._slots[slot].made = made
        self._arrange(None if new or slot == 0 else slot)
        if new:
            self._viewer.layers.selection.active = self.layer(0)
            self._viewer.reset_view()
        if new and slot == 0:
            self.go_to_channel(channel)  # napari starts in the middle

    def drop(self, slot: int) -> None:
        """Remove the layers of a slot."""
        gone = self._slots.pop(slot, None)
        if gone is not None:
            self._remove(gone.layers.values())
            self._arrange()

    def keep(self) -> None:
        """Leave all layers as they are, and no longer update them."""
        for _, _, layer in self._all():
            self._unbind(layer)
        self._slots.clear()

    def set_shown(self, kind: str, shown: bool) -> None:
        """Show or hide norms or similarities.

        They are hidden rather than removed: some OpenGL drivers crash when a layer is removed and another
        one added.
        """
        if shown:
            self._kinds.add(kind)
        else:
            self._kinds.discard(kind)
        for slot in self._slots.values():
            if kind in slot.layers:
                slot.layers[kind].visible = shown
        self._arrange()

    def set_similarity(self, slot: int, values: Values) -> None:
        """Show the similarities to another token, (h, w)."""
        layer = self.layer(slot, SIMILARITY)
        if layer is not None and layer.data.shape == values.shape:
            layer.data = values

    # ---- channels

    def channel(self, slot: int = 0) -> int:
        """Return the channel of a map in view."""
        layer = self.layer(slot)
        if layer is None:
            return 0
        point = np.asarray(self._viewer.dims.point)[-layer.ndim :]
        place = round(float(layer.world_to_data(point)[0]))
        return min(max(place, 0), self._slots[slot].made.channels - 1)

    def go_to_channel(self, channel: int) -> None:
        """Go to a channel of the first map."""
        layer = self.layer(0)
        if layer is not None:
            channel = min(max(channel, 0), self._slots[0].made.channels - 1)
            self._viewer.dims.set_point(self._viewer.dims.ndim - layer.ndim, float(channel * layer.scale[0]))

    def set_contrast(self, *, per_channel: bool) -> None:
        """Set contrast limits over all channels, or per channel."""
        self._per_channel = per_channel
        for number in self._slots:
            self._fit_contrast(number, force=True)

    # ---- the pointer

    def spot_at(self, position: tuple[float, ...]) -> Spot | None:
        """Return what is under a point in world coordinates, or None outside all maps."""
        y, x = position[-2:]
        for number, kind, layer in self._all():
            place = self._slots[number].rects[kind].place_of(y, x)
            if place is not None and layer.visible:
                return Spot(number, *place)
        return None

    # ---- arranging layers

    def _arrange(self, only: int | None = None) -> None:
        """Add or update the layers of all slots, or of one."""
        if not self.shown:
            return
        grid_view = bool(grid_of(self._viewer).enabled)
        rect = self._around.first_rect(self._slots[0].made, grid_view=grid_view)
        most = max(slot.made.channels for slot in self._slots.values())
        for row, (number, slot) in enumerate(sorted(self._slots.items())):
            if only in (None, number):
                kinds = [kind for kind in KINDS if kind in self._kinds]
                for column, kind in enumerate(kinds):
                    slot.rects[kind] = rect if grid_view else rect.moved(row, column)
                    self._put(slot, kind, most)
                self._fit_contrast(number)
        self._set_in_pairs()
        self._stepped()

    def _set_in_pairs(self) -> None:
        """Order the layers so that grid view puts what is compared side by side."""
        if len(self._slots) < 2:
            return
        layers, slots = self._viewer.layers, [slot.layers for _, slot in sorted(self._slots.items())]
        pairs = [each[kind] for kind in KINDS for each in slots if kind in each]
        for place, layer in enumerate(pairs):
            if layers[place] is not layer:
                layers.move(layers.index(layer), place)

    def _put(self, slot: EncodingSlot, kind: str, most: int) -> None:
        data, lies = slot.content(kind, self._around.axes, most)
        if kind in slot.layers:
            slot.update(kind, data, lies)  # never replaced by a new layer: see `set_shown`
        else:
            slot.added(kind, self._add(slot, kind, data, lies))

    def _add(self, slot: EncodingSlot, kind: str, data: Values, lies: dict[str, Any]) -> Any:
        self._own_change = True
        try:
            layer = self._viewer.add_image(data, **slot.settings(kind), **lies)
        finally:
            self._own_change = False
        for name, shortcut in ENCODINGS.items():
            layer.bind_key(shortcut.keys, lambda _, name=name: self.pressed.emit(name), overwrite=True)
        return layer

    def _fit_contrast(self, number: int, force: bool = False) -> None:
        channel = self.channel(number) if self._per_channel else None
        self._slots[number].fit_contrast(channel, force=force)

    # ---- what happens in the viewer

    def _stepped(self, event: Any = None) -> None:
        if self._stale:
            return
        channels = tuple(self.channel(number) for number in self._slots)
        if channels == self._last_channels:
            return  # another slider moved
        self._last_channels = channels
        self._channel = channels[0] if 0 in self._slots else self._channel
        if self._per_channel:
            for number in self._slots:
                self._fit_contrast(number)
        if channels:
            self.channel_changed.emit()

    def _inserted(self, event: Any) -> None:
        if self._slots and not self._own_change and not is_encoding(event.value):
            self._surroundings_changed()

    def _removed(self, event: Any) -> None:
        if self._own_change:
            return
        for number, kind, layer in list(self._all()):
            if layer is event.value:
                del self._slots[number].layers[kind]
                self._unbind(layer)
                self._later(lambda kind=kind: self._gone(kind))  # type: ignore[misc]
                return
        if self._slots:
            self._surroundings_changed()

    def _gone(self, kind: str) -> None:
        if not self._ended:
            self.removed.emit(kind)

    def _grid_switched(self, event: Any = None) -> None:
        self._arrange()

    def _surroundings_changed(self) -> None:
        self._stale = True
        self._later(self._update_surroundings)

    def _update_surroundings(self) -> None:
        """Follow videos and images that were added or removed; the channel stays."""
        around, channel = surroundings(self._viewer.layers), self._channel
        if not self._ended and around != self._around:
            self._around = around
            self._arrange()
            self.go_to_channel(channel)
        self._stale = False
        self._stepped()

    # ---- parts

    def _all(self) -> Iterator[tuple[int, str, Any]]:
        for number, slot in sorted(self._slots.items()):
            for kind, layer in slot.layers.items():
                yield number, kind, layer

    def _remove(self, layers: Any) -> None:
        self._own_change = True
        try:
            for layer in list(layers):
                self._unbind(layer)
                if layer in self._viewer.layers:
                    self._viewer.layers.remove(layer)
        finally:
            self._own_change = False

    def _unbind(self, layer: Any) -> None:
        for shortcut in ENCODINGS.values():
            layer.bind_key(shortcut.keys, None)

    def _end(self) -> None:
        """Leave the layers in the viewer, without their keys."""
        self._ended = True
        self.keep()
