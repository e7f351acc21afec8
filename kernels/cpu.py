"""The `cpu` device: loops compiled by Numba that walk each array once, shared out to threads.

Products are made of register tiles, with the passes around them (`compiled_products.py`, for images `cpu_images.py`);
these and the other large kernels of a step are cut into pieces for whoever is free (`spread.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from math import log, pi
from typing import Any

import numpy as np

from minicvae.kernels import compiled, compiled_products, pieces, zeros
from minicvae.kernels.cpu_images import CpuImages
from minicvae.kernels.job import Job
from minicvae.kernels.recorded import Recorded, Recording, assign, plain
from minicvae.kernels.reference import Array, OneHot, Part, row_blocks
from minicvae.kernels.spread import Helpers
from minicvae.kernels.steps import portions
from minicvae.kernels.workspace import Workspace, aligned

BIAS_PARTS = 4  # of the examples, whose gradients of a bias are added up apart
AHEAD = 2**17  # bytes of what is drawn ahead of the steps that need it
NO_LABELS = np.empty((0, 0), np.int64)
ALL_TERMS = np.empty((0, 0), np.int32), np.empty((0, 0), np.int64)  # no list: as `compiled_products.all_terms`


class Cpu(CpuImages):
    """The kernels that are worth more than their NumPy expressions; the reference does the rest.

    Those for images stand in `cpu_images.py`.
    """

    name = "cpu"

    def __init__(self) -> None:
        super().__init__()
        self.workspace = Workspace()
        self.recording = Recording()
        self.helpers = Helpers()

    @property
    def threads(self) -> int:
        """How many may share the work, this one among them."""
        return self.helpers.size

    def begin_step(self) -> None:
        """From here on, arrays that kernels returned since the last `begin_step` may be overwritten."""
        self.workspace.begin()

    def end_steps(self) -> None:
        """Arrays that kernels return from here on belong to the caller for good."""
        self.workspace.end()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An uninitialised array, from the workspace inside a training loop."""
        notes = self.recording.notes
        return self.workspace.empty(shape, dtype) if notes is None else notes.empty(shape, dtype)

    def contiguous(self, x: Array) -> Array:
        """x itself if it is C-contiguous, else a copy of it."""
        if x.flags.c_contiguous:
            return x
        copy = self.empty(x.shape, x.dtype)
        self.call(assign, copy, x)
        return copy

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """function(*args), which changes some of its arguments; noted down where the step is being recorded."""
        notes = self.recording.notes
        if notes is None:
            function(*args)
        else:
            notes.call(function, *args)

    def run(self, kernel: Callable[..., None], *args: Any) -> None:
        """The kernel in pieces, here and on the helpers."""
        self.call(self._run, Job(kernel, tuple(map(plain, args))))

    def _run(self, job: Job) -> None:
        job.run(self.helpers.state)

    def repeated(self, run: Callable[..., Any], then: Callable[[Any], None], then_too: bool) -> Callable[..., Any]:
        """`run`, recorded (`recorded.py`) if it can be; `then` is one kernel, mostly, and would gain nothing."""
        return super().repeated(Recorded(self.recording, run), then, then_too)

    def goes_on(self, numbers: Sequence[Array]) -> bool:
        """Whether all numbers are finite; while a step is recorded True, and `Recorded` looks at them."""
        return self.recording.notes is not None or super().goes_on(numbers)

    def feed(self, arrays: Iterable[np.ndarray]) -> Iterator[Array]:
        """The host's arrays, some ahead of need: code that has just run runs faster."""
        return chain.from_iterable(portions(arrays, AHEAD))

    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array:
        """The arrays one after the other along an axis."""
        shape = list(arrays[0].shape)
        shape[axis] = sum(a.shape[axis] for a in arrays)
        result = self.empty(tuple(shape), arrays[0].dtype)
        self.call(np.concatenate, list(arrays), axis, result)
        return result

    def take(self, values: Array, index: Array) -> Array:
        """values[index]."""
        result = self.empty((len(index), *values.shape[1:]), values.dtype)
        self.call(np.ndarray.take, values, index, 0, result)
        return result

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of zeros, for keeps."""
        if self.recording.notes is not None:
            return self.recording.notes.zeros(shape, dtype)
        result = aligned(shape, dtype)
        result[...] = 0
        return result

    def gather(self, images: Array, index: Array, dtype: Any) -> Array:
        """x = images[index], with uint8 pixels scaled to [0, 1], in one pass."""
        x = self.empty((len(index), images.shape[1]), dtype)
        if images.dtype == np.uint8:
            self.run(pieces.gather_pixels, index, x, images)
        elif images.dtype == x.dtype:
            self.call(np.ndarray.take, images, index, 0, x, "clip")
        else:
            self.call(assign, x, self.take(images, index))
        return x

    def dense(self, parts: Sequence[Part], W: Array, b: Array, activation: str) -> Array:
        """A product for each float part; with the last one, the gathered rows, the bias and the activation."""
        floats, labels = self._split(parts)
        n = len(floats[0][0] if floats else labels)
        h = self.empty((n, len(b)), W.dtype)
        code = compiled.ACTIVATION[activation]
        floats = floats or [(np.empty((n, 0), W.dtype), slice(0))]
        last = len(floats) - 1
        for i, (x, rows) in enumerate(floats):
            kept = self._listed(zeros.of_rows, x, x.shape, W.shape[1])
            self.run(compiled_products.dense, x, kept, W[rows], h, i > 0, i == last, W, labels, b, code)
        return h

    def _listed(self, kernel: Callable[..., None], x: Array, shape: tuple[int, int], width: int) -> tuple[Array, Array]:
        """The terms that are left in a product of x, which has so many rows and terms, and the other factor `width`."""
        if x.size * width <= zeros.WORTH_LISTING:
            return ALL_TERMS
        terms, counts = (plain(self.empty(*wanted)) for wanted in zeros.room(*shape))
        self.run(kernel, x, terms, counts)
        return terms, counts

    def _split(self, parts: Sequence[Part]) -> tuple[list[tuple[Array, slice]], Array]:
        """The float parts with the rows of W that they meet; and for each example those of its labels, (n, labels)."""
        floats, labels = [], []
        for part, rows in row_blocks(parts):
            if isinstance(part, OneHot):
                labels.append((part.labels, rows.start))
            else:
                floats.append((self.contiguous(part), rows))
        if not labels:
            return floats, NO_LABELS
        found = self.empty((len(labels[0][0]), len(labels)), np.int64)
        for i, (given, start) in enumerate(labels):
            self.call(np.add, given, start, found[:, i])
        return floats, found

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
        """The slope and db in one pass; then each float part's products; labels are scattered."""
        dy = self.contiguous(dy)
        g = dy if activation == "linear" else self.empty(y.shape, y.dtype)
        sums = self.empty((BIAS_PARTS, len(db)), db.dtype)
        self.run(compiled_products.slopes, dy, y, g, sums, compiled.ACTIVATION[activation])
        self.call(compiled.add_parts, sums, db, accumulate, 0, len(db))
        dparts: list[Array | None] = []
        for (part, rows), need in zip(row_blocks(parts), need_dx, strict=True):
            if isinstance(part, OneHot):
                self.embedding_backward(g, part.labels, dW[rows], accumulate)
                dparts.append(None)
            else:
                x = self.contiguous(part)
                dx = self.empty(x.shape if need else (0, 0), g.dtype)
                kept = self._listed(zeros.of_columns, x, x.shape[::-1], W.shape[1])
                self.run(compiled_products.dense_backward, x, kept, g, W[rows], dW[rows], accumulate, dx, need)
                dparts.append(dx if need else None)
        return tuple(dparts)

    def embedding(self, E: Array, labels: Array) -> Array:
        """y = E[labels]."""
        return self.take(E, labels)

    def embedding_backward(self, dy: Array, labels: Array, dE: Array, accumulate: bool) -> None:
        """dE[labels_n] += dy_n, row by row."""
        if not accumulate:
            self.call(assign, dE, 0)
        self.call(compiled.scatter_add, dy, labels, dE)

    def reparameterise(self, mean: Array, log_var: Array, eps: Array) -> Array:
        """Number by number."""
        z = self.empty(eps.shape, mean.dtype)
        self.call(compiled.reparameterise, *self._flat(mean, log_var), *self._samples(eps, z))
        return z

    def reparameterise_backward(self, dz: Array, log_var: Array, eps: Array) -> tuple[Array, Array]:
        """Number by number."""
        dmean, dlog_var = (self.empty(log_var.shape, dz.dtype) for _ in range(2))
        rows, lines = self._samples(dz, eps), self._flat(log_var, dmean, dlog_var)
        self.call(compiled.reparameterise_backward, rows[0], lines[0], rows[1], *lines[1:])
        return dmean, dlog_var

    def kl_standard(self, mean: Array, log_var: Array) -> tuple[Array, Array, Array]:
        """Number by number."""
        kl, dlog_var = (self.empty(mean.shape, mean.dtype) for _ in range(2))
        self.call(compiled.kl_standard, *self._flat(mean, log_var, kl, dlog_var))
        return kl, mean, dlog_var

    def kl_monte_carlo(self, mean: Array, log_var: Array, eps: Array) -> tuple[Array, Array, Array]:
        """Number by number."""
        kl, dmean, dlog_var = (self.empty(mean.shape, mean.dtype) for _ in range(3))
        known, found = self._flat(mean, log_var), self._flat(kl, dmean, dlog_var)
        self.call(compiled.kl_monte_carlo, *known, *self._samples(eps), *found)
        return kl, dmean, dlog_var

    def _flat(self, *arrays: Array) -> list[Array]:
        """Each as a C-contiguous row of numbers."""
        return [self.contiguous(a).reshape(-1) for a in arrays]

    def _samples(self, *arrays: Array) -> list[Array]:
        """Each, of shape (samples, n, l), with a C-contiguous row of numbers for a sample."""
        return [self.contiguous(a).reshape(len(a), -1) for a in arrays]

    def elbo(self, nll: Array, kl: Array, weight: float, floor: float) -> tuple[Array, Array, Array, Array, Array]:
        """Sums and derivatives in one pass."""
        dnll, dkl = self.empty(nll.shape, nll.dtype), self.empty(kl.shape, kl.dtype)
        place, numbers = self.empty((), np.float64), self.empty((3,), np.float64)
        self.call(assign, place, weight)
        self.call(compiled.elbo, nll, kl, place, float(floor), dnll, dkl, numbers)
        return numbers[0], numbers[1], numbers[2], dnll, dkl

    def bernoulli(self, logits: Array, x: Array) -> tuple[Array, Array]:
        """The likelihood and its derivative from one exponential an element."""
        nll, derivative = self.empty((len(x),), x.dtype), self.empty(x.shape, x.dtype)
        self.run(pieces.bernoulli, logits, x, nll, derivative)
        return nll, derivative

    def gaussian(self, logits: Array, x: Array, sigma: float) -> tuple[Array, Array]:
        """The likelihood and its derivative from one exponential an element."""
        nll, derivative = self.empty((len(x),), x.dtype), self.empty(x.shape, x.dtype)
        constant = x.shape[1] * (log(sigma) + log(2 * pi) / 2)
        self.run(pieces.gaussian, logits, x, nll, derivative, float(1 / sigma**2), float(constant))
        return nll, derivative

    def sigmoid(self, h: Array) -> Array:
        """Number by number."""
        y = aligned(h.shape, h.dtype)  # for the caller, not for the step: means are handed out
        self.run(pieces.sigmoid, np.ascontiguousarray(h).reshape(h.size), y.reshape(h.size))
        return y

    def scale_rows(self, rows: Array, scale: Array) -> Array:
        """y_nd = scale_n rows_nd."""
        y = self.empty(rows.shape, rows.dtype)
        self.run(pieces.scale_rows, rows, scale, y)
        return y

    def sgd(
        self,
        value: Array,
        grad: Array,
        velocity: Array,
        learning_rate: float | Array,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
    ) -> None:
        """One pass over the three buffers."""
        scalars = (float(learning_rate), float(momentum), bool(nesterov), float(weight_decay))
        self.run(pieces.sgd, value, grad, velocity, *scalars)

    def adam(
        self,
        value: Array,
        grad: Array,
        m: Array,
        v: Array,
        step: Array,
        learning_rate: float | Array,
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
    ) -> None:
        """One pass over the four buffers."""
        step += 1
        # 1 - beta is taken in double precision: in float32 the difference would lose four digits.
        decays, t = (beta1, 1 - beta1, beta2, 1 - beta2), int(step[0])
        corrections = (1 / (1 - beta1**t), 1 / (1 - beta2**t))
        scalars = (learning_rate, *decays, epsilon, *corrections, weight_decay)
        self.run(pieces.adam, value, grad, m, v, *map(float, scalars))
