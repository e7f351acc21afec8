"""Pooling and upsampling as layers: sizes, gradients, ties, leftover pixels, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.description import describe, restore
from minicvae.gradcheck import check_layer
from minicvae.layers import AvgPool2D, MaxPool2D, UpSample2D

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 3)
size_or_pair = st.one_of(sizes, st.tuples(sizes, sizes))
pools = pytest.mark.parametrize("kind", [MaxPool2D, AvgPool2D])


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


@st.composite
def images(draw, least=(1, 1)):
    n, c = draw(sizes), draw(sizes)
    return np.random.default_rng(draw(seeds)).standard_normal((n, *(draw(st.integers(k, k + 4)) for k in least), c))


@pools
@given(data=st.data(), pool=size_or_pair, stride=st.one_of(st.none(), size_or_pair))
def test_the_gradient_of_a_pool_is_its_slope(host, kind, data, pool, stride):
    layer, x = kind(pool, stride), data.draw(images(pair(pool)))
    layer.initialise(host.name, "float64")
    report = check_layer(layer, x, linear=kind is AvgPool2D, max_left_out=0.0).raise_for_failure()
    assert report.rows[0].checked == x.size


@given(x=images(), factor=size_or_pair)
def test_the_gradient_of_upsampling_is_its_slope(host, x, factor):
    layer = UpSample2D(factor)
    layer.initialise(host.name, "float64")
    check_layer(layer, x, linear=True, max_left_out=0.0).raise_for_failure()


@given(x=images(least=(2, 2)))
def test_by_default_an_image_is_halved_and_doubled(host, x):
    n, h, w, c = x.shape
    blocks = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)
    np.testing.assert_array_equal(MaxPool2D().forward(x)[0], blocks.max(axis=(2, 4)))
    np.testing.assert_allclose(AvgPool2D().forward(x)[0], blocks.mean(axis=(2, 4)), rtol=1e-13, atol=1e-14)
    np.testing.assert_array_equal(UpSample2D().forward(x)[0], np.kron(x, np.ones((1, 2, 2, 1))))


@pools
def test_pixels_left_over_at_the_end_are_not_read(host, kind):
    rng = np.random.default_rng(0)
    x, layer = rng.standard_normal((2, 5, 7, 3)), kind(2, 3)
    y, backward = layer.forward(x)
    dx = backward(np.ones_like(y))
    assert y.shape == (2, 2, 2, 3)
    for unread in (dx[:, 2], dx[:, :, 2], dx[:, :, 5:]):
        assert not unread.any()
    y_default, backward = kind(2).forward(x)
    assert y_default.shape == (2, 2, 3, 3)
    assert not backward(np.ones_like(y_default))[:, 4:].any()


@pytest.mark.parametrize(
    ("window", "first"),
    [
        ([[1, 1], [1, 1]], (0, 0)),
        ([[0, 1], [1, 1]], (0, 1)),
        ([[0, 0], [1, 1]], (1, 0)),
        ([[0, 1], [1, 0]], (0, 1)),  # row by row
        ([[0, 0], [0, 1]], (1, 1)),
    ],
)
def test_of_equal_pixels_the_first_has_the_whole_gradient(host, window, first):
    layer = MaxPool2D()
    layer.initialise(host.name, "float64")
    _, backward = layer.forward(np.array(window, float).reshape(1, 2, 2, 1))
    dx = backward(np.full((1, 1, 1, 1), 3.0))[0, :, :, 0]
    assert dx[first] == 3
    assert np.count_nonzero(dx) == 1


def test_the_gradients_of_overlapping_windows_add_up(host):
    x = np.zeros((1, 1, 5, 1))
    x[0, 0, 2] = 1
    _, backward = MaxPool2D((1, 3), 1).forward(x)
    np.testing.assert_array_equal(backward(np.array([1.0, 2, 4]).reshape(1, 1, 3, 1))[0, 0, :, 0], [0, 0, 7, 0, 0])


@pytest.mark.parametrize("layer", [MaxPool2D(), AvgPool2D(), UpSample2D()], ids=lambda layer: type(layer).__name__)
def test_backward_is_called_once_and_computes_nothing_that_nobody_needs(host, layer):
    y, backward = layer.forward(np.ones((1, 2, 2, 1)))
    assert backward(y, need_dx=False) is None
    with pytest.raises(RuntimeError, match="backward was called twice"):
        backward(y)


@pytest.mark.parametrize("layer", [MaxPool2D(3, 2), MaxPool2D((1, 2)), AvgPool2D(3, (1, 2)), UpSample2D((2, 3))])
def test_its_description_builds_it_anew(layer):
    x = np.random.default_rng(0).standard_normal((2, 7, 7, 2))
    again = restore(describe(layer), [type(layer)])
    np.testing.assert_array_equal(again.forward(x)[0], layer.forward(x)[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaxPool2D(0), "pool: expected an integer of at least 1, or a pair of them, got 0"),
        (lambda: AvgPool2D((2, 2, 2)), r"pool: expected an integer .*, got \(2, 2, 2\)"),
        (lambda: AvgPool2D(2, 0), "stride: expected an integer .*, got 0"),
        (lambda: UpSample2D(-1), "factor: expected an integer .*, got -1"),
        (lambda: UpSample2D(1.5), "factor: expected an integer .*, got 1.5"),
        (
            lambda: MaxPool2D(3).forward(np.ones((1, 2, 9, 1))),
            r"x: expected images at least as large as the pool \(3, 3\)",
        ),
        (
            lambda: AvgPool2D(3).forward(np.ones((1, 9, 2, 1))),
            r"x: expected images at least as large as the pool \(3, 3\)",
        ),
        (
            lambda: MaxPool2D().forward(np.ones((9, 9))),
            r"x: expected images of shape \(n, h, w, c\), got shape \(9, 9\)",
        ),
        (lambda: AvgPool2D().forward(np.ones(9)), r"x: expected images of shape \(n, h, w, c\), got shape \(9,\)"),
        (
            lambda: UpSample2D().forward(np.ones((9, 9))),
            r"x: expected images of shape \(n, h, w, c\), got shape \(9, 9\)",
        ),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
