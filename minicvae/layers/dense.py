"""The dense layer, which joins its inputs: y = f([x, c] W + b)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minicvae.checks import whole
from minicvae.kernels import Array, OneHot
from minicvae.layers.layer import Backward, Layer, once
from minicvae.parameters import Parameter

__all__ = ["ACTIVATIONS", "Dense"]

# The activations, each with the initialiser that keeps its signal's variance.
ACTIVATIONS = {
    "linear": "glorot_uniform",
    "relu": "he_normal",
    "tanh": "glorot_uniform",
    "elu": "he_normal",
    "sigmoid": "glorot_uniform",
}


@dataclass(eq=False)
class Dense(Layer):
    """y = f([x_1, x_2, ...] W + b), f one of linear, relu, tanh, elu, sigmoid.

    x_i (n, d_i) arrays, or `OneHot` labels (n,), with Σ d_i = d_in -> y (n, d_out);  W (d_in, d_out), b (d_out,).
    The rows of W come in the order of the inputs. Nothing is concatenated: [x, c] W = x W_x + c W_c, and for one-hot
    labels c W_c is the row W_c[label].

    With g = dL/d(xW + b) = dy ⊙ f'(xW + b):  dW = xᵀ g,  db = Σₙ g,  dx = g Wᵀ. The derivation stands in
    `kernels/reference.py`, beside `dense_backward`.

    Raises ValueError for a size below 1, an unknown activation or an unknown initialiser.
    """

    d_in: int
    d_out: int
    activation: str = "linear"
    initializer: str = ""  # "": the one that suits the activation

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        whole("d_in", self.d_in)
        whole("d_out", self.d_out)
        self.W = Parameter((self.d_in, self.d_out), self.initializer or ACTIVATIONS[self.activation])
        self.b = Parameter((self.d_out,), "zeros")

    def forward(self, *parts: Array | OneHot) -> tuple[Array, Backward]:
        """parts (n, d_i) -> y (n, d_out). Raises ValueError where Σ d_i is not d_in."""
        widths = [part.classes if isinstance(part, OneHot) else part.shape[1] for part in parts]
        if sum(widths) != self.d_in:
            raise ValueError(f"Dense({self.d_in}, {self.d_out}) got inputs of {' + '.join(map(str, widths))} columns")
        y = self.kernels.dense(parts, self.W.value, self.b.value, self.activation)

        @once
        def backward(dy: Array, need_dx: bool | Sequence[bool] = True) -> Array | tuple[Array | None, ...] | None:
            """dy (n, d_out) -> dx (n, d_in), or a tuple with one for each part."""
            needs = [need_dx] * len(parts) if isinstance(need_dx, bool) else need_dx
            dW, accumulate = self.W.gradient_sink()
            db, _ = self.b.gradient_sink()
            dparts = self.kernels.dense_backward(dy, parts, y, self.W.value, self.activation, dW, db, accumulate, needs)
            return dparts[0] if len(parts) == 1 else dparts

        return y, backward
