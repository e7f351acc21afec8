"""The named models: their sizes, every gradient of each of them, and what may be overridden."""

import itertools

import numpy as np
import pytest

import minicvae as mc
from minicvae.conditions import Classes, Nothing, Parts, Vector
from minicvae.distributions import Bernoulli, Gaussian, LearnedGaussian
from minicvae.gradcheck import check_model
from minicvae.layers import Chain, Pathways
from minicvae.models.presets import OVERRIDES, PRESETS, find
from minicvae.objectives import ELBO, IWAE
from minicvae.optimizers import Adam
from minicvae.schedules import Tripling


def dense(*widths):
    """Weights and biases of dense layers through these widths."""
    return sum((a + 1) * b for a, b in itertools.pairwise(widths))


# Encoder and decoder, counted by hand from the published architectures.
COUNTS = {
    "vector": (dense(784 + 5, 128, 64, 4), dense(2 + 5, 64, 128, 784)),
    "embedding": (160 + dense(784 + 16, 128, 64, 4), 160 + dense(2 + 16, 64, 128, 784)),
    "latent2d": (dense(794, 512, 4), dense(12, 512, 784)),
    "mlp": (dense(794, 256, 256, 32), dense(26, 256, 256, 784)),
    "mlp-small": (dense(794, 256, 128, 32), dense(26, 128, 256, 784)),
    "gaussian": (423_588, 419_504),
    "pathways": (
        dense(784, 256) + dense(10, 256) + dense(512, 32),
        dense(16, 256) + dense(10, 256) + dense(512, 784),
    ),
    "iwae": (dense(784, 200, 200, 100), dense(50, 200, 200, 784)),
    "iwae-conditional": (dense(794, 200, 200, 200), dense(110, 200, 200, 784)),
}
PRIORS = {"iwae-conditional": dense(10, 200)}
DENSE = list(COUNTS)  # the presets that this file knows by heart


def data(model, n, seed=0):
    """(x, c, eps) for any preset."""
    rng = np.random.default_rng(seed)
    c = rng.integers(0, 10, n) if isinstance(model.condition, Classes) else rng.standard_normal((n, 5))
    x = np.where(rng.random((n, *model.image_shape)) < 0.3, 0.0, rng.random((n, *model.image_shape)))
    return x, c, rng.standard_normal((model.objective.samples, n, model.latent_dim))


@pytest.mark.parametrize("name", DENSE)
def test_encoder_and_decoder_have_the_published_numbers_of_parameters(name):
    parameters = mc.build(name).parameters
    counts = [
        sum(value.size for key, value in parameters.items() if key.startswith(network))
        for network in ("encoder.", "decoder.")
    ]
    assert tuple(counts) == COUNTS[name]
    assert parameters.size == sum(COUNTS[name]) + PRIORS.get(name, 0)


@pytest.mark.parametrize("name", DENSE)
def test_every_gradient_of_a_preset_is_the_slope(host, name):
    """All layers at their full widths, on images of 5 x 5; two examples share a label."""
    model = mc.build(name, device=host.name, dtype="float64", image_shape=(5, 5))
    x, c, eps = data(model, 3)
    c[1] = c[0]
    report = check_model(model, x, c, eps=eps, elements=2).raise_for_failure()
    assert [row.name for row in report.rows if row.name != "together"] == list(model.parameters)
    for row in report.rows:
        assert row.name == "together" or row.checked + row.kinks + row.noisy == min(2, np.prod(row.shape)), row.name
        assert row.relative < 1e-8, str(report)


@pytest.mark.parametrize("name", DENSE)
def test_a_preset_gives_the_same_losses_and_gradients_on_every_device(device, name):
    found = []
    for where in ("numpy", device):
        model = mc.build(name, device=where, dtype="float64")
        x, c, eps = data(model, 4)
        found.append(model.loss_and_gradients(x, c, eps=eps))
    (losses, grads), (other_losses, other_grads) = found
    assert other_losses == pytest.approx(losses, rel=1e-12)
    for key, gradient in grads.items():
        np.testing.assert_allclose(other_grads[key], gradient, rtol=1e-9, atol=1e-12 * np.abs(gradient).max())


def test_the_architectures_are_those_of_their_papers():
    latent2d, gaussian, pathways, embedding, vector = (
        mc.build(name) for name in ("latent2d", "gaussian", "pathways", "embedding", "vector")
    )
    assert [(l.d_in, l.d_out, l.activation) for l in latent2d.encoder.layers] == [
        (794, 512, "relu"),
        (512, 4, "linear"),
    ]
    assert gaussian.likelihood == Gaussian(0.5)
    assert gaussian.objective == ELBO(kl="monte_carlo", samples=5, decoded=1)
    assert isinstance(pathways.encoder, Pathways)
    assert isinstance(pathways.encoder.paths[0], Chain)
    assert pathways.encoder.trunk.d_in == 512
    assert embedding.condition == Classes(10, 16)
    assert embedding.encoder.paths[1] is not embedding.decoder.paths[1]
    assert vector.condition == Vector(5)
    assert {mc.build(name).latent_dim for name in ("vector", "embedding", "latent2d", "gaussian")} == {2}
    assert {mc.build(name).latent_dim for name in ("mlp", "mlp-small", "pathways")} == {16}
    assert {mc.build(name).likelihood for name in DENSE if name != "gaussian"} == {Bernoulli()}


def test_the_importance_weighted_networks_are_tanh_from_glorots_start_and_only_one_has_a_prior_of_its_own():
    plain, conditional = mc.build("iwae"), mc.build("iwae-conditional")
    assert plain.condition == Nothing()
    assert plain.prior is None
    assert (plain.latent_dim, conditional.latent_dim) == (50, 100)
    for model in (plain, conditional):
        for network in (model.encoder, model.decoder):
            assert [layer.activation for layer in network.layers] == ["tanh", "tanh", "linear"]
        assert isinstance(model.objective, IWAE)
        W = model.parameters["encoder.1.W"]
        assert abs(W).max() <= np.sqrt(6 / 400) < 1.05 * abs(W).max()
    assert mc.build("iwae", objective=ELBO(samples=5)).objective.used == 5


def test_any_preset_may_have_a_prior_that_sees_the_condition():
    for name, condition in (("embedding", Classes(10, 16)), ("mlp", Parts({"a": Classes(3, 2), "b": Vector(2)}))):
        model = mc.build(name, condition=condition, conditional_prior=True, latent_dim=3, device="numpy")
        p, _ = model.prior.forward(*condition.encode(condition.example(2), model.kernels, model.dtype))
        assert p.shape == (2, 6)
        assert [n for n, _ in model.networks] == ["encoder", "prior", "decoder"]


def test_the_published_schedule_comes_with_the_preset():
    for name in ("iwae", "iwae-conditional"):
        preset = find(name)
        assert (preset.epochs, preset.batch_size, preset.learning_rate) == (3280, 20, Tripling())
        assert (preset.optimizer, preset.pixels, preset.mean_start) == (Adam(epsilon=1e-4), "dynamic", True)


def test_a_preset_remembers_the_protocol_of_its_reference():
    assert [(find(n).epochs, find(n).batch_size) for n in ("latent2d", "gaussian", "mlp")] == [
        (20, 50),
        (10, 64),
        (50, 128),
    ]


def test_presets_are_listed_with_a_line_each():
    listed = mc.presets()
    assert set(DENSE) <= set(listed)
    assert all(line and "\n" not in line and len(line) <= 100 for line in listed.values())
    assert list(listed) == list(PRESETS)


# Overrides


def test_sizes_can_be_overridden():
    model = mc.build("mlp", latent_dim=3, encoder_widths=(8, 7, 6), decoder_widths=(5,), image_shape=(4, 6), classes=4)
    assert [layer.d_out for layer in model.encoder.layers] == [8, 7, 6, 6]
    assert [layer.d_out for layer in model.decoder.layers] == [5, 24]
    assert model.encoder.layers[0].d_in == 24 + 4
    assert model.generate([3]).shape == (1, 4, 6)


def test_a_network_may_have_no_hidden_layer():
    model = mc.build("mlp", encoder_widths=(), decoder_widths=[], latent_dim=2)
    assert model.parameters.size == dense(794, 4) + dense(12, 784)


def test_likelihood_objective_and_condition_can_be_overridden():
    condition = Parts({"digit": Classes(10), "width": Classes(3, 4)})
    for name in ("mlp", "pathways"):
        model = mc.build(
            name, likelihood=LearnedGaussian(), condition=condition, image_shape=(3, 3), beta=2, free_bits=0.1
        )
        assert model.objective == ELBO(beta=2, free_bits=0.1)
        images = model.generate({"digit": [1, 2], "width": [0, 2]})
        assert images.shape == (2, 3, 3)
    assert mc.build("gaussian", beta=3).objective == ELBO(3, "monte_carlo", 5, 1)
    assert mc.build("mlp", objective=ELBO(samples=2), beta=3).objective == ELBO(3, samples=2)
    assert mc.build("mlp", objective=IWAE(2), beta=3).objective == IWAE(2, 3)


def test_several_conditions_pass_the_gradient_check_in_both_architectures(host):
    condition = Parts({"digit": Classes(4), "style": Vector(2), "width": Classes(3, 2)})
    rng = np.random.default_rng(0)
    c = {"digit": [1, 3, 1], "style": rng.standard_normal((3, 2)), "width": [2, 0, 2]}
    for name in ("mlp", "pathways"):
        widths = {"encoder_widths": (5,), "decoder_widths": (4,), "latent_dim": 2}
        model = mc.build(name, condition=condition, image_shape=(2, 2), dtype="float64", device=host.name, **widths)
        check_model(model, rng.random((3, 2, 2)), c, eps=rng.standard_normal((3, 2)), elements=4).raise_for_failure()


def test_the_number_of_classes_keeps_their_embedding():
    assert mc.build("embedding", classes=3).condition == Classes(3, 16)
    assert mc.build("mlp", classes=1).generate([0, 0]).shape == (2, 28, 28)


def test_the_same_seed_gives_the_same_weights():
    one, same, other = (mc.build("mlp-small", seed=seed).parameters.value for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mpl", "preset: did you mean 'mlp'\\? expected one of vector, .*, got 'mpl'"),
        ("gausian", "preset: did you mean 'gaussian'\\? expected one of"),
        ("zzz", "preset: expected one of vector, .*, got 'zzz'"),
        ("", "preset: expected one of"),
    ],
)
def test_an_unknown_preset_is_refused_and_the_nearest_offered(name, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        mc.build(name)


@pytest.mark.parametrize(
    "override", ["latent_dims", "epochs", "name", "batch_size", "networks", "learning_rate", "pixels"]
)
def test_an_unknown_override_is_refused_and_all_others_listed(override):
    with pytest.raises(
        TypeError, match=f"^{override}: not an option of a preset; .*expected one of .*latent_dim"
    ) as info:
        mc.build("mlp", **{override: 3})
    assert all(option in str(info.value) for option in OVERRIDES)


def test_classes_are_refused_where_the_condition_has_none():
    with pytest.raises(TypeError, match=r"^classes: preset 'vector' is conditioned on Vector\(dim=5\), not on classes"):
        mc.build("vector", classes=3)


def test_free_bits_are_refused_where_the_objective_has_none():
    with pytest.raises(TypeError, match=r"^free_bits: not an option of the objective IWAE\(samples=5"):
        mc.build("mlp", objective=IWAE(5), free_bits=0.1)


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        ({"latent_dim": 0}, ValueError),
        ({"encoder_widths": (0,)}, ValueError),
        ({"decoder_widths": (-3,)}, ValueError),
        ({"image_shape": (0, 28)}, ValueError),
        ({"classes": 0}, ValueError),
        ({"beta": -1}, ValueError),
        ({"free_bits": -1}, ValueError),
        ({"dtype": "half"}, ValueError),
        ({"device": "tpu"}, ValueError),
        ({"seed": 1.5}, TypeError),
    ],
)
def test_sizes_that_do_not_fit_are_refused(overrides, error):
    with pytest.raises(error, match="expected"):
        mc.build("mlp", **overrides)


@pytest.mark.parametrize("name", ["mlp", "pathways"])
@pytest.mark.parametrize("option", ["encoder_widths", "decoder_widths"])
def test_widths_that_are_no_sequence_are_refused_by_their_name(name, option):
    with pytest.raises((TypeError, ValueError), match=f"^{option}: expected"):
        mc.build(name, **{option: 300})


@pytest.mark.parametrize("option", ["encoder_widths", "decoder_widths"])
def test_separate_pathways_need_a_layer_to_be_separate_in(option):
    with pytest.raises(ValueError, match=f"^{option}: expected"):
        mc.build("pathways", **{option: ()})


def test_every_preset_that_is_there_can_be_built_and_run():
    for name in PRESETS:
        model = mc.build(name)
        x, c, eps = np.zeros((2, *model.image_shape)), model.condition.example(2), None
        losses, grads = model.loss_and_gradients(x, c, eps=eps)
        assert np.isfinite(list(losses.values())).all(), name
        assert grads.keys() == model.parameters.keys(), name
