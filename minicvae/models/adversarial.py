"""The adversary: a second network that watches z, and that the encoder learns to deceive.

    discrimination = E_p[softplus(-D(z, c))] + E_q[softplus(D(z, c))]        the discriminator descends this
    fooling        = E_q[softplus(-D(z, c))]                                 the encoder, weighted, beside its own loss

D(z, c) is the logit of the probability that z was drawn from the prior N(0, I) and not by the encoder. The KL of the
ELBO holds each q(z|x,c) to the prior; this holds their mixture over the images of a condition to it. Makhzani et al.
2016, section 2.3; the encoder's loss is the non-saturating one of Goodfellow et al. 2014, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from minicvae import conditions
from minicvae.checks import not_negative
from minicvae.distributions import Bernoulli
from minicvae.kernels import Array, Reference
from minicvae.kernels.reference import Part
from minicvae.layers import Backward, Layer
from minicvae.layers.layer import once
from minicvae.objectives import Losses
from minicvae.optimizers import Adam, Optimizer

__all__ = ["Adversary", "GameLosses"]


class GameLosses(NamedTuple):
    """`Losses`, which know nothing of the adversary, and the two sides of the game; nats per sample of z.

    Both are log 2 a sample where the discriminator can but guess: fooling 0.69, discrimination 1.39.
    """

    loss: Array
    reconstruction: Array
    kl: Array
    fooling: Array
    discrimination: Array


@dataclass(eq=False)
class Adversary:
    """A discriminator, what its opinion weighs with the encoder, and how it is trained.

    discriminator: (z (n, l), *c) -> (n, 1), the logit of "z comes from the prior".
    weight: of fooling beside the CVAE's own loss.
    optimizer: its own; the learning rate is that of the training times `speed`.

    Raises ValueError for a weight or speed that is negative or not finite.
    """

    discriminator: Layer
    weight: float = 10.0
    optimizer: Optimizer = Adam(beta1=0.5)
    speed: float = 1.0

    def __post_init__(self) -> None:
        not_negative(weight=self.weight, speed=self.speed)

    def forward(
        self, kernels: Reference, losses: Losses, z: Array, eps: Array, c: tuple[Part, ...]
    ) -> tuple[GameLosses, Backward]:
        """The losses of both sides on encoded z (m, l). backward() -> weight dfooling/dz, and D's own gradients.

        eps (m, l), the noise that z was made of, serves as the draw from the prior: it is one, and where the encoder
        gives the prior itself, z = eps and the discriminator's gradient is exactly zero instead of noise.

        With t the logits, and the labels 1 for the prior and 0 for the encoder, both losses are a Bernoulli's:

            softplus(-t) = -log p(1|t)       softplus(t) = -log p(0|t)       d/dt = sigmoid(t) - label

        The two sides pull D in opposite directions, so each has a backward of its own. The encoder's passes through D
        to reach z, and the gradient that it leaves in D's weights on its way is not D's to descend: it is forgotten.
        In D's own, z is a constant.
        """
        xp, m, likelihood = kernels.xp, len(z), Bernoulli()
        from_prior, encoded = xp.ones((m, 1), z.dtype), xp.zeros((m, 1), z.dtype)

        t, deceive = self.discriminator.forward(z, *c)  # (m, 1)
        fooling, fooling_backward = likelihood.forward(kernels, t, from_prior)  # (m,)

        both = kernels.concatenate([eps, z], axis=0)  # (2 m, l)
        t_both, learn = self.discriminator.forward(both, *conditions.repeat(c, 2))
        surprise, surprise_backward = likelihood.forward(
            kernels, t_both, kernels.concatenate([from_prior, encoded], axis=0)
        )

        @once
        def backward() -> Array:
            share = xp.full(m, 1 / m, z.dtype)
            dz, *_ = deceive(fooling_backward(self.weight * share), need_dx=[True] + [False] * len(c))
            for _, parameter in self.discriminator.named_parameters():
                parameter.zero_grad()
            learn(surprise_backward(kernels.concatenate([share, share], axis=0)), need_dx=False)
            return dz

        sides = fooling.mean(dtype="float64"), 2 * surprise.mean(dtype="float64")
        return GameLosses(*losses, *sides), backward
