"""Layers that only change the shape."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.gradcheck import check_layer
from minicvae.layers import Flatten, Reshape

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


@given(n=st.integers(1, 4), shape=shapes, seed=st.integers(0, 2**32 - 1))
def test_numbers_keep_their_order_and_gradients_find_their_way_back(host, n, shape, seed):
    d = int(np.prod(shape))
    x = np.random.default_rng(seed).standard_normal((n, d))
    back_and_forth = Reshape(shape), Flatten()
    for layer, given_x, expected in (
        (back_and_forth[0], x, (n, *shape)),
        (back_and_forth[1], x.reshape(n, *shape), (n, d)),
    ):
        layer.initialise(host.name, "float64")
        y, _ = layer.forward(given_x)
        assert y.shape == expected
        np.testing.assert_array_equal(y.ravel(), x.ravel())
        check_layer(layer, given_x, linear=True, max_left_out=0.0).raise_for_failure()


def test_they_have_no_parameters():
    assert list(Flatten().named_parameters()) == list(Reshape((2, 3)).named_parameters()) == []


def test_a_shape_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="reshape"):
        Reshape((2, 2)).forward(np.ones((3, 5)))
