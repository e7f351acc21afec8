"""Channels as planes: a condition that joins an image, and an image laid out plane after plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minicvae.kernels import Array, OneHot
from minicvae.layers.convolution import check_channels
from minicvae.layers.layer import Backward, Layer, once

__all__ = ["FlattenPlanes", "JoinPlanes"]


@dataclass(eq=False)
class JoinPlanes(Layer):
    """y_nhw. = (x_nhw., c_1,n., c_2,n., ...): each number of a condition becomes a plane of equal pixels beside x.

    x (n, h, w, k), c_i (n, d_i) arrays or `OneHot` labels (n,) -> y (n, h, w, k + Σ d_i).

    dx_nhwk = dy_nhwk, and dc_i,nd = Σ_hw dy_nhwd over the planes of c_i, for every pixel of a plane is the same number.
    """

    def forward(self, x: Array, *parts: Array | OneHot) -> tuple[Array, Backward]:
        """x (n, h, w, k) and the condition's parts -> y (n, h, w, k + Σ d_i)."""
        check_channels(x)
        kernels, xp = self.kernels, self.kernels.xp
        columns = [kernels.one_hot(part, x.dtype) if isinstance(part, OneHot) else part for part in parts]
        planes = [xp.broadcast_to(c[:, None, None], (*x.shape[:3], c.shape[1])) for c in columns]

        @once
        def backward(dy: Array, need_dx: bool | Sequence[bool] = True) -> Array | tuple[Array | None, ...]:
            """dy (n, h, w, k + Σ d_i) -> (dx, dc_1, dc_2, ...), or dx alone where there is no condition."""
            needs = [need_dx] * (1 + len(parts)) if isinstance(need_dx, bool) else need_dx
            start = x.shape[3]
            gradients: list[Array | None] = [dy[..., :start] if needs[0] else None]
            for part, c, need in zip(parts, columns, needs[1:], strict=True):
                stop = start + c.shape[1]
                wanted = need and not isinstance(part, OneHot)
                gradients.append(dy[..., start:stop].sum(axis=(1, 2)) if wanted else None)
                start = stop
            return tuple(gradients) if parts else gradients[0]

        return kernels.concatenate([x, *planes], axis=3), backward


@dataclass(eq=False)
class FlattenPlanes(Layer):
    """y_n,(k h w) = x_nhwk: one plane after the other, as a likelihood reads an image with several numbers a pixel.

    x (n, h, w, k) -> y (n, k h w);  dx is dy put back in the places of x.
    """

    def forward(self, x: Array) -> tuple[Array, Backward]:
        """x (n, h, w, k) -> y (n, k h w)."""
        check_channels(x)
        n, h, w, k = x.shape

        @once
        def backward(dy: Array, need_dx: bool = True) -> Array:
            """dy (n, k h w) -> dx (n, h, w, k)."""
            return dy.reshape(n, k, h, w).transpose(0, 2, 3, 1)

        return x.transpose(0, 3, 1, 2).reshape(n, -1), backward
