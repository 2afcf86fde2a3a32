"""The layers of position encodings: maps, norms and similarities of one or two models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_samexp._qt.connections import Connections
from napari_samexp._qt.posenc.encoding_frame import (
    Surroundings,
    grid_of,
    is_encoding,
    lies_at,
    over_axes,
    surroundings,
)
from napari_samexp._qt.posenc.encoding_slot import KINDS, MAP, NORM, SIMILARITY, EncodingSlot
from napari_samexp._qt.shortcuts import ENCODINGS
from napari_samexp.posenc.map import PosencMap

__all__ = ["EncodingLayers", "Spot"]

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Spot:
    """A place under the pointer: which model's (0 or 1), and where, from 0 to 1 down and to the right."""

    slot: int
    down: float
    right: float

    def on(self, made: PosencMap) -> tuple[int, int]:
        """Return the (y, x) of this place in a map."""
        height, width = made.hw
        return int(self.down * height), int(self.right * width)


class EncodingLayers:
    """Shows one or two maps in a viewer, updates them in place, and takes them away.

    Parameters
    ----------
    later : callable
        Runs what it is given once napari is done with the layer that it is adding or removing.

    Signals
    -------
    channel_changed : no value
    removed : str
        What a person took away: "map", "norm" or "similarity".
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
        self._own_change = self._over = False
        self._per_channel = False
        self._last_channels: tuple[int, ...] = ()
        self._home = 0  # the first map's channel, which outlives its layer
        self._stale = False  # while a video comes or goes, the axes are not yet what they will be
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
        """Show a map in a slot, in the place of the one that is there."""
        new, home = slot not in self._slots, self._home
        if new:
            self._slots[slot] = EncodingSlot(made)
            self._around = surroundings(self._viewer.layers)
        self._slots[slot].made = made
        self._arrange(None if new or slot == 0 else slot)
        if new:
            self._viewer.layers.selection.active = self.layer(0)
            self._viewer.reset_view()
        if new and slot == 0:
            self.go_to_channel(home)  # napari begins in the middle

    def drop(self, slot: int) -> None:
        """Take the layers of a slot away."""
        gone = self._slots.pop(slot, None)
        if gone is not None:
            self._remove(gone.layers.values())
            self._arrange()

    def keep(self) -> None:
        """Leave all layers as they are, as the person's own, and follow them no longer."""
        for _, _, layer in self._all():
            self._unbind(layer)
        self._slots.clear()

    def want(self, kind: str, wanted: bool) -> None:
        """Show or hide norms or similarities.

        They are hidden rather than removed: some OpenGL drivers crash when a layer is removed from napari
        and another one added.
        """
        if wanted:
            self._kinds.add(kind)
        else:
            self._kinds.discard(kind)
        for slot in self._slots.values():
            if kind in slot.layers:
                slot.layers[kind].visible = wanted
        self._arrange()

    def set_similarity(self, slot: int, values: Values) -> None:
        """Show other similarities."""
        layer = self.layer(slot, SIMILARITY)
        if layer is not None and layer.data.shape == values.shape:
            layer.data = values

    # ---- channels

    def channel(self, slot: int = 0) -> int:
        """Return the channel of a map that is in view."""
        layer = self.layer(slot)
        if layer is None:
            return 0
        point = np.asarray(self._viewer.dims.point)[-layer.ndim :]
        place = round(float(layer.world_to_data(point)[0]))
        return min(max(place, 0), self._slots[slot].made.channels - 1)

    def go_to_channel(self, channel: int) -> None:
        """Bring a channel of the first map into view."""
        layer = self.layer(0)
        if layer is not None:
            channel = min(max(channel, 0), self._slots[0].made.channels - 1)
            self._viewer.dims.set_point(self._viewer.dims.ndim - layer.ndim, float(channel * layer.scale[0]))

    def set_contrast(self, *, per_channel: bool) -> None:
        """Give all channels one contrast, or each its own."""
        self._per_channel = per_channel
        for number in self._slots:
            self._fit_contrast(number, force=True)

    # ---- the pointer

    def spot_at(self, position: tuple[float, ...]) -> Spot | None:
        """Return what is under a point of the world, or None beside all maps."""
        y, x = position[-2:]
        for number, kind, layer in self._all():
            place = self._slots[number].rects[kind].place_of(y, x)
            if place is not None and layer.visible:
                return Spot(number, *place)
        return None

    # ---- putting layers where they belong

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
        """Have grid view put what is to be compared side by side: it goes by the order of the layers."""
        if len(self._slots) < 2:
            return
        layers, slots = self._viewer.layers, [slot.layers for _, slot in sorted(self._slots.items())]
        pairs = [each[kind] for kind in KINDS for each in slots if kind in each]
        for place, layer in enumerate(pairs):
            if layers[place] is not layer:
                layers.move(layers.index(layer), place)

    def _put(self, slot: EncodingSlot, kind: str, most: int) -> None:
        made, rect = slot.made, slot.rects[kind]
        if kind == MAP:
            # two maps go through their channels together, whichever has more
            step = (most - 1) / (made.channels - 1) if made.channels > 1 else 1.0
            data = over_axes(made.values, self._around.axes)
            lies = lies_at(rect, made.hw, self._around.axes, step)
            lies["axis_labels"] = ("channel", *(axis.label for axis in self._around.axes), "y", "x")
            lies["units"] = ("pixel", *(axis.unit for axis in self._around.axes), "pixel", "pixel")
        else:
            data = made.norm() if kind == NORM else slot.similarity()
            lies = lies_at(rect, made.hw)
        if kind in slot.layers:
            # never a new layer in the place of one: see `want`
            slot.update(kind, data, lies)
        else:
            slot.added(kind, self._add(slot, kind, data, lies))

    def _add(self, slot: EncodingSlot, kind: str, data: Values, lies: dict[str, Any]) -> Any:
        self._own_change = True
        try:
            layer = self._viewer.add_image(data, **slot.looks(kind), **lies)
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
            return  # another slider
        self._last_channels = channels
        self._home = channels[0] if 0 in self._slots else self._home
        if self._per_channel:
            for number in self._slots:
                self._fit_contrast(number)
        if channels:
            self.channel_changed.emit()

    def _inserted(self, event: Any) -> None:
        if self._slots and not self._own_change and not is_encoding(event.value):
            self._look_around_soon()

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
            self._look_around_soon()

    def _gone(self, kind: str) -> None:
        if not self._over:
            self.removed.emit(kind)

    def _grid_switched(self, event: Any = None) -> None:
        self._arrange()

    def _look_around_soon(self) -> None:
        self._stale = True
        self._later(self._look_around)

    def _look_around(self) -> None:
        """Follow videos and images that came or went; the channel stays."""
        around, home = surroundings(self._viewer.layers), self._home
        if not self._over and around != self._around:
            self._around = around
            self._arrange()
            self.go_to_channel(home)
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
        """Leave the layers to the person, without their keys."""
        self._over = True
        self.keep()
