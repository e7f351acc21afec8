"""Inputs that each go a way of their own before they meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minicvae.kernels import Array
from minicvae.layers.layer import Backward, Layer, once

__all__ = ["Pathways"]


@dataclass(eq=False)
class Pathways(Layer):
    """y = trunk(f_1(x_1), f_2(x_2), ...): one layer for each input, or None for an input that passes as it is.

    An embedded class is `Pathways([None, Embedding(10, 16)], trunk)`; separate pathways for image and condition are
    `Pathways([Dense(784, 256, "relu"), Dense(10, 256, "relu")], trunk)`. The trunk's first layer joins what arrives.

    The trunk's backward gives dL/df_i, and each pathway's backward carries it on to dL/dx_i.
    """

    paths: Sequence[Layer | None]
    trunk: Layer

    def forward(self, *inputs: Any) -> tuple[Array, Backward]:
        """(x_1, x_2, ...) -> y."""
        arrived: list[Any] = []
        backwards: list[Backward | None] = []
        for path, x in zip(self.paths, inputs, strict=True):
            h, path_backward = (x, None) if path is None else path.forward(x)
            arrived.append(h)
            backwards.append(path_backward)
        y, trunk_backward = self.trunk.forward(*arrived)

        @once
        def backward(dy: Array, need_dx: bool | Sequence[bool] = True) -> Any:
            """dL/dy -> a dL/dx for each input."""
            needs = [need_dx] * len(inputs) if isinstance(need_dx, bool) else need_dx
            # A pathway with weights needs its gradient even where the gradient of its input is not read.
            dh = trunk_backward(dy, need_dx=[n or b is not None for n, b in zip(needs, backwards, strict=True)])
            dh = dh if len(inputs) > 1 else (dh,)
            dx = tuple(
                d if path_backward is None else path_backward(d, need_dx=need)
                for d, path_backward, need in zip(dh, backwards, needs, strict=True)
            )
            return dx if len(inputs) > 1 else dx[0]

        return y, backward
