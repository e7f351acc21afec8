"""The conditional variational autoencoder: one batch from pixels to gradients, in a straight line.

    q(z|x,c) = N(mean, diag exp(log_var)),  [mean, log_var] = encoder(x, c)       recognition network
    p(z)     = N(0, I), or p(z|c) = N(m, diag exp(s)), [m, s] = prior(c)          prior
    p(x|z,c) = likelihood(decoder(z, c))                                          generation network

`ConditionalVAE.loss_and_backward` is the mathematics of the whole library on one page. Kingma and Welling 2014; Sohn,
Lee, Yan 2015.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minicvae import conditions, distributions
from minicvae.checks import whole
from minicvae.conditions import Condition
from minicvae.distributions import Bernoulli, Likelihood
from minicvae.kernels import Array
from minicvae.kernels.reference import Part
from minicvae.layers import Backward, Layer
from minicvae.layers.layer import once
from minicvae.models.adversarial import Adversary, GameLosses
from minicvae.models.base import Trainable
from minicvae.models.border import as_rows, check_count, check_images, check_matrix
from minicvae.objectives import Losses, Objective
from minicvae.optimizers import Optimizer, Update
from minicvae.randomness import Purpose, standard_normal

__all__ = ["ConditionalVAE"]


class ConditionalVAE(Trainable):
    """A CVAE: two networks, a condition, a likelihood and an objective, with all weights in one buffer.

    encoder: (x (n, d), *c) -> (n, 2 l), mean first, log variance second.
    decoder: (z (n, l), *c) -> (n, likelihood.width(d)).
    c reaches both as the parts that `condition` encodes; a `Dense(d_in + condition.width, ...)` joins them.
    prior: (*c) -> (n, 2 l), mean first, log variance second, for a prior p(z|c) that is learnt; None for N(0, I).
    adversary: watches z while the model is trained; its discriminator (z (n, l), *c) -> (n, 1) is a third network.

    Raises ValueError if a network does not accept its inputs or gives another width, for an adversary beside a prior
    that is learnt, or for an unknown dtype or device; RuntimeError if the device is not there.
    """

    def __init__(
        self,
        encoder: Layer,
        decoder: Layer,
        condition: Condition,
        *,
        latent_dim: int,
        image_shape: Sequence[int] = (28, 28),
        likelihood: Likelihood | None = None,
        objective: Objective | None = None,
        prior: Layer | None = None,
        adversary: Adversary | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        if not isinstance(condition, Condition):
            raise TypeError(f"condition: expected a Condition such as Classes(10), got {condition!r}")
        self.encoder, self.decoder, self.condition = encoder, decoder, condition
        self.latent_dim = whole("latent_dim", latent_dim)
        self.likelihood = likelihood or Bernoulli()
        if prior and adversary:
            raise ValueError("adversary: expected none beside a prior of its own: it holds z to N(0, I)")
        self.prior, self.adversary = prior, adversary
        super().__init__(image_shape=image_shape, objective=objective, dtype=dtype, device=device, seed=seed)

    @property
    def networks(self) -> list[tuple[str, Layer]]:
        """The networks by name, in the order in which they run."""
        discriminator = self.adversary and self.adversary.discriminator
        known = {"encoder": self.encoder, "prior": self.prior, "decoder": self.decoder, "discriminator": discriminator}
        return [(name, network) for name, network in known.items() if network]

    @property
    def widths(self) -> dict[str, tuple[int, int]]:
        """For each network, the columns that it takes beside the condition, and those that it gives."""
        widths = {
            "encoder": (self.data_dim, 2 * self.latent_dim),
            "prior": (0, 2 * self.latent_dim),
            "decoder": (self.latent_dim, self.likelihood.width(self.data_dim)),
            "discriminator": (self.latent_dim, 1),
        }
        return {name: widths[name] for name, _ in self.networks}

    @property
    def facts(self) -> dict[str, Any]:
        """What a summary says of the model beside its layers, by name."""
        return {"condition": self.condition, "likelihood": self.likelihood, "objective": self.objective}

    def _computing(self) -> Iterator[Any]:
        """Every object whose code a step of training runs."""
        yield from super()._computing()
        yield self.likelihood
        if self.adversary:
            yield self.adversary

    @property
    def goals(self) -> dict[str, dict[str, float]]:
        """For each network, the losses that its parameters descend, with their weights."""
        if not self.adversary:
            return super().goals
        own, other = {"loss": 1.0, "fooling": self.adversary.weight}, {"discrimination": 1.0}
        return {"encoder": own, "decoder": own, "discriminator": other}

    def loss_and_backward(
        self, x: Array, c: tuple[Part, ...], eps: Array, beta: float | None = None
    ) -> tuple[Losses | GameLosses, Backward]:
        """The losses of a batch, and the backward that writes the gradient of every parameter.

        x (n, d) floats, c the encoded condition, eps (S, n, l), all on the device; beta overrides the objective's.
        """
        k, n, l, s = self.kernels, len(x), self.latent_dim, self.objective.used

        h, encoder_backward = self.encoder.forward(x, *c)  # (n, 2 l)
        mean, log_var = h[:, :l], h[:, l:]
        z, sample_backward = distributions.reparameterise(k, mean, log_var, eps)  # (S, n, l)
        seen, seen_backward = self._from_the_prior(mean, log_var, c)
        kl, kl_backward = self.objective.divergence(k, *seen, eps)  # (n, l); IWAE (S, n, l)
        z_used, c_used = z[:s].reshape(s * n, l), conditions.repeat(c, s)
        g, decoder_backward = self.decoder.forward(z_used, *c_used)
        nll, likelihood_backward = self.likelihood.forward(k, g, k.xp.tile(x, (s, 1)) if s > 1 else x)  # (s n,)
        losses: Losses | GameLosses
        losses, objective_backward = self.objective.forward(k, nll.reshape(s, n), kl, beta)
        if self.adversary:
            eps_used = eps[:s].reshape(s * n, l)
            losses, adversary_backward = self.adversary.forward(k, losses, z_used, eps_used, c_used)

        @once
        def backward() -> None:
            dnll, dkl = objective_backward()
            dg = likelihood_backward(dnll.reshape(s * n))
            dz, *_ = decoder_backward(dg, need_dx=[True] + [False] * len(c))
            if self.adversary:
                dz = dz + adversary_backward()
            by_z = sample_backward(dz.reshape(s, n, l))  # dmean, dlog_var, as z sees them
            by_kl = seen_backward(*kl_backward(dkl))  # and as the KL does
            dh = k.joined_sum(by_z, by_kl)
            encoder_backward(dh, need_dx=False)

        return losses, backward

    def _from_the_prior(self, mean: Array, log_var: Array, c: tuple[Part, ...]) -> tuple[tuple[Array, Array], Backward]:
        """q(z|x,c) as `distributions.relative` to the prior: mean and log_var (n, l), and the backward to its own."""
        if not self.prior:
            return (mean, log_var), lambda dmean, dlog_var: (dmean, dlog_var)
        l = self.latent_dim
        p, prior_backward = self.prior.forward(*c)  # (n, 2 l)
        seen, backward = distributions.relative(self.kernels, mean, log_var, p[:, :l], p[:, l:])

        def through(dseen: Array, dlog_var_seen: Array) -> tuple[Array, Array]:
            dmean, dlog_var, *dp = backward(dseen, dlog_var_seen)
            prior_backward(self.kernels.concatenate(dp, axis=1), need_dx=False)
            return dmean, dlog_var

        return seen, through

    def start(self, optimizer: Optimizer) -> Update:
        """`update(learning_rate)`: one step by `optimizer`; an adversary makes its own, by its own optimiser."""
        if not self.adversary:
            return super().start(optimizer)
        update_cvae = optimizer.start(self.parameters.block("encoder", "decoder"), self.kernels)
        update_adversary = self.adversary.optimizer.start(self.parameters.block("discriminator"), self.kernels)
        speed = self.adversary.speed

        def update(learning_rate: float | Array) -> None:
            update_cvae(learning_rate)
            update_adversary(speed * learning_rate)

        adversary = {f"adversary.{name}": value for name, value in update_adversary.state.items()}
        return Update(update, {**update_cvae.state, **adversary})

    def start_at_mean(self, x: Any) -> None:
        """Let the decoder draw the mean of the images x, until its weights say more: its last bias is set to that.

        To be called before `fit`. Raises ValueError for wrong x, or a decoder without a bias for each pixel at its end.
        """
        images = check_images(x, self.image_shape)
        *_, (name, bias) = self.decoder.named_parameters("decoder")
        start = self.likelihood.start(images.mean(axis=0, dtype=np.float64) / (255 if images.dtype == np.uint8 else 1))
        if bias.shape != start.shape:
            raise ValueError(f"decoder: expected a bias of shape {start.shape} at its end, got {name} {bias.shape}")
        self.parameters[name] = start

    def encode(self, x: Any, c: Any, *, relative: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The posterior q(z|x,c): mean and log_var, each (n, latent_dim). Raises as `fit` does for wrong x or c.

        relative: in the coordinates of z in which the prior is N(0, I), which only matters where it is learnt.
        """
        images, parts = self.check_data(x, c)
        pixels, l = self.kernels.array(images), self.latent_dim

        def run(rows: slice) -> Array:
            index = np.arange(rows.start, rows.stop)
            batch = self.kernels.gather(pixels, self.kernels.array(index), self.dtype)
            given = conditions.select(parts, rows)
            h, _ = self.encoder.forward(batch, *given)
            if relative:
                h = self.kernels.concatenate(self._from_the_prior(h[:, :l], h[:, l:], given)[0], axis=1)
            return h

        h = self._in_batches(len(images), run)
        return h[:, :l].copy(), h[:, l:].copy()

    def decode(self, z: Any, c: Any) -> np.ndarray:
        """E[x|z,c]: probabilities or means in [0, 1], (n, *image_shape); z (n, latent_dim)."""
        latents = check_matrix(z, self.latent_dim, "z", self.dtype)
        parts = self.condition.encode(c, self.kernels, self.dtype)
        check_count(len(latents), conditions.count(parts), "c", "z")

        def run(rows: slice) -> Array:
            latent = self.kernels.array(latents[rows])
            g, _ = self.decoder.forward(latent, *conditions.select(parts, rows))
            return self.likelihood.mean(self.kernels, g)

        return as_rows(self._in_batches(len(latents), run), self.image_shape)

    def generate(self, c: Any, *, seed: int = 0) -> np.ndarray:
        """Images drawn on demand: z from the prior for each entry of c, then E[x|z,c]; (n, *image_shape)."""
        n = conditions.count(self.condition.encode(c, self.kernels, self.dtype))
        if n == 0:
            raise ValueError("c: expected at least one condition, got none")
        eps = standard_normal((n, self.latent_dim), self.dtype, seed, Purpose.GENERATE)
        return self.decode(self.latents(eps, c), c)

    def latents(self, eps: Any, c: Any) -> np.ndarray:
        """z = m + exp(s/2) eps ~ p(z|c) of noise eps ~ N(0, I), both (n, latent_dim); eps itself if p(z) is N(0, I)."""
        noise = check_matrix(eps, self.latent_dim, "eps", self.dtype)
        parts = self.condition.encode(c, self.kernels, self.dtype)
        check_count(len(noise), conditions.count(parts), "c", "eps")
        if not self.prior:
            return noise
        k, l = self.kernels, self.latent_dim
        p, _ = self.prior.forward(*parts)
        return k.to_numpy(k.reparameterise(p[:, :l], p[:, l:], k.array(noise)[None])[0])

    def reconstruct(self, x: Any, c: Any) -> np.ndarray:
        """Decode the posterior mean of each image: E[x|z = mean(x, c), c], (n, *image_shape)."""
        return self.decode(self.encode(x, c)[0], c)

    def check_data(self, x: Any, c: Any, x_name: str = "x", c_name: str = "c") -> tuple[np.ndarray, tuple[Part, ...]]:
        """x as a flat view (n, d), still uint8 if it was, and c encoded; or an error that names the argument."""
        images = check_images(x, self.image_shape, x_name)
        parts = self.condition.encode(c, self.kernels, self.dtype, c_name)
        check_count(len(images), conditions.count(parts), c_name, x_name)
        return images, parts

    def _check_widths(self) -> None:
        """Refuse networks that do not take their inputs, or give another width."""
        for name, (d_in, d_out) in self.widths.items():
            own = f"{d_in} columns, " if d_in else ""
            self._check_width(name, self.example(name), d_out, f"({own}a condition of width {self.condition.width})")

    def example(self, network: str) -> tuple[Part, ...]:
        """What a network takes, for one example: zeros, and the condition's."""
        d_in, _ = self.widths[network]
        parts = self.condition.encode(self.condition.example(1), self.kernels, self.dtype)
        return (self.kernels.xp.zeros((1, d_in), self.dtype), *parts) if d_in else parts
