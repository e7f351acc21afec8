"""The convolutional networks: their published sizes, every gradient, what enters where, and what is refused."""

from functools import partial

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

import minicvae as mc
from minicvae.conditions import Classes, Nothing, Parts, Vector
from minicvae.distributions import LearnedGaussian
from minicvae.gradcheck import check_model
from minicvae.layers import Conv2D, Embedding, JoinPlanes, MaxPool2D, Reshape, UpSample2D
from minicvae.models.convolutional import (
    condition_paths,
    convolutional,
    convolutional_planes,
    convolutional_strided,
)
from minicvae.models.presets import Preset

FORMS = {"pooled": convolutional, "strided": convolutional_strided, "planes": convolutional_planes}
CONV = Preset("conv", "as published", (32, 64), 16, (64, 32))

# Counted by hand: a 3x3 convolution has 9 c_in c_out weights; everything has a bias for each output.
FLAT = 7 * 7 * 64
DOWN, UP = (9 * 32 + 32) + (9 * 32 * 64 + 64), (9 * 64 * 64 + 64) + (9 * 64 * 32 + 32) + (9 * 32 + 1)
C_PATH = 10 * 64 + 64
ENCODER = DOWN + C_PATH + (FLAT + 64 + 1) * 32
DECODER = C_PATH + (16 + 64 + 1) * FLAT + UP


def built(networks, host=None, **overrides):
    preset = CONV.override(**overrides)
    encoder, decoder = networks(preset)
    settings = {name: getattr(preset, name) for name in ("latent_dim", "image_shape", "likelihood", "objective")}
    device = host.name if host else "numpy"
    return mc.CVAE(encoder, decoder, preset.condition, **settings, dtype="float64", device=device)


def small(networks, host=None, **overrides):
    sizes = {"image_shape": (8, 4), "latent_dim": 2, "encoder_widths": (2, 3), "decoder_widths": (4, 2), "classes": 4}
    if "condition" in overrides:
        del sizes["classes"]
    return built(networks, host, **sizes | overrides)


def draw(model, n, c=None, seed=0):
    rng = np.random.default_rng(seed)
    c = rng.integers(0, 4, n) if c is None else c
    for name, value in model.parameters.items():  # biases start at zero, where a mistake could hide
        if name.endswith(".b"):
            model.parameters[name] = rng.standard_normal(value.shape) / 4
    return rng.random((n, *model.image_shape)), c, rng.standard_normal((1, n, model.latent_dim))


def kinds(network):
    return {type(layer) for _, layer in network.named_layers()}


@pytest.mark.parametrize(
    ("form", "encoder", "decoder"),
    [
        ("pooled", ENCODER, DECODER),
        ("strided", ENCODER, DECODER),  # a stride costs no weights
        ("planes", ENCODER + 9 * 10 * 32 - C_PATH - 64 * 32, DECODER),
    ],
)
def test_the_networks_have_the_published_numbers_of_parameters(form, encoder, decoder):
    counts = [sum(p.size for _, p in network.named_parameters()) for network in FORMS[form](CONV)]
    assert counts == [encoder, decoder]


def test_the_sizes_of_the_images_are_the_published_ones(host):
    for networks in (convolutional, convolutional_strided):
        model = built(networks, host)
        images, parts = model.check_data(np.zeros((1, 784)), [3])
        with mc.layers.trace(*model.networks) as record:
            model.encoder.forward(images.astype("float64"), *parts)
            model.decoder.forward(np.zeros((1, 16)), *parts)
        sizes = [entry.output.shape[1:] for entry in record if entry.output.ndim == 4]
        down = [(28, 28, 1), (28, 28, 32), (14, 14, 32), (14, 14, 64), (7, 7, 64)]
        up = [(7, 7, 64), (7, 7, 64), (14, 14, 64), (14, 14, 32), (28, 28, 32), (28, 28, 1)]
        if networks is convolutional_strided:
            down, up = down[:1] + down[2::2], up[:1] + up[2:5:2] + up[5:]
        assert sizes == down + up


def assert_all_gradients_are_slopes(model, x, c, eps):
    report = check_model(model, x, c, eps=eps, elements=4).raise_for_failure()
    assert [row.name for row in report.rows if row.name != "together"] == list(model.parameters)
    assert all(row.relative < 1e-8 for row in report.rows), str(report)


@pytest.mark.parametrize("form", FORMS)
def test_every_gradient_of_the_model_is_the_slope(host, form):
    model = small(FORMS[form], host)
    assert_all_gradients_are_slopes(model, *draw(model, 3, np.array([3, 0, 3])))


@pytest.mark.parametrize("form", ["pooled", "planes"])
@pytest.mark.parametrize(
    ("condition", "c"),
    [
        (Classes(4, embedding=2), np.array([3, 0, 3])),
        (Vector(2), np.array([[0.3, -1.0], [2.0, 0.1], [0.0, 0.7]])),
        (
            Parts({"digit": Classes(4, embedding=3), "slant": Vector(1), "thickness": Classes(2)}),
            {"digit": np.array([3, 0, 3]), "slant": np.array([[0.5], [-1.0], [2.0]]), "thickness": np.array([1, 1, 0])},
        ),
    ],
    ids=["embedded", "vector", "parts"],
)
def test_every_kind_of_condition_gets_its_gradients(form, condition, c):
    model = small(FORMS[form], condition=condition)
    assert_all_gradients_are_slopes(model, *draw(model, 3, c))


@pytest.mark.parametrize("form", FORMS)
def test_the_gradients_of_the_published_sizes_are_the_slopes(form):
    """All layers at their full widths, on images of 8 x 8 and a few elements of each array."""
    model = built(FORMS[form], image_shape=(8, 8))
    x, c, eps = draw(model, 3)
    check_model(model, x, c, eps=eps, elements=2).raise_for_failure()


@pytest.mark.parametrize("form", FORMS)
def test_encoder_and_decoder_hear_the_condition(host, form):
    model = small(FORMS[form], host, encoder_widths=(8, 8), decoder_widths=(8, 8))
    x, c, _ = draw(model, 3)
    mean, _ = model.encode(x, c)
    other, _ = model.encode(x, (c + 1) % 4)
    assert np.abs(mean - other).min() > 1e-6
    z = np.zeros((4, 2))
    assert len(np.unique(model.decode(z, np.arange(4)).reshape(4, -1), axis=0)) == 4


def test_with_planes_the_class_joins_the_image_and_not_the_flat_features():
    assert JoinPlanes in kinds(convolutional_planes(CONV)[0])
    assert JoinPlanes not in kinds(convolutional(CONV)[0]) | kinds(convolutional_planes(CONV)[1])
    both = partial(convolutional, planes=True, strided=True)(CONV)
    assert JoinPlanes in kinds(both[0])
    assert not {MaxPool2D, UpSample2D} & (kinds(both[0]) | kinds(both[1]))


def test_strides_take_the_place_of_pools():
    for network in convolutional_strided(CONV):
        assert not {MaxPool2D, UpSample2D} & kinds(network)
    pooled = convolutional(CONV)
    assert MaxPool2D in kinds(pooled[0])
    assert UpSample2D in kinds(pooled[1])


def test_a_likelihood_with_two_numbers_a_pixel_gets_a_plane_of_each(host):
    """The first half of the columns are the means, the second the log variances: a plane each, not alternating."""
    model = small(convolutional, host, likelihood=LearnedGaussian())
    x, c, eps = draw(model, 3)
    assert_all_gradients_are_slopes(model, x, c, eps)
    pixels = [layer for _, layer in model.decoder.named_layers() if isinstance(layer, Conv2D)][-1]
    assert pixels.c_out == 2
    pixels.W.value[...] = 0
    pixels.b.value[...] = [0.25, -3.0]
    _, parts = model.check_data(x, c)
    h, _ = model.decoder.forward(eps[0], *parts)
    np.testing.assert_array_equal(h, np.repeat([[0.25, -3.0]], 32, axis=1).repeat(3, axis=0))


@pytest.mark.parametrize(
    "overrides",
    [{"image_shape": (28, 30)}, {"image_shape": (30, 28)}, {"image_shape": (784,)}, {"decoder_widths": (8, 8, 8)}],
)
def test_images_that_cannot_be_halved_so_often_are_refused(overrides):
    with pytest.raises(ValueError, match=r"^image_shape: expected \(h, w\), both multiples of [48] for [23] widths"):
        built(convolutional, **overrides)


@pytest.mark.parametrize("form", FORMS)
def test_it_learns_what_it_is_shown(host, form):
    """Two kinds of images, told apart by their label: after some steps the loss has fallen by half."""
    model = small(FORMS[form], host, encoder_widths=(8, 8), decoder_widths=(8, 8))
    c = np.arange(64) % 4
    x = np.zeros((64, 8, 4))
    x[c % 2 == 0, :4] = 1
    x[c % 2 == 1, :, 2:] = 1
    before = model.evaluate(x, c)["loss"]
    history = model.fit(x, c, epochs=30, batch_size=16, learning_rate=1e-2, verbose=0)
    assert history.history["loss"][-1] < before / 2


@pytest.mark.parametrize("form", FORMS)
def test_a_saved_model_is_the_same_model(form, tmp_path):
    model = small(FORMS[form])
    x, c, _ = draw(model, 2)
    model.save(tmp_path / "model.safetensors")
    again = mc.load(tmp_path / "model.safetensors", device="numpy")
    np.testing.assert_array_equal(again.reconstruct(x, c), model.reconstruct(x, c))


@pytest.mark.parametrize("name", ["conv", "conv-strided", "conv-planes"])
def test_images_may_be_wider_than_high_and_the_networks_deeper(name):
    sizes = {"image_shape": (8, 16), "encoder_widths": (2, 3, 5), "decoder_widths": (7, 4, 3), "latent_dim": 2}
    model = mc.build(name, device="numpy", **sizes)
    images = model.generate(np.arange(3))
    assert images.shape == (3, 8, 16)
    assert [moment.shape for moment in model.encode(images, np.arange(3))] == [(3, 2), (3, 2)]
    layers = [layer for _, layer in model.decoder.named_layers("decoder")]
    assert [layer.shape for layer in layers if isinstance(layer, Reshape)] == [(1, 2, 7)]
    of_the_condition = {"encoder": None if name == "conv-planes" else 5, "decoder": 7}  # as the smallest images have
    for network, width in of_the_condition.items():
        shapes = [value.shape for key, value in model.parameters.items() if key.startswith(f"{network}.")]
        assert ((10, width) in shapes) == (width is not None)


@given(widths=st.lists(st.integers(0, 3), min_size=1, max_size=4), width=st.integers(1, 5), embedding=st.integers(1, 3))
def test_each_part_of_the_condition_has_a_relu_layer_of_its_own(widths, width, embedding):
    kinds = [Vector(d) if d else Nothing() for d in widths] + [Classes(4, embedding=embedding)]
    paths, columns = condition_paths(Parts({f"c{i}": kind for i, kind in enumerate(kinds)}), width)
    assert columns == width * (sum(d > 0 for d in widths) + 1)
    *dense, (embedded, last) = [path if i < len(widths) else path.layers for i, path in enumerate(paths)]
    assert isinstance(embedded, Embedding)
    assert [path is not None for path in dense] == [d > 0 for d in widths]
    for d, layer in zip([*widths, embedding], [*dense, last], strict=True):
        assert layer is None or (layer.W.shape, layer.activation) == ((d, width), "relu")


@pytest.mark.parametrize("form", FORMS)
def test_networks_of_relu_without_biases_double_with_their_input(form):
    model = small(FORMS[form], condition=Nothing())
    rng = np.random.default_rng(0)
    x, z = rng.random((3, 8, 4)) / 2, rng.normal(size=(3, 2))
    for once, twice in zip(model.encode(x, 3), model.encode(2 * x, 3), strict=True):
        np.testing.assert_allclose(twice, 2 * once, rtol=1e-9)
    once, twice = (scipy.special.logit(model.decode(k * z, 3)) for k in (1, 2))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-9)
