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

SIDE = {"cpu": 1536, "cuda": 8192}  # of the matrices whose product shows the rate of multiply-adds
NUMBERS = {"cpu": 2**23, "cuda": 2**27}  # of each of Adam's four arrays, beyond the caches


@dataclass(frozen=True)
class Machine:
    """product_rate: floating-point operations a second (a multiply-add is two); memory_rate: bytes a second.

    cores: of a GPU its multiprocessors. software: of a GPU, the versions of what runs it.
    """

    processor: str
    cores: int
    product_rate: float
    memory_rate: float
    software: str = ""

    def __str__(self) -> str:
        kind = "multiprocessors" if self.software else "cores"
        return f"{self.cores} {kind} of {self.processor}" + (f" ({self.software})" if self.software else "")

    def floor(self, operations: float, parameters: int) -> float:
        """Seconds that no step goes below: its products at full rate, then one pass of Adam.

        Adam reads value, gradient, m and v and writes value, m and v: seven times four bytes for each parameter.
        """
        return operations / self.product_rate + 28 * parameters / self.memory_rate


def measure(device: str = "cpu") -> Machine:
    """The best of several tries: what the machine can do when nobody disturbs it. Raises as `load` does."""
    from minicvae.kernels import load

    where = "cuda" if device == "cuda" else "cpu"  # the plain reference is no measure of a machine
    kernels: Any = load(where)
    xp, side, numbers = kernels.xp, SIDE[where], NUMBERS[where]
    a, b = (kernels.array(np.random.default_rng(i).random((side, side), np.float32)) for i in range(2))
    product, bias = xp.empty_like(a), xp.zeros(side, np.float32)
    arrays, step = [xp.ones(numbers, np.float32) for _ in range(4)], xp.zeros(1, np.int64)

    def multiply() -> None:
        xp.matmul(a, b, out=product)
        kernels.wait()

    def layer() -> None:
        begin_step()
        kernels.dense([a], b, bias, "linear")
        kernels.wait()

    def adam() -> None:
        kernels.adam(*arrays, step, 1e-3, 0.9, 0.999, 1e-8, 0.0)
        kernels.wait()

    with kernels.steps() as begin_step:
        # The library's product or ours, whichever is faster: on some processors OpenBLAS is far from what they can do.
        rate = 2 * side**3 / min(_best(multiply), _best(layer))
        memory = 28 * numbers / _best(adam)
    if where == "cuda":
        processor, cores, software = kernels.describe()
        return Machine(processor, cores, rate, memory, software)
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
