"""The profile: the operations of a step against what the architectures say, and every kernel's own share."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minicvae as mc
from minicvae import conditions
from minicvae.bench.machine import Machine
from minicvae.bench.profile import profile, step_operations


def batch(model, n):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, *model.image_shape), np.uint8), conditions.draw(model.condition, n, rng)


@given(n=st.integers(1, 5), widths=st.lists(st.integers(1, 9), min_size=1, max_size=3), latent=st.integers(1, 4))
def test_a_dense_step_multiplies_each_weight_thrice_for_each_example_and_the_first_layer_twice(n, widths, latent):
    model = mc.build(
        "mlp", device="numpy", image_shape=(3, 3), encoder_widths=widths, decoder_widths=widths, latent_dim=latent
    )
    weights = {name: p.shape for name, p in model.parameters.items() if name.endswith(".W")}
    expected = 0
    for name, (rows, columns) in weights.items():
        first = name in ("encoder.0.W", "decoder.0.W")
        floats = rows - 10 if first else rows  # the rows of the classes are gathered, not multiplied
        expected += 2 * n * floats * columns * (2 if name == "encoder.0.W" else 3)
    assert step_operations(model, *batch(model, n)) == expected


def test_a_convolution_multiplies_its_weights_at_every_place():
    model = mc.build("conv", device="numpy")
    places = {
        "encoder.paths.0.1": 2 * 28 * 28,  # forward and dW: nobody reads the gradient of the images
        "encoder.paths.0.3": 3 * 14 * 14,
        "decoder.trunk.2": 3 * 7 * 7,
        "decoder.trunk.4": 3 * 14 * 14,
        "decoder.trunk.6": 3 * 28 * 28,
    }
    sizes = {name.removesuffix(".W"): p.size for name, p in model.parameters.items() if p.ndim == 4}
    assert len(sizes) == len(places)
    convolutions = [k for k in profile(model, *batch(model, 2), steps=1) if "conv2d" in k.name]
    expected = 2 * 2 * sum(size * count for size, count in zip(sizes.values(), places.values(), strict=True))
    assert sum(k.operations * k.calls for k in convolutions) == expected


@pytest.mark.parametrize("preset", ["mlp-small", "vector", "pathways"])
def test_the_profile_knows_every_kernel_of_a_step_and_leaves_the_device_as_it_was(preset):
    model = mc.build(preset)
    before = dict(vars(model.kernels))
    kernels = profile(model, *batch(model, 8), steps=3)
    assert vars(model.kernels) == before
    assert {"gather", "dense", "dense_backward", "bernoulli", "kl_standard", "adam"} <= {k.name for k in kernels}
    assert [k.time for k in kernels] == sorted((k.time for k in kernels), reverse=True)
    assert all(k.bytes > 0 and k.time > 0 for k in kernels)


def test_the_floor_is_the_products_and_then_one_pass_of_adam():
    machine = Machine("any", 2, product_rate=1e9, memory_rate=1e8)
    assert machine.floor(operations=2e9, parameters=10**6) == pytest.approx(2 + 0.28)
