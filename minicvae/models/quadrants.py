"""Images completed from what is visible of them: the structured-output CVAE of Sohn, Lee, Yan 2015.

Of an image x some pixels are visible, v, and the others hidden, y. v is written as the image with -1 where it is
hidden.

    ŷ        = baseline(v)                                                        deterministic guess, trained first
    p(z|v)   = N(m, diag exp(s)),           [m, s] = prior(v with ŷ filled in)    conditional prior network
    q(z|v,y) = N(mean, diag exp(log_var)),  [mean, log_var] = recognition(x)      recognition network
    p(y|z)   = Bernoulli(generation(z)), or of (z, v)                             generation network

All losses are in nats and count the hidden pixels only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from minicvae import conditions, distributions
from minicvae.checks import whole
from minicvae.kernels import Array, Reference
from minicvae.kernels.reference import Part
from minicvae.layers import Backward, Layer
from minicvae.layers.layer import once
from minicvae.masks import check_hidden
from minicvae.models.base import BATCH, Trainable, batches
from minicvae.models.border import as_rows, check_images
from minicvae.objectives import ELBO, Losses
from minicvae.randomness import Purpose, standard_normal

__all__ = ["ESTIMATORS", "Baseline", "ImageConditionedVAE"]

ESTIMATORS = ("bound", "prior", "importance")


def covered(kernels: Reference, x: Array, hidden: Array) -> Array:
    """v: the image with -1 where it is hidden; x, hidden (n, d)."""
    return kernels.xp.where(hidden, x.dtype.type(-1), x)


def halves(h: Array) -> tuple[Array, Array]:
    """(mean, log_var) of a network's output (n, 2 l)."""
    l = h.shape[1] // 2
    return h[:, :l], h[:, l:]


class Completing(Trainable):
    """A model of images with hidden pixels: x (n, d) and a mask, true where a pixel is hidden."""

    def check_data(
        self, x: Any, c: Any, x_name: str = "x", c_name: str = "hidden"
    ) -> tuple[np.ndarray, tuple[Part, ...]]:
        """x as a flat view (n, d), still uint8 if it was, and the masks (n, d); or an error that names the argument."""
        images = check_images(x, self.image_shape, x_name)
        return images, (self.kernels.array(check_hidden(c, len(images), self.image_shape, c_name)),)

    def _on_device(self, x: Any, hidden: Any) -> tuple[Array, tuple[Part, ...]]:
        """What users hand in, checked, and copied to the device once for all batches."""
        images, parts = self.check_data(x, hidden)
        return self.kernels.array(images), parts

    def _batch(self, images: Array, parts: tuple[Part, ...], rows: slice) -> tuple[Array, Array]:
        """x and hidden of some rows, (n, d) each; images (N, d) and parts on the device."""
        index = self.kernels.array(np.arange(rows.start, rows.stop))
        (hidden,) = conditions.select(parts, rows)
        return self.kernels.gather(images, index, self.dtype), hidden


class Baseline(Completing):
    """ŷ = sigmoid(network(v)): the single best answer, trained by cross-entropy.

    network: v (n, d) -> logits (n, d).

    Raises ValueError if the network gives another width, or for an unknown dtype or device; RuntimeError if the device
    is not there.
    """

    latent_dim = 0

    def __init__(
        self,
        network: Layer,
        *,
        image_shape: Sequence[int] = (28, 28),
        dtype: str = "float32",
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        self.network = network
        super().__init__(image_shape=image_shape, objective=None, dtype=dtype, device=device, seed=seed)

    @property
    def networks(self) -> list[tuple[str, Layer]]:
        """The one network."""
        return [("baseline", self.network)]

    def loss_and_backward(
        self, x: Array, c: tuple[Part, ...], eps: Array, beta: float | None = None
    ) -> tuple[Losses, Backward]:
        """-log p(y|v), averaged over the batch. There is no z, so eps and beta are not used."""
        (hidden,) = c
        logits, network_backward = self.network.forward(covered(self.kernels, x, hidden))
        nll, likelihood_backward = distributions.masked_bernoulli(self.kernels, logits, x, hidden)
        loss = nll.mean(dtype=np.float64)

        @once
        def backward() -> None:
            dnll = self.kernels.xp.full(nll.shape, 1 / len(nll), nll.dtype)
            network_backward(likelihood_backward(dnll), need_dx=False)

        return Losses(loss, loss, self.kernels.xp.zeros(())), backward

    def fill(self, x: Array, hidden: Array) -> Array:
        """x with the guess in place of what is hidden, (n, d)."""
        logits, _ = self.network.forward(covered(self.kernels, x, hidden))
        return self.kernels.xp.where(hidden, self.kernels.sigmoid(logits), x)

    def complete(self, x: Any, hidden: Any) -> np.ndarray:
        """The images with the guess in place of what is hidden, (n, *image_shape); hidden pixels of x are not read."""
        images, parts = self._on_device(x, hidden)
        filled = self._in_batches(len(images), lambda rows: self.fill(*self._batch(images, parts, rows)))
        return as_rows(filled, self.image_shape)

    def _check_widths(self) -> None:
        """Refuse a network that does not take its input, or gives another width."""
        self._check_width("baseline", self.example("baseline"), self.data_dim, f"{self.data_dim} columns")

    def example(self, network: str) -> tuple[Part, ...]:
        """What the network takes, for one example: zeros."""
        return (self.kernels.xp.zeros((1, self.data_dim), self.dtype),)


class ImageConditionedVAE(Completing):
    """A CVAE whose condition is the visible part of an image, on top of a baseline that is trained already.

    recognition: x (n, d) -> (n, 2 l);  prior: (n, d) -> (n, 2 l);  both mean first, log variance second.
    generation: z (n, l) -> logits (n, d); with `view`, of (z, v).
    baseline: its guess feeds the prior; its weights are not changed. Image shape, dtype and device are its own.
    alpha: 1 trains the CVAE's bound, 0 the Gaussian stochastic network (GSNN), between them the hybrid:

        loss = alpha (E_q[-log p(y|z)] + beta KL(q(z|v,y) ‖ p(z|v))) + (1 - alpha) E_p(z|v)[-log p(y|z)]

    which is minus equation 6 of the paper with beta = 1.

    Raises ValueError if a network does not take its inputs or gives another width, for alpha outside [0, 1], or an
    objective whose KL is not in closed form.
    """

    def __init__(
        self,
        recognition: Layer,
        prior: Layer,
        generation: Layer,
        baseline: Baseline,
        *,
        latent_dim: int,
        view: bool = False,
        objective: ELBO | None = None,
        alpha: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha: expected a number in [0, 1], got {alpha!r}")
        if not (objective is None or (isinstance(objective, ELBO) and objective.kl == "closed")):
            raise ValueError(f"objective: expected an ELBO with its KL in closed form, got {objective!r}")
        self.recognition, self.prior, self.generation, self.baseline = recognition, prior, generation, baseline
        self.latent_dim, self.view, self.alpha = whole("latent_dim", latent_dim), view, alpha
        same: dict[str, Any] = {name: getattr(baseline, name) for name in ("image_shape", "dtype", "device")}
        super().__init__(objective=objective, seed=seed, **same)

    @property
    def networks(self) -> list[tuple[str, Layer]]:
        """The networks that are trained, by name."""
        return [("recognition", self.recognition), ("prior", self.prior), ("generation", self.generation)]

    def _computing(self) -> Iterator[Any]:
        """Every object whose code a step of training runs."""
        yield from super()._computing()
        yield from self.baseline._computing()

    @property
    def facts(self) -> dict[str, Any]:
        """What a summary says of the model beside its layers, by name."""
        return {
            "condition": "the visible pixels" + ", which the generation network sees too" * self.view,
            "likelihood": "Bernoulli of the hidden pixels",
            "objective": f"{self.objective}, alpha {self.alpha:g}",
            "baseline": f"{self.baseline.parameters.size:,} parameters more, which are not trained here",
        }

    def loss_and_backward(
        self, x: Array, c: tuple[Part, ...], eps: Array, beta: float | None = None
    ) -> tuple[Losses, Backward]:
        """The losses of a batch, and the backward that writes the gradient of every parameter.

        x (n, d) floats, c the mask (n, d), eps (S, n, l), all on the device; beta overrides the objective's. The
        hybrid's two terms share eps, which leaves the mean of their sum as it is. `kl` is that of the CVAE's term, and
        0 where there is none.
        """
        (hidden,) = c
        alpha = self.alpha
        p, prior_backward = self.prior.forward(self.baseline.fill(x, hidden))  # (n, 2 l)
        nothing = self.kernels.xp.zeros(())
        bound, bound_backward = self._bound(x, hidden, p, eps, beta) if alpha > 0 else (Losses(*[nothing] * 3), None)
        nll, nll_backward = self._decoded(x, hidden, p, eps) if alpha < 1 else (nothing, None)
        stochastic = nll.mean(dtype=np.float64)
        losses = Losses(
            alpha * bound.loss + (1 - alpha) * stochastic,
            alpha * bound.reconstruction + (1 - alpha) * stochastic,
            bound.kl,
        )

        @once
        def backward() -> None:
            dp = bound_backward(alpha) if bound_backward else 0
            if nll_backward:
                dp = dp + nll_backward(self.kernels.xp.full(nll.shape, (1 - alpha) / nll.size, nll.dtype))
            prior_backward(dp, need_dx=False)

        return losses, backward

    def _bound(self, x: Array, hidden: Array, p: Array, eps: Array, beta: float | None) -> tuple[Losses, Backward]:
        """E_q[-log p(y|z)] + beta KL(q ‖ p); p = [m, s] (n, 2 l). backward: dloss, a number -> dp (n, 2 l)."""
        k = self.kernels
        q, recognition_backward = self.recognition.forward(x)  # (n, 2 l)
        kl, kl_backward = distributions.kl_diagonal(k, *halves(q), *halves(p))  # (n, l)
        nll, decoded_backward = self._decoded(x, hidden, q, eps)  # (S, n)
        losses, objective_backward = self.objective.forward(k, nll, kl, beta)

        def backward(dloss: float) -> Array:
            dnll, dkl = objective_backward()
            dmean, dlog_var, dm, ds = kl_backward(dloss * dkl)
            dq = decoded_backward(dloss * dnll) + k.concatenate([dmean, dlog_var], axis=1)
            recognition_backward(dq, need_dx=False)
            return k.concatenate([dm, ds], axis=1)

        return losses, backward

    def _decoded(self, x: Array, hidden: Array, h: Array, eps: Array) -> tuple[Array, Backward]:
        """-log p(y|z_s) of samples z_s ~ N(mean, exp(log_var)), (S, n); h = [mean, log_var] (n, 2 l), eps (S, n, l).

        backward: dnll (S, n) -> dh (n, 2 l); it writes the gradients of the generation network.
        """
        k, s, (n, l) = self.kernels, self.objective.used, eps.shape[1:]
        z, sample_backward = distributions.reparameterise(k, *halves(h), eps)  # (S, n, l)
        nll, likelihood_backward, generation_backward = self._score(z[:s].reshape(s * n, l), x, hidden)

        def backward(dnll: Array) -> Array:
            dlogits = likelihood_backward(dnll.reshape(s * n))
            dz = generation_backward(dlogits, need_dx=[True, False] if self.view else True)
            dz = dz[0] if self.view else dz
            return k.concatenate(sample_backward(dz.reshape(s, n, l)), axis=1)

        return nll.reshape(s, n), backward

    def _score(self, z: Array, x: Array, hidden: Array) -> tuple[Array, Backward, Backward]:
        """-log p(y|z) of each latent, (s n,), and the backwards of likelihood and network; z (s n, l), x (n, d)."""
        k, s = self.kernels, len(z) // len(x)
        if s > 1:
            x, hidden = k.xp.tile(x, (s, 1)), k.xp.tile(hidden, (s, 1))
        logits, generation_backward = self._logits(z, covered(k, x, hidden))
        nll, likelihood_backward = distributions.masked_bernoulli(k, logits, x, hidden)
        return nll, likelihood_backward, generation_backward

    def _logits(self, z: Array, v: Array) -> tuple[Array, Backward]:
        """The generation network, with the view of v where it has one."""
        return self.generation.forward(z, v) if self.view else self.generation.forward(z)

    def complete(self, x: Any, hidden: Any, *, samples: int = 1, seed: int = 0) -> np.ndarray:
        """E[y|z_s] in place of what is hidden, z_s ~ p(z|v): (samples, n, *image_shape), a different answer each.

        Hidden pixels of x are not read. Raises as `fit` does for a wrong x or hidden, ValueError for samples below 1.
        """
        images, parts = self._on_device(x, hidden)
        k = self.kernels

        def run(rows: slice, s: int) -> Array:
            batch, covers = self._batch(images, parts, rows)
            p, _ = self.prior.forward(self.baseline.fill(batch, covers))
            z = k.reparameterise(*halves(p), k.array(self._eps(rows, seed, Purpose.GENERATE, s)))[0]
            logits, _ = self._logits(z, covered(k, batch, covers))
            return k.xp.where(covers, k.sigmoid(logits), batch)

        answers = [self._in_batches(len(images), partial(run, s=s)) for s in range(whole("samples", samples))]
        return np.stack([as_rows(answer, self.image_shape) for answer in answers])

    def negative_log_likelihood(
        self, x: Any, hidden: Any, *, estimator: str = "importance", samples: int = 100, seed: int = 0
    ) -> np.ndarray:
        """-log p(y|v) of each image in nats, (n,), or a bound on it, from `samples` latents z_s:

            "bound"       (1/S) Σ_s -log p(y|z_s) + KL(q ‖ p),                    z_s ~ q(z|v,y)
            "prior"       -log (1/S) Σ_s p(y|z_s),                                z_s ~ p(z|v)
            "importance"  -log (1/S) Σ_s p(y|z_s) p(z_s|v) / q(z_s|v,y),          z_s ~ q(z|v,y)

        The mean of each is an upper bound; the last two come down to the value itself as S grows, the last one sooner.
        Sums of probabilities are taken as logarithms. One sample of at most `BATCH` images is held at a time, and the
        noise is a function of seed, sample and place alone: more samples add to the earlier ones.

        Raises ValueError for an unknown estimator or samples below 1, and as `fit` does.
        """
        if estimator not in ESTIMATORS:
            raise ValueError(f"estimator: expected one of {', '.join(ESTIMATORS)}, got {estimator!r}")
        whole("samples", samples)
        images, parts = self._on_device(x, hidden)
        k = self.kernels
        add, nothing = (np.add, 0.0) if estimator == "bound" else (np.logaddexp, -np.inf)

        def run(rows: slice) -> np.ndarray:
            batch, covers = self._batch(images, parts, rows)
            q, p = self._gaussians(batch, covers)
            total = np.full(len(batch), nothing)
            for s in range(samples):
                eps = k.array(self._eps(rows, seed, Purpose.EVALUATE, s), np.float64)
                z = k.reparameterise(*(p if estimator == "prior" else q), eps)[0]
                log_weight = -self._score(z.astype(self.dtype), batch, covers)[0].astype(np.float64)
                if estimator == "importance":
                    log_weight += distributions.log_normal(k, z, *p) - distributions.log_normal(k, z, *q)
                total = add(total, k.to_numpy(log_weight))
            if estimator == "bound":
                return k.to_numpy(k.kl_diagonal(*q, *p)[0].sum(axis=1)) - total / samples
            return np.log(samples) - total

        return np.concatenate([run(rows) for rows in batches(len(images))])

    def _gaussians(self, x: Array, hidden: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """(mean, log_var) of q(z|v,y) and of p(z|v) in float64, in which their small differences keep their digits."""
        q, _ = self.recognition.forward(x)
        p, _ = self.prior.forward(self.baseline.fill(x, hidden))
        return halves(q.astype(np.float64)), halves(p.astype(np.float64))

    def _eps(self, rows: slice, seed: int, purpose: Purpose, sample: int) -> np.ndarray:
        """The noise (1, n, l) of one sample for one batch of rows."""
        shape = (1, rows.stop - rows.start, self.latent_dim)
        return standard_normal(shape, self.dtype, seed, purpose, epoch=sample, step=rows.start // BATCH)

    def _check_widths(self) -> None:
        """Refuse networks that do not take their inputs, or give another width."""
        d, l = self.data_dim, self.latent_dim
        for name in ("recognition", "prior"):
            self._check_width(name, self.example(name), 2 * l, f"{d} columns")
        expected = f"({l}, {d}) columns" if self.view else f"{l} columns"
        self._check_width("generation", self.example("generation"), d, expected)

    def example(self, network: str) -> tuple[Part, ...]:
        """What a network takes, for one example: zeros."""
        v, z = (self.kernels.xp.zeros((1, width), self.dtype) for width in (self.data_dim, self.latent_dim))
        if network != "generation":
            return (v,)
        return (z, v) if self.view else (z,)
