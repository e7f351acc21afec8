"""Layers one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

from minicvae.kernels import Array
from minicvae.layers.fused import fuse
from minicvae.layers.layer import Backward, Layer, once

__all__ = ["Chain"]


class _Run(NamedTuple):
    """Layers, and how many of them come before the first that has parameters.

    Where nobody wants dx, the backwards of those are left out.
    """

    layers: Sequence[Layer]
    bare: int

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> _Run:
        """The layers, counted."""
        bare = takewhile(lambda layer: not any(True for _ in layer.named_parameters()), layers)
        return cls(layers, min(sum(1 for _ in bare), len(layers) - 1))


@dataclass(eq=False)
class Chain(Layer):
    """y = f_k(... f_2(f_1(x_1, x_2, ...))): the first layer takes all inputs.

    The chain rule, read from the end: dh_{i-1} = (∂f_i/∂h_{i-1})ᵀ dh_i.
    Pairs of layers that have a kernel of their own run as one (`fused.py`).

    Raises ValueError for an empty list, TypeError for what is no layer.
    """

    layers: Sequence[Layer]

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers: expected at least one layer, got none")
        for layer in self.layers:
            if not isinstance(layer, Layer):
                raise TypeError(f"layers: expected layers, got {layer!r}; a Dense layer names its own activation")
        self._alone, self._fused = (_Run.of(layers) for layers in (self.layers, fuse(self.layers)))

    def children(self) -> Iterator[tuple[str, Layer]]:
        """The layers by their number."""
        return ((str(i), layer) for i, layer in enumerate(self.layers))

    def forward(self, *inputs: Any) -> tuple[Any, Backward]:
        """inputs -> the last layer's output."""
        backwards: list[Backward] = []
        inputs_given = len(inputs)
        # Where somebody watches a layer (`trace` puts a forward of its own into it), all run alone.
        layers, bare = self._alone if any("forward" in vars(layer) for layer in self.layers) else self._fused
        for layer in layers:
            y, backward = layer.forward(*inputs)
            backwards.append(backward)
            inputs = (y,)

        @once
        def backward_all(dy: Array, need_dx: bool | Sequence[bool] = True) -> Any:
            """dL/dy -> dL/dinputs."""
            last = bare if need_dx is False else 0
            for backward in reversed(backwards[last + 1 :]):
                dy = backward(dy)
            dx = backwards[last](dy, need_dx=need_dx)
            if last:
                return None if inputs_given == 1 else (None,) * inputs_given
            return dx

        return y, backward_all
