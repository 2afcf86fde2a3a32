"""The dock "Position encodings"."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFileDialog

from napari_samexp._qt.connections import Connections, WindowThread
from napari_samexp._qt.dock import Dock, let_go, unwrapped
from napari_samexp._qt.help_pages import ENCODINGS_TUTORIAL
from napari_samexp._qt.model_choice import ModelChoice
from napari_samexp._qt.posenc.encoding_comparison import Comparison
from napari_samexp._qt.posenc.encoding_layers import EncodingLayers
from napari_samexp._qt.posenc.encoding_panel import EncodingPanel
from napari_samexp._qt.posenc.encoding_pointer import EncodingPointer
from napari_samexp._qt.posenc.spectrum_view import Series
from napari_samexp._qt.text import tooltip
from napari_samexp.engine.messages.encodings import Encodings
from napari_samexp.errors import SamexpError
from napari_samexp.posenc.map import PosencMap, save_sheet
from napari_samexp.sam.encoding_spec import MAX_SIDE, EncodingSpec
from napari_samexp.sam.weights.catalogue import STARTER
from napari_samexp.session.encodings import EncodingSession, EncodingSource, MapRequest

__all__ = ["PositionEncodings"]

MAP_FILES = "TIFF stack (*.tif *.tiff);;NumPy array (*.npy);;Contact sheet (*.png)"
NOTICE_MS = 8000
READING_MS = 30_000  # of a sentence with a link: time to find it
REST_MS = 400  # without a new map, before the frequencies of all channels are computed
STRIDE = 10  # channels, of the arrows up and down


class PositionEncodings(Dock):
    """Look at what a SAM image encoder adds to its patch tokens.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        napari gives it to a parameter of this name.
    session : EncodingSession, optional
        Another session, for tests.
    """

    tutorial = ENCODINGS_TUTORIAL

    def __init__(self, napari_viewer: Any, session: EncodingSession | None = None) -> None:
        super().__init__(EncodingPanel())
        self.viewer = viewer = unwrapped(napari_viewer)
        self.window_thread = WindowThread(self)
        self.session = session or EncodingSession(deliver=self.window_thread)
        self._connections = Connections()
        self.end_with_window(self.session, self._connections)
        self._notice = self._last = ""  # the model that was open last
        self._quiet, self._rest, self._drawn, moved = (self._timer() for _ in range(4))
        self.layers = EncodingLayers(viewer, self._connections, self.window_thread)
        self.pointer = EncodingPointer(viewer, self.layers, self.panel, self._connections, moved)
        self.comparison = Comparison(viewer, self.layers, self.session.second)
        self.models = ModelChoice(self.panel.model, self._connections, self.choose)
        self.others = ModelChoice(self.panel.compare, self._connections, self.compare, none="nothing")
        self._connect()
        self.others.select("")
        self._tell_next()
        # the worker begins once the dock is on the screen
        QTimer.singleShot(0, self._begin)

    def say(self, sentence: str, code: str = "") -> None:
        """Show a sentence for a while, instead of what to do next; `code` links it to an entry of help."""
        self._notice = sentence
        more = self.panel.hint.say(sentence, code)
        self._quiet.start(READING_MS if more else NOTICE_MS)

    def choose(self, name: str) -> None:
        """Show another model, by name or path."""
        self.models.select(name)
        self.session.first.choose(name)
        self._tell_next()

    def compare(self, name: str) -> None:
        """Show a second model beside the first, by name or path; none if the name is empty."""
        self.others.select(name)
        self.panel.frequencies.set_series(1, None)
        self.panel.show_second(bool(name))
        if name:
            self.session.second.choose(name)
        else:
            self.session.second.leave()
            self.comparison.end()
            self._drawn.start(0)
            part = self._part()
            if part is not None:
                self._allow_tile(part)
        self._tell_next()

    def add_layers(self, *_: Any) -> None:
        """Show the map; what is shown already stays as it is, and is followed no longer."""
        first, second = (source.current for source in self._sources())
        self.layers.keep()
        if first is not None:
            self.layers.show(0, first)
            if second is not None:
                self.comparison.show(second)
        self._tell_next()

    def export_to(self, path: str) -> None:
        """Save the map, or both maps as one sheet; `SamexpError` if that cannot be."""
        shown = [source.current for source in self._sources() if source.current is not None]
        if not shown:
            raise SamexpError("There is no map to save; choose a model first.")
        if Path(path).suffix.lower() == ".png":
            save_sheet(path, shown, per_channel=self.panel.contrast.currentIndex() == 1)
        else:
            shown[0].save(path)

    def end(self) -> None:
        """Undo every connection and end the worker; layers stay."""
        if self.session is None:
            return
        session, self.session = self.session, None  # type: ignore[assignment]
        for timer in (self._quiet, self._rest, self._drawn):
            timer.stop()
        let_go(session, self._connections)

    # ---- building

    def _timer(self) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        return timer

    def _connect(self) -> None:
        panel, session, add = self.panel, self.session, self._connections.add
        for signal, call in (
            (session.notice, self.say),
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
            (panel.show_norm.toggled, partial(self._want, "norm")),
            (panel.similarity.toggled, partial(self._want, "similarity")),
            (panel.add_layers.clicked, self.add_layers),
            (panel.export.clicked, self._ask_export),
            (panel.cancel.clicked, self._cancel),
            (panel.frequencies.channel_chosen, self.layers.go_to_channel),
            (self.layers.channel_changed, self._channel_changed),
            (self.layers.removed, self._layer_removed),
            (self.layers.pressed, self._pressed),
            (self._quiet.timeout, self._hush),
            (self._rest.timeout, self._analyse),
            (self._drawn.timeout, self._draw_spectrum),
        ):
            add(signal, call)

    def _begin(self) -> None:
        if self.session is not None:
            self.session.start()
            self.choose(STARTER)

    def _sources(self) -> tuple[EncodingSource, EncodingSource]:
        return self.session.first, self.session.second

    # ---- what is requested for

    def _described(self, encodings: Encodings) -> None:
        self._last = self.session.first.model
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
        """Go to the part's own grid."""
        part = self._part()
        if part is not None:
            self.panel.show_part(part)
            self._request()

    def _request(self, *_: Any) -> None:
        """Ask for the maps that the controls describe; a newer request overtakes one on its way."""
        part, panel = self._part(), self.panel
        if part is None:
            return
        grid = (panel.grid_height.value(), panel.grid_width.value()) if part.resizable else None
        wanted = MapRequest(part.name, grid, panel.window_tile.isChecked(), panel.dtype.currentData())
        try:
            self.session.first.request(wanted)
            self._allow_tile(part)
            self.comparison.request(part, wanted, panel.compare_dtype.currentData())
        except SamexpError as error:
            self.say(str(error), error.code)

    def _allow_tile(self, part: EncodingSpec) -> None:
        """Let the window tile be switched if either model has one."""
        other = self.comparison.part_beside(part)
        self.panel.window_tile.setEnabled(part.tiled or (other is not None and other.tiled))

    # ---- what comes of it

    def _arrived(self, slot: int, made: PosencMap) -> None:
        if self.layers.shown and slot == 0:
            self.layers.show(0, made)
        elif self.layers.shown:
            self.comparison.show(made)
        self._drawn.start(0)
        self._rest.start(REST_MS)
        self.pointer.refresh()
        self._tell_next()

    def _failed(self, sentence: str, code: str) -> None:
        self.say(sentence, code)
        if not self.session.first.model and self._last:
            last, self._last = self._last, ""  # once only, should that one fail as well
            self.choose(last)
        self._tell_next()

    def _second_failed(self, sentence: str, code: str) -> None:
        self.say(sentence, code)
        if not self.session.second.model:
            self.compare("")

    def _want(self, kind: str, wanted: bool) -> None:
        self.layers.want(kind, wanted)
        self.pointer.refresh()

    def _layer_removed(self, kind: str) -> None:
        if kind == "map":
            self.comparison.end()
            self.layers.drop(0)
            self._tell_next()
        else:
            {"norm": self.panel.show_norm, "similarity": self.panel.similarity}[kind].setChecked(False)

    def _contrast_chosen(self, place: int) -> None:
        self.layers.set_contrast(per_channel=place == 1)

    # ---- channels, spectrum, keys

    def _channel_changed(self) -> None:
        self._drawn.start(0)
        self.pointer.say_where()

    def _draw_spectrum(self) -> None:
        shown = [source.current for source in self._sources()]
        channels = [self.layers.channel(slot) for slot in (0, 1)]
        pairs = [(made, min(c, made.channels - 1)) for made, c in zip(shown, channels) if made is not None]
        self.panel.spectrum.show_channels(pairs)
        self.panel.frequencies.set_current(channels[0])

    def _analyse(self) -> None:
        """Compute the frequencies of all channels, one map after the other."""
        left = [(slot, s.current) for slot, s in enumerate(self._sources()) if s.current is not None]

        def go_on() -> None:
            if left and self.session is not None:
                slot, made = left.pop(0)
                self.session.frequencies(made, partial(found, slot, made))

        def found(slot: int, made: PosencMap, values: Any) -> None:
            self.panel.frequencies.set_series(slot, Series(f"{made.model} · {made.part}", values))
            go_on()

        go_on()

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

    # ---- words and files

    def _cancel(self, *_: Any) -> None:
        for source in self._sources():
            source.cancel()

    def _tell_next(self) -> None:
        first, second = self._sources()
        opening, ready = first.opening or second.opening, first.current is not None
        if not opening:
            self.panel.download.hide()
        self.panel.add_layers.setEnabled(ready)
        self.panel.export.setEnabled(ready)
        if not self._notice:
            self.panel.hint.tell(_hint(opening, ready, self.layers.shown))

    def _hush(self) -> None:
        self._notice = ""
        self._tell_next()

    def _ask_export(self, *_: Any) -> None:
        path, kind = QFileDialog.getSaveFileName(self, "Save the map", "encoding.tif", MAP_FILES)
        if not path:
            return
        if not Path(path).suffix:
            path += {"T": ".tif", "N": ".npy", "C": ".png"}.get(kind[:1], ".tif")
        try:
            self.export_to(path)
        except SamexpError as error:
            self.say(str(error), error.code)
        else:
            self.say(f"Saved to {path}.")


def _hint(opening: bool, ready: bool, shown: bool) -> str:
    if opening:
        return "Reading the tables …"
    if not ready:
        return "Choose a model above; only its tables are read."
    if not shown:
        return "Press Add layers to look at the encoding."
    return "Arrow keys change the channel, W A S D the grid, T the window tile."
