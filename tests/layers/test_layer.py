"""What all layers have in common: backward once, sums over several runs, no stale gradients, names, and the trace."""

from dataclasses import dataclass

import numpy as np
import pytest

from minicvae.kernels import OneHot, load
from minicvae.layers import (
    AvgPool2D,
    Chain,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Embedding,
    Flatten,
    FlattenPlanes,
    JoinPlanes,
    Layer,
    MaxPool2D,
    Pathways,
    Reshape,
    UpSample2D,
    trace,
)
from minicvae.layers.layer import once
from minicvae.parameters import Parameter


def images(rng, n):
    return (rng.standard_normal((n, 3, 4, 2)),)


CASES = {
    "Dense": (Dense(3, 2, "tanh"), lambda rng, n: (rng.standard_normal((n, 3)),)),
    "Dense of labels": (Dense(3, 2), lambda rng, n: (OneHot(rng.integers(0, 3, n), 3),)),
    "Embedding": (Embedding(3, 2), lambda rng, n: (OneHot(rng.integers(0, 3, n), 3),)),
    "Chain": (Chain([Dense(3, 4, "elu"), Dense(4, 2)]), lambda rng, n: (rng.standard_normal((n, 3)),)),
    "Pathways": (
        Pathways([None, Embedding(3, 2)], Dense(3, 2, "sigmoid")),
        lambda rng, n: (rng.standard_normal((n, 1)), OneHot(rng.integers(0, 3, n), 3)),
    ),
    "Conv2D": (Conv2D(2, 3, 2, activation="tanh"), images),
    "ConvTranspose2D": (ConvTranspose2D(2, 3, 2, 2, activation="elu"), images),
    "MaxPool2D": (MaxPool2D(), images),
    "AvgPool2D": (AvgPool2D((2, 3), 1), images),
    "UpSample2D": (UpSample2D((1, 2)), images),
    "FlattenPlanes": (FlattenPlanes(), images),
    "JoinPlanes": (JoinPlanes(), lambda rng, n: (*images(rng, n), rng.standard_normal((n, 2)))),
    "Flatten": (Flatten(), lambda rng, n: (rng.standard_normal((n, 2, 1)),)),
    "Reshape": (Reshape((1, 2)), lambda rng, n: (rng.standard_normal((n, 2)),)),
}
WITH_WEIGHTS = [name for name, (layer, _) in CASES.items() if any(layer.named_parameters())]


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def run(layer, inputs, dy=None, seed=0):
    y, backward = layer.forward(*inputs)
    dy = np.random.default_rng(seed).standard_normal(y.shape) if dy is None else dy
    return backward(dy)


def flat(gradients):
    return gradients if isinstance(gradients, tuple) else (gradients,)


def test_every_layer_is_among_these_cases():
    from minicvae import layers

    kinds = {kind for kind in vars(layers).values() if isinstance(kind, type) and issubclass(kind, Layer)} - {Layer}
    assert kinds == {type(layer) for layer, _ in CASES.values()}


def test_a_second_backward_is_refused(host, case):
    layer, draw = case
    layer.initialise(host.name, "float64")
    y, backward = layer.forward(*draw(np.random.default_rng(0), 3))
    backward(np.ones_like(y))
    with pytest.raises(RuntimeError, match="backward was called twice"):
        backward(np.ones_like(y))


def test_a_backward_of_zero_is_zero(host, case):
    layer, draw = case
    parameters = layer.initialise(host.name, "float64")
    inputs = draw(np.random.default_rng(0), 3)
    y, backward = layer.forward(*inputs)
    dx = backward(np.zeros_like(y))
    assert not parameters.grad.any()
    assert not any(np.any(d) for d in flat(dx) if d is not None)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_two_runs_of_one_layer_in_a_step_add_their_gradients(host, name):
    layer, draw = CASES[name]
    parameters = layer.initialise(host.name, "float64")
    rng = np.random.default_rng(0)
    first, second = draw(rng, 3), draw(rng, 5)
    apart = []
    for inputs, seed in ((first, 1), (second, 2)):
        parameters.zero_grad()
        run(layer, inputs, seed=seed)
        apart.append(parameters.grad.copy())
    parameters.zero_grad()
    (y1, backward1), (y2, backward2) = layer.forward(*first), layer.forward(*second)
    backward2(np.random.default_rng(2).standard_normal(y2.shape))
    backward1(np.random.default_rng(1).standard_normal(y1.shape))
    np.testing.assert_allclose(parameters.grad, apart[0] + apart[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_a_new_step_forgets_the_gradients_of_the_last(host, name):
    layer, draw = CASES[name]
    parameters = layer.initialise(host.name, "float64")
    rng = np.random.default_rng(0)
    inputs = draw(rng, 3)
    run(layer, inputs)
    expected = parameters.grad.copy()
    run(layer, draw(rng, 4))
    parameters.zero_grad()
    run(layer, inputs)
    np.testing.assert_array_equal(parameters.grad, expected)
    parameters.zero_grad()
    assert not parameters.grad.any()


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_a_layer_gives_the_same_on_every_device(device, name):
    layer, draw = CASES[name]
    inputs = draw(np.random.default_rng(0), 4)
    found = []
    for name_of_device in ("numpy", device):
        kernels = load(name_of_device)
        parameters = layer.initialise(name_of_device, "float64", seed=1)
        moved = [
            OneHot(kernels.array(x.labels), x.classes) if isinstance(x, OneHot) else kernels.array(x) for x in inputs
        ]
        y, backward = layer.forward(*moved)
        dx = backward(kernels.array(np.random.default_rng(2).standard_normal(y.shape)))
        found.append([kernels.to_numpy(a) for a in (y, parameters.grad, *flat(dx)) if a is not None])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)


def test_inputs_and_upstream_gradients_are_left_as_they_were(host, case):
    layer, draw = case
    layer.initialise(host.name, "float64")
    inputs = draw(np.random.default_rng(0), 3)
    arrays = [x.labels if isinstance(x, OneHot) else x for x in inputs]
    before = [a.copy() for a in arrays]
    y, backward = layer.forward(*inputs)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    held_y, held_dy = y.copy(), dy.copy()
    backward(dy)
    for a, b in zip([*arrays, y, dy], [*before, held_y, held_dy], strict=True):
        np.testing.assert_array_equal(a, b)


def test_once_keeps_a_functions_name_and_passes_its_arguments():
    @once
    def backward(dy, need_dx=True):
        """What it says."""
        return dy, need_dx

    assert (backward.__name__, backward.__doc__) == ("backward", "What it says.")
    assert backward(1, need_dx=False) == (1, False)


def test_a_backward_that_failed_has_been_called():
    backward = once(lambda dy: 1 / dy)
    with pytest.raises(ZeroDivisionError):
        backward(0)
    with pytest.raises(RuntimeError, match="called twice"):
        backward(1)


def test_the_base_has_no_forward():
    with pytest.raises(NotImplementedError, match="Layer has no forward"):
        Layer().forward(1)


@dataclass(eq=False)
class Gated(Layer):
    """A layer of a user's own: y = gate ⊙ inner(x)."""

    inner: Layer
    more: list

    def __post_init__(self):
        self.gate = Parameter((2,), "standard_normal")

    def forward(self, x):
        h, inner_backward = self.inner.forward(x)

        @once
        def backward(dy, need_dx=True):
            sink, accumulate = self.gate.gradient_sink()
            sink[...] = (dy * h).sum(axis=0) + (sink if accumulate else 0)
            return inner_backward(dy * self.gate.value, need_dx=need_dx)

        return h * self.gate.value, backward


def test_a_layer_of_ones_own_has_its_children_and_parameters_found(host):
    from minicvae.gradcheck import check_layer

    layer = Gated(Dense(3, 2, "tanh"), [Flatten(), 7, None])
    layer.initialise(host.name, "float64")
    assert [name for name, _ in layer.named_layers("mine")] == ["mine", "mine.inner", "mine.more.0"]
    assert [name for name, _ in layer.named_parameters()] == ["gate", "inner.W", "inner.b"]
    check_layer(layer, np.random.default_rng(0).standard_normal((4, 3))).raise_for_failure()


def test_a_trace_records_every_layer_in_the_order_in_which_they_finish(host):
    first, second = Chain([Dense(3, 4, "relu"), Dense(4, 2)]), Dense(2, 1)
    for layer in (first, second):
        layer.initialise(host.name, "float64")
    x = np.ones((5, 3))
    with trace(("a", first), ("b", second)) as record:
        y, backward = second.forward(first.forward(x)[0])
    assert [entry.name for entry in record] == ["a.0", "a.1", "a", "b"]
    assert record[0].inputs[0] is x
    assert record[-1].output is y
    assert record[0].layer is first.layers[0]
    backward(np.ones_like(y))


def test_after_a_trace_nothing_is_recorded_any_more():
    layer, x = Dense(2, 2), np.ones((1, 2), np.float32)
    layer.initialise("numpy")
    with trace(("net", layer)) as record:
        layer.forward(x)
    layer.forward(x)
    assert len(record) == 1
    assert "forward" not in vars(layer)


def test_a_trace_that_breaks_off_is_over():
    layer = Dense(2, 2)
    layer.initialise("numpy")
    with pytest.raises(ValueError, match="columns"), trace(("net", layer)):
        layer.forward(np.ones((1, 3), np.float32))
    assert "forward" not in vars(layer)
