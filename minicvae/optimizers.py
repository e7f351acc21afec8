"""SGD with momentum, Adam and AdamW, each one kernel call over the flat buffers.

An optimiser is a dataclass of its settings; `start(parameters)` gives it its moments, `update` makes a step. The
formulas stand in `kernels/reference.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from minicvae.checks import not_negative
from minicvae.kernels import Array, Reference
from minicvae.parameters import Block, Parameters

__all__ = ["OPTIMIZERS", "SGD", "Adam", "AdamW", "Optimizer", "Update", "clip_by_global_norm", "get"]


@dataclass(frozen=True)
class Update:
    """`update(learning_rate)` makes one step of training from the current gradient.

    state: what it remembers from step to step, by name: arrays that change in place. Whoever writes into them what
    they held at another time goes on from there.
    """

    step: Callable[[float | Array], None]
    state: Mapping[str, Array]

    def __call__(self, learning_rate: float | Array) -> None:
        """Make the step; the rate may be an array without dimensions, on the device."""
        self.step(learning_rate)


class Optimizer:
    """The base of all optimisers."""

    def start(self, parameters: Parameters | Block, kernels: Reference) -> Update:
        """The steps from here on: moments start at zero and live in buffers as long as the parameters'."""
        raise NotImplementedError


@dataclass(frozen=True)
class SGD(Optimizer):
    """v ← momentum v + g + weight_decay value;  value ← value - rate v.

    With Nesterov, value ← value - rate (g + weight_decay value + momentum v), v as above.
    """

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_decay_rates(momentum=self.momentum)
        not_negative(weight_decay=self.weight_decay)

    def start(self, parameters: Parameters | Block, kernels: Reference) -> Update:
        """A velocity for every parameter."""
        velocity = kernels.zeros(parameters.value.shape, parameters.value.dtype)

        def update(learning_rate: float | Array) -> None:
            kernels.sgd(
                parameters.value,
                parameters.grad,
                velocity,
                learning_rate,
                self.momentum,
                self.nesterov,
                self.weight_decay,
            )

        return Update(update, {"velocity": velocity})


@dataclass(frozen=True)
class Adam(Optimizer):
    """value ← value - rate (m̂ / (√v̂ + epsilon) + weight_decay value). Kingma and Ba 2015, algorithm 1.

    The decay does not pass through the moments (as in `AdamW`, which is this with another default).
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_decay_rates(beta1=self.beta1, beta2=self.beta2)
        not_negative(epsilon=self.epsilon, weight_decay=self.weight_decay)
        if self.epsilon == 0:
            raise ValueError("epsilon: expected a number above 0, for 0/0 is none where a gradient has always been 0")

    def start(self, parameters: Parameters | Block, kernels: Reference) -> Update:
        """Two moments for every parameter, and the number of steps made."""
        m, v = (kernels.zeros(parameters.value.shape, parameters.value.dtype) for _ in range(2))
        step = kernels.zeros((1,), np.int64)

        def update(learning_rate: float | Array) -> None:
            kernels.adam(
                parameters.value,
                parameters.grad,
                m,
                v,
                step,
                learning_rate,
                self.beta1,
                self.beta2,
                self.epsilon,
                self.weight_decay,
            )

        return Update(update, {"m": m, "v": v, "step": step})


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with a weight decay of 0.01 unless told otherwise. Loshchilov and Hutter 2019, algorithm 2."""

    weight_decay: float = 0.01


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


def get(optimizer: str | Optimizer) -> Optimizer:
    """An optimiser as it is, or the one of that name with its usual settings.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    if not isinstance(optimizer, str) or optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}, or an Optimizer, got {optimizer!r}")
    return OPTIMIZERS[optimizer]()


def clip_by_global_norm(parameters: Parameters, kernels: Reference, limit: float) -> Array:
    """g ← g · min(1, limit / ‖g‖), ‖g‖ over all parameters; returns ‖g‖. Pascanu, Mikolov, Bengio 2013."""
    return kernels.clip(parameters.grad, limit)


def _check_decay_rates(**rates: float) -> None:
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise ValueError(f"{name}: expected 0 <= {name} < 1, got {rate!r}")
