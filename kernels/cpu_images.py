"""Convolutions on the `cpu` device: a few images at a time, so that what is laid out for them stays in the cache.

`image_maps.py` has the ways in which a convolution is computed. Here they are run: each thread takes its examples in
blocks, and does everything to a block that there is to do before the next, bias, activation and pooling included.
"""

from __future__ import annotations

from itertools import repeat
from math import prod

import numpy as np

from minicvae.kernels import compiled, compiled_images
from minicvae.kernels.convolution import Pair, is_convolution, span, turned
from minicvae.kernels.image_maps import Backward, Forward, ImageMap, convolution, transposed
from minicvae.kernels.reference import Array, Reference
from minicvae.kernels.team import Work
from minicvae.kernels.workspace import Scratch

UNPOOLED = np.empty((0, 0, 0, 0), np.uint8)  # where the maxima lie of what is not pooled


class CpuImages(Reference):
    """Convolution, pooling and upsampling, block by block; the formulas stand in `convolution.py`."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = Scratch()

    def empty(self, shape: tuple[int, ...], dtype: object) -> Array:
        """Memory for a result."""
        raise NotImplementedError

    def share(self, work: Work, length: int, numbers: int, products: int = 0, *, begin: bool = False) -> None:
        """work(start, stop) over `range(length)`; begin: from here on by a team."""
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
        if pool != (2, 2):
            return super().conv2d_max_pool(x, W, b, activation, stride, padding, pool)
        way = convolution(x, W, stride, padding)
        h, w, c = way.size
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
        x = np.ascontiguousarray(x)
        y = self.empty(first.shape if first.size else (len(x), *way.size), b.dtype)
        row_b = np.tile(b, y.shape[2])

        def some(i: int, j: int) -> None:
            h, room = self._room(way, j - i, x.dtype)
            way.forward(Forward(x[i:j], y[i:j], first[i:j], row_b, compiled.ACTIVATION[activation], h), room)

        self._share(way, some, len(x))
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
        x, dy = np.ascontiguousarray(x), np.ascontiguousarray(dy)
        dx = self.empty(x.shape, dW.dtype) if need_dx else None
        sums: dict[int, tuple[Array, Array]] = {}

        def some(i: int, j: int) -> None:
            sums[i] = total, row_db = np.zeros(way.sum_shape, dW.dtype), np.zeros(prod(y.shape[2:]), db.dtype)
            g, room = self._room(way, j - i, x.dtype)
            of_maxima = np.empty((len(g) if first.size else 0, *y.shape[1:]), g.dtype)
            images = x[i:j], dy[i:j], y[i:j], first[i:j], compiled.ACTIVATION[activation]
            back = (x if dx is None else dx)[i:j], need_dx
            way.backward(Backward(*images, total, row_db, *back, g, of_maxima), room)

        self._share(way, some, len(x), 1 + need_dx)
        if not accumulate:
            dW[...] = 0
            db[...] = 0
        for _, (total, row_db) in sorted(sums.items()):
            dW += way.gradient(total)
            db += row_db.reshape(-1, len(db)).sum(axis=0)
        return dx

    def _room(self, way: ImageMap, n: int, dtype: np.dtype) -> tuple[Array, list[Array]]:
        """This thread's memory for K x of a block of up to n images, and for what leads to it."""
        images = min(way.images(dtype.itemsize), n)
        h, *room = self.scratch.empty((images, *way.size), *way.room(images), dtype=dtype)
        return h, room

    def _share(self, way: ImageMap, work: Work, n: int, times: int = 1) -> None:
        """work(start, stop) over n images, which takes each its products so many times."""
        # Numba's products are of SciPy's BLAS, which has to be there when BLAS is held to one thread.
        import scipy.linalg.cython_blas  # noqa: F401

        self.share(work, n, n * way.numbers, n * way.products * times, begin=True)

    def max_pool(self, x: Array, pool: Pair, stride: Pair) -> Array:
        """The largest pixel of each window."""
        x = np.ascontiguousarray(x)
        h, w = (places for places, _, _ in map(span, x.shape[1:3], pool, stride, repeat("valid")))
        y = self.empty((len(x), h, w, x.shape[3]), x.dtype)
        self.share(lambda i, j: compiled_images.max_pool(x[i:j], y[i:j], pool, stride), len(x), x.size)
        return y

    def max_pool_backward(self, dy: Array, x: Array, y: Array, pool: Pair, stride: Pair) -> Array:
        """dy at the first maximum of each window."""
        dy, x, y = np.ascontiguousarray(dy), np.ascontiguousarray(x), np.ascontiguousarray(y)
        dx = self.empty(x.shape, dy.dtype)
        self.share(
            lambda i, j: compiled_images.max_pool_backward(dy[i:j], x[i:j], y[i:j], dx[i:j], pool, stride),
            len(x),
            x.size,
        )
        return dx

    def upsample(self, x: Array, factor: Pair) -> Array:
        """Each pixel a block."""
        x = np.ascontiguousarray(x)
        n, h, w, c = x.shape
        y = self.empty((n, h * factor[0], w * factor[1], c), x.dtype)
        self.share(lambda i, j: compiled_images.upsample(x[i:j], y[i:j], factor), n, y.size)
        return y

    def upsample_backward(self, dy: Array, factor: Pair) -> Array:
        """The sum over each block."""
        dy = np.ascontiguousarray(dy)
        n, h, w, c = dy.shape
        dx = self.empty((n, h // factor[0], w // factor[1], c), dy.dtype)
        self.share(lambda i, j: compiled_images.upsample_backward(dy[i:j], dx[i:j], factor), n, dy.size)
        return dx
