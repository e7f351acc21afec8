"""Inputs that go ways of their own before they meet."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.gradcheck import check_layer
from minicvae.kernels import OneHot
from minicvae.layers import Chain, Dense, Embedding, Pathways

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 4)


@given(n=st.integers(1, 5), d=sizes, vector=sizes, classes=sizes, dim=sizes, width=sizes, d_out=sizes, seed=seeds)
def test_all_gradients_of_all_ways_are_the_slopes(host, n, d, vector, classes, dim, width, d_out, seed):
    """An input as it is, one through a layer, labels through an embedding and a layer, labels as they are."""
    rng = np.random.default_rng(seed)
    ways = [None, Dense(vector, width, "tanh"), Chain([Embedding(classes, dim), Dense(dim, width, "elu")]), None]
    layer = Pathways(ways, Dense(d + 2 * width + classes, d_out, "sigmoid"))
    layer.initialise(host.name, "float64", seed)
    labels = [OneHot(rng.integers(0, classes, n), classes) for _ in range(2)]
    check_layer(layer, rng.standard_normal((n, d)), rng.standard_normal((n, vector)), *labels).raise_for_failure()


def test_it_is_the_trunk_of_what_the_ways_give(host):
    rng = np.random.default_rng(0)
    way, trunk = Dense(3, 2, "relu"), Dense(4, 5)
    Pathways([None, way], trunk).initialise(host.name, "float64")
    x, c = rng.standard_normal((4, 2)), rng.standard_normal((4, 3))
    y, _ = Pathways([None, way], trunk).forward(x, c)
    np.testing.assert_array_equal(y, trunk.forward(x, way.forward(c)[0])[0])


@pytest.mark.parametrize("need", [True, False, [True, False], [False, True]])
def test_a_way_with_weights_gets_its_gradient_though_nobody_reads_that_of_its_input(host, need):
    layer = Pathways([None, Dense(3, 2)], Chain([Dense(4, 5), Dense(5, 1)]))
    parameters = layer.initialise(host.name, "float64")
    y, backward = layer.forward(np.ones((4, 2)), np.ones((4, 3)))
    dx, dc = backward(np.ones_like(y), need_dx=need)
    wanted = [need, need] if isinstance(need, bool) else need
    assert [dc is not None] == wanted[1:]
    assert dx is not None or not wanted[0]
    assert parameters.grads["paths.1.W"].all()
    assert parameters.grads["paths.1.b"].all()


def test_a_single_way_gives_a_single_gradient(host):
    layer = Pathways([Dense(3, 2)], Dense(2, 1))
    layer.initialise(host.name, "float64")
    y, backward = layer.forward(np.ones((4, 3)))
    assert backward(np.ones_like(y)).shape == (4, 3)


def test_the_number_of_inputs_has_to_be_that_of_the_ways(host):
    layer = Pathways([None, None], Dense(4, 1))
    layer.initialise(host.name)
    with pytest.raises(ValueError, match="argument"):
        layer.forward(np.ones((2, 4)))


def test_layers_are_named_by_their_place():
    layer = Pathways([None, Embedding(3, 2)], Dense(4, 1))
    assert [name for name, _ in layer.named_parameters("encoder")] == [
        "encoder.paths.1.E",
        "encoder.trunk.W",
        "encoder.trunk.b",
    ]
