"""Grey images drawn in black and white."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.datasets import binarise
from minicvae.datasets.binarisation import ROWS


@given(shape=st.sampled_from([(3,), (4, 5), (2, 3, 4), (2, 3, 4, 1), (0, 3)]), seed=st.integers(0, 2**64 - 1))
def test_the_pixels_are_black_or_white_and_black_and_white_stay(shape, seed):
    x = np.random.default_rng(seed).choice(np.array([0, 1, 128, 254, 255], np.uint8), shape)
    before, drawn = x.copy(), binarise(x, seed)
    assert drawn.dtype == np.uint8
    assert drawn.shape == shape
    assert set(np.unique(drawn)) <= {0, 255}
    np.testing.assert_array_equal(drawn[(x == 0) | (x == 255)], x[(x == 0) | (x == 255)])
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("grey", [1, 64, 200, 254])
def test_white_comes_as_often_as_the_grey_level_says(grey):
    n, p = 400_000, grey / 255
    share = (binarise(np.full((20, n // 20), grey, np.uint8)) == 255).mean()
    assert abs(share - p) < 6 * np.sqrt(p * (1 - p) / n)


def test_the_same_seed_draws_the_same_pixels_and_no_two_rows_alike():
    x = np.full((2 * ROWS + 5, 40), 128, np.uint8)
    drawn = binarise(x, 1)
    np.testing.assert_array_equal(binarise(x, 1), drawn)
    np.testing.assert_array_equal(binarise(x[: ROWS + 3], 1), drawn[: ROWS + 3])
    assert len(np.unique(drawn, axis=0)) == len(x)
    assert (binarise(x, 2) != drawn).mean() == pytest.approx(0.5, abs=0.02)


def test_what_is_no_grey_image_is_refused():
    with pytest.raises(TypeError, match=r"^x: expected uint8 images in 0..255, got type float64"):
        binarise(np.zeros((2, 3)))
    with pytest.raises(TypeError, match=r"^seed: expected an integer"):
        binarise(np.zeros((2, 3), np.uint8), seed=0.5)
