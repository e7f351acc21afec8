"""Pairs of layers that a chain runs as one kernel: the image between them, the largest around, is never written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minicvae.kernels import Array
from minicvae.layers.convolution import Conv2D, Convolution, ConvTranspose2D, check_channels
from minicvae.layers.layer import Backward, Layer, once
from minicvae.layers.pooling import MaxPool2D, UpSample2D

__all__ = ["PooledConvolution", "UpSampledConvolution", "fuse"]


def fuse(layers: Sequence[Layer]) -> list[Layer]:
    """The layers, with each pair that has a kernel of its own as one layer; the pair keeps its parameters."""
    fused: list[Layer] = []
    for layer in layers:
        before = fused[-1] if fused else None
        if type(before) is UpSample2D and isinstance(layer, (Conv2D, ConvTranspose2D)) and _slides(layer):
            fused[-1] = UpSampledConvolution(before, layer)
        elif type(before) is Conv2D and type(layer) is MaxPool2D and layer.size == layer.step:
            fused[-1] = PooledConvolution(before, layer)
        else:
            fused.append(layer)
    return fused


def _slides(layer: Convolution) -> bool:
    """Whether the layer is `conv2d` of stride 1 by its kernel as it faces; of a derived class nobody knows."""
    return type(layer) in (Conv2D, ConvTranspose2D) and layer.slides


@dataclass(eq=False)
class UpSampledConvolution(Layer):
    """y = conv(upsample(x)), the product before the upsampling, where it has fewer pixels to do.

    x (n, h, w, c_in) -> y as of the convolution on (n, h s, w t, c_in).
    """

    upsampling: UpSample2D
    convolution: Convolution

    def forward(self, x: Array) -> tuple[Array, Backward]:
        """x (n, h, w, c_in) -> y (n, i, j, c_out)."""
        conv, factor = self.convolution, self.upsampling.size
        check_channels(x.shape)
        n, h, w, c = x.shape
        conv.check((n, h * factor[0], w * factor[1], c))
        settings = conv.activation, factor, conv.padding
        W = conv.facing(conv.W.value)
        y = conv.kernels.upsample_conv2d(x, W, conv.b.value, *settings)

        @once
        def backward(dy: Array, need_dx: bool = True) -> Array | None:
            """dy, shaped as y -> dx (n, h, w, c_in)."""
            dW, db, accumulate = conv.sinks()
            sinks = conv.facing(dW), db, accumulate
            return conv.kernels.upsample_conv2d_backward(dy, x, y, W, *settings, *sinks, need_dx)

        return y, backward


@dataclass(eq=False)
class PooledConvolution(Layer):
    """y = max_pool(conv(x)), each block of pixels pooled while it is in the cache.

    x (n, h, w, c_in) -> y as of the pool on what the convolution gives.
    """

    convolution: Conv2D
    pool: MaxPool2D

    def forward(self, x: Array) -> tuple[Array, Backward]:
        """x (n, h, w, c_in) -> y (n, i, j, c_out)."""
        conv = self.convolution
        conv.check(x.shape)
        self.pool.check(conv.shape_after(x.shape))
        settings = *conv.settings, self.pool.size
        y, kept = conv.kernels.conv2d_max_pool(x, conv.W.value, conv.b.value, *settings)

        @once
        def backward(dy: Array, need_dx: bool = True) -> Array | None:
            """dy, shaped as y -> dx (n, h, w, c_in)."""
            W, sinks = conv.W.value, conv.sinks()
            return conv.kernels.conv2d_max_pool_backward(dy, x, y, kept, W, *settings, *sinks, need_dx)

        return y, backward
