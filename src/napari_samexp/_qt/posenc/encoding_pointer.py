"""Follows the pointer over a map: the token under it, its value, and the similarity of all tokens to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from napari_samexp._qt.connections import Connections
from napari_samexp._qt.dock import Dock, one_shot_timer
from napari_samexp._qt.posenc.encoding_frame import Spot
from napari_samexp._qt.posenc.encoding_layers import EncodingLayers
from napari_samexp.posenc.map import PosencMap

__all__ = ["EncodingPointer"]

CLICK_PIXELS = 3  # more than that is a drag


class EncodingPointer:
    """Follows the pointer over maps; a click holds a token, the next click releases it."""

    def __init__(self, dock: Dock, layers: EncodingLayers) -> None:
        self._layers, self._panel = layers, dock.panel
        self._timer = one_shot_timer(dock)  # of many moves before the next redraw, the last one counts
        self._spot: Spot | None = None
        self._held: Spot | None = None
        dock.connections.add(self._timer.timeout, self._follow)
        dock.connections.later(self._timer.stop)
        _add(dock.connections, dock.viewer.mouse_move_callbacks, self.hovered)
        _add(dock.connections, dock.viewer.mouse_drag_callbacks, self.clicked)

    def refresh(self) -> None:
        """Update similarities and text once the event loop is idle."""
        self._timer.start(0)

    def hovered(self, viewer: Any, event: Any) -> None:
        """Remember the token under the pointer."""
        spot = self._spot_at(event)
        if spot != self._spot:
            self._spot = spot
            self.refresh()

    def clicked(self, viewer: Any, event: Any) -> Iterator[None]:
        """Hold the clicked token, or release it; dragging moves the camera and does neither."""
        start = np.asarray(event.pos, float)
        yield
        while event.type == "mouse_move":
            yield
        still = bool(np.abs(np.asarray(event.pos, float) - start).max() <= CLICK_PIXELS)
        spot = self._spot_at(event)
        if spot is not None and still and event.button == 1 and self._panel.similarity.isChecked():
            self._held = None if self._held is not None else spot
            self._spot = spot
            self.refresh()

    def show(self) -> None:
        """Show channel, token and value, one line per map."""
        maps = self._layers.maps()
        lines = [_line(made, self._layers.channel(slot), self._spot) for slot, made in maps]
        if len(maps) > 1:
            lines = [
                f"{line.replace('channel', 'ch.')} · {made.model}" for line, (_, made) in zip(lines, maps)
            ]
        elif maps and self._held is not None:
            made = maps[0][1]
            lines.append(f"similarity to {made.place(*self._held.on(made))}, held")
        self._panel.show_pointer(lines)

    def _spot_at(self, event: Any) -> Spot | None:
        return self._layers.spot_at(tuple(event.position)) if self._layers.shown else None

    def _follow(self) -> None:
        spot = self._held or self._spot
        if spot is not None and self._panel.similarity.isChecked():
            for slot, made in self._layers.maps():
                self._layers.set_similarity(slot, made.similarity(*spot.on(made)))
        self.show()


def _add(connections: Connections, callbacks: list[Any], call: Callable[..., Any]) -> None:
    callbacks.append(call)
    connections.later(lambda: callbacks.remove(call))


def _line(made: PosencMap, channel: int, spot: Spot | None) -> str:
    if spot is None:
        return f"channel {channel} of {made.channels}"
    y, x = spot.on(made)
    return f"channel {channel} · {made.place(y, x)} · {made.channel(channel)[y, x]:.4g}"
