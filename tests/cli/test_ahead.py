"""Two processes compile what a training needs, and nothing is left to compile for its steps."""

import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import pytest
from numba.core import event

from minicvae.cli import ahead
from minicvae.models.presets import PRESETS

WHAT_IS_LEFT = """
import sys
import numpy as np
from minicvae import build
from minicvae.cli import ahead
from minicvae.conditions import draw
from minicvae.kernels import compiled, compiled_images, compiled_maps, compiled_products, pieces, zeros

MODULES = compiled, compiled_images, compiled_maps, compiled_products, pieces, zeros

def compiled_for():
    kernels = [k for module in MODULES for k in vars(module).values() if hasattr(k, "nopython_signatures")]
    return {(k.__module__, k.__name__, str(s)) for k in kernels for s in k.nopython_signatures}

preset, dtype = sys.argv[1:]
ahead._back(preset, dtype)
ahead._forward(preset, dtype)
before, model = compiled_for(), build(preset, dtype=dtype)
images = np.random.default_rng(0).integers(0, 256, (20, *model.image_shape), np.uint8)
c = draw(model.condition, 20, np.random.default_rng(0))
model.fit(images, c, epochs=1, batch_size=10, verbose=0, validation_data=(images, c))
model.generate(c)
print(*sorted(compiled_for() - before), sep="\\n", end="")
"""


@pytest.mark.parametrize(("preset", "dtype"), [("mlp", "float32"), *((name, "float64") for name in PRESETS)])
def test_what_two_processes_compile_is_all_that_a_training_needs(preset, dtype):
    ran = subprocess.run(
        [sys.executable, "-c", WHAT_IS_LEFT, preset, dtype], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr


class Process:
    """In the place of a process: what was done with it."""

    def __init__(self, command, **more):
        self.command, self.done = command, []

    def wait(self):
        self.done.append("wait")

    def kill(self):
        self.done.append("kill")


def compile_something():
    with event.trigger_event("numba:compile"):
        pass


def compile_ahead(monkeypatch, back, cores=2, path="somewhere", start=Process):
    """The processes that were started."""
    started = []

    def popen(command, **more):
        started.append(start(command, **more))
        return started[-1]

    adam = SimpleNamespace(stats=SimpleNamespace(cache_path=path))
    monkeypatch.setattr(ahead, "pieces", SimpleNamespace(adam=adam))
    monkeypatch.setattr(ahead, "cores", lambda: cores)
    monkeypatch.setattr(ahead.subprocess, "Popen", popen)
    monkeypatch.setattr(ahead, "_back", back)
    with suppress(KeyboardInterrupt):
        ahead.compile_ahead("mlp", "float64")
    compile_something()  # which is no business of a second process any more
    return started


@pytest.mark.parametrize("functions", [0, 1, 3])
def test_a_second_process_is_started_where_something_is_compiled_and_waited_for(monkeypatch, functions):
    started = compile_ahead(monkeypatch, lambda *given: [compile_something() for _ in range(functions)])
    assert [process.done for process in started] == [["wait", "kill"]] * (functions > 0)
    for process in started:
        assert process.command[1:] == ["-P", "-m", "minicvae.cli.ahead", "mlp", "float64"]


@pytest.mark.parametrize(("cores", "path"), [(1, "somewhere"), (2, None)])
def test_none_is_started_where_that_would_not_help(monkeypatch, cores, path):
    assert compile_ahead(monkeypatch, lambda *given: compile_something(), cores, path) == []


def test_where_there_can_be_no_second_process_the_first_compiles_everything(monkeypatch):
    def refuse(command, **more):
        raise OSError("there are too many")

    assert compile_ahead(monkeypatch, lambda *given: compile_something(), start=refuse) == []


def test_ctrl_c_ends_the_second_process(monkeypatch):
    def interrupted(*given):
        compile_something()
        raise KeyboardInterrupt

    (process,) = compile_ahead(monkeypatch, interrupted)
    assert process.done == ["kill"]
