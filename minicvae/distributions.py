"""The distributions of a CVAE: the diagonal Gaussian over z, and the likelihoods of x.

Each function returns its value and its backward, as layers do. The formulas and their derivations stand in
`kernels/reference.py`, beside the expressions that compute them; here they become links of a chain.

Shapes: n examples, l latent dimensions, s samples, d data dimensions. All values are in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minicvae.kernels import Array, Reference
from minicvae.kernels.reference import LOG_2PI
from minicvae.layers.layer import Backward, once

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Gaussian",
    "LearnedGaussian",
    "Likelihood",
    "kl_diagonal",
    "kl_monte_carlo",
    "kl_standard",
    "log_normal",
    "log_ratio",
    "masked_bernoulli",
    "relative",
    "reparameterise",
]


START = 0.001, 0.999  # what a decoder may be as sure of before it has seen anything


def reparameterise(kernels: Reference, mean: Array, log_var: Array, eps: Array) -> tuple[Array, Backward]:
    """z = mean + exp(log_var / 2) ⊙ eps: a sample of N(mean, exp(log_var)) through which gradients pass.

    mean, log_var (n, l), eps (s, n, l) -> z (s, n, l). backward: dz of the first s' <= s samples -> dmean, dlog_var.
    """
    z = kernels.reparameterise(mean, log_var, eps)

    @once
    def backward(dz: Array) -> tuple[Array, Array]:
        return kernels.reparameterise_backward(dz, log_var, eps)

    return z, backward


def kl_standard(kernels: Reference, mean: Array, log_var: Array) -> tuple[Array, Backward]:
    """KL(N(mean, exp(log_var)) ‖ N(0, I)) = ½ (exp(log_var) + mean² - 1 - log_var) for each dimension, (n, l)."""
    kl, dmean, dlog_var = kernels.kl_standard(mean, log_var)

    @once
    def backward(dkl: Array) -> tuple[Array, ...]:
        return kernels.scaled(dkl, dmean, dlog_var)

    return kl, backward


def kl_diagonal(
    kernels: Reference, mean: Array, log_var: Array, prior_mean: Array, prior_log_var: Array
) -> tuple[Array, Backward]:
    """KL between two diagonal Gaussians for each dimension, (n, l); the second is a conditional prior p(z|c).

    backward: dkl (n, l) -> (dmean, dlog_var, dprior_mean, dprior_log_var). Sohn, Lee, Yan 2015, equation 4.
    """
    kl, *derivatives = kernels.kl_diagonal(mean, log_var, prior_mean, prior_log_var)

    @once
    def backward(dkl: Array) -> tuple[Array, ...]:
        return kernels.scaled(dkl, *derivatives)

    return kl, backward


def kl_monte_carlo(kernels: Reference, mean: Array, log_var: Array, eps: Array) -> tuple[Array, Backward]:
    """(1/S) Σ_s [log q(z_s) - log p(z_s)] for each dimension, (n, l), with z_s = mean + exp(log_var/2) eps_s.

    The unbiased estimate of `kl_standard` from the samples eps (s, n, l).
    """
    kl, dmean, dlog_var = kernels.kl_monte_carlo(mean, log_var, eps)

    @once
    def backward(dkl: Array) -> tuple[Array, ...]:
        return kernels.scaled(dkl, dmean, dlog_var)

    return kl, backward


def log_ratio(kernels: Reference, mean: Array, log_var: Array, eps: Array) -> tuple[Array, Backward]:
    """log q(z_s|x,c) - log p(z_s) of each sample and dimension, (s, n, l), with z_s = mean + exp(log_var/2) eps_s.

    backward: dratio (s, n, l) -> dmean, dlog_var (n, l), which the samples share.
    """
    ratio, dmean, dlog_var = kernels.log_ratio(mean, log_var, eps)

    @once
    def backward(dratio: Array) -> tuple[Array, Array]:
        return (dratio * dmean).sum(axis=0), (dratio * dlog_var).sum(axis=0)

    return ratio, backward


def relative(
    kernels: Reference, mean: Array, log_var: Array, prior_mean: Array, prior_log_var: Array
) -> tuple[tuple[Array, Array], Backward]:
    """N(mean, e^lv) as it is seen from a conditional prior N(m, e^s): mean' = (mean - m) e^(-s/2), lv' = lv - s.

    z = m + e^(s/2) u turns the prior into N(0, I) of u, and N(mean, e^lv) of z into N(mean', e^lv') of u. A change of
    variables changes neither the KL nor the log ratio of two densities, so all that is written for N(0, I) holds for
    the prior p(z|c) too, once q is seen from there. All (n, l).

    backward: dmean', dlv' -> dmean, dlv, dm, ds:

        dmean = e^(-s/2) dmean'      dm = -dmean      dlv = dlv'      ds = -½ mean' dmean' - dlv'
    """
    scale = kernels.xp.exp(-prior_log_var / 2)
    seen = (mean - prior_mean) * scale

    @once
    def backward(dseen: Array, dlog_var: Array) -> tuple[Array, ...]:
        dmean = scale * dseen
        return dmean, dlog_var, -dmean, -seen * dseen / 2 - dlog_var

    return (seen, log_var - prior_log_var), backward


def log_normal(kernels: Reference, z: Array, mean: Array, log_var: Array) -> Array:
    """log N(z; mean, diag exp(log_var)) = -½ Σ_l (log_var + (z - mean)² e^-log_var + log 2π), (n,); all (n, l)."""
    u = (z - mean) * kernels.xp.exp(-log_var / 2)
    return -(log_var + u * u + LOG_2PI).sum(axis=1) / 2


def masked_bernoulli(kernels: Reference, logits: Array, x: Array, counted: Array) -> tuple[Array, Backward]:
    """-log p(x|l) = Σ over the pixels that are `counted` of softplus(l) - x l, for each example, (n,).

    logits, x (n, d), counted (n, d) bool. backward: dnll (n,) -> dlogits (n, d), zero where a pixel is not counted.
    A pixel that is 0 beyond doubt costs nothing, so the others are made such pixels.
    """
    xp, zero = kernels.xp, x.dtype.type(0)
    nll, slope = kernels.bernoulli(xp.where(counted, logits, x.dtype.type(-1e4)), xp.where(counted, x, zero))

    @once
    def backward(dnll: Array) -> Array:
        return kernels.scale_rows(xp.where(counted, slope, zero), dnll)

    return nll, backward


class Likelihood:
    """p(x|h), h the last layer's output: the base of all likelihoods."""

    def width(self, d: int) -> int:
        """Columns of h that a decoder must give for d data dimensions."""
        return d

    def forward(self, kernels: Reference, h: Array, x: Array) -> tuple[Array, Backward]:
        """-log p(x|h) of each example: h (n, width), x (n, d) -> nll (n,). backward: dnll (n,) -> dh (n, width)."""
        nll, derivative = self.loss(kernels, h, x)

        @once
        def backward(dnll: Array) -> Array:
            return kernels.scale_rows(derivative, dnll)

        return nll, backward

    def loss(self, kernels: Reference, h: Array, x: Array) -> tuple[Array, Array]:
        """-log p(x|h) of each example, (n,), and its derivative by h, (n, width)."""
        raise NotImplementedError

    def mean(self, kernels: Reference, h: Array) -> Array:
        """E[x|h]: the picture that a person is shown, (n, d)."""
        return kernels.sigmoid(h)

    def start(self, mean: np.ndarray) -> np.ndarray:
        """The h for which E[x|h] is `mean`, (width,), pixels in [0, 1]; kept off 0 and 1, where h would be infinite."""
        p = np.clip(mean, *START)
        return np.log(p / (1 - p))

    def sample(self, kernels: Reference, h: Array, rng: np.random.Generator) -> np.ndarray:
        """One draw of x from p(x|h), (n, d)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """-log p(x|l) = Σ softplus(l) - x l, l the logits; gradient sigmoid(l) - x.

    For x strictly between 0 and 1 this is the cross-entropy that the field trains grey pixels with, not the
    logarithm of a density (Loaiza-Ganem and Cunningham 2019).
    """

    def loss(self, kernels: Reference, h: Array, x: Array) -> tuple[Array, Array]:
        """Cross-entropy in nats and its derivative."""
        return kernels.bernoulli(h, x)

    def sample(self, kernels: Reference, h: Array, rng: np.random.Generator) -> np.ndarray:
        """Pixels 0 or 1."""
        p = kernels.to_numpy(kernels.sigmoid(h))
        return (rng.random(p.shape) < p).astype(p.dtype)


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """-log N(x; mu, sigma²) = Σ ½ ((x-mu)/sigma)² + log sigma + ½ log 2π, mu = sigmoid(h), sigma fixed."""

    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"sigma: expected a positive number, got {self.sigma!r}")

    def loss(self, kernels: Reference, h: Array, x: Array) -> tuple[Array, Array]:
        """Negative log density in nats and its derivative."""
        return kernels.gaussian(h, x, self.sigma)

    def sample(self, kernels: Reference, h: Array, rng: np.random.Generator) -> np.ndarray:
        """mu plus noise; not clipped to [0, 1]."""
        mu = kernels.to_numpy(kernels.sigmoid(h))
        return mu + (self.sigma * rng.standard_normal(mu.shape)).astype(mu.dtype)


@dataclass(frozen=True)
class LearnedGaussian(Likelihood):
    """-log N(x; mu, exp(v)) = Σ ½ ((x-mu)² e^-v + v + log 2π); h = [mu, v], a variance for every pixel."""

    def width(self, d: int) -> int:
        """A mean and a log variance for each data dimension."""
        return 2 * d

    def loss(self, kernels: Reference, h: Array, x: Array) -> tuple[Array, Array]:
        """Negative log density in nats and its derivative."""
        return kernels.gaussian_learned(h, x)

    def mean(self, kernels: Reference, h: Array) -> Array:
        """Mu, clipped to [0, 1] for the eye."""
        return kernels.xp.clip(h[:, : h.shape[1] // 2], 0, 1)

    def start(self, mean: np.ndarray) -> np.ndarray:
        """Mu, and a variance of 1."""
        return np.concatenate([mean, np.zeros_like(mean)])

    def sample(self, kernels: Reference, h: Array, rng: np.random.Generator) -> np.ndarray:
        """Mu plus noise of variance exp(v); not clipped."""
        mu, v = np.split(kernels.to_numpy(h), 2, axis=1)
        return mu + np.exp(v / 2) * rng.standard_normal(mu.shape).astype(mu.dtype)


LIKELIHOODS = (Bernoulli, Gaussian, LearnedGaussian)
