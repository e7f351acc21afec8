"""The kernels for images on a GPU."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from minicvae.kernels.convolution import Pair, span, transposed_size, turned
from minicvae.kernels.cuda.dense import CudaDense
from minicvae.kernels.cuda.launch import ACTIVATIONS, blocks
from minicvae.kernels.cuda.products import TICKETS
from minicvae.kernels.reference import Array

__all__ = ["CudaImages"]

WARP = 32
ROWS = 512  # of a gradient, which one block sums for the bias; of more, many blocks sum parts


class _Geometry(NamedTuple):
    """Where the windows of images lie: the image's size (h, w), its channels, and the places (i, j) of a kernel.

    before: the rows and columns of zeros before the image; factor: the block that each pixel of x counts as.
    """

    size: Pair
    channels: int
    places: Pair
    kernel: Pair
    stride: Pair
    before: Pair
    factor: Pair = (1, 1)
    padding: str = "same"

    @classmethod
    def of(cls, x: Array, W: Array, stride: Pair, padding: str, factor: Pair = (1, 1)) -> _Geometry:
        """Of a convolution of x, upsampled by `factor`, with W."""
        h, w, kernel = x.shape[1] * factor[0], x.shape[2] * factor[1], W.shape[:2]
        (i, p, _), (j, q, _) = (span(*axis, padding) for axis in zip((h, w), kernel, stride, strict=True))
        return cls((h, w), x.shape[3], (i, j), kernel, stride, (p, q), factor, padding)

    @classmethod
    def back(cls, x: Array, W: Array, size: Pair, padding: str) -> _Geometry:
        """Of the convolution of x with W turned that is the transpose of one with W, stride 1, of images of that size:

            Pᵀ(x Wᵀ)_nhwc = Σ_abk x_n,(h + p - a),(w + q - b),k W_abck

        where a' = kh - 1 - a and b' = kw - 1 - b make windows of x that begin kh - 1 - p rows and kw - 1 - q columns
        before it.
        """
        kernel = W.shape[:2]
        p, q = (span(*axis, padding)[1] for axis in zip(size, kernel, (1, 1), strict=True))
        before = kernel[0] - 1 - p, kernel[1] - 1 - q
        return cls(x.shape[1:3], x.shape[3], size, kernel, (1, 1), before, padding=padding)

    @property
    def numbers(self) -> tuple[int, ...]:
        """As the kernels take them."""
        size, channels, *pairs, _ = self
        return *size, channels, *(number for pair in pairs for number in pair)


def _steps(W: Array) -> list[int]:
    """The distance from one number of W to the next along each axis."""
    return [step // W.itemsize for step in W.strides]


class CudaImages(CudaDense):
    """Convolutions as products with windows that are never written; pooling and upsampling pixel by pixel."""

    def slope_times(self, dy: Array, y: Array, activation: str, db: Array, accumulate: bool) -> Array:
        """g = dy ⊙ f'(y), and db = Σ g over all axes but the last, added to what is there where `accumulate` is true.

        Many rows are summed by several blocks, and by the last of them over all, always in the same order.
        """
        dy, y, d = self.whole(dy), self.whole(y), y.shape[-1]
        n, f = y.size // d, ACTIVATIONS.index(activation)
        g = dy if activation == "linear" else self.xp.empty(y.shape, y.dtype)
        columns = min(WARP, 1 << (d - 1).bit_length())
        grid = blocks(d, columns), blocks(n, ROWS) if blocks(d, columns) <= TICKETS else 1
        sums = self.xp.empty((grid[1], d), y.dtype)
        given = dy, y, None if g is dy else g, db, sums, self.tickets, n, d, columns, blocks(n, grid[1])
        self.launch("slope_times", y.dtype, grid, *given, f, accumulate)
        return g.reshape(n, d)

    # Convolution

    def conv2d(self, x: Array, W: Array, b: Array, activation: str, stride: Pair, padding: str) -> Array:
        """One launch: the windows are gathered as they are needed, bias and activation follow at once."""
        return self._convolve(x, W, b, activation, _Geometry.of(x, W, stride, padding))

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
        """The slope and db in one pass, dW by a product with the windows, dx as `_windows_back` finds it."""
        g = self.slope_times(dy, y, activation, db, accumulate).reshape(y.shape)
        return self._back(g, x, W, dW, accumulate, need_dx, _Geometry.of(x, W, stride, padding))

    def upsample_conv2d(self, x: Array, W: Array, b: Array, activation: str, factor: Pair, padding: str) -> Array:
        """As `conv2d`; each pixel is read as the block that it becomes."""
        return self._convolve(x, W, b, activation, _Geometry.of(x, W, (1, 1), padding, factor))

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
        """As `conv2d_backward`, then the sum over each block."""
        g = self.slope_times(dy, y, activation, db, accumulate).reshape(y.shape)
        dx = self._back(g, x, W, dW, accumulate, need_dx, _Geometry.of(x, W, (1, 1), padding, factor))
        return self.upsample_backward(dx, factor) if need_dx else None

    def conv2d_transpose(self, x: Array, W: Array, b: Array, activation: str, stride: Pair, padding: str) -> Array:
        """With stride 1 as a convolution, else the overlap of the products of all pixels with the kernel."""
        h, w = (transposed_size(*axis, padding) for axis in zip(x.shape[1:3], W.shape[:2], stride, strict=True))
        if stride == (1, 1):
            return self._convolve(x, turned(W), b, activation, _Geometry.back(x, W, (h, w), padding))
        y, f = self._stamped(x, W, (h, w), stride, padding), ACTIVATIONS.index(activation)
        self.launch("bias_activate", y.dtype, blocks(y.size), y, b, len(b), y.size, f)
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
        """The slope and db in one pass, then two products with the windows of the gradient."""
        g = self.slope_times(dy, y, activation, db, accumulate).reshape(y.shape)
        geometry = _Geometry.of(g, W, stride, padding)
        self._convolve_gradient(g, x, dW, accumulate, geometry)
        return self._convolve(g, W, None, "linear", geometry) if need_dx else None

    def _convolve(self, x: Array, W: Array, b: Array | None, activation: str, geometry: _Geometry) -> Array:
        """f(P(x) W + b); W may lie in any way, even backwards."""
        c_out = W.shape[3]
        y = self.xp.empty((len(x), *geometry.places, c_out), x.dtype)
        m, n, k = y.size // c_out, c_out, prod(W.shape[:3])
        given = self.whole(x), *geometry.numbers, W, *_steps(W), b, y, m, n, ACTIVATIONS.index(activation)
        self.products.launch("convolve", y.dtype, ((m, n, k),), *given)
        return y

    def _convolve_gradient(self, x: Array, g: Array, dW: Array, accumulate: bool, geometry: _Geometry) -> None:
        """dW = P(x)ᵀ g, or added to it; dW may lie in any way, even backwards."""
        n = dW.shape[3]
        m, cells = g.size // n, prod(dW.shape[:3])
        given = self.whole(x), *geometry.numbers, self.whole(g), dW, *_steps(dW), m, n, accumulate
        self.products.launch("convolve_gradient", g.dtype, ((cells, n, m),), *given)

    def _back(
        self, g: Array, x: Array, W: Array, dW: Array, accumulate: bool, need_dx: bool, geometry: _Geometry
    ) -> Array | None:
        """dW, and the gradient of the image that the windows are of, where it is needed."""
        self._convolve_gradient(x, g, dW, accumulate, geometry)
        return self._windows_back(g, W, geometry) if need_dx else None

    def _windows_back(self, g: Array, W: Array, geometry: _Geometry) -> Array:
        """Pᵀ(g Wᵀ), (n, h, w, c): with stride 1 as a convolution."""
        if geometry.stride == (1, 1):
            back = _Geometry.back(g, W, geometry.size, geometry.padding)
            return self._convolve(g, turned(W), None, "linear", back)
        return self._stamped(g, W, geometry.size, geometry.stride, geometry.padding)

    def _stamped(self, x: Array, W: Array, size: Pair, stride: Pair, padding: str) -> Array:
        """Pᵀ(x Wᵀ), an image of that size: the product of every pixel with the kernel, and the overlap of them all."""
        n, i, j, c = x.shape
        u = self.products.product(self.whole(x).reshape(-1, c), W.reshape(-1, c).T)
        return self.overlap_add(u.reshape(n, i, j, *W.shape[:3]), size, stride, padding)

    def overlap_add(self, u: Array, size: Pair, stride: Pair, padding: str) -> Array:
        """Pᵀ(u), each pixel from all windows that hold it; u (n, i, j, a, b, c) -> (n, h, w, c)."""
        n, i, j, *kernel, c = u.shape
        (_, p, _), (_, q, _) = (span(*axis, padding) for axis in zip(size, kernel, stride, strict=True))
        x = self.xp.empty((n, *size, c), u.dtype)
        given = self.whole(u), x, *size, c, i, j, *kernel, *stride, p, q, x.size
        self.launch("overlap_add", u.dtype, blocks(x.size), *given)
        return x

    # Pooling and upsampling

    def max_pool(self, x: Array, pool: Pair, stride: Pair) -> Array:
        """The largest pixel of each window."""
        return self._pooled("max_pool", x, pool, stride)

    def max_pool_backward(self, dy: Array, x: Array, y: Array, pool: Pair, stride: Pair) -> Array:
        """dx, each pixel from the windows in which it is the first maximum."""
        dx, dy, x, y = self.xp.empty(x.shape, dy.dtype), self.whole(dy), self.whole(x), self.whole(y)
        fours = x.shape[3] % 4 == 0 and all(a.data.ptr % 16 == 0 for a in (dx, dy, x, y))
        each, sizes = 4 if fours else 1, (*x.shape[1:], *y.shape[1:3], *pool, *stride, dx.size)
        self.launch("max_pool_backward", dx.dtype, blocks(dx.size // each), dy, x, y, dx, *sizes, each)
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
        i, j = (span(*axis, "valid")[0] for axis in zip((h, w), pool, stride, strict=True))
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
