"""Convolution and its transpose, on images NHWC: the dense layer of every window, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from minicvae.checks import whole
from minicvae.kernels import Array
from minicvae.kernels.convolution import Pair, is_convolution, span, turned
from minicvae.layers.dense import ACTIVATIONS
from minicvae.layers.layer import Backward, Layer, once
from minicvae.parameters import Parameter

__all__ = ["Conv2D", "ConvTranspose2D"]

PADDINGS = ("same", "valid")


def pair(value: int | Sequence[int], name: str) -> Pair:
    """(rows, columns) of an integer for both or of a pair; ValueError unless both are at least 1."""
    sizes = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(sizes) != 2 or not all(isinstance(size, int) and size >= 1 for size in sizes):
        raise ValueError(f"{name}: expected an integer of at least 1, or a pair of them, got {value!r}")
    return sizes


def check_channels(shape: Sequence[int], channels: int | None = None) -> None:
    """ValueError unless the shape is (n, h, w, channels), any number of them for None."""
    if len(shape) != 4 or channels not in (None, shape[3]):
        raise ValueError(f"x: expected images of shape (n, h, w, {channels or 'c'}), got shape {shape}")


def check_fits(shape: Sequence[int], window: Pair, name: str) -> None:
    """ValueError if images of shape (n, h, w, c) are smaller than a window that may not leave them."""
    if shape[1] < window[0] or shape[2] < window[1]:
        raise ValueError(f"x: expected images at least as large as the {name} {window}, got shape {shape}")


@dataclass(eq=False)
class Convolution(Layer):
    """What a convolution and its transpose share: sizes, a kernel W, a bias b, and how they are run."""

    c_in: int
    c_out: int
    kernel: int | Sequence[int] = 3
    stride: int | Sequence[int] = 1
    padding: str = "same"
    activation: str = "linear"
    initializer: str = ""  # "": the one that suits the activation

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if self.padding not in PADDINGS:
            raise ValueError(f"padding: expected one of {', '.join(PADDINGS)}, got {self.padding!r}")
        whole("c_in", self.c_in)
        whole("c_out", self.c_out)
        self.size = pair(self.kernel, "kernel")
        self.step = pair(self.stride, "stride")
        self.settings = self.activation, self.step, self.padding
        self.W = self.weight(self.initializer or ACTIVATIONS[self.activation])
        self.b = Parameter((self.c_out,), "zeros")

    def weight(self, initializer: str) -> Parameter:
        """W (kh, kw, c_in, c_out)."""
        return Parameter((*self.size, self.c_in, self.c_out), initializer)

    def check(self, shape: Sequence[int]) -> None:
        """ValueError unless images of this shape can be convolved."""
        check_channels(shape, self.c_in)

    @property
    def slides(self) -> bool:
        """Whether this is `conv2d` of stride 1 by the kernel `facing(W)`."""
        return self.step == (1, 1)

    def facing(self, W: Array) -> Array:
        """W, or its gradient, as `conv2d` of stride 1 reads it."""
        return W

    def sinks(self) -> tuple[Array, Array, bool]:
        """Where a backward writes dW and db, and whether it must add to what is there."""
        dW, accumulate = self.W.gradient_sink()
        db, _ = self.b.gradient_sink()
        return dW, db, accumulate

    def run(
        self, kernel: Callable[..., Array], kernel_backward: Callable[..., Any], x: Array
    ) -> tuple[Array, Backward]:
        """y and its backward by the kernel and its twin."""
        y = kernel(x, self.W.value, self.b.value, *self.settings)

        @once
        def backward(dy: Array, need_dx: bool = True) -> Array | None:
            """dy, shaped as y -> dx, shaped as x."""
            return kernel_backward(dy, x, y, self.W.value, *self.settings, *self.sinks(), need_dx)

        return y, backward


@dataclass(eq=False)
class Conv2D(Convolution):
    """y_nijk = f(Σ_abc x_n,(i s - p + a),(j t - q + b),c W_abck + b_k): a dense layer on every window of the image.

    x (n, h, w, c_in) -> y (n, i, j, c_out);  W (kh, kw, c_in, c_out), b (c_out,);  f as in `Dense`.
    kernel (kh, kw) and stride (s, t): an integer for both, or a pair.
    padding: "same" puts zeros around the image, p rows and q columns of them before it, so that i = ceil(h / s) and
    j = ceil(w / t), as TensorFlow does (`span` in `kernels/convolution.py`). "valid" reads the image alone: p = q = 0,
    i = floor((h - kh) / s) + 1, likewise j, and pixels left over at the end are not read.

    With P the windows of x and g = dy ⊙ f'(P W + b):  dW = Pᵀ g,  db = Σ_nij g,  and dx is g Wᵀ, added up where windows
    overlap. The derivation stands in `kernels/convolution.py`, beside `conv2d_backward`.

    Raises ValueError for a size below 1, an unknown padding, activation or initialiser; `forward` also for images with
    other channels or, where the padding is "valid", smaller than the kernel.
    """

    def shape_after(self, shape: Sequence[int]) -> Sequence[int]:
        """Of y for x of this shape."""
        places = map(span, shape[1:3], self.size, self.step, repeat(self.padding))
        return shape[0], *(count for count, _, _ in places), self.c_out

    def check(self, shape: Sequence[int]) -> None:
        """ValueError unless images of this shape can be convolved."""
        check_channels(shape, self.c_in)
        if self.padding == "valid":
            check_fits(shape, self.size, "kernel")

    def forward(self, x: Array) -> tuple[Array, Backward]:
        """x (n, h, w, c_in) -> y (n, i, j, c_out)."""
        self.check(x.shape)
        return self.run(self.kernels.conv2d, self.kernels.conv2d_backward, x)


@dataclass(eq=False)
class ConvTranspose2D(Convolution):
    """y = f(Σ_ijk x_nijk W_abck at the pixel (i s - p + a, j t - q + b) + b_c): each pixel of x stamps the kernel on y.

    x (n, i, j, c_in) -> y (n, h, w, c_out);  W (kh, kw, c_out, c_in), b (c_out,);  f as in `Dense`.
    kernel (kh, kw) and stride (s, t): an integer for both, or a pair.
    padding: "same" gives h = i s, w = j t; "valid" the whole of all stamps, h = (i - 1) s + kh, w = (j - 1) t + kw.

    Without bias and activation it is the transpose of the `Conv2D` from c_out to c_in channels with the same W, which
    takes an image of the size of y to one of the size of x. So with P the windows of g = dy ⊙ f':  dW = Pᵀ x,
    db = Σ_nhw g,  dx = P W. The derivation stands in `kernels/convolution.py`, beside `conv2d_transpose_backward`.

    Raises ValueError for a size below 1, an unknown padding, activation or initialiser; `forward` also for images with
    other channels.
    """

    def weight(self, initializer: str) -> Parameter:
        """W (kh, kw, c_out, c_in), drawn as (kh, kw, c_in, c_out): what comes in stands last, not last but one."""
        W = Parameter((*self.size, self.c_out, self.c_in), initializer)
        draw = W.initializer
        W.initializer = lambda rng, shape: draw(rng, (*shape[:2], shape[3], shape[2])).swapaxes(2, 3)
        return W

    @property
    def slides(self) -> bool:
        """Whether this is `conv2d` of stride 1 by the kernel `facing(W)`."""
        return is_convolution(self.size, self.step, self.padding)

    def facing(self, W: Array) -> Array:
        """W turned, as a view."""
        return turned(W)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        """x (n, i, j, c_in) -> y (n, h, w, c_out)."""
        self.check(x.shape)
        return self.run(self.kernels.conv2d_transpose, self.kernels.conv2d_transpose_backward, x)
