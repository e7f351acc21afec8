"""How weights start: He and Glorot, normal and uniform, and constants.

An initialiser is a function of a generator and a shape (d_in, ..., d_out) that returns float64 numbers; `fan_in` is
the product of all axes but the last (inputs that reach a unit), `fan_out` of all but the one before it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt

import numpy as np

__all__ = ["INITIALIZERS", "Initializer", "get"]

Initializer = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (d_in, d_out) or a kernel (h, w, c_in, c_out)."""
    if len(shape) < 2:
        return prod(shape), prod(shape)
    receptive = prod(shape[:-2])
    return receptive * shape[-2], receptive * shape[-1]


def he_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 2 / fan_in): keeps the second moment through relu. He, Zhang, Ren, Sun 2015, equation 10."""
    return rng.standard_normal(shape) * sqrt(2 / _fans(shape)[0])


def he_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """U(-a, a) with a = sqrt(6 / fan_in): the variance of `he_normal`."""
    a = sqrt(6 / _fans(shape)[0])
    return rng.uniform(-a, a, shape)


def glorot_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 2 / (fan_in + fan_out)). Glorot and Bengio 2010, equation 12."""
    return rng.standard_normal(shape) * sqrt(2 / sum(_fans(shape)))


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """U(-a, a) with a = sqrt(6 / (fan_in + fan_out)). Glorot and Bengio 2010, equation 16."""
    a = sqrt(6 / sum(_fans(shape)))
    return rng.uniform(-a, a, shape)


def standard_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 1): embeddings."""
    return rng.standard_normal(shape)


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """0: biases."""
    return np.zeros(shape)


INITIALIZERS: dict[str, Initializer] = {
    f.__name__: f for f in (he_normal, he_uniform, glorot_normal, glorot_uniform, standard_normal, zeros)
}


def get(name: str) -> Initializer:
    """The initialiser of that name.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in INITIALIZERS:
        raise ValueError(f"initializer: expected one of {', '.join(INITIALIZERS)}, got {name!r}")
    return INITIALIZERS[name]
