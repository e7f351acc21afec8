"""The conditional variational autoencoder: one batch from pixels to gradients, in a straight line.

    q(z|x,c) = N(mean, diag exp(log_var)),  [mean, log_var] = encoder(x, c)       recognition network
    p(z)     = N(0, I)                                                            prior
    p(x|z,c) = likelihood(decoder(z, c))                                          generation network

`ConditionalVAE.loss_and_backward` is the mathematics of the whole library on one page. Kingma and Welling 2014; Sohn,
Lee, Yan 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from minicvae import conditions, distributions
from minicvae.checks import whole
from minicvae.conditions import Condition
from minicvae.distributions import Bernoulli, Likelihood
from minicvae.kernels import Array, load
from minicvae.kernels.reference import Part
from minicvae.layers import Backward, Layer
from minicvae.layers.layer import once
from minicvae.models.adversarial import Adversary, GameLosses
from minicvae.models.border import as_rows, check_count, check_images, check_matrix
from minicvae.objectives import ELBO, Losses, Objective
from minicvae.optimizers import Optimizer, Update
from minicvae.parameters import Parameters
from minicvae.randomness import Purpose, standard_normal

__all__ = ["BATCH", "ConditionalVAE", "batches"]

BATCH = 1000  # examples at a time where nothing is trained: memory stays bounded, and results do not depend on it


def batches(n: int, size: int = BATCH) -> Iterator[slice]:
    """Slices of at most `size` that cover 0..n."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


class ConditionalVAE:
    """A CVAE: two networks, a condition, a likelihood and an objective, with all weights in one buffer.

    encoder: (x (n, d), *c) -> (n, 2 l), mean first, log variance second.
    decoder: (z (n, l), *c) -> (n, likelihood.width(d)).
    c reaches both as the parts that `condition` encodes; a `Dense(d_in + condition.width, ...)` joins them.
    adversary: watches z while the model is trained; its discriminator (z (n, l), *c) -> (n, 1) is a third network.

    Raises ValueError if a network does not accept its inputs or gives another width, or for an unknown dtype or
    device; RuntimeError if the device is not there.
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
        adversary: Adversary | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype: expected 'float32' or 'float64', got {dtype!r}")
        self.encoder, self.decoder, self.condition = encoder, decoder, condition
        self.latent_dim, self.image_shape = whole("latent_dim", latent_dim), tuple(image_shape)
        self.likelihood = likelihood or Bernoulli()
        self.objective = objective or ELBO()
        self.adversary = adversary
        self.dtype = dtype
        self.kernels = load(device)
        named = []
        for name, network in self.networks:
            network.attach(self.kernels)
            named += list(network.named_parameters(name))
        for name, parameter in named:
            if parameter.taken:
                raise ValueError(f"{name} is part of another model, which would lose it: make a layer of its own")
        self.parameters = Parameters(named, self.kernels, dtype, seed)
        self._check_widths()
        for _, parameter in named:
            parameter.taken = True

    @property
    def networks(self) -> list[tuple[str, Layer]]:
        """The networks by name, in the order in which they run."""
        own = [("encoder", self.encoder), ("decoder", self.decoder)]
        return [*own, ("discriminator", self.adversary.discriminator)] if self.adversary else own

    @property
    def widths(self) -> dict[str, tuple[int, int]]:
        """For each network, the columns that it takes beside the condition, and those that it gives."""
        widths = {
            "encoder": (self.data_dim, 2 * self.latent_dim),
            "decoder": (self.latent_dim, self.likelihood.width(self.data_dim)),
            "discriminator": (self.latent_dim, 1),
        }
        return {name: widths[name] for name, _ in self.networks}

    @property
    def goals(self) -> dict[str, dict[str, float]]:
        """For each network, the losses that its parameters descend, with their weights."""
        if not self.adversary:
            return {"encoder": {"loss": 1.0}, "decoder": {"loss": 1.0}}
        own, other = {"loss": 1.0, "fooling": self.adversary.weight}, {"discrimination": 1.0}
        return {"encoder": own, "decoder": own, "discriminator": other}

    @property
    def device(self) -> str:
        """Where the arrays live: numpy, cpu or cuda."""
        return self.kernels.name

    @property
    def data_dim(self) -> int:
        """D, the pixels of an image."""
        return prod(self.image_shape)

    def loss_and_backward(
        self, x: Array, c: tuple[Part, ...], eps: Array, beta: float | None = None
    ) -> tuple[Losses | GameLosses, Backward]:
        """The losses of a batch, and the backward that writes the gradient of every parameter.

        x (n, d) floats, c the encoded condition, eps (S, n, l), all on the device; beta overrides the objective's.
        """
        k, n, l = self.kernels, len(x), self.latent_dim
        s = min(self.objective.used, len(eps))

        h, encoder_backward = self.encoder.forward(x, *c)  # (n, 2 l)
        mean, log_var = h[:, :l], h[:, l:]
        z, sample_backward = distributions.reparameterise(k, mean, log_var, eps)  # (S, n, l)
        kl, kl_backward = self.objective.divergence(k, mean, log_var, eps)  # (n, l); IWAE (S, n, l)
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
            dmean_z, dlog_var_z = sample_backward(dz.reshape(s, n, l))
            dmean_kl, dlog_var_kl = kl_backward(dkl)
            dh = k.xp.concatenate([dmean_z + dmean_kl, dlog_var_z + dlog_var_kl], axis=1)
            encoder_backward(dh, need_dx=False)

        return losses, backward

    def loss_and_gradients(
        self, x: Any, c: Any, *, eps: Any = None, beta: float | None = None, seed: int = 0
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """The losses (nats per example) and dloss/dparameter by name, as NumPy arrays.

        With an adversary, each parameter has the gradient of what its network descends: `goals`.

        eps: the noise, (n, latent_dim), or (S, n, latent_dim) where the objective draws S samples; None draws it from
        `seed`. Raises ValueError or TypeError for a wrong argument.
        """
        losses, backward = self._losses(x, c, eps, beta, seed)
        self.parameters.zero_grad()
        backward()
        return losses._asdict(), {name: self.kernels.to_numpy(g) for name, g in self.parameters.grads.items()}

    def losses(self, x: Any, c: Any, *, eps: Any = None, beta: float | None = None, seed: int = 0) -> dict[str, float]:
        """The losses of `loss_and_gradients` alone, without a backward."""
        return self._losses(x, c, eps, beta, seed)[0]._asdict()

    def _losses(self, x: Any, c: Any, eps: Any, beta: float | None, seed: int) -> tuple[Losses | GameLosses, Backward]:
        """`loss_and_backward` on what users hand in."""
        images, parts = self.check_data(x, c)
        noise = self.check_noise(eps, len(images)) if eps is not None else self.noise(len(images), seed, Purpose.TRAIN)
        batch = self.kernels.gather(self.kernels.array(images), self.kernels.xp.arange(len(images)), self.dtype)
        return self.loss_and_backward(batch, parts, self.kernels.array(noise), beta)

    def start(self, optimizer: Optimizer) -> Update:
        """`update(learning_rate)`: one step by `optimizer`; an adversary makes its own, by its own optimiser."""
        if not self.adversary:
            return optimizer.start(self.parameters, self.kernels)
        update_cvae = optimizer.start(self.parameters.block("encoder", "decoder"), self.kernels)
        update_adversary = self.adversary.optimizer.start(self.parameters.block("discriminator"), self.kernels)
        speed = self.adversary.speed

        def update(learning_rate: float) -> None:
            update_cvae(learning_rate)
            update_adversary(speed * learning_rate)

        return update

    def encode(self, x: Any, c: Any) -> tuple[np.ndarray, np.ndarray]:
        """The posterior q(z|x,c): mean and log_var, each (n, latent_dim). Raises as `fit` does for wrong x or c."""
        images, parts = self.check_data(x, c)

        pixels = self.kernels.array(images)

        def run(rows: slice) -> np.ndarray:
            index = np.arange(rows.start, rows.stop)
            batch = self.kernels.gather(pixels, self.kernels.array(index), self.dtype)
            return self.encoder.forward(batch, *conditions.select(parts, rows))[0]

        h = self._in_batches(len(images), run)
        return h[:, : self.latent_dim].copy(), h[:, self.latent_dim :].copy()

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
        """Images drawn on demand: z ~ N(0, I) for each entry of c, then E[x|z,c]; (n, *image_shape)."""
        n = conditions.count(self.condition.encode(c, self.kernels, self.dtype))
        if n == 0:
            raise ValueError("c: expected at least one condition, got none")
        return self.decode(standard_normal((n, self.latent_dim), self.dtype, seed, Purpose.GENERATE), c)

    def reconstruct(self, x: Any, c: Any) -> np.ndarray:
        """Decode the posterior mean of each image: E[x|z = mean(x, c), c], (n, *image_shape)."""
        return self.decode(self.encode(x, c)[0], c)

    def noise(self, n: int, seed: int, purpose: Purpose, epoch: int = 0, step: int = 0) -> np.ndarray:
        """The eps (S, n, l) that the objective needs for n examples, drawn from (seed, purpose, epoch, step)."""
        return standard_normal((self.objective.samples, n, self.latent_dim), self.dtype, seed, purpose, epoch, step)

    def check_data(self, x: Any, c: Any, x_name: str = "x", c_name: str = "c") -> tuple[np.ndarray, tuple[Part, ...]]:
        """x as a flat view (n, d), still uint8 if it was, and c encoded; or an error that names the argument."""
        images = check_images(x, self.image_shape, x_name)
        parts = self.condition.encode(c, self.kernels, self.dtype, c_name)
        check_count(len(images), conditions.count(parts), c_name, x_name)
        return images, parts

    def check_noise(self, eps: Any, n: int) -> np.ndarray:
        """eps as (S, n, l); or an error that says what was expected."""
        noise, expected = np.asarray(eps), (self.objective.samples, n, self.latent_dim)
        if self.objective.samples == 1 and noise.ndim == 2:
            noise = noise[None]
        if noise.shape != expected:
            also = f" or {expected[1:]}" if self.objective.samples == 1 else ""
            raise ValueError(f"eps: expected shape {expected}{also}, got {np.shape(eps)}")
        if not np.isfinite(noise).all():
            raise ValueError("eps: expected finite numbers, got NaN or infinity")
        return noise.astype(self.dtype)

    def _in_batches(self, n: int, run: Callable[[slice], Array]) -> np.ndarray:
        """`run(rows)` for batch after batch, joined on the host."""
        pieces = []
        with self.kernels.steps() as begin_step:
            for rows in batches(n):
                begin_step()
                pieces.append(self.kernels.to_numpy(run(rows)))
        return np.concatenate(pieces)

    def _check_widths(self) -> None:
        """Run each network on one example, so that a wrong width is found here and not in the first step."""
        parts = self.condition.encode(self.condition.example(1), self.kernels, self.dtype)
        for name, network in self.networks:
            d_in, d_out = self.widths[name]
            try:
                y, _ = network.forward(self.kernels.xp.zeros((1, d_in), self.dtype), *parts)
            except (ValueError, IndexError, TypeError) as error:
                raise ValueError(
                    f"{name}: expected a network on ({d_in} columns, a condition of width {self.condition.width}), "
                    f"but running it gave: {error}"
                ) from error
            if y.shape != (1, d_out):
                raise ValueError(f"{name}: expected {d_out} output columns, got shape {y.shape} for one example")
