"""A function that a loop calls again and again, recorded once as a CUDA graph and then launched whole.

A step of a small model is dozens of launches, each of which costs the host more time than the GPU. A graph holds them
all. What it demands: the same memory at every launch, so the arguments are copied to a place of their own and all that
is made on the way is kept; and nothing that waits for the GPU, or that CuPy cannot record.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from minicvae.kernels.cuda.launch import MOVING, NUMBERS
from minicvae.kernels.reference import Array
from minicvae.kernels.steps import signature

if TYPE_CHECKING:
    from minicvae.kernels.cuda import Cuda

__all__ = ["Recorded"]

DEFAULT = (0, 1)  # CUDA's names of the default stream, which waits for all others, and they for it
ROWS = 1024  # of results, that lie in one array and are read in one go


class _Graph:
    """What belongs to arguments of one signature.

    inputs: where the graph reads them. Those that are `moving` it fetches from the addresses in `cells`, which it then
    sets to what follows: the next step's arguments mostly lie behind this one's, and the host has nothing to do. The
    last of the cells is the address where the next results go.
    """

    def __init__(self, xp: Any, arguments: tuple[Any, ...]) -> None:
        self.inputs = [xp.zeros(np.shape(x), getattr(x, "dtype", np.float64)) for x in arguments]
        arrays = [i for i, x in enumerate(arguments) if not isinstance(x, float)]
        self.moving = [i for i in arrays if self.inputs[i].nbytes % 4 == 0 and self.inputs[i].size][:MOVING]
        self.words = [self.inputs[i].ravel().view(np.int32) for i in self.moving]
        self.cells = xp.zeros(MOVING + 1, np.int64)
        self.addresses = [0] * (MOVING + 1)  # what is in the cells after all that was launched
        self.numbers: dict[int, float] = {}  # those that are there already
        self.kind: Callable[..., Any] = tuple
        self.count = 0  # of results
        self.graph: Any = None
        self.memory: list[Any] = []  # all that the graph writes to: nobody else may have it
        self.recordable = True

    def take(self, arguments: tuple[Any, ...], row: Array) -> None:
        """Let the graph find its arguments, and the row for its results."""
        for i, (x, place) in enumerate(zip(arguments, self.inputs, strict=True)):
            if i in self.moving and x.flags.c_contiguous and x.data.ptr % 4 == 0:
                self._point(self.moving.index(i), x)
            elif i in self.moving:
                place[...] = x
                self._point(self.moving.index(i), place)
            elif not isinstance(x, float):
                place[...] = x
            elif self.numbers.get(i) != x:
                place.fill(x)
                self.numbers[i] = x
        self._point(MOVING, row)

    def _point(self, cell: int, x: Array) -> None:
        """Have the cell hold the address of x; the graph will add to it the bytes of x."""
        if self.addresses[cell] != x.data.ptr:
            self.cells[cell : cell + 1].fill(x.data.ptr)
        self.addresses[cell] = x.data.ptr + x.nbytes


class Recorded:
    """run(arrays and numbers) -> a named tuple of single numbers, the same but quicker from the third call on.

    For each signature the first call runs as it is, which compiles all kernels; the second records; from then on the
    graph is launched. `run` gets a number as an array without dimensions, since a graph would keep for ever the number
    that it was recorded with. What `run` does on the host happens in the first two calls only.

    then: what follows in the same graph, `then(rate)`, with the results looked at before (`Cuda.watch`); the call is
    then `(rate, arrays and numbers)`.
    """

    def __init__(self, kernels: Cuda, run: Callable[..., Any], then: Callable[[Any], None] | None = None) -> None:
        self._kernels, self._run, self._then = kernels, run, then
        self._graphs: dict[tuple[Any, ...], _Graph] = {}
        self._stream, self._pool = kernels.stream, kernels.xp.cuda.MemoryPool()
        self._rows: Array = None  # of results, of which the first `_filled` belong to callers
        self._filled = ROWS

    def __call__(self, *arguments: Any) -> Any:
        """The results, in memory that no later call writes to."""
        key = signature(arguments)
        with self._kernels.lock, self._in_order(), self._stream:
            known = self._graphs.pop(key, None)  # and put back where all goes well
            graph, row = known or _Graph(self._kernels.xp, arguments), self._next_row()
            graph.take(arguments, row)
            if known and graph.recordable and not graph.graph:
                self._record(graph)
            if graph.graph:
                graph.graph.launch(self._stream)
            else:
                self._perform(graph)
            self._graphs[key] = graph
            return graph.kind(*[row[i] for i in range(graph.count)])

    def _next_row(self) -> Array:
        """Room for the results of a call."""
        if self._filled == ROWS:
            self._rows, self._filled = self._kernels.xp.empty((ROWS, NUMBERS), np.float64), 0
        self._filled += 1
        return self._rows[self._filled - 1]

    @contextmanager
    def _in_order(self) -> Iterator[None]:
        """The stream waits for what the caller has launched, and the caller's for what is launched within.

        CUDA sees to that itself where the caller's is the default stream.
        """
        outer = self._kernels.xp.cuda.get_current_stream()
        if outer.ptr in DEFAULT:
            yield
            return
        self._stream.wait_event(outer.record())
        try:
            yield
        finally:
            outer.wait_event(self._stream.record())

    def _record(self, graph: _Graph) -> None:
        """Record a run, which is not carried out; where that cannot be done, say so, once for each signature."""

        def allocate(size: int) -> Any:
            graph.memory.append(self._pool.malloc(size))
            return graph.memory[-1]

        self._stream.begin_capture()
        try:
            with self._kernels.xp.cuda.using_allocator(allocate):
                self._perform(graph)
            graph.graph = self._stream.end_capture()
        except BaseException as error:
            with suppress(Exception):  # a stream that has met what it cannot record says so a second time
                self._stream.end_capture()
            graph.recordable, graph.memory = False, []
            if not isinstance(error, Exception):  # Ctrl-C
                raise
            text = f"a step cannot be recorded as a CUDA graph, and runs kernel by kernel: {error}"
            warnings.warn(text, RuntimeWarning, stacklevel=3)

    def _perform(self, graph: _Graph) -> None:
        """Run on what the graph reads."""
        self._kernels.take_next(graph.cells, graph.words)
        rate, given = (graph.inputs[0], graph.inputs[1:]) if self._then else (None, graph.inputs)
        with self._kernels.watching_later():
            found = self._run(*given)
        graph.kind, graph.count = type(found), len(found)
        self._kernels.watch(found, graph.cells, graph.words)
        if self._then:
            self._then(rate)
