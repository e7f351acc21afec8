"""The kernels for images: against their definitions in plain loops, SciPy, PyTorch and finite differences."""

from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import signal

from minicvae.gradcheck import assert_gradients
from minicvae.kernels.convolution import span

ACTIVATIONS = ("linear", "relu", "tanh", "elu", "sigmoid")

seeds = st.integers(0, 2**32 - 1)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
kernel_sizes = st.tuples(st.integers(1, 4), st.integers(1, 4))


def close(result, expected, tolerance=1e-12):
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


def strided(a):
    """The same numbers as a view: every second of a larger array along each axis, the last from the right."""
    larger = np.full([2 * size for size in a.shape], np.nan, a.dtype)
    view = larger[tuple([slice(None, None, 2)] * (a.ndim - 1) + [slice(None, None, -2)])]
    view[...] = a
    return view


# The definitions, one pixel after the other


def places(size, kernel, stride, padding):
    """Along an axis: the pixel under the first cell of the kernel at each of its places; below 0 it is a zero.

    What "same" puts before the image is told from the remainder of the size, as TensorFlow's guide does.
    """
    if padding == "valid":
        return range(0, size - kernel + 1, stride)
    before = max(kernel - (size % stride or stride), 0) // 2
    return range(-before, size - before, stride)


def under_the_kernel(size, kernel, stride, padding):
    """Every place (i, j) of the kernel with every cell (a, b) and the pixel (h, w) under it, the zeros left out."""
    rows, columns = (places(*axis, padding) for axis in zip(size, kernel, stride, strict=True))
    for (i, top), (j, left), a, b in product(enumerate(rows), enumerate(columns), range(kernel[0]), range(kernel[1])):
        if 0 <= top + a < size[0] and 0 <= left + b < size[1]:
            yield (i, j), (a, b), (top + a, left + b)


class Case(NamedTuple):
    """Arguments of a convolution or its transpose, and h, what it has to give before the activation."""

    kind: str
    x: np.ndarray
    W: np.ndarray
    b: np.ndarray
    stride: tuple[int, int]
    padding: str
    h: np.ndarray
    rng: np.random.Generator

    def run(self, kernels, activation="linear", **replaced):
        x, W, b = (replaced.get(name, getattr(self, name)) for name in "xWb")
        return getattr(kernels, self.kind)(x, W, b, activation, self.stride, self.padding)

    def back(self, kernels, dy, y, activation, dW, db, accumulate=False, need_dx=True, **replaced):
        x, W = (replaced.get(name, getattr(self, name)) for name in "xW")
        settings = activation, self.stride, self.padding
        return getattr(kernels, f"{self.kind}_backward")(dy, x, y, W, *settings, dW, db, accumulate, need_dx)

    def gradients(self, kernels, dy, activation="linear", **options):
        """(dx, dW, db) into arrays full of NaN, which a backward that does not accumulate has to overwrite."""
        dW, db = np.full_like(self.W, np.nan), np.full_like(self.b, np.nan)
        dx = self.back(kernels, dy, self.run(kernels, activation), activation, dW, db, **options)
        return dx, dW, db


@st.composite
def convolutions(draw, kind):
    """From one example, one pixel and one channel upwards; odd and even kernels; strides 1..3 in each direction."""
    rng, n = np.random.default_rng(draw(seeds)), draw(st.integers(1, 3))
    kernel, stride, (c_in, c_out) = draw(kernel_sizes), draw(pairs), draw(pairs)
    padding, least = draw(st.sampled_from([("same", (1, 1)), ("valid", kernel)]))
    b = rng.standard_normal(c_out)
    if kind == "conv2d":
        size = tuple(draw(st.integers(k, k + 3)) for k in least)
        x, W = rng.standard_normal((n, *size, c_in)), rng.standard_normal((*kernel, c_in, c_out))
        h = np.zeros((n, *(len(places(*axis, padding)) for axis in zip(size, kernel, stride, strict=True)), c_out))
        for place, cell, pixel in under_the_kernel(size, kernel, stride, padding):
            h[:, *place] += x[:, *pixel] @ W[cell]
    else:
        small = draw(pairs)
        x, W = rng.standard_normal((n, *small, c_in)), rng.standard_normal((*kernel, c_out, c_in))
        stamps = zip(small, kernel, stride, strict=True)
        size = tuple(i * s if padding == "same" else (i - 1) * s + k for i, k, s in stamps)
        h = np.zeros((n, *size, c_out))
        for place, cell, pixel in under_the_kernel(size, kernel, stride, padding):
            h[:, *pixel] += x[:, *place] @ W[cell].T
    return Case(kind, x, W, b, stride, padding, h + b, rng)


both = pytest.mark.parametrize("kind", ["conv2d", "conv2d_transpose"])


# Convolution and its transpose


@both
@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(data=st.data())
def test_it_is_the_definition_pixel_by_pixel(host, kind, activation, data):
    case = data.draw(convolutions(kind))
    close(case.run(host, activation), host.activate(case.h, activation))


@both
@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(data=st.data())
def test_its_gradients_are_the_slopes(host, kind, activation, data):
    case = data.draw(convolutions(kind))
    lives = (case.h > 0) & (case.h != case.b)  # ... and not of the bias alone, as between the stamps of a small kernel
    assume(activation != "relu" or (lives.any() and np.abs(case.h).min() > 1e-3))

    def forward(x, W, b):
        moved = case._replace(x=x, W=W, b=b)
        return moved.run(host, activation), lambda dy: moved.gradients(host, dy, activation)

    # h is linear in (x, b). Where tanh or sigmoid is saturated, rounding hides the slope.
    calm = 1 / max(1, np.abs(case.h).max() / 3) if activation in ("tanh", "sigmoid") else 1.0
    inputs = calm * case.x, case.W, calm * case.b
    report = assert_gradients(forward, inputs, linear=activation == "linear", max_left_out=0.0)
    assert sum(row.checked for row in report.rows if row.name != "together") == sum(a.size for a in inputs)


@given(case=convolutions("conv2d"))
def test_a_convolution_is_the_correlation_of_scipy(host, case):
    kh, kw, c_in, c_out = case.W.shape
    size = case.x.shape[1:3]
    rows, columns = (places(*axis, case.padding) for axis in zip(size, (kh, kw), case.stride, strict=True))
    margin = np.pad(case.x, ((0, 0), (kh, kh), (kw, kw), (0, 0)))  # more zeros than anything needs
    expected = np.zeros(case.h.shape)
    for n, k, c in product(range(len(case.x)), range(c_out), range(c_in)):
        everywhere = signal.correlate2d(margin[n, :, :, c], case.W[:, :, c, k], "valid")
        expected[n, :, :, k] += everywhere[np.ix_([kh + top for top in rows], [kw + left for left in columns])]
    close(case.run(host), expected + case.b)


@given(case=convolutions("conv2d_transpose"))
def test_the_transpose_is_the_transpose(host, case):
    """<conv2d(v), x> = <v, conv2d_transpose(x)>, with the same kernel and no bias."""
    v = case.rng.standard_normal(case.h.shape)
    down = host.conv2d(v, case.W, np.zeros(case.x.shape[3]), "linear", case.stride, case.padding)
    up = case.run(host, b=np.zeros(len(case.b)))
    assert down.shape == case.x.shape
    assert np.sum(down * case.x) == pytest.approx(np.sum(v * up), rel=1e-11, abs=1e-11)


@given(case=convolutions("conv2d"))
def test_the_gradient_of_a_convolution_by_x_is_its_transpose(host, case):
    """Where the sizes leave no choice: "valid" without leftover pixels, and "same" of whole strides."""
    size, kernel = case.x.shape[1:3], case.W.shape[:2]
    left_over = [
        (length - k) % s if case.padding == "valid" else length % s
        for length, k, s in zip(size, kernel, case.stride, strict=True)
    ]
    assume(not any(left_over))
    dy = case.rng.standard_normal(case.h.shape)
    dx, _, _ = case.gradients(host, dy)
    close(dx, host.conv2d_transpose(dy, case.W, np.zeros(case.x.shape[3]), "linear", case.stride, case.padding))


@both
@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(data=st.data())
def test_it_is_pytorchs_with_the_zeros_written_out(host, kind, activation, data):
    """Forward and backward. PyTorch has no "same" with a stride: the image is padded before, or cropped after."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'minicvae[torch]'")
    case = data.draw(convolutions(kind))
    x, W, b = (torch.tensor(a, requires_grad=True) for a in (case.x, case.W, case.b))
    large = (case.x if kind == "conv2d" else case.h).shape[1:3]
    kernel, margins = case.W.shape[:2], []
    for size, k, s in list(zip(large, kernel, case.stride, strict=True))[::-1]:
        tops = places(size, k, s, case.padding)
        margins += [-tops[0], tops[-1] + k - size]  # negative where pixels are left over
    images, weights = x.permute(0, 3, 1, 2), W.permute(3, 2, 0, 1).contiguous()
    if kind == "conv2d":
        padded = torch.nn.functional.pad(images, margins)
        h = torch.nn.functional.conv2d(padded, weights, b, case.stride)
    else:
        stamps = torch.nn.functional.conv_transpose2d(images, weights, None, case.stride)
        h = torch.nn.functional.pad(stamps, [-m for m in margins]) + b[:, None, None]
    functions = {"linear": lambda h: h, "relu": torch.relu, "elu": torch.nn.functional.elu}
    y = functions.get(activation, getattr(torch, activation, None))(h.permute(0, 2, 3, 1))
    dy = case.rng.standard_normal(case.h.shape)
    y.backward(torch.tensor(dy))

    close(case.run(host, activation), y.detach().numpy())
    for gradient, theirs in zip(case.gradients(host, dy, activation), (x, W, b), strict=True):
        close(gradient, theirs.grad.numpy())


@both
@given(data=st.data(), dtype=st.sampled_from(["float32", "float64"]))
def test_it_takes_views_with_strides_and_keeps_the_type(host, kind, data, dtype):
    case = data.draw(convolutions(kind))
    case = case._replace(**{name: getattr(case, name).astype(dtype) for name in "xWb"})
    dy = case.rng.standard_normal(case.h.shape).astype(dtype)
    y, gradients = case.run(host, "tanh"), case.gradients(host, dy, "tanh")
    view = case._replace(x=strided(case.x), W=strided(case.W), b=strided(case.b))
    tolerance = 100 * np.finfo(dtype).eps
    for found, expected in zip(
        (view.run(host, "tanh"), *view.gradients(host, strided(dy), "tanh")), (y, *gradients), strict=True
    ):
        assert found.dtype == expected.dtype == dtype
        close(found, expected, tolerance)


@both
@given(data=st.data())
def test_a_second_backward_adds_where_it_is_told_to(host, kind, data):
    case = data.draw(convolutions(kind))
    y, dy = case.run(host, "tanh"), case.rng.standard_normal(case.h.shape)
    _, fresh_W, fresh_b = case.gradients(host, dy, "tanh")
    held_W, held_b = case.rng.standard_normal(case.W.shape), case.rng.standard_normal(case.b.shape)
    dW, db = held_W.copy(), held_b.copy()
    case.back(host, dy, y, "tanh", dW, db, accumulate=True)
    close(dW, held_W + fresh_W)
    close(db, held_b + fresh_b)


@both
@given(data=st.data())
def test_a_gradient_that_nobody_needs_is_not_computed(host, kind, data):
    case = data.draw(convolutions(kind))
    dy = case.rng.standard_normal(case.h.shape)
    _, dW, db = case.gradients(host, dy)
    none, dW_alone, db_alone = case.gradients(host, dy, need_dx=False)
    assert none is None
    close(dW_alone, dW)  # another way may be the shortest then
    close(db_alone, db)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "expected"),
    [
        (28, 3, 1, "same", (28, 1, 1)),
        (28, 3, 2, "same", (14, 0, 1)),  # an odd number of zeros: the last half is the larger
        (28, 4, 1, "same", (28, 1, 2)),
        (5, 3, 2, "same", (3, 1, 1)),
        (1, 4, 1, "same", (1, 1, 2)),
        (7, 1, 3, "same", (3, 0, 0)),  # windows apart from each other need no zeros
        (28, 3, 1, "valid", (26, 0, 0)),
        (28, 3, 2, "valid", (13, 0, 0)),
        (3, 3, 2, "valid", (1, 0, 0)),
    ],
)
def test_places_and_zeros_are_those_of_tensorflow(size, kernel, stride, padding, expected):
    assert span(size, kernel, stride, padding) == expected


# Pooling and upsampling


@st.composite
def pools(draw):
    """(x, pool, stride): windows one beside the other, apart and overlapping, with pixels left over at the end."""
    pool = draw(pairs)
    stride = draw(st.one_of(st.just(pool), pairs))
    n, c = draw(pairs)
    size = [draw(st.integers(k, k + 4)) for k in pool]
    return np.random.default_rng(draw(seeds)).standard_normal((n, *size, c)), pool, stride


def pooled(x, pool, stride, reduce):
    """`reduce` of each window, one after the other."""
    rows, columns = (places(*axis, "valid") for axis in zip(x.shape[1:3], pool, stride, strict=True))
    return np.stack(
        [
            np.stack([reduce(x[:, r : r + pool[0], c : c + pool[1]], axis=(1, 2)) for c in columns], axis=1)
            for r in rows
        ],
        axis=1,
    )


def max_pool(kernels, pool, stride):
    def forward(x):
        y = kernels.max_pool(x, pool, stride)
        return y, lambda dy: kernels.max_pool_backward(dy, x, y, pool, stride)

    return forward


def avg_pool(kernels, pool, stride):
    def forward(x):
        return kernels.avg_pool(x, pool, stride), lambda dy: kernels.avg_pool_backward(dy, x.shape[1:3], pool, stride)

    return forward


def upsample(kernels, factor):
    def forward(x):
        return kernels.upsample(x, factor), lambda dy: kernels.upsample_backward(dy, factor)

    return forward


@pytest.mark.parametrize(("kernel", "reduce"), [(max_pool, np.max), (avg_pool, np.mean)])
@given(case=pools())
def test_a_pool_reduces_each_window(host, kernel, reduce, case):
    x, pool, stride = case
    y, _ = kernel(host, pool, stride)(x)
    close(y, pooled(x, pool, stride, reduce))


@pytest.mark.parametrize("kernel", [max_pool, avg_pool])
@given(case=pools())
def test_the_gradient_of_a_pool_is_its_slope(host, kernel, case):
    x, pool, stride = case
    report = assert_gradients(kernel(host, pool, stride), x, linear=kernel is avg_pool, max_left_out=0.0)
    assert report["x"].checked == x.size


@given(case=pools(), levels=st.integers(1, 3))
def test_of_equal_pixels_the_first_has_the_whole_gradient(host, case, levels):
    x, pool, stride = case
    x = np.floor(levels * np.tanh(np.abs(x)))  # a few values, so that windows have several maxima
    dy = 1.0 + np.arange(pooled(x, pool, stride, np.max).size).reshape(pooled(x, pool, stride, np.max).shape)
    expected = np.zeros_like(x)
    for (n, i, j, c), d in np.ndenumerate(dy):
        top, left = i * stride[0], j * stride[1]
        window = x[n, top : top + pool[0], left : left + pool[1], c]
        a, b = next(cell for cell in np.ndindex(window.shape) if window[cell] == window.max())
        expected[n, top + a, left + b, c] += d
    _, backward = max_pool(host, pool, stride)(x)
    np.testing.assert_array_equal(backward(dy), expected)


def test_a_pool_passes_nan_on_and_back(host):
    x = np.array([[1.0, np.nan], [3.0, 2.0]]).reshape(1, 2, 2, 1)
    y, backward = max_pool(host, (2, 2), (2, 2))(x)
    assert np.isnan(y).all()
    assert np.count_nonzero(backward(np.ones_like(y))) == 1


@given(data=st.data(), factor=pairs, seed=seeds)
def test_upsampling_repeats_every_pixel(host, data, factor, seed):
    x = np.random.default_rng(seed).standard_normal(data.draw(st.tuples(*[st.integers(1, 3)] * 4)))
    y, _ = upsample(host, factor)(x)
    assert y.shape == (len(x), x.shape[1] * factor[0], x.shape[2] * factor[1], x.shape[3])
    for n, h, w, c in np.ndindex(y.shape):
        assert y[n, h, w, c] == x[n, h // factor[0], w // factor[1], c]
    assert_gradients(upsample(host, factor), x, linear=True, max_left_out=0.0)


@given(case=pools())
def test_the_sum_over_blocks_undoes_the_mean_over_them(host, case):
    """avg_pool(upsample(x)) = x, and the gradient of the one is the other, scaled."""
    x, factor, _ = case
    np.testing.assert_allclose(host.avg_pool(host.upsample(x, factor), factor, factor), x, rtol=1e-14)
    close(host.upsample_backward(host.upsample(x, factor), factor), x * factor[0] * factor[1])


@pytest.mark.parametrize("kernel", [max_pool, avg_pool])
@given(case=pools(), dtype=st.sampled_from(["float32", "float64"]))
def test_a_pool_takes_views_with_strides_and_keeps_the_type(host, kernel, case, dtype):
    x, pool, stride = case
    x = x.astype(dtype)
    y, backward = kernel(host, pool, stride)(x)
    y_of_view, backward_of_view = kernel(host, pool, stride)(strided(x))
    dx, dx_of_view = backward(y), backward_of_view(strided(y))
    assert y.dtype == y_of_view.dtype == dx.dtype == dx_of_view.dtype == dtype
    close(y_of_view, y, 10 * np.finfo(dtype).eps)
    close(dx_of_view, dx, 10 * np.finfo(dtype).eps)


@given(case=pools())
def test_pools_are_pytorchs(host, case):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'minicvae[torch]'")
    x, pool, stride = case
    for kernel, theirs in (
        (max_pool, torch.nn.functional.max_pool2d),
        (avg_pool, torch.nn.functional.avg_pool2d),
    ):
        leaf = torch.tensor(x, requires_grad=True)
        expected = theirs(leaf.permute(0, 3, 1, 2), pool, stride).permute(0, 2, 3, 1)
        y, backward = kernel(host, pool, stride)(x)
        dy = np.cos(np.arange(y.size)).reshape(y.shape)
        expected.backward(torch.tensor(dy))
        close(y, expected.detach().numpy())
        close(backward(dy), leaf.grad.numpy())
