"""Claimed slopes beside estimated ones: which count, which are wrong, and what is said of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.gradcheck.comparison import (
    DOUBT,
    HUGE,
    RESOLUTION,
    ROUNDING,
    Compared,
    _flaw,
    _origin,
    _unit,
    diagnose,
    spread,
)
from minicvae.gradcheck.differences import Estimates

SEEDS = st.integers(0, 2**32)
SIZES = st.floats(1e-100, 1e100)
SIGNS = st.sampled_from([-1.0, 1.0])


def compared(claimed, slope, bound=0.0, jump=0.0, rounding=0.0, size=0.0, direction=False):
    claimed, slope, bound, jump, rounding = np.array(np.broadcast_arrays(claimed, slope, bound, jump, rounding), float)
    estimates = Estimates(*(np.atleast_1d(a) for a in (slope, bound, jump, np.full(slope.shape, 0.25))))
    return Compared(np.atleast_1d(claimed), estimates, np.atleast_1d(rounding), size, direction)


def exactly(x):
    return pytest.approx(x, rel=1e-12, abs=0)


@given(slope=SIZES, sign=SIGNS, side=SIGNS, bound=st.floats(0, 4e-7), rounding=st.floats(0, 4e-7), seed=SEEDS)
def test_a_sharp_slope_may_err_by_its_bound_and_by_both_roundings(slope, sign, side, bound, rounding, seed):
    allowed = (bound + rounding + ROUNDING) * slope
    for part, wrong in ((0.0, False), (0.99, False), (1.01, True)):
        claimed = slope * sign + side * (1 + 1e-6) * part * allowed  # of which one counts for the scale
        for direction in (False, True):
            found = compared(claimed, slope * sign, bound * slope, 0, rounding * slope, direction=direction)
            assert (found.resolved[0], found.at_kink[0], found.wrong[0], found.compared[0]) == (
                True,
                False,
                wrong and found.error[0] > found.tolerance[0],
                True,
            )
            assert found.tolerance[0] == pytest.approx(allowed, rel=1e-5)
            assert found.error[0] == abs(claimed - slope * sign)
            assert found.ratio[0] == pytest.approx(found.error[0] / found.tolerance[0])
    assert compared(slope, slope, 0.999 * RESOLUTION * slope).resolved[0]
    assert not compared(slope, slope, 1.001 * RESOLUTION * slope).resolved[0]


@given(slope=SIZES, side=SIGNS, bound=st.floats(1e-5, 0.1), rounding=st.floats(0, 0.1))
def test_a_slope_that_is_not_sharp_does_not_count_but_is_wrong_far_outside_of_its_bound(slope, side, bound, rounding):
    allowed = DOUBT * (bound + rounding + ROUNDING)
    for part in (0.0, 0.99, 1.01):
        found = compared(slope * (1 + side * part * allowed), slope, bound * slope, 0, rounding * slope)
        assert not found.resolved[0]
        assert not found.at_kink[0]
        assert (found.wrong[0], found.compared[0]) == ((True, True) if part > 1 else (False, False))
        along = compared(slope * (1 + side * part * allowed), slope, bound * slope, 0, rounding * slope, 0, True)
        assert not along.wrong[0]  # a direction counts for nothing where it is not sharp


@given(slope=st.floats(-2, 2), side=SIGNS, jump=st.floats(0.01, 10), noise=st.floats(1e-9, 1e-3))
def test_at_a_kink_every_slope_between_those_on_its_two_sides_is_right(slope, side, jump, noise):
    """The bound holds the jump, which is half the difference of the slopes: only what is beyond it is noise."""
    for part in (0.0, 0.99, 1.01):
        allowed = jump + DOUBT * (noise + ROUNDING * max(abs(slope), abs(jump)))
        found = compared(slope + side * part * allowed, slope, jump + noise, jump)
        assert found.at_kink[0]
        assert not found.resolved[0]
        assert found.wrong[0] == (part > 1)
        assert found.noise[0] == pytest.approx(noise, rel=1e-3)
    assert compared(slope, slope, 2.1 * jump, jump).at_kink[0] == False  # noqa: E712  (of NumPy)
    assert compared(slope, slope, 1.9 * jump, jump).at_kink[0]
    assert compared(1e9, slope, jump, jump).at_kink[0]  # whatever is claimed
    assert compared(1e9, slope, jump, jump).wrong[0]
    assert not compared(slope, slope, jump, jump, size=1e7 * jump).at_kink[0]  # small beside the others
    assert compared(slope, slope, jump, jump, size=1e5 * jump).at_kink[0]


@given(bound=st.sampled_from([np.inf, np.nan]), claimed=st.floats(-10, 10))
def test_what_is_not_known_is_neither_right_nor_wrong(bound, claimed):
    for slope in (np.nan, 1.0):
        found = compared(claimed, slope, bound, bound)
        assert not (found.resolved | found.at_kink | found.wrong | found.compared).any()


@given(slope=st.floats(-1, 1), size=st.floats(1, 1e9))
def test_a_slope_is_measured_by_the_typical_one_if_that_is_larger(slope, size):
    assert compared(slope, slope, 0.9e-6 * size, size=size).resolved[0]
    assert not compared(slope, slope, 1.1e-6 * size, size=size).resolved[0]
    assert compared(slope, slope, 0, size=size).tolerance[0] == exactly(ROUNDING * size)


def test_no_error_is_no_part_of_any_bound():
    assert compared(0.0, 0.0).ratio[0] == 0


def test_a_limit_itself_is_allowed():
    nothing = compared(0.0, 0.0)
    assert nothing.vanishes
    assert not nothing.wrong[0]
    assert not nothing.at_kink[0]
    assert compared(0.0, 0.0, 1.0, 0.5).at_kink[0]


def test_a_slope_counts_by_its_own_size_where_nothing_is_claimed_and_never_without_a_bound():
    assert compared(0.0, 1.0, 1e-7).resolved[0]
    assert not compared(1.0, 1.0, np.inf, size=np.inf).resolved[0]


@given(seed=SEEDS, size=SIZES)
def test_the_relative_error_is_that_of_all_that_are_compared(seed, size):
    rng = np.random.default_rng(seed)
    slope = size * spread(rng, (6,))
    claimed = slope * (1 + 1e-3 * rng.normal(size=6))
    found = compared(claimed, slope, np.where(np.arange(6) < 4, 0, size))
    assert found.compared.tolist() == [True] * 4 + [False] * 2
    error, true = (np.linalg.norm(a[:4] / size) for a in (claimed - slope, slope))
    assert found.relative == exactly(error / true)
    assert compared(0.0, 0.0).relative == 0
    assert compared(size, 0.0).relative == np.inf
    assert np.isnan(compared(1.0, 1.0, np.inf).relative)


def test_the_worst_is_the_largest_error_of_the_wrong_else_the_largest_part_of_a_bound():
    slope, bound = np.ones(4), np.array([1e-9, 1e-7, 1e-8, 1e-2])
    assert compared(slope + np.array([0.9e-9, 5e-8, 5e-9, 2e-2]), slope, bound).worst() == 0
    assert compared(slope + np.array([0.1e-9, 5e-8, 9e-9, 2e-2]), slope, bound).worst() == 2
    assert compared(slope + np.array([2e-9, 1.5e-8, 3e-8, 2e-2]), slope, bound).worst() == 2
    assert compared(slope + np.array([0, 0, 0, 2e-2]), slope, bound).worst() == 0
    assert compared(slope + np.array([0, 0, 0, 5e-2]), slope, bound).worst() == 3


@given(noise=st.floats(1e-9, 1e-6), jump=st.floats(0, 1))
def test_slopes_vanish_that_cannot_be_told_from_zero(noise, jump):
    """The estimates lie within their noise, and the claims within what they may err by."""

    def vanish(slope, claimed):
        return compared([0, claimed * noise], [0, slope * noise], noise + jump, jump).vanishes

    assert vanish(0.9, 0.9)
    assert vanish(-0.9, -0.9)
    assert not vanish(1.1, 0.9)
    assert not vanish(-1.1, 0.9)
    assert vanish(0, DOUBT * 0.9)
    assert not vanish(0, (DOUBT + 0.1) + jump / noise)


def test_a_row_shows_the_numbers_of_one_slope():
    found = compared([1.0, 2.0], [1.0, 4.0], [1e-9, 1e-8])
    row = found.row("W", (2,), "WRONG", "a note", 1)
    assert (row.name, row.shape, row.verdict, row.note) == ("W", (2,), "WRONG", "a note")
    assert (row.value, row.truth, row.error, row.tolerance, row.step) == (2, 4, 2, found.tolerance[1], 0.25)
    assert row.relative == exactly(2 / np.sqrt(17))


@given(seed=SEEDS, n=st.integers(1, 50))
def test_random_vectors_have_both_signs_and_no_component_that_is_hushed(seed, n):
    v = spread(np.random.default_rng(seed), (n, 40))
    assert v.shape == (n, 40)
    assert ((np.abs(v) >= 0.5) & (np.abs(v) < 1.5)).all()
    assert (np.abs(v) < 0.75).any()
    assert (np.abs(v) > 1.25).any()
    assert (v < 0).any()
    assert (v > 0).any()


def said(g, numeric, bound=1e-9, jump=0.0):
    g, numeric = np.asarray(g, float), np.asarray(numeric, float)
    largest = max(np.abs(g).max(), np.abs(numeric).max())
    return diagnose(g, compared(g.ravel(), numeric.ravel(), largest * bound, jump))


@given(seed=SEEDS, factor=st.floats(-3, 3).filter(lambda k: abs(k - 1) > 0.1 < abs(k)), size=SIZES)
def test_a_factor_is_named_if_it_explains_all_but_a_thousandth_of_the_largest_error(seed, factor, size):
    rng = np.random.default_rng(seed)
    numeric = spread(rng, (2, 5))
    for part, named in ((0.0, True), (0.5e-3, True), (2e-3, False)):
        g = factor * numeric
        g[1, 3] += part * np.abs(g - numeric).max()
        text = said(size * g, size * numeric)
        assert text.startswith("10 of 10 elements are wrong")
        assert ("times the numeric one" in text) == named
        if not part:
            assert text.endswith(f"the analytic gradient is {factor:.6g} times the numeric one")


@pytest.mark.parametrize(("factor", "size"), [(1e-200, 1.0), (-1e-200, 1.0), (1e200, 1.0), (1e-310, 1e10)])
def test_a_factor_of_any_size_is_named(factor, size):
    numeric = size * np.array([1.0, 2.0, -1.0])
    text = said(factor * numeric, numeric)
    assert text == f"3 of 3 elements are wrong: the analytic gradient is {factor:.6g} times the numeric one"


def test_one_number_alone_is_no_multiple():
    assert said([2.0], [1.0]) == "1 of 1 elements are wrong"
    assert said([1.0, 1.0], [0.0, 0.0]) == "2 of 2 elements are wrong: the error is the same all along axis 0; " + (
        "is a sum or a mean over it missing?"
    )


def test_a_gradient_of_zeros_is_named():
    assert said([0.0, 0.0], [1.0, 2.0]) == "2 of 2 elements are wrong: the analytic gradient is zero"
    assert said([0.0, 1.0], [1.0, 2.0]) == "2 of 2 elements are wrong: the error is the same all along axis 0; " + (
        "is a sum or a mean over it missing?"
    )


@given(seed=SEEDS, k=st.integers(2, 5), size=SIZES)
def test_a_transpose_is_named(seed, k, size):
    rng = np.random.default_rng(seed)
    numeric = spread(rng, (k, k)) + 3 * np.eye(k)
    for part, named in ((0.0, True), (0.5e-3, True), (2e-3, False)):
        g = numeric.T.copy()
        g[0, 1] += part * np.abs(g - numeric).max()
        g[1, 0] -= part * np.abs(g - numeric).max()
        if np.abs(g - numeric).max() > 0.1:
            assert ("is the transpose of the numeric one" in said(size * g, size * numeric)) == named


@given(seed=SEEDS, axis=st.integers(0, 2), size=SIZES)
def test_an_error_that_is_the_same_all_along_an_axis_is_named(seed, axis, size):
    rng = np.random.default_rng(seed)
    numeric, shape = rng.normal(size=(2, 3, 4)), [2, 3, 4]
    shape[axis] = 1
    error = spread(rng, tuple(shape)) * np.ones((2, 3, 4))
    for part, named in ((0.0, True), (0.5e-3, True), (3e-3, False)):
        g = numeric + error
        g[0, 0, 0] += part * 1.5
        text = said(size * g, size * numeric)
        assert text.startswith("24 of 24 elements are wrong")
        assert (f"is the same all along axis {axis}; is a sum" in text) == named
    long = said(size * g[:, :1, :1], size * numeric[:, :1, :1])
    assert "axis 1" not in long  # of one element alone every error is the same
    assert "axis 2" not in long


def test_what_was_not_compared_has_no_part_in_the_explanation():
    numeric = np.array([1.0, 2.0, 3.0, 4.0])
    found = compared([2.0, 4.0, 6.0], numeric[:3], [1e-9, 1e-9, 9.0])
    assert diagnose(np.array([2.0, 4.0, 6.0]), found).endswith(
        "2 of 2 elements are wrong: " + ("the analytic gradient is 2 times the numeric one")
    )
    found = compared([2.0, 3.0], numeric[:2], 1e-9)
    assert diagnose(np.array([2.0, 3.0, 9.0]), found) == "2 of 2 elements are wrong"  # elements of a larger array


def test_elements_at_kinks_that_alone_are_wrong_are_said_to_be_there():
    found = compared([5.0, 0.5, 1.0], [0.5, 0.5, 1.0], [0.5, 0.5, 1e-9], [0.5, 0.5, 0])
    text = "1 of 2 elements at a kink lie outside of the slopes on its two sides"
    assert diagnose(np.array([5.0, 0.5, 1.0]), found) == text
    found = compared([5.0, 0.5, 2.0], [0.5, 0.5, 1.0], [0.5, 0.5, 1e-9], [0.5, 0.5, 0])
    assert diagnose(np.array([5.0, 0.5, 2.0]), found) == "2 of 2 elements are wrong"


def test_what_forbids_a_comparison_is_named():
    x = np.ones((2, 3))
    broken = x.copy()
    broken[1, 2] = np.inf
    assert _flaw(x, x) is None
    assert _flaw(None, x) == ("missing", "backward gives no gradient")
    assert _flaw(x.T, x) == ("shape", "the gradient has the shape (3, 2), not (2, 3)")
    assert _flaw(x.astype(np.float32), x) == ("type", "the gradient is float32, not float64")
    assert _flaw(broken, x) == ("not finite", "the gradient is inf at [1, 2]")
    broken[1, 0] = np.nan
    assert _flaw(broken, x) == ("not finite", "the gradient is nan at [1, 0]")


@given(seed=SEEDS)
def test_the_origin_is_the_nearest_step_that_makes_an_element_zero(seed):
    rng = np.random.default_rng(seed)
    x, v = rng.choice([-1.0, 0.0, 1.0], (2, 6)) * rng.uniform(0.1, 9, (2, 6))
    steps = [abs(a / b) for a, b in zip(x, v, strict=True) if a != 0 and b != 0]
    assert _origin(x, v) == min(steps, default=np.inf)


@given(seed=SEEDS, exponent=st.integers(-9, 300), zeros=st.integers(0, 3))
def test_the_unit_is_the_root_mean_square_of_elements_neither_tiny_nor_huge(seed, exponent, zeros):
    x = np.append(np.random.default_rng(seed).normal(size=4), np.zeros(zeros))
    rms = np.sqrt(np.mean(x**2))
    assert _unit(x * 2.0**exponent) == exactly(max(rms * 2.0**exponent, 2.0**-10))
    assert _unit(x * 2.0**-20) == 2.0**-10
    assert _unit(x / rms * 2.0**1010) == HUGE
    assert _unit(np.zeros(3)) == 1
