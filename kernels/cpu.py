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

from minicvae.kernels import compiled, shared
from minicvae.kernels.cpu_images import CpuImages
from minicvae.kernels.reference import Array, OneHot, Part, row_blocks
from minicvae.kernels.spread import Helpers
from minicvae.kernels.team import SerialBlas, Team, Work
from minicvae.kernels.workspace import Workspace, aligned

PER_NUMBER = 40  # multiply-adds of a product in the time in which a number is fetched, worked on and stored
WORTH_SHARING = 3_000_000  # multiply-adds: 40 microseconds, against five for handing over


def _floats(parts: Sequence[Part], n: int, dtype: Any) -> list[tuple[Array, slice]]:
    """The float parts with their rows of W; at least one, for the kernels to work with, though it may be empty."""
    found = [(np.ascontiguousarray(x), rows) for x, rows in row_blocks(parts) if not isinstance(x, OneHot)]
    return found or [(np.empty((n, 0), dtype), slice(0, 0))]


def _rows_of_labels(parts: Sequence[Part], n: int) -> Array:
    """For each example the rows of W that its labels meet, (n, labels)."""
    labels = [part.labels + rows.start for part, rows in row_blocks(parts) if isinstance(part, OneHot)]
    if len(labels) == 1:
        return labels[0][:, None]
    return np.stack(labels, axis=1) if labels else np.empty((n, 0), np.int64)


def _flat(*arrays: Array) -> list[Array]:
    """Each as a C-contiguous row of numbers."""
    return [np.ascontiguousarray(a).reshape(-1) for a in arrays]


def _samples(*arrays: Array) -> list[Array]:
    """Each, of shape (samples, n, l), with a C-contiguous row of numbers for a sample."""
    return [np.ascontiguousarray(a).reshape(len(a), -1) for a in arrays]


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

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of zeros, for keeps."""
        result = aligned(shape, dtype)
        result[...] = 0
        return result

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
        n = len(parts[0].labels if isinstance(parts[0], OneHot) else parts[0])
        floats, labels = _floats(parts, n, W.dtype), _rows_of_labels(parts, n)
        h = self.empty((n, len(b)), W.dtype)
        code = compiled.ACTIVATION[activation]
        for i, (x, rows) in enumerate(floats):
            self.run("dense", x, W[rows], h, i > 0, i == len(floats) - 1, W, labels, b, code)
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
        """The slope and db in one pass; both products of each float part; for labels a scatter-add."""
        floats = _floats(parts, len(dy), W.dtype)
        needs = [need for part, need in zip(parts, need_dx, strict=True) if not isinstance(part, OneHot)]
        dy = np.ascontiguousarray(dy)
        g = dy if activation == "linear" else self.empty(y.shape, y.dtype)
        slopes = dy, y, g, db, compiled.ACTIVATION[activation]
        dxs: list[Array | None] = []
        for i, ((x, rows), need) in enumerate(zip(floats, needs or [False], strict=True)):
            dx = self.empty(x.shape if need else (0, 0), g.dtype)
            self.run("dense_backward", i == 0, *slopes, x, W[rows], dW[rows], accumulate, dx, need)
            dxs.append(dx if need else None)
        for part, rows in row_blocks(parts):
            if isinstance(part, OneHot):
                if not accumulate:
                    dW[rows] = 0
                compiled.scatter_add(g, part.labels, dW[rows])
        of_floats = iter(dxs)
        return tuple(None if isinstance(part, OneHot) else next(of_floats) for part in parts)

    def embedding_backward(self, dy: Array, labels: Array, dE: Array, accumulate: bool) -> None:
        """dE[labels_n] += dy_n, row by row."""
        if not accumulate:
            dE[...] = 0
        compiled.scatter_add(dy, labels, dE)

    def reparameterise(self, mean: Array, log_var: Array, eps: Array) -> Array:
        """Number by number."""
        z = self.empty(eps.shape, mean.dtype)
        compiled.reparameterise(*_flat(mean, log_var), *_samples(eps, z))
        return z

    def reparameterise_backward(self, dz: Array, log_var: Array, eps: Array) -> tuple[Array, Array]:
        """Number by number."""
        dmean, dlog_var = (self.empty(log_var.shape, dz.dtype) for _ in range(2))
        compiled.reparameterise_backward(*_samples(dz), *_flat(log_var), *_samples(eps), *_flat(dmean, dlog_var))
        return dmean, dlog_var

    def kl_standard(self, mean: Array, log_var: Array) -> tuple[Array, Array, Array]:
        """Number by number."""
        kl, dlog_var = (self.empty(mean.shape, mean.dtype) for _ in range(2))
        compiled.kl_standard(*_flat(mean, log_var, kl, dlog_var))
        return kl, mean, dlog_var

    def kl_monte_carlo(self, mean: Array, log_var: Array, eps: Array) -> tuple[Array, Array, Array]:
        """Number by number."""
        kl, dmean, dlog_var = (self.empty(mean.shape, mean.dtype) for _ in range(3))
        compiled.kl_monte_carlo(*_flat(mean, log_var), *_samples(eps), *_flat(kl, dmean, dlog_var))
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
        y = aligned(h.shape, h.dtype)  # for the caller, not for the step: means are handed out
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
