"""The five measured attributes: what moves each of them, by how much, and what must leave it alone."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minicvae.datasets import ATTRIBUTES, attributes, load

AREA, THICKNESS, SLANT, WIDTH, HEIGHT = range(5)
pictures = hnp.arrays(np.uint8, st.tuples(st.just(1), st.integers(1, 9), st.integers(1, 9)))


@pytest.fixture(scope="module")
def digits():
    return load("mnist")[1].x[:1000]


def framed(x, margin=12):
    return np.pad(x, ((0, 0), (margin, margin), (margin, margin)))


def stroke(angle, length, width, size=48):
    """A bar with anti-aliased edges, exact upright for sides in quarters; right is positive."""
    fine = (np.arange(size * 8) + 0.5) / 8 - size / 2
    right, up = fine[None, :], -fine[:, None]
    along = up * np.cos(angle) + right * np.sin(angle)
    across = right * np.cos(angle) - up * np.sin(angle)
    solid = (np.abs(along) < length / 2) & (np.abs(across) < width / 2)
    return solid.reshape(1, size, 8, size, 8).mean(axis=(2, 4))


def ring(radius, width, size=48):
    fine = (np.arange(size * 8) + 0.5) / 8 - size / 2
    solid = np.abs(np.hypot(fine[None, :], fine[:, None]) - radius) < width / 2
    return solid.reshape(1, size, 8, size, 8).mean(axis=(2, 4))


def sheared(x, slope):
    """Every row moved right by slope times its height, in fractions of a pixel by linear interpolation."""
    result = np.zeros_like(x)
    for row in range(x.shape[1]):
        whole, part = divmod(slope * (x.shape[1] // 2 - row), 1)
        moved = np.roll(x[:, row], int(whole), 1)
        result[:, row] = (1 - part) * moved + part * np.roll(moved, 1, 1)
    return result


def dilated(x):
    p = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    h, w = x.shape[1:]
    return np.max([p[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], axis=0)


def test_there_is_a_name_for_each_column(digits):
    measured = attributes(digits)
    assert ATTRIBUTES == ("ink area", "thickness", "slant", "width", "height")
    assert measured.shape == (len(digits), len(ATTRIBUTES))
    assert measured.dtype == np.float32


@given(x=pictures)
def test_ink_area_is_the_sum_of_the_ink(x):
    assert attributes(x)[0, AREA] == pytest.approx(x.sum() / 255, rel=1e-6)


@given(x=pictures, down=st.integers(-12, 12), right=st.integers(-12, 12))
def test_moving_the_ink_changes_nothing(x, down, right):
    x = framed(x)
    moved = np.roll(x, (down, right), (1, 2))
    np.testing.assert_allclose(attributes(moved), attributes(x), rtol=1e-5, atol=1e-5)


@given(x=pictures)
def test_ink_at_the_edge_of_the_image_measures_the_same_as_ink_inside(x):
    np.testing.assert_allclose(attributes(framed(x)), attributes(x), rtol=1e-5, atol=1e-5)


@given(x=pictures)
def test_a_mirror_image_leans_the_other_way_and_is_otherwise_the_same(x):
    expected = attributes(x) * np.float32([1, 1, -1, 1, 1])
    np.testing.assert_allclose(attributes(x[:, :, ::-1]), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(attributes(x[:, ::-1]), expected, rtol=1e-5, atol=1e-5)


@given(x=pictures)
def test_exchanging_rows_and_columns_exchanges_width_and_height(x):
    columns = [AREA, THICKNESS, HEIGHT, WIDTH]
    np.testing.assert_allclose(
        attributes(x.swapaxes(1, 2))[:, [AREA, THICKNESS, WIDTH, HEIGHT]],
        attributes(x)[:, columns],
        rtol=1e-5,
    )


@given(x=pictures, dilution=st.floats(0.01, 1))
def test_fainter_ink_changes_the_area_alone(x, dilution):
    x = x / 255
    expected = attributes(x) * np.float32([dilution, 1, 1, 1, 1])
    np.testing.assert_allclose(attributes(dilution * x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_and_fractions_of_the_same_picture_measure_the_same(digits, dtype):
    fractions = (digits / 255).astype(dtype)
    np.testing.assert_allclose(attributes(fractions), attributes(digits), rtol=1e-4, atol=1e-5)


@given(x=pictures, slope=st.floats(-2, 2))
def test_shearing_adds_its_slope_to_the_slant_and_leaves_the_area(x, slope):
    x = framed(x / 255, margin=16)
    assume((x.sum(axis=(0, 2)) > 0).sum() > 1)
    before, after = attributes(x)[0], attributes(sheared(x, slope))[0]
    assert after[SLANT] == pytest.approx(before[SLANT] + slope, abs=1e-4)
    assert after[AREA] == pytest.approx(before[AREA], rel=1e-5)


@given(angle=st.floats(-1, 1))
def test_the_slant_of_a_stroke_is_the_tangent_of_its_angle_to_the_upright(angle):
    # A bar of width t also spreads sideways, which pulls the slope from tan(angle) by the order of (t/l)².
    assert attributes(stroke(angle, 30, 1.5))[0, SLANT] == pytest.approx(np.tan(angle), abs=0.02)


@given(angle=st.floats(-np.pi, np.pi), quarters=st.tuples(st.integers(64, 120), st.integers(8, 32)))
def test_the_thickness_of_a_stroke_is_its_width_at_every_angle(angle, quarters):
    length, width = quarters[0] / 4, quarters[1] / 4
    measured = attributes(stroke(angle, length, width))[0, THICKNESS]
    assert measured == pytest.approx(width / (1 + width / length), rel=0.1)


@given(grey=st.floats(0, 1))
def test_ink_of_half_the_strength_or_more_has_an_edge_like_full_ink(grey):
    """A bar of one pixel beside ink of another grey; H, V, D and E of min(1, 2 f) by hand."""
    x = np.zeros((1, 3, 12))
    x[0, 1, 1:9], x[0, 1, 9] = 1, grey
    edge = min(1, 2 * grey)
    along, across, oblique = 2, 2 * 8 + 2 * edge, 2 * 2 * 8 + 2 * 2 * edge
    perimeter = np.pi / 8 * (along + across + oblique / np.sqrt(2))
    assert attributes(x)[0, THICKNESS] == pytest.approx(2 * (8 + grey) / perimeter, rel=1e-6)


@given(radius=st.floats(6, 16), width=st.floats(1.5, 5))
def test_the_thickness_of_a_closed_loop_is_the_width_of_its_line(radius, width):
    assert attributes(ring(radius, width))[0, THICKNESS] == pytest.approx(width, rel=0.04)


def test_thickness_grows_with_the_width_of_a_stroke_however_fine_the_step():
    widths = np.linspace(2, 10, 60)
    for angle in (0, 0.3, np.pi / 4):
        measured = attributes(np.concatenate([stroke(angle, 24, width) for width in widths]))[:, THICKNESS]
        assert (np.diff(measured) > -1e-3).all()
        assert measured[-1] > 3.5 * measured[0]


def test_every_digit_is_thicker_after_dilation_and_thicker_again_after_two(digits):
    once = dilated(digits)
    thickness = [attributes(x)[:, THICKNESS] for x in (digits, once, dilated(once))]
    assert (thickness[1] > thickness[0] + 0.5).all()
    assert (thickness[2] > thickness[1] + 0.5).all()


@given(height=st.integers(1, 12), width=st.integers(1, 12), ink=st.integers(1, 255))
def test_a_solid_box_has_its_own_sides_as_width_and_height(height, width, ink):
    measured = attributes(framed(np.full((1, height, width), ink, np.uint8)))[0]
    assert measured[[WIDTH, HEIGHT]] == pytest.approx([width, height])
    assert measured[SLANT] == pytest.approx(0, abs=1e-6)


def test_a_grey_edge_counts_as_a_fraction_of_a_pixel():
    x = framed(np.ones((1, 5, 3)))
    x[:, 12:17, 15] = 0.25
    assert attributes(x)[0, WIDTH] == pytest.approx(3.25)


def test_a_stray_speck_adds_only_its_own_size(digits):
    digits = digits[~(digits[:, :2].any(axis=(1, 2)) | digits[:, :, :2].any(axis=(1, 2)))]
    assert len(digits) > 900
    specked = digits.copy()
    specked[:, 0, 0] = 128
    growth = attributes(specked)[:, [WIDTH, HEIGHT]] - attributes(digits)[:, [WIDTH, HEIGHT]]
    np.testing.assert_allclose(growth, 128 / 255, atol=0.02)


def test_width_and_height_of_a_digit_are_close_to_its_bounding_box(digits):
    inked = digits > 127
    for axis, column in ((1, WIDTH), (2, HEIGHT)):
        shadow = inked.any(axis=axis)
        box = shadow.shape[1] - shadow.argmax(axis=1) - shadow[:, ::-1].argmax(axis=1)
        assert np.median(np.abs(attributes(digits)[:, column] - box)) < 0.5


@given(n=st.integers(0, 3), h=st.integers(1, 9), w=st.integers(1, 9), dtype=st.sampled_from("Bfd"))
def test_a_blank_image_measures_zero_throughout(n, h, w, dtype):
    np.testing.assert_array_equal(attributes(np.zeros((n, h, w), dtype)), np.zeros((n, 5), np.float32))


@given(row=hnp.arrays(np.uint8, st.integers(1, 40)), y=st.integers(0, 27))
def test_ink_in_a_single_row_has_no_slant(row, y):
    x = np.zeros((1, 28, len(row)), np.uint8)
    x[0, y] = row
    assert attributes(x)[0, SLANT] == 0


@given(x=pictures)
def test_every_picture_has_finite_measures(x):
    assert np.isfinite(attributes(x)).all()


def test_an_image_measures_the_same_alone_and_among_thousands(digits):
    many = np.concatenate([digits, digits[::-1], digits[:37]])
    measured = attributes(many)
    np.testing.assert_array_equal(measured[:1000], measured[1999:999:-1])
    np.testing.assert_array_equal(measured[2000:], measured[:37])
    for n in (0, 127, 128, 1999, 2036):
        np.testing.assert_allclose(measured[n], attributes(many[n : n + 1])[0], rtol=1e-6)


def test_memory_does_not_grow_with_the_number_of_images(digits):
    peaks = []
    for n in (1, 16):
        many = np.concatenate([digits] * n)
        tracemalloc.start()
        result = attributes(many)
        peaks.append(tracemalloc.get_traced_memory()[1] - result.nbytes)
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 40e6


def test_other_types_and_shapes_are_refused():
    with pytest.raises(TypeError, match=r"x: expected uint8 .* got int64"):
        attributes(np.zeros((2, 28, 28), np.int64))
    for shape in ((28, 28), (2, 784), (2, 28, 28, 1)):
        with pytest.raises(ValueError, match=r"x: expected the shape \(n, h, w\), got"):
            attributes(np.zeros(shape, np.uint8))
