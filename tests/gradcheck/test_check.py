"""Right gradients pass, wrong ones do not: the functions are right, the mistakes are planted one at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.gradcheck import assert_gradients, check_gradients
from minicvae.gradcheck.comparison import spread

METHODS = ["differences", "auto"]
SIZES = st.tuples(st.integers(1, 6), st.integers(2, 6), st.integers(1, 6))


def dense(x, W, b):
    y = np.tanh(x @ W + b)

    def backward(dy):
        g = dy * (1 - y * y)
        return g @ W.T, x.T @ g, g.sum(axis=0)

    return y, backward


def affine(x, W, b):
    return x @ W + b, lambda dy: (dy @ W.T, x.T @ dy, dy.sum(axis=0))


def layer_norm(x, gain, bias):
    centred = x - x.mean(axis=1, keepdims=True)
    sigma = np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    normal = centred / sigma

    def backward(dy):
        g = dy * gain
        dx = (g - g.mean(axis=1, keepdims=True) - normal * (g * normal).mean(axis=1, keepdims=True)) / sigma
        return dx, (dy * normal).sum(axis=0), dy.sum(axis=0)

    return normal * gain + bias, backward


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    y = e / e.sum(axis=1, keepdims=True)
    return y, lambda dy: y * (dy - (dy * y).sum(axis=1, keepdims=True))


def cross_entropy(x, labels):
    y, _ = softmax(x)
    rows = np.arange(len(x))

    def backward(dloss):
        dx = y.copy()
        dx[rows, labels] -= 1
        return dloss * dx, None

    top = x.max(axis=1)
    return float((np.log(np.exp(x - top[:, None]).sum(axis=1)) + top - x[rows, labels]).sum()), backward


def moments(x):
    """Two outputs: the mean and the centred square."""
    centred = x - x.mean(axis=0)

    def backward(dy):
        dmean, dsquare = dy
        g = 2 * dsquare * centred
        return np.broadcast_to(dmean / len(x), x.shape) + g - g.mean(axis=0)

    return (x.mean(axis=0), centred**2), backward


def draw(sizes, seed, scale=1.0):
    n, d, k = sizes
    rng = np.random.default_rng(seed)
    x = scale * rng.normal(size=(n, d))
    return x, rng.normal(size=(d, k)) / np.sqrt(d), rng.normal(size=k), rng


@pytest.mark.parametrize("method", METHODS)
@given(sizes=SIZES, seed=st.integers(0, 2**32), scale=st.floats(0.01, 2))
def test_right_gradients_pass(method, sizes, seed, scale):
    n, d, _ = sizes
    x, W, b, rng = draw(sizes, seed, scale)
    wide = rng.normal(size=(n, d + 1)) + np.arange(d + 1)  # LayerNorm of two features has next to no slope
    calls = [
        (dense, (x, W, b)),
        (layer_norm, (wide, rng.normal(size=d + 1), rng.normal(size=d + 1))),
        (softmax, (x,)),
        (cross_entropy, (x, rng.integers(0, d, n))),
        (moments, (rng.normal(size=(n + 1, d)),)),
    ]
    for forward, inputs in calls:
        report = assert_gradients(forward, inputs, method=method, seed=seed % 1000, title=forward.__name__)
        floats = [a for a in inputs if a.dtype == np.float64]
        assert [row.checked + row.kinks + row.noisy for row in report.rows[: len(floats)]] == [a.size for a in floats]
        assert all(row.relative < 1e-8 for row in report.rows)


@given(sizes=SIZES, seed=st.integers(0, 2**32))
def test_smooth_gradients_agree_to_eleven_digits_by_differences_and_thirteen_by_the_complex_step(sizes, seed):
    inputs = draw(sizes, seed)[:3]
    for method, digits in (("differences", 11), ("complex", 13)):
        report = assert_gradients(dense, inputs, method=method)
        assert all(row.relative < 10.0**-digits for row in report.rows[:3])
    assert np.isnan(report["x"].step)


def test_the_complex_step_is_left_alone_where_it_would_be_wrong():
    def modulus(x):  # |x + ih| is not analytic
        return np.abs(x) ** 2, lambda dy: 2 * dy * x

    def real_part(x):  # drops the imaginary part, with a warning that NumPy gives
        return np.array(x, dtype=float) ** 2 + 0, lambda dy: 2 * dy * x

    def half_real(x):  # analytic in one place only
        return x.real**2 * np.exp(x), lambda dy: dy * (2 * x + x * x) * np.exp(x)

    x = np.random.default_rng(0).normal(size=5)
    for forward in (modulus, real_part, half_real):
        assert np.isfinite(assert_gradients(forward, (x,), method="auto")["x"].step)
        with pytest.raises(ValueError, match="method: the complex step"):
            check_gradients(forward, (x,), method="complex")


MISTAKES = {
    "dropped factor": lambda dx, dW, db: (dx, dW / 2, db),
    "sign": lambda dx, dW, db: (dx, dW, -db),
    "transposed": lambda dx, dW, db: (dx, dW.T.copy(), db),
    "missing sum": lambda dx, dW, db: (dx, dW, db * 0 + db[0]),
    "half a per mille": lambda dx, dW, db: (dx * 1.0005, dW, db),
    "zeros": lambda dx, dW, db: (dx, dW * 0, db),
    "not a number": lambda dx, dW, db: (dx, dW, np.where(np.arange(len(db)) == 1, np.nan, db)),
    "infinity": lambda dx, dW, db: (np.where(dx == dx.max(), np.inf, dx), dW, db),
    "shape": lambda dx, dW, db: (dx, dW, db[None]),
    "type": lambda dx, dW, db: (dx.astype(np.float32), dW, db),
    "missing": lambda dx, dW, db: (dx, None, db),
    "too few": lambda dx, dW, db: (dx, dW),
    "swapped": lambda dx, dW, db: (dW, dx, db),
    "added constant": lambda dx, dW, db: (dx, dW + 1e-7, db),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_caught(mistake, method):
    def wrong(x, W, b):
        y, backward = dense(x, W, b)
        return y, lambda dy: MISTAKES[mistake](*backward(dy))

    inputs = draw((4, 4, 4), 0)[:3]
    assert_gradients(dense, inputs, method=method)
    report = check_gradients(wrong, inputs, method=method)
    assert not report.ok
    with pytest.raises(AssertionError, match="FAILED"):
        assert_gradients(wrong, inputs, method=method)


@pytest.mark.parametrize(
    ("mistake", "hint"),
    [
        ("dropped factor", "0.5 times"),
        ("sign", "-1 times"),
        ("transposed", "transpose"),
        ("half a per mille", "1.0005 times"),
        ("zeros", "is zero"),
        ("added constant", "the same all along axis 0"),
        ("shape", r"shape \(1, 4\), not \(4,\)"),
        ("not a number", r"nan at \[1\]"),
        ("type", "the gradient is float32, not float64"),
        ("missing", "backward gives no gradient"),
    ],
)
def test_the_report_says_what_kind_of_mistake_it_is(mistake, hint):
    def wrong(x, W, b):
        y, backward = dense(x, W, b)
        return y, lambda dy: MISTAKES[mistake](*backward(dy))

    with pytest.raises(AssertionError, match=hint):
        assert_gradients(wrong, draw((4, 4, 4), 0)[:3])


@pytest.mark.parametrize(("relative", "elements"), [(1e-2, 10), (5e-4, 10), (1e-6, 10), (5e-4, 10_000)])
def test_one_wrong_element_among_ten_thousand_is_found(relative, elements):
    rng = np.random.default_rng(3)
    x, W = rng.normal(size=(6, 100)), rng.normal(size=(100, 100)) / 10

    def wrong(W):
        y, backward = dense(x, W, 0.0)

        def broken(dy):
            dW = backward(dy[:, None][:, 0])[1]
            dW[71, 29] *= 1 + relative
            return dW

        return y, broken

    row = check_gradients(wrong, (W,), elements=elements)["W"]
    assert (row.verdict, row.worst) == ("WRONG", (71, 29))
    assert row.error == pytest.approx(relative * abs(row.truth), rel=1e-3)


def test_a_large_array_is_sampled_and_the_largest_gradients_are_among_the_sample():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 60)) * np.exp(rng.normal(size=(50, 60)))

    def square(x):
        return 0.5 * np.sum(x * x), lambda dy: dy * x

    report = assert_gradients(square, (x,), elements=10)
    row = report["x"]
    largest = np.argsort(-np.abs(x), axis=None)[:5]
    assert row.checked == 10
    assert np.isfinite(row.errors.flat[largest]).all()
    assert np.isfinite(row.errors).sum() == 10


def test_small_gradients_are_held_to_their_own_size():
    x = np.random.default_rng(0).normal(size=6)
    assert_gradients(lambda x: (1e-9 * np.sum(x**2), lambda dy: 2e-9 * dy * x), (x,))
    report = check_gradients(lambda x: (1e-9 * np.sum(x**2), lambda dy: -2e-9 * dy * x), (x,))
    assert report["x"].verdict == "WRONG"


def test_zero_against_zero_is_void():
    x = np.random.default_rng(0).normal(size=(3, 4))
    report = check_gradients(lambda x: (softmax(x)[0].sum(), lambda dy: np.zeros_like(x)), (x,))
    assert report["x"].verdict == "vacuous"

    def unused(x, W):
        return np.exp(x), lambda dy: (dy * np.exp(x), np.zeros_like(W))

    report = check_gradients(unused, (x, x))
    assert [row.verdict for row in report.rows[:2]] == ["ok", "vacuous"]
    assert "W: both gradients vanish" in str(report)
    assert_gradients(unused, (x, x), vanishing={"W"})
    assert check_gradients(unused, (x, x), vanishing={"x", "W"})["x"].verdict == "not zero"


def test_a_gradient_where_there_is_none_is_wrong():
    x = np.random.default_rng(0).normal(size=(3, 4))
    report = check_gradients(lambda x: (softmax(x)[0].sum(), lambda dy: dy * x), (x,))
    assert report["x"].verdict == "WRONG"


@given(seed=st.integers(0, 2**32), size=st.floats(1, 100))
def test_saturation_raises_no_false_alarm(seed, size):
    x = size * np.random.default_rng(seed).normal(size=(4, 5))
    for method in METHODS:
        assert check_gradients(softmax, (x,), method=method)["x"].verdict in ("ok", "vacuous", "noisy")
        assert (
            check_gradients(lambda x: (np.tanh(x), lambda dy: dy * (1 - np.tanh(x) ** 2)), (x,))["x"].verdict != "WRONG"
        )


@given(seed=st.integers(0, 2**32), margin=st.floats(1, 25))
def test_a_loss_that_is_small_beside_its_terms_raises_no_false_alarm(seed, margin):
    """(log Σ exp(x - m) + m) - x is 1e-10 beside an m of 25, and its last place is that of 25."""
    x = np.random.default_rng(seed).normal(size=(1, 4))
    x[0, 0] += margin
    assert check_gradients(cross_entropy, (x, np.array([0])))["x"].verdict != "WRONG"


def test_an_error_too_thin_for_any_element_shows_in_a_direction():
    """4096 errors below the bound of an element, all of which help a direction: no excuse, and no element to blame."""
    rng = np.random.default_rng(0)
    spread(rng, (1,))  # the upstream gradient
    signs = np.sign(spread(rng, (4096,)))
    thin = 3e-13 * signs
    x = np.random.default_rng(1).normal(size=4096)
    report = check_gradients(lambda x: (1e3 + x.sum(), lambda dy: dy * (1 + thin)), (x,), elements=64, seed=0)
    assert report["x"].verdict == "WRONG"
    assert report["x"].worst is None
    assert "whole" in str(report)


def test_the_rounding_of_a_gradient_itself_is_allowed():
    x = np.random.default_rng(0).normal(size=4)
    for units, ok in ((20, True), (2000, False)):
        few = 1 + units * np.finfo(float).eps
        assert check_gradients(lambda x, few=few: (3 * x, lambda dy: 3 * dy * few), (x,), method="complex").ok == ok


def test_float32_inside_is_noticed():
    def hidden(x):
        return np.sin(x.astype(np.float32)).astype(float), lambda dy: dy * np.cos(x)

    assert check_gradients(hidden, (np.random.default_rng(0).normal(size=20),))["x"].verdict == "noisy"


@given(seed=st.integers(0, 2**32), slope=st.sampled_from([1e-3, 1.0, 10.0]))
def test_float32_in_one_term_of_a_sum_raises_no_false_alarm(seed, slope):
    """The other term, in float64, moves at steps at which that in float32 still stands."""

    def residual(x):
        return slope * x + np.sin(x.astype(np.float32)), lambda dy: dy * (slope + np.cos(x))

    x = np.random.default_rng(seed).normal(size=20)
    assert check_gradients(residual, (x,), seed=seed % 1000)["x"].verdict in ("ok", "noisy")


@given(factor=st.sampled_from([-1.0, 0.0, 0.99, 1.01, 2.0]), seed=st.integers(0, 1000))
def test_a_mistake_is_seen_in_elements_too_noisy_to_count(factor, seed):
    x = np.random.default_rng(seed).uniform(0.2, 1.2, size=(4, 10))

    def partly(x, factor=1.0):
        y, slope = np.sin(x), np.cos(x)
        y[:, :2] = np.sin(x[:, :2].astype(np.float32))
        slope[:, :2] *= factor
        return y, lambda dy: dy * slope

    assert_gradients(partly, (x,), seed=seed, max_left_out=0.25)
    row = check_gradients(lambda x: partly(x, factor), (x,), seed=seed)["x"]
    assert row.verdict == "WRONG"
    assert row.worst[1] < 2


ODD_AND_EVEN_POLES = {
    "1/x": (lambda x: 1 / x, lambda x: -1 / x**2),
    "1/x²": (lambda x: 1 / x**2, lambda x: -2 / x**3),
    "log": (lambda x: np.log(np.abs(x)), lambda x: 1 / x),
}


@pytest.mark.parametrize("name", ODD_AND_EVEN_POLES)
@given(exponents=st.lists(st.floats(-12, 1), min_size=1, max_size=5), negative=st.booleans())
def test_a_pole_that_the_steps_leap_over_raises_no_false_alarm(name, exponents, negative):
    f, df = ODD_AND_EVEN_POLES[name]
    x = 10.0 ** np.array([*exponents, 0]) * (-1 if negative else 1)
    assert_gradients(lambda x: (f(x), lambda dy: dy * df(x)), (x,), method="differences")
    for wrong in (2.0, -1.0, 1.0001):
        assert not check_gradients(lambda x, k=wrong: (f(x), lambda dy: k * dy * df(x)), (x,)).ok


def test_a_direction_alone_does_not_fail_an_array_whose_elements_were_all_compared():
    """∛(abc) has all partial derivatives at 0, and they are zero; in other directions it has another slope."""
    x = np.random.default_rng(0).normal(size=3)

    def f(a, b):
        return a**2 + b + np.cbrt(np.prod(a - x)), lambda dy: (2 * dy * a, dy)

    report = assert_gradients(f, (x, x))
    assert (report["a"].checked, report["a"].relative < 1e-8) == (3, True)
    assert "a: every element is right, a direction through all is not" in str(report)
    assert check_gradients(f, (x, x), elements=2)["a"].verdict == "WRONG"


SIZES_OF_NUMBERS = [(1e200, 1.0), (2.0, 1e300), (1e-200, 1.0), (2.0, 1e-300), (1e-308, 1.0), (1e154, 1e150)]


@pytest.mark.parametrize("method", METHODS)
@given(x=st.lists(st.floats(0, 1e-307), min_size=1, max_size=5), size=st.floats(0.01, 100))
def test_elements_next_to_zero_beside_others_are_compared(x, size, method):
    """A step to their zero is not a normal number; the differences take 64 sizes of steps and do not get there."""
    assert_gradients(lambda x: (np.sin(x), lambda dy: dy * np.cos(x)), (np.array([*x, size]),), method=method)


@pytest.mark.parametrize(("factor", "size"), SIZES_OF_NUMBERS)
@pytest.mark.parametrize("method", METHODS)
def test_huge_and_tiny_numbers_are_compared_like_others(factor, size, method):
    x, z = size * np.random.default_rng(0).normal(size=(2, 3, 4))
    right = assert_gradients(lambda x, z: (factor * (x + z), lambda dy: (factor * dy,) * 2), (x, z), method=method)
    assert [row.checked for row in right.rows[:2]] == [12, 12]
    wrong = check_gradients(lambda x: (factor * x, lambda dy: 1.001 * factor * dy), (x,), method=method)
    assert wrong["x"].verdict == "WRONG"
    assert "1.001 times" in str(wrong)


def test_numbers_whose_differences_overflow_are_no_mistake():
    x = np.array([1.6e308, -1.7e308, 1.2e308])
    row = check_gradients(lambda x: (x, lambda dy: dy), (x,), method="differences")["x"]
    assert row.verdict in ("ok", "noisy")


@given(sizes=SIZES, seed=st.integers(0, 2**32), offset=st.sampled_from([0.0, 10.0, 1e4]))
def test_ill_conditioned_gradients_raise_no_false_alarm(sizes, seed, offset):
    n, d, _ = sizes
    rng = np.random.default_rng(seed)
    x = offset + 0.1 * rng.normal(size=(n, d + 1)) + np.arange(d + 1)  # of two features alone, dL/dx is all but zero
    for method in METHODS:
        assert_gradients(layer_norm, (x, rng.normal(size=d + 1), np.zeros(d + 1)), method=method)


@given(sizes=SIZES, seed=st.integers(0, 2**32))
def test_linear_maps_satisfy_the_adjoint_identity(sizes, seed):
    x, W, b, _ = draw(sizes, seed)
    assert_gradients(affine, (x, W, b), linear=True, seed=seed % 1000)

    def wrong(x, W, b):
        y, backward = affine(x, W, b)
        return y, lambda dy: (backward(dy)[0] + 1e-9 * np.sum(dy), *backward(dy)[1:])

    assert any("x: <u, J v>" in p for p in check_gradients(wrong, (x, W, b), linear=True, seed=seed % 1000).problems)


def test_a_map_that_bends_is_not_linear():
    report = check_gradients(dense, draw((3, 4, 2), 0)[:3], linear=True)
    assert not report.ok
    assert all("declared linear" in problem for problem in report.problems)
    assert len(report.problems) == 3
