"""The dock "Position encodings": its controls, its layers, and its place beside a video."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from packaging.version import Version
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QAbstractButton, QComboBox, QScrollBar, QWidget

from napari_samexp._qt.image_layers import step_to, time_axis, time_of, view_of
from napari_samexp._qt.posenc.encoding_frame import is_encoding
from napari_samexp._qt.posenc.spectrum_view import spectrum_image
from napari_samexp._qt.shown_video import add_video
from napari_samexp.errors import SamexpError
from napari_samexp.session.encoding_session import EncodingSession
from tests._qt.fake_encodings import SAM2, FakeEncodings, drawn

AXES_ARE_NAMED = Version(version("napari")) >= Version("0.9")  # the viewer's, as those of its layers
NAMES = [
    *("model", "grid_height", "grid_width", "window_tile", "part", "dtype", "show_norm", "similarity"),
    *("contrast", "add_layers", "export", "compare", "compare_dtype", "native_grid", "cancel", "progress"),
    *("status", "hint", "spectrum", "frequencies"),
]


@pytest.fixture
def make_dock(qtbot: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Docks on a viewer, with an engine that draws, once the starter's map is there."""
    from napari_samexp._qt.connections import WindowThread
    from napari_samexp._qt.posenc.position_encodings import PositionEncodings

    made = []

    def make(viewer: Any) -> Any:
        engines: list[FakeEncodings] = []

        def engine(on_reply: Any) -> Any:
            engines.append(FakeEncodings(on_reply))
            return engines[0]

        session = EncodingSession(deliver=WindowThread(), home=tmp_path / "home", make_engine=engine)
        dock = PositionEncodings(viewer, session)
        dock.engine = engines[0]
        qtbot.addWidget(dock)
        made.append(dock)
        dock.show()
        qtbot.waitUntil(lambda: session.first.current is not None)
        return dock

    yield make
    for dock in made:
        dock.end()


@pytest.fixture
def dock(make_dock: Any, viewer: Any) -> Any:
    return make_dock(viewer)


@pytest.fixture
def shown(qtbot: Any, dock: Any) -> Any:
    """The dock with its layers in the viewer."""
    click(qtbot, dock.panel.add_layers)
    return dock


def click(qtbot: Any, button: Any) -> None:
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    qtbot.wait(30)  # for the answer


def pick(qtbot: Any, combo: Any, data: str) -> None:
    """Choose an entry as a person does."""
    place = combo.findData(data)
    assert place >= 0
    combo.setCurrentIndex(place)
    combo.activated.emit(place)
    qtbot.wait(60)


def settled(qtbot: Any, dock: Any) -> np.ndarray:
    """Return the values of the map in view, once they are what the controls say."""
    panel, source = dock.panel, dock.session.first

    def there() -> bool:
        grid = panel.grid_height.value(), panel.grid_width.value()
        return (source.current.part, source.current.grid_hw) == (panel.part.currentData(), grid)

    qtbot.waitUntil(there)
    qtbot.wait(40)
    return np.asarray(source.current.values)


def expected(dock: Any, name: str = "absolute") -> np.ndarray:
    return drawn(dock.engine.maps[-1], next(part for part in SAM2 if part.name == name))


def at(dock: Any, y: float, x: float, kind: str = "map", slot: int = 0) -> tuple[float, ...]:
    """Return the world position of a token's middle in a layer of the dock."""
    layer = dock.layers.layer(slot, kind)
    y, x = (float(t + s * n) for t, s, n in zip(layer.translate[-2:], layer.scale[-2:], (y, x)))
    return (*dock.viewer.dims.point[:-2], y, x)


def hover(qtbot: Any, dock: Any, position: tuple[float, ...]) -> None:
    event = SimpleNamespace(position=position, type="mouse_move", button=0, pos=(0, 0))
    for call in dock.viewer.mouse_move_callbacks:
        call(dock.viewer, event)
    qtbot.wait(30)


def press(qtbot: Any, dock: Any, position: tuple[float, ...], drag: int = 0) -> None:
    """Press, move by `drag` pixels and release, as napari hands it on."""
    event = SimpleNamespace(position=position, type="mouse_press", button=1, pos=(50, 50))
    steps = dock.pointer.clicked(dock.viewer, event)
    next(steps)
    event.pos, event.type = (50 + drag, 50), "mouse_move"
    next(steps)
    event.type = "mouse_release"
    assert next(steps, "over") == "over"
    qtbot.wait(30)


# ---- controls


def test_every_control_has_its_name_and_says_what_it_does(dock: Any) -> None:
    for name in NAMES:
        found = dock.findChildren(QWidget, name)
        assert len(found) == 1, name
        assert found[0].toolTip(), name
    for kind in (QAbstractButton, QComboBox):
        for control in dock.panel.findChildren(kind):
            assert control.toolTip() or control.objectName().startswith("qt_"), control.objectName()


def test_nothing_is_in_the_viewer_before_it_is_asked_for(dock: Any, viewer: Any) -> None:
    assert not list(viewer.layers)
    assert "Add layers" in dock.panel.hint.text()
    assert dock.panel.spectrum.images  # but the spectrum is there


def test_the_map_has_a_channel_slider_and_the_norm_beside_it(shown: Any, viewer: Any) -> None:
    shape, norm = shown.layers.layer(0), shown.layers.layer(0, "norm")
    np.testing.assert_array_equal(shape.data, expected(shown))
    assert shape.data.shape == (6, 8, 8)
    assert shape.axis_labels == ("channel", "y", "x")
    assert viewer.dims.axis_labels == (("channel", "y", "x") if AXES_ARE_NAMED else ("-3", "-2", "-1"))
    assert shape.colormap.name == norm.colormap.name == "viridis"
    np.testing.assert_allclose(shape.contrast_limits, np.percentile(shape.data, (1, 99)), rtol=1e-5)
    np.testing.assert_allclose(norm.data, np.linalg.norm(shape.data, axis=0), rtol=1e-5)
    assert norm.extent.world[0][-1] > shape.extent.world[1][-1]  # beside it, not on it
    assert viewer.layers.selection.active is shape  # so that the keys are its


def test_the_sliders_ask_for_other_grids_and_the_layers_follow(qtbot: Any, shown: Any) -> None:
    layer = shown.layers.layer(0)
    assert (shown.panel.grid_height.value(), shown.panel.grid_height.maximum()) == (8, 16)
    shown.panel.grid_height.setValue(5)
    shown.panel.grid_width.setValue(13)
    np.testing.assert_array_equal(settled(qtbot, shown), expected(shown))
    assert shown.layers.layer(0) is layer and layer.data.shape == (6, 5, 13)
    assert shown.layers.layer(0, "norm").data.shape == (5, 13)
    click(qtbot, shown.panel.native_grid)
    assert settled(qtbot, shown).shape == layer.data.shape == (6, 8, 8)


def test_tile_and_numbers_are_asked_for(qtbot: Any, shown: Any) -> None:
    before = shown.layers.layer(0).data.copy()
    click(qtbot, shown.panel.window_tile)
    assert not shown.engine.maps[-1].window_tile
    np.testing.assert_allclose(shown.layers.layer(0).data, before + 100, rtol=1e-5)
    pick(qtbot, shown.panel.dtype, "bfloat16-error")
    assert shown.engine.maps[-1].dtype == "bfloat16-error"
    assert shown.layers.layer(0).name == "starter absolute bfloat16-error"


def test_another_part_has_another_grid(qtbot: Any, shown: Any) -> None:
    pick(qtbot, shown.panel.part, "rotary")
    assert shown.engine.maps[-1].grid_hw == (4, 4) and not shown.panel.window_tile.isEnabled()
    assert settled(qtbot, shown).shape == (4, 4, 4)
    pick(qtbot, shown.panel.part, "times")
    assert settled(qtbot, shown).shape == (4, 1, 7)
    assert not shown.panel.grid_height.isEnabled()
    pick(qtbot, shown.panel.part, "absolute")
    assert shown.panel.grid_height.isEnabled() and settled(qtbot, shown).shape == (6, 8, 8)


def test_a_model_that_cannot_be_read_says_so_and_the_map_stays(qtbot: Any, shown: Any) -> None:
    before = shown.layers.layer(0).data.copy()
    shown.choose("none")
    qtbot.waitUntil(lambda: "There is no such file" in shown.panel.hint.text())
    np.testing.assert_array_equal(shown.layers.layer(0).data, before)
    qtbot.waitUntil(lambda: shown.panel.add_layers.isEnabled())  # back at the model before
    assert shown.panel.model.currentData() == shown.session.first.model == "starter"
    shown.choose("sam1")
    qtbot.waitUntil(lambda: shown.layers.layer(0).data.shape == (11, 4, 4))
    assert shown.layers.layer(0).name == "sam1 absolute"


def test_norm_and_similarity_come_and_go(qtbot: Any, shown: Any, viewer: Any) -> None:
    assert len(viewer.layers) == 2
    click(qtbot, shown.panel.show_norm)
    click(qtbot, shown.panel.similarity)
    names = [layer.name for layer in viewer.layers if layer.visible]
    assert names == ["starter absolute", "starter absolute similarity"]
    click(qtbot, shown.panel.show_norm)
    assert len(viewer.layers) == 3 and shown.layers.layer(0, "norm").visible
    viewer.layers.remove(shown.layers.layer(0, "similarity"))  # by hand
    qtbot.waitUntil(lambda: not shown.panel.similarity.isChecked())


def test_contrast_of_each_channel_follows_the_channel(qtbot: Any, shown: Any) -> None:
    layer, made = shown.layers.layer(0), shown.session.first.current
    shown.panel.contrast.setCurrentText("per channel")
    for channel in (5, 1):
        shown.layers.go_to_channel(channel)
        np.testing.assert_allclose(layer.contrast_limits, made.limits(channel), rtol=1e-5)
    shown.panel.contrast.setCurrentText("global")
    np.testing.assert_allclose(layer.contrast_limits, made.limits(), rtol=1e-5)


def test_contrast_set_by_hand_stays(qtbot: Any, shown: Any, viewer: Any, video: Any) -> None:
    layer = shown.layers.layer(0)
    layer.contrast_limits = (-3, 2)
    shown.panel.grid_height.setValue(5)
    settled(qtbot, shown)
    assert layer.data.shape[1] == 5 and tuple(layer.contrast_limits) == (-3, 2)
    add_video(viewer, video)
    qtbot.waitUntil(lambda: shown.layers.layer(0).ndim == 4)
    shown.panel.grid_height.setValue(6)
    settled(qtbot, shown)
    assert tuple(shown.layers.layer(0).contrast_limits) == (-3, 2)
    shown.panel.contrast.setCurrentText("per channel")  # which is asking for another
    shown.panel.contrast.setCurrentText("global")
    made = shown.session.first.current
    np.testing.assert_allclose(shown.layers.layer(0).contrast_limits, made.limits(), rtol=1e-5)


def test_pressed_again_the_old_layers_stay_and_new_ones_follow(qtbot: Any, shown: Any, viewer: Any) -> None:
    old = shown.layers.layer(0)
    click(qtbot, shown.panel.add_layers)
    assert len(viewer.layers) == 4
    shown.panel.grid_width.setValue(3)
    settled(qtbot, shown)
    assert old.data.shape == (6, 8, 8) and shown.layers.layer(0).data.shape == (6, 8, 3)


def test_a_map_that_is_taken_away_is_followed_no_longer(qtbot: Any, shown: Any, viewer: Any) -> None:
    viewer.layers.remove(shown.layers.layer(0))
    qtbot.waitUntil(lambda: not list(viewer.layers))
    shown.panel.grid_width.setValue(3)
    settled(qtbot, shown)
    assert not list(viewer.layers) and "Add layers" in shown.panel.hint.text()


def test_export_writes_what_is_shown(qtbot: Any, shown: Any, tmp_path: Path) -> None:
    shown.panel.grid_width.setValue(3)
    made = settled(qtbot, shown)
    shown.export_to(str(tmp_path / "map.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "map.npy"), made)
    with pytest.raises(SamexpError, match="give a path in"):
        shown.export_to(str(tmp_path / "map.gif"))


# ---- channels, pointer and spectrum


def test_the_status_reads_channel_token_and_value(qtbot: Any, shown: Any) -> None:
    shown.layers.go_to_channel(4)
    for kind in ("map", "norm"):
        hover(qtbot, shown, at(shown, 2, 5, kind))
        value = shown.session.first.current.values[4, 2, 5]
        assert shown.panel.status.text() == f"channel 4 · token (2, 5) · {value:.4g}"
    hover(qtbot, shown, at(shown, 2, -3))
    assert shown.panel.status.text() == "channel 4 of 6"


def test_similarity_follows_the_pointer_until_a_click_holds_it(qtbot: Any, shown: Any) -> None:
    click(qtbot, shown.panel.similarity)
    made, layer = shown.session.first.current, shown.layers.layer(0, "similarity")
    hover(qtbot, shown, at(shown, 6, 1))
    np.testing.assert_array_equal(layer.data, made.similarity(6, 1))
    press(qtbot, shown, at(shown, 6, 1), drag=20)  # which moves the camera
    hover(qtbot, shown, at(shown, 2, 3))
    np.testing.assert_array_equal(layer.data, made.similarity(2, 3))
    press(qtbot, shown, at(shown, 2, 3))
    hover(qtbot, shown, at(shown, 7, 7))
    np.testing.assert_array_equal(layer.data, made.similarity(2, 3))
    assert "similarity to token (2, 3), held" in shown.panel.status.text()
    press(qtbot, shown, at(shown, 7, 7))
    hover(qtbot, shown, at(shown, 0, 0))
    np.testing.assert_array_equal(layer.data, made.similarity(0, 0))


def test_similarity_is_that_of_the_new_map_after_a_change(qtbot: Any, shown: Any) -> None:
    click(qtbot, shown.panel.similarity)
    hover(qtbot, shown, at(shown, 7, 7))
    shown.panel.grid_height.setValue(4)
    settled(qtbot, shown)
    made, layer = shown.session.first.current, shown.layers.layer(0, "similarity")
    np.testing.assert_array_equal(layer.data, made.similarity(3, 7))  # the same place of the image


def test_a_click_on_the_plot_goes_to_a_channel(qtbot: Any, shown: Any, viewer: Any) -> None:
    plot = shown.panel.frequencies
    qtbot.waitUntil(lambda: 0 in plot.series)
    np.testing.assert_array_equal(plot.series[0].values, shown.session.first.current.frequencies())
    qtbot.mouseClick(plot, Qt.MouseButton.LeftButton, pos=QPoint(plot.width() - 8, 60))
    assert viewer.dims.current_step[0] == 5
    qtbot.waitUntil(lambda: plot._current == 5)
    assert [name for name, _ in shown.panel.spectrum.images] == ["channel 5"]


def test_no_line_of_a_large_spectrum_is_lost() -> None:
    magnitude = np.zeros((301, 256), np.float32)
    magnitude[150] = 1
    magnitude[7, 9] = 0.5
    image = spectrum_image(magnitude)
    assert max(image.shape) <= 118 and (image[50] == [253, 231, 37]).all()
    assert (image[2, 3] != image[4, 3]).any()
    small = spectrum_image(np.eye(20, dtype=np.float32))
    assert small.shape == (20, 20, 3)


# ---- two models


@pytest.fixture
def compared(qtbot: Any, shown: Any) -> Any:
    shown.compare("sam1")
    qtbot.waitUntil(lambda: len(shown.layers.maps()) == 2)
    return shown


def test_two_models_are_side_by_side_in_grid_view(qtbot: Any, compared: Any, viewer: Any) -> None:
    names = [layer.name for layer in viewer.layers]
    assert names == ["starter absolute", "sam1 absolute", "starter absolute norm", "sam1 absolute norm"]
    first, second = compared.layers.layer(0), compared.layers.layer(1)
    assert second.data.shape == (11, 4, 4)  # its own grid, as the first is on its own
    np.testing.assert_allclose(first.extent.world[0][-2:] - 0.5 * first.scale[-2:], second.extent.world[0][-2:] - 0.5 * second.scale[-2:])  # fmt: skip
    canvas = getattr(viewer, "canvas", viewer)
    assert canvas.grid.enabled and canvas.grid.shape == (-1, 2)
    compared.compare("")
    assert not canvas.grid.enabled and len(viewer.layers) == 2


def test_the_tile_of_the_second_model_can_be_switched_as_well(qtbot: Any, shown: Any) -> None:
    shown.choose("sam1")
    qtbot.waitUntil(lambda: not shown.panel.window_tile.isEnabled())
    shown.compare("starter")
    qtbot.waitUntil(lambda: len(shown.layers.maps()) == 2)
    assert shown.panel.window_tile.isEnabled()
    before = np.array(shown.layers.layer(1).data)
    click(qtbot, shown.panel.window_tile)
    qtbot.waitUntil(lambda: (np.asarray(shown.layers.layer(1).data) != before).any())
    shown.compare("")
    assert not shown.panel.window_tile.isEnabled()


def test_channels_are_linked_from_first_to_last(qtbot: Any, compared: Any, viewer: Any) -> None:
    for channel, other in ((0, 0), (3, 6), (5, 10)):
        compared.layers.go_to_channel(channel)
        assert (compared.layers.channel(0), compared.layers.channel(1)) == (channel, other)
        qtbot.wait(30)
        assert compared.panel.status.text().splitlines()[1].startswith(f"ch. {other} of 11")
    assert [name for name, _ in compared.panel.spectrum.images] == ["channel 5", "channel 10"]


def test_both_grids_change_together(qtbot: Any, compared: Any) -> None:
    compared.panel.grid_height.setValue(16)
    qtbot.waitUntil(lambda: compared.layers.layer(1).data.shape == (11, 8, 4))
    assert compared.layers.layer(0).data.shape == (6, 16, 8)


def test_the_pointer_is_on_the_same_place_of_both(qtbot: Any, compared: Any) -> None:
    click(qtbot, compared.panel.similarity)
    hover(qtbot, compared, at(compared, 6, 2))
    for slot, place in ((0, (6, 2)), (1, (3, 1))):
        made = dict(compared.layers.maps())[slot]
        np.testing.assert_array_equal(compared.layers.layer(slot, "similarity").data, made.similarity(*place))


# ---- beside other layers


def test_a_video_adds_its_slider_and_the_map_shows_at_any_time(
    qtbot: Any, shown: Any, viewer: Any, video: Any
) -> None:
    before = shown.layers.layer(0)
    shown.layers.go_to_channel(3)
    add_video(viewer, video)
    qtbot.waitUntil(lambda: shown.layers.layer(0).ndim == 4)
    named = ("channel", "t", "y", "x") if AXES_ARE_NAMED else ("-4", "-3", "-2", "-1")
    assert tuple(viewer.dims.axis_labels) == named
    layer = shown.layers.layer(0)
    assert layer is before and layer.axis_labels == ("channel", "t", "y", "x")
    assert layer.data.shape == (6, 9, 8, 8) and layer.data.strides[1] == 0  # nothing is copied
    assert shown.layers.channel() == 3 and viewer.layers.index(layer) == 0
    viewer.dims.set_current_step(1, 7)
    viewer.layers.remove(video.name)
    qtbot.waitUntil(lambda: shown.layers.layer(0).ndim == 3)
    assert shown.layers.layer(0).data.shape == (6, 8, 8) and shown.layers.channel() == 3


def test_the_other_dock_finds_time_beside_channels(qtbot: Any, shown: Any, viewer: Any, video: Any) -> None:
    clip = add_video(viewer, video)
    qtbot.waitUntil(lambda: shown.layers.layer(0).ndim == 4)
    shown.layers.go_to_channel(2)
    step_to(clip, viewer.dims, 5)
    assert (time_axis(viewer.dims), time_of(clip, viewer.dims)) == (1, 5)
    assert shown.layers.channel() == 2 and view_of(clip, viewer.dims).plane == (5,)
    shown.layers.go_to_channel(4)
    assert time_of(clip, viewer.dims) == 5


def test_names_that_a_person_gave_stay(qtbot: Any, shown: Any) -> None:
    layer, norm = shown.layers.layer(0), shown.layers.layer(0, "norm")
    layer.name = "mine"
    shown.choose("sam1")
    qtbot.waitUntil(lambda: layer.data.shape == (11, 4, 4))
    assert (layer.name, norm.name) == ("mine", "sam1 absolute norm")


def test_maps_lie_right_of_a_image_and_as_large(qtbot: Any, make_dock: Any, viewer: Any, image: Any) -> None:
    below = viewer.add_image(image, rgb=True, scale=(2, 2))
    dock = make_dock(viewer)
    click(qtbot, dock.panel.add_layers)
    layer = dock.layers.layer(0)
    height, width = (np.asarray(layer.data.shape[-2:]) * layer.scale[-2:]).tolist()
    assert (height, width) == pytest.approx((96, 128))
    assert layer.extent.world[0][-1] > below.extent.world[1][-1]


def test_what_is_clicked_on_and_tracked_in_are_no_maps(
    qtbot: Any, shown: Any, viewer: Any, dock: Any, image: Any
) -> None:
    from napari_samexp._qt.layer_choice import LayerChoice

    assert all(is_encoding(layer) for layer in viewer.layers)
    combo = QComboBox()
    qtbot.addWidget(combo)
    choice = LayerChoice(combo, dock)
    assert choice.current is None
    viewer.add_image(image, rgb=True, name="image")
    qtbot.waitUntil(lambda: combo.count() == 1)
    assert choice.current.name == "image"


def test_ending_leaves_the_layers_and_nothing_else(qtbot: Any, shown: Any, viewer: Any) -> None:
    session = shown.session
    shown.end()
    qtbot.waitUntil(lambda: shown.engine.closed)
    assert len(viewer.layers) == 2 and len(shown.connections) == 0
    events = (viewer.layers.events.inserted, viewer.layers.events.removed, viewer.dims.events.current_step)
    assert not [call for event in events for call in event.callbacks if "EncodingLayers" in str(call)]
    assert not viewer.mouse_move_callbacks and shown.pointer.clicked not in viewer.mouse_drag_callbacks
    for source in (session.first, session.second):
        assert len(source.changed) == len(source.described) == len(source.failed) == 0
    assert not [key for layer in viewer.layers for key in layer.keymap]


# ---- in the real window


@pytest.fixture
def window(make_napari_viewer: Any, qtbot: Any, make_dock: Any, video: Any) -> Any:
    viewer = make_napari_viewer(show=True)
    add_video(viewer, video)
    dock = make_dock(viewer)
    viewer.window.add_dock_widget(dock, name="Position encodings")
    click(qtbot, dock.panel.add_layers)
    qtbot.wait(100)
    return dock


def bars(dock: Any) -> list[QScrollBar]:
    """Return napari's sliders, time first: the axis nearest to the image is on top."""
    found = [b for b in dock.window().findChildren(QScrollBar) if "Modified" in type(b).__name__]
    return sorted((b for b in found if b.isVisible()), key=lambda b: b.mapToGlobal(QPoint()).y())


def canvas_of(dock: Any) -> QWidget:
    found = dock.window().findChildren(QWidget)
    return next(w for w in found if "Canvas" in type(w).__name__ and w.isVisible())


def test_channel_and_time_are_two_sliders_and_neither_moves_the_other(qtbot: Any, window: Any) -> None:
    viewer = window.viewer
    clip = next(layer for layer in viewer.layers if not is_encoding(layer))
    time, channel = bars(window)
    assert (time.maximum(), channel.maximum()) == (8, 5)
    before = viewer.dims.current_step
    qtbot.mouseClick(channel, Qt.MouseButton.LeftButton, pos=QPoint(channel.width() - 30, channel.height() // 2))  # fmt: skip
    qtbot.waitUntil(lambda: viewer.dims.current_step[0] != before[0])
    assert viewer.dims.current_step[1:] == before[1:] and window.layers.channel() == channel.value()
    moved = viewer.dims.current_step
    qtbot.mouseClick(time, Qt.MouseButton.LeftButton, pos=QPoint(time.width() - 30, time.height() // 2))
    qtbot.waitUntil(lambda: viewer.dims.current_step[1] != moved[1])
    assert viewer.dims.current_step[0] == moved[0]
    assert clip.world_to_data(np.asarray(viewer.dims.point)[-3:])[0] == time.value()


def test_keys_step_channels_and_change_grid_and_tile(qtbot: Any, window: Any) -> None:
    canvas, viewer, panel = canvas_of(window), window.viewer, window.panel
    viewer.layers.selection.active = window.layers.layer(0)
    keys, time = Qt.Key, viewer.dims.current_step[1]

    def key(*which: Any) -> None:
        for each in which:
            qtbot.keyClick(canvas, each)
        qtbot.wait(40)

    key(keys.Key_Right, keys.Key_Right, keys.Key_Left)
    assert window.layers.channel() == 1
    key(keys.Key_Up)
    assert window.layers.channel() == 5  # the last
    key(keys.Key_W, keys.Key_W, keys.Key_S, keys.Key_D, keys.Key_A, keys.Key_A)
    assert (panel.grid_height.value(), panel.grid_width.value()) == (9, 7)
    qtbot.waitUntil(lambda: window.layers.layer(0).data.shape == (6, 9, 9, 7))
    key(keys.Key_T)
    assert not panel.window_tile.isChecked() and not window.engine.maps[-1].window_tile
    assert viewer.dims.current_step[1] == time  # nothing of it moved the video


def test_the_mouse_over_the_map_is_followed(qtbot: Any, window: Any) -> None:
    window.viewer.layers[0].visible = False
    click(qtbot, window.panel.show_norm)
    click(qtbot, window.panel.similarity)
    viewer, canvas = window.viewer, canvas_of(window)
    layer = window.layers.layer(0)
    middle = np.asarray(at(window, 5, 2)[-2:])
    viewer.camera.center = (0.0, *middle)
    viewer.camera.zoom = 0.5 * min(canvas.width(), canvas.height()) / float(layer.scale[-1] * 8)
    qtbot.wait(50)
    centre = QPoint(canvas.width() // 2, canvas.height() // 2)
    qtbot.mouseMove(canvas, centre + QPoint(2, 2))
    qtbot.mouseMove(canvas, centre)
    made = window.session.first.current
    similar = window.layers.layer(0, "similarity")
    qtbot.waitUntil(lambda: "token (5, 2)" in window.panel.status.text())
    np.testing.assert_array_equal(similar.data, made.similarity(5, 2))
    qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=centre)
    qtbot.waitUntil(lambda: "held" in window.panel.status.text())


def test_the_viewers_process_needs_no_torch_for_the_dock() -> None:
    script = "import sys, napari_samexp._qt.posenc.position_encodings as p; assert p and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_manifest_offers_the_dock() -> None:
    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution("napari-samexp")
    widgets = {each.display_name: each.command for each in manifest.contributions.widgets or ()}
    command = next(c for c in manifest.contributions.commands or () if c.id == widgets["Position encodings"])
    module, _, name = str(command.python_name).partition(":")
    assert hasattr(importlib.import_module(module), name)
