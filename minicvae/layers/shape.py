"""Layers that only change the shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minicvae.kernels import Array
from minicvae.layers.layer import Backward, Layer, once

__all__ = ["Flatten", "Reshape"]


@dataclass(eq=False)
class Reshape(Layer):
    """y = x with `shape` for each example: (n, ...) -> (n, *shape). The gradient is dy in the shape of x."""

    shape: Sequence[int]

    def forward(self, x: Array) -> tuple[Array, Backward]:
        """(n, ...) -> (n, *shape)."""

        @once
        def backward(dy: Array, need_dx: bool = True) -> Array:
            return dy.reshape(x.shape)

        return x.reshape(len(x), *self.shape), backward


@dataclass(eq=False)
class Flatten(Reshape):
    """y = x with one axis for each example: (n, ...) -> (n, d)."""

    shape: Sequence[int] = (-1,)
