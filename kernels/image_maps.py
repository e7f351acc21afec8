"""The ways in which the `cpu` device computes a convolution h = K x: each a linear map of images, and its way back.

The definition, a product with the windows of the images, copies every pixel once for each cell of the kernel and
multiplies it there. Where the kernel allows, there are shorter ways to the same numbers:

    Windows       any kernel; the definition
    Stamps        any transposed kernel; the definition
    Planes        one channel: the windows are the image, shifted
    Winograd      3x3, stride 1: 16 products for 4 pixels in place of 36
    Upsampled     stride 1, the image upsampled before: products at the low resolution; as planes for few channels out

A map is made for one call, of the whole batch's shape and the kernel W. It is run on a few images at a time, of which
its `images` are as many as the cache has room for, by several threads at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from itertools import repeat
from math import prod

import numpy as np

from minicvae.kernels import compiled_images, compiled_tiles
from minicvae.kernels.convolution import Pair, is_convolution, span, transposed_size, turned
from minicvae.kernels.reference import Array

__all__ = ["ImageMap", "convolution", "transposed"]

BLOCK = 3 << 18  # bytes: of the second cache of a core, what a block of images may fill
FEW = 4  # channels: fewer are too short a run for the loops over tiles


class ImageMap(ABC):
    """h = K x on images (n, h, w, c); the kernel's gradient is gathered in `total`, in the map's own layout.

    size (h, w, c_out) of its results; numbers: what it lays out on the way, for an image; products: its multiply-adds.
    """

    size: tuple[int, int, int]
    numbers: int
    products: int

    def images(self, itemsize: int) -> int:
        """How many images make a block."""
        return max(BLOCK // (self.numbers * itemsize), 1)

    @abstractmethod
    def room(self, images: int) -> list[tuple[int, ...]]:
        """The shapes of the arrays to lay things out in, for a block of so many images."""

    @abstractmethod
    def forward(self, x: Array, h: Array, room: list[Array]) -> None:
        """h = K x."""

    @abstractmethod
    def total(self) -> Array:
        """Zeros, to add gradients to."""

    @abstractmethod
    def backward(self, x: Array, g: Array, total: Array, dx: Array | None, room: list[Array]) -> None:
        """With g = dL/dh: total += dL/dK, and dx = Kᵀ g where it is not None."""

    @abstractmethod
    def gradient(self, total: Array) -> Array:
        """dW of a total."""


def convolution(x: Array, W: Array, stride: Pair, padding: str, factor: Pair = (1, 1)) -> ImageMap:
    """The shortest way of `conv2d` on images like x, upsampled by `factor` before."""
    c_in, c_out = W.shape[2:]
    if factor != (1, 1):
        return (Upsampled if c_out >= FEW else UpsampledPlanes)(x, W, padding, factor)
    if stride != (1, 1) or padding != "same":
        return Windows(x, W, stride, padding)
    if c_in == 1:
        return Planes(x, W)
    if c_out < FEW:
        return UpsampledPlanes(x, W, padding, factor)
    return Winograd(x, W) if W.shape[:2] == (3, 3) and c_in >= FEW else Windows(x, W, stride, padding)


def transposed(x: Array, W: Array, stride: Pair, padding: str) -> ImageMap:
    """The shortest way of `conv2d_transpose` on images like x."""
    if is_convolution(W.shape[:2], stride, padding):
        return convolution(x, turned(W), stride, padding)
    return Stamps(x, W, stride, padding)


class _Geometry:
    """How the windows of images (h, w, c) lie, for the loops of `compiled_images`."""

    def __init__(self, size: Pair, channels: int, kernel: Pair, stride: Pair, padding: str) -> None:
        (i, top, _), (j, left, _) = map(span, size, kernel, stride, repeat(padding))
        self.places = i, j
        self.rows, self.depth = i * j, prod(kernel) * channels  # windows of an image, numbers in a window
        self.settings = self.places, kernel, stride, (top, left)

    def windows(self, x: Array, room: Array) -> Array:
        """P(x) as a matrix."""
        P = room[: len(x) * self.rows]
        compiled_images.windows(x, P, *self.settings)
        return P

    def overlap_add(self, P: Array, x: Array) -> None:
        """x = Pᵀ(P)."""
        compiled_images.overlap_add(P, x, *self.settings)


class _Definition(ImageMap):
    """What `Windows` and `Stamps` share: the room for the windows, and W as a matrix."""

    def __init__(self, form: _Geometry, W: Array, size: tuple[int, int, int]) -> None:
        self.form, self.shape, self.size = form, W.shape, size
        self.W = np.ascontiguousarray(W).reshape(form.depth, -1)
        self.numbers, self.products = form.rows * form.depth, form.rows * W.size

    def room(self, images: int) -> list[tuple[int, ...]]:
        """Windows."""
        return [(images * self.form.rows, self.form.depth)]

    def total(self) -> Array:
        """As W, flat."""
        return np.zeros_like(self.W)

    def gradient(self, total: Array) -> Array:
        """As it is."""
        return total.reshape(self.shape)


class Windows(_Definition):
    """h = P(x) W: the windows gathered, then a product. dW = P(x)ᵀ g, dx = Pᵀ(g Wᵀ)."""

    def __init__(self, x: Array, W: Array, stride: Pair, padding: str) -> None:
        form = _Geometry(x.shape[1:3], W.shape[2], W.shape[:2], stride, padding)
        super().__init__(form, W, (*form.places, W.shape[3]))

    def forward(self, x: Array, h: Array, room: list[Array]) -> None:
        """The product of the windows."""
        np.matmul(self.form.windows(x, *room), self.W, out=h.reshape(-1, self.size[2]))

    def backward(self, x: Array, g: Array, total: Array, dx: Array | None, room: list[Array]) -> None:
        """The windows anew: to keep them would take nine times the memory of x."""
        g = g.reshape(-1, self.size[2])
        P = self.form.windows(x, *room)
        total += P.T @ g
        if dx is not None:
            # Of one channel the product is all outer: BLAS takes eight times as long as NumPy's broadcasting.
            (np.matmul if self.size[2] > 1 else np.multiply)(g, self.W.T, out=P)
            self.form.overlap_add(P, dx)


class Stamps(_Definition):
    """h = Pᵀ(x Wᵀ): every pixel's stamps, then added up. With P = P(g): dW = Pᵀ x, dx = P W."""

    def __init__(self, x: Array, W: Array, stride: Pair, padding: str) -> None:
        h, w = map(transposed_size, x.shape[1:3], W.shape[:2], stride, repeat(padding))
        form = _Geometry((h, w), W.shape[2], W.shape[:2], stride, padding)
        super().__init__(form, W, (h, w, W.shape[2]))

    def forward(self, x: Array, h: Array, room: list[Array]) -> None:
        """The product, then its sums."""
        P = room[0][: len(x) * self.form.rows]
        np.matmul(x.reshape(len(P), -1), self.W.T, out=P)
        self.form.overlap_add(P, h)

    def backward(self, x: Array, g: Array, total: Array, dx: Array | None, room: list[Array]) -> None:
        """The windows of g, and their products."""
        P = self.form.windows(g, *room)
        total += P.T @ x.reshape(len(P), -1)
        if dx is not None:
            np.matmul(P, self.W, out=dx.reshape(len(P), -1))


class Planes(ImageMap):
    """Stride 1, "same", one channel in: P(x)ᵀ is the image once for each cell of the kernel, shifted. h = P W.

    Rows of an image are copied whole where windows would be gathered three numbers at a time.
    """

    def __init__(self, x: Array, W: Array) -> None:
        h, w = x.shape[1:3]
        (_, top, _), (_, left, _) = map(span, (h, w), W.shape[:2], (1, 1), repeat("same"))
        self.W, self.before, self.size = np.ascontiguousarray(W), (top, left), (h, w, W.shape[3])
        self.planes = h * w * prod(W.shape[:2])
        self.numbers, self.products = self.planes + 2 * h * w * W.shape[3], h * w * W.size

    def room(self, images: int) -> list[tuple[int, ...]]:
        """Planes."""
        return [(images * self.planes,)]

    def forward(self, x: Array, h: Array, room: list[Array]) -> None:
        """h = P W."""
        compiled_tiles.shifted(x[..., 0], self.W, h, *room, self.before)

    def total(self) -> Array:
        """As W."""
        return np.zeros_like(self.W)

    def backward(self, x: Array, g: Array, total: Array, dx: Array | None, room: list[Array]) -> None:
        """dW = Pᵀ g; dx by `UpsampledPlanes`."""
        compiled_tiles.shifted_back(x[..., 0], g, total, *room, self.before)
        if dx is not None:
            before = tuple(k - 1 - p for k, p in zip(self.W.shape, self.before, strict=False))
            way = UpsampledPlanes(g, turned(self.W), "same", (1, 1), before)
            way.forward(g, dx, [np.empty(shape, g.dtype) for shape in way.room(len(g))])

    def gradient(self, total: Array) -> Array:
        """As it is."""
        return total


class Winograd(ImageMap):
    """3x3, stride 1, "same", in tiles of 2x2 places: of each tile's 4x4 pixels d and the kernel w,

        h = Aᵀ (G w Gᵀ ⊙ Bᵀ d B) A

    The product ⊙ is one for each of 16 numbers in place of 9 for each of 4 places, and is summed over c_in: 16 matrix
    products of all tiles. Along one axis, for two places of three cells:

        Bᵀ d = (d0 - d2, d1 + d2, d2 - d1, d1 - d3)       G w = (w0, (w0 + w1 + w2) / 2, (w0 - w1 + w2) / 2, w2)
        Aᵀ m = (m0 + m1 + m2, m1 - m2 - m3)

        m0 + m1 + m2 = d0 w0 - d2 w0 + (d1 + d2)(w0 + w1 + w2) / 2 + (d2 - d1)(w0 - w1 + w2) / 2
                     = d0 w0 + d1 w1 + d2 w2, and likewise the second place.

    All three are linear, so with V = Bᵀ d B, U = G w Gᵀ and the gradient in the tiles, A g Aᵀ, dU = Vᵀ (A g Aᵀ) and
    dW = Gᵀ dU G. dx is the convolution of g with the turned kernel, the same way. Winograd 1980; Lavin and Gray 2015.
    """

    G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    G_BOTH = np.kron(G, G)  # (16, 9): along both axes at once

    def __init__(self, x: Array, W: Array) -> None:
        h, w, c_in = x.shape[1:]
        self.half = (h + 1) // 2, (w + 1) // 2
        self.both = self.G_BOTH.astype(W.dtype)
        self.W, self.size = W, (h, w, W.shape[3])
        self.numbers = 16 * prod(self.half) * (c_in + W.shape[3])
        self.products = self.numbers * c_in * W.shape[3] // (c_in + W.shape[3])

    def tiles(self, W: Array) -> Array:
        """U (16, c_in, c_out)."""
        return (self.both @ np.ascontiguousarray(W).reshape(9, -1)).reshape(16, *W.shape[2:])

    @cached_property
    def U(self) -> Array:
        """Of the kernel."""
        return self.tiles(self.W)

    @cached_property
    def U_back(self) -> Array:
        """Of the kernel that takes g to dx."""
        return self.tiles(turned(self.W))

    def room(self, images: int) -> list[tuple[int, ...]]:
        """Phases and tiles of both sides, and a sum of products like U."""
        rows, columns = self.half
        channels = self.W.shape[2:]
        phases = [(images, 2 * rows + 2, 2, columns + 1, c) for c in channels]
        return [*phases, *((16, images, rows, columns, c) for c in channels), channels]

    def forward(self, x: Array, h: Array, room: list[Array]) -> None:
        """Into the tiles, a product for each of their 16 numbers, and back."""
        P, _, V, M, _ = room
        compiled_tiles.winograd(x, self.U, h, P, V, M)

    def total(self) -> Array:
        """As U."""
        return np.zeros((16, *self.W.shape[2:]), self.W.dtype)

    def backward(self, x: Array, g: Array, total: Array, dx: Array | None, room: list[Array]) -> None:
        """dU = Vᵀ A g Aᵀ, and dx by the same tiles."""
        compiled_tiles.winograd_weights(x, g, total, *room)
        if dx is not None:
            _, Q, V, M, _ = room
            compiled_tiles.winograd_back(Q, self.U_back, dx, V, M)

    def gradient(self, total: Array) -> Array:
        """dW = (G ⊗ G)ᵀ dU."""
        return (self.both.T @ total.reshape(16, -1)).reshape(self.W.shape)


class Upsampled(ImageMap):
    """conv2d of upsample(x), stride 1: the product comes first, at the low resolution, and is upsampled after.

    To upsample is to repeat pixels, channel by channel, and the product is by pixels, so they may change places:

        h_rs = Σ_ab upsample(x)_(r - p + a),(s - q + b) W_ab = Σ_ab (x W_ab)_(r - p + a) // f,(s - q + b) // g

    u = x W, every pixel times every cell of the kernel, is one product with x as it lies, no windows gathered, and for
    a factor of 2 a quarter of the multiplications; the sum over a b is then of c_out numbers (`spread`). With the
    transpose of that sum, du = spreadᵀ(g):  dW = xᵀ du,  dx = du Wᵀ.
    """

    def __init__(self, x: Array, W: Array, padding: str, factor: Pair, before: Pair | None = None) -> None:
        h, w = (size * f for size, f in zip(x.shape[1:3], factor, strict=True))
        (i, top, _), (j, left, _) = map(span, (h, w), W.shape[:2], (1, 1), repeat(padding))
        self.W = np.ascontiguousarray(W.transpose(self.axes))
        self.shape, self.size = W.shape, (i, j, W.shape[3])
        self.pixels, self.settings = x.shape[1:3], (factor, before or (top, left))
        self.cells = W.size // W.shape[2]
        self.numbers, self.products = prod(self.pixels) * self.cells, prod(self.pixels) * W.size

    axes = (2, 0, 1, 3)  # of W, as it is laid out for the product

    def room(self, images: int) -> list[tuple[int, ...]]:
        """u (n, i, j, kh, kw, c_out), a row of sums, and a sum of products like W."""
        kh, kw, c_in, c_out = self.shape
        return [(images, *self.pixels, kh, kw, c_out), (self.pixels[1], kw * c_out), (c_in, self.cells)]

    def forward(self, x: Array, h: Array, room: list[Array]) -> None:
        """The product, spread out."""
        u, line, _ = room
        compiled_tiles.upsampled(x, self.W.reshape(-1, self.cells), h, u, line, *self.settings)

    def total(self) -> Array:
        """As W is laid out."""
        return np.zeros_like(self.W)

    def backward(self, x: Array, g: Array, total: Array, dx: Array | None, room: list[Array]) -> None:
        """g gathered, and its products."""
        W, total = self.W.reshape(-1, self.cells), total.reshape(-1, self.cells)
        wanted = x if dx is None else dx
        compiled_tiles.upsampled_back(x, g, total, W.T, wanted, dx is not None, *room, *self.settings)

    def gradient(self, total: Array) -> Array:
        """Its axes back in their places."""
        return total.transpose(np.argsort(self.axes))


class UpsampledPlanes(Upsampled):
    """`Upsampled` for few channels out: u as planes, whose rows are longer runs than a pixel's channels."""

    axes = (3, 0, 1, 2)

    def room(self, images: int) -> list[tuple[int, ...]]:
        """u (c_out, kh, kw, n, i, j), flat, and a row of sums."""
        return [(images * prod(self.pixels) * self.cells,), (self.pixels[1],)]

    def forward(self, x: Array, h: Array, room: list[Array]) -> None:
        """The product, spread out."""
        compiled_tiles.upsampled_planes(x, self.W, h, *room, *self.settings)

    def backward(self, x: Array, g: Array, total: Array, dx: Array | None, room: list[Array]) -> None:
        """g gathered, and its products."""
        wanted = x if dx is None else dx
        compiled_tiles.upsampled_planes_back(x, g, self.W, total, wanted, dx is not None, *room, *self.settings)
