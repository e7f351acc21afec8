"""What a trained model is worth on images that it was not trained on: the losses, and the log-likelihood itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minicvae import conditions, distributions
from minicvae.checks import whole
from minicvae.models.base import BATCH, Trainable, batches
from minicvae.models.cvae import ConditionalVAE
from minicvae.randomness import Purpose, standard_normal

__all__ = ["evaluate", "log_likelihood", "weighted_mean"]


def evaluate(model: Trainable, x: Any, c: Any, *, seed: int = 0) -> dict[str, float]:
    """{"loss", "reconstruction", "kl"} in nats per example, averaged over all examples of (x, c).

    With an adversary also {"fooling", "discrimination"}, which the loss does not contain.

    The objective of training with its full beta, estimated with as many samples of z; the noise is a function of
    `seed` alone, so the same model gives the same numbers. With beta = 1 the loss is minus the bound on log p(x|c).
    """
    images, parts = model.check_data(x, c)
    kernels = model.kernels
    images = kernels.array(images)
    pieces, found = list(batches(len(images), max(1, BATCH // model.objective.used))), []
    sizes = [rows.stop - rows.start for rows in pieces]
    noise = kernels.feed(model.noise(size, seed, Purpose.EVALUATE, step=i) for i, size in enumerate(sizes))
    everything = kernels.xp.arange(len(images))
    with kernels.steps() as begin_step:
        for rows, eps in zip(pieces, noise, strict=True):
            begin_step()
            batch = kernels.gather(images, everything[rows], model.dtype)
            losses, _ = model.loss_and_backward(batch, conditions.select(parts, rows), eps)
            found.append(losses)
    return dict(zip(losses._fields, weighted_mean(kernels.read(found), sizes), strict=True))


def weighted_mean(rows: np.ndarray, sizes: Sequence[int]) -> list[float]:
    """Σ_i sizes_i rows_i / Σ_i sizes_i: of the losses of batches (rows), those of all examples."""
    total = np.zeros(rows.shape[1])
    for row, size in zip(rows, sizes, strict=True):
        total += size * row
    return (total / sum(sizes)).tolist()


def log_likelihood(model: ConditionalVAE, x: Any, c: Any, samples: int = 5000, *, seed: int = 0) -> np.ndarray:
    """log p(x|c) ≈ log 1/S Σ_s w_s,  w_s = p(x|z_s,c) p(z_s|c) / q(z_s|x,c),  z_s ~ q(z|x,c); (n,) nats, float64.

    Importance sampling from the recognition network: the mean of w_s is p(x|c) exactly, so the mean of the logarithm
    lies below log p(x|c), by less and less as `samples` grows. S = 1 estimates the ELBO. Where the likelihood is a
    density (Gaussian), so is this. Whatever the objective of training was, beta is 1 here.

    The samples come `BATCH` at a time, joined by log(e^a + e^b), so memory does not grow with them; the noise of the
    i-th example is a function of (seed, i) alone. Burda, Grosse, Salakhutdinov 2016, section 5.

    Raises ValueError or TypeError for wrong x, c, samples or seed.
    """
    images, parts = model.check_data(x, c)
    samples = whole("samples", samples)
    kernels, l = model.kernels, model.latent_dim
    means, log_vars, seen_means, seen_log_vars = (
        kernels.array(values) for relative in (False, True) for values in model.encode(x, c, relative=relative)
    )
    images = kernels.array(images)
    result = np.full(len(images), -np.inf)
    with kernels.steps() as begin_step:
        for i in range(len(images)):
            one = slice(i, i + 1)
            for j, rows in enumerate(batches(samples)):
                begin_step()
                s = rows.stop - rows.start
                eps = kernels.array(standard_normal((s, 1, l), model.dtype, seed, Purpose.LOG_LIKELIHOOD, i, j))
                z, _ = distributions.reparameterise(kernels, means[one], log_vars[one], eps)
                ratio, _ = distributions.log_ratio(kernels, seen_means[one], seen_log_vars[one], eps)
                again = kernels.array(np.full(s, i))
                h, _ = model.decoder.forward(z.reshape(s, l), *conditions.select(parts, again))
                nll, _ = model.likelihood.forward(kernels, h, kernels.gather(images, again, model.dtype))
                log_w = -nll.astype(np.float64) - ratio.sum(axis=(1, 2), dtype=np.float64)
                bound, _ = kernels.log_mean_exp(log_w[:, None])
                result[i] = np.logaddexp(result[i], float(bound[0]) + np.log(s))
    return result - np.log(samples)
