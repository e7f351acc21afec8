"""For loops of steps on all devices: their two halves, what is drawn for them, and what a recording depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

__all__ = ["in_turn", "portions", "signature"]


def in_turn(run: Callable[..., Any], then: Callable[[Any], None]) -> Callable[..., Any]:
    """step(rate, *arguments): what `run(*arguments)` returns, after `then(rate)`."""

    def step(rate: float, *arguments: Any) -> Any:
        found = run(*arguments)
        then(rate)
        return found

    return step


def portions(arrays: Iterable[np.ndarray], size: int, most: int = 0) -> Iterator[list[np.ndarray]]:
    """The arrays in lists of at least `size` bytes each, and what is left in a last one, which may be empty.

    With `most`, each list is to be twice as large as the one before, until it is that large.
    """
    waiting: list[np.ndarray] = []
    total = 0
    for a in arrays:
        waiting.append(a)
        total += a.nbytes
        if total >= size:
            yield waiting
            waiting, total = [], 0
            size = max(size, min(2 * size, most))
    yield waiting


def signature(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shape and type of each argument: a recording is good for all arguments that are alike in these."""
    return tuple([(x.shape, x.dtype) if hasattr(x, "shape") else type(x) for x in arguments])
