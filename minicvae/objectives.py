"""The ELBO and its kin: from the terms of each example to one number, and back.

    loss = E_q[-log p(x|z,c)] + beta KL(q(z|x,c) ‖ p(z))          in nats, summed over dimensions, averaged over n

With beta = 1 this is the negative evidence lower bound of Kingma and Welling 2014, conditioned as in Sohn, Lee, Yan
2015; other betas are Higgins et al. 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minicvae import distributions
from minicvae.kernels import Array, Reference
from minicvae.layers.layer import Backward, once

__all__ = ["ELBO", "OBJECTIVES", "Losses"]


class Losses(NamedTuple):
    """Nats per example, averaged over the batch: loss, and the two terms that it is made of (before beta)."""

    loss: float
    reconstruction: float
    kl: float


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
        if not (np.isfinite(self.beta) and self.beta >= 0):
            raise ValueError(f"beta: expected a number of at least 0, got {self.beta!r}")
        if self.kl not in ("closed", "monte_carlo"):
            raise ValueError(f"kl: expected 'closed' or 'monte_carlo', got {self.kl!r}")
        if self.samples < 1 or not 0 <= self.decoded <= self.samples:
            raise ValueError(
                f"samples, decoded: expected samples >= 1, 0 <= decoded <= samples, got {self.samples}, {self.decoded}"
            )
        if not (np.isfinite(self.free_bits) and self.free_bits >= 0):
            raise ValueError(f"free_bits: expected a number of at least 0, got {self.free_bits!r}")

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
        n, l = kl.shape
        by_dimension = kernels.to_numpy(kl.mean(axis=0, dtype=np.float64))
        floor = self.free_bits or -np.inf  # an estimated KL may be negative, and without free bits it stays so
        penalty = float(np.maximum(by_dimension, floor).sum())
        reconstruction = float(nll.mean(dtype=np.float64))
        losses = Losses(reconstruction + weight * penalty, reconstruction, float(by_dimension.sum()))

        @once
        def backward() -> tuple[Array, Array]:
            dnll = kernels.xp.full(nll.shape, 1 / nll.size, nll.dtype)
            dkl = np.broadcast_to((weight / n) * (by_dimension > floor), (n, l))
            return dnll, kernels.array(dkl, kl.dtype)

        return losses, backward


OBJECTIVES = (ELBO,)
