"""The initialisers: means, variances, ranges and shapes."""

from math import prod, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.initializers import INITIALIZERS, get

shapes = st.sampled_from([(400, 300), (100, 700), (3, 3, 32, 64), (5, 5, 1, 200), (40_000,)])
few = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)
VARIANCE = {
    "he_normal": lambda fan_in, fan_out: 2 / fan_in,
    "he_uniform": lambda fan_in, fan_out: 2 / fan_in,
    "glorot_normal": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "glorot_uniform": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "standard_normal": lambda fan_in, fan_out: 1,
    "zeros": lambda fan_in, fan_out: 0,
}


def fans(shape):
    """Inputs that reach a unit, and units that an input reaches."""
    if len(shape) == 1:
        return shape[0], shape[0]
    return prod(shape[:-1]), prod(shape) // shape[-2]


@pytest.mark.parametrize("name", INITIALIZERS)
@given(shape=shapes, seed=st.integers(0, 2**32))
def test_the_variance_is_that_of_its_paper(name, shape, seed):
    weights = INITIALIZERS[name](np.random.default_rng(seed), shape)
    variance = VARIANCE[name](*fans(shape))
    assert weights.shape == shape
    assert weights.dtype == np.float64
    # the variance of n normal numbers scatters by √(2/n); six times that
    assert weights.var() == pytest.approx(variance, rel=6 * sqrt(2 / weights.size))
    assert weights.mean() == pytest.approx(0, abs=6 * sqrt(variance / weights.size))
    if name.endswith("uniform"):
        assert np.abs(weights).max() <= sqrt(3 * variance)
        assert np.abs(weights).max() > 0.99 * sqrt(3 * variance)
    elif variance:
        assert (weights**4).mean() == pytest.approx(3 * variance**2, rel=6 * sqrt(96 / 9 / weights.size))


@given(shape=few, seed=st.integers(0, 2**32))
def test_the_spread_is_exactly_that_of_its_paper_for_few_numbers_too(shape, seed):
    for name, variance in VARIANCE.items():
        weights, rng = INITIALIZERS[name](np.random.default_rng(seed), shape), np.random.default_rng(seed)
        drawn = rng.uniform(-sqrt(3), sqrt(3), shape) if name.endswith("uniform") else rng.standard_normal(shape)
        np.testing.assert_allclose(weights, drawn * sqrt(variance(*fans(shape))), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_the_numbers_are_the_generators(name):
    first, again = (INITIALIZERS[name](np.random.default_rng(3), (4, 5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_a_relu_layer_keeps_the_second_moment_of_its_signal():
    """What He's variance is for: Σ y² over a deep stack neither dies nor explodes."""
    rng = np.random.default_rng(0)
    h = rng.standard_normal((200, 400))
    for _ in range(20):
        h = np.maximum(h @ INITIALIZERS["he_normal"](rng, (400, 400)), 0)
    assert 0.2 < (h**2).mean() * 2 < 5


def test_initialisers_are_found_by_name():
    assert {name: get(name) for name in INITIALIZERS} == INITIALIZERS
    with pytest.raises(ValueError, match=r"^initializer: expected one of he_normal, .*zeros, got 'ones'"):
        get("ones")
