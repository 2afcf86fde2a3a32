"""Charts whose pixels can be asked."""

from itertools import pairwise

import numpy as np
import pytest

from napari_samexp.render.charts import heat_map, line_chart, shade
from napari_samexp.render.overlay import colour_of


def has(image, colour):
    return bool((image == np.array(colour, np.uint8)).all(axis=2).any())


def test_brightness_grows_with_the_share():
    ramp = [sum(shade(share)) for share in np.linspace(0, 1, 30)]
    assert all(a < b for a, b in pairwise(ramp))
    assert shade(-3) == shade(0) and shade(7) == shade(1)


def test_a_heat_map_has_a_cell_of_each_colour():
    values = np.array([[0.0, 0.5], [1.0, np.nan]])
    image = heat_map(values, ["cat", "a very long name " * 5], ["one", "two"], title="presence")
    assert all(has(image, shade(share)) for share in (0, 0.5, 1))
    assert has(image, (236, 236, 238)) and image.dtype == np.uint8
    assert image.shape[1] < 500
    assert not has(heat_map(values[:1], ["cat"], ["one", "two"], title="presence"), shade(1))


def test_limits_choose_the_colours():
    image = heat_map(np.array([[5.0]]), ["a"], ["b"], title="", limits=(0, 10))
    assert has(image, shade(0.5))


def column_of(image, colour):
    return np.argwhere((image == np.array(colour, np.uint8)).all(axis=2))


def test_a_rising_curve_rises():
    xs = list(range(50))
    image = line_chart({"a": (xs, [x / 49 for x in xs])}, title="t", x_name="frame")
    places = column_of(image, colour_of(1))
    places = places[places[:, 0] > 80]  # below the legend
    left, right = places[places[:, 1].argmin()], places[places[:, 1].argmax()]
    assert left[0] > right[0] + 100


def test_a_gap_is_left_where_there_is_no_number():
    xs = list(range(50))
    ys = [0.5] * 20 + [np.nan] * 10 + [0.5] * 20
    whole = line_chart({"a": (xs, [0.5] * 50)}, title="t", x_name="frame")
    gap = line_chart({"a": (xs, ys)}, title="t", x_name="frame")
    assert len(column_of(gap, colour_of(1))) < len(column_of(whole, colour_of(1)))


@pytest.mark.parametrize("series", [{}, {"a": ([], [])}, {"a": ([3], [0.2])}, {"a": ([1, 2], [9.0, -9.0])}])
def test_few_points_and_far_ones_are_drawn_too(series):
    assert line_chart(series, title="t", x_name="x", x_words=["on", "off"]).shape == (360, 760, 3)
