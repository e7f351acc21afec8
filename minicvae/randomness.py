"""All randomness of the library: one counter-based generator, a pure function of (seed, purpose, epoch, step).

Nothing here keeps a state between calls and nothing touches NumPy's global generator, so the same seed is the same
run, a run can be continued from any step, and every device is given the same noise (drawn on the host in float64 and
rounded to the type that is asked for). Source of the generator: Salmon, Moraes, Dror, Shaw 2011, "Parallel random
numbers: as easy as 1, 2, 3" (Philox-4x64).
"""

from __future__ import annotations

import operator
import threading
from enum import IntEnum
from typing import Any

import numpy as np

__all__ = ["Purpose", "check_seed", "generator", "standard_normal"]


class Purpose(IntEnum):
    """What random numbers are for: each purpose has a stream of its own."""

    INITIALISE = 0
    SHUFFLE = 1
    TRAIN = 2
    EVALUATE = 3
    GENERATE = 4
    SAMPLE_PIXELS = 5
    LOG_LIKELIHOOD = 6
    DIAGNOSE = 7
    MASK = 8


def check_seed(seed: Any) -> int:
    """`seed` as an integer of 64 bits, or an error that names it."""
    try:
        value = operator.index(seed)
    except TypeError:
        raise TypeError(f"seed: expected an integer, got {type(seed).__name__} {seed!r}") from None
    if not 0 <= value < 2**64:
        raise ValueError(f"seed: expected 0 <= seed < 2**64, got {value}")
    return value


def generator(seed: int, purpose: Purpose, epoch: int = 0, step: int = 0) -> np.random.Generator:
    """The generator of (seed, purpose, epoch, step).

    Seed and purpose are Philox's key, epoch and step the two high words of its counter, so that no two of these
    streams overlap: each has 2^128 blocks of four numbers to itself.

    Raises TypeError or ValueError for a seed that is none, and TypeError for a purpose that is none.
    """
    key, counter = _stream(seed, purpose, epoch, step)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def standard_normal(
    shape: tuple[int, ...], dtype: Any, seed: int, purpose: Purpose, epoch: int = 0, step: int = 0
) -> np.ndarray:
    """Noise eps ~ N(0, 1) of (seed, purpose, epoch, step), as a NumPy array of `dtype`."""
    key, counter = _stream(seed, purpose, epoch, step)
    # To set a generator to another stream takes a tenth of the time in which one is made.
    _own.philox.state = _own.fresh | {"state": {"key": key, "counter": counter}}
    return _own.generator.standard_normal(shape).astype(dtype)


def _stream(seed: int, purpose: Purpose, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Philox's key and counter where a stream begins."""
    if not isinstance(purpose, Purpose):
        raise TypeError(f"purpose: expected a Purpose, got {type(purpose).__name__} {purpose!r}")
    key = np.array([check_seed(seed), purpose], dtype=np.uint64)
    return key, np.array([0, 0, step, epoch], dtype=np.uint64)


class _Own(threading.local):
    """Each thread's generator, which is set to one stream after another. fresh: its state before the first number."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=0)
        self.fresh: Any = dict(self.philox.state)
        self.generator = np.random.Generator(self.philox)


_own = _Own()
