"""The kernels of a training compiled by two processes, where this machine has not compiled them yet.

Numba compiles one function at a time, and keeps what it has compiled on disk. So one process begins at the first kernel
of a training, the other at the last, and each finds there what the other has done.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numba import config, typeof
from numba.core import event
from numba.core.dispatcher import Dispatcher

from minicvae.conditions import draw
from minicvae.kernels import load
from minicvae.kernels.job import Job
from minicvae.kernels.spread import SIGNATURES, cores
from minicvae.model import build
from minicvae.optimizers import get
from minicvae.randomness import Purpose, generator

__all__ = ["compile_ahead"]

EXAMPLES = 64  # enough for every kernel to be wanted (`zeros.WORTH_LISTING`)

Wanted = dict[tuple[Any, tuple[Any, ...]], None]  # kernels, each with the types of its arguments; in order


class _First(event.Listener):
    """Calls a function when Numba begins to compile something for the first time."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then: Callable[[], None] | None = then

    def on_start(self, event: object) -> None:
        then, self._then = self._then, None
        if then:
            then()

    def on_end(self, event: object) -> None:
        pass


class _NothingDone:
    """In the place of `recorded.Notes`: writes down which kernels are called, and calls none.

    So no array is ever written to; those that `Cpu` asks for here are zero, lest a check meets numbers from nowhere.
    """

    def __init__(self) -> None:
        self.wanted: Wanted = dict.fromkeys(SIGNATURES.items())

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """A kernel, by a job or by itself; anything else is NumPy's, and need not be compiled."""
        if isinstance(args[0], Job):
            self.wanted[args[0].kernel, args[0].signature] = None
        elif isinstance(function, Dispatcher):
            self.wanted[function, tuple(map(typeof, args))] = None

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array that nothing will be written to."""
        return np.zeros(shape, dtype)

    zeros = empty


def compile_ahead(preset: str, dtype: str, optimizer: str) -> None:
    """Compile all kernels of a training, with help; where they are compiled already they are loaded."""
    if config.DISABLE_JIT:
        return
    wanted = _wanted(preset, dtype, optimizer)
    with _helped([sys.executable, "-P", "-m", __name__, preset, dtype, optimizer], wanted):
        for kernel, signature in wanted:
            kernel.compile(signature)


@contextmanager
def _helped(command: list[str], wanted: Wanted) -> Iterator[None]:
    """A process that compiles, too, from the first moment that something is compiled to the end."""
    others: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        if cores() < 2 or not sys.executable or not all(kernel.stats.cache_path for kernel, _ in wanted):
            return  # nobody would be faster, or could pass on what is compiled
        with suppress(OSError):  # then this process compiles everything
            others.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    listener = _First(start)
    event.register("numba:compile", listener)
    try:
        yield
    finally:
        event.unregister("numba:compile", listener)
        for other in others:
            other.kill()
            other.wait()


def _wanted(preset: str, dtype: str, optimizer: str) -> Wanted:
    """What an evaluation, a step and new images call, in that order."""
    kernels, rng = load("cpu"), generator(0, Purpose.SHUFFLE)
    notes = kernels.recording.notes = _NothingDone()  # type: ignore[attr-defined]
    try:
        model = build(preset, dtype=dtype)
        x, c = np.zeros((EXAMPLES, *model.image_shape), np.uint8), draw(model.condition, EXAMPLES, rng)
        model.evaluate(x, c)
        images, parts = model.check_data(x, c)
        batch = kernels.gather(images, np.arange(EXAMPLES), model.dtype)
        _, backward = model.loss_and_backward(batch, parts, model.noise(EXAMPLES, 0, Purpose.TRAIN))
        backward()
        model.start(get(optimizer))(0.0)
        model.generate(c)
    finally:
        kernels.recording.notes = None  # type: ignore[attr-defined]
    return notes.wanted


if __name__ == "__main__":
    parent = os.getppid()
    for kernel, signature in reversed(_wanted(*sys.argv[1:])):
        if os.getppid() != parent:
            break  # whoever wanted help is gone
        kernel.compile(signature)
