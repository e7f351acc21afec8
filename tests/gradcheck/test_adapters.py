"""Pairs, layers and models: the same check behind each."""

import numpy as np
import pytest

from minicvae.gradcheck import check_layer, check_model, check_pair

RNG = np.random.default_rng(0)


def test_a_pair_of_an_elementwise_function_and_its_derivative():
    x = RNG.normal(size=(3, 4))
    assert check_pair(np.tanh, lambda x: 1 - np.tanh(x) ** 2, x).ok
    assert not check_pair(np.tanh, lambda x: 1 - np.tanh(x), x).ok


def test_a_pair_of_a_number_and_its_gradient():
    x, y = RNG.normal(size=5), RNG.normal(size=5)
    assert check_pair(np.dot, lambda x, y: (y, x), (x, y)).ok
    assert not check_pair(np.dot, lambda x, y: (x, y), (x, y)).ok


class Parameter:
    """Accumulates, as layers' parameters do."""

    def __init__(self, value):
        self.value, self.grad = value, np.zeros_like(value)

    def zero_grad(self):
        self.grad[...] = 0


class Scale:
    def __init__(self, mistake=1.0):
        self.gain, self.mistake = Parameter(RNG.normal(size=4)), mistake

    def named_parameters(self):
        yield "gain", self.gain

    def forward(self, x):
        y = np.exp(self.gain.value) * x

        def backward(dy):
            self.gain.grad += self.mistake * (dy * y).sum(axis=0)
            return dy * np.exp(self.gain.value)

        return y, backward


def test_a_layer_with_its_parameters():
    x = RNG.normal(size=(3, 4))
    report = check_layer(Scale(), x)
    assert report.ok
    assert report.title == "Scale"
    assert [row.name for row in report.rows] == ["x", "gain", "together"]
    assert [row.verdict for row in check_layer(Scale(mistake=0.5), x).rows] == ["ok", "WRONG", "WRONG"]


def test_a_layer_without_parameters():
    class Square:
        def forward(self, x):
            return x**2, lambda dy: 2 * dy * x

    assert check_layer(Square(), RNG.normal(size=5), title="squares").title == "squares"


class Network:
    """A network of two layers and a squared error, with relu between: enough to have kinks all around."""

    def __init__(self, mistake=1.0, width=400):
        self.parameters = {
            "W": RNG.normal(size=(100, width)) / 10,
            "b": np.zeros(width),
            "V": RNG.normal(size=(width, 50)) / np.sqrt(width),
        }
        self.mistake = mistake

    def loss_and_gradients(self, x, c, *, eps):
        W, b, V = self.parameters.values()
        h = np.maximum(x @ W + b, 0)
        error = h @ V + eps - c
        dh = (error @ V.T) * (h > 0)
        dW = x.T @ dh
        dW[70, 30] *= self.mistake
        return {"loss": float((error**2).sum() / 2)}, {"W": dW, "b": dh.sum(axis=0), "V": h.T @ error}


def test_a_whole_model_is_checked_to_ten_digits_by_few_evaluations():
    model = Network()
    before = {name: a.copy() for name, a in model.parameters.items()}
    report = check_model(model, RNG.normal(size=(3, 100)), RNG.normal(size=(3, 50)), eps=RNG.normal(size=(3, 50)))
    assert report.ok, report
    assert [row.name for row in report.rows] == ["W", "b", "V", "together"]
    assert all(row.relative < 1e-8 for row in report.rows)
    assert [row.checked for row in report.rows] == [12, 12, 12, 0]
    for name, a in model.parameters.items():
        np.testing.assert_array_equal(a, before[name])


@pytest.mark.parametrize("mistake", [0.0, 1.01])
def test_one_wrong_element_in_a_whole_model_is_found_by_halving(mistake):
    x = RNG.normal(size=(3, 100))
    report = check_model(Network(mistake), x, RNG.normal(size=(3, 50)), eps=RNG.normal(size=(3, 50)), elements=4)
    assert report["W"].worst == (70, 30)
    assert [row.verdict for row in report.rows] == ["WRONG", "ok", "ok", "WRONG"]


def test_a_model_in_float32_is_refused():
    model = Network()
    model.parameters = {name: a.astype(np.float32) for name, a in model.parameters.items()}
    with pytest.raises(TypeError, match="W: expected float64, got float32"):
        check_model(model, RNG.normal(size=(3, 100)), RNG.normal(size=(3, 50)), eps=0.0)
