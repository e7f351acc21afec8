"""Two processes compile what a training needs, and nothing is left to compile for its steps."""

import os
import runpy
import subprocess
import sys
import warnings
from contextlib import suppress
from functools import partial
from itertools import chain, repeat
from types import SimpleNamespace

import pytest
from numba import config
from numba.core import event
from numba.core.dispatcher import Dispatcher

from minicvae.cli import ahead
from minicvae.models.presets import PRESETS

WHAT_IS_LEFT = """
import sys
import numpy as np
from minicvae import build
from minicvae.cli import ahead
from minicvae.conditions import draw
from numba.core.dispatcher import Dispatcher

def compiled_for():
    modules = [module for name, module in sys.modules.items() if name.startswith("minicvae.kernels")]
    kernels = [k for module in modules for k in vars(module).values() if isinstance(k, Dispatcher)]
    return {(k.__module__, k.__name__, str(s)) for k in kernels for s in k.nopython_signatures}

preset, dtype = sys.argv[1:]
ahead.compile_ahead(preset, dtype, "adam")
before, model = compiled_for(), build(preset, dtype=dtype)
images = np.random.default_rng(0).integers(0, 256, (20, *model.image_shape), np.uint8)
c = draw(model.condition, 20, np.random.default_rng(0))
model.fit(images, c, epochs=1, batch_size=10, verbose=0, validation_data=(images, c))
model.generate(c)
print(*sorted(compiled_for() - before), sep="\\n", end="")
"""


@pytest.mark.parametrize(("preset", "dtype"), [("mlp", "float32"), *((name, "float64") for name in PRESETS)])
def test_what_is_compiled_ahead_is_all_that_a_training_needs(preset, dtype):
    ran = subprocess.run(
        [sys.executable, "-c", WHAT_IS_LEFT, preset, dtype], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr


def test_to_know_what_is_wanted_nothing_is_compiled_or_left_behind():
    kernels = ahead.load("cpu")
    with event.install_listener("numba:compile", Compiles()) as compiles:
        first, again = ahead._wanted("mlp", "float64", "adam"), ahead._wanted("mlp", "float64", "sgd")
    assert (compiles.count, kernels.recording.notes) == (0, None)
    names, others = ({kernel.__name__ for kernel, _ in wanted} for wanted in (first, again))
    assert {"run", "helping", "dense", "dense_backward", "sigmoid"} <= names & others
    assert (names - others, others - names) == ({"adam"}, {"sgd"})


def test_an_error_on_the_way_leaves_the_kernels_as_they_were():
    with pytest.raises(ValueError, match="preset"):
        ahead._wanted("no such preset", "float32", "adam")
    assert ahead.load("cpu").recording.notes is None


class Compiles(event.Listener):
    """How often something is compiled."""

    count = 0

    def on_start(self, event):
        self.count += 1

    def on_end(self, event):
        pass


class Process:
    """In the place of a process: what was done with it."""

    def __init__(self, command, **more):
        self.command, self.done = command, []

    def kill(self):
        self.done.append("kill")

    def wait(self):
        self.done.append("wait")


class Kernel:
    """In the place of a kernel: what it was compiled for. functions: how many functions Numba compiles for that."""

    def __init__(self, functions, path="somewhere", error=None):
        self.functions, self.error, self.done = functions, error, []
        self.stats = SimpleNamespace(cache_path=path)

    def compile(self, signature):
        for _ in range(self.functions):
            compile_something()
        if self.error:
            raise self.error
        self.done.append(signature)


def compile_something():
    with event.trigger_event("numba:compile"):
        pass


def compile_ahead(monkeypatch, *kernels, cores=2, start=Process):
    """The processes that were started."""
    started = []

    def popen(command, **more):
        started.append(start(command, **more))
        return started[-1]

    monkeypatch.setattr(ahead, "_wanted", lambda *given: {(k, given): None for k in kernels})
    monkeypatch.setattr(ahead, "cores", lambda: cores)
    monkeypatch.setattr(ahead.subprocess, "Popen", popen)
    with suppress(KeyboardInterrupt):
        ahead.compile_ahead("mlp", "float64", "sgd")
        assert [k.done for k in kernels] == [[("mlp", "float64", "sgd")]] * len(kernels)
    compile_something()  # which is no business of a second process any more
    return started


@pytest.mark.parametrize("functions", [0, 1, 3])
def test_a_second_process_helps_where_something_is_compiled(monkeypatch, functions):
    started = compile_ahead(monkeypatch, Kernel(0), Kernel(functions), Kernel(1))
    assert [process.done for process in started] == [["kill", "wait"]]
    assert started[0].command[1:] == ["-P", "-m", "minicvae.cli.ahead", "mlp", "float64", "sgd"]


def test_none_is_started_where_all_is_compiled(monkeypatch):
    assert compile_ahead(monkeypatch, Kernel(0), Kernel(0)) == []


@pytest.mark.parametrize(("cores", "path"), [(1, "somewhere"), (2, None)])
def test_none_is_started_where_that_would_not_help(monkeypatch, cores, path):
    assert compile_ahead(monkeypatch, Kernel(1), Kernel(1, path), cores=cores) == []


def test_where_there_can_be_no_second_process_the_first_compiles_everything(monkeypatch):
    def refuse(command, **more):
        raise OSError("there are too many")

    assert compile_ahead(monkeypatch, Kernel(1), Kernel(1), start=refuse) == []


def test_ctrl_c_ends_the_second_process(monkeypatch):
    (process,) = compile_ahead(monkeypatch, Kernel(1), Kernel(1, error=KeyboardInterrupt()))
    assert process.done == ["kill", "wait"]


@pytest.mark.parametrize("looks", [3, 1000])
def test_the_second_process_compiles_from_the_last_to_the_first_while_the_first_lives(monkeypatch, looks):
    order, parents = [], chain(repeat(17, looks), repeat(1))
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(Dispatcher, "compile", lambda self, signature: order.append((self, signature)))
    for kernel, _ in (wanted := [*ahead._wanted("latent2d", "float64", "adam")]):
        monkeypatch.setattr(kernel, "compile", partial(Dispatcher.compile, kernel))
    monkeypatch.setattr(sys, "argv", ["ahead", "latent2d", "float64", "adam"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the module is there already
        runpy.run_module("minicvae.cli.ahead", run_name="__main__")
    assert order == wanted[::-1][: looks - 1]


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_what_the_second_process_has_compiled_the_first_finds(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    words = ["mlp-small", "float32", "sgd"]
    subprocess.run([sys.executable, "-P", "-m", "minicvae.cli.ahead", *words], check=True)
    program = """
import sys
from minicvae.cli import ahead
wanted = ahead._wanted(*sys.argv[1:])
ahead.compile_ahead(*sys.argv[1:])
print(*(k.__name__ for k, _ in wanted if not k.stats.cache_hits or k.stats.cache_misses))
"""
    left = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert left.stdout == "\n"


def test_without_the_compiler_there_is_nothing_to_do(monkeypatch):
    monkeypatch.setattr(ahead, "config", SimpleNamespace(DISABLE_JIT=1))
    monkeypatch.setattr(ahead, "_wanted", None)
    assert ahead.compile_ahead("mlp", "float32", "adam") is None
