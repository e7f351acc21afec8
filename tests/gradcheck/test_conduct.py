"""What a function may not do while it is checked, and what the checker may not do to it."""

import numpy as np
import pytest

from minicvae.gradcheck import assert_gradients, check_gradients
from minicvae.gradcheck.comparison import ROUNDING
from minicvae.gradcheck.differences import EPS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4))


def square(x):
    return x**2, lambda dy: 2 * dy * x


def problems(forward, inputs=(X,), **options):
    inputs = tuple(x.copy() for x in inputs)
    before = [x.copy() for x in inputs]
    report = check_gradients(forward, inputs, **options)
    assert not report.ok
    for x, b in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(x, b)  # the checker puts right what the function did
    return "\n".join(report.problems)


def test_a_forward_that_changes_its_input_is_refused():
    def forward(x):
        np.maximum(x, 0, out=x)
        return x.copy(), lambda dy: dy * (x > 0)

    assert "forward changes its argument x" in problems(forward)


def test_a_backward_that_changes_its_input_is_refused():
    def forward(x):
        def backward(dy):
            x[0] = 0
            return dy * 2

        return 2 * x, backward

    assert "backward changes its argument x" in problems(forward)


def test_a_backward_that_changes_the_upstream_gradient_is_refused():
    def forward(x):
        def backward(dy):
            dy *= 2 * x
            return dy

        return x**2, backward

    assert "backward changes the upstream gradient dy" in problems(forward)


def test_a_forward_that_changes_a_parameter_is_refused():
    W = np.ones(4)

    def forward(x):
        W[...] += 1
        return x * W, lambda dy: dy * W

    report = check_gradients(forward, (X,), {"W": W}, lambda: {"W": X.sum(axis=0)})
    assert "forward changes its argument W" in "\n".join(report.problems)


def test_a_function_that_draws_its_own_noise_is_refused():
    rng = np.random.default_rng(1)

    def forward(x):
        eps = rng.normal(size=x.shape)
        return x * eps, lambda dy: dy * eps

    assert "forward and backward give another result (y, the gradient of x)" in problems(forward)


def test_a_backward_that_keeps_state_between_calls_is_refused():
    total = np.zeros_like(X)

    def forward(x):
        def backward(dy):
            total[...] += 2 * dy * x
            return total

        return x**2, backward

    assert "another result (the gradient of x)" in problems(forward)


def test_a_backward_that_is_not_zero_for_a_zero_upstream_gradient_is_refused():
    assert "is not zero for dy = 0" in problems(lambda x: (x**2, lambda dy: 2 * dy * x + 1e-30))


def test_a_backward_that_clips_is_not_linear():
    assert "is not linear in dy" in problems(lambda x: (x**2, lambda dy: np.clip(2 * dy * x, -100, 100)))


def test_a_backward_that_loses_the_sign_is_not_linear():
    assert "is not linear in dy" in problems(lambda x: (x**2, lambda dy: 2 * np.abs(dy) * x))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_backward_that_rounds_is_linear_at_every_scale(scale):
    def rounding(part):
        return lambda x: (scale * x, lambda dy: scale * dy * (1 + part * EPS * (np.abs(dy) > 100)))

    assert check_gradients(rounding(ROUNDING / EPS / 2), (X,)).problems == ()
    assert "is not linear in dy" in problems(rounding(2 * ROUNDING / EPS))


def test_a_linear_map_has_to_be_zero_for_zero_as_any_other():
    found = problems(lambda x: (2 * x, lambda dy: 2 * dy + 1e-30), linear=True)
    assert "is not zero for dy = 0" in found
    assert "<u, J v>" not in found


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_named(bad):
    def forward(x):
        y = x**2
        y[1, 2] = bad
        return y, lambda dy: 2 * dy * x

    assert f"forward gives {bad}, the output number 6" in problems(forward)


def test_an_output_of_another_type_is_refused():
    assert "forward gives float32" in problems(lambda x: (x.astype(np.float32), lambda dy: dy.astype(float)))


def test_the_upstream_gradient_is_random_and_has_the_form_of_the_output():
    seen = []

    def forward(x):
        def backward(dy):
            seen.append(dy)
            return 2 * dy[0] * x + dy[1]

        return (x**2, x.sum()), backward

    assert_gradients(forward, (X,))
    array, number = seen[0]
    assert array.shape == X.shape
    assert np.isscalar(number)
    assert len(np.unique(np.abs(array))) == X.size
    assert (array < 0).any()
    assert (array > 0).any()
    assert np.all(np.abs(array) >= 0.5)


def test_each_backward_has_a_forward_of_its_own_and_is_called_once():
    def forward(x):
        calls = []

        def backward(dy):
            assert not calls, "called twice"
            calls.append(dy)
            return 2 * dy * x

        return x**2, backward

    assert_gradients(forward, (X,))


def test_outputs_in_memory_that_is_used_again_are_right():
    buffer = np.empty_like(X)

    def forward(x):
        np.multiply(x, x, out=buffer)
        kept = x.copy()
        return buffer, lambda dy: 2 * dy * kept

    assert_gradients(forward, (X,), method="differences")


def test_inputs_without_gradients_pass_through():
    seen = set()

    def forward(x, labels, name, nothing):
        seen.add((type(labels), name, nothing))
        return x[labels] ** 2, lambda dy: (_scatter(2 * dy * x[labels], labels, x), None, None, None)

    report = assert_gradients(forward, (X, np.array([0, 2, 2]), "name", None))
    assert [row.name for row in report.rows] == ["x"]
    assert seen == {(np.ndarray, "name", None)}


def _scatter(g, labels, x):
    out = np.zeros_like(x)
    np.add.at(out, labels, g)
    return out


def test_a_float_is_an_input_too():
    for inputs in ((0.3,), 0.3, [0.3]):
        report = assert_gradients(lambda x: (np.sin(x), lambda dy: dy * np.cos(x)), inputs)
        assert report["x"].shape == ()


def test_strided_read_only_and_repeated_inputs_are_checked_as_they_are():
    wide = RNG.normal(size=(6, 8))
    strided = wide[::2, ::2]
    frozen = X.copy()
    frozen.flags.writeable = False

    def product(a, b):
        return a * b, lambda dy: (dy * b, dy * a)

    for a, b in [(strided, frozen), (frozen, frozen), (np.asfortranarray(X), np.broadcast_to(X[0], X.shape))]:
        assert_gradients(product, (a, b))
        assert_gradients(product, (a, b), method="differences")


def test_parameters_are_changed_in_place_and_restored():
    W, b = RNG.normal(size=(4, 2)), RNG.normal(size=2)
    before, grads, seen = (W.copy(), b.copy()), {}, []

    def forward(x):
        seen.append(W.copy())

        def backward(dy):
            grads["W"], grads["b"] = x.T @ dy, dy.sum(axis=0)
            return dy @ W.T

        return x @ W + b, backward

    for gradients in (grads, lambda: grads):
        report = assert_gradients(forward, (X,), {"W": W, "b": b}, gradients)
        assert [row.name for row in report.rows] == ["x", "W", "b", "together"]
        np.testing.assert_array_equal(W, before[0])
        np.testing.assert_array_equal(b, before[1])
    assert any((w != before[0]).any() for w in seen)


@pytest.mark.parametrize("countdown", [1, 5, 12, 30, 60])
def test_parameters_are_restored_when_forward_fails_midway(countdown):
    W = RNG.normal(size=4)
    before, left = W.copy(), [countdown]

    def forward(x):
        left[0] -= 1
        if left[0] == 0:
            raise RuntimeError("out of order")
        return x * np.exp(W), lambda dy: dy * np.exp(W)

    with pytest.raises(RuntimeError, match="out of order"):
        check_gradients(forward, (X,), {"W": W}, lambda: {"W": np.exp(W) * X.sum(axis=0)}, method="differences")
    np.testing.assert_array_equal(W, before)


def test_a_parameter_without_gradient_is_named():
    W = np.ones(4)
    report = check_gradients(lambda x: (x * W, lambda dy: dy * W), (X,), {"W": W}, {})
    assert report["W"].verdict == "missing"
    assert report["x"].ok


def test_the_same_seed_is_the_same_report():
    texts = [str(check_gradients(square, (X,), seed=seed)) for seed in (3, 3, 4)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "x: expected float64, got float32", lambda: check_gradients(square, (X.astype(np.float32),))),
        (TypeError, "x: expected float64, got complex128", lambda: check_gradients(square, (X + 0j,))),
        (ValueError, "inputs: expected at least one.*got ndarray", lambda: check_gradients(square, (np.arange(3),))),
        (TypeError, "inputs: expected an array, or a tuple.*got int", lambda: check_gradients(square, 3)),
        (TypeError, "inputs: expected an array, or a tuple.*got dict", lambda: check_gradients(square, {"x": X})),
        (TypeError, "inputs: expected an array, or a tuple.*got str", lambda: check_gradients(square, "x")),
        (
            TypeError,
            r"inputs: expected one for .*\(x\), got 2 .*in one array",
            lambda: check_gradients(square, [1.0, 2.0]),
        ),
        (
            ValueError,
            r"forward: expected y .*got shape \(0, 4\)",
            lambda: check_gradients(lambda x: (x[:0], np.sin), (X,)),
        ),
        (ValueError, "forward: expected y to have at least one", lambda: check_gradients(lambda x: ((), np.sin), (X,))),
        (TypeError, "forward: expected y to be.*got dict", lambda: check_gradients(lambda x: ({"y": x}, np.sin), (X,))),
        (ValueError, "x: expected finite values", lambda: check_gradients(square, (X * np.nan,))),
        (ValueError, "x: expected at least one element", lambda: check_gradients(square, (X[:0],))),
        (TypeError, "forward: expected to return", lambda: check_gradients(lambda x: x, (X,))),
        (ValueError, "method: expected one of", lambda: check_gradients(square, (X,), method="magic")),
        (ValueError, "elements: expected at least 1", lambda: check_gradients(square, (X,), elements=0)),
        (ValueError, "max_left_out: expected a share", lambda: check_gradients(square, (X,), max_left_out=1.0)),
        (ValueError, "vanishing: z is none of x", lambda: check_gradients(square, (X,), vanishing={"z"})),
        (ValueError, "names: expected 1", lambda: check_gradients(square, (X,), names=("a", "b"))),
        (ValueError, "names: expected one of its own", lambda: check_gradients(np.dot, (X, X), names=("a", "a"))),
        (ValueError, "names: x names both", lambda: check_gradients(square, (X,), {"x": X.copy()}, {})),
        (ValueError, "gradients: expected", lambda: check_gradients(square, (X,), {"W": X.copy()})),
    ],
)
def test_what_cannot_be_checked_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()
