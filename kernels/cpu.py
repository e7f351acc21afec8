"""The `cpu` device: BLAS products with fused Numba kernels around them.

Each kernel walks its arrays once and does everything there is to do at an element while it is in a register: the
gathered condition row, the bias and the activation after a product; the slope and the bias gradient before one; the
likelihood and its derivative, which share their exponential. Within a loop of steps the work is shared out by rows
(`team.py`): those of the examples, so that what a core computes is in its cache when the next kernel asks for it, and
those of the weights for their gradients.

Compiler flags, each for a reason: `error_model="numpy"` (a check for division by zero would keep loops from
vectorising), `fastmath` without `nnan` and `ninf` (sums may be reordered, but NaN and infinity must come through).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit

from minicvae.kernels.reference import Array, OneHot, Part, Reference, row_blocks
from minicvae.kernels.team import SerialBlas, Team
from minicvae.kernels.vector_math import exp
from minicvae.kernels.workspace import Workspace


def kernel(function: Callable[..., Any]) -> Any:
    """`function` compiled, and kept on disk where there is a place for it; elsewhere compiled anew in every process."""
    flags = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz", "arcp", "afn"}}
    try:
        return njit(cache=True, **flags)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return njit(**flags)(function)


# Numba compiles small integers better than strings.
ACTIVATION = {"linear": 0, "relu": 1, "tanh": 2, "elu": 3, "sigmoid": 4}

PER_NUMBER = 40  # multiply-adds of a product in the time in which a number is fetched, worked on and stored
WORTH_SHARING = 3_000_000  # multiply-adds: 40 microseconds, against five for handing over

CHUNK = 56  # factors of at most 2 in one product: 2^56 is far from overflow, and 14 chunks make 784


@kernel
def _gather_pixels(images, index, x):
    """x = images[index] / 255."""
    scale = x.dtype.type(255)
    for i in range(len(index)):
        row = images[index[i]]
        for j in range(x.shape[1]):
            x[i, j] = row[j] / scale


@kernel
def _add_rows_activate(h, W, rows, b, activation):
    """h ← f(h + Σ_p W[rows[:, p]] + b) in place; h (n, d), W (·, d), rows (n, parts), b (d,)."""
    n, d = h.shape
    one = h.dtype.type(1)
    zero = h.dtype.type(0)
    for i in range(n):
        y = h[i]
        for p in range(rows.shape[1]):
            w = W[rows[i, p]]
            for j in range(d):
                y[j] += w[j]
        if activation == 1:
            for j in range(d):
                v = y[j] + b[j]
                y[j] = zero if v < zero else v
        else:
            for j in range(d):
                y[j] += b[j]
            if activation == 2:
                for j in range(d):
                    y[j] = np.tanh(y[j])
            elif activation == 3:
                for j in range(d):
                    y[j] = y[j] if y[j] > zero else np.expm1(y[j])
            elif activation == 4:
                for j in range(d):
                    t = exp(-abs(y[j]))
                    y[j] = (one if y[j] >= zero else t) / (one + t)


@kernel
def _slope_times(dy, y, g, db, activation):
    """g = dy ⊙ f'(h), told from y = f(h), and db += Σ_n g_n in the same pass; dy, y, g (n, d), db (d,)."""
    n, d = dy.shape
    one = dy.dtype.type(1)
    zero = dy.dtype.type(0)
    for i in range(n):
        if activation == 1:
            for j in range(d):
                g[i, j] = dy[i, j] if y[i, j] > zero else zero
        elif activation == 2:
            for j in range(d):
                g[i, j] = dy[i, j] * (one - y[i, j] * y[i, j])
        elif activation == 3:
            for j in range(d):
                g[i, j] = dy[i, j] * (one if y[i, j] > zero else y[i, j] + one)
        elif activation == 4:
            for j in range(d):
                g[i, j] = dy[i, j] * (y[i, j] * (one - y[i, j]))
        else:
            for j in range(d):
                g[i, j] = dy[i, j]
        for j in range(d):
            db[j] += g[i, j]


@kernel
def _scatter_add(g, labels, dW):
    """dW[labels_n] += g_n for every n; repeated labels add up."""
    for i in range(len(labels)):
        row = dW[labels[i]]
        for j in range(g.shape[1]):
            row[j] += g[i, j]


@kernel
def _bernoulli(logits, x, nll, derivative):
    """nll_n = Σ_d softplus(l) - x l and derivative = sigmoid(l) - x, with one exponential for both.

    Σ log(1 + t_d) = log Π (1 + t_d): one logarithm for every `CHUNK` factors, each of which lies in (1, 2].
    """
    n, d = logits.shape
    one = logits.dtype.type(1)
    zero = logits.dtype.type(0)
    whole = d // CHUNK
    for i in range(n):
        total = zero
        for chunk in range(whole + 1):
            start = chunk * CHUNK
            product = one
            linear = zero
            # A constant trip count is what lets LLVM vectorise the loop over a whole chunk.
            if chunk < whole:
                for j in range(CHUNK):
                    v = logits[i, start + j]
                    target = x[i, start + j]
                    t = exp(-abs(v))
                    product *= one + t
                    linear += (v if v > zero else zero) - target * v
                    derivative[i, start + j] = (one if v >= zero else t) / (one + t) - target
            else:
                for j in range(start, d):
                    v = logits[i, j]
                    target = x[i, j]
                    t = exp(-abs(v))
                    product *= one + t
                    linear += (v if v > zero else zero) - target * v
                    derivative[i, j] = (one if v >= zero else t) / (one + t) - target
            total += np.log(product) + linear
        nll[i] = total


@kernel
def _gaussian(logits, x, nll, derivative, precision, constant):
    """nll_n = Σ_d ½ (mu - x)² precision + constant, mu = sigmoid(l), and its derivative by l."""
    n, d = logits.shape
    one = logits.dtype.type(1)
    zero = logits.dtype.type(0)
    half = logits.dtype.type(0.5)
    for i in range(n):
        total = zero
        for j in range(d):
            v = logits[i, j]
            t = exp(-abs(v))
            mu = (one if v >= zero else t) / (one + t)
            r = mu - x[i, j]
            total += r * r
            derivative[i, j] = r * precision * mu * (one - mu)
        nll[i] = half * precision * total + constant


@kernel
def _scale_rows(rows, scale, y):
    for i in range(len(rows)):
        s = scale[i]
        for j in range(rows.shape[1]):
            y[i, j] = rows[i, j] * s


# Where a unit is dead its gradient is 0, and its moments shrink step by step into the subnormal numbers, on which a
# processor takes a hundred times as long: Adam came to need 850 us in place of 300. So what is smaller than the
# smallest normal number, `tiny`, is 0 here.


@kernel
def _sgd(value, grad, velocity, rate, momentum, nesterov, decay, tiny):
    zero = value.dtype.type(0)
    for i in range(len(value)):
        g = grad[i] + decay * value[i]
        v = momentum * velocity[i] + g
        v = zero if abs(v) < tiny else v
        velocity[i] = v
        value[i] -= rate * (g + momentum * v if nesterov else v)


@kernel
def _adam(value, grad, m, v, rate, beta1, rest1, beta2, rest2, epsilon, m_scale, v_scale, decay, tiny):
    zero = value.dtype.type(0)
    for i in range(len(value)):
        g = grad[i]
        m_i = beta1 * m[i] + rest1 * g
        v_i = beta2 * v[i] + rest2 * g * g
        m_i = zero if abs(m_i) < tiny else m_i
        v_i = zero if abs(v_i) < tiny else v_i
        m[i] = m_i
        v[i] = v_i
        value[i] -= rate * (m_i * m_scale / (np.sqrt(v_i * v_scale) + epsilon) + decay * value[i])


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


class Cpu(Reference):
    """The kernels that are worth more than their NumPy expressions; the reference does the rest."""

    name = "cpu"

    def __init__(self) -> None:
        super().__init__()
        self.workspace = Workspace()
        self.team = Team()
        self.blas = SerialBlas()

    def begin_step(self) -> None:
        """From here on, arrays that kernels returned since the last `begin_step` may be overwritten."""
        if not self.workspace.active:
            self.blas.hold()
        self.workspace.begin()

    def end_steps(self) -> None:
        """Arrays that kernels return from here on belong to the caller for good."""
        if self.workspace.active:
            self.blas.release()
        self.workspace.end()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised array, from the workspace inside a training loop."""
        return self.workspace.empty(shape, dtype)

    def share(self, work: Callable[[int, int], None], length: int, cost: int) -> None:
        """work(start, stop) over `range(length)`, by the team where the work (in multiply-adds) is worth it."""
        if cost > WORTH_SHARING and self.workspace.active:
            self.team.share(work, length)
        else:
            work(0, length)

    def gather(self, images: Array, index: Array, dtype: Any) -> Array:
        """x = images[index], with uint8 pixels scaled to [0, 1], in one pass."""
        x = self.empty((len(index), images.shape[1]), dtype)
        if images.dtype == np.uint8:
            self.share(lambda i, j: _gather_pixels(images, index[i:j], x[i:j]), len(x), x.size * PER_NUMBER)
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
            _add_rows_activate(h_ij, W, labels[i:j], b, ACTIVATION[activation])

        self.share(some, n, n * W.size)
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
            _slope_times(dy[i:j], y[i:j], g[i:j], sums[i], ACTIVATION[activation])
            for dx, W_T in products:
                np.matmul(g[i:j], W_T, out=dx[i:j])

        self.share(by_examples, n, n * d * PER_NUMBER + n * sum(W_T.size for _, W_T in products))
        if not accumulate:
            db[...] = 0
        for start in sorted(sums):
            db += sums[start]

        for (part, rows), _ in blocks:
            dW_p = dW[rows]
            if isinstance(part, OneHot):
                if not accumulate:
                    dW_p[...] = 0
                _scatter_add(g, part.labels, dW_p)
            else:

                def by_weights(i: int, j: int, x_T: Array = part.T, dW_p: Array = dW_p) -> None:
                    if accumulate:
                        dW_p[i:j] += x_T[i:j] @ g
                    else:
                        np.matmul(x_T[i:j], g, out=dW_p[i:j])

                self.share(by_weights, len(dW_p), n * dW_p.size)
        return tuple(dparts)

    def embedding_backward(self, dy: Array, labels: Array, dE: Array, accumulate: bool) -> None:
        """dE[labels_n] += dy_n, row by row."""
        if not accumulate:
            dE[...] = 0
        _scatter_add(dy, labels, dE)

    def bernoulli(self, logits: Array, x: Array) -> tuple[Array, Array]:
        """The likelihood and its derivative from one exponential an element."""
        nll, derivative = self.empty((len(x),), x.dtype), self.empty(x.shape, x.dtype)
        self.share(lambda i, j: _bernoulli(logits[i:j], x[i:j], nll[i:j], derivative[i:j]), len(x), x.size * PER_NUMBER)
        return nll, derivative

    def gaussian(self, logits: Array, x: Array, sigma: float) -> tuple[Array, Array]:
        """The likelihood and its derivative from one exponential an element."""
        nll, derivative = self.empty((len(x),), x.dtype), self.empty(x.shape, x.dtype)
        constant = x.shape[1] * (np.log(sigma) + np.log(2 * np.pi) / 2)
        scalars = (x.dtype.type(1 / sigma**2), x.dtype.type(constant))
        self.share(
            lambda i, j: _gaussian(logits[i:j], x[i:j], nll[i:j], derivative[i:j], *scalars),
            len(x),
            x.size * PER_NUMBER,
        )
        return nll, derivative

    def scale_rows(self, rows: Array, scale: Array) -> Array:
        """y_nd = scale_n rows_nd."""
        y = self.empty(rows.shape, rows.dtype)
        self.share(lambda i, j: _scale_rows(rows[i:j], scale[i:j], y[i:j]), len(y), y.size * PER_NUMBER)
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
            lambda i, j: _sgd(value[i:j], grad[i:j], velocity[i:j], *scalars), len(value), len(value) * PER_NUMBER
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
            lambda i, j: _adam(value[i:j], grad[i:j], m[i:j], v[i:j], *constants), len(value), len(value) * PER_NUMBER
        )
