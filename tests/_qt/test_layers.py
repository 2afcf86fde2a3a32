"""The layers that clicks go to."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from napari_samexp._qt.image_layers import plane_of, step_to, time_axis, time_of, view_of
from napari_samexp._qt.tracking.prompt_layers import BACKGROUND, OBJECT, PromptLayers
from napari_samexp.errors import ImageError


@pytest.fixture
def layers(viewer, image):
    layer = viewer.add_image(image, rgb=True, scale=(0.5, 0.5), translate=(3, 4))
    return PromptLayers(viewer, layer, lambda: OBJECT)


def test_points_become_x_and_y(layers):
    layers.add_point(10, 20, (), OBJECT)
    layers.add_point(30, 40, (), BACKGROUND)
    prompt = layers.prompt(())
    np.testing.assert_array_equal(prompt.points_xy, [[10, 20], [30, 40]])
    np.testing.assert_array_equal(prompt.labels, [1, 0])


def test_the_layer_lies_where_the_image_lies(layers):
    layers.add_point(10, 20, (), OBJECT)
    np.testing.assert_allclose(layers.points.data_to_world([20, 10]), layers.image.data_to_world([20, 10]))


def test_colours_and_symbols_follow_the_role(layers):
    layers.add_point(1, 1, (), OBJECT)
    layers.add_point(2, 2, (), BACKGROUND)
    colours = layers.points.face_color.copy()
    assert not np.allclose(colours[0], colours[1])
    assert [str(symbol) for symbol in layers.points.symbol] == ["disc", "x"]
    layers.points.features = layers.points.features.assign(role=[BACKGROUND, OBJECT])
    np.testing.assert_allclose(layers.points.face_color, colours[::-1])
    np.testing.assert_array_equal(layers.prompt(()).labels, [0, 1])


@pytest.mark.parametrize(
    ("modifiers", "button", "role"),
    [((), 1, OBJECT), (("Alt",), 1, BACKGROUND), (("Control",), 1, BACKGROUND), ((), 2, BACKGROUND)],
)
def test_a_modifier_or_the_right_button_marks_background(layers, modifiers, button, role):
    event = SimpleNamespace(modifiers=modifiers, button=button)
    layers.points.mouse_drag_callbacks[0](layers.points, event)
    layers.points.add([5, 5])
    assert list(layers.points.features["role"]) == [role]


def test_undo_takes_back_one_change_at_a_time(layers):
    layers.add_point(1, 1, (), OBJECT)
    layers.add_point(2, 2, (), BACKGROUND)
    layers.clear()
    assert layers.prompt(()).is_empty
    layers.undo()
    np.testing.assert_array_equal(layers.prompt(()).labels, [1, 0])
    layers.undo()
    np.testing.assert_array_equal(layers.prompt(()).labels, [1])
    layers.undo()
    layers.undo()
    assert layers.prompt(()).is_empty


def test_backspace_removes_the_newest(layers):
    layers.add_point(1, 1, (), OBJECT)
    layers.add_point(2, 2, (), OBJECT)
    layers.remove_last()
    np.testing.assert_array_equal(layers.prompt(()).points_xy, [[1, 1]])


def test_the_newest_box_counts(layers):
    shapes = layers.add_box_layer()
    shapes.add_rectangles(np.array([[2, 3], [2, 9], [8, 9], [8, 3]]))
    np.testing.assert_array_equal(layers.prompt(()).box_xyxy, [3, 2, 9, 8])
    shapes.add_rectangles(np.array([[4, 5], [4, 9], [8, 9], [8, 5]]))
    np.testing.assert_array_equal(layers.prompt(()).box_xyxy, [5, 4, 9, 8])
    assert len(shapes.data) == 1


def test_every_change_is_told_once(layers):
    told = []
    layers.changed.connect(lambda: told.append(1))
    layers.add_point(1, 1, (), OBJECT)
    assert len(told) == 1
    layers.clear()
    assert len(told) == 2


def test_points_belong_to_their_frame(viewer, frames):
    image = viewer.add_image(frames, rgb=True, axis_labels=("t", "y", "x"))
    layers = PromptLayers(viewer, image, lambda: OBJECT)
    layers.add_point(10, 20, (3,), OBJECT)
    assert layers.prompt((2,)).is_empty
    assert len(layers.prompt((3,)).points_xy) == 1


def test_time_is_found_behind_other_axes(viewer, frames):
    image = viewer.add_image(frames, rgb=True, axis_labels=("t", "y", "x"), scale=(2, 1, 1))
    viewer.add_image(np.zeros((4, 9, 5, 5)), axis_labels=("channel", "t", "y", "x"))
    assert time_axis(viewer.dims) == 1
    step_to(image, viewer.dims, 4)
    assert time_of(image, viewer.dims) == 4
    assert plane_of(image, viewer.dims) == (4,)
    np.testing.assert_array_equal(view_of(image, viewer.dims).pixels, frames[4])


def test_only_the_last_two_axes_can_be_clicked_on(viewer, frames):
    image = viewer.add_image(frames, rgb=True)
    viewer.dims.order = (1, 0, 2)
    with pytest.raises(ImageError, match="last two axes"):
        view_of(image, viewer.dims)


def test_removing_takes_the_layers_away(layers, viewer):
    layers.add_box_layer()
    layers.remove()
    assert list(viewer.layers) == [layers.image]
    assert not layers.alive
