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
    assert [row.checked for row in report.rows] == [8, 8, 8, 0]
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


class Game:
    """Two networks that descend losses of their own: w that of its fit and half of `fooling`, v `discrimination`."""

    def __init__(self, mistake=None):
        self.goals = {"player": {"loss": 1, "fooling": 0.5}, "critic": {"discrimination": 3}}
        self.parameters = {"player.w": RNG.normal(size=3), "critic.v": RNG.normal(size=3)}
        self.mistake, self.gradients = mistake, 0

    def losses(self, x, c, *, eps):
        w, v = self.parameters.values()
        return {
            "loss": float(((x * w) ** 2).sum() / 2),
            "fooling": float(np.sin(w * v + eps).sum()),
            "discrimination": float((c * np.exp(w * v)).sum()),
        }

    def loss_and_gradients(self, x, c, *, eps):
        self.gradients += 1
        w, v = self.parameters.values()
        fit, fooling, discrimination = x**2 * w, np.cos(w * v + eps), c * np.exp(w * v)
        gradients = {
            None: (fit + 0.5 * v * fooling, 3 * w * discrimination),
            "the weight of a term": (fit + v * fooling, 3 * w * discrimination),
            "the other's goal": (fit + 0.5 * v * fooling, 3 * w * discrimination + 0.5 * w * fooling),
            "all goals": (fit + 0.5 * v * fooling + 3 * v * discrimination, 3 * w * discrimination),
        }[self.mistake]
        return self.losses(x, c, eps=eps), dict(zip(self.parameters, gradients, strict=True))


GAME = dict(zip(("x", "c", "eps"), np.random.default_rng(1).normal(size=(3, 3)), strict=True))


def test_in_a_game_each_gradient_is_held_to_the_goal_of_its_own_network():
    model = Game()
    before = {name: a.copy() for name, a in model.parameters.items()}
    report = check_model(model, **GAME).raise_for_failure()
    assert [(row.name, row.checked) for row in report.rows] == [("player.w", 3), ("critic.v", 3), ("together", 0)]
    assert all(row.relative < 1e-10 for row in report.rows)
    for name, a in model.parameters.items():
        np.testing.assert_array_equal(a, before[name])


@pytest.mark.parametrize(
    ("mistake", "wrong"),
    [("the weight of a term", "player.w"), ("the other's goal", "critic.v"), ("all goals", "player.w")],
)
def test_in_a_game_a_gradient_of_another_goal_is_wrong(mistake, wrong):
    report = check_model(Game(mistake), **GAME)
    assert [row.name for row in report.rows if not row.ok] == [wrong, "together"]


def test_parameters_are_restored_where_a_game_breaks_off():
    model = Game()
    before, plain, left = {name: a.copy() for name, a in model.parameters.items()}, model.losses, [40]

    def losses(x, c, *, eps):
        left[0] -= 1
        if not left[0]:
            raise RuntimeError("out of order")
        return plain(x, c, eps=eps)

    model.losses = losses
    with pytest.raises(RuntimeError, match="out of order"):
        check_model(model, **GAME)
    for name, a in model.parameters.items():
        np.testing.assert_array_equal(a, before[name])


@pytest.mark.parametrize("goals", [{}, {"player": {"loss": 1}, "critic": {"loss": 1}}])
def test_where_all_networks_descend_the_loss_it_is_computed_once_and_no_backward_in_vain(goals):
    class Team(Game):
        def losses(self, x, c, *, eps):
            self.calls = getattr(self, "calls", 0) + 1
            return {"loss": sum(super().losses(x, c, eps=eps).values())}

        def loss_and_gradients(self, x, c, *, eps):
            self.gradients += 1
            w, v = self.parameters.values()
            slope = np.cos(w * v + eps) + c * np.exp(w * v)
            return {"loss": np.nan}, {"player.w": x**2 * w + v * slope, "critic.v": w * slope}

    model = Team()
    model.goals = goals
    report = check_model(model, **GAME, title="a team", seed=3, max_left_out=0.0).raise_for_failure()
    assert report.title == "a team"
    assert model.gradients <= 4  # as often as backward runs: as it is, again, with zero, and with another factor
    assert model.calls > 50
    assert check_model(model, **GAME).title == "Team"


def test_options_reach_the_check():
    model = Game()
    with pytest.raises(ValueError, match="max_left_out: expected a share"):
        check_model(model, **GAME, max_left_out=2.0)
    with pytest.raises(ValueError, match="max_left_out: expected a share"):
        check_layer(Scale(), RNG.normal(size=(3, 4)), max_left_out=2.0)
    with pytest.raises(ValueError, match="max_left_out: expected a share"):
        check_pair(np.sin, np.cos, RNG.normal(size=3), max_left_out=2.0)
