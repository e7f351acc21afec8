"""Pairs of layers that run as one kernel: the same values, gradients, names and errors as one after the other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.gradcheck import check_layer
from minicvae.layers import Chain, Conv2D, ConvTranspose2D, Flatten, MaxPool2D, UpSample2D, trace
from minicvae.layers.fused import PooledConvolution, UpSampledConvolution, fuse

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 3)
PAIRS = {
    "pooled": lambda kernel, c: [Conv2D(*c, kernel, activation="tanh"), MaxPool2D()],
    "pooled by another window": lambda kernel, c: [Conv2D(*c, kernel, 2), MaxPool2D((1, 2))],
    "upsampled": lambda kernel, c: [UpSample2D((2, 3)), Conv2D(*c, kernel, activation="elu", padding="valid")],
    "upsampled, turned": lambda kernel, c: [UpSample2D(), ConvTranspose2D(*c, 3, activation="sigmoid")],
}
pairs = pytest.mark.parametrize("pair", list(PAIRS.values()), ids=PAIRS)


def started(layers, host, seed):
    """A chain of the layers with drawn weights and biases."""
    chain = Chain(layers)
    parameters = chain.initialise(host.name, "float64", seed)
    parameters.value[...] = np.random.default_rng(seed).standard_normal(parameters.value.shape)
    return chain, parameters


@pairs
@given(kernel=sizes, c=st.tuples(st.integers(1, 6), st.integers(1, 6)), n=sizes, seed=seeds)
def test_a_pair_gives_what_one_layer_after_the_other_gives(host, pair, kernel, c, n, seed):
    chain, parameters = started(pair(kernel, c), host, seed)
    assert [type(layer) for layer in fuse(chain.layers)] != [type(layer) for layer in chain.layers]
    x = np.random.default_rng(seed).standard_normal((n, 8, 7, c[0]))
    y, backward = chain.forward(x)
    dy = np.random.default_rng(seed + 1).standard_normal(y.shape)
    together = [y, backward(dy), parameters.grad.copy()]
    for _, parameter in chain.named_parameters():
        parameter.zero_grad()
    with trace(("chain", chain)) as record:  # which makes every layer run alone
        y, backward = chain.forward(x)
    assert [run.name for run in record] == ["chain.0", "chain.1", "chain"]
    for a, b in zip(together, [y, backward(dy), parameters.grad], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pairs
def test_a_chain_runs_a_pair_as_one(host, pair, monkeypatch):
    chain, _ = started(pair(3, (4, 4)), host, 0)
    ran = []
    for kind in (PooledConvolution, UpSampledConvolution):
        monkeypatch.setattr(kind, "forward", lambda *arguments, own=kind.forward: (ran.append(1), own(*arguments))[1])
    chain.forward(np.zeros((1, 6, 6, 4)))
    assert len(ran) == 1


@pairs
def test_the_gradients_of_a_pair_are_the_slopes(host, pair):
    chain, parameters = started(pair(3, (4, 4)), host, 0)
    report = check_layer(chain, np.random.default_rng(0).standard_normal((2, 5, 6, 4)) / 4).raise_for_failure()
    assert sum(row.checked + row.kinks for row in report.rows if row.name != "together") == 240 + parameters.size


@pairs
def test_two_backwards_of_a_pair_add_up(host, pair):
    chain, parameters = started(pair(3, (4, 5)), host, 1)
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 4))
    y, backward = chain.forward(x)
    backward(np.ones_like(y))
    once = parameters.grad.copy()
    y, backward = chain.forward(x)
    backward(np.ones_like(y))
    np.testing.assert_allclose(parameters.grad, 2 * once, rtol=1e-12, atol=1e-12)
    with pytest.raises(RuntimeError, match="backward was called twice"):
        backward(np.ones_like(y))


@pairs
def test_where_nobody_needs_dx_there_is_none(host, pair):
    chain, parameters = started(pair(3, (4, 5)), host, 1)
    y, backward = chain.forward(np.ones((2, 6, 6, 4)))
    assert backward(np.ones_like(y), need_dx=False) is None
    assert parameters.grad.any()


def test_the_pair_keeps_its_parameters_and_their_names():
    chain = Chain([UpSample2D(), ConvTranspose2D(2, 3), Conv2D(3, 4), MaxPool2D(), Flatten()])
    assert [name for name, _ in chain.named_parameters()] == ["1.W", "1.b", "2.W", "2.b"]
    assert [type(layer) for layer in fuse(chain.layers)] == [UpSampledConvolution, PooledConvolution, Flatten]
    assert [name for name, _ in chain.named_layers()] == ["", "0", "1", "2", "3", "4"]


class Louder(Conv2D):
    """A layer of somebody else's, which may do what it likes."""


@pytest.mark.parametrize(
    "layers",
    [
        [UpSample2D(), Conv2D(1, 1, 3, 2)],
        [UpSample2D(), ConvTranspose2D(1, 1, 2)],
        [UpSample2D(), ConvTranspose2D(1, 1, 3, 1, "valid")],
        [UpSample2D(), Flatten(), Conv2D(1, 1)],
        [UpSample2D(), Louder(1, 1)],
        [Louder(1, 1), MaxPool2D()],
        [Conv2D(1, 1), MaxPool2D(2, 1)],
        [ConvTranspose2D(1, 1), MaxPool2D()],
        [MaxPool2D(), Conv2D(1, 1)],
    ],
)
def test_what_has_no_kernel_of_its_own_stays_apart(layers):
    assert fuse(layers) == layers


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        ([Conv2D(2, 3), MaxPool2D((3, 3))], (1, 4, 2, 2), r"as large as the pool \(3, 3\), got shape \(1, 4, 2, 3\)"),
        ([Conv2D(2, 3, 3, 2), MaxPool2D()], (1, 4, 2, 2), r"as large as the pool \(2, 2\), got shape \(1, 2, 1, 3\)"),
        ([Conv2D(2, 3, 3), MaxPool2D()], (1, 4, 4, 3), r"of shape \(n, h, w, 2\), got shape \(1, 4, 4, 3\)"),
        ([UpSample2D(), Conv2D(2, 3)], (1, 4, 4), r"of shape \(n, h, w, c\), got shape \(1, 4, 4\)"),
        ([UpSample2D(), Conv2D(2, 3)], (1, 4, 5, 3), r"of shape \(n, h, w, 2\), got shape \(1, 8, 10, 3\)"),
        (
            [UpSample2D((1, 2)), Conv2D(2, 3, 5, padding="valid")],
            (1, 4, 5, 2),
            r"as large as the kernel \(5, 5\), got shape \(1, 4, 10, 2\)",
        ),
    ],
)
def test_a_pair_refuses_what_its_layers_refuse(host, layers, shape, message):
    chain, _ = started(layers, host, 0)
    with pytest.raises(ValueError, match=rf"^x: expected images .*{message}"):
        chain.forward(np.zeros(shape))
    with trace(("chain", chain)), pytest.raises(ValueError, match=rf"^x: expected images .*{message}"):
        chain.forward(np.zeros(shape))
