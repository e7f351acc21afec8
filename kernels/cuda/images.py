"""The kernels for images on a GPU, and what they share with dense layers: bias, activation, and the way back."""

from __future__ import annotations

from math import prod
from typing import Any

from minicvae.kernels.convolution import Pair, span, transposed_size
from minicvae.kernels.cuda.launch import blocks
from minicvae.kernels.cuda.products import ACTIVATIONS, Cublas, Epilogue
from minicvae.kernels.reference import Array, Reference

__all__ = ["CudaImages"]

WARP = 32
ROWS = 512  # of a gradient, which one block sums for the bias; of more, many blocks sum parts


class CudaImages(Reference):
    """Convolutions as products of windows (im2col); pooling and upsampling pixel by pixel."""

    launch: Any
    products: Cublas

    def whole(self, a: Array) -> Array:
        """The same numbers, C-contiguous."""
        return a if a.flags.c_contiguous else self.xp.ascontiguousarray(a)

    def rows(self, a: Array) -> tuple[Array, int]:
        """A matrix as its numbers and the distance between its rows, copied only where a row is not in one piece.

        The halves of a network's output come as views; a kernel that is told the distance needs no copy.
        """
        step = a.strides[0] // a.itemsize
        if a.strides[1] != a.itemsize or step < a.shape[1]:
            a, step = self.xp.ascontiguousarray(a), a.shape[1]
        return a, step

    def slope_times(self, dy: Array, y: Array, activation: str, db: Array, accumulate: bool) -> Array:
        """g = dy ⊙ f'(y), and db = Σ g over all axes but the last, added to what is there where `accumulate` is true.

        Many rows are summed in blocks and then over the blocks, always the same ones: no order depends on the GPU.
        """
        dy, y, d = self.whole(dy), self.whole(y), y.shape[-1]
        n, f = y.size // d, ACTIVATIONS.index(activation)
        g = dy if activation == "linear" else self.xp.empty(y.shape, y.dtype)
        written = None if g is dy else g
        count = blocks(n, ROWS)
        sums = db if count == 1 else self.xp.empty((count, d), y.dtype)
        adds = accumulate and count == 1
        self.launch("slope_times", y.dtype, (blocks(d, WARP), count), dy, y, written, sums, n, d, ROWS, f, adds)
        if count > 1:
            self.launch("sum_rows", y.dtype, blocks(d), sums, db, count, d, accumulate)
        return g.reshape(n, d)

    # Convolution

    def gathered(self, x: Array, kernel: Pair, stride: Pair, padding: str) -> Array:
        """P(x) as a matrix: a row for each place (n i j), a column for each number of a window (a b c)."""
        x, (n, h, w, c) = self.whole(x), x.shape
        (i, p, _), (j, q, _) = (span(*axis, padding) for axis in zip((h, w), kernel, stride, strict=True))
        P = self.xp.empty((n * i * j, prod(kernel) * c), x.dtype)
        self.launch("windows", x.dtype, blocks(P.size), x, P, h, w, c, i, j, *kernel, *stride, p, q, P.size)
        return P

    def overlap_add(self, u: Array, size: Pair, stride: Pair, padding: str) -> Array:
        """Pᵀ(u), each pixel from all windows that hold it; u (n, i, j, a, b, c) -> (n, h, w, c)."""
        n, i, j, *kernel, c = u.shape
        (_, p, _), (_, q, _) = (span(*axis, padding) for axis in zip(size, kernel, stride, strict=True))
        x = self.xp.empty((n, *size, c), u.dtype)
        given = self.whole(u), x, *size, c, i, j, *kernel, *stride, p, q, x.size
        self.launch("overlap_add", u.dtype, blocks(x.size), *given)
        return x

    def conv2d(self, x: Array, W: Array, b: Array, activation: str, stride: Pair, padding: str) -> Array:
        """The product of all windows with the kernel, then bias and activation in one pass."""
        kernel = W.shape[:2]
        i, j = self._places(x, kernel, stride, padding)
        P, c_out = self.gathered(x, kernel, stride, padding), len(b)
        y = self.products.joined([(P, W.reshape(-1, c_out))], (len(P), c_out), Epilogue(b, activation))
        return y.reshape(len(x), i, j, c_out)

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
        """The slope and db in one pass, dW by a product with the windows, dx by another and their overlap."""
        n, i, j, c_out = y.shape
        g = self.slope_times(dy, y, activation, db, accumulate)
        P = self.gathered(x, W.shape[:2], stride, padding)
        self._gradient(P.T, g, dW, accumulate)
        if not need_dx:
            return None
        u = self.products.plain(g, W.reshape(-1, c_out).T).reshape(n, i, j, *W.shape[:3])
        return self.overlap_add(u, x.shape[1:3], stride, padding)

    def conv2d_transpose(self, x: Array, W: Array, b: Array, activation: str, stride: Pair, padding: str) -> Array:
        """The product of every pixel with the kernel, the overlap of the stamps, then bias and activation."""
        n, i, j, c_in = x.shape
        h, w = (transposed_size(*axis, padding) for axis in zip((i, j), W.shape[:2], stride, strict=True))
        u = self.products.plain(self.whole(x).reshape(-1, c_in), W.reshape(-1, c_in).T)
        y = self.overlap_add(u.reshape(n, i, j, *W.shape[:3]), (h, w), stride, padding)
        return self.products.finish(y, 1, y, Epilogue(b, activation))

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
        """The slope and db in one pass, then two products with the windows of the gradient."""
        c_in = x.shape[3]
        g = self.slope_times(dy, y, activation, db, accumulate).reshape(y.shape)
        P = self.gathered(g, W.shape[:2], stride, padding)
        self._gradient(P.T, self.whole(x).reshape(-1, c_in), dW, accumulate)
        return self.products.plain(P, W.reshape(-1, c_in)).reshape(x.shape) if need_dx else None

    def _gradient(self, P_T: Array, g: Array, dW: Array, accumulate: bool) -> None:
        """dW = Pᵀ g, or added to it; a kernel that is turned is a view, of which no matrix can be made in place."""
        if dW.flags.c_contiguous:
            self.products.plain(P_T, g, dW.reshape(-1, dW.shape[-1]), accumulate)
            return
        product = self.products.plain(P_T, g).reshape(dW.shape)
        dW[...] = dW + product if accumulate else product

    def _places(self, x: Array, kernel: Pair, stride: Pair, padding: str) -> Pair:
        """How many places a kernel has along rows and columns."""
        i, j = (span(*axis, padding)[0] for axis in zip(x.shape[1:3], kernel, stride, strict=True))
        return i, j

    # Pooling and upsampling

    def max_pool(self, x: Array, pool: Pair, stride: Pair) -> Array:
        """The largest pixel of each window."""
        return self._pooled("max_pool", x, pool, stride)

    def max_pool_backward(self, dy: Array, x: Array, y: Array, pool: Pair, stride: Pair) -> Array:
        """dx, each pixel from the windows in which it is the first maximum."""
        dx = self.xp.empty(x.shape, dy.dtype)
        sizes = *x.shape[1:], *y.shape[1:3], *pool, *stride, dx.size
        given = self.whole(dy), self.whole(x), self.whole(y), dx, *sizes
        self.launch("max_pool_backward", dx.dtype, blocks(dx.size), *given)
        return dx

    def avg_pool(self, x: Array, pool: Pair, stride: Pair) -> Array:
        """The mean of each window."""
        return self._pooled("avg_pool", x, pool, stride)

    def avg_pool_backward(self, dy: Array, size: Pair, pool: Pair, stride: Pair) -> Array:
        """dx, each pixel from the windows that hold it."""
        n, i, j, c = dy.shape
        dx = self.xp.empty((n, *size, c), dy.dtype)
        given = self.whole(dy), dx, *size, c, i, j, *pool, *stride, dx.size
        self.launch("avg_pool_backward", dx.dtype, blocks(dx.size), *given)
        return dx

    def _pooled(self, kernel: str, x: Array, pool: Pair, stride: Pair) -> Array:
        n, h, w, c = x.shape
        i, j = self._places(x, pool, stride, "valid")
        y = self.xp.empty((n, i, j, c), x.dtype)
        given = self.whole(x), y, h, w, c, i, j, *pool, *stride, y.size
        self.launch(kernel, y.dtype, blocks(y.size), *given)
        return y

    def upsample(self, x: Array, factor: Pair) -> Array:
        """Each pixel a block, in one pass over the result."""
        n, h, w, c = x.shape
        y = self.xp.empty((n, h * factor[0], w * factor[1], c), x.dtype)
        self.launch("upsample", y.dtype, blocks(y.size), self.whole(x), y, h, w, c, *factor, y.size)
        return y

    def upsample_backward(self, dy: Array, factor: Pair) -> Array:
        """The sum over each block, a thread for each pixel of dx."""
        n, H, W, c = dy.shape
        dx = self.xp.empty((n, H // factor[0], W // factor[1], c), dy.dtype)
        given = self.whole(dy), dx, *dx.shape[1:], *factor, dx.size
        self.launch("upsample_backward", dx.dtype, blocks(dx.size), *given)
        return dx
