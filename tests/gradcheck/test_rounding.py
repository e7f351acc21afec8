"""float32 against float64: rounding passes, anything more does not."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minicvae.gradcheck import compare


@given(n=st.integers(1, 8), d=st.integers(1, 2000), seed=st.integers(0, 2**32), scale=st.floats(1e-6, 1e6))
def test_a_product_in_float32_is_within_rounding_of_its_length(n, d, seed, scale):
    rng = np.random.default_rng(seed)
    x, W = scale * rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=(d, 5)).astype(np.float32)
    truth = x.astype(float) @ W.astype(float)
    terms = np.abs(x).astype(float) @ np.abs(W)
    assert compare(x @ W, truth, length=d, terms=terms).ok
    assert compare(x @ W, truth, length=d, terms=terms, growth="linear").ok


@given(values=st.lists(st.floats(-20, 20), min_size=1, max_size=50))
def test_elementary_functions_are_within_a_few_units(values):
    x = np.array(values, np.float32)
    for f in (np.exp, np.tanh, np.sin):
        report = compare(f(x), f(x.astype(float)))
        assert report.ok, report


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_the_tolerance_is_what_the_formula_says(dtype):
    unit = np.finfo(dtype).eps / 2
    truth = np.array([1.0, -1.0, 1.0])
    for growth, factor in (("sqrt", 3), ("linear", 9)):
        row = compare(truth.astype(dtype), truth, 9, units=2, growth=growth).rows[0]
        assert row.tolerance == pytest.approx(2 * factor * unit)
    row = compare(truth.astype(dtype), truth, terms=10.0).rows[0]
    assert row.tolerance == pytest.approx(8 * unit * 10)


@given(
    truth=hnp.arrays(float, hnp.array_shapes(max_dims=3, max_side=4), elements=st.floats(-1, 1)),
    scale=st.sampled_from([1e-6, 1.0, 1e3]),
    dtype=st.sampled_from([np.float32, np.float64]),
    length=st.integers(1, 1000),
    units=st.floats(0.5, 100),
    growth=st.sampled_from(["sqrt", "linear"]),
    seed=st.integers(0, 2**32),
)
def test_every_number_of_the_row_is_that_of_its_formula(truth, scale, dtype, length, units, growth, seed):
    rng, truth = np.random.default_rng(seed), scale * truth
    result = (truth * (1 + float(np.finfo(dtype).eps) * rng.normal(0, units, truth.shape))).astype(dtype)
    terms = rng.choice([0.0, 2000.0], truth.shape)
    row = compare(result, truth, length, terms=terms, units=units, growth=growth).rows[0]
    error = np.abs(result.astype(float) - truth)
    allowed = units * (np.sqrt(length) if growth == "sqrt" else length)
    size = np.maximum(np.maximum(np.abs(truth), np.sqrt(np.mean(truth**2))), terms)
    tolerance = allowed * float(np.finfo(dtype).eps) / 2 * size
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(error > 0, error / tolerance, 0)
    worst = np.unravel_index(ratios.argmax(), truth.shape)
    assert row.worst == worst
    assert (row.value, row.truth, row.error) == (result[worst], truth[worst], error[worst])
    assert row.tolerance == pytest.approx(tolerance[worst], rel=1e-12)
    assert row.verdict == ("ok" if (error <= tolerance).all() else "WRONG")
    assert row.checked == truth.size
    np.testing.assert_array_equal(row.errors, result.astype(float) - truth)
    if truth.any():
        assert row.relative == pytest.approx(math.hypot(*error.flat) / math.hypot(*truth.flat), rel=1e-9)
    assert f"{allowed:.3g} units" in row.note
    assert f"{allowed * ratios[worst]:.3g} needed" in row.note


def test_nothing_is_allowed_beside_zeros():
    result = np.array([0.0, 1e-3, 0.0], np.float32)
    row = compare(result, np.zeros(3)).rows[0]
    assert (row.verdict, row.worst, row.relative) == ("WRONG", (1,), np.inf)
    assert compare(np.zeros(3, np.float32), np.zeros(3)).rows[0].relative == 0


@pytest.mark.parametrize("excess", [1.5, -1.5])
def test_one_element_beyond_rounding_is_found(excess):
    truth = np.random.default_rng(0).normal(size=(6, 7))
    result = truth.astype(np.float32)
    result[4, 5] += np.float32(excess * 8 * 2.0**-24 * max(abs(truth[4, 5]), np.sqrt(np.mean(truth**2))))
    report = compare(result, truth)
    assert report.rows[0].worst == (4, 5)
    assert not report.ok
    assert report.headings == ("result", "truth")
    assert "units of 6e-08 allowed" in str(report)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_fails(bad):
    truth = np.ones(3)
    assert compare(np.array([1, bad, 1], np.float32), truth).rows[0].verdict == "not finite"
    assert compare(truth.astype(np.float32), np.array([1, bad, 1])).rows[0].verdict == "not finite"


def test_shapes_and_types_must_match():
    assert compare(np.ones((1, 3), np.float32), np.ones(3)).rows[0].verdict == "shape"
    assert compare(np.ones(3, int), np.ones(3)).rows[0].verdict == "type"
    assert compare(np.ones(0, np.float32), np.ones(0)).rows[0].verdict == "vacuous"


def test_zeros_are_equal_to_zeros_and_to_nothing_else():
    assert compare(np.zeros(3, np.float32), np.zeros(3)).ok
    assert not compare(np.full(3, 1e-30, np.float32), np.zeros(3)).ok


def test_arrays_by_name_have_lengths_of_their_own():
    truth = {"dx": np.ones((2, 3)), "db": np.ones(3)}
    result = {name: a.astype(np.float32) for name, a in truth.items()}
    report = compare(result, truth, {"dx": 4, "db": 100})
    assert report["db"].tolerance == pytest.approx(5 * report["dx"].tolerance)
    cancelled = compare(result, truth, {"dx": 4, "db": 100}, terms={"dx": 30.0})
    assert cancelled["dx"].tolerance == pytest.approx(30 * report["dx"].tolerance)
    assert cancelled["db"].tolerance == report["db"].tolerance
    halves = compare(result, {name: a / 2 for name, a in truth.items()}, terms={"dx": 0.1})
    assert halves["db"].tolerance == pytest.approx(halves["dx"].tolerance)


def test_an_array_of_another_device_is_fetched():
    class Remote:
        def get(self):
            return np.ones(3, np.float32)

    assert compare(Remote(), np.ones(3)).ok


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "truth result: expected float64, got float32", (np.ones(2), np.ones(2, np.float32))),
        (ValueError, "result: expected the arrays a, got b", ({"b": np.ones(2)}, {"a": np.ones(2)})),
        (ValueError, "length: expected a number of at least 1 for result, got 0", (np.ones(2), np.ones(2), 0)),
        (ValueError, "length: expected .* for a, got None", ({"a": np.ones(2)}, {"a": np.ones(2)}, {"b": 3})),
    ],
)
def test_what_does_not_belong_together_is_refused(error, message, arguments):
    with pytest.raises(error, match=message):
        compare(*arguments)


def test_an_unknown_growth_is_refused():
    with pytest.raises(ValueError, match="growth: expected one of sqrt, linear"):
        compare(np.ones(2), np.ones(2), growth="cubic")
