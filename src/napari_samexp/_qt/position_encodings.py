"""The dock "Position encodings"."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import QFileDialog, QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_samexp._qt.connections import Connections, WindowThread
from napari_samexp._qt.encoding_frame import grid_of
from napari_samexp._qt.encoding_layers import EncodingLayers, Spot
from napari_samexp._qt.encoding_panel import EncodingPanel
from napari_samexp._qt.model_choice import ModelChoice
from napari_samexp._qt.spectrum_view import Series
from napari_samexp.engine.messages import Encodings
from napari_samexp.posenc_map import PosencMap, save_sheet
from napari_samexp.sam.parts import ABSOLUTE, MAX_SIDE, Part
from napari_samexp.sam.weights import STARTER
from napari_samexp.session.encodings import EncodingSession, EncodingSource, MapWish
from napari_samexp.types import SamexpError

__all__ = ["PositionEncodings"]

MAP_FILES = "TIFF stack (*.tif *.tiff);;NumPy array (*.npy);;Contact sheet (*.png)"
NOTICE_MS = 8000
REST_MS = 400  # without a new map, before the frequencies of all channels are computed
CLICK_PIXELS = 3  # more than that is a drag
STRIDE = 10  # channels, of the arrows up and down


class PositionEncodings(QWidget):
    """Look at what a SAM image encoder adds to its patch tokens.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        napari gives it to a parameter of this name.
    session : EncodingSession, optional
        Another session, for tests.
    """

    def __init__(self, napari_viewer: Any, session: EncodingSession | None = None) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.window_thread = WindowThread(self)
        self.session = session or EncodingSession(deliver=self.window_thread)
        self.panel = EncodingPanel()
        self._connections = Connections()
        self._notice, self._docked = "", False
        self._kept_grid: tuple[bool, Any] | None = None  # what grid view was before a comparison
        self._spot: Spot | None = None
        self._held: Spot | None = None
        self._quiet, self._rest, self._moved, self._drawn = (self._timer() for _ in range(4))
        self._lay_out()
        self.layers = EncodingLayers(napari_viewer, self._connections, self.window_thread)
        self.models = ModelChoice(self.panel.model, self._connections, self._choose)
        self.others = ModelChoice(self.panel.compare, self._connections, self._compare, none="nothing")
        self._connect()
        self.models.select(STARTER)
        self.others.select("")
        self._tell_next()
        QTimer.singleShot(0, self._begin)

    def say(self, sentence: str) -> None:
        """Show a sentence for a while, in the place of what to do next."""
        self._notice = sentence
        self._quiet.start(NOTICE_MS)
        self.panel.hint.setText(sentence)

    def export_to(self, path: str) -> None:
        """Save the map, or both maps as one sheet; `SamexpError` if that cannot be."""
        shown = [source.current for source in self._sources() if source.current is not None]
        if not shown:
            raise SamexpError("There is no map to save; choose a model first.")
        per_channel = self.panel.contrast.currentIndex() == 1
        if Path(path).suffix.lower() == ".png":
            save_sheet(path, shown, per_channel=per_channel)
        else:
            shown[0].save(path)

    def end(self) -> None:
        """Undo every connection and end the worker; layers stay."""
        if self.session is None:
            return
        session, self.session = self.session, None  # type: ignore[assignment]
        for timer in (self._quiet, self._rest, self._moved, self._drawn):
            timer.stop()
        self._connections.undo()
        # joining a thread that may be delivering could take a moment
        threading.Thread(target=session.close, name="napari-samexp closing").start()

    # ---- Qt

    def event(self, event: QEvent) -> bool:
        """Notice that napari has taken the dock away."""
        if event.type() == QEvent.Type.ParentChange:
            self._docked = self._docked or self.parentWidget() is not None
            if self._docked and self.parentWidget() is None:
                # docking again takes the widget out first, and puts it back at once
                QTimer.singleShot(0, self._end_if_undocked)
        return bool(super().event(event))

    def showEvent(self, event: Any) -> None:
        """Be wide enough for all controls; napari's style, which makes them larger, is known only now."""
        bar = self._area.verticalScrollBar().sizeHint().width()
        self._area.setMinimumWidth(self.panel.minimumSizeHint().width() + bar)
        super().showEvent(event)

    def closeEvent(self, event: Any) -> None:
        """End with the window."""
        self.end()
        super().closeEvent(event)

    def _end_if_undocked(self) -> None:
        if self.parentWidget() is None:
            self.end()
            self.deleteLater()

    # ---- building

    def _timer(self) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        return timer

    def _lay_out(self) -> None:
        self._area = area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(self.panel)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(area)

    def _connect(self) -> None:
        panel, session, add = self.panel, self.session, self._connections.add
        for signal, call in (
            (session.notice, self.say),
            (session.first.described, self._described),
            (session.second.described, lambda _: self._wish_second()),
            (session.first.changed, partial(self._arrived, 0)),
            (session.second.changed, partial(self._arrived, 1)),
            (session.first.failed, self._failed),
            (session.second.failed, self._second_failed),
            (session.first.progress, self._downloading),
            (session.second.progress, self._downloading),
            (panel.part.activated, self._part_chosen),
            (panel.dtype.activated, self._wish),
            (panel.compare_dtype.activated, self._wish_second),
            (panel.grid_height.valueChanged, self._wish),
            (panel.grid_width.valueChanged, self._wish),
            (panel.window_tile.toggled, self._wish),
            (panel.native_grid.clicked, self._go_native),
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
            (self._moved.timeout, self._follow_pointer),
            (self._drawn.timeout, self._draw_spectrum),
        ):
            add(signal, call)
        self.viewer.mouse_move_callbacks.append(self._hovered)
        self._connections.later(lambda: self.viewer.mouse_move_callbacks.remove(self._hovered))
        self.viewer.mouse_drag_callbacks.append(self._clicked)
        self._connections.later(lambda: self.viewer.mouse_drag_callbacks.remove(self._clicked))

    def _begin(self) -> None:
        if self.session is not None:
            self.session.start()
            self._choose(STARTER)

    # ---- the model and its parts

    def _choose(self, name: str) -> None:
        self.session.first.choose(name)
        self._tell_next()

    def _described(self, encodings: Encodings) -> None:
        combo, before = self.panel.part, self.panel.part.currentData()
        combo.clear()
        for part in encodings.parts:
            combo.addItem(part.title, part.name)
            combo.setItemData(combo.count() - 1, part.help, Qt.ItemDataRole.ToolTipRole)
        combo.setCurrentIndex(max(0, combo.findData(before)))
        self._part_chosen()

    def _part(self) -> Part | None:
        source = self.session.first
        name = self.panel.part.currentData()
        return None if source.encodings is None or name is None else source.part(name)

    def _part_chosen(self, *_: Any) -> None:
        part = self._part()
        if part is None:
            return
        self.panel.part.setToolTip(part.help)
        self.panel.window_tile.setEnabled(part.tiled)
        self._set_grid(part.grid_hw, part.resizable)
        self._wish()

    def _set_grid(self, grid_hw: tuple[int, int], resizable: bool = True) -> None:
        for slider, size in zip((self.panel.grid_height, self.panel.grid_width), grid_hw):
            slider.blockSignals(True)
            slider.setRange(min(2, size), max(2 * size, 16))
            slider.setValue(size)
            slider.setEnabled(resizable)
            slider.blockSignals(False)
        self.panel.native_grid.setEnabled(resizable)

    def _go_native(self, *_: Any) -> None:
        part = self._part()
        if part is not None:
            self._set_grid(part.grid_hw, part.resizable)
            self._wish()

    def _wish(self, *_: Any) -> None:
        """Ask for the map that the controls describe; a newer wish overtakes one on its way."""
        part = self._part()
        if part is None:
            return
        panel = self.panel
        grid = panel.grid_height.value(), panel.grid_width.value()
        try:
            self.session.first.wish(
                MapWish(
                    part.name,
                    grid if part.resizable else None,
                    panel.window_tile.isChecked(),
                    panel.dtype.currentData(),
                )
            )
            self._wish_second()
        except SamexpError as error:
            self.say(str(error))

    # ---- the other model

    def _compare(self, name: str) -> None:
        self.panel.frequencies.set_series(1, None)
        self.panel.show_second(bool(name))
        if name:
            self.session.second.choose(name)
        else:
            self.session.second.leave()
            self.layers.drop(1)
            self._restore_grid_view()
            self._drawn.start(0)
        self._tell_next()

    def _wish_second(self, *_: Any) -> None:
        """Ask for the second model's map of the same part, as much finer or coarser than its own grid."""
        part, source = self._part(), self.session.second
        if part is None or source.encodings is None:
            return
        names = [each.name for each in source.encodings.parts]
        other = source.part(part.name if part.name in names else ABSOLUTE)
        grid = None
        if part.resizable and other.resizable:
            grid = self._scaled(part, other)
        tile, dtype = self.panel.window_tile.isChecked(), self.panel.compare_dtype.currentData()
        try:
            source.wish(MapWish(other.name, grid, tile, dtype))
        except SamexpError as error:
            self.say(str(error))

    def _scaled(self, part: Part, other: Part) -> tuple[int, int]:
        asked = self.panel.grid_height.value(), self.panel.grid_width.value()
        sizes = [
            min(max(1, round(size * theirs / own)), MAX_SIDE)
            for size, own, theirs in zip(asked, part.grid_hw, other.grid_hw)
        ]
        return sizes[0], sizes[1]

    def _second_failed(self, sentence: str) -> None:
        if not self.session.second.model:
            self.others.select("")
            self._compare("")
        self._failed(sentence)

    # ---- maps

    def add_layers(self, *_: Any) -> None:
        """Show the map; what is shown already stays as it is, and is followed no longer."""
        self.layers.keep()
        self._show_all()
        self._tell_next()

    def _show_all(self) -> None:
        first, second = self.session.first.current, self.session.second.current
        if first is None:
            return
        self.layers.show(0, first)
        if second is not None:
            self._show_second(second)

    def _show_second(self, made: PosencMap) -> None:
        grid = grid_of(self.viewer)
        if self._kept_grid is None:
            self._kept_grid = bool(grid.enabled), grid.shape
            grid.shape, grid.enabled = (-1, 2), True  # one model to the left, the other to the right
        self.layers.show(1, made)

    def _restore_grid_view(self) -> None:
        if self._kept_grid is not None:
            grid, kept = grid_of(self.viewer), self._kept_grid
            self._kept_grid = None
            grid.enabled, grid.shape = kept
            self.viewer.reset_view()

    def _arrived(self, slot: int, made: PosencMap) -> None:
        if self.layers.shown and slot == 0:
            self.layers.show(0, made)
        elif self.layers.shown:
            self._show_second(made)
        self._drawn.start(0)
        self._rest.start(REST_MS)
        if self._spot is not None or self._held is not None:
            self._moved.start(0)
        self._tell_next()

    def _want(self, kind: str, wanted: bool) -> None:
        self.layers.want(kind, wanted)
        self._moved.start(0)

    def _layer_removed(self, kind: str) -> None:
        if kind == "map":
            self.layers.drop(1)
            self.layers.drop(0)
            self._restore_grid_view()
            self._tell_next()
        else:
            getattr(self.panel, {"norm": "show_norm"}.get(kind, kind)).setChecked(False)

    def _contrast_chosen(self, place: int) -> None:
        self.layers.set_contrast(per_channel=place == 1)

    def _sources(self) -> tuple[EncodingSource, EncodingSource]:
        return self.session.first, self.session.second

    # ---- channels and the spectrum

    def _channel_changed(self) -> None:
        self._drawn.start(0)
        self._say_where()

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

    # ---- the pointer and the keys

    def _hovered(self, viewer: Any, event: Any) -> None:
        spot = self.layers.spot_at(tuple(event.position)) if self.layers.shown else None
        if spot != self._spot:
            self._spot = spot
            self._moved.start(0)  # of many moves before the next redraw, the last one counts

    def _clicked(self, viewer: Any, event: Any) -> Iterator[None]:
        """Hold the token that is clicked, or let it go; dragging moves the camera and does neither."""
        began = np.asarray(event.pos, float)
        yield
        while event.type == "mouse_move":
            yield
        spot = self.layers.spot_at(tuple(event.position)) if self.layers.shown else None
        still = bool(np.abs(np.asarray(event.pos, float) - began).max() <= CLICK_PIXELS)
        if spot is not None and still and event.button == 1 and self.panel.similarity.isChecked():
            self._held = None if self._held is not None else spot
            self._spot = spot
            self._moved.start(0)

    def _follow_pointer(self) -> None:
        spot = self._held or self._spot
        if spot is not None and self.panel.similarity.isChecked():
            for slot, made in self.layers.maps():
                self.layers.set_similarity(slot, made.similarity(*spot.on(made)))
        self._say_where()

    def _say_where(self) -> None:
        maps = self.layers.maps()
        lines = [_status(made, self.layers.channel(slot), self._spot) for slot, made in maps]
        if len(maps) > 1:
            lines = [
                f"{line.replace('channel', 'ch.')} · {made.model}" for line, (_, made) in zip(lines, maps)
            ]
        elif maps and self._held is not None:
            made = maps[0][1]
            lines.append(f"similarity to {made.place(*self._held.on(made))}, held")
        self.panel.say_where(lines)

    def _pressed(self, key: str) -> None:
        panel = self.panel
        steps = {"Left": -1, "Right": 1, "Up": STRIDE, "Down": -STRIDE}
        sliders = {"W": (panel.grid_height, 1), "S": (panel.grid_height, -1)}
        sliders |= {"D": (panel.grid_width, 1), "A": (panel.grid_width, -1)}
        if key in steps:
            self.layers.go_to_channel(self.layers.channel() + steps[key])
        elif key in sliders:
            slider, step = sliders[key]
            if slider.isEnabled():
                slider.setMaximum(min(max(slider.maximum(), slider.value() + step), MAX_SIDE))
                slider.setValue(slider.value() + step)
        elif panel.window_tile.isEnabled():
            panel.window_tile.toggle()

    # ---- words

    def _failed(self, sentence: str) -> None:
        self.panel.download.hide()
        self.say(sentence)
        self._tell_next()

    def _downloading(self, done: int, total: int | None) -> None:
        self.panel.download.show()
        self.panel.progress.setMaximum(1000 if total else 0)
        self.panel.progress.setValue(round(1000 * done / total) if total else 0)
        self.panel.progress.setFormat(f"{done / 1e6:.0f} of {(total or 0) / 1e6:.0f} MB")

    def _cancel(self, *_: Any) -> None:
        for source in self._sources():
            source.cancel()

    def _tell_next(self) -> None:
        first, second = self._sources()
        opening = first.opening or second.opening
        if not opening:
            self.panel.download.hide()
        ready = first.current is not None
        self.panel.add_layers.setEnabled(ready)
        self.panel.export.setEnabled(ready)
        if not self._notice:
            self.panel.hint.setText(_hint(opening, ready, self.layers.shown))

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
            self.say(str(error))
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


def _status(made: PosencMap, channel: int, spot: Spot | None) -> str:
    if spot is None:
        return f"channel {channel} of {made.channels}"
    y, x = spot.on(made)
    return f"channel {channel} · {made.place(y, x)} · {made.channel(channel)[y, x]:.4g}"
