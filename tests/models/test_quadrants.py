"""The image-conditioned CVAE and its baseline: gradients, the formulas by hand, and what must not be looked at."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from minicvae.gradcheck import check_model
from minicvae.layers import Chain, Dense, trace
from minicvae.masks import random_rectangles
from minicvae.models.quadrants import Baseline, ImageConditionedVAE
from minicvae.objectives import ELBO, IWAE
from minicvae.randomness import Purpose

D, SHAPE = 6, (2, 3)
OBJECTIVES = [ELBO(), ELBO(0.4), ELBO(free_bits=0.2), ELBO(samples=3), ELBO(samples=3, decoded=2)]
seeds = st.integers(0, 2**32 - 1)


def network(d_in, d_out):
    """Smooth, so that differences find a slope everywhere."""
    return Chain([Dense(d_in, 4, "tanh"), Dense(4, d_out)])


def stir(model, seed):
    """Biases that are not zero, at which a mistake could hide."""
    rng = np.random.default_rng(seed)
    for name, value in model.parameters.items():
        if name.endswith(".b"):
            model.parameters[name] = 0.3 * rng.standard_normal(value.shape)
    return model


def baseline_of(device="numpy", seed=0, dtype="float64"):
    return stir(Baseline(network(D, D), image_shape=SHAPE, dtype=dtype, device=device, seed=seed), seed)


def build(device="numpy", l=2, view=False, seed=0, dtype="float64", **settings):
    """A small model on a small baseline."""
    networks = network(D, 2 * l), network(D, 2 * l), network(l + D * view, D)
    baseline = baseline_of(device, seed + 1, dtype)
    return stir(ImageConditionedVAE(*networks, baseline, latent_dim=l, view=view, seed=seed, **settings), seed)


def draw_data(seed, model, n):
    """(x, hidden, eps): grey, black and white pixels, a rectangle for each image, noise for the objective."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((n, *SHAPE)) < 0.3, rng.integers(0, 2, (n, *SHAPE)), rng.random((n, *SHAPE)))
    eps = rng.standard_normal((model.objective.samples, n, model.latent_dim))
    return x, random_rectangles(n, SHAPE, share=(0.3, 1.0), seed=seed), eps


# Gradients


@settings(max_examples=15)
@given(
    objective=st.sampled_from([o for o in OBJECTIVES if not o.free_bits]),  # below them the prior has no gradient
    alpha=st.sampled_from([1.0, 0.3, 0.0]),
    view=st.booleans(),
    n=st.integers(1, 4),
    l=st.integers(1, 3),
    seed=seeds,
)
def test_every_gradient_of_every_combination_is_the_slope(host, objective, alpha, view, n, l, seed):
    """The GSNN never runs its recognition network, whose gradients are zero."""
    model = build(host.name, l, view, seed % 1000, objective=objective, alpha=alpha)
    x, hidden, eps = draw_data(seed, model, n)
    unused = [name for name in model.parameters if alpha == 0 and name.startswith("recognition")]
    report = check_model(model, x, hidden, eps=eps, elements=3, vanishing=unused).raise_for_failure()
    checked = [row for row in report.rows if row.name != "together"]
    assert [row.name for row in checked] == list(model.parameters)
    assert all(row.checked for row in checked if row.name not in unused)


@pytest.mark.parametrize("alpha", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("view", [False, True])
def test_every_parameters_gradient_is_right_to_eight_digits(host, alpha, view):
    model = build(host.name, view=view, alpha=alpha, objective=ELBO(0.7, samples=2))
    x, hidden, eps = draw_data(0, model, 3)
    unused = [name for name in model.parameters if alpha == 0 and name.startswith("recognition")]
    report = check_model(model, x, hidden, eps=eps, elements=1000, vanishing=unused).raise_for_failure()
    for name in set(model.parameters) - set(unused):
        assert report[name].relative < 1e-8, str(report)
        assert report[name].checked == model.parameters[name].size, str(report)


@pytest.mark.parametrize("seed", range(5))
def test_every_gradient_of_the_baseline_is_the_slope(host, seed):
    model = baseline_of(host.name, seed)
    x, hidden, eps = draw_data(seed, model, seed + 1)
    report = check_model(model, x, hidden, eps=eps, elements=100).raise_for_failure()
    assert [row.name for row in report.rows[:-1]] == list(model.parameters)
    assert all(row.relative < 1e-8 for row in report.rows), str(report)


@pytest.mark.parametrize(("alpha", "terms"), [(1.0, 1), (0.3, 2), (0.0, 1)])
def test_a_term_without_weight_is_not_computed(device, alpha, terms):
    model = build(device, alpha=alpha)
    x, hidden, eps = draw_data(0, model, 3)
    with trace(("recognition", model.recognition), ("generation", model.generation)) as record:
        losses = model.losses(x, hidden, eps=eps)
    names = [entry.name.split(".")[0] for entry in record if isinstance(entry.layer, Chain)]
    assert sorted(names) == ["generation"] * terms + ["recognition"] * (alpha > 0)
    assert np.isfinite(losses["loss"])


def test_the_same_call_gives_the_same_gradients_and_none_is_left_over(device):
    model = build(device, alpha=0.5)
    first, other = draw_data(0, model, 3), draw_data(1, model, 4)
    losses, grads = model.loss_and_gradients(*first[:2], eps=first[2])
    model.loss_and_gradients(*other[:2], eps=other[2])
    again, grads_again = model.loss_and_gradients(*first[:2], eps=first[2])
    assert again == losses
    for name, gradient in grads.items():
        np.testing.assert_array_equal(gradient, grads_again[name])


def test_the_backward_runs_once(device):
    for model in (build(device), baseline_of(device)):
        x, hidden, eps = draw_data(0, model, 2)
        _, parts = model.check_data(x, hidden)
        k = model.kernels
        _, backward = model.loss_and_backward(k.array(x.reshape(2, D)), parts, k.array(eps))
        backward()
        with pytest.raises(RuntimeError, match="called twice"):
            backward()


# The mathematics, by hand


def by_hand(model, network, *inputs):
    """A tanh layer and a linear one, written out."""
    w = {name: model.kernels.to_numpy(value) for name, value in model.parameters.items() if name.startswith(network)}
    h = np.tanh(np.concatenate(inputs, axis=1) @ w[f"{network}.0.W"] + w[f"{network}.0.b"])
    return h @ w[f"{network}.1.W"] + w[f"{network}.1.b"]


def cross_entropy(logits, pixels, hidden):
    p = special.expit(logits)
    return -np.where(hidden, special.xlogy(pixels, p) + special.xlog1py(1 - pixels, -p), 0).sum(axis=1)


def gaussians_by_hand(model, pixels, hidden):
    """(mean, log_var, m, s, v), from the definitions in the paper."""
    v = np.where(hidden, -1, pixels)
    guess = special.expit(by_hand(model.baseline, "baseline", v))
    mean, log_var = np.split(by_hand(model, "recognition", pixels), 2, axis=1)
    m, s = np.split(by_hand(model, "prior", np.where(hidden, guess, pixels)), 2, axis=1)
    return mean, log_var, m, s, v


@given(
    objective=st.sampled_from(OBJECTIVES),
    alpha=st.sampled_from([1.0, 0.3, 0.0]),
    view=st.booleans(),
    n=st.integers(1, 4),
    seed=seeds,
)
def test_the_losses_are_those_of_the_formulas_with_everything_written_out(device, objective, alpha, view, n, seed):
    model = build(device, view=view, seed=seed % 1000, objective=objective, alpha=alpha)
    x, hidden, eps = draw_data(seed, model, n)
    pixels, covers = x.reshape(n, D), hidden.reshape(n, D)
    mean, log_var, m, s, v = gaussians_by_hand(model, pixels, covers)

    def decoded(mean, log_var):
        nll = [
            cross_entropy(by_hand(model, "generation", mean + np.exp(log_var / 2) * e, *[v] * view), pixels, covers)
            for e in eps[: objective.used]
        ]
        return np.mean(nll)

    kl = ((s - log_var + (np.exp(log_var) + (mean - m) ** 2) / np.exp(s) - 1) / 2).mean(axis=0)
    penalty = np.maximum(kl, objective.free_bits).sum()
    from_posterior, from_prior = decoded(mean, log_var), decoded(m, s)
    losses = model.losses(x, hidden, eps=eps)
    mixed = alpha * from_posterior + (1 - alpha) * from_prior
    assert losses["reconstruction"] == pytest.approx(mixed, rel=1e-10)
    assert losses["kl"] == pytest.approx(kl.sum() if alpha else 0, rel=1e-10)
    assert losses["loss"] == pytest.approx(mixed + alpha * objective.beta * penalty, rel=1e-10)


@given(n=st.integers(1, 4), seed=seeds)
def test_the_baselines_loss_is_the_cross_entropy_of_the_hidden_pixels(device, n, seed):
    model = baseline_of(device, seed % 1000)
    x, hidden, eps = draw_data(seed, model, n)
    pixels, covers = x.reshape(n, D), hidden.reshape(n, D)
    logits = by_hand(model, "baseline", np.where(covers, -1, pixels))
    expected = cross_entropy(logits, pixels, covers).mean()
    losses = model.losses(x, hidden, eps=eps)
    assert losses == pytest.approx({"loss": expected, "reconstruction": expected, "kl": 0}, rel=1e-10)
    answer = np.where(hidden, special.expit(logits).reshape(n, *SHAPE), x)
    np.testing.assert_allclose(model.complete(x, hidden), answer, rtol=1e-12)


def test_beta_can_be_given_for_one_call(device):
    model = build(device, alpha=0.5)
    x, hidden, eps = draw_data(0, model, 3)
    losses = model.losses(x, hidden, eps=eps, beta=3.0)
    assert losses["loss"] == pytest.approx(losses["reconstruction"] + 0.5 * 3.0 * losses["kl"])


@pytest.mark.many_draws
@pytest.mark.parametrize(("mean", "log_var"), [(0.0, 0.0), (1.5, -3.0), (-2.0, 1.0)])
@pytest.mark.parametrize(("alpha", "network"), [(1.0, "recognition"), (0.0, "prior")])
def test_the_latents_that_are_decoded_have_the_mean_and_variance_of_their_network(
    device, alpha, network, mean, log_var
):
    model = build(device, l=1, alpha=alpha, objective=ELBO(samples=2))
    model.parameters[f"{network}.1.W"] = np.zeros((4, 2))
    model.parameters[f"{network}.1.b"] = np.array([mean, log_var])
    n, k = 20_000, model.kernels
    x, parts = model.check_data(np.zeros((n, D)), np.ones(SHAPE, bool))
    with trace(("generation", model.generation)) as record:
        model.loss_and_backward(k.array(x), parts, k.array(model.noise(n, 0, Purpose.TRAIN)))
    z = k.to_numpy(record[0].inputs[0])
    assert z.shape == (2 * n, 1)
    assert z.mean() == pytest.approx(mean, abs=6 * np.exp(log_var / 2) / np.sqrt(2 * n))
    assert z.var() == pytest.approx(np.exp(log_var), rel=6 / np.sqrt(n))


# The estimators


def log_weights_by_hand(model, x, hidden, eps, source):
    """log p(y|z_s), log p(z_s|v) and log q(z_s|v,y) by SciPy, (S, n) each, and the KL (n,)."""
    n = len(x)
    pixels, covers = x.reshape(n, D), hidden.reshape(n, D)
    mean, log_var, m, s, v = gaussians_by_hand(model, pixels, covers)
    at, spread = (m, s) if source == "prior" else (mean, log_var)
    z = at + np.exp(spread / 2) * eps
    fits = [-cross_entropy(by_hand(model, "generation", z_s, *[v] * model.view), pixels, covers) for z_s in z]
    kl = ((s - log_var + (np.exp(log_var) + (mean - m) ** 2) / np.exp(s) - 1) / 2).sum(axis=1)
    log_p, log_q = (stats.norm.logpdf(z, a, np.exp(b / 2)).sum(axis=2) for a, b in ((m, s), (mean, log_var)))
    return np.array(fits), log_p, log_q, kl


@given(view=st.booleans(), samples=st.integers(1, 4), n=st.integers(1, 4), seed=seeds)
def test_the_estimators_are_their_formulas_with_everything_written_out(device, view, samples, n, seed):
    model = build(device, view=view, seed=seed % 1000)
    x, hidden, _ = draw_data(seed, model, n)
    eps = np.concatenate([model.noise(n, 5, Purpose.EVALUATE, epoch=s) for s in range(samples)])
    expected = {}
    for name, source in (("bound", "posterior"), ("prior", "prior"), ("importance", "posterior")):
        fits, log_p, log_q, kl = log_weights_by_hand(model, x, hidden, eps, source)
        expected[name] = {
            "bound": kl - fits.mean(axis=0),
            "prior": -np.log(np.exp(fits).mean(axis=0)),
            "importance": -np.log(np.exp(fits + log_p - log_q).mean(axis=0)),
        }[name]
    for name, value in expected.items():
        found = model.negative_log_likelihood(x, hidden, estimator=name, samples=samples, seed=5)
        np.testing.assert_allclose(found, value, rtol=1e-9, err_msg=name)


@pytest.mark.many_draws
def test_monte_carlo_and_importance_sampling_come_to_the_integral_itself(device):
    """One latent dimension, so that -log ∫ p(y|z) p(z|v) dz can be had by a sum over a fine grid."""
    model = build(device, l=1, view=True)
    x, hidden, _ = draw_data(3, model, 3)
    pixels, covers = x.reshape(3, D), hidden.reshape(3, D)
    *_, m, s, v = gaussians_by_hand(model, pixels, covers)
    grid = np.linspace(-12, 12, 6001)
    joint = [
        np.exp(-cross_entropy(by_hand(model, "generation", np.full((3, 1), z), v), pixels, covers))
        * stats.norm.pdf(z, m[:, 0], np.exp(s[:, 0] / 2))
        for z in grid
    ]
    exact = -np.log(np.sum(joint, axis=0) * (grid[1] - grid[0]))
    for estimator in ("prior", "importance"):
        found = model.negative_log_likelihood(x, hidden, estimator=estimator, samples=3000)
        np.testing.assert_allclose(found, exact, atol=0.02, err_msg=estimator)
    assert (model.negative_log_likelihood(x, hidden, estimator="bound", samples=3000) > exact + 0.02).all()


def test_nothing_underflows_where_no_probability_can_be_written(device):
    """Logits of 1e5 for the wrong pixels: p(y|z) = exp(-6e5) is 0 in any type."""
    model = build(device)
    model.parameters["generation.1.b"] = np.full(D, 1e5)
    hidden = np.ones(SHAPE, bool)
    for estimator in ("bound", "prior", "importance"):
        found = model.negative_log_likelihood(np.zeros((2, *SHAPE)), hidden, estimator=estimator, samples=3)
        np.testing.assert_allclose(found, 6e5, rtol=1e-3)


def test_many_images_are_scored_in_batches_and_the_same_seed_gives_the_same_numbers(device, monkeypatch):
    model = build(device)
    x, hidden, _ = draw_data(0, model, 5)
    whole = model.negative_log_likelihood(x, hidden, samples=3)
    assert (whole == model.negative_log_likelihood(x, hidden, samples=3)).all()
    assert (whole != model.negative_log_likelihood(x, hidden, samples=3, seed=1)).all()
    monkeypatch.setattr("minicvae.models.base.BATCH", 3)
    monkeypatch.setattr("minicvae.models.quadrants.BATCH", 3)
    monkeypatch.setattr("minicvae.models.base.batches.__defaults__", (3,))
    shown = []
    plain = model.generation.forward
    monkeypatch.setattr(model.generation, "forward", lambda z: shown.append(len(z)) or plain(z), raising=False)
    batched = model.negative_log_likelihood(x, hidden, samples=3)
    assert shown == [3, 3, 3, 2, 2, 2]  # never more than one sample of one batch
    np.testing.assert_allclose(batched[:3], model.negative_log_likelihood(x[:3], hidden[:3], samples=3), rtol=1e-12)
    assert batched.shape == (5,)


def test_float32_is_close_to_float64(device):
    models = [build(device, dtype=dtype) for dtype in ("float32", "float64")]
    models[1].parameters.value[...] = models[0].parameters.value
    models[1].baseline.parameters.value[...] = models[0].baseline.parameters.value
    x, hidden, _ = draw_data(0, models[0], 4)
    for estimator in ("bound", "prior", "importance"):
        single, double = (m.negative_log_likelihood(x, hidden, estimator=estimator, samples=5) for m in models)
        assert single.dtype == np.float64
        np.testing.assert_allclose(single, double, rtol=1e-5)


# What is seen and what is not


@given(view=st.booleans(), seed=seeds)
def test_no_answer_depends_on_what_is_hidden(device, view, seed):
    model = build(device, view=view, seed=seed % 1000)
    x, hidden, _ = draw_data(seed, model, 3)
    other = np.where(hidden, np.random.default_rng(seed + 1).random(x.shape), x)
    for one in (model, model.baseline):
        np.testing.assert_array_equal(one.complete(x, hidden), one.complete(other, hidden))


@pytest.mark.parametrize("view", [False, True])
def test_the_answer_depends_on_every_visible_pixel_and_keeps_it(device, view):
    model = build(device, view=view)
    x, _, _ = draw_data(0, model, 1)
    hidden = np.zeros(SHAPE, bool)
    hidden[0, :2] = True
    for one in (model, model.baseline):
        before = one.complete(x, hidden)
        np.testing.assert_array_equal(before[..., ~hidden], np.broadcast_to(x[:, ~hidden], before[..., ~hidden].shape))
        for i, j in np.argwhere(~hidden):
            changed = x.copy()
            changed[0, i, j] = 1 - changed[0, i, j] + 0.1 * (changed[0, i, j] == 0.5)
            assert (np.abs(one.complete(changed, hidden) - before)[..., hidden] > 1e-6).any()


def test_visible_pixels_cost_nothing(device):
    """With logits of any size where the image is visible, the loss and its gradients are what they were."""
    model = build(device)
    x, _, eps = draw_data(0, model, 3)
    hidden = np.array([[True, False, False], [False, False, True]])
    losses, grads = model.loss_and_gradients(x, hidden, eps=eps)
    model.parameters["generation.1.b"] = np.where(
        hidden.reshape(D), model.kernels.to_numpy(model.parameters["generation.1.b"]), 50.0
    )
    shifted, shifted_grads = model.loss_and_gradients(x, hidden, eps=eps)
    assert shifted == losses
    for name, gradient in grads.items():
        np.testing.assert_array_equal(gradient, shifted_grads[name], err_msg=name)
    assert (grads["generation.1.b"][~hidden.reshape(D)] == 0).all()
    assert (grads["generation.1.b"][hidden.reshape(D)] != 0).all()


def test_samples_differ_and_the_same_seed_gives_the_same(device):
    model = build(device)
    x, hidden, _ = draw_data(0, model, 3)
    answers = model.complete(x, hidden, samples=4)
    assert answers.shape == (4, 3, *SHAPE)
    assert len({answer[hidden].tobytes() for answer in answers}) == 4
    np.testing.assert_array_equal(answers, model.complete(x, hidden, samples=4))
    np.testing.assert_array_equal(answers[:2], model.complete(x, hidden, samples=2))
    assert (answers != model.complete(x, hidden, samples=4, seed=1))[:, hidden].any()


def test_pixels_may_be_bytes(device):
    model = build(device)
    _, hidden, eps = draw_data(0, model, 2)
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), np.uint8)
    assert model.losses(pixels, hidden, eps=eps) == pytest.approx(model.losses(pixels / 255, hidden, eps=eps))
    np.testing.assert_allclose(model.complete(pixels, hidden), model.complete(pixels / 255, hidden), rtol=1e-12)


# The border


def test_wrong_arguments_are_refused_in_words():
    model = build()
    x, hidden, eps = draw_data(0, model, 2)
    for wrong, error, words in (
        ((x[:, :1], hidden), ValueError, "x: expected images of shape"),
        ((x, hidden[:1]), ValueError, "hidden: expected a mask of shape"),
        ((x, hidden.astype(int)), TypeError, "hidden: expected bools"),
        ((x + 1, hidden), ValueError, r"x: expected floats in \[0, 1\]"),
    ):
        for call in (model.losses, model.complete, model.negative_log_likelihood, model.baseline.complete):
            with pytest.raises(error, match=words):
                call(*wrong)
    with pytest.raises(ValueError, match="estimator: expected one of bound, prior, importance, got 'elbo'"):
        model.negative_log_likelihood(x, hidden, estimator="elbo")
    for call in (model.complete, model.negative_log_likelihood):
        with pytest.raises(ValueError, match="samples: expected a whole number of at least 1, got 0"):
            call(x, hidden, samples=0)
    with pytest.raises(ValueError, match="eps: expected shape"):
        model.losses(x, hidden, eps=eps[:, :1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alpha": 1.5}, r"alpha: expected a number in \[0, 1\], got 1.5"),
        ({"alpha": float("nan")}, "alpha: expected"),
        ({"latent_dim": 0}, "latent_dim: expected a whole number of at least 1, got 0"),
        ({"objective": IWAE()}, "objective: expected an ELBO with its KL in closed form"),
        ({"objective": ELBO(kl="monte_carlo")}, "objective: expected an ELBO with its KL in closed form"),
        ({"recognition": network(D + 1, 4)}, "recognition: expected a network on 6 columns"),
        ({"prior": network(D, 5)}, "prior: expected 4 output columns"),
        ({"generation": network(2, D + 1)}, "generation: expected 6 output columns"),
        ({"generation": network(3, D)}, "generation: expected a network on 2 columns"),
        ({"view": True}, r"generation: expected a network on \(2, 6\) columns"),
    ],
)
def test_networks_that_do_not_fit_are_refused(changes, words):
    fitting = {"recognition": network(D, 4), "prior": network(D, 4), "generation": network(2, D), "latent_dim": 2}
    with pytest.raises(ValueError, match=words):
        ImageConditionedVAE(**fitting | {"baseline": baseline_of()} | changes)


def test_a_baseline_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="baseline: expected 6 output columns"):
        Baseline(network(D, D + 1), image_shape=SHAPE)
    with pytest.raises(ValueError, match="dtype: expected"):
        Baseline(network(D, D), image_shape=SHAPE, dtype="float16")


@pytest.mark.parametrize(("view", "more"), [(False, ""), (True, ", which the generation network sees too")])
def test_a_summary_says_what_the_model_completes_and_by_what_measure(view, more):
    assert build(view=view, alpha=0.25, objective=ELBO(0.5)).facts == {
        "condition": f"the visible pixels{more}",
        "likelihood": "Bernoulli of the hidden pixels",
        "objective": f"{ELBO(0.5)}, alpha 0.25",
        "baseline": f"{(D + 1) * 4 + 5 * D} parameters more, which are not trained here",
    }
