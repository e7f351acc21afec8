"""The losses and the log-likelihood of images that a model was not trained on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

import minicvae as mc
from minicvae.conditions import Classes, Parts, Vector
from minicvae.distributions import Bernoulli, Gaussian, LearnedGaussian
from minicvae.evaluate import evaluate, log_likelihood
from minicvae.layers import Dense, Layer, trace
from minicvae.models.base import BATCH, batches
from minicvae.objectives import ELBO, IWAE
from minicvae.randomness import Purpose, standard_normal


def small(device="cpu", **overrides):
    sizes = {"image_shape": (2, 2), "encoder_widths": (3,), "decoder_widths": (3,), "latent_dim": 2, "dtype": "float64"}
    return mc.build("mlp", device=device, **sizes | overrides)


def data(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 2, 2), np.uint8), rng.integers(0, 10, n)


@settings(max_examples=10)
@given(n=st.integers(1, 9), seed=st.integers(0, 2**64 - 1), beta=st.sampled_from([0.0, 1.0, 4.0]))
def test_it_is_the_mean_loss_with_the_noise_of_its_seed(device, n, seed, beta):
    model = small(device, beta=beta)
    x, c = data(n)
    expected, _ = model.loss_and_gradients(x, c, eps=model.noise(n, seed, Purpose.EVALUATE))
    assert evaluate(model, x, c, seed=seed) == pytest.approx(expected, rel=1e-12)


def test_many_examples_are_evaluated_in_batches_that_count_by_their_size(device):
    model, n = small(device), BATCH + 7
    x, c = data(n)
    sums = np.zeros(3)
    for i, rows in enumerate((slice(0, BATCH), slice(BATCH, n))):
        size = rows.stop - rows.start
        eps = model.noise(size, 0, Purpose.EVALUATE, step=i)
        sums += np.multiply(list(model.loss_and_gradients(x[rows], c[rows], eps=eps)[0].values()), size)
    assert list(evaluate(model, x, c).values()) == pytest.approx(sums / n, rel=1e-12)


def test_the_same_model_gives_the_same_numbers_and_stays_the_same(device):
    model, (x, c) = small(device), data(30)
    before = model.kernels.to_numpy(model.parameters.value)
    first = evaluate(model, x, c)
    assert evaluate(model, x, c) == first
    assert evaluate(model, x, c, seed=1) != first
    assert list(first) == ["loss", "reconstruction", "kl"]
    assert all(type(value) is float for value in first.values())
    np.testing.assert_array_equal(model.kernels.to_numpy(model.parameters.value), before)


def test_the_objectives_samples_and_free_bits_count(device):
    x, c = data(20)
    objective = ELBO(2.0, "monte_carlo", 5, 2, 0.5)
    found = evaluate(small(device, objective=objective), x, c)
    model = small(device, objective=objective)
    expected, _ = model.loss_and_gradients(x, c, eps=model.noise(20, 0, Purpose.EVALUATE))
    assert found == pytest.approx(expected, rel=1e-12)
    assert found["loss"] != pytest.approx(found["reconstruction"] + 2 * found["kl"])


@pytest.mark.parametrize(("samples", "examples"), [(BATCH // 2, 2), (2 * BATCH, 1)])
def test_a_batch_is_so_much_smaller_as_there_are_samples_to_decode(device, samples, examples):
    model, (x, c) = small(device, objective=IWAE(samples)), data(3)
    with trace(("decoder", model.decoder)) as record:
        found = evaluate(model, x, c)
    assert {len(entry.output) for entry in record} == {examples * samples, samples}
    sums = np.zeros(3)
    for i, rows in enumerate(batches(3, examples)):
        eps = model.noise(len(x[rows]), 0, Purpose.EVALUATE, step=i)
        losses, _ = model.loss_and_gradients(x[rows], c[rows], eps=eps)
        sums += np.multiply(list(losses.values()), len(x[rows]))
    assert list(found.values()) == pytest.approx(sums / 3, rel=1e-12)


def test_bytes_and_floats_are_the_same(device):
    model, (x, c) = small(device), data(30)
    assert evaluate(model, x, c) == pytest.approx(evaluate(model, x / 255, c), rel=1e-12)


@pytest.mark.parametrize(
    ("x", "c", "error", "message"),
    [
        (np.zeros((2, 2, 2)), [0, 10], ValueError, "c: expected labels 0 to 9, got 10 at index 1"),
        (np.zeros((0, 2, 2)), [], ValueError, "x: expected at least one image"),
        (np.full((2, 2, 2), np.nan), [0, 1], ValueError, "x: expected floats"),
        (np.zeros((2, 2, 2)), None, (TypeError, ValueError), "c: expected"),
    ],
)
def test_wrong_data_is_refused(x, c, error, message):
    with pytest.raises(error, match=f"^{message}"):
        evaluate(small(), x, c)


def test_a_wrong_seed_is_refused():
    with pytest.raises(TypeError, match=r"^seed: expected an integer"):
        evaluate(small(), *data(2), seed="0")


class Interrupted(Layer):
    """A layer in which Ctrl-C is pressed once `armed`."""

    armed = False

    def __init__(self, inner):
        self.inner = inner

    def children(self):
        yield "inner", self.inner

    def forward(self, *inputs):
        if self.armed:
            raise KeyboardInterrupt
        return self.inner.forward(*inputs)


@pytest.mark.parametrize("call", ["evaluate", "encode", "reconstruct"])
def test_an_evaluation_that_breaks_off_leaves_fresh_memory_behind(device, call):
    """What a layer returns outside of a loop of steps belongs to the caller; no later step may write into it."""
    network = Interrupted(Dense(4 + 10, 4))
    model = mc.CVAE(
        network, Dense(2 + 10, 4), Classes(10), latent_dim=2, image_shape=(2, 2), device=device, dtype="float64"
    )
    x, c = data(3)
    network.armed = True
    with pytest.raises(KeyboardInterrupt):
        getattr(model, call)(x, c)
    network.armed = False
    k = model.kernels
    kept = k.scale_rows(k.array(np.ones((3, 4))), k.array(np.ones(3)))
    evaluate(model, x, c)
    model.encode(x, c)
    np.testing.assert_array_equal(k.to_numpy(kept), np.ones((3, 4)))


# The log-likelihood

GRID = np.linspace(-15, 15, 6001)


def joint_on_the_grid(model, x, c, i):
    """log p(x_i, z|c_i) and log q(z|x_i,c_i) at every z of the grid, densities by SciPy."""
    k = model.kernels
    parts = model.condition.encode(
        {name: np.repeat(v[i : i + 1], len(GRID), axis=0) for name, v in c.items()}, k, model.dtype
    )
    h = k.to_numpy(model.decoder.forward(k.array(GRID[:, None]), *parts)[0])
    pixels = x[i].reshape(1, -1) / 255
    if isinstance(model.likelihood, Bernoulli):
        log_p = (pixels * special.log_expit(h) + (1 - pixels) * special.log_expit(-h)).sum(axis=1)
    elif isinstance(model.likelihood, Gaussian):
        log_p = stats.norm.logpdf(pixels, special.expit(h), model.likelihood.sigma).sum(axis=1)
    else:
        mu, v = np.split(h, 2, axis=1)
        log_p = stats.norm.logpdf(pixels, mu, np.exp(v / 2)).sum(axis=1)
    mean, log_var = (moment[i, 0] for moment in model.encode(x, c))
    return log_p + stats.norm.logpdf(GRID), stats.norm.logpdf(GRID, mean, np.exp(log_var / 2))


@pytest.mark.many_draws
@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian(0.5), LearnedGaussian()])
@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_it_comes_to_the_integral_over_a_latent_of_one_dimension(device, likelihood, beta):
    """Within six standard errors, which the same grid gives: Var(w) / p² = ∫ p(x,z)² / q dz / p² - 1."""
    condition = Parts({"digit": Classes(10), "style": Vector(1)})
    model = small(device, latent_dim=1, likelihood=likelihood, condition=condition, beta=beta, seed=3)
    x, labels = data(3)
    c, samples, step = {"digit": labels, "style": labels[:, None] / 5 - 1}, 4 * BATCH + 7, GRID[1] - GRID[0]
    found = log_likelihood(model, x, c, samples)
    assert found.shape == (3,)
    assert found.dtype == np.float64
    for i, value in enumerate(found):
        joint, q = joint_on_the_grid(model, x, c, i)
        exact = special.logsumexp(joint) + np.log(step)
        variance = np.exp(special.logsumexp(2 * joint - q) + np.log(step) - 2 * exact) - 1
        error = np.sqrt(variance / samples)
        assert 0 < error < 0.05, "the test would see nothing"
        assert abs(value - exact) < 6 * error


@pytest.mark.parametrize("learnt", [False, True], ids=["fixed prior", "prior that sees c"])
def test_with_one_sample_it_is_minus_the_elbo_of_that_sample(device, learnt):
    model, (x, c) = small(device, objective=IWAE(1), conditional_prior=learnt), data(4)
    eps = [standard_normal((1, 1, 2), "float64", 5, Purpose.LOG_LIKELIHOOD, i, 0) for i in range(4)]
    losses, _ = model.loss_and_gradients(x, c, eps=np.concatenate(eps, axis=1))
    assert -log_likelihood(model, x, c, 1, seed=5).mean() == pytest.approx(losses["loss"], rel=1e-12)


@pytest.mark.many_draws
def test_more_samples_tighten_the_bound(device):
    model, (x, c) = small(device, seed=2), data(40)
    model.parameters["encoder.1.b"] = np.array([1.0, -1.0, 1.0, 1.0])  # a posterior that is far from the true one
    bounds = [log_likelihood(model, x, c, samples).mean() for samples in (1, 10, 100, 1000)]
    assert bounds == sorted(bounds)
    assert np.diff(bounds)[0] > 5 * np.diff(bounds)[-1] > 0
    assert -bounds[0] == pytest.approx(model.evaluate(x, c)["loss"], abs=1)


def test_many_samples_are_joined_as_if_they_came_at_once(device):
    model, (x, c), samples = small(device), data(2), 2 * BATCH + 3
    found = model.log_likelihood(x, c, samples, seed=1)
    sizes = [(0, BATCH), (1, BATCH), (2, 3)]
    for i in range(2):
        eps = [standard_normal((s, 1, 2), "float64", 1, Purpose.LOG_LIKELIHOOD, i, j) for j, s in sizes]
        whole = small(device, objective=IWAE(samples))
        losses, _ = whole.loss_and_gradients(x[i : i + 1], c[i : i + 1], eps=np.concatenate(eps))
        assert -found[i] == pytest.approx(losses["loss"], rel=1e-12)


def test_the_samples_never_come_more_than_a_batch_at_a_time(device):
    model, (x, c) = small(device), data(2)
    with trace(("decoder", model.decoder)) as record:
        log_likelihood(model, x, c, 3 * BATCH + 1)
    assert max(len(entry.output) for entry in record) == BATCH


def test_the_same_seed_gives_the_same_log_likelihood_and_another_another(device):
    model, (x, c) = small(device), data(3)
    first = log_likelihood(model, x, c, 20, seed=1)
    np.testing.assert_array_equal(log_likelihood(model, x, c, 20, seed=1), first)
    np.testing.assert_array_equal(log_likelihood(model, x[:2], c[:2], 20, seed=1), first[:2])
    assert (log_likelihood(model, x, c, 20, seed=2) != first).all()


@pytest.mark.parametrize("samples", [0, -1, 2.5, True, "10"])
def test_samples_that_are_no_count_are_refused(samples):
    with pytest.raises(ValueError, match=r"^samples: expected a whole number of at least 1, got"):
        log_likelihood(small(), *data(2), samples)
