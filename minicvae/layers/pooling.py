"""Layers that make an image smaller or larger, each channel by itself: pooling and upsampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minicvae.kernels import Array
from minicvae.layers.convolution import check_channels, check_fits, pair
from minicvae.layers.layer import Backward, Layer, once

__all__ = ["AvgPool2D", "MaxPool2D", "UpSample2D"]


@dataclass(eq=False)
class _Pool(Layer):
    """What the pools share: the window, and the stride from one to the next."""

    pool: int | Sequence[int] = 2
    stride: int | Sequence[int] | None = None  # None: that of the pool, one window beside the other

    def __post_init__(self) -> None:
        self.size = pair(self.pool, "pool")
        self.step = self.size if self.stride is None else pair(self.stride, "stride")

    def check(self, shape: Sequence[int]) -> None:
        """ValueError unless the shape is that of images with room for a window."""
        check_channels(shape)
        check_fits(shape, self.size, "pool")


@dataclass(eq=False)
class MaxPool2D(_Pool):
    """y_nijc = max over 0 <= a < ph, 0 <= b < pw of x_n,(i s + a),(j t + b),c: the largest pixel of each window.

    x (n, h, w, c) -> y (n, floor((h - ph) / s) + 1, floor((w - pw) / t) + 1, c), for a stride of the pool's size
    floor(h / ph), floor(w / pw): rows and columns left over at the end are not read.
    pool (ph, pw) and stride (s, t): an integer for both, or a pair.

    dx_n,(i s + a),(j t + b),c = dy_nijc where that pixel is the largest of its window, summed over the windows; of
    equal ones the first, row by row, gets it all.

    Raises ValueError for a size below 1; `forward` for images that are smaller than the pool.
    """

    def forward(self, x: Array) -> tuple[Array, Backward]:
        """x (n, h, w, c) -> y (n, i, j, c)."""
        self.check(x.shape)
        y = self.kernels.max_pool(x, self.size, self.step)

        @once
        def backward(dy: Array, need_dx: bool = True) -> Array | None:
            """dy (n, i, j, c) -> dx (n, h, w, c)."""
            return self.kernels.max_pool_backward(dy, x, y, self.size, self.step) if need_dx else None

        return y, backward


@dataclass(eq=False)
class AvgPool2D(_Pool):
    """y_nijc = (1 / ph pw) Σ_ab x_n,(i s + a),(j t + b),c: the mean of each window.

    Sizes, pool, stride, leftover pixels and errors are those of `MaxPool2D`.

    dx_n,(i s + a),(j t + b),c = dy_nijc / (ph pw), summed over the windows.
    """

    def forward(self, x: Array) -> tuple[Array, Backward]:
        """x (n, h, w, c) -> y (n, i, j, c)."""
        self.check(x.shape)

        @once
        def backward(dy: Array, need_dx: bool = True) -> Array | None:
            """dy (n, i, j, c) -> dx (n, h, w, c)."""
            return self.kernels.avg_pool_backward(dy, x.shape[1:3], self.size, self.step) if need_dx else None

        return self.kernels.avg_pool(x, self.size, self.step), backward


@dataclass(eq=False)
class UpSample2D(Layer):
    """y_n,(i s + a),(j t + b),c = x_nijc for 0 <= a < s, 0 <= b < t: each pixel a block of equal ones (nearest).

    x (n, h, w, c) -> y (n, h s, w t, c); factor (s, t): an integer for both, or a pair.

    dx_nijc = Σ_ab dy_n,(i s + a),(j t + b),c.

    Raises ValueError for a factor below 1.
    """

    factor: int | Sequence[int] = 2

    def __post_init__(self) -> None:
        self.size = pair(self.factor, "factor")

    def forward(self, x: Array) -> tuple[Array, Backward]:
        """x (n, h, w, c) -> y (n, h s, w t, c)."""
        check_channels(x.shape)

        @once
        def backward(dy: Array, need_dx: bool = True) -> Array | None:
            """dy (n, h s, w t, c) -> dx (n, h, w, c)."""
            return self.kernels.upsample_backward(dy, self.size) if need_dx else None

        return self.kernels.upsample(x, self.size), backward
