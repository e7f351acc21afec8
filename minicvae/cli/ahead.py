"""The kernels of a training compiled by two processes, where this machine has not compiled them yet.

Numba compiles one function at a time, and keeps what it has compiled on disk. So one process compiles what a step needs
on its way forward, this one mostly what Adam and dense layers need on the way back, and each finds there what the other
has done. The backward of convolutions, and another optimiser, are compiled when they are first called.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numba.core import event

from minicvae.conditions import draw
from minicvae.kernels import OneHot, load, pieces
from minicvae.kernels.spread import cores
from minicvae.model import build
from minicvae.optimizers import get
from minicvae.parameters import Parameter, Parameters
from minicvae.randomness import Purpose, generator

__all__ = ["compile_ahead"]

ROWS, WIDTH = 64, 256  # examples and units: large enough for every kernel to be wanted (`zeros.WORTH_LISTING`)


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


def compile_ahead(preset: str, dtype: str) -> None:
    """Let both halves be compiled, and wait for them; where they are compiled already they are only loaded."""
    others: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        if cores() < 2 or not pieces.adam.stats.cache_path:
            return  # nobody would be faster, or could pass on what is compiled
        command = [sys.executable, "-P", "-m", __name__, preset, dtype]
        with suppress(OSError):  # then this process compiles everything
            others.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    listener = _First(start)
    event.register("numba:compile", listener)
    try:
        _back(np.dtype(dtype))
        for other in others:
            other.wait()  # if it failed, this process compiles what is missing, and says what is wrong
    finally:
        event.unregister("numba:compile", listener)
        for other in others:
            other.kill()


def _back(dtype: np.dtype) -> None:
    """The kernels of the update, of the sampling's backward and of a dense layer's, and some of the forward's."""
    kernels, eps = load("cpu"), np.zeros((1, ROWS, WIDTH), dtype)
    x, labels = np.zeros((ROWS, WIDTH), dtype), OneHot(np.zeros(ROWS, np.int64), 2)
    W = Parameter((WIDTH + 2, WIDTH), "zeros")
    parameters = Parameters([("W", W)], kernels, dtype)
    update = get("adam").start(parameters, kernels)
    dW, db = np.zeros((WIDTH + 2, WIDTH), dtype), np.zeros(WIDTH, dtype)
    update(0.0)
    kernels.scale_rows(x, np.zeros(ROWS, dtype))
    kernels.reparameterise_backward(eps, x, eps)
    kernels.elbo(x, x, 1.0, 0.0)  # this and the next are of the forward, whose process has more to do
    kernels.sigmoid(x)
    # Last, for some of it is a part of the forward too, and has been compiled there meanwhile.
    kernels.dense_backward(x, [x, labels], x, W.value, "relu", dW, db, False, [True, False])


def _forward(preset: str, dtype: str) -> None:
    """The kernels of a model's forward, and of its pictures."""
    model = build(preset, dtype=dtype)
    images, c = (
        np.zeros((ROWS, *model.image_shape), np.uint8),
        draw(model.condition, ROWS, generator(0, Purpose.SHUFFLE)),
    )
    model.evaluate(images, c)
    model.generate(c)


if __name__ == "__main__":
    _forward(*sys.argv[1:])
