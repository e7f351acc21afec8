"""The ways in which the `cpu` device computes a convolution h = K x: each a linear map of images, and its way back.

The definition, a product with the windows of the images, copies every pixel once for each cell of the kernel and
multiplies it there. Where the kernel allows, there are shorter ways to the same numbers:

    Windows       any kernel; the definition
    Stamps        any transposed kernel; the definition
    Planes        one channel: the windows are the image, shifted
    Winograd      3x3, stride 1: 16 products for 4 pixels in place of 36
    Upsampled     stride 1, the image upsampled before: products at the low resolution; as planes for few channels out

A map is made for one call, of the whole batch's shape and the kernel W, and run by several threads at once, each on a
part of the images: a block of a few at a time, of which `images` are as many as the cache has room for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from itertools import repeat
from math import prod
from typing import NamedTuple

import numpy as np

from minicvae.kernels import compiled_maps
from minicvae.kernels.convolution import Pair, is_convolution, span, transposed_size, turned
from minicvae.kernels.reference import Array

__all__ = ["Backward", "Forward", "ImageMap", "convolution", "transposed"]

BLOCK = 3 << 18  # bytes: of the second cache of a core, what a block of images may fill
FEW = 4  # channels: fewer are too short a run for the loops over tiles


class Forward(NamedTuple):
    """What a thread makes y of: y = f(h + b), h = K x, or of the maxima of h."""

    x: Array  # (n, h, w, c_in)
    y: Array  # (n, i, j, c_out)
    first: Array  # the places of the maxima, shaped as y; empty where y is not pooled
    b: Array  # (j c_out,): of a row of y, which is a longer run than a pixel
    activation: int  # as `compiled.ACTIVATION` has it
    h: Array  # room for a block of images


class Backward(NamedTuple):
    """What a thread adds up: total += dL/dK, db += Σ g, and dx = Kᵀ g if that is needed, with g = dL/dh."""

    x: Array
    dy: Array
    y: Array
    first: Array
    activation: int
    total: Array
    db: Array  # (j c_out,), of a row
    dx: Array  # any array if it is not needed
    need_dx: bool
    g: Array  # room for a block of images
    of_maxima: Array  # room for g where the maxima are; empty where y is not pooled


class ImageMap(ABC):
    """y = f(K x + b) on images (n, h, w, c), pooled or not; the kernel's gradient is gathered in `total`.

    size (h, w, c_out) of K x; numbers: what is laid out on the way, for an image; products: its multiply-adds;
    sum_shape: of `total`, the map's own layout.
    """

    size: tuple[int, int, int]
    numbers: int
    products: int
    sum_shape: tuple[int, ...]

    def images(self, itemsize: int) -> int:
        """How many images make a block."""
        return max(BLOCK // (self.numbers * itemsize), 1)

    @abstractmethod
    def room(self, images: int) -> list[tuple[int, ...]]:
        """The shapes of the arrays to lay things out in, for a block of so many images."""

    @abstractmethod
    def forward(self, part: Forward, room: list[Array]) -> None:
        """Writes y and `first`."""

    @abstractmethod
    def backward(self, part: Backward, room: list[Array]) -> None:
        """Adds to `total` and db, writes dx."""

    @abstractmethod
    def gradient(self, total: Array) -> Array:
        """dW of a total."""


def convolution(
    x: Array, W: Array, stride: Pair, padding: str, factor: Pair = (1, 1), *, need_dx: bool = False
) -> ImageMap:
    """The shortest way of `conv2d` on images like x, upsampled by `factor` before; need_dx: with its way back to x."""
    c_in, c_out = W.shape[2:]
    few = c_out < FEW
    if factor != (1, 1):
        return UpsampledPlanes(x, W, padding, factor) if few else Upsampled(x, W, padding, factor)
    if stride != (1, 1) or padding != "same":
        return Windows(x, W, stride, padding)
    if c_in == 1 and not need_dx:
        return Planes(x, W)
    if few:
        return UpsampledPlanes(x, W, padding, factor)
    return Winograd(x, W) if W.shape[:2] == (3, 3) and c_in >= FEW else Windows(x, W, stride, padding)


def transposed(x: Array, W: Array, stride: Pair, padding: str) -> ImageMap:
    """The shortest way of `conv2d_transpose` on images like x."""
    if is_convolution(W.shape[:2], stride, padding):
        return convolution(x, turned(W), stride, padding, need_dx=True)
    return Stamps(x, W, stride, padding)


class _Definition(ImageMap):
    """What `Windows` and `Stamps` share: W as a matrix, and how the windows of images (h, w, c) lie."""

    def __init__(self, W: Array, image: Pair, size: tuple[int, int, int] | None, stride: Pair, padding: str) -> None:
        kernel = W.shape[:2]
        (i, top, _), (j, left, _) = map(span, image, kernel, stride, repeat(padding))
        self.rows, self.depth = i * j, prod(W.shape[:3])  # windows of an image, numbers in a window
        self.settings = (i, j), kernel, stride, (top, left)
        self.W, self.shape = np.ascontiguousarray(W).reshape(self.depth, -1), W.shape
        self.size = size or (i, j, W.shape[3])
        self.sum_shape = self.W.shape
        self.numbers, self.products = self.rows * self.depth, self.rows * W.size

    def room(self, images: int) -> list[tuple[int, ...]]:
        """Windows."""
        return [(images * self.rows, self.depth)]

    def gradient(self, total: Array) -> Array:
        """As it is."""
        return total.reshape(self.shape)


class Windows(_Definition):
    """h = P(x) W: the windows gathered, then a product. dW = P(x)ᵀ g, dx = Pᵀ(g Wᵀ)."""

    def __init__(self, x: Array, W: Array, stride: Pair, padding: str) -> None:
        super().__init__(W, x.shape[1:3], None, stride, padding)

    def forward(self, part: Forward, room: list[Array]) -> None:
        """The product of the windows."""
        compiled_maps.windowed(*part, self.W, *self.settings, *room)

    def backward(self, part: Backward, room: list[Array]) -> None:
        """The products of the windows, and of what they give back."""
        compiled_maps.windowed_backward(*part, self.W, *self.settings, *room)


class Stamps(_Definition):
    """h = Pᵀ(x Wᵀ): every pixel's stamps, then added up. With P = P(g): dW = Pᵀ x, dx = P W."""

    def __init__(self, x: Array, W: Array, stride: Pair, padding: str) -> None:
        h, w = map(transposed_size, x.shape[1:3], W.shape[:2], stride, repeat(padding))
        super().__init__(W, (h, w), (h, w, W.shape[2]), stride, padding)

    def forward(self, part: Forward, room: list[Array]) -> None:
        """The product, then its sums."""
        compiled_maps.stamped(*part, self.W, *self.settings, *room)

    def backward(self, part: Backward, room: list[Array]) -> None:
        """The windows of g, and their products."""
        compiled_maps.stamped_backward(*part, self.W, *self.settings, *room)


class Planes(ImageMap):
    """Stride 1, "same", one channel in: P(x)ᵀ is the image once for each cell of the kernel, shifted.

    h = P W, dW = Pᵀ g. Rows of an image are copied whole where windows would be gathered three numbers at a time. There
    is no way back to x.
    """

    def __init__(self, x: Array, W: Array) -> None:
        h, w = x.shape[1:3]
        (_, top, _), (_, left, _) = map(span, (h, w), W.shape[:2], (1, 1), repeat("same"))
        self.W, self.before, self.size = np.ascontiguousarray(W), (top, left), (h, w, W.shape[3])
        self.sum_shape, self.planes = W.shape, h * w * prod(W.shape[:2])
        self.numbers, self.products = self.planes + 2 * h * w * W.shape[3], h * w * W.size

    def room(self, images: int) -> list[tuple[int, ...]]:
        """Planes."""
        return [(images * self.planes,)]

    def forward(self, part: Forward, room: list[Array]) -> None:
        """h = P W."""
        compiled_maps.shifted(*part._replace(x=part.x[..., 0]), self.W, self.before, room[0])

    def backward(self, part: Backward, room: list[Array]) -> None:
        """dW = Pᵀ g."""
        compiled_maps.shifted_backward(*part._replace(x=part.x[..., 0]), self.before, *room)

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
        self.sum_shape = 16, *W.shape[2:]
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
        """Phases and tiles of both sides."""
        rows, columns = self.half
        channels = self.W.shape[2:]
        phases = [(images, 2 * rows + 2, 2, columns + 1, c) for c in channels]
        return [*phases, *((16, images, rows, columns, c) for c in channels)]

    def forward(self, part: Forward, room: list[Array]) -> None:
        """Into the tiles, a product for each of their 16 numbers, and back."""
        P, _, V, M = room
        compiled_maps.winograd(*part, self.U, P, V, M)

    def backward(self, part: Backward, room: list[Array]) -> None:
        """dU = Vᵀ A g Aᵀ, and dx by the same tiles."""
        compiled_maps.winograd_backward(*part, self.U_back, *room)

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

    def __init__(self, x: Array, W: Array, padding: str, factor: Pair) -> None:
        h, w = (size * f for size, f in zip(x.shape[1:3], factor, strict=True))
        (i, top, _), (j, left, _) = map(span, (h, w), W.shape[:2], (1, 1), repeat(padding))
        self.W = np.ascontiguousarray(W.transpose(self.axes))
        self.sum_shape, self.shape, self.size = self.W.shape, W.shape, (i, j, W.shape[3])
        self.pixels, self.settings = x.shape[1:3], (factor, (top, left))
        self.cells = W.size // W.shape[2]
        self.numbers, self.products = prod(self.pixels) * self.cells, prod(self.pixels) * W.size

    axes = (2, 0, 1, 3)  # of W, as it is laid out for the product

    def room(self, images: int) -> list[tuple[int, ...]]:
        """u (n, i, j, kh, kw, c_out), and a row of sums."""
        kh, kw, _, c_out = self.shape
        return [(images, *self.pixels, kh, kw, c_out), (self.pixels[1], kw * c_out)]

    def forward(self, part: Forward, room: list[Array]) -> None:
        """The product, spread out."""
        compiled_maps.upsampled(*part, self.W.reshape(-1, self.cells), *self.settings, *room)

    def backward(self, part: Backward, room: list[Array]) -> None:
        """g gathered, and its products."""
        W, total = self.W.reshape(-1, self.cells), part.total.reshape(-1, self.cells)
        compiled_maps.upsampled_backward(*part._replace(total=total), W, *self.settings, *room)

    def gradient(self, total: Array) -> Array:
        """Its axes back in their places."""
        return total.transpose(np.argsort(self.axes))


class UpsampledPlanes(Upsampled):
    """`Upsampled` for few channels out: u as planes, whose rows are longer runs than a pixel's channels."""

    axes = (3, 0, 1, 2)

    def room(self, images: int) -> list[tuple[int, ...]]:
        """u (c_out, kh, kw, n, i, j), flat, and a row of sums."""
        return [(images * prod(self.pixels) * self.cells,), (self.pixels[1],)]

    def forward(self, part: Forward, room: list[Array]) -> None:
        """The product, spread out."""
        compiled_maps.upsampled_planes(*part, self.W, *self.settings, *room)

    def backward(self, part: Backward, room: list[Array]) -> None:
        """g gathered, and its products."""
        compiled_maps.upsampled_planes_backward(*part, self.W, *self.settings, *room)
