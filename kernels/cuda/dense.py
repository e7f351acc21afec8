"""The kernels of dense layers and embeddings on a GPU, and how arrays are handed to kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from minicvae.kernels.cuda.launch import ACTIVATIONS, blocks
from minicvae.kernels.cuda.products import Products
from minicvae.kernels.reference import Array, OneHot, Part, Reference, row_blocks

__all__ = ["CudaDense"]


class _Run(NamedTuple):
    """Parts of an input that a launch takes: matrices, then labels; the rows of W that they meet.

    numbers: each matrix with the distance between its rows and its width, as the kernels take them; width: of both.
    """

    floats: list[Array]
    onehot: OneHot | None
    rows: slice
    numbers: tuple[Any, ...]
    width: int


def _count(part: Part) -> int:
    """How many examples a part holds."""
    return len(part.labels if isinstance(part, OneHot) else part)


class CudaDense(Reference):
    """Each way of a layer in one launch (`dense.cu`)."""

    launch: Any
    products: Products
    tickets: Array  # of blocks that share a result, 0 between launches

    def whole(self, a: Array) -> Array:
        """The same numbers, C-contiguous."""
        return a if a.flags.c_contiguous else self.xp.ascontiguousarray(a)

    def rows(self, a: Array) -> tuple[Array, int]:
        """A matrix as its numbers and the distance between its rows, copied only where a row is not in one piece.

        The halves of a network's output come as views; a kernel that is told the distance needs no copy.
        """
        step = a.strides[0] // a.itemsize
        if a.strides[1] != a.itemsize or step < a.shape[1]:
            a, step = self.xp.ascontiguousarray(a), a.shape[1]
        return a, step

    def rows_of(self, table: Array, index: Array, dtype: Any, kernel: str = "gather_rows") -> Array:
        """table[index], (n, d), by a kernel that may scale it."""
        d = table.shape[1]
        x = self.xp.empty((len(index), d), dtype)
        self.launch(kernel, dtype, blocks(x.size), table, self.whole(index), x, d, x.size)
        return x

    def dense(self, parts: Sequence[Part], W: Array, b: Array, activation: str) -> Array:
        """A launch for each run of parts, which is one for the inputs of most layers."""
        y = self.xp.empty((_count(parts[0]), len(b)), W.dtype)
        joined = list(self._runs(parts))
        for i, run in enumerate(joined):
            W_run, labels = self.whole(W[run.rows]), self.whole(run.onehot.labels) if run.onehot else None
            m, n, k = len(y), len(b), run.width
            f = ACTIVATIONS.index(activation if i == len(joined) - 1 else "linear")
            rows = W_run[k:] if run.onehot else None
            given = *run.numbers, W_run, b if i == 0 else None, rows, labels, y, m, n, f, i > 0
            self.products.launch("dense", y.dtype, ((m, n, k),), *given)
        return y

    def dense_backward(
        self,
        dy: Array,
        parts: Sequence[Part],
        y: Array,
        W: Array,
        activation: str,
        dW: Array,
        db: Array,
        accumulate: bool,
        need_dx: Sequence[bool],
    ) -> tuple[Array | None, ...]:
        """A launch for each run of parts, which makes its rows of dW and what is needed of dx; the first makes db."""
        dy, y = self.whole(dy), self.whole(y)
        (m, n), dtype = y.shape, y.dtype
        dparts: list[Array | None] = []
        for i, run in enumerate(self._runs(parts)):
            need = need_dx[len(dparts) : len(dparts) + len(run.floats)]
            dx = [self.xp.empty(x.shape, dtype) if needed else None for x, needed in zip(run.floats, need, strict=True)]
            dparts += [*dx, *([None] if run.onehot else [])]
            d, classes = run.width, run.onehot.classes if run.onehot else 0
            first = run.floats[0].shape[1] if len(need) == 2 and not need[0] else 0  # of the rows that dx takes of W
            needed = [(a, a.shape[1]) for a in dx if a is not None]
            outputs = [*needed, (None, 0), (None, 0)][:2]
            width = sum(columns for _, columns in outputs)
            sizes = (d + classes + (i == 0), n, m), (m, width, n)
            labels = self.whole(run.onehot.labels) if run.onehot else None
            given = dy, y, *run.numbers, labels, classes, self.whole(W[run.rows])[first:], dW[run.rows]
            given = *given, db if i == 0 else None, *outputs[0], *outputs[1], m, n
            f = ACTIVATIONS.index(activation)
            self.products.launch("dense_backward", dtype, sizes, *given, f, accumulate)
        return tuple(dparts)

    def _runs(self, parts: Sequence[Part]) -> Iterator[_Run]:
        """The parts in runs: at most two matrices of numbers, then at most one of labels; almost always one run."""
        floats: list[Array] = []
        start = 0
        for i, (part, rows) in enumerate(row_blocks(parts)):
            onehot = part if isinstance(part, OneHot) else None
            if onehot is None:
                floats.append(part)
            follower = parts[i + 1] if i + 1 < len(parts) else None
            if onehot or follower is None or (len(floats) == 2 and not isinstance(follower, OneHot)):
                joined = [(*self.rows(x), x.shape[1]) for x in floats]
                numbers = [*joined, (None, 0, 0), (None, 0, 0)][:2]
                width = sum(x.shape[1] for x in floats)
                yield _Run(floats, onehot, slice(start, rows.stop), (*numbers[0], *numbers[1]), width)
                floats, start = [], rows.stop

    def embedding(self, E: Array, labels: Array) -> Array:
        """y = E[labels]."""
        return self.rows_of(E, labels, E.dtype)

    def embedding_backward(self, dy: Array, labels: Array, dE: Array, accumulate: bool) -> None:
        """dE_k = Σ over {n: labels_n = k} of dy_n, a thread for each number of dE."""
        shape = *dy.shape, dE.size
        self.launch(
            "scatter_rows", dy.dtype, blocks(dE.size), self.whole(dy), self.whole(labels), dE, *shape, accumulate
        )
