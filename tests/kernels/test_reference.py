"""The contract, on every device of the host: each kernel against finite differences, closed forms and plain loops."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import integrate, special, stats

from minicvae.gradcheck import assert_gradients, check_pair
from minicvae.kernels import OneHot, Reference

ACTIVATIONS = ("linear", "relu", "tanh", "elu", "sigmoid")
EXTREMES = np.array([-1e4, -800.0, -90.0, 0.0, 90.0, 800.0, 1e4])

reference = Reference()
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 5)
extreme_log_vars = st.sampled_from([-30.0, -1.0, 0.0, 1e-9, 1.0, 30.0])


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def assert_all_checked(forward, inputs, **options):
    """The checker passes, and it compared every element of every input: none was left out.

    By differences, for a kernel would be compiled anew for the complex numbers of the complex step.
    """
    report = assert_gradients(forward, inputs, method="differences", max_left_out=0.0, **options)
    assert sum(row.checked for row in report.rows if row.name != "together") == sum(np.size(x) for x in inputs)


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
    return parts, rng.standard_normal((sum(width for _, width in kinds), d_out)), rng.standard_normal(d_out)


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
def test_the_gradients_of_dense_are_its_slopes(host, activation, case):
    parts, W, b = case
    h = written_out(parts) @ W + b
    assume(activation != "relu" or ((h > 0).any() and np.abs(h).min() > 1e-3))
    inputs = (*filter(is_float, parts), W, b)
    assert_all_checked(dense(host, parts, activation), inputs, linear=activation == "linear")


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
    W, b, dy = np.zeros((3, 2)), np.zeros(2), np.arange(8.0).reshape(4, 2)
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
    (dx,) = host.dense_backward(
        np.ones_like(y), [h], y, np.ones((1, 1), dtype), activation, dW, db, False, [True]
    )
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
def test_the_gradient_of_an_embedding_is_its_slope(host, classes, dim, n, seed):
    labels = np.random.default_rng(seed).integers(0, classes, n)

    def forward(E):
        def backward(dy):
            dE = np.full_like(E, np.nan)
            host.embedding_backward(dy, labels, dE, False)
            return dE

        return host.embedding(E, labels), backward

    assert_all_checked(forward, (normal(seed, classes, dim),), linear=True)


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


# The Gaussian posterior


@given(n=sizes, l=sizes, samples=sizes, data=st.data(), seed=seeds)
def test_the_gradients_of_the_sampler_are_its_slopes(host, n, l, samples, data, seed):
    eps = normal(seed, samples, n, l)
    used = data.draw(st.integers(1, samples))

    def forward(mean, log_var):
        z = host.reparameterise(mean, log_var, eps)
        return z[:used], lambda dz: host.reparameterise_backward(dz, log_var, eps)

    assert_all_checked(forward, (normal(seed + 1, n, l), normal(seed + 2, n, l)))


@given(log_var=extreme_log_vars, seed=seeds)
def test_the_samplers_slopes_are_right_at_extreme_variances(host, log_var, seed):
    eps = normal(seed, 2, 1, 1)
    assume(np.abs(eps.sum()) > 1e-3)

    def forward(log_var):
        z = host.reparameterise(np.zeros((1, 1)), log_var, eps)
        return z, lambda dz: host.reparameterise_backward(dz, log_var, eps)[1]

    assert_all_checked(forward, (np.full((1, 1), log_var),))


@given(n=sizes, l=sizes, seed=seeds)
def test_the_gradients_of_the_kl_to_the_standard_normal_are_its_slopes(host, n, l, seed):
    def forward(mean, log_var):
        kl, *derivatives = host.kl_standard(mean, log_var)
        return kl, lambda dkl: tuple(dkl * d for d in derivatives)

    assert_all_checked(forward, (normal(seed, n, l), normal(seed + 1, n, l)))


@given(n=sizes, l=sizes, seed=seeds)
def test_the_gradients_of_the_kl_between_two_gaussians_are_its_slopes(host, n, l, seed):
    def forward(mean, log_var, prior_mean, prior_log_var):
        kl, *derivatives = host.kl_diagonal(mean, log_var, prior_mean, prior_log_var)
        return kl, lambda dkl: tuple(dkl * d for d in derivatives)

    assert_all_checked(forward, [normal(seed + i, n, l) for i in range(4)])


@given(n=sizes, l=sizes, samples=sizes, seed=seeds)
def test_the_gradients_of_the_monte_carlo_kl_are_its_slopes(host, n, l, samples, seed):
    eps = normal(seed, samples, n, l)

    def forward(mean, log_var):
        kl, *derivatives = host.kl_monte_carlo(mean, log_var, eps)
        return kl, lambda dkl: tuple(dkl * d for d in derivatives)

    assert_all_checked(forward, (normal(seed + 1, n, l), normal(seed + 2, n, l)))


@given(mean=st.floats(-5, 5), log_var=extreme_log_vars, prior_mean=st.floats(-5, 5), prior_log_var=extreme_log_vars)
def test_the_kls_and_their_slopes_are_right_at_extreme_variances(host, mean, log_var, prior_mean, prior_log_var):
    """Against the formulas in extended precision: differences would drown in exp(30)."""
    m, lv, pm, s = (np.longdouble(v) for v in (mean, log_var, prior_mean, prior_log_var))
    variance, prior_variance, gap = np.exp(lv), np.exp(s), m - pm
    standard = [(variance + m * m - 1 - lv) / 2, m, (variance - 1) / 2]
    diagonal = [
        (s - lv + (variance + gap**2) / prior_variance - 1) / 2,
        gap / prior_variance,
        (variance / prior_variance - 1) / 2,
        -gap / prior_variance,
        (1 - (variance + gap**2) / prior_variance) / 2,
    ]
    arrays = [np.full((1, 1), v) for v in (mean, log_var, prior_mean, prior_log_var)]
    for found, expected in ((host.kl_standard(*arrays[:2]), standard), (host.kl_diagonal(*arrays), diagonal)):
        np.testing.assert_allclose(np.ravel(found), np.array(expected, float), rtol=1e-12, atol=1e-15)


@given(log_var=st.floats(-1e-6, 1e-6))
def test_the_kl_keeps_its_digits_near_the_prior(host, log_var):
    """kl = lv²/4 + O(lv³) is 1e-13 here; exp(lv) - 1 - lv by itself would leave no digit of it."""
    kl, _, slope = host.kl_standard(np.zeros((1, 1)), np.full((1, 1), log_var))
    series = log_var**2 / 4 + log_var**3 / 12
    np.testing.assert_allclose(kl, [[series]], rtol=1e-3, atol=3e-17)
    np.testing.assert_allclose(slope, [[log_var / 2 + log_var**2 / 4]], rtol=1e-9, atol=0)


gaussians = st.tuples(st.floats(-3, 3), st.floats(-3, 2))  # mean, log variance


@given(q=gaussians, p=gaussians)
def test_each_kl_is_the_integral_that_it_stands_for(host, q, p):
    density, sd = stats.norm(q[0], np.exp(q[1] / 2)), np.exp(q[1] / 2)
    arrays = [np.full((1, 1), v) for v in (*q, *p)]
    found = host.kl_standard(*arrays[:2])[0].item(), host.kl_diagonal(*arrays)[0].item()
    for kl, (mean, log_var) in zip(found, ((0.0, 0.0), p), strict=True):
        other = stats.norm(mean, np.exp(log_var / 2))
        integral, _ = integrate.quad(
            lambda z, other=other: density.pdf(z) * (density.logpdf(z) - other.logpdf(z)),
            q[0] - 12 * sd,
            q[0] + 12 * sd,
            epsabs=1e-11,
            epsrel=1e-11,
            limit=200,
        )
        assert kl == pytest.approx(integral, rel=1e-8, abs=1e-9)


@given(q=gaussians, p=gaussians, seed=seeds)
def test_each_kl_is_the_mean_of_its_samples(host, q, p, seed):
    samples = 20_000
    eps = normal(seed, samples, 1, 1)
    arrays = [np.full((1, 1), v) for v in (*q, *p)]
    z = host.reparameterise(*arrays[:2], eps).ravel()
    log_q = stats.norm.logpdf(z, q[0], np.exp(q[1] / 2))
    for kl, (mean, log_var) in (
        (host.kl_standard(*arrays[:2])[0].item(), (0.0, 0.0)),
        (host.kl_diagonal(*arrays)[0].item(), p),
    ):
        terms = log_q - stats.norm.logpdf(z, mean, np.exp(log_var / 2))
        assert abs(terms.mean() - kl) <= 6 * terms.std() / np.sqrt(samples) + 1e-12


@given(n=sizes, l=sizes, samples=sizes, seed=seeds)
def test_the_monte_carlo_kl_is_the_mean_log_ratio_of_the_densities(host, n, l, samples, seed):
    mean, log_var, eps = normal(seed, n, l), normal(seed + 1, n, l), normal(seed + 2, samples, n, l)
    z = host.reparameterise(mean, log_var, eps)
    expected = (stats.norm.logpdf(z, mean, np.exp(log_var / 2)) - stats.norm.logpdf(z)).mean(axis=0)
    np.testing.assert_allclose(host.kl_monte_carlo(mean, log_var, eps)[0], expected, rtol=1e-11, atol=1e-12)


# Likelihoods


def likelihood(loss, x, *settings):
    """A likelihood kernel as a function of its logits, for the checker."""

    def forward(h):
        nll, derivative = loss(h, x, *settings)
        return nll, lambda dnll: dnll[:, None] * derivative

    return forward


def pixels(rng, shape):
    """Grey, black and white: numbers in [0, 1] with both ends among them."""
    return np.where(rng.random(shape) < 0.4, rng.integers(0, 2, shape), rng.random(shape))


@given(n=sizes, d=sizes, seed=seeds)
def test_the_gradients_of_the_likelihoods_are_their_slopes(host, n, d, seed):
    rng = np.random.default_rng(seed)
    x, sigma = pixels(rng, (n, d)), float(np.exp(rng.uniform(-1.5, 1)))
    logits, h = 2 * rng.standard_normal((n, d)), rng.standard_normal((n, 2 * d))
    assert_all_checked(likelihood(host.bernoulli, x), (logits,))
    assert_all_checked(likelihood(host.gaussian, x, sigma), (logits,))
    assert_all_checked(likelihood(host.gaussian_learned, x), (h,))


@pytest.mark.parametrize("d", [1, 55, 56, 57, 784])
def test_the_bernoulli_gradient_is_right_for_every_length_of_a_row(host, d):
    rng = np.random.default_rng(d)
    x, logits = pixels(rng, (2, d)), 3 * rng.standard_normal((2, d))
    assert_all_checked(likelihood(host.bernoulli, x), (logits,), elements=2 * d)
    grey = -special.xlogy(x, special.expit(logits)) - special.xlog1py(1 - x, -special.expit(logits))
    np.testing.assert_allclose(host.bernoulli(logits, x)[0], grey.sum(axis=1), rtol=1e-13)


@given(d=st.integers(1, 6), seed=seeds)
def test_the_likelihoods_are_scipys(host, d, seed):
    rng = np.random.default_rng(seed)
    logits, sigma = 3 * rng.standard_normal((2, d)), float(np.exp(rng.uniform(-2, 1)))
    p, bits, grey = special.expit(logits), rng.integers(0, 2, (2, d)), pixels(rng, (2, d))
    v = rng.uniform(-3, 3, (2, d))
    for nll, expected in (
        (host.bernoulli(logits, bits.astype(float))[0], stats.bernoulli.logpmf(bits, p)),
        (host.gaussian(logits, grey, sigma)[0], stats.norm.logpdf(grey, p, sigma)),
        (
            host.gaussian_learned(np.concatenate([logits, v], axis=1), grey)[0],
            stats.norm.logpdf(grey, logits, np.exp(v / 2)),
        ),
    ):
        np.testing.assert_allclose(nll, -expected.sum(axis=1), rtol=1e-11, atol=1e-11)


@given(logit=st.floats(-30, 30))
def test_the_bernoulli_likelihood_sums_to_one(host, logit):
    nll, _ = host.bernoulli(np.full((2, 1), logit), np.array([[0.0], [1.0]]))
    assert np.exp(-nll).sum() == pytest.approx(1, rel=1e-12)


@given(h=st.floats(-3, 3), log_var=st.floats(-4, 4))
def test_the_gaussian_likelihoods_integrate_to_one(host, h, log_var):
    sigma = float(np.exp(log_var / 2))
    for density, centre in (
        (lambda x: host.gaussian(np.full((1, 1), h), np.full((1, 1), x), sigma)[0], special.expit(h)),
        (lambda x: host.gaussian_learned(np.array([[h, log_var]]), np.full((1, 1), x))[0], h),
    ):
        mass, _ = integrate.quad(
            lambda x, density=density: np.exp(-density(x)).item(), centre - 12 * sigma, centre + 12 * sigma
        )
        assert mass == pytest.approx(1, rel=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits_give_the_exact_bernoulli_loss_and_slope(host, dtype):
    logits, x = (a.ravel().astype(dtype)[:, None] for a in np.meshgrid(EXTREMES, [0.0, 0.25, 1.0]))
    nll, derivative = host.bernoulli(logits, x)
    exact_logits, exact_x = logits.astype(np.longdouble), x.astype(np.longdouble)
    loss = np.where(exact_logits > 0, exact_logits, 0) - exact_x * exact_logits + np.log1p(np.exp(-abs(exact_logits)))
    rounding = np.finfo(dtype).eps
    np.testing.assert_allclose(nll, loss[:, 0].astype(float), rtol=4 * rounding, atol=1e-37)
    np.testing.assert_allclose(derivative, special.expit(logits.astype(float)) - x, rtol=4 * rounding, atol=1e-37)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits_saturate_the_gaussian_mean_without_a_warning(host, dtype):
    logits = EXTREMES.astype(dtype)[:, None]
    nll, derivative = host.gaussian(logits, np.ones_like(logits), 0.5)
    mu = special.expit(logits.astype(float))
    expected = -stats.norm.logpdf(1.0, mu, 0.5)
    np.testing.assert_allclose(nll, expected[:, 0], rtol=8 * np.finfo(dtype).eps)
    np.testing.assert_allclose(derivative, (mu - 1) / 0.25 * mu * (1 - mu), rtol=1e-5, atol=1e-7)


@given(log_var=extreme_log_vars, mean=st.floats(-2, 2), x=st.sampled_from([0.0, 0.3, 1.0]))
def test_the_learned_variance_is_right_at_its_extremes(host, log_var, mean, x):
    nll, (slopes,) = host.gaussian_learned(np.array([[mean, log_var]]), np.array([[x]]))
    v, r = np.longdouble(log_var), np.longdouble(mean) - np.longdouble(x)
    precision = np.exp(-v)
    np.testing.assert_allclose(nll, float((r * r * precision + v + np.log(2 * np.longdouble(np.pi))) / 2), rtol=1e-13)
    expected = np.array([r * precision, (1 - r * r * precision) / 2], float)
    np.testing.assert_allclose(slopes, expected, rtol=1e-12, atol=1e-16 * max(1, abs(expected[1])))


# Optimisers


@given(size=st.integers(1, 9), seed=seeds)
def test_the_norm_is_summed_in_float64(kernels, size, seed):
    for dtype in ("float32", "float64"):
        grad = normal(seed, size).astype(dtype) * dtype_factor(dtype)
        expected = np.sqrt(sum(float(g) ** 2 for g in grad))
        assert kernels.norm(kernels.array(grad)) == pytest.approx(expected, rel=1e-14)


def dtype_factor(dtype):
    """A factor whose square overflows float32."""
    return 1e30 if dtype == "float32" else 1.0


# Types


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
