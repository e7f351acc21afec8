"""What every model has in common: its weights in one buffer, its noise, and the losses of a batch.

This is all that the training loop, `evaluate` and the gradient checker ask of a model, so each of them works with
every model that is a `Trainable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from minicvae.checks import whole
from minicvae.kernels import Array, load
from minicvae.kernels.reference import Part
from minicvae.layers import Backward, Layer
from minicvae.models.adversarial import GameLosses
from minicvae.objectives import ELBO, OBJECTIVES, Losses, Objective
from minicvae.optimizers import Optimizer, Update
from minicvae.parameters import Parameters
from minicvae.randomness import Purpose, standard_normal

__all__ = ["BATCH", "Trainable", "batches"]

BATCH = 1000  # examples at a time where nothing is trained: memory stays bounded, and results do not depend on it


def batches(n: int, size: int = BATCH) -> Iterator[slice]:
    """Slices of at most `size` that cover 0..n."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def of_the_library(part: Any) -> bool:
    """Whether the object's class is one of the library's, and no method of it was replaced."""
    kind = type(part)
    replaced = any(callable(value) and hasattr(kind, name) for name, value in vars(part).items())
    return kind.__module__.partition(".")[0] == __name__.partition(".")[0] and not replaced


def _as_floats(losses: Losses | GameLosses) -> dict[str, float]:
    return {name: float(value) for name, value in losses._asdict().items()}


class Trainable:
    """Networks with all their weights in one buffer, and what a batch of images x under conditions c costs.

    A subclass sets its networks and then calls this `__init__`; it has `networks`, `example`, `check_data`,
    `loss_and_backward` and `_check_widths`. latent_dim: the dimensions of z, 0 for a model without.

    Raises ValueError for an unknown dtype or device, sizes below 1, or layers of another model; TypeError for another
    thing where an objective is expected; RuntimeError if the device is not there.
    """

    latent_dim: int

    def __init__(
        self, *, image_shape: Sequence[int], objective: Objective | None, dtype: str, device: str, seed: int
    ) -> None:
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype: expected 'float32' or 'float64', got {dtype!r}")
        if np.ndim(image_shape) != 1:
            raise TypeError(f"image_shape: expected sizes such as (28, 28), got {image_shape!r}")
        self.image_shape = tuple(whole("image_shape", size) for size in image_shape)
        self.objective = ELBO() if objective is None else objective
        if not isinstance(self.objective, OBJECTIVES):
            raise TypeError(f"objective: expected an ELBO or IWAE object, got {objective!r}")
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
        raise NotImplementedError

    def example(self, network: str) -> tuple[Part, ...]:
        """What a network takes, for one example."""
        raise NotImplementedError

    @property
    def facts(self) -> dict[str, Any]:
        """What a summary says of the model beside its layers, by name."""
        return {}

    def check_data(self, x: Any, c: Any, x_name: str = "x", c_name: str = "c") -> tuple[np.ndarray, tuple[Part, ...]]:
        """x as a flat view (n, d), still uint8 if it was, and c as parts; or an error that names the argument."""
        raise NotImplementedError

    def loss_and_backward(
        self, x: Array, c: tuple[Part, ...], eps: Array, beta: float | None = None
    ) -> tuple[Losses | GameLosses, Backward]:
        """The losses of a batch, and the backward that writes the gradient of every parameter.

        x (n, d) floats, c the parts of the condition, eps (S, n, l), all on the device; beta overrides the
        objective's.
        """
        raise NotImplementedError

    @property
    def goals(self) -> dict[str, dict[str, float]]:
        """For each network, the losses that its parameters descend, with their weights."""
        return {name: {"loss": 1.0} for name, _ in self.networks}

    def start(self, optimizer: Optimizer) -> Update:
        """`update(learning_rate)`: one step of all parameters by `optimizer`."""
        return optimizer.start(self.parameters, self.kernels)

    @property
    def device(self) -> str:
        """Where the arrays live: numpy, cpu or cuda."""
        return self.kernels.name

    def _computing(self) -> Iterator[Any]:
        """Every object whose code a step of training runs."""
        yield self
        yield self.objective
        for name, network in self.networks:
            yield from (layer for _, layer in network.named_layers(name))

    def at_work(self) -> list[Any]:
        """Those objects, and all that each of them holds: what a step depends on beside its batch."""
        return [held for part in self._computing() for held in (part, *vars(part).values())]

    @property
    def recordable(self) -> bool:
        """Whether a device may record a step instead of running it: all of its code is this library's.

        What a layer of somebody else's keeps from step to step, or does to its parameters by itself, no device sees.
        """
        return all(map(of_the_library, self._computing()))

    @property
    def data_dim(self) -> int:
        """D, the pixels of an image."""
        return prod(self.image_shape)

    def loss_and_gradients(
        self, x: Any, c: Any, *, eps: Any = None, beta: float | None = None, seed: int = 0
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """The losses (nats per example) and dloss/dparameter by name, as NumPy arrays.

        eps: the noise, (n, latent_dim), or (S, n, latent_dim) where the objective draws S samples; None draws it from
        `seed`. Raises ValueError or TypeError for a wrong argument.
        """
        losses, backward = self._losses(x, c, eps, beta, seed)
        self.parameters.zero_grad()
        backward()
        return _as_floats(losses), {name: self.kernels.to_numpy(g) for name, g in self.parameters.grads.items()}

    def losses(self, x: Any, c: Any, *, eps: Any = None, beta: float | None = None, seed: int = 0) -> dict[str, float]:
        """The losses of `loss_and_gradients` alone, without a backward."""
        return _as_floats(self._losses(x, c, eps, beta, seed)[0])

    def _losses(self, x: Any, c: Any, eps: Any, beta: float | None, seed: int) -> tuple[Losses | GameLosses, Backward]:
        """`loss_and_backward` on what users hand in."""
        images, parts = self.check_data(x, c)
        noise = self.check_noise(eps, len(images)) if eps is not None else self.noise(len(images), seed, Purpose.TRAIN)
        batch = self.kernels.gather(self.kernels.array(images), self.kernels.xp.arange(len(images)), self.dtype)
        return self.loss_and_backward(batch, parts, self.kernels.array(noise), beta)

    def noise(self, n: int, seed: int, purpose: Purpose, epoch: int = 0, step: int = 0) -> np.ndarray:
        """The eps (S, n, l) that the objective needs for n examples, drawn from (seed, purpose, epoch, step)."""
        return standard_normal((self.objective.samples, n, self.latent_dim), self.dtype, seed, purpose, epoch, step)

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
        """Refuse networks that do not take their inputs, or give another width."""
        raise NotImplementedError

    def _check_width(self, name: str, inputs: Sequence[Part], d_out: int, expected: str) -> None:
        """Run a network on one example, so that a wrong width is found here and not in the first step."""
        try:
            y, _ = dict(self.networks)[name].forward(*inputs)
        except (ValueError, IndexError, TypeError) as error:
            raise ValueError(f"{name}: expected a network on {expected}, but running it gave: {error}") from error
        if y.shape != (1, d_out):
            raise ValueError(f"{name}: expected {d_out} output columns, got shape {y.shape} for one example")
