"""Keeps the spectrum and the frequency plot in step with the maps and the channel in view."""

from __future__ import annotations

from functools import partial
from typing import Any

from napari_samexp._qt.dock import Dock, one_shot_timer
from napari_samexp._qt.posenc.encoding_layers import EncodingLayers
from napari_samexp._qt.posenc.spectrum_view import Series
from napari_samexp.posenc.map import PosencMap
from napari_samexp.session.encoding_session import EncodingSession

__all__ = ["SpectrumControl"]

SETTLE_MS = 400  # without a new map, before the frequencies of all channels are computed


class SpectrumControl:
    """Draws the spectrum of the channel in view, and computes the frequencies of all channels.

    Parameters
    ----------
    dock : Dock
    layers : EncodingLayers
        Knows the channel in view.
    """

    def __init__(self, dock: Dock, layers: EncodingLayers) -> None:
        self._dock, self._panel, self._layers = dock, dock.panel, layers
        self._draw_timer, self._settle_timer = one_shot_timer(dock), one_shot_timer(dock)
        dock.connections.add(self._draw_timer.timeout, self._draw)
        dock.connections.add(self._settle_timer.timeout, self._compute_frequencies)
        dock.connections.later(self._draw_timer.stop)
        dock.connections.later(self._settle_timer.stop)

    def maps_changed(self) -> None:
        """Draw the spectra again, and the frequencies once the maps have settled."""
        self.redraw()
        self._settle_timer.start(SETTLE_MS)

    def redraw(self) -> None:
        """Draw the spectra again once the event loop is idle; of many requests, the last one counts."""
        self._draw_timer.start(0)

    def _maps(self) -> list[tuple[int, PosencMap]]:
        session: EncodingSession = self._dock.session
        sources = enumerate((session.first, session.second))
        return [(slot, source.current) for slot, source in sources if source.current is not None]

    def _draw(self) -> None:
        self._panel.spectrum.show_channels(
            [(made, min(self._layers.channel(slot), made.channels - 1)) for slot, made in self._maps()]
        )
        self._panel.frequencies.set_current(self._layers.channel(0))

    def _compute_frequencies(self) -> None:
        self._compute_next(self._maps())

    def _compute_next(self, pending: list[tuple[int, PosencMap]]) -> None:
        """Compute the frequencies of the first pending map, then of the others."""
        if pending and self._dock.session is not None:
            self._dock.session.frequencies(pending[0][1], partial(self._computed, pending))

    def _computed(self, pending: list[tuple[int, PosencMap]], values: Any) -> None:
        (slot, made), *others = pending
        self._panel.frequencies.set_series(slot, Series(f"{made.model} · {made.part}", values))
        self._compute_next(others)
