"""The ELBO and its kin: from the terms of each example to one number, and back.

    loss = E_q[-log p(x|z,c)] + beta KL(q(z|x,c) ‖ p(z))          in nats, summed over dimensions, averaged over n

With beta = 1 this is the negative evidence lower bound of Kingma and Welling 2014, conditioned as in Sohn, Lee, Yan
2015; other betas are Higgins et al. 2017. Burda, Grosse, Salakhutdinov 2016 have a tighter bound:

    loss = E_q[-log 1/S Σ_s p(x|z_s,c) p(z_s) / q(z_s|x,c)]

An objective says how many z it wants of each example (`samples`), how many of these are decoded (`used`), what a z
costs (`divergence`), and how that and the likelihoods become one number, and gradients again (`forward`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minicvae import distributions
from minicvae.checks import not_negative, whole
from minicvae.kernels import Array, Reference
from minicvae.layers.layer import Backward, once

__all__ = ["ELBO", "IWAE", "OBJECTIVES", "Losses", "Objective"]


class Losses(NamedTuple):
    """Nats per example, averaged over the batch: loss, and the two terms that it is made of (before beta).

    The importance-weighted loss lies below the sum of its terms, which are those of the ELBO. The numbers lie on the
    device; `float` of one waits for it.
    """

    loss: Array
    reconstruction: Array
    kl: Array


@dataclass(frozen=True)
class ELBO:
    """loss = reconstruction + beta Σ_l max(free_bits, mean_n kl_nl).

    beta: weight of the KL.
    kl: "closed" for the formula, "monte_carlo" for the estimate from the samples.
    samples: S, how many z are drawn from q(z|x,c) for each example.
    decoded: how many of them are decoded, for the reconstruction's average over samples; 0 for all.
    free_bits: nats that each latent dimension may carry free of charge (Kingma et al. 2016, appendix C.8).
    """

    beta: float = 1.0
    kl: str = "closed"
    samples: int = 1
    decoded: int = 0
    free_bits: float = 0.0

    def __post_init__(self) -> None:
        not_negative(beta=self.beta, free_bits=self.free_bits)
        if self.kl not in ("closed", "monte_carlo"):
            raise ValueError(f"kl: expected 'closed' or 'monte_carlo', got {self.kl!r}")
        if whole("decoded", self.decoded, 0) > whole("samples", self.samples):
            raise ValueError(f"decoded: expected at most samples, {self.samples}, got {self.decoded}")

    @property
    def used(self) -> int:
        """How many of the samples are decoded."""
        return self.decoded or self.samples

    def divergence(self, kernels: Reference, mean: Array, log_var: Array, eps: Array) -> tuple[Array, Backward]:
        """KL(q(z|x,c) ‖ N(0, I)) for each example and dimension, (n, l), and its backward."""
        if self.kl == "closed":
            return distributions.kl_standard(kernels, mean, log_var)
        return distributions.kl_monte_carlo(kernels, mean, log_var, eps)

    def forward(self, kernels: Reference, nll: Array, kl: Array, beta: float | None = None) -> tuple[Losses, Backward]:
        """nll (s', n) of each decoded sample, kl (n, l) -> the losses. backward() -> dnll (s', n), dkl (n, l).

            reconstruction = 1/(s' n) Σ_s Σ_n nll_sn                     dnll = 1/(s' n)
            penalty        = Σ_l max(free_bits, 1/n Σ_n kl_nl)           dkl_nl = beta/n where the mean is above, else 0

        beta: the weight of this step, where it is annealed; None for the objective's own.
        """
        weight = self.beta if beta is None else beta
        floor = self.free_bits or -np.inf  # an estimated KL may be negative, and without free bits it stays so
        *losses, dnll, dkl = kernels.elbo(nll, kl, weight, floor)

        @once
        def backward() -> tuple[Array, Array]:
            return dnll, dkl

        return Losses(*losses), backward


LEAST = 1e-20
"""Of the sum of the weights: what is less shows in no digit of a gradient, but would make it of subnormal numbers, with
which processors are many times as slow."""


@dataclass(frozen=True)
class IWAE:
    """loss = -1/n Σ_n log 1/S Σ_s w_sn,  log w_sn = log p(x_n|z_sn,c_n) + beta [log p(z_sn) - log q(z_sn|x_n,c_n)].

    The importance-weighted bound of Burda, Grosse, Salakhutdinov 2016, equation 8: with beta = 1 it never lies above
    log p(x|c), rises with S, and reaches it as S grows; with S = 1 it is the ELBO, its KL estimated from the sample.

    samples: S, how many z are drawn from q(z|x,c), and decoded, for each example.
    beta: weight of the log ratio, so that it can be annealed as the KL is.
    """

    samples: int = 50
    beta: float = 1.0

    def __post_init__(self) -> None:
        not_negative(beta=self.beta)
        whole("samples", self.samples)

    @property
    def used(self) -> int:
        """How many of the samples are decoded: all."""
        return self.samples

    def divergence(self, kernels: Reference, mean: Array, log_var: Array, eps: Array) -> tuple[Array, Backward]:
        """log q(z_s|x,c) - log p(z_s) of each sample and dimension, (S, n, l), and its backward."""
        return distributions.log_ratio(kernels, mean, log_var, eps)

    def forward(
        self, kernels: Reference, nll: Array, ratio: Array, beta: float | None = None
    ) -> tuple[Losses, Backward]:
        """nll (S, n), ratio (S, n, l) of each sample -> the losses. backward() -> dnll (S, n), dratio (S, n, l).

        With log w_sn = -nll_sn - beta Σ_l ratio_snl and v_sn = w_sn / Σ_t w_tn, the normalised weights:

            loss = -1/n Σ_n log 1/S Σ_s w_sn          dloss/dlog w_sn = -v_sn / n
            dnll_sn = v_sn / n                        dratio_snl = beta v_sn / n

        z_s = mean + exp(log_var/2) eps_s reaches log w_s in three ways: by the likelihood (dnll, through the decoder),
        by log p(z_s) and by log q(z_s|x,c); the last two are the ratio's, whose backward holds them whole. So the
        gradient is that of each log w_s weighted by v_s, equation 14 of the paper.

        The losses' reconstruction and kl are the plain means of nll and ratio over the samples: the terms of the ELBO,
        whose sum is at least the loss. beta: the weight of this step, where it is annealed; None for the objective's.
        """
        weight = self.beta if beta is None else beta
        n = nll.shape[1]
        by_sample = ratio.sum(axis=2, dtype=np.float64)
        bound, v = kernels.log_mean_exp(-nll.astype(np.float64) - weight * by_sample)
        v = kernels.xp.where(v < LEAST, 0.0, v)
        losses = Losses(-bound.mean(), nll.mean(dtype=np.float64), by_sample.mean())

        @once
        def backward() -> tuple[Array, Array]:
            dratio = kernels.xp.broadcast_to((weight / n * v)[:, :, None], ratio.shape)
            return (v / n).astype(nll.dtype), dratio.astype(ratio.dtype)

        return losses, backward


Objective = ELBO | IWAE
OBJECTIVES = (ELBO, IWAE)
