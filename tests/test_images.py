"""Images of every kind as 8-bit RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_samexp.errors import ImageError
from napari_samexp.images import to_rgb8, value_limits

GREY8 = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def greys(image: Any, limits: Any = None) -> list[int]:
    """Return the values of the first row of a grey image."""
    rgb = to_rgb8(np.asarray(image)[None], limits)
    assert rgb.dtype == np.uint8
    assert rgb.shape[2] == 3
    assert (rgb[..., :1] == rgb).all()
    return rgb[0, :, 0].tolist()


@pytest.mark.parametrize("axes", [(), (1,)])
def test_grey_becomes_three_equal_channels(axes: tuple[int, ...]) -> None:
    rgb = to_rgb8(GREY8.reshape(3, 4, *axes))
    assert rgb.shape == (3, 4, 3)
    assert (rgb == GREY8[..., None]).all()


def test_8_bit_colours_stay_and_alpha_is_dropped() -> None:
    rgba = np.arange(48, dtype=np.uint8).reshape(3, 4, 4) * 5
    assert (to_rgb8(rgba) == rgba[..., :3]).all()
    assert (to_rgb8(rgba[..., :3]) == rgba[..., :3]).all()


def test_the_result_can_be_written_to_without_changing_the_image() -> None:
    image = GREY8.copy()
    to_rgb8(image)[:] = 7
    assert (image == GREY8).all()


@pytest.mark.parametrize("view", [GREY8[::-1, ::2], np.asfortranarray(GREY8), GREY8.tolist()])
def test_any_layout_gives_an_array_in_order(view: Any) -> None:
    rgb = to_rgb8(np.asarray(view, np.uint8))
    assert rgb.flags.c_contiguous
    assert (rgb[..., 0] == view).all()


def test_a_list_of_lists_is_a_image() -> None:
    assert greys([0, 128, 255], (0, 255)) == [0, 128, 255]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ([False, True], [0, 255]),
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 0.25, 0.5], [0, 64, 128]),  # within 0 to 1 nothing is stretched
        (np.float16([0, 1]), [0, 255]),
        (np.float32([0.2]), [51]),
        (np.uint16([0, 4095]), [0, 255]),
        (np.int16([-100, 10, 100]), [0, 140, 255]),
        (np.int64([2**40, 2**40 + 10]), [0, 255]),
        ([1e9, 1e9 + 1], [0, 255]),
        ([1e200, 3e200], [0, 255]),
        (np.uint32([2**32 - 11, 2**32 - 1]), [0, 255]),
        ([-2.0, 0.2, 2.0], [0, 140, 255]),
        (np.uint16([7, 7]), [0, 0]),
        ([3.5, 3.5], [0, 0]),
    ],
)
def test_values_are_stretched_to_8_bits(image: Any, expected: list[int]) -> None:
    assert greys(image) == expected


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [1, 100])
def test_what_is_not_finite_is_black(kind: Any, scale: int) -> None:
    image = kind([0, np.nan, np.inf, -np.inf, 0.6, 1]) * kind(scale)
    assert greys(image) == [0, 0, 0, 0, 153, 255]


def test_outliers_do_not_make_a_image_dark() -> None:
    image = np.full((100, 100), 1000, np.uint16)
    image[:, 50:] = 1100
    image[0, 0] = 65535
    low, high = value_limits(image)
    assert (low, high) == (1000, 1100)
    rgb = to_rgb8(image)
    assert (rgb[1, 0, 0], rgb[1, 60, 0], rgb[0, 0, 0]) == (0, 255, 255)


def test_a_few_bright_pixels_are_seen() -> None:
    image = np.zeros((100, 100), np.uint16)
    image[3, 4] = 900
    assert value_limits(image) == (0, 900)
    assert to_rgb8(image)[3, 4].tolist() == [255, 255, 255]


def test_a_large_image_is_sampled() -> None:
    image = np.tile(np.arange(2000, dtype=np.uint16), (1500, 1))
    low, high = value_limits(image)
    assert low == pytest.approx(2, abs=2)
    assert high == pytest.approx(1997, abs=2)


@pytest.mark.parametrize(
    ("image", "limits"),
    [
        (np.uint8([3, 4]), (0, 255)),
        (np.array([True]), (0, 1)),
        (np.float32([0.1, 0.2]), (0, 1)),
        (np.float32([0.1, np.nan, np.inf]), (0, 1)),
        (np.uint16([5]), (5, 5)),
    ],
)
def test_limits_follow_the_type(image: Any, limits: tuple[float, float]) -> None:
    assert value_limits(image) == limits


def test_given_limits_count() -> None:
    assert greys(np.uint8([0, 100, 200]), (100, 200)) == [0, 0, 255]
    assert greys(np.float32([0, 50, 100]), (0, 100)) == [0, 128, 255]
    assert greys(np.uint16([1, 2]), (5, 5)) == [0, 0]


def test_values_near_the_largest_double_make_no_warning() -> None:
    assert to_rgb8(np.array([[1e308, -1e308, 0]])).shape == (1, 3, 3)


@pytest.mark.parametrize(
    "shape", [(), (4,), (2, 3, 2), (2, 3, 5), (2, 3, 3, 3), (0, 3), (3, 0, 3), (2, 3, 0)]
)
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="shape"):
        to_rgb8(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("kind", ["complex64", "U3", "O", "M8[s]", "V4"])
def test_other_types_are_refused(kind: str) -> None:
    with pytest.raises(ImageError, match="type"):
        to_rgb8(np.zeros((2, 3), kind))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_image_without_a_number_is_refused(value: float) -> None:
    with pytest.raises(ImageError, match="no finite value"):
        to_rgb8(np.full((2, 3), value))
