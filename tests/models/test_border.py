"""The border: every form of images that is taken, and the words in which all others are refused."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.models.border import as_rows, check_count, check_images, check_matrix

shapes = st.tuples(st.integers(1, 4), st.integers(1, 4))
SHAPE = (28, 28)


@given(n=st.integers(1, 4), shape=shapes, seed=st.integers(0, 2**32 - 1))
def test_flat_square_and_channelled_images_are_the_same_rows(n, shape, seed):
    d = shape[0] * shape[1]
    rng = np.random.default_rng(seed)
    for images in (rng.integers(0, 256, (n, d), np.uint8), rng.random((n, d)), rng.random((n, d)).astype("f4")):
        for given_x in (images, images.reshape(n, *shape), images.reshape(n, *shape, 1), images.tolist()):
            if isinstance(given_x, list) and images.dtype == np.uint8:
                continue  # a list of integers has no type that says 0..255
            rows = check_images(given_x, shape)
            assert rows.shape == (n, d)
            np.testing.assert_array_equal(rows, images)
            if not isinstance(given_x, list):
                assert rows.dtype == images.dtype
                assert np.shares_memory(rows, given_x)


def test_bits_become_zeros_and_ones():
    rows = check_images(np.eye(4, dtype=bool).reshape(4, 2, 2), (2, 2))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, np.eye(4))


def test_pixels_of_exactly_zero_and_one_are_taken():
    np.testing.assert_array_equal(check_images([[0.0, 1.0]], (1, 2)), [[0.0, 1.0]])


def test_a_view_with_strides_is_taken():
    images = np.random.default_rng(0).random((4, 6, 3))
    np.testing.assert_array_equal(check_images(images[::2, ::-2], (3, 3)), images[::2, ::-2].reshape(2, 9))


def blank(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def spoilt(value, dtype=np.float64):
    x = np.full((2, 28, 28), 0.5, dtype)
    x[1, 3, 4] = value
    return x


FORMS = r"expected images of shape \(n, 784\) or \(n, 28, 28\), got shape "


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (blank(3, 27, 28), ValueError, FORMS + r"\(3, 27, 28\)"),
        (blank(3, 28, 28, 3), ValueError, FORMS + r"\(3, 28, 28, 3\)"),
        (blank(28, 28), ValueError, FORMS + r"\(28, 28\)"),
        (blank(784), ValueError, FORMS + r"\(784,\)"),
        (blank(2, 785), ValueError, FORMS + r"\(2, 785\)"),
        (0.5, ValueError, FORMS + r"\(\)"),
        (None, ValueError, FORMS + r"\(\)"),
        (blank(0, 28, 28), ValueError, "expected at least one image, got none"),
        (blank(0, 784, dtype=np.uint8), ValueError, "expected at least one image, got none"),
        (spoilt(np.nan), ValueError, r"expected floats in \[0, 1\], got numbers not finite \(NaN\)"),
        (spoilt(np.inf), ValueError, r"expected floats in \[0, 1\], got numbers from 0.5 to inf"),
        (spoilt(-0.01), ValueError, r"expected floats in \[0, 1\], got numbers from -0.01 to 0.5"),
        (spoilt(255), ValueError, r"expected floats in \[0, 1\], got numbers from 0.5 to 255 \(255 is for uint8\)"),
        (blank(2, 784, dtype=np.int64), TypeError, r"expected uint8 in 0..255 or floats in \[0, 1\], got type int64"),
        (blank(2, 784, dtype=complex), TypeError, "expected uint8 .* got type complex128"),
        (np.full((1, 784), "a"), TypeError, "expected uint8 .* got type <U1"),
        (np.full((1, 784), Fraction(1, 2)), TypeError, "expected uint8 .* got type object"),
    ],
)
def test_wrong_images_are_refused_by_the_arguments_name(x, error, message):
    with pytest.raises(error, match=f"^x: {message}"):
        check_images(x, SHAPE)
    with pytest.raises(error, match=rf"^validation_data\[0\]: {message}"):
        check_images(x, SHAPE, "validation_data[0]")


@given(
    n=st.integers(1, 4), columns=st.integers(1, 4), kind=st.sampled_from([np.float32, np.float64, np.int64, np.uint8])
)
def test_a_matrix_of_any_real_type_is_taken(n, columns, kind):
    values = np.arange(n * columns).reshape(n, columns).astype(kind)
    for dtype in ("float32", "float64"):
        for given_values in (values, values.tolist()):
            np.testing.assert_array_equal(
                check_matrix(given_values, columns, "z", dtype), values.astype(dtype), strict=True
            )


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (blank(2, 3), ValueError, r"expected shape \(n, 2\) with n >= 1, got shape \(2, 3\)"),
        (blank(2), ValueError, r"expected shape \(n, 2\) with n >= 1, got shape \(2,\)"),
        (blank(0, 2), ValueError, r"expected shape \(n, 2\) with n >= 1, got shape \(0, 2\)"),
        ([[1.0, np.nan]], ValueError, "expected numbers that are finite in float"),
        ([[1.0, -np.inf]], ValueError, "expected numbers that are finite in float"),
        ([[1j, 1]], TypeError, "expected real numbers, got type complex128"),
        ([["a", "b"]], TypeError, "expected real numbers, got type <U1"),
        ([[True, False]], TypeError, "expected real numbers, got type bool"),
    ],
)
def test_a_wrong_matrix_is_refused_by_the_arguments_name(values, error, message):
    with pytest.raises(error, match=f"^z: {message}"):
        check_matrix(values, 2, "z", "float32")


def test_counts_have_to_agree():
    check_count(3, 3, "c")
    with pytest.raises(ValueError, match=r"^c: expected one entry for each of the 3 examples of z, got 2"):
        check_count(3, 2, "c", "z")


def test_rows_become_images_again():
    assert as_rows(np.zeros((5, 6)), (2, 3)).shape == (5, 2, 3)
