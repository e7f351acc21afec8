"""The distributions as links of a chain: values, backwards with any upstream gradient, means and samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from minicvae import distributions
from minicvae.distributions import LIKELIHOODS, Bernoulli, Gaussian, LearnedGaussian, Likelihood
from minicvae.kernels import load

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 5)
every_likelihood = pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian(), Gaussian(0.3), LearnedGaussian()])


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


# The posterior


@given(n=sizes, l=sizes, samples=sizes, data=st.data(), seed=seeds)
def test_the_posteriors_gradients_are_their_slopes(host, assert_slopes, n, l, samples, data, seed):
    used = data.draw(st.integers(1, samples))
    mean, log_var, prior_mean, prior_log_var = (normal(seed + i, n, l) for i in range(4))
    eps = normal(seed + 4, samples, n, l)

    def first_samples(mean, log_var):
        z, backward = distributions.reparameterise(host, mean, log_var, eps)
        return z[:used], backward

    assert_slopes(first_samples, (mean, log_var))
    assert_slopes(lambda m, v: distributions.kl_standard(host, m, v), (mean, log_var))
    assert_slopes(lambda m, v: distributions.kl_monte_carlo(host, m, v, eps), (mean, log_var))
    assert_slopes(lambda m, v: distributions.log_ratio(host, m, v, eps), (mean, log_var))
    assert_slopes(
        lambda *arguments: distributions.kl_diagonal(host, *arguments), (mean, log_var, prior_mean, prior_log_var)
    )


@pytest.mark.parametrize("name", ["kl_standard", "kl_diagonal", "kl_monte_carlo", "log_ratio", "reparameterise"])
def test_their_backwards_run_once_and_give_zero_for_zero(host, name):
    mean, log_var, eps = normal(0, 2, 3), normal(1, 2, 3), normal(2, 4, 2, 3)
    arguments = {"kl_standard": (), "kl_diagonal": (mean + 1, log_var - 1)}.get(name, (eps,))
    y, backward = getattr(distributions, name)(host, mean, log_var, *arguments)
    assert not any(gradient.any() for gradient in backward(np.zeros_like(y)))
    with pytest.raises(RuntimeError, match="called twice"):
        backward(np.zeros_like(y))


def seen_from_the_prior(kernels, divergence):
    """A function of two Gaussians: what `divergence` from N(0, I) is, seen from the second of them."""

    def forward(mean, log_var, prior_mean, prior_log_var):
        seen, seen_backward = distributions.relative(kernels, mean, log_var, prior_mean, prior_log_var)
        y, backward = divergence(*seen)
        return y, lambda dy: seen_backward(*backward(dy))

    return forward


@given(n=sizes, l=sizes, samples=sizes, seed=seeds)
def test_a_learnt_prior_is_another_place_to_see_the_posterior_from(host, assert_slopes, n, l, samples, seed):
    arguments = mean, log_var, prior_mean, prior_log_var = [normal(seed + i, n, l) for i in range(4)]
    eps, dy = normal(seed + 4, samples, n, l), normal(seed + 5, n, l)

    closed = seen_from_the_prior(host, lambda m, v: distributions.kl_standard(host, m, v))
    (kl, backward), (expected, plain) = closed(*arguments), distributions.kl_diagonal(host, *arguments)
    np.testing.assert_allclose(kl, expected, rtol=1e-10, atol=1e-12)
    for found, gradient in zip(backward(dy), plain(dy), strict=True):
        np.testing.assert_allclose(found, gradient, rtol=1e-10, atol=1e-12)

    sampled = seen_from_the_prior(host, lambda m, v: distributions.log_ratio(host, m, v, eps))
    deviation, prior_deviation = np.exp(log_var / 2), np.exp(prior_log_var / 2)
    z = mean + deviation * eps
    densities = stats.norm.logpdf(z, mean, deviation) - stats.norm.logpdf(z, prior_mean, prior_deviation)
    np.testing.assert_allclose(sampled(*arguments)[0], densities, rtol=1e-9, atol=1e-9)
    assert_slopes(sampled, tuple(arguments))


def test_its_backward_runs_once(host):
    _, backward = distributions.relative(host, *(normal(i, 2, 3) for i in range(4)))
    backward(normal(4, 2, 3), normal(5, 2, 3))
    with pytest.raises(RuntimeError, match="called twice"):
        backward(normal(4, 2, 3), normal(5, 2, 3))


@given(n=sizes, l=sizes, seed=seeds)
def test_the_kl_to_oneself_is_zero_and_otherwise_it_is_positive(host, n, l, seed):
    mean, log_var = normal(seed, n, l), normal(seed + 1, n, l)
    itself, backward = distributions.kl_diagonal(host, mean, log_var, mean, log_var)
    np.testing.assert_array_equal(itself, np.zeros((n, l)))
    assert not any(np.any(gradient) for gradient in backward(np.ones((n, l))))
    zeros = np.zeros((n, l))
    to_standard, _ = distributions.kl_diagonal(host, mean, log_var, zeros, zeros)
    np.testing.assert_allclose(to_standard, distributions.kl_standard(host, mean, log_var)[0], rtol=1e-12)
    assert (to_standard > 0).all()


def test_the_monte_carlo_kl_comes_to_the_closed_form(host):
    mean, log_var, samples = normal(0, 1, 4), normal(1, 1, 4), 100_000
    estimate, backward = distributions.kl_monte_carlo(host, mean, log_var, normal(2, samples, 1, 4))
    exact, exact_backward = distributions.kl_standard(host, mean, log_var)
    np.testing.assert_allclose(estimate, exact, atol=0.05)
    for found, expected in zip(backward(np.ones((1, 4))), exact_backward(np.ones((1, 4))), strict=True):
        np.testing.assert_allclose(found, expected, atol=0.05)


@given(mean=st.floats(-3, 3), log_var=st.floats(-6, 3), seed=seeds)
def test_the_sampler_has_the_mean_and_the_variance_that_it_was_given(host, mean, log_var, seed):
    samples, variance = 20_000, np.exp(log_var)
    eps = normal(seed, samples, 1, 1)
    z, _ = distributions.reparameterise(host, np.full((1, 1), mean), np.full((1, 1), log_var), eps)
    assert z.mean() == pytest.approx(mean, abs=6 * np.sqrt(variance / samples))
    assert z.var() == pytest.approx(variance, rel=6 * np.sqrt(2 / samples))


@given(n=sizes, d=sizes, seed=seeds)
def test_the_log_density_of_a_diagonal_gaussian_is_scipys(host, n, d, seed):
    z, mean, log_var = normal(seed, 3, n, d)
    expected = stats.norm.logpdf(z, mean, np.exp(log_var / 2)).sum(axis=1)
    np.testing.assert_allclose(distributions.log_normal(host, z, mean, log_var), expected, rtol=1e-10, atol=1e-10)


# Likelihoods


@given(n=sizes, d=sizes, seed=seeds)
def test_the_masked_cross_entropy_is_that_of_the_pixels_that_count(host, assert_slopes, n, d, seed):
    h, x = draw_output(Bernoulli(), seed, n, d)
    counted = np.random.default_rng(seed).random((n, d)) < 0.5
    counted[0, 0] = True
    p = special.expit(h)
    expected = -np.where(counted, special.xlogy(x, p) + special.xlog1py(1 - x, -p), 0).sum(axis=1)
    nll, backward = distributions.masked_bernoulli(host, h, x, counted)
    np.testing.assert_allclose(nll, expected, rtol=1e-10, atol=1e-12)
    assert (backward(np.ones(n))[~counted] == 0).all()
    assert_slopes(lambda h: distributions.masked_bernoulli(host, h, x, counted), (h,))
    nll, backward = distributions.masked_bernoulli(host, h.astype("f4"), x.astype("f4"), counted)
    np.testing.assert_allclose(nll, expected, rtol=1e-5, atol=1e-5)
    assert (backward(np.ones(n, "f4"))[~counted] == 0).all()


def draw_output(likelihood, seed, n, d):
    """h, x for a likelihood: its last layer's output, and pixels with black and white among them."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((n, d)) < 0.3, rng.integers(0, 2, (n, d)), rng.random((n, d)))
    return rng.standard_normal((n, likelihood.width(d))), x


@every_likelihood
@given(n=sizes, d=sizes, seed=seeds)
def test_the_likelihoods_gradients_are_their_slopes(host, assert_slopes, likelihood, n, d, seed):
    h, x = draw_output(likelihood, seed, n, d)
    assert_slopes(lambda h: likelihood.forward(host, h, x), (h,))
    nll, _ = likelihood.forward(host, h, x)
    assert nll.shape == (n,)


@every_likelihood
def test_a_likelihoods_backward_runs_once(host, likelihood):
    h, x = draw_output(likelihood, 0, 2, 3)
    nll, backward = likelihood.forward(host, h, x)
    backward(nll)
    with pytest.raises(RuntimeError, match="called twice"):
        backward(nll)


@every_likelihood
@given(n=sizes, d=sizes, seed=seeds)
def test_the_loss_of_an_example_does_not_depend_on_the_batch_that_it_comes_in(host, likelihood, n, d, seed):
    h, x = draw_output(likelihood, seed, n, d)
    nll, derivative = likelihood.loss(host, h, x)
    for i in range(n):
        alone, slope = likelihood.loss(host, h[i : i + 1], x[i : i + 1])
        np.testing.assert_allclose(alone[0], nll[i], rtol=1e-13)
        np.testing.assert_allclose(slope[0], derivative[i], rtol=1e-13, atol=1e-300)


def test_the_widths_say_how_many_columns_a_decoder_gives():
    assert [likelihood.width(5) for likelihood in (Bernoulli(), Gaussian(), LearnedGaussian())] == [5, 5, 10]


@given(n=sizes, d=sizes, seed=seeds)
def test_the_picture_is_the_expected_pixel(host, n, d, seed):
    h = 3 * normal(seed, n, 2 * d)
    np.testing.assert_allclose(Bernoulli().mean(host, h), special.expit(h), rtol=1e-14)
    np.testing.assert_allclose(Gaussian(0.2).mean(host, h), special.expit(h), rtol=1e-14)
    np.testing.assert_array_equal(LearnedGaussian().mean(host, h), np.clip(h[:, :d], 0, 1))


@every_likelihood
def test_what_a_decoder_starts_from_is_the_mean_image_wherever_that_can_be(host, likelihood):
    mean = np.array([0.0, 1e-4, 0.2, 0.5, 0.97, 1.0])
    start = likelihood.start(mean)
    assert start.shape == (likelihood.width(len(mean)),)
    assert np.isfinite(start).all()
    expected = mean if isinstance(likelihood, LearnedGaussian) else np.clip(mean, 0.001, 0.999)
    np.testing.assert_allclose(likelihood.mean(host, start[None])[0], expected, rtol=1e-12)


def test_a_learnt_variance_starts_at_one():
    np.testing.assert_array_equal(LearnedGaussian().start(np.array([0.2, 0.4])), [0.2, 0.4, 0, 0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples_have_the_likelihoods_mean_and_variance(kernels, dtype):
    n, d = 20_000, 3
    location, v = np.array([-1.0, 0.2, 2.0]), np.array([-4.0, 0.0, 1.0])
    p = special.expit(location)
    for likelihood, h, mean, variance in (
        (Bernoulli(), location, p, p * (1 - p)),
        (Gaussian(0.3), location, p, np.full(d, 0.09)),
        (LearnedGaussian(), np.concatenate([location, v]), location, np.exp(v)),
    ):
        rows = kernels.array(np.tile(h, (n, 1)), dtype)
        drawn = likelihood.sample(kernels, rows, np.random.default_rng(0))
        assert drawn.shape == (n, d)
        assert drawn.dtype == dtype
        np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=6 * np.sqrt(variance.max() / n))
        np.testing.assert_allclose(drawn.var(axis=0), variance, rtol=6 * np.sqrt(2 / n) + 0.03)
        np.testing.assert_array_equal(drawn, likelihood.sample(kernels, rows, np.random.default_rng(0)))
        if isinstance(likelihood, Bernoulli):
            assert set(np.unique(drawn)) == {0.0, 1.0}


def test_a_sample_is_the_mean_plus_the_noise_of_the_generator_that_it_was_given():
    kernels, h = load("numpy"), np.array([[0.3, -0.2, 1.0, -1.0]])
    noise = np.random.default_rng(5).standard_normal((1, 4))
    drawn = Gaussian(0.3).sample(kernels, h, np.random.default_rng(5))
    np.testing.assert_allclose(drawn, special.expit(h) + 0.3 * noise, rtol=1e-14)
    noise = np.random.default_rng(5).standard_normal((1, 2))
    drawn = LearnedGaussian().sample(kernels, h, np.random.default_rng(5))
    np.testing.assert_allclose(drawn, h[:, :2] + np.exp(h[:, 2:] / 2) * noise, rtol=1e-14)


@pytest.mark.parametrize("outermost", [0.0, np.nextafter(1.0, 0.0)])
def test_a_pixel_of_probability_zero_is_never_drawn_and_one_of_probability_one_always(outermost):
    class Generator:
        """Draws the outermost number that a generator can give."""

        def random(self, shape):
            return np.full(shape, outermost)

    drawn = Bernoulli().sample(load("numpy"), np.array([[-1e4, 1e4]]), Generator())
    np.testing.assert_array_equal(drawn, [[0, 1]])


@pytest.mark.parametrize("sigma", [0, -1, np.nan, np.inf])
def test_a_sigma_that_is_not_positive_is_refused(sigma):
    with pytest.raises(ValueError, match=r"^sigma: expected a positive number, got "):
        Gaussian(sigma)


def test_the_base_has_no_loss_and_no_sample():
    with pytest.raises(NotImplementedError):
        Likelihood().forward(load("numpy"), np.zeros((1, 1)), np.zeros((1, 1)))
    with pytest.raises(NotImplementedError):
        Likelihood().sample(load("numpy"), np.zeros((1, 1)), np.random.default_rng(0))
    assert all(issubclass(kind, Likelihood) for kind in LIKELIHOODS)
