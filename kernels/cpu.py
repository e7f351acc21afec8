"""The `cpu` device: loops compiled by Numba that walk each array once, shared out to threads.

Products are made of register tiles, with the passes around them (`compiled_products.py`); these and the other large
kernels of a dense layer's step are cut into pieces for whoever is free (`spread.py`). Convolutions call BLAS, and share
their work out by the rows of the examples to a team (`team.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi
from typing import Any

import numpy as np

from minicvae.kernels import compiled, shared, zeros
from minicvae.kernels.compiled_products import ALL
from minicvae.kernels.cpu_images import CpuImages
from minicvae.kernels.reference import Array, OneHot, Part, row_blocks
from minicvae.kernels.spread import Helpers
from minicvae.kernels.team import SerialBlas, Team, Work
from minicvae.kernels.workspace import Workspace

PER_NUMBER = 40  # multiply-adds of a product in the time in which a number is fetched, worked on and stored
PARTS = 4  # of the examples, whose gradients of a bias are added up apart
WORTH_LISTING = 3_000_000  # multiply-adds: from here on a list of terms that are not zero is sooner made than not
WORTH_SHARING = 3_000_000  # multiply-adds: 40 microseconds, against five for handing over


def _sorted_parts(parts: Sequence[Part]) -> tuple[list[tuple[Array, slice]], Array]:
    """The float parts with their rows of W, and for each example the rows of W that its labels meet, (n, labels)."""
    floats: list[tuple[Array, slice]] = []
    labels: list[Array] = []
    for part, rows in row_blocks(parts):
        if isinstance(part, OneHot):
            labels.append(part.labels + rows.start)
        else:
            floats.append((np.ascontiguousarray(part), rows))
    if len(labels) == 1:
        return floats, labels[0][:, None]
    return floats, np.stack(labels, axis=1) if labels else np.empty((len(floats[0][0]), 0), np.int64)


def _kept(x: Array, width: int, *, columns: bool) -> tuple[Array, Array]:
    """The terms of a product with x, or by its columns, that are not left out: of a large one of mostly zeros."""
    if x.size * width > WORTH_LISTING and zeros.mostly(x):
        return zeros.of_columns(x) if columns else zeros.of_rows(x)
    return ALL


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
        self.helpers = Helpers()

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

        begin: BLAS keeps to one thread from here to the end of the loop of steps, and the team shares out what comes.
        Without a loop BLAS shares its products out by itself.
        """
        if begin and self.workspace.active and not self.workspace.shares:
            self.blas.hold()
            self.workspace.shares = True
        if numbers * PER_NUMBER + products > WORTH_SHARING and self.workspace.shares:
            self.team.share(work, length)
        else:
            work(0, length)

    def run(self, name: str, *args: Any) -> None:
        """The kernel of that name, in pieces, here and on the helpers."""
        getattr(shared, name)(self.helpers.state, *args)

    def gather(self, images: Array, index: Array, dtype: Any) -> Array:
        """x = images[index], with uint8 pixels scaled to [0, 1], in one pass."""
        x = self.empty((len(index), images.shape[1]), dtype)
        if images.dtype == np.uint8:
            self.run("gather_pixels", index, x, images)
        elif images.dtype == x.dtype:
            np.take(images, index, axis=0, out=x, mode="clip")
        else:
            x[...] = images[index]
        return x

    def dense(self, parts: Sequence[Part], W: Array, b: Array, activation: str) -> Array:
        """A product for each float part; with the last one, the gathered rows, the bias and the activation."""
        floats, labels = _sorted_parts(parts)
        h = self.empty((len(labels), len(b)), W.dtype)
        code = compiled.ACTIVATION[activation]
        for i, (x, rows) in enumerate(floats):
            last = i == len(floats) - 1
            self.run("dense", x, _kept(x, h.shape[1], columns=False), W[rows], h, i > 0, last, W, labels, b, code)
        if not floats:
            h[...] = 0
            compiled.add_rows_activate(h, W, labels, b, code, 0, len(h), 0, len(b))
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
        """The slope and db in one pass, then for each float part both products, for labels a scatter-add."""
        dy = np.ascontiguousarray(dy)
        g = dy if activation == "linear" else self.empty(y.shape, y.dtype)
        sums = self.empty((PARTS, len(db)), y.dtype)
        self.run("slopes", dy, y, g, sums, db, accumulate, compiled.ACTIVATION[activation])

        dparts: list[Array | None] = []
        for (part, rows), need in zip(row_blocks(parts), need_dx, strict=True):
            if isinstance(part, OneHot):
                if not accumulate:
                    dW[rows] = 0
                compiled.scatter_add(g, part.labels, dW[rows])
                dparts.append(None)
            else:
                x = np.ascontiguousarray(part)
                dx = self.empty(x.shape if need else (0, 0), g.dtype)
                kept = _kept(x, g.shape[1], columns=True)
                self.run("dense_backward", x, kept, g, W[rows], dW[rows], accumulate, dx, need)
                dparts.append(dx if need else None)
        return tuple(dparts)

    def embedding_backward(self, dy: Array, labels: Array, dE: Array, accumulate: bool) -> None:
        """dE[labels_n] += dy_n, row by row."""
        if not accumulate:
            dE[...] = 0
        compiled.scatter_add(dy, labels, dE)

    def reparameterise(self, mean: Array, log_var: Array, eps: Array) -> Array:
        """Number by number."""
        z = self.empty(eps.shape, mean.dtype)
        compiled.reparameterise(mean, log_var, eps, z)
        return z

    def reparameterise_backward(self, dz: Array, log_var: Array, eps: Array) -> tuple[Array, Array]:
        """Number by number."""
        dmean, dlog_var = (self.empty(log_var.shape, dz.dtype) for _ in range(2))
        compiled.reparameterise_backward(dz, log_var, eps, dmean, dlog_var)
        return dmean, dlog_var

    def kl_standard(self, mean: Array, log_var: Array) -> tuple[Array, Array, Array]:
        """Number by number."""
        kl, dlog_var = (self.empty(mean.shape, mean.dtype) for _ in range(2))
        compiled.kl_standard(mean, log_var, kl, dlog_var)
        return kl, mean, dlog_var

    def kl_monte_carlo(self, mean: Array, log_var: Array, eps: Array) -> tuple[Array, Array, Array]:
        """Number by number."""
        kl, dmean, dlog_var = (self.empty(mean.shape, mean.dtype) for _ in range(3))
        compiled.kl_monte_carlo(mean, log_var, eps, kl, dmean, dlog_var)
        return kl, dmean, dlog_var

    def elbo(self, nll: Array, kl: Array, weight: float, floor: float) -> tuple[Array, Array, Array, Array, Array]:
        """Sums and derivatives in one pass."""
        dnll, dkl = self.empty(nll.shape, nll.dtype), self.empty(kl.shape, kl.dtype)
        return *compiled.elbo(nll, kl, weight, floor, dnll, dkl), dnll, dkl

    def bernoulli(self, logits: Array, x: Array) -> tuple[Array, Array]:
        """The likelihood and its derivative from one exponential an element."""
        nll, derivative = self.empty((len(x),), x.dtype), self.empty(x.shape, x.dtype)
        self.run("bernoulli", logits, x, nll, derivative)
        return nll, derivative

    def gaussian(self, logits: Array, x: Array, sigma: float) -> tuple[Array, Array]:
        """The likelihood and its derivative from one exponential an element."""
        nll, derivative = self.empty((len(x),), x.dtype), self.empty(x.shape, x.dtype)
        constant = x.shape[1] * (log(sigma) + log(2 * pi) / 2)
        self.run("gaussian", logits, x, nll, derivative, float(1 / sigma**2), float(constant))
        return nll, derivative

    def sigmoid(self, h: Array) -> Array:
        """Number by number."""
        y = np.empty(h.shape, h.dtype)  # for the caller, not for the step: means are handed out
        self.run("sigmoid", np.ascontiguousarray(h).reshape(h.size), y.reshape(h.size))
        return y

    def scale_rows(self, rows: Array, scale: Array) -> Array:
        """y_nd = scale_n rows_nd."""
        y = self.empty(rows.shape, rows.dtype)
        self.run("scale_rows", rows, scale, y)
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
        scalars = (float(learning_rate), float(momentum), bool(nesterov), float(weight_decay))
        self.run("sgd", value, grad, velocity, *scalars)

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
        scalars = (learning_rate, *decays, epsilon, *corrections, weight_decay)
        self.run("adam", value, grad, m, v, *map(float, scalars))
