"""A function that a loop calls again and again, recorded once as a CUDA graph and then launched whole.

A step of a small model is dozens of launches, each of which costs the host more time than the GPU. A graph holds them
all. What it demands: the same memory at every launch, so the arguments are copied to a place of their own and all that
is made on the way lies in a pool of its own; nothing that waits for the GPU; and no cuBLAS, which CuPy refuses to
record, so products are those of `product.cu`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from minicvae.kernels.reference import Array
from minicvae.kernels.steps import signature

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minicvae.kernels.cuda import Cuda

__all__ = ["Recorded"]


class _Graph:
    """What belongs to arguments of one set of shapes."""

    def __init__(self, xp: Any, arguments: tuple[Any, ...]) -> None:
        self.inputs = [xp.zeros(np.shape(x), getattr(x, "dtype", np.float64)) for x in arguments]
        self.numbers: dict[int, float] = {}  # those that are there already
        self.kind: Callable[..., Any] = tuple
        self.results: Array = None
        self.graph: Any = None

    def take(self, arguments: tuple[Any, ...]) -> None:
        """Put the arguments where the graph reads them."""
        for i, (x, place) in enumerate(zip(arguments, self.inputs, strict=True)):
            if not isinstance(x, float):
                place[...] = x
            elif self.numbers.get(i) != x:
                place.fill(x)
                self.numbers[i] = x


class Recorded:
    """run(arrays and numbers) -> a named tuple of single numbers, the same but quicker from the third call on.

    For each set of shapes the first call runs as it is, which compiles all kernels and fills the pool; the second
    records; from then on the graph is launched. `run` gets a number as an array without dimensions, since a graph
    would keep for ever the number that it was recorded with. What `run` does on the host happens in the first two
    calls only.
    """

    def __init__(self, kernels: Cuda, run: Callable[..., Any]) -> None:
        self._kernels, self._run = kernels, run
        self._graphs: dict[tuple[Any, ...], _Graph] = {}
        self._stream = kernels.xp.cuda.Stream()  # which waits for what was launched outside of it, and is waited for
        self._pool = kernels.xp.cuda.MemoryPool()

    def __call__(self, *arguments: Any) -> Any:
        """The results, in memory of their own."""
        key = signature(arguments)
        if key not in self._graphs:
            self._graphs[key] = _Graph(self._kernels.xp, arguments)
            self._graphs[key].take(arguments)
            self._plain(self._graphs[key])
        else:
            self._graphs[key].take(arguments)
            if self._graphs[key].graph is None:
                self._record(self._graphs[key])
            self._graphs[key].graph.launch(self._stream)
        results = self._graphs[key].results.copy()
        return self._graphs[key].kind(*(results[i] for i in range(len(results))))

    def _plain(self, graph: _Graph) -> None:
        """Run, with the memory that the graph will have."""
        with self._apart():
            found = self._run(*graph.inputs)
            graph.kind, graph.results = type(found), self._packed(found)

    def _record(self, graph: _Graph) -> None:
        """Record a run, which is not carried out."""
        with self._apart():
            graph.results = None  # its memory is free for the results that the graph will write
            self._stream.begin_capture()
            try:
                graph.results = self._packed(self._run(*graph.inputs))
            finally:
                graph.graph = self._stream.end_capture()

    def _packed(self, numbers: tuple[Array, ...]) -> Array:
        """The numbers in one array."""
        packed = self._kernels.xp.empty(len(numbers), np.float64)
        for i, x in enumerate(numbers):
            packed[i] = x
        return packed

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """On a stream and with a pool of its own."""
        with self._stream, self._kernels.xp.cuda.using_allocator(self._pool.malloc):
            yield
