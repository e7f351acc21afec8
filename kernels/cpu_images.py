"""Convolutions on the `cpu` device: a few images at a time, so that what is laid out for them stays in the cache.

`image_maps.py` has the ways in which a convolution is computed. Here they are run: the threads take images in blocks,
and everything is done to a block that there is to do before the next, bias, activation and pooling included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from math import prod
from typing import Any

import numpy as np

from minicvae.kernels import compiled, pieces
from minicvae.kernels.convolution import Pair, is_convolution, span, turned
from minicvae.kernels.image_maps import Backward, Forward, ImageMap, Maker, convolution, transposed
from minicvae.kernels.recorded import assign
from minicvae.kernels.reference import Array, Reference
from minicvae.kernels.workspace import Scratch

Shape = tuple[int, ...]
UNPOOLED = np.empty((0, 0, 0, 0), np.uint8)  # where the maxima lie of what is not pooled: in no channel

PARTS = 16  # of the images at most, whose gradients are added up apart
SUMS = 2**24  # bytes of all these gradients, where they are more than `FEWEST`
FEWEST = 2


def cut(way: ImageMap, n: int, dtype: np.dtype) -> tuple[int, int]:
    """Into how many parts n images are cut, and how many of them make a block.

    By shapes alone, so that a sum does not depend on who is free. A block is no larger than there is room for, and all
    blocks of a part are about as large.
    """
    parts = max(min(PARTS, n, max(SUMS // (prod(way.sum_shape) * dtype.itemsize), FEWEST)), 1)
    of_part = max(-(-n // parts), 1)
    blocks = -(-of_part // way.images(dtype.itemsize))
    return parts, -(-of_part // blocks)


class CpuImages(Reference, Maker):
    """Convolution, pooling and upsampling, block by block; the formulas stand in `convolution.py`."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = Scratch()

    @property
    def threads(self) -> int:
        """How many may share the work."""
        raise NotImplementedError

    def run(self, kernel: Callable[..., None], *args: Any) -> None:
        """The kernel in pieces, by all threads."""
        raise NotImplementedError

    def conv2d(self, x: Array, W: Array, b: Array, activation: str, stride: Pair, padding: str) -> Array:
        """y = f(K x + b)."""
        return self._forward(convolution(x, W, stride, padding), x, b, activation)

    def conv2d_backward(
        self,
        dy: Array,
        x: Array,
        y: Array,
        W: Array,
        activation: str,
        stride: Pair,
        padding: str,
        dW: Array,
        db: Array,
        accumulate: bool,
        need_dx: bool,
    ) -> Array | None:
        """g = dy ⊙ f', db = Σ g, and with K's own way back dW and dx = Kᵀ g."""
        way = convolution(x, W, stride, padding, need_dx=need_dx)
        return self._backward(way, x, dy, y, activation, dW, db, accumulate, need_dx)

    def conv2d_transpose(self, x: Array, W: Array, b: Array, activation: str, stride: Pair, padding: str) -> Array:
        """y = f(K x + b)."""
        return self._forward(transposed(x, W, stride, padding), x, b, activation)

    def conv2d_transpose_backward(
        self,
        dy: Array,
        x: Array,
        y: Array,
        W: Array,
        activation: str,
        stride: Pair,
        padding: str,
        dW: Array,
        db: Array,
        accumulate: bool,
        need_dx: bool,
    ) -> Array | None:
        """As of `conv2d`."""
        way = transposed(x, W, stride, padding)
        sink = turned(dW) if is_convolution(W.shape[:2], stride, padding) else dW
        return self._backward(way, x, dy, y, activation, sink, db, accumulate, need_dx)

    def upsample_conv2d(self, x: Array, W: Array, b: Array, activation: str, factor: Pair, padding: str) -> Array:
        """y = f(K x + b), x as it is."""
        return self._forward(convolution(x, W, (1, 1), padding, factor), x, b, activation)

    def upsample_conv2d_backward(
        self,
        dy: Array,
        x: Array,
        y: Array,
        W: Array,
        activation: str,
        factor: Pair,
        padding: str,
        dW: Array,
        db: Array,
        accumulate: bool,
        need_dx: bool,
    ) -> Array | None:
        """As of `conv2d`."""
        way = convolution(x, W, (1, 1), padding, factor, need_dx=need_dx)
        return self._backward(way, x, dy, y, activation, dW, db, accumulate, need_dx)

    def conv2d_max_pool(
        self, x: Array, W: Array, b: Array, activation: str, stride: Pair, padding: str, pool: Pair
    ) -> tuple[Array, Array]:
        """y = f(max K x + b), which is max f(K x + b) because no f falls; kept: where the maximum lies, in a byte."""
        way = convolution(x, W, stride, padding)
        h, w, c = way.size
        if pool != (2, 2):
            return super().conv2d_max_pool(x, W, b, activation, stride, padding, pool)
        first = self.empty((len(x), h // 2, w // 2, c), np.uint8)
        return self._forward(way, x, b, activation, first), first

    def conv2d_max_pool_backward(
        self,
        dy: Array,
        x: Array,
        y: Array,
        kept: Array,
        W: Array,
        activation: str,
        stride: Pair,
        padding: str,
        pool: Pair,
        dW: Array,
        db: Array,
        accumulate: bool,
        need_dx: bool,
    ) -> Array | None:
        """g = dy ⊙ f' where the maximum lies, and 0 elsewhere."""
        if pool != (2, 2):
            settings = activation, stride, padding, pool
            return super().conv2d_max_pool_backward(dy, x, y, kept, W, *settings, dW, db, accumulate, need_dx)
        way = convolution(x, W, stride, padding, need_dx=need_dx)
        return self._backward(way, x, dy, y, activation, dW, db, accumulate, need_dx, kept)

    def _forward(self, way: ImageMap, x: Array, b: Array, activation: str, first: Array = UNPOOLED) -> Array:
        """y = f(K x + b), or of its maxima, whose places go to `first`."""
        x = self.contiguous(x)
        y = self.empty((len(x), *way.size) if first is UNPOOLED else first.shape, b.dtype)
        row_b = self.empty(y.shape[2:], b.dtype)
        self.call(assign, row_b, b)
        _, images = cut(way, len(x), x.dtype)
        h, *room = self._room([(images, *way.size), *way.room(images)], x.dtype)
        part = Forward(x, y, first, row_b.reshape(-1), compiled.ACTIVATION[activation], h)
        self.run(way.forward, *part, *way.form(self), *room)
        return y

    def _backward(
        self,
        way: ImageMap,
        x: Array,
        dy: Array,
        y: Array,
        activation: str,
        dW: Array,
        db: Array,
        accumulate: bool,
        need_dx: bool,
        first: Array = UNPOOLED,
    ) -> Array | None:
        """The gradients of `_forward`, with K's own way back."""
        x, dy = self.contiguous(x), self.contiguous(dy)
        dx = self.empty(x.shape, dW.dtype) if need_dx else None
        parts, images = cut(way, len(x), x.dtype)
        of_maxima = (0 if first is UNPOOLED else images, *y.shape[1:])
        sums_of_parts = (parts, *way.sum_shape), (parts, prod(y.shape[2:]))
        rooms = [(images, *way.size), of_maxima, *way.room_back(images)]
        total, row_db, g, of_maxima, *room = self._room(rooms, x.dtype, sums_of_parts)
        back = total, row_db, x if dx is None else dx, need_dx, g, of_maxima
        part = Backward(x, dy, y, first, compiled.ACTIVATION[activation], *back)
        self.run(way.backward, *part, *way.form_back(self), *room)
        sums = self.empty(way.sum_shape, dW.dtype)
        self.run(pieces.add_parts, total.reshape(parts, -1), sums.reshape(-1), False)
        gradient = way.gradient(self, sums)
        self.call(*((np.add, dW, gradient, dW) if accumulate else (assign, dW, gradient)))
        self.call(compiled.add_parts, row_db.reshape(-1, len(db)), db, accumulate, 0, len(db))
        return dx

    def _room(self, shapes: list[Shape], dtype: np.dtype, once: Sequence[Shape] = ()) -> list[Array]:
        """Memory until the next call: `once` of each shape, and for each thread of the others."""
        return self.scratch.empty(*once, *((self.threads, *shape) for shape in shapes), dtype=dtype)

    def max_pool(self, x: Array, pool: Pair, stride: Pair) -> Array:
        """The largest pixel of each window."""
        x = self.contiguous(x)
        h, w = (places for places, _, _ in map(span, x.shape[1:3], pool, stride, repeat("valid")))
        y = self.empty((len(x), h, w, x.shape[3]), x.dtype)
        self.run(pieces.max_pool, x, y, pool, stride)
        return y

    def max_pool_backward(self, dy: Array, x: Array, y: Array, pool: Pair, stride: Pair) -> Array:
        """dy at the first maximum of each window."""
        dy, x, y = map(self.contiguous, (dy, x, y))
        dx = self.empty(x.shape, dy.dtype)
        self.run(pieces.max_pool_backward, dy, x, y, dx, pool, stride)
        return dx

    def upsample(self, x: Array, factor: Pair) -> Array:
        """Each pixel a block."""
        x = self.contiguous(x)
        n, h, w, c = x.shape
        y = self.empty((n, h * factor[0], w * factor[1], c), x.dtype)
        self.run(pieces.upsample, x, y, factor)
        return y

    def upsample_backward(self, dy: Array, factor: Pair) -> Array:
        """The sum over each block."""
        dy = self.contiguous(dy)
        n, h, w, c = dy.shape
        dx = self.empty((n, h // factor[0], w // factor[1], c), dy.dtype)
        self.run(pieces.upsample_backward, dy, dx, factor)
        return dx
