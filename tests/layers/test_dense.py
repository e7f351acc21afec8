"""The dense layer: y = f([x_1, x_2, ...] W + b) and its gradients."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minicvae.gradcheck import check_layer
from minicvae.kernels import OneHot
from minicvae.layers import Dense
from minicvae.layers.dense import ACTIVATIONS

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 5)


@st.composite
def inputs(draw):
    """One to three parts, floats or labels, of n >= 1 examples; and how many columns they join to."""
    rng, n = np.random.default_rng(draw(seeds)), draw(st.integers(1, 6))
    kinds = draw(st.lists(st.tuples(st.booleans(), sizes), min_size=1, max_size=3))
    parts = [OneHot(rng.integers(0, w, n), w) if onehot else rng.standard_normal((n, w)) for onehot, w in kinds]
    return parts, sum(w for _, w in kinds)


def layer_of(d_in, d_out, activation, host, seed):
    """A layer whose bias is not zero, for a check at zero biases would miss what they do."""
    layer = Dense(d_in, d_out, activation)
    parameters = layer.initialise(host.name, "float64", seed)
    parameters["b"] = np.random.default_rng(seed).standard_normal(d_out)
    return layer, parameters


@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(case=inputs(), d_out=sizes, seed=seeds)
def test_all_gradients_are_the_slopes(host, activation, case, d_out, seed):
    parts, d_in = case
    layer, _ = layer_of(d_in, d_out, activation, host, seed)
    y, _ = layer.forward(*parts)
    assume(activation != "relu" or (y > 1e-3).any())
    report = check_layer(layer, *parts, linear=activation == "linear").raise_for_failure()
    expected = d_in * d_out + d_out + sum(np.size(p) for p in parts if not isinstance(p, OneHot))
    assert sum(row.checked + row.kinks for row in report.rows if row.name != "together") == expected


@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(n=st.integers(1, 6), classes=sizes, d=sizes, d_out=sizes, seed=seeds)
def test_labels_do_what_their_one_hot_rows_would(host, activation, n, classes, d, d_out, seed):
    rng = np.random.default_rng(seed)
    layer, parameters = layer_of(d + classes, d_out, activation, host, seed)
    x, labels = rng.standard_normal((n, d)), rng.integers(0, classes, n)
    dy = rng.standard_normal((n, d_out))
    found = []
    for parts in (
        (x, OneHot(labels, classes)),
        (x, np.eye(classes)[labels]),
        (np.hstack([x, np.eye(classes)[labels]]),),
    ):
        parameters.zero_grad()
        y, backward = layer.forward(*parts)
        dx = backward(dy)
        dx = dx[0] if len(parts) > 1 else dx[:, :d]
        found.append([y, dx, parameters.grads["W"].copy(), parameters.grads["b"].copy()])
    for gathered, apart, together in zip(*found, strict=True):
        np.testing.assert_allclose(gathered, apart, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(gathered, together, rtol=1e-12, atol=1e-13)


def test_a_batch_is_its_examples_one_by_one(host):
    rng = np.random.default_rng(0)
    layer, parameters = layer_of(3, 2, "tanh", host, 0)
    x, dy = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    y, backward = layer.forward(x)
    dx = backward(dy)
    whole = parameters.grad.copy()
    parameters.zero_grad()
    for i in range(4):
        y_i, backward = layer.forward(x[i : i + 1])
        np.testing.assert_allclose(y_i[0], y[i], rtol=1e-13)
        np.testing.assert_allclose(backward(dy[i : i + 1])[0], dx[i], rtol=1e-13)
    np.testing.assert_allclose(parameters.grad, whole, rtol=1e-12, atol=1e-14)


def test_what_nobody_needs_is_left_out(host):
    layer, _ = layer_of(5, 2, "relu", host, 0)
    x, z, c, dy = np.ones((4, 2)), np.ones((4, 1)), OneHot(np.zeros(4, np.int64), 2), np.ones((4, 2))
    for need, expected in (
        (True, [True, True, False]),
        (False, [False] * 3),
        ([False, True, True], [False, True, False]),
    ):
        _, backward = layer.forward(x, z, c)
        assert [dx is not None for dx in backward(dy, need_dx=need)] == expected
    _, backward = layer_of(2, 1, "linear", host, 0)[0].forward(x)
    assert backward(dy[:, :1], need_dx=False) is None


@pytest.mark.parametrize(("activation", "variance"), [("relu", 2 / 500), ("elu", 2 / 500), ("tanh", 2 / 800)])
def test_the_weights_start_with_the_variance_that_suits_the_activation(activation, variance):
    parameters = Dense(500, 300, activation).initialise(dtype="float64")
    assert parameters["W"].var() == pytest.approx(variance, rel=0.02)
    assert not parameters["b"].any()


def test_an_initialiser_of_ones_own_choice_is_taken():
    parameters = Dense(500, 300, "relu", "standard_normal").initialise()
    assert parameters["W"].var() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3), "d_in: expected a whole number of at least 1, got 0"),
        ((3, -1), "d_out: expected a whole number of at least 1, got -1"),
        ((3, 3, "swish"), "activation: expected one of linear, relu, tanh, elu, sigmoid, got 'swish'"),
        ((3, 3, "relu", "he"), "initializer: expected one of he_normal, .*, got 'he'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Dense(*arguments)


@pytest.mark.parametrize("width", [4, 6])
def test_parts_that_do_not_fill_the_weights_are_refused(host, width):
    """A compiled gather would read a label without a row of its own from beyond the weights."""
    layer, _ = layer_of(2 + 5, 3, "relu", host, 0)
    for c in (OneHot(np.array([0]), width), np.ones((1, width))):
        with pytest.raises(ValueError, match=rf"^Dense\(7, 3\) got inputs of 2 \+ {width} columns"):
            layer.forward(np.ones((1, 2)), c)
