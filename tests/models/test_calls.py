"""What users call on a model: pictures out, data and noise in, and the words in which wrong arguments are refused."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minicvae as mc
from minicvae.conditions import Classes, Parts, Vector
from minicvae.distributions import Bernoulli, Gaussian, LearnedGaussian
from minicvae.layers import Dense, Embedding, Pathways
from minicvae.models.base import BATCH, batches
from minicvae.objectives import ELBO
from minicvae.randomness import Purpose

D, SHAPE = 6, (2, 3)
MIXED = Parts({"digit": Classes(3), "style": Vector(2), "width": Classes(2, embedding=3)})


def build(device="numpy", **overrides):
    """A small model of three classes."""
    sizes = {"image_shape": SHAPE, "encoder_widths": (4,), "decoder_widths": (4,), "latent_dim": 2, "dtype": "float64"}
    classes = {} if "condition" in overrides else {"classes": 3}
    return mc.build("mlp", device=device, **sizes | classes | overrides)


def draw_data(seed, model, n):
    """(x, c, eps): pixels in [0, 1], a condition that fits, noise of the shape that the objective needs."""
    rng = np.random.default_rng(seed)
    c = rng.integers(0, 3, n)
    if model.condition == MIXED:
        c = {"digit": c, "style": rng.standard_normal((n, 2)), "width": rng.integers(0, 2, n)}
    return rng.random((n, *SHAPE)), c, rng.standard_normal((model.objective.samples, n, 2))


# What users call


def test_pictures_come_in_the_data_space_and_in_the_order_that_was_asked_for(device):
    for likelihood in (Bernoulli(), Gaussian(0.5), LearnedGaussian()):
        model = build(device, likelihood=likelihood)
        x, c, _ = draw_data(0, model, 5)
        z = np.random.default_rng(0).standard_normal((5, 2))
        for images in (model.decode(z, c), model.generate(c, seed=1), model.reconstruct(x, c)):
            assert isinstance(images, np.ndarray)
            assert images.shape == (5, *SHAPE)
            assert images.dtype == np.float64
            assert images.min() >= 0
            assert images.max() <= 1
        np.testing.assert_allclose(model.decode(z[::-1], c[::-1]), model.decode(z, c)[::-1], rtol=1e-12)


def test_a_reconstruction_is_the_decoded_posterior_mean(device):
    model = build(device)
    x, c, _ = draw_data(0, model, 5)
    np.testing.assert_array_equal(model.reconstruct(x, c), model.decode(model.encode(x, c)[0], c))


def test_generated_images_are_a_function_of_the_seed(device):
    model = build(device)
    np.testing.assert_array_equal(model.generate([0, 1, 2], seed=4), model.generate([0, 1, 2], seed=4))
    assert not np.allclose(model.generate([0, 1, 2], seed=4), model.generate([0, 1, 2], seed=5))
    same_label = model.generate([1, 1])
    assert not np.allclose(same_label[0], same_label[1])


def test_many_images_are_worked_on_in_batches_that_do_not_show(device):
    model = build(device)
    n = 2 * BATCH + 1
    x, c, _ = draw_data(0, model, n)
    whole, pictures = model.encode(x, c)[0], model.decode(np.tile([[0.1, 0.2]], (n, 1)), c)
    for rows in (slice(BATCH - 1, BATCH + 1), slice(n - 1, n)):
        np.testing.assert_allclose(model.encode(x[rows], c[rows])[0], whole[rows], rtol=1e-12)
        np.testing.assert_allclose(
            model.decode(np.tile([[0.1, 0.2]], (rows.stop - rows.start, 1)), c[rows]), pictures[rows], rtol=1e-12
        )


@given(n=st.integers(0, 50), size=st.integers(1, 9))
def test_batches_cover_everything_once(n, size):
    slices = list(batches(n, size))
    assert [i for rows in slices for i in range(n)[rows]] == list(range(n))
    assert all(0 < rows.stop - rows.start <= size for rows in slices)


def test_what_a_user_was_handed_is_never_overwritten(device):
    model = build(device)
    x, c, eps = draw_data(0, model, 4)
    held = [
        *model.encode(x, c),
        model.decode(np.zeros((4, 2)), c),
        *model.loss_and_gradients(x, c, eps=eps)[1].values(),
    ]
    copies = [array.copy() for array in held]
    other_x, other_c, other_eps = draw_data(1, model, 4)
    model.encode(other_x, other_c)
    model.decode(np.ones((4, 2)), other_c)
    model.loss_and_gradients(other_x, other_c, eps=other_eps)
    model.parameters.value[...] = 0
    for array, copy in zip(held, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_what_a_user_hands_in_is_left_as_it_is(device):
    model = build(device, condition=MIXED)
    x, c, eps = draw_data(0, model, 4)
    z = np.zeros((4, 2))
    held = [x, eps, z, *c.values()]
    copies = [array.copy() for array in held]
    model.loss_and_gradients(x, c, eps=eps)
    model.encode(x, c)
    model.decode(z, c)
    for array, copy in zip(held, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_assigning_a_parameter_changes_the_model(device):
    model = build(device)
    x, c, _ = draw_data(0, model, 2)
    before = model.encode(x, c)[0]
    model.parameters["encoder.1.b"] = np.array([5.0, 0.0, 0.0, 0.0]) + model.kernels.to_numpy(
        model.parameters["encoder.1.b"]
    )
    np.testing.assert_allclose(model.encode(x, c)[0] - before, [[5, 0], [5, 0]], atol=1e-12)


def test_float32_follows_float64_to_its_own_rounding(device):
    exact, single = (build(device, condition=MIXED, dtype=dtype) for dtype in ("float64", "float32"))
    for name, value in exact.parameters.items():
        single.parameters[name] = value
    x, c, eps = draw_data(0, exact, 6)
    losses, grads = exact.loss_and_gradients(x, c, eps=eps)
    rounded, rounded_grads = single.loss_and_gradients(x, c, eps=eps)
    assert rounded == pytest.approx(losses, rel=1e-5)
    for name, gradient in grads.items():
        assert rounded_grads[name].dtype == np.float32
        np.testing.assert_allclose(rounded_grads[name], gradient, atol=1e-5 * np.abs(gradient).max(), err_msg=name)


def test_bytes_and_the_floats_that_they_stand_for_are_the_same_images(device):
    model = build(device)
    _, c, eps = draw_data(0, model, 3)
    x = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)
    as_bytes, as_floats = (model.loss_and_gradients(images, c, eps=eps)[0] for images in (x, x / 255))
    assert as_bytes == pytest.approx(as_floats, rel=1e-13)


def test_the_losses_can_be_had_without_the_gradients(device):
    model = build(device)
    x, c, eps = draw_data(0, model, 4)
    assert model.losses(x, c, eps=eps) == model.loss_and_gradients(x, c, eps=eps)[0]
    assert model.losses(x, c, seed=3, beta=2.0) == model.loss_and_gradients(x, c, seed=3, beta=2.0)[0]


# Noise


def test_noise_may_be_given_or_drawn(device):
    model = build(device)
    x, c, eps = draw_data(0, model, 3)
    flat, stacked = (model.loss_and_gradients(x, c, eps=e)[0] for e in (eps[0], eps))
    assert flat == stacked
    drawn = model.loss_and_gradients(x, c, seed=7)[0]
    assert drawn == model.loss_and_gradients(x, c, eps=model.noise(3, 7, Purpose.TRAIN))[0]
    assert drawn != model.loss_and_gradients(x, c, seed=8)[0]


@pytest.mark.parametrize("samples", [1, 3])
def test_noise_of_another_shape_is_refused(samples):
    model = build(objective=ELBO(samples=samples))
    x, c, eps = draw_data(0, model, 2)
    wrong = [eps[:, :1], eps[..., :1], eps[0, 0], np.zeros((samples + 1, 2, 2)), np.zeros(())]
    expected = r"\(3, 2, 2\)" if samples > 1 else r"\(1, 2, 2\) or \(2, 2\)"
    for noise in [*wrong, eps[0]] if samples > 1 else wrong:
        with pytest.raises(ValueError, match=rf"^eps: expected shape {expected}, got \("):
            model.loss_and_gradients(x, c, eps=noise)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"^eps: expected finite numbers, got NaN or infinity"):
            model.loss_and_gradients(x, c, eps=np.full(eps.shape, bad))


def test_the_noise_of_each_purpose_epoch_and_step_is_another():
    model = build()
    drawn = [
        model.noise(2, seed, purpose, epoch, step)
        for seed, purpose, epoch, step in [
            (0, Purpose.TRAIN, 0, 0),
            (1, Purpose.TRAIN, 0, 0),
            (0, Purpose.EVALUATE, 0, 0),
            (0, Purpose.TRAIN, 1, 0),
            (0, Purpose.TRAIN, 0, 1),
        ]
    ]
    assert len({eps.tobytes() for eps in drawn}) == len(drawn)


# Refusals


@pytest.mark.parametrize("call", ["encode", "reconstruct", "losses", "loss_and_gradients", "evaluate", "fit"])
@pytest.mark.parametrize(
    ("x", "c", "error", "message"),
    [
        (np.zeros((2, *SHAPE)), [0, 3], ValueError, "c: expected labels 0 to 2, got 3 at index 1"),
        (np.zeros((2, *SHAPE)), [0, 1, 2], ValueError, "c: expected one entry for each of the 2 examples of x, got 3"),
        (np.zeros((2, *SHAPE)), [0], ValueError, "c: expected one entry for each of the 2 examples of x, got 1"),
        (np.full((2, *SHAPE), np.nan), [0, 1], ValueError, r"x: expected floats in \[0, 1\], got .*NaN"),
        (np.zeros((2, 3, 3)), [0, 1], ValueError, r"x: expected images of shape \(n, 6\) or \(n, 2, 3\)"),
        (np.zeros((0, *SHAPE)), [], ValueError, "x: expected at least one image, got none"),
        (np.zeros((2, *SHAPE)), [0.0, 1.0], TypeError, "c: expected integer labels"),
    ],
)
def test_wrong_data_is_refused_by_every_call(call, x, c, error, message):
    with pytest.raises(error, match=f"^{message}"):
        getattr(build(), call)(x, c)


@pytest.mark.parametrize(
    ("z", "c", "message"),
    [
        (np.zeros((2, 3)), [0, 1], r"z: expected shape \(n, 2\) with n >= 1, got shape \(2, 3\)"),
        (np.zeros((2, 2)), [0], "c: expected one entry for each of the 2 examples of z, got 1"),
        (np.zeros((1, 2)), [3], "c: expected labels 0 to 2, got 3"),
        ([[np.inf, 0]], [0], "z: expected numbers that are finite"),
        (np.zeros((0, 2)), np.zeros(0, int), "z: expected shape"),
    ],
)
def test_wrong_latents_are_refused(z, c, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        build().decode(z, c)


@pytest.mark.parametrize("nothing", [[], np.zeros(0, np.int64)])
def test_generating_nothing_is_refused(nothing):
    with pytest.raises(ValueError, match=r"^c: expected at least one condition, got none"):
        build().generate(nothing)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_wrong_seeds_are_refused(seed):
    with pytest.raises(ValueError, match=r"^seed: expected 0 <= seed"):
        build().generate([0], seed=seed)
    with pytest.raises(ValueError, match=r"^seed: "):
        build(seed=0).loss_and_gradients(np.zeros((1, D)), [0], seed=seed)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"dtype": "float16"}, ValueError, "dtype: expected 'float32' or 'float64', got 'float16'"),
        ({"dtype": np.float32}, ValueError, "dtype: "),
        ({"device": "gpu"}, ValueError, "device: expected one of numpy, cpu, cuda and auto, got 'gpu'"),
        ({"latent_dim": 0}, ValueError, "latent_dim: expected a whole number of at least 1, got 0"),
        ({"seed": -1}, ValueError, "seed: expected 0 <= seed"),
    ],
)
def test_wrong_settings_are_refused(settings, error, message):
    networks = Dense(D + 3, 4), Dense(2 + 3, D)
    with pytest.raises(error, match=f"^{message}"):
        mc.CVAE(*networks, Classes(3), **{"latent_dim": 2, "image_shape": SHAPE} | settings)


@pytest.mark.parametrize("device", ["numpy", "cpu"])
@pytest.mark.parametrize("condition", [Classes(3), Vector(3)])
@pytest.mark.parametrize(
    ("encoder", "decoder", "name"),
    [
        (Dense(D + 2, 4), Dense(5, D), "encoder"),
        (Dense(D + 4, 4), Dense(5, D), "encoder"),
        (Dense(D, 4), Dense(5, D), "encoder"),
        (Dense(D + 3, 3), Dense(5, D), "encoder"),
        (Dense(D + 3, 4), Dense(4, D), "decoder"),
        (Dense(D + 3, 4), Dense(6, D), "decoder"),
        (Dense(D + 3, 4), Dense(5, D + 1), "decoder"),
        (Embedding(3, 4), Dense(5, D), "encoder"),
        (Pathways([None], Dense(D, 4)), Dense(5, D), "encoder"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_before_it_is_trained(device, condition, encoder, decoder, name):
    """With weights too narrow for its labels a compiled gather would read beyond them; too wide, some never train."""
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        mc.CVAE(encoder, decoder, condition, latent_dim=2, image_shape=SHAPE, device=device)


def test_a_device_that_is_not_there_is_said_to_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr("minicvae.models.base.load", mc.kernels.load.__wrapped__)
    with pytest.raises(RuntimeError, match="device 'cuda': CuPy is not installed"):
        build("cuda")


def test_a_layer_that_stands_in_both_networks_is_refused():
    """Shared weights would be counted twice, and come apart when the model is saved and loaded."""
    shared = Embedding(3, 2)
    networks = Pathways([None, shared], Dense(D + 2, 4)), Pathways([None, shared], Dense(2 + 2, D))
    with pytest.raises(ValueError, match=r"^decoder\.paths\.1\.E is encoder\.paths\.1\.E too"):
        mc.CVAE(*networks, Classes(3, embedding=2), latent_dim=2, image_shape=SHAPE)
