"""The contract: every kernel in plain array expressions, each beside its derivation.

This file is the specification. It is the shortest text that is right, and it runs on NumPy or CuPy arrays alike
(`xp`). The faster files subclass `Reference` and are held to it; it is held to finite differences.

Two shapes of kernel:

* a map and its twin, `foo` and `foo_backward`: y = foo(x), dx = foo_backward(dy, ...);
* a loss that returns its value and its derivative from one pass, because both share the expensive part.

dy, dx, dW always mean dL/dy, dL/dx, dL/dW and have the shape of y, x, W. Axis letters: n examples, d features or
data dimensions, l latent dimensions, s samples of the latent. Every kernel computes in the type that it is given.
Arguments are checked where users hand them in, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from minicvae.kernels.convolution import Convolution
from minicvae.kernels.steps import in_turn

Array = Any  # numpy.ndarray or cupy.ndarray

LOG_2PI = float(np.log(2 * np.pi))


class OneHot(NamedTuple):
    """A one-hot matrix (n, classes), held as its labels (n,)."""

    labels: Array
    classes: int


Part = Array | OneHot


def row_blocks(parts: Sequence[Part]) -> Iterator[tuple[Part, slice]]:
    """Each part of a joined input with the rows of W that it meets: `[x, c] W = x W[:d_x] + c W[d_x:]`."""
    start = 0
    for part in parts:
        width = part.classes if isinstance(part, OneHot) else part.shape[1]
        yield part, slice(start, start + width)
        start += width


class Reference(Convolution):
    """Every kernel on the array module `xp`; those for images stand in `convolution.py`."""

    name = "numpy"

    def __init__(self, xp: Any = np) -> None:
        self.xp = xp

    # Arrays in and out

    def array(self, values: Array, dtype: Any = None) -> Array:
        """`values` as an array of this device; copied only where that is needed."""
        return self.xp.asarray(values, dtype=dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of zeros, for keeps."""
        return self.xp.zeros(shape, dtype)

    def to_numpy(self, values: Array) -> np.ndarray:
        """`values` as a NumPy array of their own, which no later step overwrites."""
        return np.array(values)

    def feed(self, arrays: Iterable[np.ndarray]) -> Iterator[Array]:
        """The host's arrays, one after the other, on this device, which may take them ahead of need."""
        return map(self.array, arrays)

    def read(self, numbers: Sequence[Sequence[Array]]) -> np.ndarray:
        """Rows of single numbers, as kernels and reductions return them, on the host; (rows, columns) float64."""
        return np.array([[float(x) for x in row] for row in numbers])

    def repeated(self, run: Callable[..., Any], then: Callable[[Any], None], then_too: bool) -> Callable[..., Any]:
        """step(rate, *arguments): `run(*arguments)`, a named tuple of single numbers, returned after `then(rate)`.

        The arguments are arrays and numbers. A device may record what `run` computes, and what `then` does if it says
        `then_too`, and from then on compute that without running them: what they do on the host is done only where they
        are recorded, and of numbers they are given arrays without dimensions.
        """
        return in_turn(run, then)

    def goes_on(self, numbers: Sequence[Array]) -> bool:
        """Whether a training may go on: all of the numbers, its losses, are finite.

        A device that would have to wait for the answer says True, and from the first number on that is not finite its
        optimisers leave all parameters as they are, until `end_steps`. So does one that records, and looks afterwards.
        """
        return all(map(isfinite, numbers))

    def take(self, values: Array, index: Array) -> Array:
        """values[index], of the rows whose numbers the index holds, (n,)."""
        return values[index]

    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array:
        """The arrays one after the other along an axis."""
        return self.xp.concatenate(arrays, axis=axis)

    def wait(self) -> None:
        """Until everything that was launched is done: for clocks."""

    def begin_step(self) -> None:
        """From here on, arrays that kernels returned since the last `begin_step` may be overwritten."""

    def end_steps(self) -> None:
        """Arrays that kernels return from here on belong to the caller for good."""

    @contextmanager
    def steps(self) -> Iterator[Callable[[], None]]:
        """A loop of steps: yields `begin_step`, and ends the steps however the loop ends."""
        try:
            yield self.begin_step
        finally:
            self.end_steps()

    def gather(self, images: Array, index: Array, dtype: Any) -> Array:
        """x = images[index], with uint8 pixels scaled to [0, 1]; images (N, d), index (n,) -> (n, d)."""
        x = images[index].astype(dtype)
        return x / 255 if images.dtype == np.uint8 else x

    # Networks

    def activate(self, h: Array, activation: str) -> Array:
        """y = f(h): relu max(h, 0); tanh; elu h or exp(h) - 1; sigmoid 1 / (1 + exp(-h)); linear h."""
        xp = self.xp
        if activation == "relu":
            return xp.maximum(h, 0)
        if activation == "tanh":
            return xp.tanh(h)
        if activation == "elu":
            return xp.where(h > 0, h, xp.expm1(xp.minimum(h, 0)))
        if activation == "sigmoid":
            return self.sigmoid(h)
        return h

    def activation_slope(self, y: Array, activation: str) -> Array:
        """f'(h) told from y = f(h) alone, so that h need not be kept.

        relu: 1 where y > 0 (0 at the kink); tanh: 1 - y²; elu: 1 where y > 0, else exp(h) = y + 1;
        sigmoid: y (1 - y); linear: 1.
        """
        xp = self.xp
        if activation == "relu":
            return (y > 0).astype(y.dtype)
        if activation == "tanh":
            return 1 - y * y
        if activation == "elu":
            return xp.where(y > 0, xp.ones_like(y), y + 1)
        if activation == "sigmoid":
            return y * (1 - y)
        return xp.ones_like(y)

    def sigmoid(self, h: Array) -> Array:
        """1 / (1 + exp(-h)), with the exponent never positive: t = exp(-|h|), then 1/(1+t) or t/(1+t)."""
        xp = self.xp
        t = xp.exp(-xp.abs(h))
        return xp.where(h >= 0, 1 / (1 + t), t / (1 + t))

    def dense(self, parts: Sequence[Part], W: Array, b: Array, activation: str) -> Array:
        """y = f(Σ_p part_p W_p + b): the product [part_1, part_2, ...] W without the concatenation.

        parts: arrays (n, d_p) or `OneHot`; W (Σ d_p, d_out) with its rows in the order of the parts; b (d_out,) -> y
        (n, d_out). A one-hot row times W_p is the row W_p[label]: a gather.
        """
        h = b
        for part, rows in row_blocks(parts):
            W_p = W[rows]
            h = h + (W_p[part.labels] if isinstance(part, OneHot) else part @ W_p)
        return self.activate(h, activation)

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
        """The gradients of `dense`: writes dW and db, returns dL/dpart for each part that `need_dx` asks for.

        With h = Σ_p part_p W_p + b and g = dL/dh:

            y = f(h), element by element           g  = dy ⊙ f'(h)
            h_nj = Σ_i x_ni W_ij + b_j             dW_ij = Σ_n x_ni g_nj      dW = xᵀ g
                                                   db_j  = Σ_n g_nj
                                                   dx_ni = Σ_j g_nj W_ij      dx = g Wᵀ
            x_n one-hot at k_n: the same dW = xᵀ g reads dW_k = Σ over {n: k_n = k} of g_n

        dW, db: overwritten, or added to where `accumulate` is true (the layer ran before in this step).
        """
        g = dy * self.activation_slope(y, activation)
        if not accumulate:
            dW[...] = 0
            db[...] = 0
        db += g.sum(axis=0)
        dparts: list[Array | None] = []
        for (part, rows), need in zip(row_blocks(parts), need_dx, strict=True):
            if isinstance(part, OneHot):
                dW[rows] += self.one_hot(part, g.dtype).T @ g
                dparts.append(None)
            else:
                dW[rows] += part.T @ g
                dparts.append(g @ W[rows].T if need else None)
        return tuple(dparts)

    def one_hot(self, part: OneHot, dtype: Any) -> Array:
        """The one-hot matrix itself, (n, classes)."""
        return (part.labels[:, None] == self.xp.arange(part.classes)).astype(dtype)

    def embedding(self, E: Array, labels: Array) -> Array:
        """y = E[labels]; E (classes, d), labels (n,) -> y (n, d)."""
        return E[labels]

    def embedding_backward(self, dy: Array, labels: Array, dE: Array, accumulate: bool) -> None:
        """dE_k = Σ over {n: labels_n = k} of dy_n: y = onehot(labels) E, so dE = onehotᵀ dy. Repeats add up."""
        if not accumulate:
            dE[...] = 0
        dE += self.one_hot(OneHot(labels, len(dE)), dy.dtype).T @ dy

    # The Gaussian posterior

    def reparameterise(self, mean: Array, log_var: Array, eps: Array) -> Array:
        """z = mean + exp(log_var / 2) ⊙ eps; mean, log_var (n, l), eps (s, n, l) -> z (s, n, l).

        Kingma and Welling 2014, section 2.4.
        """
        return mean + self.xp.exp(log_var / 2) * eps

    def reparameterise_backward(self, dz: Array, log_var: Array, eps: Array) -> tuple[Array, Array]:
        """dmean = Σ_s dz_s;  dlog_var = Σ_s ½ dz_s ⊙ eps_s ⊙ exp(log_var / 2).

        z_s = mean + exp(log_var/2) eps_s gives dz_s/dmean = 1 and dz_s/dlog_var = ½ exp(log_var/2) eps_s; mean and
        log_var are shared by the samples, so their gradients add up over s. dz (s', n, l) may hold the gradients of
        the first s' <= s samples only: the others were not used.
        """
        eps = eps[: len(dz)]
        return dz.sum(axis=0), (dz * eps).sum(axis=0) * (self.xp.exp(log_var / 2) / 2)

    def scaled(self, d: Array, *derivatives: Array) -> tuple[Array, ...]:
        """d ⊙ each derivative: the chain rule through one number that depends on several; all (n, l)."""
        return tuple(d * derivative for derivative in derivatives)

    def joined_sum(self, a: tuple[Array, Array], b: tuple[Array, Array]) -> Array:
        """[a_1 + b_1, a_2 + b_2], side by side; each (n, l) -> (n, 2 l)."""
        return self.concatenate([a[0] + b[0], a[1] + b[1]], axis=1)

    def kl_standard(self, mean: Array, log_var: Array) -> tuple[Array, Array, Array]:
        """KL(N(mean, exp(log_var)) ‖ N(0, 1)) for each example and dimension, with both derivatives; all (n, l).

            kl = ½ (exp(lv) + mean² - 1 - lv)        dkl/dmean = mean        dkl/dlv = ½ (exp(lv) - 1)

        Kingma and Welling 2014, appendix B. `expm1` keeps the digits near lv = 0.
        """
        v = self.xp.expm1(log_var)
        return (v - log_var + mean * mean) / 2, mean, v / 2

    def kl_diagonal(
        self, mean: Array, log_var: Array, prior_mean: Array, prior_log_var: Array
    ) -> tuple[Array, Array, Array, Array, Array]:
        """KL(N(mean, e^lv) ‖ N(m, e^s)) for each example and dimension, with its four derivatives; all (n, l).

        kl = ½ (s - lv + (e^lv + (mean-m)²) e^-s - 1) = ½ (e^r - 1 - r + u²)
        with r = lv - s (log of the variances' ratio) and u = (mean - m) e^(-s/2):
        dkl/dmean = (mean-m) e^-s     dkl/dlv = ½ (e^r - 1)
        dkl/dm    = -(mean-m) e^-s    dkl/ds  = ½ (1 - e^r - u²)
        """
        xp = self.xp
        ratio = xp.expm1(log_var - prior_log_var)
        scale = xp.exp(-prior_log_var / 2)
        u = (mean - prior_mean) * scale
        kl = (ratio - (log_var - prior_log_var) + u * u) / 2
        dmean = u * scale
        return kl, dmean, ratio / 2, -dmean, -(ratio + u * u) / 2

    def log_ratio(self, mean: Array, log_var: Array, eps: Array) -> tuple[Array, Array, Array]:
        """log q(z_s) - log p(z_s) of each sample and dimension, p = N(0, 1), with both derivatives; all (s, n, l).

        With z_s = mean + exp(lv/2) eps_s, s = 1..S, for each dimension:

            log q(z_s) = -½ (lv + eps_s² + log 2π)         log p(z_s) = -½ (z_s² + log 2π)
            r_s = log q(z_s) - log p(z_s) = ½ (z_s² - eps_s² - lv)

        log q depends on mean and lv only through -½ lv once z_s - mean = exp(lv/2) eps_s is put in; z_s² carries the
        rest, with dz_s/dmean = 1 and dz_s/dlv = ½ exp(lv/2) eps_s:

            dr_s/dmean = z_s                               dr_s/dlv = ½ (z_s eps_s exp(lv/2) - 1)

        These are the whole derivatives: by where z_s lies as well as by the density there.
        """
        step = self.xp.exp(log_var / 2) * eps
        z = mean + step
        return (z * z - eps * eps - log_var) / 2, z, (z * step - 1) / 2

    def kl_monte_carlo(self, mean: Array, log_var: Array, eps: Array) -> tuple[Array, Array, Array]:
        """The KL to N(0, 1) estimated from samples, (1/S) Σ_s r_s of `log_ratio`, with both derivatives; all (n, l)."""
        ratio, dmean, dlog_var = self.log_ratio(mean, log_var, eps)
        return ratio.mean(axis=0), dmean.mean(axis=0), dlog_var.mean(axis=0)

    def log_mean_exp(self, log_w: Array) -> tuple[Array, Array]:
        """b_n = log (1/S) Σ_s exp(log_w_sn) and its derivative, the normalised weights; log_w (s, n) -> (n,), (s, n).

            db_n/dlog_w_sn = exp(log_w_sn) / Σ_t exp(log_w_tn) = v_sn,        Σ_s v_sn = 1

        With m_n = max_s log_w_sn taken out of the sum, b_n = m_n + log (1/S) Σ_s exp(log_w_sn - m_n): the largest
        exponential is 1, so that none overflows and their sum is not 0.
        """
        xp = self.xp
        largest = log_w.max(axis=0)
        w = xp.exp(log_w - largest)
        total = w.sum(axis=0)
        return largest + xp.log(total / len(log_w)), w / total

    # Likelihoods: the negative log-likelihood of each example in nats, (n,), and its derivative

    def bernoulli(self, logits: Array, x: Array) -> tuple[Array, Array]:
        """-log p(x|l) = Σ_d softplus(l_d) - x_d l_d and its derivative sigmoid(l) - x; l, x (n, d) -> (n,), (n, d).

        p = sigmoid(l):  -x log p - (1-x) log(1-p) = log(1 + e^l) - x l,  and d/dl log(1 + e^l) = sigmoid(l).
        softplus(l) = max(l, 0) + log(1 + exp(-|l|)), in which nothing overflows.
        """
        xp = self.xp
        softplus = xp.maximum(logits, 0) + xp.log1p(xp.exp(-xp.abs(logits)))
        return (softplus - x * logits).sum(axis=1), self.sigmoid(logits) - x

    def gaussian(self, logits: Array, x: Array, sigma: float) -> tuple[Array, Array]:
        """-log N(x; sigmoid(l), sigma²) = Σ_d ½ u² + log sigma + ½ log 2π, u = (mu - x) / sigma, and its derivative.

        With mu = sigmoid(l):  d/dmu = u / sigma,  dmu/dl = mu (1 - mu);  l, x (n, d) -> (n,), (n, d).
        """
        mu = self.sigmoid(logits)
        u = (mu - x) / sigma
        constant = x.shape[1] * (float(np.log(sigma)) + LOG_2PI / 2)
        return (u * u).sum(axis=1) / 2 + constant, u / sigma * mu * (1 - mu)

    def gaussian_learned(self, h: Array, x: Array) -> tuple[Array, Array]:
        """-log N(x; mu, exp(v)) = Σ_d ½ ((x-mu)² e^-v + v + log 2π) and its derivative by h = [mu, v].

            d/dmu = (mu - x) e^-v        d/dv = ½ (1 - (x - mu)² e^-v)

        h (n, 2d) holds mu in its first d columns and v in its last d; x (n, d) -> (n,), (n, 2d).
        """
        xp = self.xp
        mu, v = h[:, : x.shape[1]], h[:, x.shape[1] :]
        precision = xp.exp(-v)
        r = mu - x
        square = r * r * precision
        nll = ((square + v).sum(axis=1) + x.shape[1] * LOG_2PI) / 2
        return nll, xp.concatenate([r * precision, (1 - square) / 2], axis=1)

    def softmax_cross_entropy(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """-log p(y|l) = log Σ_k exp(l_k) - l_y and its derivative; l (n, classes), y labels (n,) -> (n,), (n, classes).

            p(k|l) = exp(l_k) / Σ_j exp(l_j)          d/dl_k = p(k|l) - [k = y]

        The largest logit is taken out of the sum, so that no exponential overflows.
        """
        xp = self.xp
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
        onehot = self.one_hot(OneHot(labels, logits.shape[1]), logits.dtype)
        return -(log_p * onehot).sum(axis=1), xp.exp(log_p) - onehot

    # Objectives

    def elbo(self, nll: Array, kl: Array, weight: float, floor: float) -> tuple[Array, Array, Array, Array, Array]:
        """The mean losses of a batch in nats, summed in float64, and their derivatives by nll and kl.

            reconstruction = 1/(s n) Σ_s Σ_n nll_sn                      dnll = 1/(s n)
            kl_l = 1/n Σ_n kl_nl,   kl = Σ_l kl_l
            loss = reconstruction + weight Σ_l max(floor, kl_l)          dkl_nl = weight/n where kl_l > floor, else 0

        nll (s, n), kl (n, l) -> loss, reconstruction and kl, a number each, dnll (s, n), dkl (n, l).
        """
        xp = self.xp
        by_dimension = kl.mean(axis=0, dtype=np.float64)
        reconstruction = nll.mean(dtype=np.float64)
        loss = reconstruction + weight * xp.maximum(by_dimension, floor).sum()
        dnll = xp.full(nll.shape, 1 / nll.size, nll.dtype)
        dkl = (weight / len(kl) * (by_dimension > floor)).astype(kl.dtype)
        return loss, reconstruction, by_dimension.sum(), dnll, xp.broadcast_to(dkl, kl.shape)

    def scale_rows(self, rows: Array, scale: Array) -> Array:
        """y_nd = scale_n rows_nd: the chain rule through a loss of each example; rows (n, d), scale (n,)."""
        return rows * scale[:, None]

    # Optimisers, over all parameters at once: value, grad and the moments are flat and change in place

    def norm(self, grad: Array) -> Array:
        """sqrt(Σ grad²), summed in float64."""
        return self.xp.sqrt((grad.astype(np.float64) ** 2).sum())

    def clip(self, grad: Array, limit: float) -> Array:
        """g ← g · limit / max(‖g‖, limit), in place; returns ‖g‖."""
        norm = self.norm(grad)
        if norm > limit:
            grad *= limit / float(norm)
        return norm

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
        """v ← momentum v + g + weight_decay value;  value ← value - rate (v, or g + momentum v with Nesterov).

        Sutskever, Martens, Dahl, Hinton 2013, in the form that scales the whole velocity by the rate.
        """
        g = grad + weight_decay * value
        velocity *= momentum
        velocity += g
        value -= learning_rate * (g + momentum * velocity if nesterov else velocity)

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
        """Adam with decoupled weight decay (AdamW where `weight_decay` > 0); step: t, int64 (1,), which is incremented.

            t ← t + 1
            m ← β1 m + (1-β1) g          m̂ = m / (1 - β1^t)
            v ← β2 v + (1-β2) g²         v̂ = v / (1 - β2^t)
            value ← value - rate (m̂ / (√v̂ + ε) + weight_decay value)

        Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2.
        """
        step += 1
        m *= beta1
        m += (1 - beta1) * grad
        v *= beta2
        v += (1 - beta2) * grad * grad
        m_hat = m / (1 - beta1**step).astype(m.dtype)  # the power in float64
        v_hat = v / (1 - beta2**step).astype(v.dtype)
        value -= learning_rate * (m_hat / (self.xp.sqrt(v_hat) + epsilon) + weight_decay * value)
