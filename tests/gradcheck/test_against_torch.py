"""Beside torch.autograd.gradcheck: the same verdicts on common ground, and the right ones where that checker is fooled.

Needs PyTorch (`pip install 'minicvae[torch]'`); without it the whole file is skipped.
"""

import numpy as np
import pytest

from minicvae.gradcheck import check_gradients

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'minicvae[torch]'")

RNG = np.random.default_rng(0)


def torch_says_ok(forward, inputs, **options):
    """The verdict of torch.autograd.gradcheck, at its default tolerances, on the same forward and backward."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            y, ctx.numpy_backward = forward(*(t.numpy() for t in tensors))
            return torch.from_numpy(np.array(y))

        @staticmethod
        def backward(ctx, dy):
            dx = ctx.numpy_backward(dy.numpy())
            return tuple(torch.from_numpy(np.array(d)) for d in (dx if isinstance(dx, tuple) else (dx,)))

    tensors = tuple(torch.from_numpy(x.copy()).requires_grad_() for x in inputs)
    return torch.autograd.gradcheck(Function.apply, tensors, raise_exception=False, **options)


def dense(x, W, b):
    y = np.tanh(x @ W + b)

    def backward(dy):
        g = dy * (1 - y * y)
        return g @ W.T, x.T @ g, g.sum(axis=0)

    return y, backward


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    y = e / e.sum(axis=1, keepdims=True)
    return y, lambda dy: y * (dy - (dy * y).sum(axis=1, keepdims=True))


def log_normal(x, log_var):
    y = 0.5 * (x**2 * np.exp(-log_var) + log_var)
    return y, lambda dy: (dy * x * np.exp(-log_var), dy * 0.5 * (1 - x**2 * np.exp(-log_var)))


def relu(x):
    return np.maximum(x, 0), lambda dy: dy * (x > 0)


def scaled(forward, k, factor):
    """`forward`, with the k-th of its gradients multiplied by a factor."""

    def wrong(*inputs):
        y, backward = forward(*inputs)

        def broken(dy):
            dx = backward(dy)
            if not isinstance(dx, tuple):
                return factor * dx
            return tuple(factor * d if i == k else d for i, d in enumerate(dx))

        return y, broken

    return wrong


FUNCTIONS = {
    "dense": (dense, (RNG.normal(size=(3, 4)), RNG.normal(size=(4, 2)), RNG.normal(size=2))),
    "softmax": (softmax, (RNG.normal(size=(3, 4)),)),
    "log_normal": (log_normal, (RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3)))),
    "relu": (relu, (RNG.normal(size=(4, 4)),)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_both_pass_what_is_right(name):
    forward, inputs = FUNCTIONS[name]
    assert torch_says_ok(forward, inputs)
    assert check_gradients(forward, inputs).ok


@pytest.mark.parametrize("factor", [0.0, -1.0, 0.5, 1.01, np.nan])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_both_catch_what_is_plainly_wrong(name, factor):
    forward, inputs = FUNCTIONS[name]
    for k in range(len(inputs)):
        wrong = scaled(forward, k, factor)
        assert not torch_says_ok(wrong, inputs)
        assert not check_gradients(wrong, inputs).ok


def test_fooled_by_a_cotangent_that_sees_nothing():
    """L = Σ softmax(x) is 1 whatever x is: a backward that returns zeros, or rounding errors, agrees with it."""

    def summed(x):
        y, _ = softmax(x)
        return y.sum(), lambda dy: np.zeros_like(x)

    inputs = (RNG.normal(size=(3, 4)),)
    assert torch_says_ok(summed, inputs)
    assert check_gradients(summed, inputs)["x"].verdict == "vacuous"


@pytest.mark.parametrize("factor", [0.0, -1.0, 10.0])
def test_fooled_by_gradients_below_the_absolute_tolerance(factor):
    """A gradient of 2e-7 may be anything below 1e-5: its sign is not looked at."""

    def small(x):
        return 1e-7 * x**2, lambda dy: 2e-7 * dy * x

    inputs = (RNG.uniform(0.5, 1, size=5),)
    wrong = scaled(small, 0, factor)
    assert torch_says_ok(wrong, inputs)
    assert check_gradients(wrong, inputs)["x"].verdict == "WRONG"
    assert check_gradients(small, inputs).ok


def test_fooled_by_an_error_below_the_relative_tolerance():
    """Half a per mille is below 1e-3, and far above rounding."""
    inputs = (RNG.uniform(0.5, 1, size=5),)
    wrong = scaled(lambda x: (np.exp(x), lambda dy: dy * np.exp(x)), 0, 1.0005)
    assert torch_says_ok(wrong, inputs)
    assert check_gradients(wrong, inputs)["x"].verdict == "WRONG"


def test_fooled_by_a_kink_into_passing_a_wrong_gradient():
    """At a kink central differences give the mean of the two slopes, and a backward that is wrong may give it too."""

    def halves(x):  # a relu whose slope is taken to be one half everywhere
        return np.maximum(x, 0), lambda dy: 0.5 * dy

    assert torch_says_ok(halves, (np.zeros(4),))
    assert check_gradients(halves, (np.zeros(4),))["x"].verdict == "kinks"


def test_fooled_by_a_kink_into_rejecting_a_right_gradient():
    x = RNG.normal(size=(4, 4))
    x[0, 0] = 0
    assert not torch_says_ok(relu, (x,))
    report = check_gradients(relu, (x,))
    assert report.ok
    assert report["x"].kinks == 1


def test_fooled_by_a_kink_nearby():
    """The fixed step of 1e-6 straddles a kink at a distance of 1e-7; smaller ones do not."""
    x = np.array([1e-7, -0.5, 0.5, 1.0])
    assert not torch_says_ok(relu, (x,))
    report = check_gradients(relu, (x,))
    assert report.ok
    assert report["x"].checked == 4


def test_fooled_by_a_backward_that_is_not_linear():
    """Unit vectors as upstream gradients are never clipped."""

    def clipped(x):
        return x**2, lambda dy: np.clip(2 * dy * x, -100, 100)

    inputs = (RNG.normal(size=5),)
    assert torch_says_ok(clipped, inputs)
    assert not check_gradients(clipped, inputs).ok
