"""Kinks: seen, counted and left out, no cover for a mistake and no false alarm."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.gradcheck import assert_gradients, check_gradients


def relu(x):
    return np.maximum(x, 0), lambda dy: dy * (x > 0)


def max_pool(x):
    """The largest of each pair of neighbours; x (n, 2 k) -> (n, k). Of equals the first has the gradient."""
    pairs = x.reshape(len(x), -1, 2)
    first = pairs.argmax(axis=2)[..., None]

    def backward(dy):
        dx = np.zeros_like(pairs)
        np.put_along_axis(dx, first, dy[..., None], axis=2)
        return dx.reshape(x.shape)

    return pairs.max(axis=2), backward


@pytest.mark.parametrize("method", ["differences", "auto"])
@given(n=st.integers(1, 6), d=st.integers(2, 6), seed=st.integers(0, 2**32), scale=st.floats(0.01, 2))
def test_away_from_their_kinks_right_gradients_pass(method, n, d, seed, scale):
    rng = np.random.default_rng(seed)
    x = scale * rng.normal(size=(n, d))
    for forward, inputs in ((relu, np.abs(x) * np.where(np.arange(d) % 2, 1, -1)), (max_pool, rng.normal(size=(n, 4)))):
        report = assert_gradients(forward, inputs, method=method, seed=seed % 1000)
        assert all(row.relative < 1e-8 for row in report.rows)


@pytest.mark.parametrize("method", ["differences", "auto"])
def test_kinks_are_counted_and_left_out(method):
    x = np.random.default_rng(0).normal(size=(5, 4))
    x[0, 0] = x[3, 1] = 0
    report = assert_gradients(relu, (x,), method=method)
    assert (report["x"].checked, report["x"].kinks, report["x"].noisy) == (18, 2, 0)
    assert np.isnan(report["x"].errors[0, 0])
    assert "2 left out at kinks" in str(report)


def test_ties_in_max_pooling_are_kinks():
    x = np.random.default_rng(0).normal(size=(5, 8))
    x[2, 2] = x[2, 3]
    report = assert_gradients(max_pool, (x,))
    assert (report["x"].checked, report["x"].kinks) == (38, 2)


def test_a_mistake_beside_a_kink_is_seen():
    def wrong(x):
        return np.maximum(x, 0), lambda dy: dy * np.where(x > 0, 1.0, 0.01)

    x = np.random.default_rng(0).normal(size=(5, 4))
    x[0, 0] = 0
    row = check_gradients(wrong, (x,))["x"]
    assert (row.verdict, row.kinks) == ("WRONG", 1)


@given(slope=st.floats(0, 1), seed=st.integers(0, 1000))
def test_every_slope_between_those_on_the_two_sides_of_a_kink_is_right(slope, seed):
    x = np.random.default_rng(seed).normal(size=(5, 8))
    x.flat[::5] = 0

    def bent(x):
        return np.exp(x) * np.maximum(
            x, 0
        ), lambda dy: dy * np.exp(x) * (np.maximum(x, 0) + np.where(x == 0, slope, x > 0))

    row = assert_gradients(bent, (x,), seed=seed)["x"]
    assert (row.checked, row.kinks) == (32, 8)


@given(slope=st.one_of(st.floats(-1e9, -0.01), st.floats(1.01, 1e9)), seed=st.integers(0, 1000))
def test_a_slope_that_lies_on_neither_side_nor_between_is_wrong(slope, seed):
    x = np.random.default_rng(seed).normal(size=(5, 8))
    x.flat[::5] = 0
    report = check_gradients(lambda x: (np.maximum(x, 0), lambda dy: dy * np.where(x == 0, slope, x > 0)), (x,))
    assert (report["x"].verdict, report["x"].kinks) == ("WRONG", 0)
    assert x[report["x"].worst] == 0
    assert "8 of 8 elements at a kink lie outside of the slopes on its two sides" in str(report)


@given(seed=st.integers(0, 2**32), size=st.sampled_from([1.0, 0.1, 1e-5]), first=st.booleans())
def test_ties_in_overlapping_windows_are_right_whichever_of_the_equals_has_the_gradient(seed, size, first):
    rng = np.random.default_rng(seed)
    x = size * rng.integers(0, 4, 9)
    picks = rng.integers(0, 3, 7)

    def pool(x):
        windows = np.lib.stride_tricks.sliding_window_view(x, 3)
        ties = [np.flatnonzero(w == w.max()) for w in windows]
        at = [k + t[0 if first else pick % len(t)] for k, (t, pick) in enumerate(zip(ties, picks, strict=True))]
        return windows.max(axis=1), lambda dy: np.bincount(at, dy, minlength=9)

    assert check_gradients(pool, (x,), seed=seed % 1000, max_left_out=0.99)["x"].verdict in ("ok", "kinks")


@given(seed=st.integers(0, 2**32))
def test_kinks_that_meet_in_one_element_are_told_apart_where_the_terms_are_outputs_of_their_own(seed):
    """max(x, 0) - 2 max(-x, 0), of which at 0 the first takes its slope from the right and the second from the left."""
    x = np.random.default_rng(seed).normal(size=8)
    x[3] = 0
    slopes = np.array([x >= 0, 2 * (x <= 0)], float)

    def terms(x):
        return np.stack([np.maximum(x, 0), -2 * np.maximum(-x, 0)]), lambda dy: (dy * slopes).sum(axis=0)

    def total(x):
        return terms(x)[0].sum(), lambda dy: dy * slopes.sum(axis=0)

    assert_gradients(terms, (x,), seed=seed % 1000)
    assert "outside of the slopes on its two sides" in str(
        check_gradients(total, (x,))
    )  # 1 + 2, where there are 2 and 1


@given(seed=st.integers(0, 2**32), fast=st.floats(1, 60), growth=st.floats(-5, 5), claim=st.floats(-1, 1))
def test_a_kink_between_bent_branches_raises_no_false_alarm(seed, fast, growth, claim):
    rng = np.random.default_rng(seed)
    kink = rng.normal(size=6) * rng.choice([0.01, 1, 10])
    x = kink + np.array([0, 0, 0, 1, 1, 1]) * rng.normal(size=6)

    def f(x):
        d = x - kink
        wave, envelope = np.sin(fast * d), np.exp(growth * d)
        sign = np.where(d == 0, claim, np.sign(wave))
        slope = envelope * (fast * np.cos(fast * d) * sign + growth * np.abs(wave))
        return np.abs(wave) * envelope, lambda dy: dy * slope

    assert check_gradients(f, (x,), max_left_out=0.9)["x"].verdict in ("ok", "noisy")


def test_too_many_kinks_are_an_error_and_so_is_nothing_left():
    x = np.random.default_rng(0).normal(size=(4, 4))
    x[0] = x[1] = 0
    assert check_gradients(relu, (x,))["x"].verdict == "kinks"
    assert_gradients(relu, (x,), max_left_out=0.5)
    assert check_gradients(relu, (np.zeros(3),), max_left_out=0.99)["x"].verdict == "kinks"


@given(distance=st.floats(1e-7, 0.1), seed=st.integers(0, 1000))
def test_a_kink_nearby_is_no_excuse_and_no_false_alarm(distance, seed):
    x = np.array([distance, -distance, 1.0, -1.0, 2.0])
    assert_gradients(lambda x: (np.maximum(x, 0), lambda dy: dy * (x > 0)), (x,), seed=seed)
    assert not check_gradients(lambda x: (np.maximum(x, 0), lambda dy: dy * (x >= -distance)), (x,), seed=seed).ok
