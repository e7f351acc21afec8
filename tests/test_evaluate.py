"""The losses on images that a model was not trained on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minicvae as mc
from minicvae.conditions import Classes
from minicvae.evaluate import evaluate
from minicvae.layers import Dense, Layer
from minicvae.models.base import BATCH
from minicvae.objectives import ELBO
from minicvae.randomness import Purpose


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
