"""Contestants: processes that answer how long their work took, and the turns that they take."""

import subprocess
import sys
import textwrap

import pytest

from minicvae.bench import race as module
from minicvae.bench.race import Contestant, own, peers, race


def script(text):
    return [sys.executable, "-c", textwrap.dedent(text)]


SLEEPER = """
    import sys, time
    from minicvae.bench.protocol import serve

    def sleep(n, each=float(sys.argv[1])):
        begin = time.perf_counter()
        time.sleep(n * each)
        return time.perf_counter() - begin

    serve({"step": sleep})
"""


@pytest.fixture
def started(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    running = []

    def start(contestant):
        running.append(contestant)
        contestant.start()
        return contestant

    yield start
    for contestant in running:
        contestant.stop()


def test_the_ratio_of_two_contestants_is_that_of_their_work(started):
    quick = started(Contestant("quick", [*script(SLEEPER), "0.004"]))
    slow = started(Contestant("slow", [*script(SLEEPER), "0.012"]))
    race([quick, slow], "step", rounds=3, turn=0.05)
    assert len(quick.seconds["step"]) == len(slow.seconds["step"]) == 3
    ratios = [b / a for a, b in zip(quick.seconds["step"], slow.seconds["step"], strict=True)]
    assert sorted(ratios)[1] == pytest.approx(3, rel=0.5)  # sleeps of a busy machine are not exact


def test_who_cannot_start_is_left_out_with_the_reason(started):
    broken = started(Contestant("broken", script("import nothing_of_that_name")))
    silent = started(Contestant("silent", script("")))
    fine = started(Contestant("fine", [*script(SLEEPER), "0.001"]))
    assert "nothing_of_that_name" in broken.failure
    assert silent.failure == "it ended without a word"
    race([broken, silent, fine], "step", rounds=1, turn=0.01)
    assert (list(broken.seconds), list(silent.seconds), list(fine.seconds)) == ([], [], ["step"])


def test_minicvae_itself_does_every_task_in_some_time(started):
    contestant = started(*own("mlp-small", 100, "cpu"))
    assert contestant.failure == ""
    for task in ("step", "evaluate", "generate"):
        assert contestant.work(task, 1) > 0


@pytest.mark.parametrize(("preset", "mode"), [("mlp-small", "eager"), ("conv", "fused")])
def test_torch_trains_evaluates_and_generates(started, preset, mode):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    contestant = next(c for c in peers("torch", preset, 4, "cpu") if c.name == f"torch {mode}")
    started(contestant)
    assert contestant.failure == ""
    assert contestant.work("step", 2) > 0


def test_torch_has_as_many_parameters_as_the_preset():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    count = """
        from minicvae.bench import torch_peer as t
        for name in (*t.DENSE, "conv"):
            model = t.Convolutional() if name == "conv" else t.Dense(*t.DENSE[name])
            print(name, sum(p.numel() for p in model.parameters()))
    """
    import minicvae as mc

    assert torch.__version__
    lines = subprocess.run(script(count), capture_output=True, text=True, check=True).stdout.splitlines()
    for line in lines:
        name, size = line.split()
        assert int(size) == mc.build(name, device="numpy").parameters.size
    assert len(lines) == 5


def test_no_peer_is_offered_for_a_model_that_it_does_not_know():
    assert peers("jax", "conv", 64, "cpu") == peers("torch", "vector", 64, "cpu") == []
    assert [c.name for c in peers("torch", "conv", 64, "cpu")][-1] == "torch channels_last"
    assert [c.name for c in peers("jax", "mlp", 64, "cpu")] == ["jax jit"]
