"""The ELBO (its two terms, beta, free bits), the importance-weighted bound, and the gradients of both."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import special

from minicvae.kernels import load
from minicvae.objectives import ELBO, IWAE

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 5)
betas = st.sampled_from([0.0, 0.25, 1.0, 4.0])


def terms(seed, samples, n, l, least=0.0):
    """nll (s, n) and kl (n, l), the latter at least `least`."""
    rng = np.random.default_rng(seed)
    return 10 * rng.standard_normal((samples, n)), least + 2 * rng.random((n, l))


def as_function(objective, kernels, beta=None):
    """The loss and its backward as a function of nll and kl, for the checker."""

    def forward(nll, kl):
        losses, backward = objective.forward(kernels, nll, kl, beta)
        return losses.loss, lambda dloss: tuple(dloss * gradient for gradient in backward())

    return forward


@given(samples=sizes, n=sizes, l=sizes, beta=betas, seed=seeds)
def test_the_loss_is_the_mean_reconstruction_and_beta_times_the_summed_kl(host, samples, n, l, beta, seed):
    nll, kl = terms(seed, samples, n, l)
    losses, _ = ELBO(beta).forward(host, nll, kl)
    assert losses.reconstruction == pytest.approx(sum(nll.ravel()) / (samples * n), abs=1e-12)
    assert losses.kl == pytest.approx(sum(kl.ravel()) / n, abs=1e-12)
    assert losses.loss == pytest.approx(losses.reconstruction + beta * losses.kl, abs=1e-12)
    assert all(isinstance(value, float) for value in losses)


@given(samples=sizes, n=sizes, l=sizes, beta=betas, annealed=st.one_of(st.none(), betas), seed=seeds)
def test_the_gradient_is_the_slope(host, assert_slopes, samples, n, l, beta, annealed, seed):
    nll, kl = terms(seed, samples, n, l)
    weight = beta if annealed is None else annealed
    vanishing = () if weight else ("kl",)
    assert_slopes(as_function(ELBO(beta), host, annealed), (nll, kl), vanishing=vanishing)


@given(samples=sizes, n=sizes, l=sizes, free_bits=st.floats(0.1, 2), beta=st.sampled_from([0.5, 1.0]), seed=seeds)
def test_with_free_bits_the_gradient_is_the_slope_on_both_sides_of_the_threshold(
    assert_slopes, host, samples, n, l, free_bits, beta, seed
):
    nll, kl = terms(seed, samples, n, l)
    means = kl.mean(axis=0)
    assume(np.abs(means - free_bits).min() > 0.01)
    vanishing = ("kl",) if (means < free_bits).all() else ()
    assert_slopes(as_function(ELBO(beta, free_bits=free_bits), host), (nll, kl), vanishing=vanishing)


def test_a_dimension_below_its_free_bits_costs_them_and_gets_no_gradient(host):
    kl = np.array([[0.1, 2.0, 0.25], [0.3, 4.0, 0.75]])  # means 0.2, 3 and exactly the threshold
    losses, backward = ELBO(2.0, free_bits=0.5).forward(host, np.zeros((1, 2)), kl)
    assert losses.kl == pytest.approx(3.7)  # as it is: what is reported is the KL, not the penalty
    assert losses.loss == pytest.approx(2 * (0.5 + 3.0 + 0.5))
    dnll, dkl = backward()
    np.testing.assert_allclose(dkl, [[0, 1, 0], [0, 1, 0]])
    np.testing.assert_allclose(dnll, [[0.5, 0.5]])


@given(n=sizes, l=sizes, seed=seeds)
def test_an_estimated_kl_below_zero_counts_as_it_is(host, assert_slopes, n, l, seed):
    """A Monte Carlo estimate may be negative; without free bits nothing bounds it from below."""
    nll, kl = terms(seed, 1, n, l, least=-3.0)
    objective = ELBO(kl="monte_carlo")
    losses, _ = objective.forward(host, nll, kl)
    assert losses.loss == pytest.approx(nll.mean() + kl.sum() / n)
    assert_slopes(as_function(objective, host), (nll, kl), linear=True)


@given(n=sizes, l=sizes, samples=sizes, seed=seeds)
def test_the_divergence_is_the_one_that_was_asked_for(host, n, l, samples, seed):
    rng = np.random.default_rng(seed)
    mean, log_var, eps = rng.standard_normal((n, l)), rng.standard_normal((n, l)), rng.standard_normal((samples, n, l))
    closed, _ = ELBO().divergence(host, mean, log_var, eps)
    np.testing.assert_array_equal(closed, host.kl_standard(mean, log_var)[0])
    estimate, _ = ELBO(kl="monte_carlo", samples=samples).divergence(host, mean, log_var, eps)
    np.testing.assert_array_equal(estimate, host.kl_monte_carlo(mean, log_var, eps)[0])


def samplewise(seed, samples, n, l):
    """nll (s, n) and ratio (s, n, l), as far apart as log weights are in practice."""
    rng = np.random.default_rng(seed)
    return 3 * rng.standard_normal((samples, n)), rng.standard_normal((samples, n, l))


@given(samples=sizes, n=sizes, l=sizes, beta=betas, annealed=st.one_of(st.none(), betas), seed=seeds)
def test_the_importance_weighted_loss_is_the_log_of_the_mean_weight(host, samples, n, l, beta, annealed, seed):
    nll, ratio = samplewise(seed, samples, n, l)
    losses, _ = IWAE(samples, beta).forward(host, nll, ratio, annealed)
    log_w = -nll - (beta if annealed is None else annealed) * ratio.sum(axis=2)
    bounds = special.logsumexp(log_w, axis=0) - np.log(samples)
    assert losses.loss == pytest.approx(-bounds.mean(), rel=1e-12, abs=1e-12)
    assert losses.reconstruction == pytest.approx(nll.mean(), abs=1e-12)
    assert losses.kl == pytest.approx(ratio.sum(axis=2).mean(), abs=1e-12)
    assert all(isinstance(value, float) for value in losses)


@given(samples=sizes, n=sizes, l=sizes, beta=betas, annealed=st.one_of(st.none(), betas), seed=seeds)
def test_the_importance_weighted_gradient_is_the_slope(host, assert_slopes, samples, n, l, beta, annealed, seed):
    nll, ratio = samplewise(seed, samples, n, l)
    weight = beta if annealed is None else annealed
    vanishing = () if weight else ("kl",)
    assert_slopes(as_function(IWAE(samples, beta), host, annealed), (nll, ratio), vanishing=vanishing)


@given(n=sizes, l=sizes, beta=betas, seed=seeds)
def test_with_one_sample_the_importance_weighted_bound_is_the_elbo(host, n, l, beta, seed):
    rng = np.random.default_rng(seed)
    nll, mean, log_var, eps = 9 * rng.random((1, n)), *rng.standard_normal((3, 1, n, l))
    found = []
    for objective in (IWAE(1, beta), ELBO(beta, "monte_carlo")):
        kl, kl_backward = objective.divergence(host, mean[0], log_var[0], eps)
        losses, backward = objective.forward(host, nll, kl)
        dnll, dkl = backward()
        found.append([*losses, *dnll.ravel(), *np.ravel(kl_backward(dkl))])
    np.testing.assert_allclose(*found, rtol=1e-12, atol=1e-14)


@given(n=sizes, l=sizes, samples=st.integers(2, 5), seed=seeds)
def test_the_importance_weighted_loss_is_at_most_that_of_the_elbo_of_the_same_samples(host, n, l, samples, seed):
    losses, backward = IWAE(samples).forward(host, *samplewise(seed, samples, n, l))
    assert losses.loss <= losses.reconstruction + losses.kl + 1e-12
    np.testing.assert_allclose(backward()[0].sum(axis=0), 1 / n)


def test_weights_below_every_digit_of_the_gradient_are_none(kernels):
    nll = kernels.array(np.array([[0.0, 0.0], [40.0, 45.0], [46.1, 500.0]]))
    _, backward = IWAE(3).forward(kernels, nll, kernels.array(np.zeros((3, 2, 4))))
    dnll, dratio = map(kernels.to_numpy, backward())
    assert (dnll == 0).tolist() == [[False, False], [False, False], [True, True]]
    np.testing.assert_array_equal(dratio, np.repeat(dnll[:, :, None], 4, axis=2))
    np.testing.assert_allclose(dnll[1], np.exp([-40, -45]) / 2, rtol=1e-12)


def test_weights_that_no_exponential_can_hold_give_finite_losses_and_gradients(kernels):
    nll = kernels.array(np.array([[1e4, 1e4], [1e4 + 1, -1e4]], np.float32))
    losses, backward = IWAE(2).forward(kernels, nll, kernels.xp.zeros((2, 2, 1), np.float32))
    assert float(losses.loss) == pytest.approx((1e4 - np.log((1 + np.exp(-1)) / 2) - 1e4 + np.log(2)) / 2, rel=1e-6)
    dnll = kernels.to_numpy(backward()[0])
    np.testing.assert_allclose(2 * dnll, [[special.expit(1), 0], [special.expit(-1), 1]], rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("objective", [ELBO(), IWAE(1)])
def test_the_backward_runs_once(objective):
    k, arrays = load("numpy"), [np.ones((2, 1))] * 2
    kl, _ = objective.divergence(k, *arrays, np.ones((1, 2, 1)))
    _, backward = objective.forward(k, np.ones((1, 2)), kl)
    backward()
    with pytest.raises(RuntimeError, match="called twice"):
        backward()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_its_gradients_have_the_type_of_the_terms(kernels, dtype):
    nll, kl = kernels.array(np.ones((2, 3)), dtype), kernels.array(np.ones((3, 2)), dtype)
    for beta in (None, 0.3, np.float64(0.3)):
        _, backward = ELBO(free_bits=0.5).forward(kernels, nll, kl, beta)
        assert [str(gradient.dtype) for gradient in backward()] == [dtype, dtype]
    _, backward = IWAE(2).forward(kernels, nll, kernels.xp.ones((2, 3, 2), dtype), 0.3)
    assert [str(gradient.dtype) for gradient in backward()] == [dtype, dtype]


def test_all_samples_are_decoded_unless_it_is_said_how_many():
    assert [ELBO(samples=5, decoded=d).used for d in (0, 1, 5)] == [5, 1, 5]
    assert IWAE(7).used == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": -1}, "beta: expected a number of at least 0, got -1"),
        ({"beta": np.nan}, "beta: "),
        ({"beta": np.inf}, "beta: "),
        ({"kl": "exact"}, "kl: expected 'closed' or 'monte_carlo', got 'exact'"),
        ({"samples": 0}, "samples: expected a whole number of at least 1, got 0"),
        ({"samples": 2.5}, "samples: "),
        ({"samples": True}, "samples: "),
        ({"samples": 2, "decoded": 3}, "decoded: expected at most samples, 2, got 3"),
        ({"samples": 2, "decoded": -1}, "decoded: "),
        ({"beta": "4"}, "beta: expected a number of at least 0, got '4'"),
        ({"free_bits": -0.1}, "free_bits: expected a number of at least 0, got -0.1"),
        ({"free_bits": np.nan}, "free_bits: "),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        ELBO(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "samples: expected a whole number of at least 1, got 0"),
        ({"samples": 2.5}, "samples: "),
        ({"beta": -1}, "beta: "),
        ({"beta": np.nan}, "beta: "),
    ],
)
def test_wrong_settings_of_the_importance_weighted_bound_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        IWAE(**settings)
