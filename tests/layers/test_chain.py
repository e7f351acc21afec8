"""Layers one after the other: the chain rule."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.gradcheck import check_layer
from minicvae.kernels import OneHot
from minicvae.layers import Chain, Dense, Flatten, JoinPlanes, Layer, Reshape

seeds = st.integers(0, 2**32 - 1)
widths = st.lists(st.integers(1, 5), min_size=2, max_size=4)


@given(widths=widths, n=st.integers(1, 5), classes=st.integers(1, 4), seed=seeds)
def test_all_gradients_of_a_chain_are_the_slopes(host, widths, n, classes, seed):
    rng = np.random.default_rng(seed)
    first, *others = itertools.pairwise(widths)
    layers = [Dense(first[0] + classes, first[1], "tanh"), *(Dense(a, b, "elu") for a, b in others)]
    chain = Chain([*layers, Reshape((1, -1)), Flatten()])
    chain.initialise(host.name, "float64", seed)
    c = OneHot(rng.integers(0, classes, n), classes)
    check_layer(chain, rng.standard_normal((n, first[0])), c).raise_for_failure()


@given(widths=widths, seed=seeds)
def test_a_chain_of_linear_layers_is_the_product_of_their_matrices(host, widths, seed):
    chain = Chain([Dense(a, b) for a, b in itertools.pairwise(widths)])
    parameters = chain.initialise(host.name, "float64", seed)
    x = np.random.default_rng(seed).standard_normal((3, widths[0]))
    weights = [parameters[f"{i}.W"] for i in range(len(widths) - 1)]
    product = np.linalg.multi_dot([x, *weights])
    y, backward = chain.forward(x)
    np.testing.assert_allclose(y, product, rtol=1e-12, atol=1e-13)
    dx = backward(np.ones_like(y))
    np.testing.assert_allclose(dx, np.linalg.multi_dot([np.ones_like(y), *(W.T for W in weights[::-1])]), rtol=1e-11)


def test_the_first_layer_takes_all_inputs_and_only_its_gradients_may_be_left_out(host):
    chain = Chain([Dense(5, 3, "tanh"), Dense(3, 2)])
    parameters = chain.initialise(host.name, "float64")
    x, z = np.ones((4, 3)), np.ones((4, 2))
    y, backward = chain.forward(x, z)
    dx, dz = backward(np.ones_like(y), need_dx=[False, True])
    assert dx is None
    assert dz.shape == z.shape
    assert all(g.any() for g in parameters.grads.values())


@pytest.mark.parametrize("first", [[], [Flatten()], [Flatten(), Reshape((2, 3)), Flatten()]])
@pytest.mark.parametrize("need_dx", [True, False])
def test_where_nobody_wants_dx_no_layer_before_the_first_weights_runs_backward(host, monkeypatch, first, need_dx):
    asked = []
    plain = host.dense_backward

    def spy(*args):
        asked.append(list(args[-1]))
        return plain(*args)

    monkeypatch.setattr(host, "dense_backward", spy)
    chain = Chain([*first, Dense(6, 2, "tanh"), Dense(2, 2)])
    parameters = chain.initialise(host.name, "float64")
    x = np.random.default_rng(0).standard_normal((4, 6))
    y, backward = chain.forward(x)
    dx = backward(np.ones_like(y), need_dx=need_dx)
    assert asked == [[True], [need_dx]]
    assert (dx is not None) == need_dx
    assert all(g.any() for g in parameters.grads.values())


@given(
    parts=st.integers(0, 2), shapes=st.lists(st.sampled_from([(4, -1), (2, 2, -1)]), max_size=3), dense=st.booleans()
)
def test_where_nobody_wants_dx_there_is_one_none_for_each_input(host, parts, shapes, dense):
    bare = [*([JoinPlanes()] if parts else []), Flatten(), *map(Reshape, shapes)]
    chain = Chain([*bare, *([Flatten(), Dense(4 + 4 * parts, 2)] if dense else [])])
    parameters = chain.initialise(host.name, "float64")
    y, backward = chain.forward(np.ones((3, 2, 2, 1)), *[np.ones((3, 1))] * parts)
    dx = backward(np.ones_like(y), need_dx=False)
    if len(chain.layers) > 1:
        assert dx == ((None,) * (1 + parts) if parts else None)
    assert all(g.any() for g in parameters.grads.values())


def test_layers_are_named_by_their_number():
    chain = Chain([Dense(2, 3), Chain([Dense(3, 3), Flatten()])])
    assert [name for name, _ in chain.named_parameters("net")] == ["net.0.W", "net.0.b", "net.1.0.W", "net.1.0.b"]
    assert [name for name, _ in chain.named_layers()] == ["", "0", "1", "1.0", "1.1"]


def test_a_chain_of_no_layers_is_refused():
    with pytest.raises(ValueError, match=r"^layers: expected at least one layer, got none"):
        Chain([])


def test_a_chain_is_a_layer():
    assert isinstance(Chain([Flatten()]), Layer)


@pytest.mark.parametrize("other", ["relu", np.tanh, None])
def test_what_is_no_layer_is_refused(other):
    with pytest.raises(TypeError, match=r"^layers: expected layers, got .*; a Dense layer names its own activation"):
        Chain([Dense(2, 2), other])
