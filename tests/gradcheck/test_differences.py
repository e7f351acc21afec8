"""The slope estimate keeps its own promise: the error is within the bound, and the bound is small."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.gradcheck import check_gradients
from minicvae.gradcheck.differences import (
    EPS,
    TINY,
    _Scheme,
    _third_differences,
    complex_slopes,
    norm,
    rounding_noise,
    slopes,
)

SMOOTH = {
    "exp": (np.exp, np.exp),
    "sin": (np.sin, np.cos),
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "softplus": (lambda x: np.logaddexp(0, x), lambda x: 1 / (1 + np.exp(-x))),
    "cube": (lambda x: x**3, lambda x: 3 * x * x),
    "bell": (lambda x: 1 / (1 + 25 * x * x), lambda x: -50 * x / (1 + 25 * x * x) ** 2),
    "fast": (lambda x: np.sin(50 * x), lambda x: 50 * np.cos(50 * x)),
}


def line_through(f, x):
    def line(t):
        return (x + t) - x, np.atleast_1d(f(x + t))

    return line


def estimate(f, x, counter=None):
    line = line_through(f, x)

    def counted(t):
        if counter is not None:
            counter.append(t)
        return line(t)

    base = line(0.0)[1]
    noise = rounding_noise([lambda t: line(t * (abs(x) or 1.0)), line], base)
    found = slopes([counted], np.array([max(1.0, abs(x)) / 8]), base, np.ones(base.size), noise)
    return found.slope[0], found.bound[0], found.jump[0], found.step[0]


@pytest.mark.parametrize("name", SMOOTH)
@given(x=st.floats(-4, 4))
def test_the_error_is_within_the_bound_and_the_bound_is_near_rounding(name, x):
    f, df = SMOOTH[name]
    slope, bound, _, _ = estimate(f, x)
    assert abs(slope - df(x)) <= bound + 8 * EPS * abs(df(x))
    assert bound <= 1e-10 * (1 + abs(df(x)))


@given(x=st.floats(1e-6, 1e6))
def test_steps_that_leave_the_domain_are_not_used(x):
    with np.errstate(invalid="ignore", divide="ignore"):
        slope, bound, _, step = estimate(np.log, x)
    assert step < x
    assert abs(slope - 1 / x) <= bound <= 1e-9 / x


def test_a_function_that_refuses_arguments_outside_its_domain_is_not_used_there():
    def root(x):
        if x < 0:
            raise ValueError("x: expected a positive number")
        return np.sqrt(x)

    slope, bound, _, _ = estimate(root, 0.01)
    assert abs(slope - 5) <= bound <= 1e-9


@given(x=st.floats(-3, 3), slope=st.floats(-5, 5))
def test_at_a_kink_the_bound_is_half_the_jump_of_the_slope(x, slope):
    value, bound, jump, _ = estimate(lambda y: np.sin(y) + slope * abs(y - x), x)
    assert abs(value - np.cos(x)) <= 1e-3  # central differences find the mean of the two slopes...
    assert jump == pytest.approx(abs(slope), abs=1e-3)  # ... and know that it is none
    assert bound >= 0.99 * abs(slope)


@given(distance=st.floats(1e-6, 0.5), side=st.sampled_from([-1, 1]))
def test_a_kink_nearby_is_outrun_by_smaller_steps(distance, side):
    slope, bound, _, step = estimate(lambda y: np.sin(y) + abs(y - side * distance), 0.0)
    assert abs(slope - (1 - side)) <= bound <= 1e-4
    assert step < distance


def test_the_first_steps_are_large_and_smaller_ones_are_not_taken_in_vain():
    taken = []
    estimate(np.exp, 0.5, taken)
    assert max(taken) == 1 / 8
    assert len(taken) <= 14


def test_where_the_function_stands_still_slope_and_bound_are_next_to_nothing():
    slope, bound, _, _ = estimate(lambda x: np.float64(3.0), 1.0)
    assert slope == 0
    assert bound < 1e-13


@pytest.mark.parametrize("big", [1e3, 1e6, 1e8])
@given(x=st.floats(-1, 1))
def test_noise_from_large_terms_that_cancel_is_seen(big, x):
    def noisy(y):
        return (big + np.sin(y)) - big

    slope, bound, _, _ = estimate(noisy, 0.5 + x / 10)
    assert abs(slope - np.cos(0.5 + x / 10)) <= bound
    assert bound >= EPS * big / 100


@given(seed=st.integers(0, 2**32), scale=st.floats(-6, 0), big=st.floats(3, 10))
def test_large_terms_that_cancel_raise_no_false_alarm_beside_elements_of_any_size(seed, scale, big):
    """Small steps leave the last place of 1e10 as it is, and so do steps beside a small element."""
    x, big = np.random.default_rng(seed).uniform(-4, 4, 4) * 10.0 ** np.array([0, 0, 0, scale]), 10.0**big
    report = check_gradients(lambda x: ((big + np.sin(x)) - big, lambda dy: dy * np.cos(x)), (x,), method="differences")
    assert report["x"].verdict != "WRONG", report


@given(sigma=st.floats(-13, -3), seed=st.integers(0, 2**32))
def test_the_noise_is_measured_as_it_is_on_average(sigma, seed):
    """Each of 2000 outputs is measured by 13 differences, a poor estimate; their median is a good one."""
    sigma, outputs = 10.0**sigma, 2000

    def line(t):
        rng = np.random.default_rng([seed, int.from_bytes(np.float64(t).tobytes(), "little")])
        return t, np.sin(np.arange(outputs) % 7 + t) + sigma * rng.standard_normal(outputs)

    noise = rounding_noise([line], line(0.0)[1])
    assert np.median(noise) == pytest.approx(sigma, rel=0.05)
    assert np.mean(noise > sigma / 4) > 0.99
    assert np.mean(noise < 4 * sigma) > 0.99


@given(base=st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=5))
def test_the_noise_is_never_below_half_a_unit_in_the_last_place(base):
    base = np.array(base)
    for still in (lambda t: (t, base), lambda t: (t, base + t * 2.0**40)):
        noise = rounding_noise([still], base)
        assert (noise >= EPS / 2 * np.abs(base)).all()
    np.testing.assert_array_equal(rounding_noise([lambda t: (t, base)], base), EPS / 2 * np.abs(base))


@given(exponents=st.lists(st.floats(-300, 307), max_size=5), signs=st.integers(0, 31))
def test_the_length_of_a_vector_neither_overflows_nor_vanishes(exponents, signs):
    x = np.array([10.0**e * (-1) ** (signs >> i & 1) for i, e in enumerate(exponents)])
    with np.errstate(over="ignore"):
        assert norm(x) == pytest.approx(math.hypot(*x), rel=1e-12, abs=0)


def test_the_length_of_what_is_not_finite_is_not_finite():
    assert norm(np.array([1.0, np.inf])) == np.inf
    assert np.isnan(norm(np.array([1.0, np.nan])))


@given(seed=st.integers(0, 2**32), k=st.integers(4, 16))
def test_third_differences_see_no_parabola_and_are_of_length_one(seed, k):
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.uniform(0.5, 2, k))
    rows = _third_differences(t)
    assert rows.shape == (k - 3, k)
    np.testing.assert_allclose(rows @ np.stack([np.ones(k), t, t**2], axis=1), 0, atol=1e-11 * t[-1] ** 2)
    np.testing.assert_allclose((rows**2).sum(axis=1), 1, rtol=1e-12)
    assert [np.flatnonzero(row).tolist() for row in rows] == [list(range(i, i + 4)) for i in range(k - 3)]


@given(power=st.sampled_from([1, 2]), coefficients=st.lists(st.floats(-9, 9), min_size=1, max_size=5))
def test_a_row_of_the_scheme_is_free_of_as_many_powers_as_its_number(power, coefficients):
    """c₀ + c₁ h^p + c₂ h^(p+2) + ... has the limit c₀, and row[j] finds it where at most j powers follow."""
    scheme = _Scheme(power)
    h = 1 / 2.2 ** np.arange(len(coefficients))
    for step in h:
        powers = step ** np.array([0.0, *(power + 2 * j for j in range(len(coefficients) - 1))])
        scheme.extend(np.array([powers @ coefficients]))
    assert scheme.row[-1][0] == pytest.approx(coefficients[0], abs=1e-10)


@given(power=st.sampled_from([1, 2]), errors=st.lists(st.floats(1e-9, 1), min_size=2, max_size=6))
def test_the_sizes_of_errors_are_carried_through_the_scheme_as_if_none_cancelled(power, errors):
    sizes = _Scheme(power)
    for error in errors:
        sizes.extend_magnitudes(np.array([error]))
    worst = np.zeros(len(errors))
    for signs in itertools.product([-1, 1], repeat=len(errors)):
        scheme = _Scheme(power)
        for sign, error in zip(signs, errors, strict=True):
            scheme.extend(np.array([sign * error]))
        worst = np.maximum(worst, np.abs(scheme.row)[:, 0])
    np.testing.assert_allclose(np.array(sizes.row)[:, 0], worst, rtol=1e-12)


def test_noise_of_float32_is_seen():
    x = np.array([0.3, 0.7, 1.1])

    def line(t):
        return t, np.sin((x * (1 + t)).astype(np.float32)).astype(float)

    noise = rounding_noise([line], line(0.0)[1])
    assert np.all(noise > 1e-9)
    assert np.all(noise < 1e-6)


def test_a_kink_at_zero_is_not_taken_for_noise():
    noise = rounding_noise([lambda t: (t, np.array([abs(t)]))], np.zeros(1))
    assert noise[0] < 1e-24


def test_two_steps_that_agree_by_chance_are_not_believed():
    h = [1 / 8, 1 / 8 / 2.2, 1 / 8 / 2.2**2]
    b = -1 / (h[1] ** 2 + h[2] ** 2)  # D(h) = h² + b h⁴ is the same for the second and the third step

    slope, bound, _, _ = estimate(lambda x: x**3 + b * x**5, 0.0)
    assert abs(slope) <= bound <= 1e-12


@given(x=st.floats(-0.5, 0.5))
def test_a_step_too_small_to_show_is_not_believed(x):
    """Beside 41 a change of 1e-12 is a matter of luck: small steps leave F as it is."""
    slope, bound, _, _ = estimate(lambda y: np.log1p(4e-12 * np.exp(y)) + 41.0, x)
    assert abs(slope - 4e-12 * np.exp(x)) <= bound


def test_an_output_that_moves_at_large_steps_only_is_noisy_at_small_ones_too():
    quantum = 1e-6

    def line(t):
        return t, np.array([quantum * np.floor(0.3 * t / quantum + 0.2), 0.0, 0.0])

    found = slopes([line], np.array([1 / 8]), line(0.0)[1], np.ones(3), np.array([quantum, 0.0, 0.0]))
    assert abs(found.slope[0] - 0.3) <= found.bound[0]


def test_where_nothing_moves_the_slope_is_known_no_better_than_a_typical_output():
    found = slopes([lambda t: (t, np.ones(3))], np.array([1 / 8]), np.ones(3), np.ones(3), np.full(3, 1e-6))
    assert found.slope[0] == 0
    assert found.bound[0] >= 1e-6


def test_the_step_is_the_one_that_the_arithmetic_took():
    """Near 1/3 a step of 1e-8 is wrong in its eighth digit."""
    slope, _, _, step = estimate(lambda y: abs(y - (1 / 3 + 1e-7)), 1 / 3)
    assert step < 1e-7
    assert slope == pytest.approx(-1, abs=1e-13)


@given(position=st.floats(0, 64), spacing=st.integers(24, 36))
def test_a_kink_among_the_points_is_not_taken_for_noise(position, spacing):
    """The output stands still before the kink, so that the points are as wide apart as it takes to reach it."""
    kink = position * 2.0**-spacing
    noise = rounding_noise([lambda t: (t, np.array([1 + max(t - kink, 0.0)]))], np.ones(1))
    assert noise[0] < 1e-15


def test_a_period_that_divides_the_steps_does_not_fool_the_extrapolation():
    for x in np.random.default_rng(0).uniform(1.5, 6.5, 100):
        slope, bound, _, _ = estimate(lambda y: np.sin(1000 * y), x)
        assert abs(slope - 1000 * np.cos(1000 * x)) <= bound <= 1e-4


def test_the_complex_step_is_exact_to_rounding():
    x = np.linspace(-2, 2, 9)
    lines = [lambda v=v: np.atleast_1d(np.exp(np.sin(v + 1j * TINY))) for v in x]
    found = complex_slopes(lines, np.full(9, 1 / 8), np.ones(1), np.full(1, EPS))
    truth = np.cos(x) * np.exp(np.sin(x))
    np.testing.assert_allclose(found.slope, truth, rtol=4 * EPS, atol=4 * EPS)
    assert np.all(np.abs(found.slope - truth) <= found.bound)
