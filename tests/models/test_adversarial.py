"""The adversary: both losses, the gradients of either side, two optimisers, and what does not change beside it."""

import numpy as np
import pytest

import minicvae as mc
from minicvae.conditions import Classes, Parts, Vector
from minicvae.gradcheck import check_model
from minicvae.layers import Chain, Dense
from minicvae.models.adversarial import Adversary
from minicvae.models.cvae import ConditionalVAE
from minicvae.objectives import ELBO, IWAE
from minicvae.optimizers import SGD, Adam

SMALL = {
    "image_shape": (3, 3),
    "encoder_widths": (5,),
    "decoder_widths": (4,),
    "latent_dim": 2,
    "discriminator_widths": (6, 5),
    "dtype": "float64",
}
MIXED = Parts({"digit": Classes(4), "style": Vector(2), "width": Classes(3, embedding=2)})
LOG2 = np.log(2)


def build(device="numpy", preset="adversarial", **overrides):
    """A small model whose biases are not zero, where a mistake with them could hide."""
    model = mc.build(preset, device=device, **SMALL | overrides)
    rng = np.random.default_rng(5)
    for name, value in model.parameters.items():
        if name.endswith(".b"):
            model.parameters[name] = rng.choice([-1, 1], value.shape) * rng.uniform(0.5, 1, value.shape)
    return model


def draw(model, n, seed=0):
    """(x, c, eps) for a model on images of 3 x 3."""
    rng = np.random.default_rng(seed)
    c = rng.integers(0, 4, n)
    if model.condition == MIXED:
        c = {"digit": c, "style": rng.standard_normal((n, 2)), "width": rng.integers(0, 3, n)}
    return rng.random((n, 3, 3)), c, rng.standard_normal((model.objective.samples, n, 2))


def softplus(t):
    return np.logaddexp(0, t)


# The losses


@pytest.mark.parametrize("objective", [ELBO(), ELBO(samples=3), ELBO(kl="monte_carlo", samples=4, decoded=2), IWAE(3)])
def test_both_losses_are_the_softplus_of_the_logits(device, objective):
    model = build(device, objective=objective)
    x, c, eps = draw(model, 4)
    losses = model.losses(x, c, eps=eps)
    mean, log_var = model.encode(x, c)
    eps = eps[: objective.used]
    z = mean + np.exp(log_var / 2) * eps
    weights = {name: model.kernels.to_numpy(value) for name, value in model.parameters.items()}

    def logits(z):
        h = np.concatenate([z, np.eye(10)[c]], axis=1)
        for i in range(3):
            h = h @ weights[f"discriminator.{i}.W"] + weights[f"discriminator.{i}.b"]
            h = np.maximum(h, 0) if i < 2 else h
        return h

    told = np.mean([softplus(-logits(e)).mean() + softplus(logits(s)).mean() for e, s in zip(eps, z, strict=True)])
    assert losses["fooling"] == pytest.approx(np.mean([softplus(-logits(s)).mean() for s in z]), rel=1e-12)
    assert losses["discrimination"] == pytest.approx(told, rel=1e-12)


def test_the_other_losses_know_nothing_of_the_adversary(device):
    model, plain = build(device), build(device, preset="latent2d", discriminator_widths=())
    for name in plain.parameters:
        np.testing.assert_array_equal(*(model.kernels.to_numpy(m.parameters[name]) for m in (model, plain)))
    x, c, eps = draw(model, 4)
    losses = model.losses(x, c, eps=eps)
    assert list(losses) == ["loss", "reconstruction", "kl", "fooling", "discrimination"]
    assert {name: losses[name] for name in ("loss", "reconstruction", "kl")} == plain.losses(x, c, eps=eps)


# The gradients


@pytest.mark.parametrize("weight", [1.0, 30.0])
@pytest.mark.parametrize(
    "overrides", [{}, {"objective": ELBO(samples=3)}, {"objective": IWAE(2)}, {"condition": MIXED}, {"beta": 0}]
)
def test_every_gradient_is_the_slope_of_its_own_sides_goal(host, overrides, weight):
    model = build(host.name, adversarial_weight=weight, **overrides)
    x, c, eps = draw(model, 4)
    report = check_model(model, x, c, eps=eps, elements=8).raise_for_failure()
    assert [row.name for row in report.rows if row.name != "together"] == list(model.parameters)
    assert all(row.relative < 1e-8 for row in report.rows), str(report)


def test_every_gradient_of_the_preset_is_the_slope(host):
    model = mc.build("adversarial", device=host.name, dtype="float64", image_shape=(3, 3))
    x, c, eps = draw(model, 3)
    report = check_model(model, x, c, eps=eps, elements=2).raise_for_failure()
    assert all(row.relative < 1e-8 for row in report.rows), str(report)


def test_separate_pathways_may_have_an_adversary_too(host):
    model = build(host.name, preset="pathways")
    x, c, eps = draw(model, 3)
    check_model(model, x, c, eps=eps, elements=4).raise_for_failure()


def test_the_gradients_are_the_same_on_every_device(device):
    x, c, eps = draw(build(), 5)
    (losses, grads), (expected, exact) = (build(d).loss_and_gradients(x, c, eps=eps) for d in (device, "numpy"))
    assert losses == pytest.approx(expected, rel=1e-12)
    for name, gradient in exact.items():
        np.testing.assert_allclose(grads[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spoilt", ["dz", "forgotten"])
def test_the_checker_sees_a_game_whose_sides_are_mixed_up(spoilt, monkeypatch):
    """dz too large by a thousandth; or the gradient that the encoder's side leaves in the discriminator is kept."""
    model = build()
    if spoilt == "forgotten":
        monkeypatch.setattr(model.adversary.discriminator, "named_parameters", lambda: iter(()))
    else:
        plain = model.adversary.forward

        def forward(*args):
            losses, backward = plain(*args)
            return losses, lambda: 1.001 * backward()

        monkeypatch.setattr(model.adversary, "forward", forward)
    x, c, eps = draw(model, 4)
    report = check_model(model, x, c, eps=eps)
    wrong = {row.name.split(".")[0] for row in report.rows if not row.ok and row.name != "together"}
    assert wrong == {"discriminator" if spoilt == "forgotten" else "encoder"}


def test_the_checker_leaves_the_parameters_as_they_were():
    model = build()
    before = model.parameters.value.copy()
    x, c, eps = draw(model, 3)
    check_model(model, x, c, eps=eps, elements=2)
    np.testing.assert_array_equal(model.parameters.value, before)


def test_an_encoder_that_gives_the_prior_leaves_nothing_to_learn(device):
    """z = eps: the discriminator's logits are those of the prior, and a constant one cannot be improved."""
    model = build(device)
    for name in ("encoder.1.W", "encoder.1.b", "discriminator.2.W", "discriminator.2.b"):
        model.parameters[name] = np.zeros(model.parameters[name].shape)
    x, c, eps = draw(model, 6)
    losses, grads = model.loss_and_gradients(x, c, eps=eps)
    assert (losses["fooling"], losses["discrimination"]) == pytest.approx((LOG2, 2 * LOG2))
    for name, gradient in grads.items():
        if name.startswith("discriminator"):
            np.testing.assert_allclose(gradient, 0, atol=1e-15)


# Training


def test_each_side_takes_a_step_by_its_own_optimiser(device):
    model = build(device)
    model.adversary.optimizer, model.adversary.speed = SGD(), 0.5
    x, c, _ = draw(model, 5)
    before = {name: model.kernels.to_numpy(value) for name, value in model.parameters.items()}
    seen = {}

    class Keep(mc.callbacks.Callback):
        def on_step_end(self, epoch, step, losses):
            seen.update({name: model.kernels.to_numpy(g) for name, g in model.parameters.grads.items()})

    model.fit(
        x, c, epochs=1, batch_size=5, optimizer=Adam(epsilon=1e-30), learning_rate=0.01, callbacks=[Keep()], verbose=0
    )
    assert seen.keys() == before.keys()
    for name, value in before.items():
        # the first step of Adam is the learning rate in the gradient's direction
        step = 0.005 * seen[name] if name.startswith("discriminator") else 0.01 * np.sign(seen[name])
        np.testing.assert_allclose(
            model.kernels.to_numpy(model.parameters[name]), value - step, atol=1e-9, err_msg=name
        )


def test_an_adversary_without_weight_only_watches(device):
    """The CVAE is trained as if it were alone, bit for bit, and the discriminator learns nevertheless."""
    x, c, _ = draw(build(), 40)
    settings = {"epochs": 30, "batch_size": 10, "learning_rate": 0.01, "verbose": 0}
    watched, alone = build(device, adversarial_weight=0), build(device, preset="latent2d", discriminator_widths=())
    history = watched.fit(x, c, **settings).history
    alone.fit(x, c, **settings)
    for name in alone.parameters:
        np.testing.assert_array_equal(*(m.kernels.to_numpy(m.parameters[name]) for m in (watched, alone)), err_msg=name)
    assert history["discrimination"][-1] < history["discrimination"][0]


def test_the_encoder_learns_to_deceive():
    """Posteriors that start far from the prior come back, where neither the KL nor the decoder asks them to."""
    found = []
    for weight in (0, 10):
        model = build(beta=0, adversarial_weight=weight)
        model.parameters["encoder.1.b"] = np.array([3.0, -3.0, 0.0, 0.0])
        model.parameters["decoder.0.W"], model.parameters["decoder.0.b"] = (
            np.zeros((12, 4)),
            -np.ones(4),
        )  # no unit lives
        x, c, _ = draw(model, 200)
        model.fit(x, c, epochs=40, batch_size=20, learning_rate=0.005, verbose=0)
        found.append(np.linalg.norm(model.encode(x, c)[0].mean(axis=0)))
    ignored, heeded = found
    assert heeded < 1 < 3 < ignored


def test_history_and_evaluation_tell_both_sides():
    model = build()
    x, c, _ = draw(model, 9)
    history = model.fit(x, c, validation_data=(x, c), epochs=2, batch_size=4, verbose=1).history
    for name in ("fooling", "discrimination"):
        assert len(history[name]) == len(history[f"val_{name}"]) == 2
    found = model.evaluate(x, c)
    assert list(found) == ["loss", "reconstruction", "kl", "fooling", "discrimination"]
    assert found["loss"] == pytest.approx(found["reconstruction"] + found["kl"])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_discriminator_that_overflows_is_named():
    model = build()
    model.parameters["discriminator.1.W"] = np.full((6, 5), np.inf)
    x, c, _ = draw(model, 4)
    with pytest.raises(mc.model.training.NonFiniteError, match=r"parameter discriminator\.1\.W"):
        model.fit(x, c, verbose=0)


# The model as a whole


def test_a_saved_model_keeps_its_adversary(tmp_path):
    model = build(adversarial_weight=3.5)
    model.adversary.optimizer, model.adversary.speed = Adam(beta1=0.25), 2.0
    x, c, eps = draw(model, 4)
    model.save(tmp_path / "m.safetensors")
    again = mc.load(tmp_path / "m.safetensors")
    assert again.config == model.config
    assert (again.adversary.weight, again.adversary.speed, again.adversary.optimizer) == (3.5, 2.0, Adam(beta1=0.25))
    assert again.losses(x, c, eps=eps) == pytest.approx(model.losses(x, c, eps=eps), rel=1e-12)


def test_no_hidden_layers_are_no_adversary():
    assert build(discriminator_widths=()).adversary is None
    assert mc.build("latent2d").adversary is None


def test_the_summary_shows_the_discriminator():
    count = 13 * 64 + 65 * 64 + 65
    assert f"discriminator {count:,} parameters" in mc.build("adversarial").summary()


@pytest.mark.parametrize("name", ["weight", "speed"])
@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_a_weight_or_speed_that_is_none_is_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name}: expected a number of at least 0, got"):
        Adversary(Dense(12, 1), **{name: value})


@pytest.mark.parametrize("discriminator", [Dense(12, 2), Dense(11, 1), Chain([Dense(13, 4), Dense(4, 1)])])
def test_a_discriminator_that_does_not_fit_is_refused(discriminator):
    networks = Dense(9 + 10, 4), Dense(2 + 10, 9)
    with pytest.raises(ValueError, match=r"^discriminator: expected"):
        ConditionalVAE(
            *networks, Classes(10), latent_dim=2, image_shape=(3, 3), adversary=Adversary(discriminator), device="numpy"
        )
