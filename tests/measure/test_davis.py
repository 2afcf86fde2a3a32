"""J and F against masks whose scores can be counted by hand."""

import math

import numpy as np
import pytest

from napari_samexp.errors import SettingsError
from napari_samexp.measure.davis import contour_accuracy, jaccard, outline, statistics


def square(top, left, side=10, shape=(60, 80)):
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_j_is_intersection_over_union():
    assert jaccard(square(10, 10), square(10, 10)) == 1
    assert jaccard(square(10, 10), square(10, 15)) == pytest.approx(50 / 150)
    assert jaccard(square(10, 10), square(30, 30)) == 0


@pytest.mark.parametrize("measure", [jaccard, contour_accuracy])
def test_nothing_found_where_nothing_is_is_right(measure):
    empty = square(0, 0, 0)
    assert measure(empty, empty) == 1
    assert measure(empty, square(5, 5)) == measure(square(5, 5), empty) == 0


def test_the_outline_lies_towards_the_upper_left():
    expected = np.zeros((5, 6), bool)
    expected[1:4, 1:4] = True
    expected[2, 2] = False  # the pixel inside differs from none of its three neighbours
    assert (outline(square(2, 2, 2, (5, 6))) == expected).all()


def test_the_outline_at_the_border_and_in_the_last_corner():
    full = np.ones((4, 5), bool)
    assert not outline(full).any()
    corner = square(3, 4, 1, (4, 5))
    assert [tuple(place) for place in np.argwhere(outline(corner)).tolist()] == [(2, 3), (2, 4), (3, 3)]


def test_f_forgives_shifts_up_to_the_tolerance():
    # the diagonal of 60 x 80 is 100 pixels: 0.008 of it, rounded up, is 1
    assert contour_accuracy(square(20, 20), square(20, 21)) == 1
    assert contour_accuracy(square(20, 20), square(20, 23)) < 1
    assert contour_accuracy(square(20, 20), square(20, 23), 3) == 1
    assert contour_accuracy(square(20, 20), square(20, 23), 0.03) == 1


def test_f_is_counted_by_hand():
    # Outlines of 40 pixels; shifted by 3 with radius 1, the rows above and below have 8 + 1 pixels within 1
    # of the other's; of the sides, only the ends of the left one's column come near: none.
    found, ground_truth = square(20, 20), square(20, 23)
    one, other = outline(found), outline(ground_truth)
    near = np.zeros_like(one)
    for y, x in np.argwhere(other):
        for dy, dx in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
            near[y + dy, x + dx] = True
    precision = (one & near).sum() / one.sum()
    assert one.sum() == 40 and 0 < precision < 1
    assert contour_accuracy(found, ground_truth) == pytest.approx(precision)  # a shift: recall is the same


def test_the_disc_is_round():
    one, other = square(20, 20, 1), square(22, 22, 1)
    # corners of their outlines are 2.8 - 1.4 = 1.4 pixels apart at the nearest
    assert contour_accuracy(one, other, 1) < contour_accuracy(one, other, 2) < 1


@pytest.mark.parametrize("tolerance", [0, -1, math.nan, math.inf])
def test_a_tolerance_must_be_positive(tolerance):
    with pytest.raises(SettingsError, match="tolerance"):
        contour_accuracy(square(1, 1), square(1, 1), tolerance)


def test_statistics_of_a_sequence():
    values = [1.0, 0.9, 0.8, 0.6, 0.5, 0.4, 0.2, 0.0, 0.0]
    made = statistics(values)
    assert made.mean == pytest.approx(np.mean(values))
    assert made.recall == pytest.approx(4 / 9)  # one half itself is not above it
    # quarters of nine frames share their ends: 0-2, 2-4, 4-6, 6-8
    assert made.decay == pytest.approx(np.mean([1.0, 0.9, 0.8]) - np.mean([0.2, 0.0, 0.0]))


def test_statistics_of_nothing_are_no_numbers():
    assert math.isnan(statistics([]).mean)
    assert statistics([0.7]).decay == 0


def test_statistics_of_long_sequences_take_the_last_quarter():
    values = [1.0] * 900 + [0.0] * 300
    assert statistics(values).decay == pytest.approx(1 - 1 / 301, abs=1e-6)
