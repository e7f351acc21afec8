"""The functions that the compiler can vectorise: their accuracy, their clamped ends, and NaN."""

import numpy as np
import pytest
from numba import njit

from minicvae.kernels import compiler
from minicvae.kernels.vector_math import exp, expm1, tanh


@njit(**compiler.FLAGS)
def exp_of_each(x):
    y = np.empty_like(x)
    for i in range(len(x)):
        y[i] = exp(x[i])
    return y


def test_in_float32_it_is_within_one_unit_over_the_whole_range_of_normal_numbers():
    x = np.random.default_rng(0).uniform(-87, 88.7, 200_000).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    assert np.max(np.abs(exp_of_each(x) - exact) / exact) < np.finfo(np.float32).eps


def test_in_float64_it_is_the_librarys():
    x = np.random.default_rng(0).uniform(-700, 700, 1000)
    np.testing.assert_allclose(exp_of_each(x), np.exp(x), rtol=4e-16)


def test_it_is_one_at_zero_infinite_above_and_next_to_nothing_below():
    x = np.array([0, 88.73, 89, 1e4, np.inf, -87, -88, -1e4, -np.inf], np.float32)
    y = exp_of_each(x)
    assert y[0] == 1
    np.testing.assert_array_equal(y[1:5], np.inf)
    np.testing.assert_array_equal(y[5:], y[5])
    assert 0 < y[5] < 2e-38


@njit(**compiler.FLAGS)
def expm1_of_each(x):
    y = np.empty_like(x)
    for i in range(len(x)):
        y[i] = expm1(x[i])
    return y


@pytest.mark.parametrize(("dtype", "units"), [(np.float32, 4), (np.float64, 2)])
def test_exp_minus_one_keeps_its_digits_near_zero(dtype, units):
    rng = np.random.default_rng(0)
    x = (rng.choice([-1, 1], 100_000) * 10 ** rng.uniform(-30, 1.9, 100_000)).astype(dtype)
    exact = np.expm1(x.astype(np.float64))
    assert np.max(np.abs(expm1_of_each(x) - exact) / np.abs(exact)) < units * np.finfo(dtype).eps
    np.testing.assert_array_equal(expm1_of_each(np.array([0, np.inf, -np.inf, np.nan], dtype)), [0, np.inf, -1, np.nan])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_stays_nan(dtype):
    assert np.isnan(exp_of_each(np.array([np.nan], dtype)))


def test_without_the_compiler_it_is_numpys():
    assert exp(1.0) == np.exp(1.0)
    assert tanh(0.3) == np.tanh(0.3)


@njit(**compiler.FLAGS)
def tanh_of_each(x):
    y = np.empty_like(x)
    for i in range(len(x)):
        y[i] = tanh(x[i])
    return y


def test_in_float32_the_tangent_is_within_two_units_from_the_smallest_number_to_the_largest():
    near, far = np.linspace(-12, 12, 200_001), np.logspace(-37, 38, 20_000)
    x = np.concatenate([near[near != 0], far, -far]).astype(np.float32)
    exact = np.tanh(x.astype(np.float64))
    assert np.max(np.abs(tanh_of_each(x) / exact - 1)) < 2 * np.finfo(np.float32).eps


def test_in_float64_the_tangent_is_the_librarys():
    x = np.random.default_rng(0).uniform(-30, 30, 1000)
    np.testing.assert_allclose(tanh_of_each(x), np.tanh(x), rtol=4e-16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_tangent_keeps_zeros_sign_ends_at_one_and_passes_nan_on(dtype):
    y = tanh_of_each(np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype))
    np.testing.assert_array_equal(y, [0, 0, 1, -1, np.nan])
    assert np.signbit(y[:2]).tolist() == [False, True]
