"""Everything a user does with a model, on the device cuda as the stand-in has it, against the plain reference.

On plain expressions, each of which CuPy must be able to run, and on the CUDA kernels run by the host.
"""

import numpy as np
import pytest
import standin

import minicvae as mc
from minicvae import conditions, diagnostics
from minicvae.classifier import Classifier, digit_network
from minicvae.conditions import Classes, Parts, Vector
from minicvae.distributions import Bernoulli, Gaussian, LearnedGaussian
from minicvae.layers import Chain, Dense
from minicvae.models.presets import PRESETS
from minicvae.objectives import ELBO, IWAE
from minicvae.optimizers import SGD, AdamW
from minicvae.training import NonFiniteError

SIDE = 8
SMALL = {
    "image_shape": (SIDE, SIDE),
    "latent_dim": 2,
    "encoder_widths": (6, 5),
    "decoder_widths": (5, 6),
}


def small(preset, device, **overrides):
    return mc.build(preset, device=device, **SMALL | overrides)


def data(model, n=11, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n, SIDE, SIDE), np.uint8)
    return x, conditions.draw(model.condition, n, rng)


def pair(preset, **settings):
    """The same model on the plain reference and on the stand-in."""
    return [small(preset, device, **settings) for device in ("numpy", "cuda")]


def assert_same_weights(one, other, **tolerance):
    for name, value in one.parameters.items():
        np.testing.assert_allclose(
            other.kernels.to_numpy(other.parameters[name]), one.kernels.to_numpy(value), err_msg=name, **tolerance
        )


VARIANTS = {
    "iwae": ("mlp", {"objective": IWAE(3)}),
    "several samples": ("mlp", {"objective": ELBO(samples=3, decoded=2)}),
    "free bits": ("mlp", {"objective": ELBO(0.5, free_bits=0.1)}),
    "estimated KL": ("mlp", {"objective": ELBO(kl="monte_carlo", samples=4)}),
    "learned variance": ("mlp", {"likelihood": LearnedGaussian()}),
    "fixed variance": ("pathways", {"likelihood": Gaussian(0.3)}),
    "embedded": ("mlp", {"condition": Classes(4, 3)}),
    "two classes and a vector": ("mlp", {"condition": Parts({"a": Classes(4), "b": Classes(3), "v": Vector(2)})}),
    "adversary of the embedded": ("embedding", {"discriminator_widths": (4,)}),
    "adversary of many samples": ("mlp", {"discriminator_widths": (4,), "objective": ELBO(samples=2)}),
    "convolutional iwae": ("conv", {"objective": IWAE(2)}),
}
MODELS = {name: (name, {}) for name in PRESETS} | VARIANTS


@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients_are_the_references(on_cuda, name):
    preset, settings = MODELS[name]
    plain, model = pair(preset, dtype="float64", **settings)
    x, c = data(plain)
    losses, gradients = plain.loss_and_gradients(x, c, seed=3)
    found, found_gradients = model.loss_and_gradients(x, c, seed=3)
    assert found == pytest.approx(losses, rel=1e-12)
    for key, gradient in gradients.items():
        size = np.abs(gradient).max()
        np.testing.assert_allclose(found_gradients[key], gradient, rtol=1e-9, atol=1e-12 * size, err_msg=key)


@pytest.mark.parametrize("name", MODELS)
def test_a_training_is_the_references(on_cuda, name):
    preset, settings = MODELS[name]
    models, found = pair(preset, dtype="float64", **settings), []
    for model in models:
        (x, c), validation = data(model), data(model, 5, 1)
        more = {"binarise": True, "clip_norm": 50.0} if name == "mlp" else {}
        history = model.fit(x, c, epochs=2, batch_size=4, validation_data=validation, verbose=0, seed=5, **more)
        found.append({key: values for key, values in history.history.items() if key != "seconds"})
    assert found[1] == {key: pytest.approx(values, rel=1e-8) for key, values in found[0].items()}
    assert_same_weights(*models, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", AdamW(), SGD(momentum=0.9, nesterov=True, weight_decay=0.01)])
def test_every_optimiser_trains_in_float32(on_cuda, optimizer):
    plain, model = pair("mlp")
    x, c = data(plain)
    for each in (plain, model):
        each.fit(x, c, epochs=2, batch_size=4, optimizer=optimizer, early_stopping=1, validation_data=(x, c), verbose=0)
    assert model.parameters.value.dtype == np.float32
    assert_same_weights(plain, model, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_encodes_decodes_and_measures_as_the_reference(on_cuda, name):
    preset, settings = MODELS[name]
    plain, model = pair(preset, dtype="float64", **settings)
    x, c = data(plain)

    def answers(m):
        return [
            *m.encode(x, c),
            m.reconstruct(x, c),
            m.generate(c, seed=1),
            m.log_likelihood(x, c, samples=20),
            np.array(list(m.evaluate(x, c).values())),
        ]

    for found, expected in zip(answers(model), answers(plain), strict=True):
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["embedding", "conv", "two classes and a vector"])
def test_a_model_is_saved_and_comes_back(on_cuda, name, tmp_path):
    preset, settings = MODELS[name]
    model = small(preset, "cuda", **settings)
    model.save(tmp_path / "model.safetensors")
    for device in ("numpy", "cuda"):
        back = mc.load(tmp_path / "model.safetensors", device=device)
        assert back.device == device
        assert_same_weights(model, back, rtol=0)


def test_the_likelihoods_sample_from_what_lies_on_the_device(on_cuda):
    h = on_cuda.array(np.random.default_rng(0).standard_normal((3, 8)))
    for likelihood in (Bernoulli(), Gaussian(0.5), LearnedGaussian()):
        drawn = likelihood.sample(on_cuda, h, np.random.default_rng(1))
        assert type(drawn) is np.ndarray
        assert type(on_cuda.to_numpy(likelihood.mean(on_cuda, h))) is np.ndarray


def test_a_model_is_diagnosed(on_cuda):
    plain, model = pair("mlp")
    x, c = data(plain, 40)
    classifiers = [
        Classifier(Chain([Dense(SIDE * SIDE, 10)]), device=each.device, dtype="float64") for each in (plain, model)
    ]
    found, expected = (
        diagnostics.diagnose(m, x, c, training=x[:20], classifier=k)
        for m, k in zip((model, plain), classifiers, strict=True)
    )
    np.testing.assert_allclose(found.kl, expected.kl, rtol=1e-3, atol=1e-6)
    assert found.spread == pytest.approx(expected.spread, rel=1e-3)
    assert found.recognised == expected.recognised
    assert "KL" in str(found)


def test_a_classifier_of_images_learns_what_it_learns_on_the_reference(on_cuda):
    rng = np.random.default_rng(0)
    x, labels = rng.integers(0, 256, (12, SIDE, SIDE), np.uint8), rng.integers(0, 3, 12)
    losses = []
    for device in ("numpy", "cuda"):
        classifier = Classifier(digit_network((SIDE, SIDE), 3), device=device, dtype="float64")
        losses.append(classifier.fit(x, labels, epochs=1, batch_size=5, shift=1))
        assert classifier.predict(x).shape == (12,)
    assert losses[1] == pytest.approx(losses[0], rel=1e-10)


@pytest.mark.parametrize(
    "settings", [{}, {"view": True}, {"alpha": 0.3}, {"alpha": 0.0}, {"objective": ELBO(samples=2)}]
)
def test_images_are_completed_as_on_the_reference(on_cuda, settings, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (7, SIDE, SIDE), np.uint8)
    hidden, found = mc.masks.quadrants(2, (SIDE, SIDE)), []
    for device in ("numpy", "cuda"):
        baseline = mc.BaselineNet.build((6,), image_shape=(SIDE, SIDE), device=device, dtype="float64")
        baseline.fit(x, hidden, epochs=1, batch_size=4, verbose=0)
        model = mc.ImageCVAE.build(baseline, (6,), latent_dim=2, **settings)
        model.fit(x, hidden, epochs=1, batch_size=4, verbose=0)
        answers = [baseline.complete(x, hidden), model.complete(x, hidden, samples=2)]
        for estimator in ("bound", "prior", "importance"):
            answers.append(model.negative_log_likelihood(x, hidden, estimator=estimator, samples=3))
        answers.append(np.array(list(model.evaluate(x, hidden).values())))
        model.save(tmp_path / device)
        mc.ImageCVAE.load(tmp_path / device, device=device)
        found.append(answers)
    for expected, answer in zip(*found, strict=True):
        np.testing.assert_allclose(answer, expected, rtol=1e-8, atol=1e-10)


def test_what_breaks_down_is_named(on_cuda):
    model = small("mlp", "cuda")
    x, c = data(model)
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match="the first tensor that is not finite is"):
        model.fit(x, c, epochs=3, batch_size=4, learning_rate=1e20, optimizer="sgd", verbose=0)


def test_weights_are_set_from_arrays_of_either_side(on_cuda):
    model = small("mlp", "cuda")
    name, value = next(iter(model.parameters.items()))
    model.parameters[name] = np.ones(value.shape)
    model.parameters[name] = 2 * on_cuda.xp.ones(value.shape)
    np.testing.assert_array_equal(on_cuda.to_numpy(model.parameters[name]), 2.0)


def test_the_same_seed_gives_the_same_bits_in_whatever_order_the_threads_run(on_cuda, monkeypatch):
    weights = []
    for backwards in (False, True, False):
        monkeypatch.setitem(standin.ORDER, "backwards", backwards)
        for preset in ("conv", "adversarial"):
            model = small(preset, "cuda")
            model.fit(*data(model), epochs=2, batch_size=6, verbose=0)
            weights.append(on_cuda.to_numpy(model.parameters.value).tobytes())
    assert weights[:2] == weights[2:4] == weights[4:]
