"""The kernels of a training compiled by two processes, where this machine has not compiled them yet.

Numba compiles one function at a time, and keeps what it has compiled on disk. So one process compiles what a step needs
on its way forward, this one mostly what it needs on its way back, and each finds there what the other has done. Another
optimiser than Adam is compiled when it is first called.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
from numba.core import event

from minicvae.conditions import draw
from minicvae.kernels import Array, Reference, load, pieces
from minicvae.kernels.spread import cores
from minicvae.model import build
from minicvae.optimizers import get
from minicvae.randomness import Purpose, generator

__all__ = ["compile_ahead"]

EXAMPLES = 64  # enough for every kernel to be wanted (`zeros.WORTH_LISTING`)
BY_NUMPY = (
    *("dense", "bernoulli", "gaussian", "reparameterise", "kl_standard", "kl_monte_carlo"),
    *("conv2d", "conv2d_transpose", "upsample_conv2d", "max_pool", "upsample"),
)


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
    """Let both halves be compiled, and wait for them; where they are compiled already they are loaded."""
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
        _back(preset, dtype)
        for other in others:
            other.wait()  # if it failed, this process compiles what is missing, and says what is wrong
    finally:
        event.unregister("numba:compile", listener)
        for other in others:
            other.kill()


def _back(preset: str, dtype: str) -> None:
    """The kernels of a step's backward and update, and small ones of the forward, whose process has more to do."""
    kernels, rng = load("cpu"), generator(0, Purpose.SHUFFLE)
    with _forward_by_numpy(kernels):
        model = build(preset, dtype=dtype)
        x = np.zeros((EXAMPLES, model.data_dim), dtype)
        parts = model.condition.encode(draw(model.condition, EXAMPLES, rng), kernels, x.dtype)
        _, backward = model.loss_and_backward(x, parts, model.noise(EXAMPLES, 0, Purpose.TRAIN))
        backward()
        model.start(get("adam"))(0.0)
    kernels.sigmoid(x)


@contextmanager
def _forward_by_numpy(kernels: Reference) -> Iterator[None]:
    """The kernels that the other process compiles are computed as the reference does, within."""

    def conv2d_max_pool(*args: Any) -> tuple[Array, Array]:
        y, kept = Reference.conv2d_max_pool(kernels, *args)
        # Where the maxima are said to lie does not matter.
        return y, np.zeros(y.shape, np.uint8) if args[-1] == (2, 2) else kept

    for name in BY_NUMPY:
        setattr(kernels, name, partial(getattr(Reference, name), kernels))
    setattr(kernels, conv2d_max_pool.__name__, conv2d_max_pool)
    try:
        yield
    finally:
        for name in (*BY_NUMPY, conv2d_max_pool.__name__):
            delattr(kernels, name)


def _forward(preset: str, dtype: str) -> None:
    """The kernels of a model's forward, and of its pictures."""
    model, rng = build(preset, dtype=dtype), generator(0, Purpose.SHUFFLE)
    images, c = np.zeros((EXAMPLES, *model.image_shape), np.uint8), draw(model.condition, EXAMPLES, rng)
    model.evaluate(images, c)
    model.generate(c)


if __name__ == "__main__":
    _forward(*sys.argv[1:])
