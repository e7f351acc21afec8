"""The contract: products, activations, gathers and norms against finite differences and plain loops."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import special

from minicvae.gradcheck import check_pair
from minicvae.kernels import OneHot, Reference

ACTIVATIONS = ("linear", "relu", "tanh", "elu", "sigmoid")
EXTREMES = np.array([-1e4, -800.0, -90.0, 0.0, 90.0, 800.0, 1e4])

reference = Reference()
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 5)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


# Dense


@st.composite
def dense_cases(draw):
    """(parts, W, b): floats and labels in any order, from one row, one unit and one class upwards."""
    rng = np.random.default_rng(draw(seeds))
    n, d_out = draw(st.integers(1, 6)), draw(sizes)
    kinds = draw(st.lists(st.tuples(st.booleans(), sizes), min_size=1, max_size=3))
    parts = [
        OneHot(rng.integers(0, width, n), width) if labelled else rng.standard_normal((n, width))
        for labelled, width in kinds
    ]
    d_in = sum(width for _, width in kinds)
    return parts, rng.standard_normal((d_in, d_out)) / np.sqrt(d_in), rng.standard_normal(d_out)


def is_float(part):
    return not isinstance(part, OneHot)


def written_out(parts):
    """[part_1, part_2, ...] as one matrix, with the zeros and ones of the one-hot rows."""
    return np.concatenate([part if is_float(part) else np.eye(part.classes)[part.labels] for part in parts], axis=1)


def dense(kernels, parts, activation):
    """`dense` and its twin as a function of (float parts..., W, b), for the checker."""

    def forward(*arguments):
        *floats, W, b = arguments
        given_floats = iter(floats)
        joined = [next(given_floats) if is_float(part) else part for part in parts]
        y = kernels.dense(joined, W, b, activation)

        def backward(dy):
            dW, db = np.full_like(W, np.nan), np.full_like(b, np.nan)
            need = [is_float(part) for part in parts]
            dparts = kernels.dense_backward(dy, joined, y, W, activation, dW, db, False, need)
            return *(dx for dx, needed in zip(dparts, need, strict=True) if needed), dW, db

        return y, backward

    return forward


@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(case=dense_cases())
def test_the_gradients_of_dense_are_its_slopes(host, assert_slopes, activation, case):
    parts, W, b = case
    h = written_out(parts) @ W + b
    assume(np.abs(h).max() < 5)  # saturated, its slope drowns in rounding
    assume(activation != "relu" or ((h > 0).any() and np.abs(h).min() > 1e-3))
    inputs = (*filter(is_float, parts), W, b)
    assert_slopes(dense(host, parts, activation), inputs, linear=activation == "linear")


@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(case=dense_cases(), seed=seeds)
def test_the_gather_is_the_concatenation_written_out(host, activation, case, seed):
    parts, W, b = case
    whole = written_out(parts)
    y, backward = dense(host, parts, activation)(*filter(is_float, parts), W, b)
    expected, expected_backward = dense(reference, [whole], activation)(whole, W, b)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)

    dy = normal(seed, *y.shape)
    *dparts, dW, db = backward(dy)
    dx, dW_expected, db_expected = expected_backward(dy)
    starts = np.cumsum([0, *(part.shape[1] if is_float(part) else part.classes for part in parts)])
    floats = [i for i, part in enumerate(parts) if is_float(part)]
    np.testing.assert_allclose(dW, dW_expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(db, db_expected, rtol=1e-12, atol=1e-13)
    for i, dpart in zip(floats, dparts, strict=True):
        np.testing.assert_allclose(dpart, dx[:, starts[i] : starts[i + 1]], rtol=1e-12, atol=1e-13)


@given(case=dense_cases(), seed=seeds)
def test_a_second_backward_adds_where_it_is_told_to(host, case, seed):
    parts, W, b = case
    rng = np.random.default_rng(seed)
    y = host.dense(parts, W, b, "tanh")
    dy, dW, db = rng.standard_normal(y.shape), rng.standard_normal(W.shape), rng.standard_normal(b.shape)
    fresh_W, fresh_b, summed_W, summed_b = dW.copy(), db.copy(), dW.copy(), db.copy()
    need = [True] * len(parts)
    host.dense_backward(dy, parts, y, W, "tanh", fresh_W, fresh_b, False, need)
    host.dense_backward(dy, parts, y, W, "tanh", summed_W, summed_b, True, need)
    np.testing.assert_allclose(summed_W - dW, fresh_W, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(summed_b - db, fresh_b, rtol=1e-12, atol=1e-13)


@given(case=dense_cases(), data=st.data())
def test_a_gradient_that_nobody_needs_is_not_computed(host, case, data):
    parts, W, b = case
    need = data.draw(st.lists(st.booleans(), min_size=len(parts), max_size=len(parts)))
    y = host.dense(parts, W, b, "linear")
    dW, db = np.empty_like(W), np.empty_like(b)
    dparts = host.dense_backward(np.ones_like(y), parts, y, W, "linear", dW, db, False, need)
    assert [dx is not None for dx in dparts] == [n and is_float(p) for n, p in zip(need, parts, strict=True)]


def test_the_weights_of_a_label_get_the_sum_over_its_examples(host):
    part = OneHot(np.array([2, 0, 2, 2]), 3)
    W, _b, dy = np.zeros((3, 2)), np.zeros(2), np.arange(8.0).reshape(4, 2)
    dW, db = np.empty((3, 2)), np.empty(2)
    host.dense_backward(dy, [part], np.zeros((4, 2)), W, "linear", dW, db, False, [False])
    np.testing.assert_array_equal(dW, [dy[1], [0, 0], dy[0] + dy[2] + dy[3]])
    np.testing.assert_array_equal(db, dy.sum(axis=0))


# Activations


@given(h=st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20).map(np.array))
def test_the_activations_are_the_textbooks(h):
    expected = {
        "linear": h,
        "relu": np.where(h > 0, h, 0),
        "tanh": np.sinh(np.clip(h, -50, 50)) / np.cosh(np.clip(h, -50, 50)),
        "elu": np.array([v if v > 0 else special.expm1(v) for v in h]),
        "sigmoid": special.expit(h),
    }
    for activation in ACTIVATIONS:
        y = reference.activate(h, activation)
        np.testing.assert_allclose(y, expected[activation], rtol=1e-14, atol=1e-300, err_msg=activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(seed=seeds, n=sizes)
def test_an_activations_slope_told_from_its_output_is_its_derivative(activation, seed, n):
    h = normal(seed, n, 3)
    assume(np.abs(h).min() > 1e-3 and (h > 0).any())
    check_pair(
        lambda h: reference.activate(h, activation),
        lambda h: reference.activation_slope(reference.activate(h, activation), activation),
        (h,),
        max_left_out=0.0,
    ).raise_for_failure()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_inputs_of_an_activation_neither_overflow_nor_warn(host, activation, dtype):
    h = EXTREMES.astype(dtype)[:, None]
    y = host.dense([h], np.ones((1, 1), dtype), np.zeros(1, dtype), activation)
    limits = {"linear": h, "relu": np.maximum(h, 0), "tanh": np.tanh(h), "elu": np.maximum(h, np.expm1(-abs(h)))}
    expected = limits.get(activation, special.expit(h))
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-37)
    dW, db = np.empty((1, 1), dtype), np.empty(1, dtype)
    (dx,) = host.dense_backward(np.ones_like(y), [h], y, np.ones((1, 1), dtype), activation, dW, db, False, [True])
    steep = {"linear": 1.0, "relu": np.where(h > 0, 1.0, 0.0), "elu": np.where(h > 0, 1.0, np.exp(np.minimum(h, 0)))}
    curved = {"tanh": np.where(h == 0, 1.0, 0.0), "sigmoid": np.where(h == 0, 0.25, 0.0)}
    np.testing.assert_allclose(dx, np.broadcast_to((steep | curved)[activation], h.shape), rtol=1e-6, atol=1e-7)


def test_relu_has_the_slope_zero_at_its_kink(host):
    dW, db = np.empty((1, 1)), np.empty(1)
    x = np.zeros((1, 1))
    y = host.dense([x], np.ones((1, 1)), np.zeros(1), "relu")
    (dx,) = host.dense_backward(np.ones((1, 1)), [x], y, np.ones((1, 1)), "relu", dW, db, False, [True])
    assert (y, dx, dW, db) == (0, 0, 0, 0)


# Embedding, gather, scaling


@given(classes=sizes, dim=sizes, n=st.integers(1, 8), seed=seeds)
def test_the_gradient_of_an_embedding_is_its_slope(host, assert_slopes, classes, dim, n, seed):
    labels = np.random.default_rng(seed).integers(0, classes, n)

    def forward(E):
        def backward(dy):
            dE = np.full_like(E, np.nan)
            host.embedding_backward(dy, labels, dE, False)
            return dE

        return host.embedding(E, labels), backward

    assert_slopes(forward, (normal(seed, classes, dim),), linear=True)


@given(classes=sizes, n=st.integers(1, 8), seed=seeds)
def test_repeated_labels_add_up_in_the_embeddings_gradient(host, classes, n, seed):
    labels, dy = np.random.default_rng(seed).integers(0, classes, n), normal(seed, n, 3)
    before = normal(seed + 1, classes, 3)
    expected, dE = before.copy(), before.copy()
    for label, row in zip(labels, dy, strict=True):
        expected[label] += row
    host.embedding_backward(dy, labels, dE, True)
    np.testing.assert_allclose(dE, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bytes_become_parts_of_255(kernels, dtype):
    images = np.arange(256, dtype=np.uint8).reshape(2, 128)
    x = kernels.to_numpy(kernels.gather(kernels.array(images), kernels.array(np.array([1, 0, 1])), dtype))
    assert x.dtype == dtype
    np.testing.assert_array_max_ulp(x, (images[[1, 0, 1]].astype(np.longdouble) / 255).astype(dtype), maxulp=1)
    assert x[1, 0] == 0
    assert x[0, -1] == 1


@given(seed=seeds, n=sizes, picks=st.integers(1, 8))
def test_floats_are_gathered_as_they_are(kernels, seed, n, picks):
    rng = np.random.default_rng(seed)
    index = rng.integers(0, n, picks)
    for held in (np.float32, np.float64):
        images = rng.random((n, 3)).astype(held)
        for dtype in ("float32", "float64"):
            x = kernels.to_numpy(kernels.gather(kernels.array(images), kernels.array(index), dtype))
            np.testing.assert_array_equal(x, images[index].astype(dtype), strict=True)


@given(seed=seeds, n=sizes, d=sizes)
def test_scaled_rows_are_each_example_times_its_number(host, seed, n, d):
    rows, scale = normal(seed, n, d), normal(seed + 1, n)
    np.testing.assert_array_equal(host.scale_rows(rows, scale), np.diag(scale) @ rows)


# Optimisers


@given(size=st.integers(1, 9), seed=seeds)
def test_the_norm_is_summed_in_float64(kernels, size, seed):
    for dtype in ("float32", "float64"):
        grad = normal(seed, size).astype(dtype) * dtype_factor(dtype)
        expected = np.sqrt(sum(float(g) ** 2 for g in grad))
        assert float(kernels.norm(kernels.array(grad))) == pytest.approx(expected, rel=1e-14)


def dtype_factor(dtype):
    """A factor whose square overflows float32."""
    return 1e30 if dtype == "float32" else 1.0


# Types


def test_numbers_of_the_device_are_read_by_row(kernels):
    rows = [(kernels.array(np.arange(3.0)).sum(), kernels.array(np.ones(2)).mean()), (kernels.xp.zeros(()),) * 2]
    found = kernels.read(rows)
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, [[3, 1], [0, 0]])


def test_what_is_fed_comes_in_order_on_the_device(kernels):
    arrays = [np.full((2, i), i, np.float32) for i in range(5)]
    fed = list(kernels.feed(iter(arrays)))
    assert [a.shape for a in fed] == [a.shape for a in arrays]
    for a, b in zip(arrays, fed, strict=True):
        np.testing.assert_array_equal(kernels.to_numpy(b), a)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 2])
def test_after_a_loss_that_is_not_finite_either_the_training_ends_or_the_optimisers_rest(kernels, bad, place):
    losses = [kernels.array(np.array(x)) for x in (1.0, 2.0, 3.0)]
    value, grad, m, v = (kernels.array(np.ones(4)) for _ in range(4))

    def moved():
        before = kernels.to_numpy(value)
        kernels.adam(value, grad, m, v, kernels.zeros((1,), np.int64), 0.1, 0.9, 0.999, 1e-8, 0.0)
        kernels.sgd(value, grad, m, 0.1, 0.9, False, 0.0)
        return not np.array_equal(before, kernels.to_numpy(value))

    with kernels.steps():
        assert kernels.goes_on(losses)
        assert moved()
        losses[place] = kernels.array(np.array(bad))
        if kernels.goes_on(losses):
            assert not moved()
            assert kernels.goes_on(losses[:1] if place else losses[1:])  # it is not forgotten
            assert not moved()
    assert moved()


def test_a_kernel_computes_in_the_type_that_it_is_given(kernels):
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):

        def draw(*shape, dtype=dtype):
            return kernels.array(rng.standard_normal(shape), dtype)

        labels = kernels.array(np.array([1, 0, 1]))
        x, W, b = draw(3, 4), draw(6, 2), draw(2)
        mean, log_var, eps = draw(3, 2), draw(3, 2), draw(5, 3, 2)
        results = [kernels.gather(x, labels, dtype), kernels.embedding(W, labels), kernels.scale_rows(x, draw(3))]
        for activation in ACTIVATIONS:
            parts = [x, OneHot(labels, 2)]
            y = kernels.dense(parts, W, b, activation)
            dW, db = draw(6, 2), draw(2)
            dx, _ = kernels.dense_backward(draw(3, 2), parts, y, W, activation, dW, db, False, [True, False])
            results += [y, dx]
        results += [kernels.reparameterise(mean, log_var, eps), *kernels.reparameterise_backward(eps, log_var, eps)]
        results += [*kernels.kl_standard(mean, log_var), *kernels.kl_diagonal(mean, log_var, mean + 1, log_var)]
        results += [*kernels.kl_monte_carlo(mean, log_var, eps)]
        results += [*kernels.bernoulli(mean, log_var), *kernels.gaussian(mean, log_var, 0.5)]
        results += [*kernels.gaussian_learned(draw(3, 4), mean)]
        assert {str(result.dtype) for result in results} == {dtype}
