"""What the tests of the commands share: a small dataset, runs trained on it, and a way to run a command."""

import numpy as np
import pytest

from minicvae.cli import main
from minicvae.cli import train as train_module
from minicvae.runs import Run


@pytest.fixture(scope="session")
def digits():
    """digits(n, seed): n images of three classes: a bar at the left, in the middle or at the right, with some noise."""

    def draw(n, seed):
        rng = np.random.default_rng(seed)
        y = np.arange(n) % 3
        x = rng.integers(0, 60, (n, 8, 8), np.uint8)
        for image, label in zip(x, y, strict=True):
            image[rng.integers(0, 3) :, 2 * label + 1 : 2 * label + 3] = 220
        return x, y

    return draw


@pytest.fixture(scope="session")
def bars(digits, tmp_path_factory):
    """An .npz file of 60 training and 30 test images."""
    file = tmp_path_factory.mktemp("data") / "bars.npz"
    (x, y), (x_test, y_test) = digits(60, 0), digits(30, 1)
    np.savez(file, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return str(file)


@pytest.fixture(scope="session")
def quick():
    """The options of a training that takes no time."""
    return "--device", "numpy", "--epochs", "2", "--batch-size", "20"


def trained(folder, *words):
    """A run made by the command itself, pictures and all."""
    assert main(["train", *words, "--quiet", "--out", str(folder)]) == 0
    return Run.open(folder)


@pytest.fixture(scope="session")
def of_classes(bars, quick, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "classes"
    return trained(folder, "mlp-small", "--data", bars, "--validation", "held-out", *quick)


@pytest.fixture(scope="session")
def of_attributes(bars, quick, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "attributes", "vector", "--data", bars, *quick)


@pytest.fixture
def without_pictures(monkeypatch):
    """A training draws nothing."""
    monkeypatch.setattr(train_module, "draw", lambda record, model, data: [])


@pytest.fixture
def run_to_here(capsys):
    """run_to_here(*words): the output of a command that succeeds."""

    def run(*words):
        capsys.readouterr()
        assert main([*map(str, words)]) == 0
        return capsys.readouterr().out

    return run
