"""The `cpu` device: BLAS products with compiled loops around them (`compiled.py`).

Dense layers leave it to BLAS to share their products out to the cores. A model of images shares out all of its work
itself, by rows (`team.py`): those of the examples, so that what a core computes is in its cache when the next kernel
asks for it, and those of the weights for their gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minicvae.kernels import compiled
from minicvae.kernels.cpu_images import CpuImages
from minicvae.kernels.reference import Array, OneHot, Part, row_blocks
from minicvae.kernels.team import SerialBlas, Team, Work
from minicvae.kernels.workspace import Workspace

PER_NUMBER = 40  # multiply-adds of a product in the time in which a number is fetched, worked on and stored
WORTH_SHARING = 3_000_000  # multiply-adds: 40 microseconds, against five for handing over


def _sorted_parts(parts: Sequence[Part]) -> tuple[list[tuple[Array, slice]], Array]:
    """The float parts with their rows of W, and for each example the rows of W that its labels meet, (n, labels)."""
    floats: list[tuple[Array, slice]] = []
    labels: list[Array] = []
    for part, rows in row_blocks(parts):
        if isinstance(part, OneHot):
            labels.append(part.labels + rows.start)
        else:
            floats.append((part, rows))
    if not labels:
        return floats, np.empty((len(floats[0][0]), 0), np.int64)
    return floats, np.stack(labels, axis=1)


class Cpu(CpuImages):
    """The kernels that are worth more than their NumPy expressions; the reference does the rest.

    Those for images stand in `cpu_images.py`.
    """

    name = "cpu"

    def __init__(self) -> None:
        super().__init__()
        self.workspace = Workspace()
        self.team = Team()
        self.blas = SerialBlas()

    def begin_step(self) -> None:
        """From here on, arrays that kernels returned since the last `begin_step` may be overwritten."""
        self.workspace.begin()

    def end_steps(self) -> None:
        """Arrays that kernels return from here on belong to the caller for good."""
        if self.workspace.shares:
            self.blas.release()
        self.workspace.end()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised array, from the workspace inside a training loop."""
        return self.workspace.empty(shape, dtype)

    def share(self, work: Work, length: int, numbers: int, products: int = 0, *, begin: bool = False) -> None:
        """work(start, stop) over `range(length)`, by the team where so many numbers and multiply-adds are worth it.

        begin: this work is worth a team of its own, which from here to the end of the loop of steps shares everything;
        BLAS then keeps to one thread. Until then BLAS shares its products out by itself.
        """
        if begin and self.workspace.active and not self.workspace.shares:
            self.blas.hold()
            self.workspace.shares = True
        if numbers * PER_NUMBER + products > WORTH_SHARING and self.workspace.shares:
            self.team.share(work, length)
        else:
            work(0, length)

    def gather(self, images: Array, index: Array, dtype: Any) -> Array:
        """x = images[index], with uint8 pixels scaled to [0, 1], in one pass."""
        x = self.empty((len(index), images.shape[1]), dtype)
        if images.dtype == np.uint8:
            self.share(lambda i, j: compiled.gather_pixels(images, index[i:j], x[i:j]), len(x), x.size)
        elif images.dtype == x.dtype:
            np.take(images, index, axis=0, out=x, mode="clip")
        else:
            x[...] = images[index]
        return x

    def dense(self, parts: Sequence[Part], W: Array, b: Array, activation: str) -> Array:
        """The float parts by BLAS, then the gathered rows, the bias and the activation in one pass."""
        floats, labels = _sorted_parts(parts)
        n, d = len(labels), len(b)
        h = self.empty((n, d), W.dtype)

        def some(i: int, j: int) -> None:
            h_ij = h[i:j]
            if floats:
                x, rows = floats[0]
                np.matmul(x[i:j], W[rows], out=h_ij)
            else:
                h_ij[...] = 0
            for x, rows in floats[1:]:
                h_ij += x[i:j] @ W[rows]
            compiled.add_rows_activate(h_ij, W, labels[i:j], b, compiled.ACTIVATION[activation])

        self.share(some, n, h.size, n * W.size)
        return h

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
        """The slope, db and dx by rows of the examples, then dW by its own rows."""
        n, d = y.shape
        g = self.empty(y.shape, y.dtype)
        blocks = list(zip(row_blocks(parts), need_dx, strict=True))
        dparts = [
            self.empty(part.shape, g.dtype) if need and not isinstance(part, OneHot) else None
            for (part, _), need in blocks
        ]
        products = [(dx, W[rows].T) for dx, ((_, rows), _) in zip(dparts, blocks, strict=True) if dx is not None]
        sums: dict[int, Array] = {}

        def by_examples(i: int, j: int) -> None:
            sums[i] = np.zeros(d, g.dtype)
            compiled.slope_times(dy[i:j], y[i:j], g[i:j], sums[i], compiled.ACTIVATION[activation])
            for dx, W_T in products:
                np.matmul(g[i:j], W_T, out=dx[i:j])

        self.share(by_examples, n, n * d, n * sum(W_T.size for _, W_T in products))
        if not accumulate:
            db[...] = 0
        for start in sorted(sums):
            db += sums[start]

        for (part, rows), _ in blocks:
            dW_p = dW[rows]
            if isinstance(part, OneHot):
                if not accumulate:
                    dW_p[...] = 0
                compiled.scatter_add(g, part.labels, dW_p)
            else:

                def by_weights(i: int, j: int, x_T: Array = part.T, dW_p: Array = dW_p) -> None:
                    if accumulate:
                        dW_p[i:j] += x_T[i:j] @ g
                    else:
                        np.matmul(x_T[i:j], g, out=dW_p[i:j])

                self.share(by_weights, len(dW_p), 0, n * dW_p.size)
        return tuple(dparts)

    def embedding_backward(self, dy: Array, labels: Array, dE: Array, accumulate: bool) -> None:
        """dE[labels_n] += dy_n, row by row."""
        if not accumulate:
            dE[...] = 0
        compiled.scatter_add(dy, labels, dE)

    def bernoulli(self, logits: Array, x: Array) -> tuple[Array, Array]:
        """The likelihood and its derivative from one exponential an element."""
        nll, derivative = self.empty((len(x),), x.dtype), self.empty(x.shape, x.dtype)
        self.share(lambda i, j: compiled.bernoulli(logits[i:j], x[i:j], nll[i:j], derivative[i:j]), len(x), x.size)
        return nll, derivative

    def gaussian(self, logits: Array, x: Array, sigma: float) -> tuple[Array, Array]:
        """The likelihood and its derivative from one exponential an element."""
        nll, derivative = self.empty((len(x),), x.dtype), self.empty(x.shape, x.dtype)
        constant = x.shape[1] * (np.log(sigma) + np.log(2 * np.pi) / 2)
        scalars = (x.dtype.type(1 / sigma**2), x.dtype.type(constant))
        self.share(
            lambda i, j: compiled.gaussian(logits[i:j], x[i:j], nll[i:j], derivative[i:j], *scalars),
            len(x),
            x.size,
        )
        return nll, derivative

    def scale_rows(self, rows: Array, scale: Array) -> Array:
        """y_nd = scale_n rows_nd."""
        y = self.empty(rows.shape, rows.dtype)
        self.share(lambda i, j: compiled.scale_rows(rows[i:j], scale[i:j], y[i:j]), len(y), y.size)
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
        scalars = (real(learning_rate), real(momentum), nesterov, real(weight_decay), np.finfo(real).tiny)
        self.share(
            lambda i, j: compiled.sgd(value[i:j], grad[i:j], velocity[i:j], *scalars),
            len(value),
            len(value),
        )

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
        # 1 - beta is taken in double precision: in float32 the difference would lose four digits.
        decays = (beta1, 1 - beta1, beta2, 1 - beta2)
        corrections = (1 / (1 - beta1**step), 1 / (1 - beta2**step))
        scalars = (learning_rate, *decays, epsilon, *corrections, weight_decay, np.finfo(value.dtype).tiny)
        constants = [value.dtype.type(s) for s in scalars]
        self.share(
            lambda i, j: compiled.adam(value[i:j], grad[i:j], m[i:j], v[i:j], *constants),
            len(value),
            len(value),
        )
