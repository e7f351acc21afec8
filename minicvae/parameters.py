"""All parameters of a model in one flat buffer, all gradients in another of the same length.

A `Parameter` is a named, shaped view into both. So an optimiser is one kernel call, gradient clipping one norm, and a
checkpoint one table. Each begins at a multiple of `UNIT` numbers; the few between it and the one before are zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from itertools import accumulate
from math import prod
from typing import Any, NamedTuple

import numpy as np

from minicvae import initializers, randomness
from minicvae.kernels import Array, Reference
from minicvae.kernels.workspace import LINE

__all__ = ["UNIT", "Block", "Parameter", "Parameters"]

UNIT = LINE // 4  # numbers; of float32 a cache line: where rows are whole lines, no vector of one lies on two


class Parameter:
    """A weight array of a layer: a name, a shape, an initialiser, and views into the flat buffers.

    A layer declares it; `Parameters` gives it a name and memory.
    """

    def __init__(self, shape: tuple[int, ...], initializer: str) -> None:
        if any(size < 1 for size in shape):
            raise ValueError(f"shape: expected positive sizes, got {shape}")
        self.shape = shape
        self.initializer = initializers.get(initializer)
        self.name = ""
        self.taken = False  # whether it belongs to a model, out of which no other may take it
        self.value: Array = None
        self._grad: Array = None
        self._written = False

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    def place(self, value: Array, grad: Array) -> None:
        """Let the parameter live in these views."""
        self.value, self._grad, self._written = value, grad, False

    @property
    def grad(self) -> Array:
        """dL/dvalue of the current step; zero if no backward has reached this parameter."""
        self.settle()
        return self._grad

    def settle(self) -> None:
        """Clear what is left of the step before, if no backward has written since."""
        if not self._written:
            self._grad[...] = 0
            self._written = True

    def mark_settled(self) -> None:
        """The gradient is that of the current step."""
        self._written = True

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


class Views(MutableMapping[str, Array]):
    """Name -> array of one of the two buffers; assigning to a name writes into the buffer."""

    def __init__(self, parameters: Iterable[Parameter], attribute: str, kernels: Reference) -> None:
        self._by_name = {p.name: p for p in parameters}
        self._attribute = attribute
        self._kernels = kernels

    def __getitem__(self, name: str) -> Array:
        return getattr(self._by_name[name], self._attribute)

    def __setitem__(self, name: str, array: Array) -> None:
        if name not in self._by_name:
            raise KeyError(f"{name!r} is none of the parameters {', '.join(self._by_name)}")
        target = self[name]
        if np.shape(array) != target.shape:
            raise ValueError(f"parameters[{name!r}]: expected shape {target.shape}, got {np.shape(array)}")
        target[...] = self._kernels.array(array, target.dtype)

    def __delitem__(self, name: str) -> None:
        raise TypeError("parameters cannot be removed from their buffer")

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return "\n".join(f"{name} {p.shape}" for name, p in self._by_name.items())


class Parameters(Views):
    """Name -> value of every parameter of some layers, each a view into one flat buffer.

    `parameters[name] = array` and `parameters[name][...] = array` both write into the buffer `value`.
    `grads` is the same mapping of the gradients; `value` and `grad` are the flat buffers. size: how many numbers the
    parameters have, without those between them.
    """

    def __init__(self, named: Iterable[tuple[str, Parameter]], kernels: Reference, dtype: Any, seed: int = 0) -> None:
        """Allocate the buffers on the device of `kernels` and initialise every parameter from `seed`.

        The i-th parameter has the i-th stream of the seed, so its numbers do not depend on the shapes of others.
        Raises ValueError where a parameter comes twice.
        """
        parameters: list[Parameter] = []
        for name, p in named:
            if any(p is other for other in parameters):
                raise ValueError(f"{name} is {p.name} too: a layer can stand in one place only")
            p.name = name
            parameters.append(p)
        self.size = sum(p.size for p in parameters)
        self._starts = starts = list(accumulate((-(-p.size // UNIT) * UNIT for p in parameters), initial=0))
        self.value, self._grad = (kernels.zeros((starts[-1],), dtype) for _ in range(2))
        for i, p in enumerate(parameters):
            block = slice(starts[i], starts[i] + p.size)
            p.place(self.value[block].reshape(p.shape), self._grad[block].reshape(p.shape))
            rng = randomness.generator(seed, randomness.Purpose.INITIALISE, step=i)
            p.value[...] = kernels.array(p.initializer(rng, p.shape), dtype)
        super().__init__(parameters, "value", kernels)
        self.grads = Views(parameters, "grad", kernels)

    @property
    def grad(self) -> Array:
        """The flat gradient of the current step; zero where no backward has written."""
        self.settle()
        return self._grad

    def settle(self) -> None:
        """Clear the gradients that no backward has written in the current step."""
        for p in self._by_name.values():
            p.settle()

    def mark_settled(self) -> None:
        """The gradients in the buffer are those of the current step: a device that recorded one has written them."""
        for p in self._by_name.values():
            p.mark_settled()

    def block(self, *networks: str) -> Block:
        """The parameters of these networks, which have to lie next to each other."""
        own = [i for i, name in enumerate(self) if name.split(".")[0] in networks]
        if not own or own != list(range(own[0], own[-1] + 1)):
            raise ValueError(f"networks: expected neighbours in the buffer, got {', '.join(networks)}")
        return Block(self, slice(self._starts[own[0]], self._starts[own[-1] + 1]))

    def zero_grad(self) -> None:
        """Forget all gradients: the next backward overwrites them."""
        for p in self._by_name.values():
            p.zero_grad()


class Block(NamedTuple):
    """A piece of the two buffers, for an optimiser of its own."""

    parameters: Parameters
    where: slice

    @property
    def value(self) -> Array:
        """The flat values of the piece."""
        return self.parameters.value[self.where]

    @property
    def grad(self) -> Array:
        """Their flat gradient of the current step."""
        return self.parameters.grad[self.where]
