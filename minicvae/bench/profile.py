"""Where a step's time goes, kernel by kernel, and how many operations a step has."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from statistics import median
from typing import Any

import numpy as np

from minicvae.kernels.convolution import span
from minicvae.kernels.reference import OneHot
from minicvae.kernels.steps import in_turn
from minicvae.model import CVAE

__all__ = ["Kernel", "profile", "step_operations"]

Arguments = Mapping[str, Any]
HOUSEKEEPING = {
    *("array", "begin_step", "empty", "end_steps", "feed", "goes_on", "load", "read", "repeated", "run", "steps"),
    *("call", "concatenate", "contiguous", "describe", "launch", "rows", "to_numpy", "wait", "whole", "zeros"),
}


@dataclass
class Kernel:
    """All calls of one kernel with one shape in a step; seconds: of each call. Two operations are a multiply-add."""

    name: str
    shape: str
    operations: int
    bytes: int
    seconds: list[float] = field(default_factory=list)
    calls: int = 0  # in a step

    @property
    def time(self) -> float:
        """Seconds in a step."""
        return median(self.seconds) * self.calls


def step_operations(model: CVAE, x: Any, c: Any) -> int:
    """Floating-point operations in the products of a step on (x, c), forward and backward."""
    return sum(kernel.operations * kernel.calls for kernel in profile(model, x, c, steps=1))


def profile(model: CVAE, x: Any, c: Any, steps: int = 100) -> list[Kernel]:
    """The kernels of a training step on the batch (x, c), the slowest first. It really trains the model."""
    found: dict[tuple[str, str, int], Kernel] = {}
    with _watched(model.kernels, found):
        model.fit(np.concatenate([x] * steps), _repeat(c, steps), epochs=1, batch_size=len(x), verbose=0)
    for kernel in found.values():
        kernel.calls = round(len(kernel.seconds) / steps)
    return sorted((k for k in found.values() if k.calls), key=lambda k: -k.time)


@contextmanager
def _watched(kernels: Any, found: dict[tuple[str, str, int], Kernel]) -> Iterator[None]:
    """Let every call from outside of `kernels` be timed; a kernel that another one calls is part of that."""
    names = [n for n, f in inspect.getmembers(kernels, inspect.ismethod) if n[0] != "_" and n not in HOUSEKEEPING]
    inside = False

    def watch(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            if inside:
                return function(*args, **kwargs)
            kernels.wait()
            inside, begin = True, time.perf_counter()
            try:
                result = function(*args, **kwargs)
                kernels.wait()
                seconds = time.perf_counter() - begin
            finally:
                inside = False
            given = signature.bind(*args, **kwargs).arguments
            key = name, _shape(given), 2 * _multiply_adds(name, given, result)
            # Of the images only those that are gathered are read.
            values = [v[: len(result)] if k == "images" else v for k, v in given.items()]
            if key not in found:
                found[key] = Kernel(*key, _bytes([*values, result]))
            found[key].seconds.append(seconds)
            return result

        return call

    for name in names:
        setattr(kernels, name, watch(name, getattr(kernels, name)))
    kernels.repeated = lambda run, then, then_too: in_turn(run, then)  # what is recorded is no longer called
    try:
        yield
    finally:
        for name in (*names, "repeated"):
            delattr(kernels, name)


def _multiply_adds(name: str, given: Arguments, result: Any) -> int:
    """Of a product: weights times the places where they are used, once forward; for dW and for each dx backward.

    By the definition: a device that comes by with fewer of them does better than its best.
    """
    if name in ("dense", "dense_backward"):
        n, rows = len(given["parts"][0][0] if isinstance(given["parts"][0], OneHot) else given["parts"][0]), 0
        needs = given.get("need_dx", [False] * len(given["parts"]))
        for part, need in zip(given["parts"], needs, strict=True):
            rows += 0 if isinstance(part, OneHot) else part.shape[1] * (1 + need)
        return n * rows * given["W"].shape[1]
    if "conv2d" in name:
        n, *size = given["x"].shape[:3]
        if "transpose" not in name:  # ... whose kernel is used at every pixel
            size = [length * f for length, f in zip(size, given.get("factor", (1, 1)), strict=True)]
            stride = given.get("stride", (1, 1))
            size = [span(*axis, given["padding"])[0] for axis in zip(size, given["W"].shape[:2], stride, strict=True)]
        return n * prod(size) * given["W"].size * (1 + bool(given.get("need_dx", False)))
    return 0


def _bytes(values: list[Any]) -> int:
    """What all arrays among the values hold: no kernel moves less."""
    total = 0
    for value in values:
        if isinstance(value, (tuple, list)):
            total += _bytes(list(value))
        else:
            total += getattr(value, "nbytes", 0)
    return total


def _shape(given: Arguments) -> str:
    """The shapes of the first two arrays."""
    shapes = []
    for value in given.values():
        for array in value if isinstance(value, (tuple, list)) and not isinstance(value, OneHot) else [value]:
            if hasattr(array, "shape") and array.ndim:
                shapes.append("×".join(map(str, array.shape)))
    return ", ".join(shapes[:2])


def _repeat(c: Any, times: int) -> Any:
    if isinstance(c, dict):
        return {name: np.concatenate([part] * times) for name, part in c.items()}
    return np.concatenate([c] * times)
