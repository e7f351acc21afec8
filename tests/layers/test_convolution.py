"""Convolution and its transpose as layers: sizes, gradients, weights at the start, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minicvae.description import describe, restore
from minicvae.gradcheck import check_layer
from minicvae.layers import Conv2D, ConvTranspose2D
from minicvae.layers.dense import ACTIVATIONS

KINDS = [Conv2D, ConvTranspose2D]
both = pytest.mark.parametrize("kind", KINDS)

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 3)
size_or_pair = st.one_of(st.integers(1, 4), st.tuples(st.integers(1, 4), st.integers(1, 4)))
stride_or_pair = st.one_of(sizes, st.tuples(sizes, sizes))


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


@st.composite
def layers(draw, kind):
    """A layer, and images for it: of one pixel upwards, or of the kernel's size where they have to be."""
    kernel, padding = draw(size_or_pair), draw(st.sampled_from(["same", "valid"]))
    layer = kind(draw(sizes), draw(sizes), kernel, draw(stride_or_pair), padding)
    least = pair(kernel) if kind is Conv2D and padding == "valid" else (1, 1)
    rng = np.random.default_rng(draw(seeds))
    h, w = (draw(st.integers(k, k + 2)) for k in least)
    return layer, rng.standard_normal((draw(sizes), h, w, layer.c_in))


def initialised(layer, host, activation="linear"):
    """The layer with that activation, with biases that are not zero, and its parameters."""
    layer = replace(layer, activation=activation) if activation != "linear" else layer
    parameters = layer.initialise(host.name, "float64")
    parameters["b"] = np.random.default_rng(0).standard_normal(layer.c_out)
    return layer, parameters


@both
@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(data=st.data())
def test_all_gradients_are_the_slopes(host, kind, activation, data):
    layer, x = data.draw(layers(kind))
    layer, parameters = initialised(layer, host, activation)
    y, _ = layer.forward(x)
    lives = (y > 1e-3) & (y != layer.b.value)  # ... and not of the bias alone, as between the stamps of a small kernel
    assume(activation != "relu" or lives.any())
    report = check_layer(layer, x, linear=activation == "linear").raise_for_failure()
    checked = sum(row.checked + row.kinks for row in report.rows if row.name != "together")
    assert checked == x.size + parameters.size


@given(data=st.data())
def test_the_sizes_are_those_that_the_docstring_promises(host, data):
    layer, x = data.draw(layers(Conv2D))
    initialised(layer, host)
    expected = [
        -(-size // s) if layer.padding == "same" else (size - k) // s + 1
        for size, k, s in zip(x.shape[1:3], pair(layer.kernel), pair(layer.stride), strict=True)
    ]
    assert layer.forward(x)[0].shape == (len(x), *expected, layer.c_out)


@given(data=st.data())
def test_a_transposed_layer_takes_an_image_back_to_where_a_convolution_had_it_from(host, data):
    """Its output has the size that `Conv2D` with the same settings makes an image of the size of its input of."""
    layer, x = data.draw(layers(ConvTranspose2D))
    initialised(layer, host)
    y, _ = layer.forward(x)
    if layer.padding == "same":
        assert y.shape[1:3] == tuple(np.multiply(x.shape[1:3], pair(layer.stride)))
    down = Conv2D(layer.c_out, layer.c_in, layer.kernel, layer.stride, layer.padding)
    down.initialise(host.name, "float64")
    assert down.W.shape == layer.W.shape
    down.W.value[...] = layer.W.value
    v = np.random.default_rng(0).standard_normal(y.shape)
    v_down, _ = down.forward(v)
    assert v_down.shape == x.shape
    assert np.sum(v_down * x) == pytest.approx(np.sum(v * (y - layer.b.value)), rel=1e-10, abs=1e-10)


@both
def test_a_kernel_of_one_pixel_is_a_dense_layer_on_every_pixel(host, kind):
    layer, _ = initialised(kind(3, 2, 1, activation="tanh"), host)
    x = np.random.default_rng(0).standard_normal((4, 5, 6, 3))
    W = layer.W.value[0, 0] if kind is Conv2D else layer.W.value[0, 0].T
    np.testing.assert_allclose(layer.forward(x)[0], np.tanh(x @ W + layer.b.value), rtol=1e-12, atol=1e-14)


@both
def test_what_nobody_needs_is_left_out(host, kind):
    layer, parameters = initialised(kind(2, 3), host)
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 2))
    y, backward = layer.forward(x)
    assert backward(np.ones_like(y), need_dx=False) is None
    assert parameters.grads["W"].any()


@both
def test_two_runs_in_a_step_add_their_gradients_and_a_second_backward_is_refused(host, kind):
    layer, parameters = initialised(kind(2, 3, stride=2, activation="elu"), host)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 4, 4, 2))
    y, backward = layer.forward(x)
    dy = rng.standard_normal(y.shape)
    dx = backward(dy)
    whole = parameters.grad.copy()
    parameters.zero_grad()
    for rows in (slice(0, 2), slice(2, 5)):
        _, backward = layer.forward(x[rows])
        np.testing.assert_allclose(backward(dy[rows]), dx[rows], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(parameters.grad, whole, rtol=1e-12, atol=1e-13)
    with pytest.raises(RuntimeError, match="backward was called twice"):
        backward(dy[rows])


@pytest.mark.parametrize(
    ("layer", "variance"),
    [
        (Conv2D(20, 80, 5, activation="relu"), 2 / (25 * 20)),
        (Conv2D(20, 80, 5), 2 / (25 * (20 + 80))),
        (ConvTranspose2D(20, 80, 5, activation="relu"), 2 / (25 * 20)),  # c_in reaches a pixel here too
        (ConvTranspose2D(80, 20, 5, activation="relu"), 2 / (25 * 80)),
        (ConvTranspose2D(20, 80, 5, initializer="standard_normal"), 1),
    ],
)
def test_the_weights_start_with_the_variance_that_suits_the_activation(layer, variance):
    parameters = layer.initialise(dtype="float64")
    assert parameters["W"].var() == pytest.approx(variance, rel=0.05)
    assert not parameters["b"].any()


@both
@given(data=st.data())
def test_its_description_builds_it_anew(host, kind, data):
    layer, x = data.draw(layers(kind))
    again = restore(describe(layer), [kind])
    layer.initialise(host.name, "float64", 1)
    again.initialise(host.name, "float64", 1)
    np.testing.assert_array_equal(again.forward(x)[0], layer.forward(x)[0])


@both
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3), "c_in: expected a whole number of at least 1, got 0"),
        ((3, -1), "c_out: expected a whole number of at least 1, got -1"),
        ((1, 1, 0), "kernel: expected an integer of at least 1, or a pair of them, got 0"),
        ((1, 1, (3, 3, 3)), r"kernel: expected an integer .*, got \(3, 3, 3\)"),
        ((1, 1, 2.5), "kernel: expected an integer .*, got 2.5"),
        ((1, 1, "33"), "kernel: expected an integer .*, got '33'"),
        ((1, 1, 3, (2, 0)), r"stride: expected an integer .*, got \(2, 0\)"),
        ((1, 1, 3, 1, "full"), "padding: expected one of same, valid, got 'full'"),
        ((1, 1, 3, 1, "same", "swish"), "activation: expected one of linear, relu, tanh, elu, sigmoid, got 'swish'"),
        ((1, 1, 3, 1, "same", "relu", "he"), "initializer: expected one of he_normal, .*, got 'he'"),
    ],
)
def test_wrong_arguments_are_refused(kind, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        kind(*arguments)


@both
@pytest.mark.parametrize("shape", [(2, 5, 5, 4), (2, 5, 5), (5, 3), (1, 2, 5, 5, 3)])
def test_images_with_other_channels_or_axes_are_refused(host, kind, shape):
    layer, _ = initialised(kind(3, 2), host)
    with pytest.raises(ValueError, match=r"^x: expected images of shape \(n, h, w, 3\), got shape \("):
        layer.forward(np.zeros(shape))


@pytest.mark.parametrize("size", [(2, 9), (9, 3)])
def test_an_image_smaller_than_the_kernel_is_refused_unless_zeros_surround_it(host, size):
    x = np.ones((1, *size, 1))
    layer, _ = initialised(Conv2D(1, 1, (3, 4), padding="valid"), host)
    with pytest.raises(ValueError, match=r"^x: expected images at least as large as the kernel \(3, 4\), got shape \("):
        layer.forward(x)
    same, _ = initialised(Conv2D(1, 1, (3, 4)), host)
    assert same.forward(x)[0].shape == x.shape
    assert layer.forward(np.ones((1, 3, 4, 1)))[0].shape == (1, 1, 1, 1)
