"""The contract for images: convolution, its transpose, pooling and upsampling, each beside its derivation.

Images are NHWC: x (n, h, w, c). A kernel, a pool, a stride or a factor is a pair (rows, columns). Nearly all is
built of one linear map and its transpose:

    P(x)_nijabc = x_n,(i s - p + a),(j t - q + b),c        `windows`: the pixels under the kernel at its place (i, j)
    Pᵀ(u)                                                  `overlap_add`: each of them added up where it was taken

with stride (s, t), p rows and q columns of zeros before the image (the margins that `span` gives), a b the row and
column inside the kernel. With them a convolution is the matrix product P(x) W (im2col: Chellapilla, Puri, Simard 2006),
its gradient by x is Pᵀ, and the transposed convolution is the same two maps with their roles exchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minicvae.kernels.reference import Array

Pair = tuple[int, int]

IMAGE = (0, 1, 2)  # the axes that a bias and a kernel are shared along: examples, rows and columns


def span(size: int, kernel: int, stride: int, padding: str) -> tuple[int, int, int]:
    """Along an axis of `size` pixels: how many places the kernel has, and the zeros before and after the image.

    "valid": no zeros, and only whole windows: floor((size - kernel) / stride) + 1; pixels left over at the end are
    not read.
    "same": ceil(size / stride), with as few zeros as that takes, (places - 1) stride + kernel - size or none; of an
    odd number the last half is the larger. This is TensorFlow's convention: the zeros depend on the size and the
    stride, and a stride of 2 over 28 pixels with a kernel of 3 has no zero before them and one after.
    """
    if padding == "valid":
        return (size - kernel) // stride + 1, 0, 0
    places = -(-size // stride)
    zeros = max((places - 1) * stride + kernel - size, 0)
    return places, zeros // 2, zeros - zeros // 2


def transposed_size(places: int, kernel: int, stride: int, padding: str) -> int:
    """The pixels that a transposed convolution makes of `places`: those that `span` would give that many places.

    "valid": (places - 1) stride + kernel, the fewest; "same": places stride, the most.
    """
    return places * stride if padding == "same" else (places - 1) * stride + kernel


def is_convolution(kernel: Pair, stride: Pair, padding: str) -> bool:
    """Whether `conv2d_transpose` by W is `conv2d` by turned(W): with stride 1 and as many zeros on either side.

    Then each pixel of x is the centre of its stamp, and each pixel of y that of the window whose stamps it sums.
    """
    return stride == (1, 1) and padding == "same" and all(size % 2 for size in kernel)


def turned(W: Array) -> Array:
    """W turned by half a circle, as a view, with what goes in and what comes out exchanged; its own inverse."""
    return W[::-1, ::-1].swapaxes(2, 3)


class Convolution:
    """The kernels for images on the array module `xp`; `Reference` is made of them and of all others."""

    xp: Any
    activate: Callable[[Array, str], Array]
    activation_slope: Callable[[Array, str], Array]

    # The two maps

    def windows(self, x: Array, kernel: Pair, stride: Pair, padding: str) -> Array:
        """P(x), a view of x with zeros around it; x (n, h, w, c) -> (n, i, j, a, b, c)."""
        xp = self.xp
        (i, *rows), (j, *columns) = map(span, x.shape[1:3], kernel, stride, repeat(padding))
        if padding == "same":
            x = xp.pad(x, ((0, 0), rows, columns, (0, 0)))
        n_step, row, column, c_step = x.strides
        shape = (len(x), i, j, *kernel, x.shape[3])
        steps = (n_step, stride[0] * row, stride[1] * column, row, column, c_step)
        return xp.lib.stride_tricks.as_strided(x, shape, steps)

    def overlap_add(self, u: Array, size: Pair, stride: Pair, padding: str) -> Array:
        """Pᵀ(u): each number added to the pixel that `windows` takes it from; u (n, i, j, a, b, c) -> (n, h, w, c).

        <P(x), u> = Σ over n i j a b c of x_n,(i s - p + a),(j t - q + b),c u_nijabc, so the factor of the pixel
        (h, w) is the sum of u over all (i, a) with i s - p + a = h and all (j, b) with j t - q + b = w. What belongs
        to the zeros around the image is dropped.
        """
        n, i, j, *kernel, c = u.shape
        (_, top, bottom), (_, left, right) = map(span, size, kernel, stride, repeat(padding))
        h, w = size
        x = self.xp.zeros((n, top + h + bottom, left + w + right, c), u.dtype)
        for a in range(kernel[0]):
            for b in range(kernel[1]):
                x[:, a : a + i * stride[0] : stride[0], b : b + j * stride[1] : stride[1]] += u[:, :, :, a, b]
        return self.xp.ascontiguousarray(x[:, top : top + h, left : left + w])

    # Convolution

    def conv2d(self, x: Array, W: Array, b: Array, activation: str, stride: Pair, padding: str) -> Array:
        """y = f(P(x) W + b): a dense layer on every window, with the same weights.

            y_nijk = f(Σ_abc P(x)_nijabc W_abck + b_k)

        x (n, h, w, c_in), W (kh, kw, c_in, c_out), b (c_out,) -> y (n, i, j, c_out), its size as `span` says. As in
        every network the kernel is not flipped: the mathematicians' cross-correlation.
        """
        P = self.windows(x, W.shape[:2], stride, padding)
        return self.activate(self.xp.tensordot(P, W, 3) + b, activation)

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
        """The gradients of `conv2d`: writes dW and db, returns dx where it is needed.

        With P = P(x), h = P W + b, g = dL/dh and u = dL/dP:

            y = f(h), element by element               g = dy ⊙ f'(h)
            h_nijk = Σ_abc P_nijabc W_abck + b_k       dW_abck = Σ_nij P_nijabc g_nijk      dW = Pᵀ g
                                                       db_k    = Σ_nij g_nijk
                                                       u_nijabc = Σ_k g_nijk W_abck         u = g Wᵀ
            P = P(x), linear                           dx = Pᵀ(u): a pixel under several places sums their gradients

        dW, db: overwritten, or added to where `accumulate` is true.
        """
        xp = self.xp
        g = dy * self.activation_slope(y, activation)
        if not accumulate:
            dW[...] = 0
            db[...] = 0
        # Gathered once, row by row: tensordot would gather the transpose, pixel by pixel.
        P = xp.ascontiguousarray(self.windows(x, W.shape[:2], stride, padding))
        dW += xp.tensordot(P, g, (IMAGE, IMAGE))
        db += g.sum(axis=IMAGE)
        return self.overlap_add(xp.tensordot(g, W, (3, 3)), x.shape[1:3], stride, padding) if need_dx else None

    def conv2d_transpose(self, x: Array, W: Array, b: Array, activation: str, stride: Pair, padding: str) -> Array:
        """y = f(Pᵀ(x Wᵀ) + b): each pixel of x stamps the kernel, x times over, on y, `stride` apart.

            y = f(Pᵀ(u) + b_c),    u_nijabc = Σ_k x_nijk W_abck

        x (n, i, j, c_in), W (kh, kw, c_out, c_in), b (c_out,) -> y (n, h, w, c_out), with h, w as `transposed_size`
        says: i, j times the stride for "same".
        For f linear and b = 0 this is the transpose of `conv2d` with the same W, which takes an image of the size of y
        to one of the size of x: <conv2d(y), x> = <y, conv2d_transpose(x)>. Hence W's layout: the channels of the larger
        image, which is the output here, stand before those of the smaller. Dumoulin and Visin 2016, chapter 4.
        """
        h, w = map(transposed_size, x.shape[1:3], W.shape[:2], stride, repeat(padding))
        u = self.xp.tensordot(x, W, (3, 3))
        return self.activate(self.overlap_add(u, (h, w), stride, padding) + b, activation)

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
        """The gradients of `conv2d_transpose`: writes dW and db, returns dx where it is needed.

        With u = x Wᵀ, h = Pᵀ(u) + b, g = dL/dh, and P = dL/du:

            y = f(h), element by element               g = dy ⊙ f'(h)
            h = Pᵀ(u) + b                              P = P(g), the transpose of the transpose
                                                       db_c = Σ_nhw g_nhwc
            u_nijabc = Σ_k x_nijk W_abck               dW_abck = Σ_nij P_nijabc x_nijk      dW = Pᵀ x
                                                       dx_nijk = Σ_abc P_nijabc W_abck      dx = P W

        which is `conv2d_backward` with g and x exchanged in dW, and `conv2d` of g. dW, db as there.
        """
        xp = self.xp
        g = dy * self.activation_slope(y, activation)
        if not accumulate:
            dW[...] = 0
            db[...] = 0
        P = xp.ascontiguousarray(self.windows(g, W.shape[:2], stride, padding))
        dW += xp.tensordot(P, x, (IMAGE, IMAGE))
        db += g.sum(axis=IMAGE)
        return xp.tensordot(P, W, 3) if need_dx else None

    # Pooling and upsampling: each channel by itself

    def max_pool(self, x: Array, pool: Pair, stride: Pair) -> Array:
        """y_nijc = max over a b of P(x)_nijabc, whole windows only; x (n, h, w, c) -> y (n, i, j, c)."""
        return self.windows(x, pool, stride, "valid").max(axis=(3, 4))

    def max_pool_backward(self, dy: Array, x: Array, y: Array, pool: Pair, stride: Pair) -> Array:
        """dx = Pᵀ(u), u_nijabc = dy_nijc at the first maximum of the window (n, i, j, c), row by row, and 0 elsewhere.

        Where one pixel is the largest, y is that pixel: dy/dP is 1 there and 0 elsewhere. Where several are equal, the
        maximum has a kink and no derivative; the whole gradient goes to the first of them, so that it is counted once.
        """
        xp = self.xp
        P = self.windows(x, pool, stride, "valid")
        u = xp.empty(P.shape, dy.dtype)
        pending = xp.ones(y.shape, bool)
        for a in range(pool[0]):
            for b in range(pool[1]):
                found = pending & ~(P[:, :, :, a, b] < y)  # equal, or NaN
                u[:, :, :, a, b] = xp.where(found, dy, 0)
                pending &= ~found
        return self.overlap_add(u, x.shape[1:3], stride, "valid")

    def avg_pool(self, x: Array, pool: Pair, stride: Pair) -> Array:
        """y_nijc = (1 / kh kw) Σ_ab P(x)_nijabc, whole windows only; x (n, h, w, c) -> y (n, i, j, c)."""
        return self.windows(x, pool, stride, "valid").mean(axis=(3, 4))

    def avg_pool_backward(self, dy: Array, size: Pair, pool: Pair, stride: Pair) -> Array:
        """dx = Pᵀ(u), u_nijabc = dy_nijc / (kh kw): the mean is linear; `size` (h, w) is that of x."""
        u = (dy / (pool[0] * pool[1]))[:, :, :, None, None]
        n, i, j, *_, c = u.shape
        return self.overlap_add(self.xp.broadcast_to(u, (n, i, j, *pool, c)), size, stride, "valid")

    def upsample(self, x: Array, factor: Pair) -> Array:
        """y_n,(i s + a),(j t + b),c = x_nijc for 0 <= a < s, 0 <= b < t: each pixel a block of factor (s, t).

        The nearest neighbour; x (n, h, w, c) -> y (n, h s, w t, c).
        """
        return x.repeat(factor[0], axis=1).repeat(factor[1], axis=2)

    def upsample_backward(self, dy: Array, factor: Pair) -> Array:
        """dx_nijc = Σ_ab dy_n,(i s + a),(j t + b),c: the sum over the block that the pixel became."""
        n, h, w, c = dy.shape
        s, t = factor
        return dy.reshape(n, h // s, s, w // t, t, c).sum(axis=(2, 4))

    # Fused with what stands before or after

    def upsample_conv2d(self, x: Array, W: Array, b: Array, activation: str, factor: Pair, padding: str) -> Array:
        """y = conv2d(upsample(x)), stride 1; a device may multiply first and upsample after, for both are linear."""
        return self.conv2d(self.upsample(x, factor), W, b, activation, (1, 1), padding)

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
        """The gradients of `upsample_conv2d`, by the chain rule: writes dW and db, returns dx where it is needed."""
        settings = activation, (1, 1), padding
        dup = self.conv2d_backward(dy, self.upsample(x, factor), y, W, *settings, dW, db, accumulate, need_dx)
        return self.upsample_backward(dup, factor) if need_dx else None

    def conv2d_max_pool(
        self, x: Array, W: Array, b: Array, activation: str, stride: Pair, padding: str, pool: Pair
    ) -> tuple[Array, Array]:
        """y = max_pool(conv2d(x)), the windows side by side, and what the backward needs: here, what was pooled.

        A device may keep something smaller.
        """
        kept = self.conv2d(x, W, b, activation, stride, padding)
        return self.max_pool(kept, pool, pool), kept

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
        """The gradients of `conv2d_max_pool`, by the chain rule: writes dW and db, returns dx where it is needed."""
        dh = self.max_pool_backward(dy, kept, y, pool, pool)
        return self.conv2d_backward(dh, x, kept, W, activation, stride, padding, dW, db, accumulate, need_dx)
