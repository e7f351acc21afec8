"""The `cpu` device: the contract in compiled kernels that share their work between the cores.

This file says what each kernel is given: memory from the workspace, a team of threads where the work is worth it. The
kernels stand in files of their own:

| file            | holds                                                                          |
| --------------- | ------------------------------------------------------------------------------ |
| `tiles.py`      | matrix products in register tiles                                              |
| `dense.py`      | the dense layer, forward and backward, around these products                   |
| `examples.py`   | what goes example by example: pixels, likelihoods                              |
| `updates.py`    | SGD and Adam                                                                   |
| `vector_math.py`| an exponential that becomes vector code                                        |
| `team.py`       | the threads                                                                    |
| `compiled.py`   | the compiler's flags and the cache on disk                                     |

What is left out here, the reference does: it is small. README.md tells how these kernels came about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minicvae.kernels import dense, examples, updates
from minicvae.kernels.reference import Array, OneHot, Part, Reference, row_blocks
from minicvae.kernels.team import Team
from minicvae.kernels.workspace import Workspace

WORTH_SHARING = 50_000  # operations: a few microseconds, several times what sharing costs


def _sorted_parts(
    parts: Sequence[Part], W: np.ndarray
) -> tuple[list[tuple[np.ndarray, slice]], np.ndarray, np.ndarray]:
    """The float parts with their rows of W; the row of W for each example, (p, n); the rows of each label, (p, 2).

    Without a float part, one of no columns stands in, so that there is always a first kernel.
    """
    floats, labels, label_rows = [], [], []
    for part, rows in row_blocks(parts):
        if isinstance(part, OneHot):
            labels.append(part.labels + rows.start)
            label_rows.append((rows.start, rows.stop))
        else:
            floats.append((np.ascontiguousarray(part, W.dtype), rows))
    n = len(labels[0]) if labels else len(floats[0][0])
    if not floats:
        floats.append((np.empty((n, 0), W.dtype), slice(0, 0)))
    if not labels:
        return floats, np.empty((0, n), np.int64), np.empty((0, 2), np.int64)
    return floats, np.stack(labels), np.array(label_rows)


class Cpu(Reference):
    """The kernels that are worth more than their NumPy expressions; the reference does the rest."""

    name = "cpu"

    def __init__(self) -> None:
        super().__init__()
        self.workspace = Workspace()
        self.team = Team()

    def begin_step(self) -> None:
        """From here on, arrays that kernels returned since the last `begin_step` may be overwritten."""
        self.workspace.begin()

    def end_steps(self) -> None:
        """Arrays that kernels return from here on belong to the caller for good."""
        self.workspace.end()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised array, from the workspace inside a training loop."""
        return self.workspace.empty(shape, dtype)

    def gather(self, images: Array, index: Array, dtype: Any) -> Array:
        """x = images[index], with uint8 pixels scaled to [0, 1], in one pass."""
        x = self.empty((len(index), images.shape[1]), dtype)
        if images.dtype == np.uint8:
            examples.gather_pixels(*self._sharing(x.size), images, index, x)
        elif images.dtype == x.dtype:
            np.take(images, index, axis=0, out=x, mode="clip")
        else:
            x[...] = images[index]
        return x

    def _sharing(self, operations: int) -> tuple[np.ndarray, int]:
        """The team's board, and how many threads a kernel of so many operations is worth."""
        return self.team.board(), self.team.size if operations > WORTH_SHARING else 1

    def dense(self, parts: Sequence[Part], W: Array, b: Array, activation: str) -> Array:
        """Bias and gathered rows, product and activation in one kernel for each float part."""
        floats, labels, _ = _sorted_parts(parts, W)
        n, d, kind = labels.shape[1], len(b), dense.ACTIVATION[activation]
        y = self.empty((n, d), W.dtype)
        for i, (x, rows) in enumerate(floats):
            first, last = i == 0, i == len(floats) - 1
            sharing = self._sharing(2 * x.size * d)
            dense.forward(*sharing, x, W[rows], W, labels, b, kind, y, first, last)
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
        """Slope, db and the gathered rows' dW with the first product xᵀ g; then gᵀ serves every dx."""
        floats, labels, label_rows = _sorted_parts(parts, W)
        n, d = y.shape
        dy, kind = np.ascontiguousarray(dy), dense.ACTIVATION[activation]
        g, gT = self.empty((n, d), W.dtype), self.empty((d, n) if any(need_dx) else (0, 0), W.dtype)
        for i, (x, rows) in enumerate(floats):
            sums = dW[rows], dW, labels, label_rows, db
            dense.backward(*self._sharing(2 * x.size * d), dy, y, kind, x, *sums, g, gT, i == 0, accumulate)
        dparts: list[Array | None] = []
        for (part, rows), need in zip(row_blocks(parts), need_dx, strict=True):
            dx = None
            if need and not isinstance(part, OneHot):
                dx, dxT = self.empty(part.shape, W.dtype), self.empty(part.shape[::-1], W.dtype)
                dense.input_gradient(*self._sharing(2 * dx.size * d), W[rows], gT, dxT, dx)
            dparts.append(dx)
        return tuple(dparts)

    def embedding_backward(self, dy: Array, labels: Array, dE: Array, accumulate: bool) -> None:
        """dE[labels_n] += dy_n, row by row."""
        if not accumulate:
            dE[...] = 0
        examples.scatter_add(dy, labels, dE)

    def bernoulli(self, logits: Array, x: Array) -> tuple[Array, Array]:
        """The likelihood and its derivative from one exponential an element."""
        nll, derivative = self.empty((len(x),), x.dtype), self.empty(x.shape, x.dtype)
        examples.bernoulli(*self._sharing(x.size), logits, x, nll, derivative)
        return nll, derivative

    def gaussian(self, logits: Array, x: Array, sigma: float) -> tuple[Array, Array]:
        """The likelihood and its derivative from one exponential an element."""
        nll, derivative = self.empty((len(x),), x.dtype), self.empty(x.shape, x.dtype)
        constant = x.shape[1] * (np.log(sigma) + np.log(2 * np.pi) / 2)
        scalars = x.dtype.type(1 / sigma**2), x.dtype.type(constant)
        examples.gaussian(*self._sharing(x.size), logits, x, nll, derivative, *scalars)
        return nll, derivative

    def scale_rows(self, rows: Array, scale: Array) -> Array:
        """y_nd = scale_n rows_nd."""
        y = self.empty(rows.shape, rows.dtype)
        examples.scale_rows(*self._sharing(y.size), rows, scale, y)
        return y

    def sgd(
        self,
        value: Array,
        grad: Array,
        velocity: Array,
        learning_rate: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
    ) -> None:
        """One pass over the three buffers."""
        real = value.dtype.type
        scalars = real(learning_rate), real(momentum), nesterov, real(weight_decay)
        updates.sgd(*self._sharing(len(value)), value, grad, velocity, *scalars)

    def adam(
        self,
        value: Array,
        grad: Array,
        m: Array,
        v: Array,
        step: int,
        learning_rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
    ) -> None:
        """One pass over the four buffers."""
        # 1 - beta is taken before rounding: in float32, 1 - 0.999 is wrong in its fifth digit.
        scalars = (
            learning_rate,
            *(beta1, 1 - beta1, beta2, 1 - beta2),
            epsilon,
            *(1 / (1 - beta1**step), 1 / (1 - beta2**step)),
            weight_decay,
        )
        constants = tuple(value.dtype.type(s) for s in scalars)
        updates.adam(*self._sharing(len(value)), value, grad, m, v, constants)
