"""Layers one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from minicvae.kernels import Array
from minicvae.layers.layer import Backward, Layer, once

__all__ = ["Chain"]


@dataclass(eq=False)
class Chain(Layer):
    """y = f_k(... f_2(f_1(x_1, x_2, ...))): the first layer takes all inputs.

    The chain rule, read from the end: dh_{i-1} = (∂f_i/∂h_{i-1})ᵀ dh_i.

    Raises ValueError for an empty list.
    """

    layers: Sequence[Layer]

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers: expected at least one layer, got none")

    def children(self) -> Iterator[tuple[str, Layer]]:
        """The layers by their number."""
        return ((str(i), layer) for i, layer in enumerate(self.layers))

    def forward(self, *inputs: Any) -> tuple[Any, Backward]:
        """inputs -> the last layer's output."""
        backwards: list[Backward] = []
        for layer in self.layers:
            y, backward = layer.forward(*inputs)
            backwards.append(backward)
            inputs = (y,)

        @once
        def backward_all(dy: Array, need_dx: bool | Sequence[bool] = True) -> Any:
            """dL/dy -> dL/dinputs."""
            for backward in reversed(backwards[1:]):
                dy = backward(dy)
            return backwards[0](dy, need_dx=need_dx)

        return y, backward_all
