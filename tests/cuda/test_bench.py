"""The benchmark on the device cuda, as far as it runs without a GPU: every task, the machine, the modes."""

import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from minicvae import conditions
from minicvae.bench import machine, own, profile, race
from minicvae.kernels import load
from minicvae.kernels.cuda import GRAPHS
from minicvae.model import build


@pytest.fixture(autouse=True)
def gpu(compiled, monkeypatch):
    """The CUDA kernels, run by the host."""
    for place in ("minicvae.models.base", "minicvae.kernels"):
        monkeypatch.setattr(f"{place}.load", lambda device: compiled if device == "cuda" else load(device))
    return compiled


def test_the_machine_is_the_gpu(monkeypatch):
    monkeypatch.setitem(machine.SIDE, "cuda", 64)
    monkeypatch.setitem(machine.NUMBERS, "cuda", 100)
    found = machine.measure("cuda")
    assert str(found) == "1 multiprocessors of a GPU's stand-in (CUDA 12.9, driver for CUDA 13.0, CuPy 0)"
    assert found.product_rate > 0
    assert found.memory_rate > 0


@pytest.mark.parametrize("graphs", [False, True])
def test_minicvae_does_every_task_on_cuda(gpu, monkeypatch, graphs):
    monkeypatch.setattr(own, "TRAIN", 6)
    monkeypatch.setattr(own, "TEST", 5)
    monkeypatch.setattr(gpu, "graphs", graphs)
    for work in own.tasks("mlp-small", 2, "cuda").values():
        assert work(1) > 0


def test_the_profile_has_the_kernels_of_a_step(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "graphs", True)  # what is recorded would not be called again
    model, rng = build("mlp-small", device="cuda"), np.random.default_rng(0)
    x, c = rng.integers(0, 256, (2, 28, 28), np.uint8), conditions.draw(model.condition, 2, rng)
    found = {k.name: k.calls for k in profile.profile(model, x, c, steps=4)}
    assert found["adam"] == found["bernoulli"] == found["elbo"] == found["gather"] == 1
    assert set(found) <= set(dir(gpu))


def test_on_cuda_it_races_with_graphs_and_without_against_all_modes_of_torch():
    names = [c.name for c in (*race.own("conv", 128, "cuda"), *race.peers("torch", "conv", 128, "cuda"))]
    assert names[:2] == ["minicvae", "minicvae no graph"]
    assert names[2:] == [f"torch {mode}" for mode in ("eager", "fused", "compile", "channels_last", "graph")]
    graph, plain = race.own("mlp", 128, "cuda")
    assert plain.command == graph.command
    assert (graph.environment, plain.environment) == ({GRAPHS: "1"}, {GRAPHS: "0"})


def test_a_contestant_has_its_environment(monkeypatch):
    from minicvae.bench.race import Contestant

    monkeypatch.setenv("OTHER", "kept")
    program = "import os; print('ready', flush=True); input(); print(len(os.environ['ONE'] + os.environ['OTHER']))"
    contestant = Contestant("any", [sys.executable, "-c", program], {"ONE": "two"})
    contestant.start()
    try:
        assert contestant.failure == ""
        assert contestant.work("any", 1) == 7
    finally:
        contestant.stop()


def test_products_race_those_of_the_library(gpu, monkeypatch, capsys):
    spec = util.spec_from_file_location("race_products", Path(__file__).parent / "race_products.py")
    race_products = util.module_from_spec(spec)
    spec.loader.exec_module(race_products)
    small = {"SIDE": 4, "REPEATS": 2, "ROUNDS": 1, "SHAPES": {"one": (3, 5, 2), "two": (70, 9, 1)}}
    for name, value in (small | {"load": lambda device: gpu}).items():
        monkeypatch.setattr(race_products, name, value)
    assert race_products.main() == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["(m,", "one", "two"]


def test_how_far_the_devices_agree_is_measured(gpu, monkeypatch, capsys):
    spec = util.spec_from_file_location("agreement", Path(__file__).parent / "agreement.py")
    agreement = util.module_from_spec(spec)
    spec.loader.exec_module(agreement)
    for name, value in {"STEPS": 3, "BATCH": 2, "load": lambda device: gpu}.items():
        monkeypatch.setattr(agreement, name, value)
    monkeypatch.setattr("sys.argv", ["agreement.py", "mlp-small"])
    monkeypatch.setattr(gpu, "graphs", False)
    assert agreement.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[1].split("with")[0].split()[0] for line in lines] == ["cuda", "cuda"]
    monkeypatch.setattr(agreement, "ALLOWED", 0.0)
    assert agreement.main() == 1
