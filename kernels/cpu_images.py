"""Convolutions on the `cpu` device: a few images at a time, so that their windows stay in the cache.

A convolution is a product with the windows of its images, which hold every pixel once for each cell of the kernel:
nine times the images, for all examples at once far beyond any cache. So each thread takes its examples in blocks whose
windows fill `BLOCK` bytes, and does everything to a block that there is to do before the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from math import prod
from typing import NamedTuple

import numpy as np

from minicvae.kernels import compiled, compiled_images
from minicvae.kernels.convolution import Pair, span, transposed_size
from minicvae.kernels.reference import Array, Reference
from minicvae.kernels.team import Work
from minicvae.kernels.workspace import Scratch

BLOCK = 1 << 19  # bytes


class _Geometry(NamedTuple):
    """How the windows of an image lie, as `compiled_images.windows` takes it: size h, w of the image, c channels."""

    places: Pair
    kernel: Pair
    stride: Pair
    before: Pair
    channels: int

    @classmethod
    def of(cls, size: Pair, channels: int, kernel: Pair, stride: Pair, padding: str) -> _Geometry:
        """The windows of images of this size."""
        (i, top, _), (j, left, _) = map(span, size, kernel, stride, repeat(padding))
        return cls((i, j), kernel, stride, (top, left), channels)

    @property
    def shape(self) -> Pair:
        """Of the windows of one image: (places, numbers in a window)."""
        return prod(self.places), prod(self.kernel) * self.channels

    def blocks(self, start: int, stop: int, itemsize: int) -> Iterator[slice]:
        """The images start..stop in blocks whose windows have room in the cache."""
        images = max(BLOCK // (prod(self.shape) * itemsize), 1)
        return (slice(i, min(i + images, stop)) for i in range(start, stop, images))

    def gather(self, x: Array, P: Array) -> None:
        """P = the windows of x."""
        compiled_images.windows(x, P, self.places, self.kernel, self.stride, self.before)

    def add(self, P: Array, x: Array) -> None:
        """x = the windows P added up where they lie."""
        compiled_images.overlap_add(P, x, self.places, self.kernel, self.stride, self.before)


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
        """y = f(P(x) W + b)."""
        x = np.ascontiguousarray(x)
        form = _Geometry.of(x.shape[1:3], x.shape[3], W.shape[:2], stride, padding)
        rows, depth = form.shape
        W_2d = np.ascontiguousarray(W).reshape(depth, -1)
        y = self.empty((len(x), *form.places, W.shape[3]), W.dtype)

        def some(i: int, j: int) -> None:
            for block in form.blocks(i, j, x.itemsize):
                y_2d = y[block].reshape(-1, W.shape[3])
                (P,) = self.scratch.empty((len(y_2d), depth), dtype=x.dtype)
                form.gather(x[block], P)
                np.matmul(P, W_2d, out=y_2d)
                _finish(y_2d, b, activation)

        self.share(some, len(x), len(x) * rows * depth, len(x) * rows * W.size, begin=True)
        return y

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
        """g = dy ⊙ f', dW = Pᵀ g, db = Σ g, and dx = g Wᵀ added up where the windows overlap."""
        x, dy = np.ascontiguousarray(x), np.ascontiguousarray(dy)
        form = _Geometry.of(x.shape[1:3], x.shape[3], W.shape[:2], stride, padding)
        rows, depth = form.shape
        c_out = W.shape[3]
        W_2d = np.ascontiguousarray(W).reshape(depth, c_out)
        dx = self.empty(x.shape, W.dtype) if need_dx else None
        sums: dict[int, tuple[Array, Array]] = {}

        def some(i: int, j: int) -> None:
            sums[i] = dW_here, db_here = np.zeros((depth, c_out), W.dtype), np.zeros(c_out, W.dtype)
            for block in form.blocks(i, j, x.itemsize):
                n = (block.stop - block.start) * rows
                P, g = self.scratch.empty((n, depth), (n, c_out), dtype=x.dtype)
                _slope(dy[block].reshape(n, c_out), y[block].reshape(n, c_out), g, db_here, activation)
                form.gather(x[block], P)
                dW_here += P.T @ g
                if dx is not None:
                    # Of one channel the product is all outer: BLAS takes eight times as long as NumPy's broadcasting.
                    (np.matmul if c_out > 1 else np.multiply)(g, W_2d.T, out=P)
                    form.add(P, dx[block])

        self.share(some, len(x), len(x) * rows * depth, 2 * len(x) * rows * W.size, begin=True)
        _write(sums, dW, db, accumulate)
        return dx

    def conv2d_transpose(self, x: Array, W: Array, b: Array, activation: str, stride: Pair, padding: str) -> Array:
        """y = f(Pᵀ(x Wᵀ) + b)."""
        x = np.ascontiguousarray(x)
        n, *places, c_in = x.shape
        h, w = map(transposed_size, places, W.shape[:2], stride, repeat(padding))
        form = _Geometry.of((h, w), W.shape[2], W.shape[:2], stride, padding)
        rows, depth = form.shape
        W_2d = np.ascontiguousarray(W).reshape(depth, c_in)
        y = self.empty((n, h, w, W.shape[2]), W.dtype)

        def some(i: int, j: int) -> None:
            for block in form.blocks(i, j, x.itemsize):
                x_2d = x[block].reshape(-1, c_in)
                (P,) = self.scratch.empty((len(x_2d), depth), dtype=x.dtype)
                np.matmul(x_2d, W_2d.T, out=P)
                form.add(P, y[block])
                _finish(y[block].reshape(-1, W.shape[2]), b, activation)

        self.share(some, n, n * rows * depth, n * rows * W.size, begin=True)
        return y

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
        """g = dy ⊙ f', P = the windows of g, dW = Pᵀ x, db = Σ g, dx = P W."""
        x, dy = np.ascontiguousarray(x), np.ascontiguousarray(dy)
        n, h, w, c_out = y.shape
        c_in = x.shape[3]
        form = _Geometry.of((h, w), c_out, W.shape[:2], stride, padding)
        rows, depth = form.shape
        W_2d = np.ascontiguousarray(W).reshape(depth, c_in)
        dx = self.empty(x.shape, W.dtype) if need_dx else None
        sums: dict[int, tuple[Array, Array]] = {}

        def some(i: int, j: int) -> None:
            sums[i] = dW_here, db_here = np.zeros((depth, c_in), W.dtype), np.zeros(c_out, W.dtype)
            for block in form.blocks(i, j, x.itemsize):
                images = block.stop - block.start
                P, g = self.scratch.empty((images * rows, depth), (images * h * w, c_out), dtype=x.dtype)
                _slope(dy[block].reshape(g.shape), y[block].reshape(g.shape), g, db_here, activation)
                form.gather(g.reshape(images, h, w, c_out), P)
                dW_here += P.T @ x[block].reshape(-1, c_in)
                if dx is not None:
                    np.matmul(P, W_2d, out=dx[block].reshape(-1, c_in))

        self.share(some, n, n * rows * depth, 2 * n * rows * W.size, begin=True)
        _write(sums, dW, db, accumulate)
        return dx

    def max_pool(self, x: Array, pool: Pair, stride: Pair) -> Array:
        """The largest pixel of each window."""
        x = np.ascontiguousarray(x)
        form = _Geometry.of(x.shape[1:3], x.shape[3], pool, stride, "valid")
        y = self.empty((len(x), *form.places, x.shape[3]), x.dtype)
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
    """h ← f(h + b), in place."""
    none = np.empty((len(h), 0), np.int64)
    compiled.add_rows_activate(h, h, none, b, compiled.ACTIVATION[activation])


def _slope(dy: Array, y: Array, g: Array, db: Array, activation: str) -> None:
    """g = dy ⊙ f', and db += Σ g."""
    compiled.slope_times(dy, y, g, db, compiled.ACTIVATION[activation])


def _write(sums: dict[int, tuple[Array, Array]], dW: Array, db: Array, accumulate: bool) -> None:
    """What each part of the examples gave, in their order, into dW and db."""
    if not accumulate:
        dW[...] = 0
        db[...] = 0
    for start in sorted(sums):
        dW_part, db_part = sums[start]
        dW += dW_part.reshape(dW.shape)
        db += db_part
