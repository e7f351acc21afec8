"""What this machine can do at best: its rate of multiply-adds and of memory, measured on the spot."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Machine", "measure"]

SIDE = 1536  # of the matrices whose product shows the rate of multiply-adds
NUMBERS = 2**23  # of each of Adam's four arrays, beyond the caches


@dataclass(frozen=True)
class Machine:
    """product_rate: floating-point operations a second (a multiply-add is two); memory_rate: bytes a second."""

    processor: str
    cores: int
    product_rate: float
    memory_rate: float

    def floor(self, operations: float, parameters: int) -> float:
        """Seconds that no step goes below: its products at full rate, then one pass of Adam.

        Adam reads value, gradient, m and v and writes value, m and v: seven times four bytes for each parameter.
        """
        return operations / self.product_rate + 28 * parameters / self.memory_rate


def measure() -> Machine:
    """The best of several tries: what the machine can do when nobody disturbs it."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, SIDE, SIDE), np.float32)
    product = np.empty_like(a)
    from minicvae.kernels import load

    kernels: Any = load("cpu")
    arrays = [np.ones(NUMBERS, np.float32) for _ in range(4)]

    def adam() -> None:
        kernels.adam(*arrays, 1, 1e-3, 0.9, 0.999, 1e-8, 0.0)

    rate = 2 * SIDE**3 / _best(lambda: np.matmul(a, b, out=product))
    with kernels.steps() as begin_step:
        begin_step()
        memory = 28 * NUMBERS / _best(adam)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(_processor(), cores, rate, memory)


def _best(work: Callable[[], Any], tries: int = 15) -> float:
    work()
    seconds = []
    for _ in range(tries):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
