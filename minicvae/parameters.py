"""All parameters of a model in one flat buffer, all gradients in another of the same length.

A `Parameter` is a named, shaped view into both. So an optimiser is one kernel call, gradient clipping one norm, and a
checkpoint one table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from math import prod
from typing import Any

import numpy as np

from minicvae import initializers, randomness
from minicvae.kernels import Array, Reference

__all__ = ["Parameter", "Parameters"]


class Parameter:
    """A weight array of a layer: a name, a shape, an initialiser, and views into the flat buffers.

    A layer declares it; `Parameters` gives it memory. `value` and `gradient_sink` exist from then on.
    """

    def __init__(self, shape: tuple[int, ...], initializer: str) -> None:
        if any(size < 1 for size in shape):
            raise ValueError(f"shape: expected positive sizes, got {shape}")
        self.shape = shape
        self.initializer = initializers.get(initializer)
        self.name = ""
        self.value: Array = None
        self._grad: Array = None
        self._written = False

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def grad(self) -> Array:
        """dL/dvalue of the current step; zero if no backward has reached this parameter."""
        if not self._written:
            self._grad[...] = 0
            self._written = True
        return self._grad

    def gradient_sink(self) -> tuple[Array, bool]:
        """Where a backward writes its gradient, and whether it must add to what is there.

        The first backward of a step overwrites the numbers of the step before, so nothing has to be zeroed; a second
        one (the same layer run twice) adds.
        """
        accumulate, self._written = self._written, True
        return self._grad, accumulate

    def zero_grad(self) -> None:
        """Forget the gradient: the next backward overwrites it."""
        self._written = False


class _Views(MutableMapping[str, Array]):
    """Name -> array of one of the two buffers; assigning to a name writes into the buffer."""

    def __init__(self, parameters: Iterable[Parameter], attribute: str, kernels: Reference) -> None:
        self._parameters = {p.name: p for p in parameters}
        self._attribute = attribute
        self._kernels = kernels

    def __getitem__(self, name: str) -> Array:
        return getattr(self._parameters[name], self._attribute)

    def __setitem__(self, name: str, value: Array) -> None:
        if name not in self._parameters:
            raise KeyError(f"{name!r} is none of the parameters {', '.join(self._parameters)}")
        target = self[name]
        if np.shape(value) != target.shape:
            raise ValueError(f"parameters[{name!r}]: expected shape {target.shape}, got {np.shape(value)}")
        target[...] = self._kernels.array(value, target.dtype)

    def __delitem__(self, name: str) -> None:
        raise TypeError("a model's parameters cannot be removed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def __repr__(self) -> str:
        return "\n".join(f"{name} {p.shape}" for name, p in self._parameters.items())


class Parameters:
    """The flat buffers `value` and `grad` of some layers, and each parameter's view into them by name.

    values, grads: mappings name -> array; `values[name] = array` writes into the buffer.
    """

    def __init__(
        self, named: Iterable[tuple[str, Parameter]], kernels: Reference, dtype: Any, seed: int = 0
    ) -> None:
        """Allocate the buffers on the device of `kernels` and initialise every parameter from `seed`.

        The i-th parameter has the i-th stream of the seed, so its numbers do not depend on the shapes of others.
        """
        self._parameters: list[Parameter] = []
        for name, parameter in named:
            parameter.name = name
            self._parameters.append(parameter)
        self.size = sum(p.size for p in self._parameters)
        initial = np.empty(self.size, dtype)
        self.value = kernels.array(initial)
        self._grad = kernels.array(np.zeros(self.size, dtype))
        start = 0
        for i, p in enumerate(self._parameters):
            rng = randomness.generator(seed, randomness.Purpose.INITIALISE, step=i)
            block = slice(start, start + p.size)
            p.value = self.value[block].reshape(p.shape)
            p._grad = self._grad[block].reshape(p.shape)
            p.value[...] = kernels.array(p.initializer(rng, p.shape), dtype)
            p.zero_grad()
            start += p.size
        self.values = _Views(self._parameters, "value", kernels)
        self.grads = _Views(self._parameters, "grad", kernels)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._parameters)

    @property
    def grad(self) -> Array:
        """The flat gradient of the current step; zero where no backward has written."""
        for p in self._parameters:
            p.grad  # noqa: B018 - the property clears what is left of the step before
        return self._grad

    def zero_grad(self) -> None:
        """Forget all gradients: the next backward overwrites them."""
        for p in self._parameters:
            p.zero_grad()
