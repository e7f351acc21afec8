"""Convolutions on the `cpu` device: a few images at a time, so that what is laid out for them stays in the cache.

`image_maps.py` has the ways in which a convolution is computed. Here they are run: each thread takes its examples in
blocks, and does everything to a block that there is to do before the next, bias, activation and pooling included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minicvae.kernels import compiled, compiled_images
from minicvae.kernels.convolution import Pair, is_convolution, span, turned
from minicvae.kernels.image_maps import ImageMap, convolution, transposed
from minicvae.kernels.reference import Array, Reference
from minicvae.kernels.team import Work
from minicvae.kernels.workspace import Scratch

Slope = Callable[[slice, Array, Array], None]  # (block, g, db): g = dL/dh of the block, db += Σ g


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
        way = convolution(x, W, stride, padding)
        return self._backward(way, x, _slope(dy, y, activation), dW, db, accumulate, need_dx)

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
        return self._backward(way, x, _slope(dy, y, activation), sink, db, accumulate, need_dx)

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
        way = convolution(x, W, (1, 1), padding, factor)
        return self._backward(way, x, _slope(dy, y, activation), dW, db, accumulate, need_dx)

    def conv2d_max_pool(
        self, x: Array, W: Array, b: Array, activation: str, stride: Pair, padding: str, pool: Pair
    ) -> tuple[Array, Array]:
        """y = f(max K x + b), which is max f(K x + b) because no f falls; kept: where the maximum lies, in a byte."""
        if pool != (2, 2):
            return super().conv2d_max_pool(x, W, b, activation, stride, padding, pool)
        x, way = np.ascontiguousarray(x), convolution(x, W, stride, padding)
        rows, columns, c = way.size
        y = self.empty((len(x), rows // 2, columns // 2, c), W.dtype)
        first = self.empty(y.shape, np.uint8)

        def some(i: int, j: int) -> None:
            for block, h, *room in self._blocks(way, i, j, x.dtype):
                way.forward(x[block], h, room)
                compiled_images.max_pool_2x2(h, y[block], first[block])
                _finish(y[block], b, activation)

        self._share(way, some, len(x))
        return y, first

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
        of_maxima, plain = self.empty(y.shape, y.dtype), _slope(dy, y, activation)

        def slope(block: slice, g: Array, db: Array) -> None:
            plain(block, of_maxima[block], db)
            compiled_images.max_pool_2x2_backward(of_maxima[block], kept[block], g)

        return self._backward(convolution(x, W, stride, padding), x, slope, dW, db, accumulate, need_dx)

    def _forward(self, way: ImageMap, x: Array, b: Array, activation: str) -> Array:
        """y = f(K x + b)."""
        x = np.ascontiguousarray(x)
        y = self.empty((len(x), *way.size), b.dtype)

        def some(i: int, j: int) -> None:
            for block, _, *room in self._blocks(way, i, j, x.dtype):
                way.forward(x[block], y[block], room)
                _finish(y[block], b, activation)

        self._share(way, some, len(x))
        return y

    def _backward(
        self, way: ImageMap, x: Array, slope: Slope, dW: Array, db: Array, accumulate: bool, need_dx: bool
    ) -> Array | None:
        """The gradients of h = K x + b for g = dL/dh, of which `slope` gives a block at a time."""
        x = np.ascontiguousarray(x)
        dx = self.empty(x.shape, dW.dtype) if need_dx else None
        sums: dict[int, tuple[Array, Array]] = {}

        def some(i: int, j: int) -> None:
            sums[i] = total, db_here = way.total(), np.zeros_like(db)
            for block, g, *room in self._blocks(way, i, j, x.dtype):
                slope(block, g, db_here)
                way.backward(x[block], g, total, None if dx is None else dx[block], room)

        self._share(way, some, len(x), 1 + need_dx)
        if not accumulate:
            dW[...] = 0
            db[...] = 0
        for _, (total, db_here) in sorted(sums.items()):
            dW += way.gradient(total)
            db += db_here
        return dx

    def _blocks(self, way: ImageMap, start: int, stop: int, dtype: np.dtype) -> Iterator[tuple[Any, ...]]:
        """The images start..stop as many at a time as the cache has room for, with room for h and what leads to it."""
        images = min(way.images(dtype.itemsize), stop - start)
        h, *room = self.scratch.empty((images, *way.size), *way.room(images), dtype=dtype)
        for i in range(start, stop, images):
            block = slice(i, min(i + images, stop))
            yield block, h[: block.stop - i], *room

    def _share(self, way: ImageMap, work: Work, n: int, times: int = 1) -> None:
        """work(start, stop) over n images, which takes each its products so many times."""
        # Numba's products are of SciPy's BLAS, which has to be there when BLAS is held to one thread.
        import scipy.linalg.cython_blas  # noqa: F401

        self.share(work, n, n * way.numbers, n * way.products * times, begin=True)

    def max_pool(self, x: Array, pool: Pair, stride: Pair) -> Array:
        """The largest pixel of each window."""
        x = np.ascontiguousarray(x)
        h, w = (span(size, *axis, "valid")[0] for size, *axis in zip(x.shape[1:3], pool, stride, strict=True))
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


def _finish(h: Array, b: Array, activation: str) -> None:
    """h ← f(h + b), in place; a row of an image is a longer run than a pixel."""
    row_b = np.tile(b, h.shape[2])
    rows = h.reshape(-1, len(row_b))
    compiled.add_rows_activate(rows, rows, np.empty((len(rows), 0), np.int64), row_b, compiled.ACTIVATION[activation])


def _slope(dy: Array, y: Array, activation: str) -> Slope:
    """g = dy ⊙ f', and db += Σ g."""
    w, c = y.shape[2:]
    dy = np.ascontiguousarray(dy)

    def slope(block: slice, g: Array, db: Array) -> None:
        row_db = np.zeros(w * c, db.dtype)
        rows = (a.reshape(-1, w * c) for a in (dy[block], y[block], g))
        compiled.slope_times(*rows, row_db, compiled.ACTIVATION[activation])
        db += row_db.reshape(w, c).sum(axis=0)

    return slope
