"""The conditional VAE: its gradients as a whole, its mathematics by hand, and what gradients cannot see."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

import minicvae as mc
from minicvae.conditions import Classes, Nothing, Parts, Vector, joined
from minicvae.distributions import Bernoulli, Gaussian, LearnedGaussian
from minicvae.gradcheck import check_model
from minicvae.layers import Chain, Dense, Layer, trace
from minicvae.model import CVAE
from minicvae.models.adversarial import Adversary
from minicvae.objectives import ELBO, IWAE
from minicvae.randomness import Purpose, standard_normal

D, SHAPE = 6, (2, 3)
MIXED = Parts({"digit": Classes(3), "style": Vector(2), "width": Classes(2, embedding=3)})
LABELS = Classes(3)
CONDITIONS = [Nothing(), Classes(1), LABELS, Classes(3, embedding=2), Vector(1), Vector(2), MIXED]
LIKELIHOODS = [Bernoulli(), Gaussian(0.5), LearnedGaussian()]
OBJECTIVES = [
    ELBO(),
    ELBO(beta=4.0),
    ELBO(free_bits=0.3),
    ELBO(samples=3),
    ELBO(kl="monte_carlo", samples=4, decoded=1),
    ELBO(0.5, "monte_carlo", 3, 2),
    IWAE(1),
    IWAE(4),
    IWAE(3, beta=0.5),
]
seeds = st.integers(0, 2**32 - 1)


def build(device="numpy", condition=LABELS, likelihood=None, l=2, hidden=4, seed=0, learnt_prior=False, **settings):
    """A small model with smooth activations, and biases that are not zero."""
    likelihood, c = likelihood or Bernoulli(), condition.width
    encoder = Chain([Dense(D + c, hidden, "tanh"), Dense(hidden, 2 * l)])
    decoder = Chain([Dense(l + c, hidden, "elu"), Dense(hidden, likelihood.width(D))])
    model = CVAE(
        joined(condition, encoder),
        joined(condition, decoder),
        condition,
        latent_dim=l,
        image_shape=SHAPE,
        likelihood=likelihood,
        prior=joined(condition, Dense(c, 2 * l), alone=True) if learnt_prior else None,
        device=device,
        **{"dtype": "float64", "seed": seed} | settings,
    )
    rng = np.random.default_rng(seed)
    for name, value in model.parameters.items():
        if name.endswith(".b"):
            model.parameters[name] = 0.3 * rng.standard_normal(value.shape)
    return model


def draw_condition(rng, condition, n):
    if isinstance(condition, Nothing):
        return n
    if isinstance(condition, Parts):
        return {name: draw_condition(rng, part, n) for name, part in condition.parts.items()}
    return (
        rng.integers(0, condition.classes, n)
        if isinstance(condition, Classes)
        else rng.standard_normal((n, condition.dim))
    )


def draw_data(seed, model, n):
    """(x, c, eps): grey, black and white pixels, a condition that fits, noise of the shape that the objective needs."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((n, *SHAPE)) < 0.3, rng.integers(0, 2, (n, *SHAPE)), rng.random((n, *SHAPE)))
    return (
        x,
        draw_condition(rng, model.condition, n),
        rng.standard_normal((model.objective.samples, n, model.latent_dim)),
    )


# Gradients


@settings(max_examples=15)
@given(
    condition=st.sampled_from(CONDITIONS),
    likelihood=st.sampled_from(LIKELIHOODS),
    objective=st.sampled_from(OBJECTIVES),
    n=st.integers(1, 4),
    l=st.integers(1, 3),
    learnt=st.booleans(),
    seed=seeds,
)
def test_every_gradient_of_every_combination_is_the_slope(host, condition, likelihood, objective, n, l, learnt, seed):
    # A prior of its own may get no gradient at all where the KL lies below the free bits: there is nothing to check.
    learnt = learnt and condition.width > 0 and not getattr(objective, "free_bits", 0)
    model = build(host.name, condition, likelihood, l, seed=seed % 1000, objective=objective, learnt_prior=learnt)
    x, c, eps = draw_data(seed, model, n)
    report = check_model(model, x, c, eps=eps, elements=3).raise_for_failure()
    checked = [row for row in report.rows if row.name != "together"]
    assert [row.name for row in checked] == list(model.parameters)
    assert all(row.checked for row in checked)


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_gradients_are_finite_and_the_slopes_at_extreme_variances(host, scale):
    """log_var = ±30 for every example; the Bernoulli logits reach ±1e4 through the samples."""
    model = build(host.name, condition=Classes(2), l=1, hidden=2)
    model.parameters["encoder.1.W"] = np.zeros((2, 2))
    model.parameters["encoder.1.b"] = np.array([0.1, 30.0 * scale])
    x, c, eps = draw_data(0, model, 3)
    losses, grads = model.loss_and_gradients(x, c, eps=eps)
    assert all(np.isfinite(value) for value in losses.values())
    assert all(np.isfinite(gradient).all() for gradient in grads.values())
    expected = (np.exp(30 * scale) + 0.01 - 1 - 30 * scale) / 2
    assert losses["kl"] == pytest.approx(expected, rel=1e-12)


class Twice(Layer):
    """A layer of a user's own that runs another twice: y = f(x) + f(-x)."""

    def __init__(self, inner):
        self.inner = inner

    def children(self):
        yield "inner", self.inner

    def forward(self, x, *c):
        y, backward = self.inner.forward(x, *c)
        other, other_backward = self.inner.forward(-x, *c)

        def both(dy, need_dx=True):
            dx, minus_dx = (b(dy, need_dx=True)[0] for b in (backward, other_backward))
            return dx - minus_dx, *(None for _ in c)

        return y + other, both


def test_a_network_that_runs_its_layers_twice_in_a_step_has_the_right_gradient(host):
    model = CVAE(
        Twice(Dense(D + 3, 4, "tanh")),
        Twice(Dense(2 + 3, D, "tanh")),
        Classes(3),
        latent_dim=2,
        image_shape=SHAPE,
        dtype="float64",
        device=host.name,
    )
    x, c, eps = draw_data(0, model, 3)
    check_model(model, x, c, eps=eps).raise_for_failure()


def test_the_same_call_gives_the_same_gradients_and_none_is_left_over(device):
    model = build(device)
    first, other = draw_data(0, model, 3), draw_data(1, model, 4)
    losses, grads = model.loss_and_gradients(*first[:2], eps=first[2])
    model.loss_and_gradients(*other[:2], eps=other[2])
    again, grads_again = model.loss_and_gradients(*first[:2], eps=first[2])
    assert again == losses
    for name, gradient in grads.items():
        np.testing.assert_array_equal(gradient, grads_again[name])


@pytest.mark.parametrize("objective", [ELBO(samples=2), IWAE(3)])
def test_the_losses_and_gradients_of_a_batch_are_the_means_of_its_examples(device, objective):
    model = build(device, MIXED, objective=objective)
    x, c, eps = draw_data(0, model, 4)
    losses, grads = model.loss_and_gradients(x, c, eps=eps)
    alone = [
        model.loss_and_gradients(x[i : i + 1], {name: v[i : i + 1] for name, v in c.items()}, eps=eps[:, i : i + 1])
        for i in range(4)
    ]
    for name, value in losses.items():
        assert value == pytest.approx(np.mean([one[0][name] for one in alone]), rel=1e-12)
    for name, gradient in grads.items():
        np.testing.assert_allclose(gradient, np.mean([one[1][name] for one in alone], axis=0), rtol=1e-10, atol=1e-13)


def test_the_backward_runs_once(device):
    model = build(device)
    x, c, eps = draw_data(0, model, 2)
    _, parts = model.check_data(x, c)
    k = model.kernels
    _, backward = model.loss_and_backward(k.array(x.reshape(2, D)), parts, k.array(eps))
    backward()
    with pytest.raises(RuntimeError, match="called twice"):
        backward()


# The mathematics, by hand


@given(objective=st.sampled_from(OBJECTIVES), n=st.integers(1, 4), seed=seeds)
def test_the_losses_are_those_of_the_formulas_with_everything_written_out(device, objective, n, seed):
    """Concatenation, one-hot rows, densities from SciPy, loops over samples: nothing of the library but its weights."""
    model = build(device, seed=seed % 1000, objective=objective)
    x, c, eps = draw_data(seed, model, n)
    w = {name: model.kernels.to_numpy(value) for name, value in model.parameters.items()}
    onehot, pixels = np.eye(3)[c], x.reshape(n, D)

    h = np.tanh(np.concatenate([pixels, onehot], axis=1) @ w["encoder.0.W"] + w["encoder.0.b"])
    mean, log_var = np.split(h @ w["encoder.1.W"] + w["encoder.1.b"], 2, axis=1)
    sd = np.exp(log_var / 2)
    z = [mean + sd * e for e in eps]
    log_ratios = np.array([stats.norm.logpdf(z_s, mean, sd) - stats.norm.logpdf(z_s) for z_s in z])
    closed = isinstance(objective, ELBO) and objective.kl == "closed"
    kl = (sd**2 + mean**2 - 1 - log_var) / 2 if closed else log_ratios.mean(axis=0)
    nll = []
    for z_s in z[: objective.used]:
        h = np.concatenate([z_s, onehot], axis=1) @ w["decoder.0.W"] + w["decoder.0.b"]
        h = np.where(h > 0, h, np.exp(np.minimum(h, 0)) - 1)
        p = special.expit(h @ w["decoder.1.W"] + w["decoder.1.b"])
        nll.append(-(special.xlogy(pixels, p) + special.xlog1py(1 - pixels, -p)).sum(axis=1))
    by_dimension = kl.mean(axis=0)
    if isinstance(objective, IWAE):
        w_s = np.exp(-np.array(nll) - objective.beta * log_ratios.sum(axis=2))
        loss = -np.log(w_s.mean(axis=0)).mean()
    else:
        loss = np.mean(nll) + objective.beta * np.maximum(by_dimension, objective.free_bits or -np.inf).sum()

    losses, _ = model.loss_and_gradients(x, c, eps=eps)
    assert losses["reconstruction"] == pytest.approx(np.mean(nll), rel=1e-10)
    assert losses["kl"] == pytest.approx(by_dimension.sum(), rel=1e-10)
    assert losses["loss"] == pytest.approx(loss, rel=1e-10)
    np.testing.assert_allclose(model.encode(x, c), [mean, log_var], rtol=1e-10, atol=1e-12)


@given(beta=st.sampled_from([0.0, 0.3, 2.0]))
def test_beta_can_be_given_for_one_call(device, beta):
    model = build(device)
    x, c, eps = draw_data(0, model, 3)
    losses, grads = model.loss_and_gradients(x, c, eps=eps, beta=beta)
    assert losses["loss"] == pytest.approx(losses["reconstruction"] + beta * losses["kl"])
    other = build(device, objective=ELBO(beta))
    for name, gradient in other.loss_and_gradients(x, c, eps=eps)[1].items():
        np.testing.assert_array_equal(gradient, grads[name])


@pytest.mark.many_draws
@pytest.mark.parametrize(("mean", "log_var"), [(0.0, 0.0), (1.5, -3.0), (-2.0, 1.0)])
def test_the_latents_that_reach_the_decoder_have_the_posteriors_mean_and_variance(device, mean, log_var):
    """End to end: an exp(log_var) for exp(log_var / 2), forward and backward alike, would pass any gradient check."""
    model = build(device, l=1, objective=ELBO(samples=2))
    model.parameters["encoder.1.W"] = np.zeros((4, 2))
    model.parameters["encoder.1.b"] = np.array([mean, log_var])
    n, k = 20_000, model.kernels
    _, parts = model.check_data(np.zeros((n, D)), np.zeros(n, int))
    eps = k.array(model.noise(n, 0, Purpose.TRAIN))
    with trace(("decoder", model.decoder)) as record:
        model.loss_and_backward(k.array(np.zeros((n, D))), parts, eps)
    z = k.to_numpy(record[0].inputs[0])
    assert z.shape == (2 * n, 1)
    assert z.mean() == pytest.approx(mean, abs=6 * np.exp(log_var / 2) / np.sqrt(2 * n))
    assert z.var() == pytest.approx(np.exp(log_var), rel=6 / np.sqrt(n))


# The condition


@pytest.mark.parametrize("condition", [c for c in CONDITIONS if c not in (Nothing(), Classes(1))])
def test_another_condition_gives_another_posterior_and_another_picture(device, condition):
    model = build(device, condition)
    x, c, _ = draw_data(0, model, 3)
    other = {
        Classes: lambda: (c + 1) % 3,
        Vector: lambda: c + 1,
        Parts: lambda: c | {"width": 1 - c["width"]},
    }[type(condition)]()
    assert (np.abs(model.encode(x, c)[0] - model.encode(x, other)[0]).max(axis=1) > 1e-3).all()
    z = np.zeros((3, 2))
    assert (np.abs(model.decode(z, c) - model.decode(z, other)).max(axis=(1, 2)) > 1e-3).all()


def test_every_part_of_the_condition_moves_encoder_and_decoder(device):
    model = build(device, MIXED)
    x, c, _ = draw_data(0, model, 3)
    for name, changed in (("digit", (c["digit"] + 1) % 3), ("style", c["style"] + 1), ("width", 1 - c["width"])):
        other = c | {name: changed}
        assert not np.allclose(model.encode(x, c)[0], model.encode(x, other)[0], atol=1e-3)
        assert not np.allclose(model.decode(np.zeros((3, 2)), c), model.decode(np.zeros((3, 2)), other), atol=1e-3)


@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=5), seed=seeds)
def test_the_conditions_weights_get_their_gradients_in_encoder_and_decoder(device, labels, seed):
    """The row of a label that occurs, and no other."""
    model = build(device, seed=seed % 1000)
    x, _, eps = draw_data(seed, model, len(labels))
    _, grads = model.loss_and_gradients(x, labels, eps=eps)
    for name, start in (("encoder.0.W", D), ("decoder.0.W", model.latent_dim)):
        reached = np.abs(grads[name][start:]).max(axis=1) > 0
        np.testing.assert_array_equal(reached, np.isin(range(3), labels), err_msg=name)


@pytest.mark.parametrize(("network", "other"), [("encoder", "decoder"), ("decoder", "encoder")])
def test_an_embedding_is_each_networks_own_and_gets_its_gradient_there(device, network, other):
    model = build(device, Classes(3, embedding=2))
    x, c, eps = draw_data(0, model, 4)
    name = f"{network}.paths.1.E"
    assert np.abs(model.loss_and_gradients(x, c, eps=eps)[1][name]).max() > 0
    before = model.encode(x, c)[0], model.decode(np.zeros((4, 2)), c)
    model.parameters[name] = model.kernels.to_numpy(model.parameters[name]) + 1
    after = model.encode(x, c)[0], model.decode(np.zeros((4, 2)), c)
    changed = [not np.allclose(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [network == "encoder", network == "decoder"]


@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=5), seed=seeds)
def test_labels_are_their_one_hot_rows_written_out(device, labels, seed):
    gathered, written = (build(device, condition) for condition in (Classes(3), Vector(3)))
    x, _, eps = draw_data(seed, gathered, len(labels))
    losses, grads = gathered.loss_and_gradients(x, labels, eps=eps)
    other_losses, other_grads = written.loss_and_gradients(x, np.eye(3)[labels], eps=eps)
    assert losses == pytest.approx(other_losses, rel=1e-12)
    for name, gradient in grads.items():
        np.testing.assert_allclose(gradient, other_grads[name], rtol=1e-10, atol=1e-13)


def test_a_layer_cannot_be_torn_out_of_a_model_but_may_try_again_where_none_was_made():
    encoder, decoder = Dense(4 + 10, 4), Dense(2 + 10, 4)
    rest = {"condition": Classes(10), "latent_dim": 2, "image_shape": (2, 2), "device": "numpy"}
    with pytest.raises(ValueError, match="decoder"):
        CVAE(encoder=encoder, decoder=Dense(3 + 10, 4), **rest)
    model = CVAE(encoder=encoder, decoder=decoder, **rest)
    before = model.parameters.value
    with pytest.raises(ValueError, match=r"^encoder.W is part of another model"):
        CVAE(encoder=encoder, decoder=Dense(2 + 10, 4), **rest)
    assert encoder.W.value.base is before


# A prior that is learnt, no condition at all, and where a decoder starts


@pytest.mark.parametrize("objective", [ELBO(), IWAE(3)])
def test_a_learnt_prior_that_is_the_standard_one_changes_nothing(host, objective):
    plain, learnt = (build(host.name, objective=objective, learnt_prior=learnt) for learnt in (False, True))
    for name, value in plain.parameters.items():
        learnt.parameters[name] = value
    learnt.parameters["prior.W"] = np.zeros((3, 4))
    learnt.parameters["prior.b"] = np.zeros(4)
    x, c, eps = draw_data(1, plain, 5)
    (losses, grads), (expected, gradients) = (m.loss_and_gradients(x, c, eps=eps) for m in (learnt, plain))
    assert losses == pytest.approx(expected, rel=1e-14)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(grads[name], gradient, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(learnt.generate(c, seed=3), plain.generate(c, seed=3))


def test_latents_have_the_mean_and_variance_that_the_prior_gives_to_their_condition(device):
    model = build(device, learnt_prior=True)
    model.parameters["prior.W"] = np.array([[0.0, 1, 0, 0], [2, 3, 1, -1], [9, 9, 9, 9]])
    model.parameters["prior.b"] = np.zeros(4)
    eps = np.random.default_rng(0).standard_normal((4, 2))
    z = model.latents(eps, [0, 0, 1, 1])
    np.testing.assert_allclose(z[:2] - eps[:2], [[0, 1], [0, 1]], atol=1e-12)
    np.testing.assert_allclose(z[2:], [2, 3] + np.exp([0.5, -0.5]) * eps[2:])
    noise = standard_normal((2, 2), "float64", 5, Purpose.GENERATE)
    drawn = model.decode(model.latents(noise, [1, 0]), [1, 0])
    np.testing.assert_array_equal(model.generate([1, 0], seed=5), drawn)
    with pytest.raises(ValueError, match=r"^c: expected one entry for each of the 4 examples of eps, got 3"):
        model.latents(eps, [0, 0, 1])


def test_a_posterior_is_encoded_as_it_is_and_as_the_prior_sees_it(device):
    model = build(device, learnt_prior=True)
    x, c, _ = draw_data(2, model, 4)
    mean, log_var = model.encode(x, c)
    seen, seen_log_var = model.encode(x, c, relative=True)
    W, b = (model.kernels.to_numpy(model.parameters[f"prior.{name}"]) for name in "Wb")
    m, s = np.split(W[c] + b, 2, axis=1)
    np.testing.assert_allclose(seen, (mean - m) / np.exp(s / 2), rtol=1e-12)
    np.testing.assert_allclose(seen_log_var, log_var - s, rtol=1e-12)
    fixed = build(device)
    for one, other in zip(fixed.encode(x, c), fixed.encode(x, c, relative=True), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_prior_of_another_width_and_an_adversary_beside_one_are_refused():
    with pytest.raises(ValueError, match=r"^prior: expected 4 output columns, got shape"):
        CVAE(Dense(D + 3, 4), Dense(5, D), LABELS, latent_dim=2, image_shape=SHAPE, prior=Dense(3, 3))
    with pytest.raises(ValueError, match=r"^adversary: expected none beside a prior of its own"):
        build(learnt_prior=True, adversary=Adversary(Dense(5, 1)))


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ({"encoder": Dense(9, 4)}, r"encoder: expected a network on \(6 columns, a condition of width 4\), but"),
        ({"decoder": Dense(9, 6)}, r"decoder: expected a network on \(2 columns, a condition of width 4\), but"),
        ({"prior": Dense(9, 4)}, r"prior: expected a network on \(a condition of width 4\), but"),
    ],
)
def test_a_network_that_does_not_take_its_inputs_is_told_what_they_are(broken, expected):
    networks = {"encoder": Dense(6 + 4, 4), "decoder": Dense(2 + 4, 6)} | broken
    with pytest.raises(ValueError, match=expected):
        CVAE(condition=Classes(4), latent_dim=2, image_shape=(2, 3), **networks)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_what_a_network_takes_is_shown_by_one_example(condition):
    model = build(condition=condition, learnt_prior=condition.width > 0)
    for name, network in model.networks:
        own, *given = model.example(name) if name != "prior" else (np.zeros((1, 0)), *model.example(name))
        assert own.shape == (1, {"encoder": D, "prior": 0, "decoder": 2}[name])
        assert mc.conditions.count(tuple(given)) == 1
        assert network.forward(*model.example(name))[0].shape == (1, D if name == "decoder" else 4)


def test_without_a_condition_only_the_number_of_examples_counts(device):
    model = build(device, Nothing())
    x, _, eps = draw_data(3, model, 4)
    found = [model.loss_and_gradients(x, c, eps=eps)[0] for c in (4, [9, 8, 7, 6], np.zeros((4, 0)))]
    assert found[0] == found[1] == found[2]
    assert model.generate(3).shape == (3, *SHAPE)
    with pytest.raises(ValueError, match=r"^c: expected one entry for each of the 4 examples of x, got 5"):
        model.losses(x, 5, eps=eps)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_decoder_starts_at_the_mean_image(device, as_bytes):
    model = build(device, Nothing())
    x = np.random.default_rng(0).integers(0, 256, (50, *SHAPE), np.uint8)
    model.start_at_mean(x if as_bytes else x / 255)
    model.parameters["decoder.1.W"] = np.zeros((4, D))
    np.testing.assert_allclose(model.generate(2), np.tile(x.mean(axis=0) / 255, (2, 1, 1)), rtol=1e-12)


def test_a_decoder_whose_last_bias_is_not_that_of_the_pixels_cannot_start_at_their_mean():
    model = mc.build("conv", image_shape=(8, 8), encoder_widths=(2,), decoder_widths=(2,), device="numpy")
    with pytest.raises(ValueError, match=r"^decoder: expected a bias of shape \(64,\) at its end, got decoder"):
        model.start_at_mean(np.zeros((1, 8, 8)))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"condition": 4}, r"^condition: expected a Condition such as Classes\(10\), got 4"),
        ({"objective": "iwae"}, r"^objective: expected an ELBO or IWAE object, got 'iwae'"),
        ({"objective": 0}, r"^objective: expected an ELBO or IWAE object, got 0"),
        ({"image_shape": 28}, r"^image_shape: expected sizes such as \(28, 28\), got 28"),
    ],
)
def test_another_thing_where_an_object_is_expected_is_refused(argument, message):
    arguments = {"condition": Classes(4), "latent_dim": 2, "image_shape": (2, 3)} | argument
    with pytest.raises(TypeError, match=message):
        CVAE(Dense(6 + 4, 4), Dense(2 + 4, 6), **arguments)


@pytest.mark.parametrize("side", [0, -2, 1.5])
def test_sides_of_an_image_are_whole_numbers(side):
    with pytest.raises(ValueError, match=r"^image_shape: expected a whole number of at least 1"):
        CVAE(Dense(6 + 4, 4), Dense(2 + 4, 6), Classes(4), latent_dim=2, image_shape=(side, 3))
