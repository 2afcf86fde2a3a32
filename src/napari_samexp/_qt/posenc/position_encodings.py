"""The Position encodings dock."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFileDialog

from napari_samexp._qt.dock import Dock
from napari_samexp._qt.help_pages import ENCODINGS_TUTORIAL
from napari_samexp._qt.model_choice import ModelChoice
from napari_samexp._qt.posenc.encoding_comparison import EncodingComparison
from napari_samexp._qt.posenc.encoding_layers import EncodingLayers
from napari_samexp._qt.posenc.encoding_panel import EncodingPanel
from napari_samexp._qt.posenc.encoding_pointer import EncodingPointer
from napari_samexp._qt.posenc.spectrum_control import SpectrumControl
from napari_samexp._qt.text import tooltip
from napari_samexp.engine.messages.encodings import Encodings
from napari_samexp.errors import SamexpError
from napari_samexp.posenc.map import PosencMap
from napari_samexp.posenc.sheet import save_sheet
from napari_samexp.sam.encoding_spec import MAX_SIDE, EncodingSpec
from napari_samexp.sam.weights.catalogue import STARTER
from napari_samexp.session.encoding_session import EncodingSession
from napari_samexp.session.encodings import EncodingSource, MapRequest

__all__ = ["PositionEncodings"]

MAP_FILES = "TIFF stack (*.tif *.tiff);;NumPy array (*.npy);;Contact sheet (*.png)"
STRIDE = 10  # channels per press of the up and down arrows


class PositionEncodings(Dock):
    """Show what a SAM image encoder adds to its patch tokens as layers.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Passed by napari to a parameter of this name.
    session : EncodingSession, optional
        Another session, for tests.
    """

    tutorial = ENCODINGS_TUTORIAL

    def __init__(self, napari_viewer: Any, session: EncodingSession | None = None) -> None:
        super().__init__(EncodingPanel(), napari_viewer)
        self.session: Any = session or EncodingSession(deliver=self.window_thread)
        self.end_with_window()
        self._last_model = ""  # whose tables were read last
        self.layers = EncodingLayers(self.viewer, self.connections, self.window_thread)
        self.pointer = EncodingPointer(self, self.layers)
        self.spectrum = SpectrumControl(self, self.layers)
        self.comparison = EncodingComparison(self.viewer, self.layers, self.session.second)
        self.models = ModelChoice(self.panel.model, self.connections, self.choose)
        self.others = ModelChoice(self.panel.compare, self.connections, self.compare, none="nothing")
        self._connect()
        self.others.select("")
        self.refresh()
        # the worker starts once the dock is drawn
        QTimer.singleShot(0, self._begin)

    def choose(self, name: str) -> None:
        """Show another model, by name or path."""
        self.models.select(name)
        self.session.first.choose(name)
        self.refresh()

    def compare(self, name: str) -> None:
        """Show a second model next to the first, by name or path; none if the name is empty."""
        self.others.select(name)
        self.panel.frequencies.set_series(1, None)
        self.panel.show_second(bool(name))
        if name:
            self.session.second.choose(name)
        else:
            self.session.second.leave()
            self.comparison.end()
            self.spectrum.redraw()
            part = self._part()
            if part is not None:
                self._allow_tile(part)
        self.refresh()

    def add_layers(self, *_: Any) -> None:
        """Add layers of the map; layers that are there already stay as they are."""
        first, second = (source.current for source in self._sources())
        self.layers.keep()
        if first is not None:
            self.layers.show(0, first)
            if second is not None:
                self.comparison.show(second)
        self.refresh()

    def export_to(self, path: str) -> None:
        """Save the map, or both maps as one contact sheet; `SamexpError` if there is none or on a bad path."""
        shown = [source.current for source in self._sources() if source.current is not None]
        if not shown:
            raise SamexpError("There is no map to save; choose a model first.")
        if Path(path).suffix.lower() == ".png":
            save_sheet(path, shown, per_channel=self.panel.contrast.currentIndex() == 1)
        else:
            shown[0].save(path)

    def refresh(self) -> None:
        """Show the next step, and enable the controls that can be used now."""
        first, second = self._sources()
        opening, ready = first.opening or second.opening, first.current is not None
        if not opening:
            self.panel.download.hide()
        self.panel.add_layers.setEnabled(ready)
        self.panel.export.setEnabled(ready)
        self.show_hint(_hint(opening, ready, self.layers.shown))

    # ---- building

    def _connect(self) -> None:
        panel, session = self.panel, self.session
        for signal, call in (
            (session.notice, self.notify),
            (session.first.described, self._described),
            (session.second.described, self._request),
            (session.first.changed, partial(self._arrived, 0)),
            (session.second.changed, partial(self._arrived, 1)),
            (session.first.failed, self._failed),
            (session.second.failed, self._second_failed),
            (session.first.progress, panel.show_download),
            (session.second.progress, panel.show_download),
            (panel.part.activated, self._part_chosen),
            (panel.dtype.activated, self._request),
            (panel.compare_dtype.activated, self._request),
            (panel.grid_height.valueChanged, self._request),
            (panel.grid_width.valueChanged, self._request),
            (panel.window_tile.toggled, self._request),
            (panel.native_grid.clicked, self._part_chosen),
            (panel.contrast.currentIndexChanged, self._contrast_chosen),
            (panel.show_norm.toggled, partial(self._show_kind, "norm")),
            (panel.similarity.toggled, partial(self._show_kind, "similarity")),
            (panel.add_layers.clicked, self.add_layers),
            (panel.export.clicked, self._choose_export),
            (panel.cancel.clicked, self._cancel),
            (panel.frequencies.channel_chosen, self.layers.go_to_channel),
            (self.layers.channel_changed, self._channel_changed),
            (self.layers.removed, self._layer_removed),
            (self.layers.pressed, self._pressed),
        ):
            self.connections.add(signal, call)

    def _begin(self) -> None:
        if self.session is not None:
            self.session.start()
            self.choose(STARTER)

    def _sources(self) -> tuple[EncodingSource, EncodingSource]:
        return self.session.first, self.session.second

    # ---- requests

    def _described(self, encodings: Encodings) -> None:
        self._last_model = self.session.first.model
        combo, before = self.panel.part, self.panel.part.currentData()
        combo.clear()
        for part in encodings.parts:
            combo.addItem(part.title, part.name)
            combo.setItemData(combo.count() - 1, tooltip(part.help), Qt.ItemDataRole.ToolTipRole)
        combo.setCurrentIndex(max(0, combo.findData(before)))
        self._part_chosen()

    def _part(self) -> EncodingSpec | None:
        source, name = self.session.first, self.panel.part.currentData()
        return None if source.encodings is None or name is None else source.part(name)

    def _part_chosen(self, *_: Any) -> None:
        """Request the chosen encoding on its own grid."""
        part = self._part()
        if part is not None:
            self.panel.show_part(part)
            self._request()

    def _request(self, *_: Any) -> None:
        """Request the maps that the controls describe; the newest request wins."""
        part, panel = self._part(), self.panel
        if part is None:
            return
        grid = (panel.grid_height.value(), panel.grid_width.value()) if part.resizable else None
        request = MapRequest(part.name, grid, panel.window_tile.isChecked(), panel.dtype.currentData())
        with self.errors_shown():
            self.session.first.request(request)
            self._allow_tile(part)
            self.comparison.request(part, request, panel.compare_dtype.currentData())

    def _allow_tile(self, part: EncodingSpec) -> None:
        """Enable the window tile if either model has one."""
        other = self.comparison.counterpart(part)
        self.panel.window_tile.setEnabled(part.tiled or (other is not None and other.tiled))

    # ---- replies

    def _arrived(self, slot: int, made: PosencMap) -> None:
        if self.layers.shown and slot == 0:
            self.layers.show(0, made)
        elif self.layers.shown:
            self.comparison.show(made)
        self.spectrum.maps_changed()
        self.pointer.refresh()
        self.refresh()

    def _failed(self, sentence: str, code: str) -> None:
        self.notify(sentence, code)
        if not self.session.first.model and self._last_model:
            last, self._last_model = self._last_model, ""  # once, in case that one fails too
            self.choose(last)
        self.refresh()

    def _second_failed(self, sentence: str, code: str) -> None:
        self.notify(sentence, code)
        if not self.session.second.model:
            self.compare("")

    def _show_kind(self, kind: str, shown: bool) -> None:
        self.layers.set_shown(kind, shown)
        self.pointer.refresh()

    def _layer_removed(self, kind: str) -> None:
        if kind == "map":
            self.comparison.end()
            self.layers.drop(0)
            self.refresh()
        else:
            {"norm": self.panel.show_norm, "similarity": self.panel.similarity}[kind].setChecked(False)

    def _contrast_chosen(self, place: int) -> None:
        self.layers.set_contrast(per_channel=place == 1)

    # ---- channels and keys

    def _channel_changed(self) -> None:
        self.spectrum.redraw()
        self.pointer.show()

    def _pressed(self, name: str) -> None:
        panel = self.panel
        steps = {"previous_channel": -1, "next_channel": 1, "channels_on": STRIDE, "channels_back": -STRIDE}
        sliders = {"higher": (panel.grid_height, 1), "lower": (panel.grid_height, -1)}
        sliders |= {"wider": (panel.grid_width, 1), "narrower": (panel.grid_width, -1)}
        if name in steps:
            self.layers.go_to_channel(self.layers.channel() + steps[name])
        elif name in sliders:
            slider, step = sliders[name]
            if slider.isEnabled():
                slider.setMaximum(min(max(slider.maximum(), slider.value() + step), MAX_SIDE))
                slider.setValue(slider.value() + step)
        elif panel.window_tile.isEnabled():
            panel.window_tile.toggle()

    # ---- files

    def _cancel(self, *_: Any) -> None:
        for source in self._sources():
            source.cancel()

    def _choose_export(self, *_: Any) -> None:
        path, kind = QFileDialog.getSaveFileName(self, "Save the map", "encoding.tif", MAP_FILES)
        if not path:
            return
        if not Path(path).suffix:
            path += {"T": ".tif", "N": ".npy", "C": ".png"}.get(kind[:1], ".tif")
        with self.errors_shown():
            self.export_to(path)
            self.notify(f"Saved to {path}.")


def _hint(opening: bool, ready: bool, shown: bool) -> str:
    if opening:
        return "Reading the tables …"
    if not ready:
        return "Choose a model above; only its tables are read."
    if not shown:
        return "Press Add layers to look at the encoding."
    return "Arrow keys change the channel, W A S D the grid, T the window tile."
