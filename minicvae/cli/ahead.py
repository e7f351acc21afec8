"""The kernels of a training compiled by two processes, where this machine has not compiled them yet.

Numba compiles one function at a time, and keeps what it has compiled on disk. So one process compiles what a step needs
on its way forward, this one what it needs on its way back, and each finds there what the other has done.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from minicvae.cli.models import announce_compilation
from minicvae.conditions import draw
from minicvae.kernels import OneHot, load, shared
from minicvae.kernels.spread import cores
from minicvae.model import build
from minicvae.optimizers import get
from minicvae.parameters import Parameter, Parameters
from minicvae.randomness import Purpose, generator

__all__ = ["compile_ahead"]


def compile_ahead(preset: str, dtype: str) -> None:
    """Let both halves be compiled, and wait for them; where they are compiled already they are only loaded."""
    others: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        if cores() < 2 or not shared.adam.stats.cache_path:
            return  # nobody would be faster, or could pass on what is compiled
        command = [sys.executable, "-m", __name__, preset, dtype]
        others.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    announce_compilation("cpu", start)
    try:
        _back(np.dtype(dtype))
        for other in others:
            other.wait()  # if it failed, this process compiles what is missing, and says what is wrong
    finally:
        for other in others:
            other.kill()


def _back(dtype: np.dtype) -> None:
    """The kernels of a dense layer's backward, of the sampling's, and of the update."""
    kernels, eps = load("cpu"), np.zeros((1, 2, 2), dtype)
    x, W, labels = np.zeros((2, 2), dtype), Parameter((4, 2), "zeros"), OneHot(np.zeros(2, np.int64), 2)
    parameters = Parameters([("W", W)], kernels, dtype)
    update = get("adam").start(parameters, kernels)
    dW, db = np.zeros((4, 2), dtype), np.zeros(2, dtype)
    kernels.dense_backward(x, [x, labels], x, W.value, "relu", dW, db, False, [True, False])
    kernels.reparameterise_backward(eps, x, eps)
    kernels.scale_rows(x, np.zeros(2, dtype))
    update(0.0)


def _forward(preset: str, dtype: str) -> None:
    """The kernels of a model's forward, and of its pictures."""
    model = build(preset, dtype=dtype)
    images, c = np.zeros((2, *model.image_shape), np.uint8), draw(model.condition, 2, generator(0, Purpose.SHUFFLE))
    model.evaluate(images, c)
    model.generate(c)


if __name__ == "__main__":
    _forward(*sys.argv[1:])
