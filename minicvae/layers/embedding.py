"""The embedding layer: a learned vector for each class."""

from __future__ import annotations

from dataclasses import dataclass

from minicvae.kernels import Array, OneHot
from minicvae.layers.layer import Backward, Layer, once
from minicvae.parameters import Parameter

__all__ = ["Embedding"]


@dataclass(eq=False)
class Embedding(Layer):
    """y = E[c], the row of each label.

    c `OneHot` labels (n,) of `classes` -> y (n, dim);  E (classes, dim), which starts at N(0, 1).
    y = onehot(c) E, so dE = onehot(c)ᵀ dy: dE[k] = Σ over {n: c_n = k} of dy_n, and repeated labels accumulate.
    """

    classes: int
    dim: int

    def __post_init__(self) -> None:
        self.E = Parameter((self.classes, self.dim), "standard_normal")

    def forward(self, c: OneHot) -> tuple[Array, Backward]:
        """c (n,) -> y (n, dim). Raises ValueError for labels of another number of classes."""
        if c.classes != self.classes:
            raise ValueError(f"Embedding({self.classes}, {self.dim}) got labels of {c.classes} classes")
        y = self.kernels.embedding(self.E.value, c.labels)

        @once
        def backward(dy: Array, need_dx: bool = False) -> None:
            """dy (n, dim); labels have no gradient."""
            dE, accumulate = self.E.gradient_sink()
            self.kernels.embedding_backward(dy, c.labels, dE, accumulate)

        return y, backward
