"""The contract of probability: sampler, KLs and likelihoods against differences, SciPy, integrals and samples."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import integrate, special, stats

EXTREMES = np.array([-1e4, -800.0, -90.0, 0.0, 90.0, 800.0, 1e4])

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 5)
extreme_log_vars = st.sampled_from([-30.0, -1.0, 0.0, 1e-9, 1.0, 30.0])


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


# The Gaussian posterior


@given(n=sizes, l=sizes, samples=sizes, data=st.data(), seed=seeds)
def test_the_gradients_of_the_sampler_are_its_slopes(host, assert_slopes, n, l, samples, data, seed):
    eps = normal(seed, samples, n, l)
    used = data.draw(st.integers(1, samples))

    def forward(mean, log_var):
        z = host.reparameterise(mean, log_var, eps)
        return z[:used], lambda dz: host.reparameterise_backward(dz, log_var, eps)

    assert_slopes(forward, (normal(seed + 1, n, l), normal(seed + 2, n, l)))


@given(log_var=extreme_log_vars, seed=seeds)
def test_the_samplers_slopes_are_right_at_extreme_variances(host, assert_slopes, log_var, seed):
    eps = normal(seed, 2, 1, 1)
    assume(np.abs(eps.sum()) > 1e-3)

    def forward(log_var):
        z = host.reparameterise(np.zeros((1, 1)), log_var, eps)
        return z, lambda dz: host.reparameterise_backward(dz, log_var, eps)[1]

    assert_slopes(forward, (np.full((1, 1), log_var),))


@given(n=sizes, l=sizes, seed=seeds)
def test_the_gradients_of_the_kl_to_the_standard_normal_are_its_slopes(host, assert_slopes, n, l, seed):
    def forward(mean, log_var):
        kl, *derivatives = host.kl_standard(mean, log_var)
        return kl, lambda dkl: tuple(dkl * d for d in derivatives)

    assert_slopes(forward, (normal(seed, n, l), normal(seed + 1, n, l)))


@given(n=sizes, l=sizes, seed=seeds)
def test_the_gradients_of_the_kl_between_two_gaussians_are_its_slopes(host, assert_slopes, n, l, seed):
    def forward(mean, log_var, prior_mean, prior_log_var):
        kl, *derivatives = host.kl_diagonal(mean, log_var, prior_mean, prior_log_var)
        return kl, lambda dkl: tuple(dkl * d for d in derivatives)

    assert_slopes(forward, [normal(seed + i, n, l) for i in range(4)])


@given(n=sizes, l=sizes, samples=sizes, seed=seeds)
def test_the_gradients_of_the_monte_carlo_kl_are_its_slopes(host, assert_slopes, n, l, samples, seed):
    eps = normal(seed, samples, n, l)

    def forward(mean, log_var):
        kl, *derivatives = host.kl_monte_carlo(mean, log_var, eps)
        return kl, lambda dkl: tuple(dkl * d for d in derivatives)

    assert_slopes(forward, (normal(seed + 1, n, l), normal(seed + 2, n, l)))


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


@given(n=sizes, l=sizes, samples=sizes, seed=seeds)
def test_the_gradients_of_the_log_ratio_are_its_slopes(host, assert_slopes, n, l, samples, seed):
    eps = normal(seed, samples, n, l)

    def forward(mean, log_var):
        ratio, *derivatives = host.log_ratio(mean, log_var, eps)
        return ratio, lambda dratio: tuple((dratio * d).sum(axis=0) for d in derivatives)

    assert_slopes(forward, (normal(seed + 1, n, l), normal(seed + 2, n, l)))


@given(n=sizes, l=sizes, samples=sizes, seed=seeds)
def test_the_log_ratio_is_that_of_the_densities_at_each_sample(host, n, l, samples, seed):
    mean, log_var, eps = normal(seed, n, l), normal(seed + 1, n, l), normal(seed + 2, samples, n, l)
    z = host.reparameterise(mean, log_var, eps)
    expected = stats.norm.logpdf(z, mean, np.exp(log_var / 2)) - stats.norm.logpdf(z)
    np.testing.assert_allclose(host.log_ratio(mean, log_var, eps)[0], expected, rtol=1e-11, atol=1e-12)


@given(n=sizes, samples=sizes, scale=st.sampled_from([1.0, 5.0]), seed=seeds)
def test_the_gradient_of_the_log_mean_exp_is_its_slope(host, assert_slopes, n, samples, scale, seed):
    def forward(log_w):
        bound, weights = host.log_mean_exp(log_w)
        return bound, lambda dbound: dbound * weights

    assert_slopes(forward, (scale * normal(seed, samples, n),))


@given(n=sizes, samples=sizes, offset=st.sampled_from([0.0, -1e4, 1e4]), seed=seeds)
def test_the_log_mean_exp_neither_overflows_nor_loses_its_sum(host, n, samples, offset, seed):
    log_w = normal(seed, samples, n) + offset
    bound, weights = host.log_mean_exp(log_w)
    np.testing.assert_allclose(bound, special.logsumexp(log_w, axis=0) - np.log(samples), rtol=1e-14, atol=1e-13)
    np.testing.assert_allclose(weights, special.softmax(log_w, axis=0), rtol=1e-13)


# Classes


@given(n=sizes, classes=sizes, scale=st.sampled_from([1.0, 5.0]), seed=seeds)
def test_the_gradient_of_the_cross_entropy_is_its_slope(host, assert_slopes, n, classes, scale, seed):
    labels = np.random.default_rng(seed).integers(0, classes, n)

    def forward(logits):
        nll, derivative = host.softmax_cross_entropy(logits, labels)
        return nll, lambda dnll: dnll[:, None] * derivative

    if classes > 1:  # a single class is certain
        assert_slopes(forward, (scale * normal(seed, n, classes),))


@given(n=sizes, classes=sizes, offset=st.sampled_from([0.0, -1e4, 1e4]), seed=seeds)
def test_the_cross_entropy_is_minus_the_log_probability_of_the_label(host, n, classes, offset, seed):
    rng = np.random.default_rng(seed)
    logits, labels = 10 * rng.standard_normal((n, classes)) + offset, rng.integers(0, classes, n)
    nll, derivative = host.softmax_cross_entropy(logits, labels)
    np.testing.assert_allclose(nll, -special.log_softmax(logits, axis=1)[np.arange(n), labels], atol=1e-11)
    np.testing.assert_allclose(derivative, special.softmax(logits, axis=1) - np.eye(classes)[labels], atol=1e-11)


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
def test_the_gradients_of_the_likelihoods_are_their_slopes(host, assert_slopes, n, d, seed):
    rng = np.random.default_rng(seed)
    x, sigma = pixels(rng, (n, d)), float(np.exp(rng.uniform(-1.5, 1)))
    logits, h = 2 * rng.standard_normal((n, d)), rng.standard_normal((n, 2 * d))
    assert_slopes(likelihood(host.bernoulli, x), (logits,))
    assert_slopes(likelihood(host.gaussian, x, sigma), (logits,))
    assert_slopes(likelihood(host.gaussian_learned, x), (h,))


@pytest.mark.parametrize("d", [1, 55, 56, 57, 784])
def test_the_bernoulli_gradient_is_right_for_every_length_of_a_row(host, assert_slopes, d):
    rng = np.random.default_rng(d)
    x, logits = pixels(rng, (2, d)), 3 * rng.standard_normal((2, d))
    assert_slopes(likelihood(host.bernoulli, x), (logits,), elements=2 * d)
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


def test_a_dimension_at_its_free_bits_or_below_is_not_pressed_on(kernels):
    nll, kl = kernels.array(np.array([[4.0, 6.0]])), kernels.array(np.array([[1.0, 3.0, 0.0], [3.0, 3.0, 1.0]]))
    loss, reconstruction, total, dnll, dkl = kernels.elbo(nll, kl, 0.5, 2.0)
    assert (float(loss), float(reconstruction), float(total)) == (5 + 0.5 * (2 + 3 + 2), 5, 2 + 3 + 0.5)
    np.testing.assert_array_equal(kernels.to_numpy(dnll), [[0.5, 0.5]])
    np.testing.assert_array_equal(kernels.to_numpy(dkl), [[0, 0.25, 0]] * 2)
