"""Arrays that are handed out again at every step, so that training in its steady state allocates nothing."""

from __future__ import annotations

import threading
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

LINE = 64  # bytes of a cache line


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised C-contiguous array that begins at a cache line.

    Where rows are whole lines, no vector then lies on two of them, and two threads that write neighbouring columns have
    no line in common.
    """
    size = prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    return room[start : start + size].view(dtype).reshape(shape)


class Workspace(threading.local):
    """Gives the i-th request of every step the same memory.

    The steps of a training loop ask for the same arrays in the same order. Between `begin` and `begin` each request
    gets an array of its own; after the next `begin` the first request gets the first array again, and so on. A
    request for fewer rows than before (the last batch of an epoch) gets a view. Before the first `begin`, and after
    `end`, every request gets fresh memory: what a user is handed is never overwritten. Each
    thread has its own.
    """

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []
        self._next = -1  # -1: not inside a loop of steps

    def begin(self) -> None:
        """A step begins: the arrays of the step before may be overwritten."""
        self._next = 0

    def end(self) -> None:
        """The loop of steps is over: its arrays are let go, and requests get fresh memory."""
        self._arrays, self._next = [], -1

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised C-contiguous array that begins at a cache line."""
        i, arrays = self._next, self._arrays
        if i < 0:
            return aligned(shape, dtype)
        self._next = i + 1
        if i == len(arrays):
            arrays.append(aligned(shape, dtype))
        held = arrays[i]
        if held.dtype == dtype and held.shape == shape:
            return held
        same = held.dtype == dtype and held.ndim == len(shape) > 0 and held.shape[1:] == shape[1:]
        if same and len(held) > shape[0]:
            return held[: shape[0]]
        arrays[i] = aligned(shape, dtype)
        return arrays[i]


class Scratch(threading.local):
    """Memory for what a kernel needs while it runs: each caller's thread has one piece, which every call takes anew.

    Where more is asked for than there is, there is a new piece; the old one lives as long as somebody holds it.
    """

    def __init__(self) -> None:
        self._room = np.empty(0, np.uint8)

    def empty(self, *shapes: tuple[int, ...], dtype: Any) -> list[np.ndarray]:
        """An uninitialised C-contiguous array of each shape, on lines of its own, until this thread's next call."""
        sizes = [prod(shape) * np.dtype(dtype).itemsize for shape in shapes]
        starts = list(accumulate((-(-size // LINE) * LINE for size in sizes), initial=0))
        if starts[-1] > len(self._room):
            self._room = aligned((starts[-1],), np.uint8)
        pieces = zip(starts, sizes, shapes, strict=False)
        return [self._room[start : start + size].view(dtype).reshape(shape) for start, size, shape in pieces]
