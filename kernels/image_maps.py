"""The ways in which the `cpu` device computes a convolution h = K x: each a linear map of images, and its way back.

The definition, a product with the windows of the images, copies every pixel once for each cell of the kernel and
multiplies it there. Where the kernel allows, there are shorter ways to the same numbers:

    Windows       any kernel; the definition
    Stamps        any transposed kernel; the definition
    Planes        one channel: the windows are the image, shifted
    Winograd      3x3, stride 1: 16 products for 4 pixels in place of 36
    Upsampled     stride 1, the image upsampled before: products at the low resolution; as planes for few channels out

A map is made for one call, of the whole batch's shape and the kernel W. `compiled_maps.py` has its loops, over blocks
of as many `images` as the cache has room for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import repeat
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np

from minicvae.kernels import compiled_maps
from minicvae.kernels.compiled_products import product, product_of_columns
from minicvae.kernels.convolution import Pair, is_convolution, span, transposed_size, turned
from minicvae.kernels.reference import Array

__all__ = ["Backward", "Forward", "ImageMap", "Maker", "convolution", "transposed"]

BLOCK = 3 << 18  # bytes: of the second cache of a core, what a block of images may fill
FEW = 4  # channels: fewer are too short a run for the loops over tiles


class Forward(NamedTuple):
    """What y is made of: y = f(h + b), h = K x, or of the maxima of h."""

    x: Array  # (n, h, w, c_in)
    y: Array  # (n, i, j, c_out)
    first: Array  # the places of the maxima, shaped as y; empty where y is not pooled
    b: Array  # (j c_out,): of a row of y, which is a longer run than a pixel
    activation: int  # as `compiled.ACTIVATION` has it
    h: Array  # room for each thread's block of images


class Backward(NamedTuple):
    """What is made of dy: of each part of the images total = dL/dK and db = Σ g; and dx = Kᵀ g if that is needed.

    g = dL/dh.
    """

    x: Array
    dy: Array
    y: Array
    first: Array
    activation: int
    total: Array  # (parts, *sum_shape)
    db: Array  # (parts, j c_out), of a row
    dx: Array  # any array if it is not needed
    need_dx: bool
    g: Array  # room for each thread's block of images
    of_maxima: Array  # room for g where the maxima are; empty where y is not pooled


class Maker(Protocol):
    """Who gives memory, and calls functions now and whenever what is being done is done again (`cpu.py`)."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An uninitialised array."""

    def contiguous(self, x: Array) -> Array:
        """x itself if it is C-contiguous, else a copy of it."""

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """function(*args), which changes some of its arguments."""


class ImageMap(ABC):
    """y = f(K x + b) on images (n, h, w, c), pooled or not; the kernel's gradient is gathered in `total`.

    size (h, w, c_out) of K x; numbers: what is laid out on the way, for an image; sum_shape: of `total`, the map's own
    layout; forward, backward: kernels of `compiled_maps`.
    """

    size: tuple[int, int, int]
    numbers: int
    sum_shape: tuple[int, ...]
    forward: Callable[..., None]
    backward: Callable[..., None]

    @abstractmethod
    def form(self, k: Maker) -> tuple[Any, ...]:
        """The arguments of `forward` that are the map's own: W as the map wants it, and how things lie."""

    def form_back(self, k: Maker) -> tuple[Any, ...]:
        """Those of `backward`."""
        return self.form(k)

    def images(self, itemsize: int) -> int:
        """How many images make a block."""
        return max(BLOCK // (self.numbers * itemsize), 1)

    @abstractmethod
    def room(self, images: int) -> list[tuple[int, ...]]:
        """The shapes of the arrays to lay a block of so many images out in."""

    def room_back(self, images: int) -> list[tuple[int, ...]]:
        """Those of `backward`."""
        return self.room(images)

    @abstractmethod
    def gradient(self, k: Maker, total: Array) -> Array:
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
        self.W, self.size = W, size or (i, j, W.shape[3])
        self.sum_shape = self.depth, W.shape[3]
        self.numbers = self.rows * self.depth

    def form(self, k: Maker) -> tuple[Any, ...]:
        """W as a matrix."""
        return k.contiguous(self.W).reshape(self.sum_shape), self.settings

    def room(self, images: int) -> list[tuple[int, ...]]:
        """Windows."""
        return [(images * self.rows, self.depth)]

    def gradient(self, k: Maker, total: Array) -> Array:
        """As it is."""
        return total.reshape(self.W.shape)


class Windows(_Definition):
    """h = P(x) W: the windows gathered, then a product. dW = P(x)ᵀ g, dx = Pᵀ(g Wᵀ)."""

    forward = staticmethod(compiled_maps.windowed)
    backward = staticmethod(compiled_maps.windowed_backward)

    def __init__(self, x: Array, W: Array, stride: Pair, padding: str) -> None:
        super().__init__(W, x.shape[1:3], None, stride, padding)


class Stamps(_Definition):
    """h = Pᵀ(x Wᵀ): every pixel's stamps, then added up. With P = P(g): dW = Pᵀ x, dx = P W."""

    forward = staticmethod(compiled_maps.stamped)
    backward = staticmethod(compiled_maps.stamped_backward)

    def __init__(self, x: Array, W: Array, stride: Pair, padding: str) -> None:
        h, w = map(transposed_size, x.shape[1:3], W.shape[:2], stride, repeat(padding))
        super().__init__(W, (h, w), (h, w, W.shape[2]), stride, padding)


class Planes(ImageMap):
    """Stride 1, "same", one channel in: P(x)ᵀ is the image once for each cell of the kernel, shifted.

    h = P W, dW = Pᵀ g. Rows of an image are copied whole where windows would be gathered three numbers at a time. There
    is no way back to x.
    """

    forward = staticmethod(compiled_maps.shifted)
    backward = staticmethod(compiled_maps.shifted_backward)

    def __init__(self, x: Array, W: Array) -> None:
        h, w = x.shape[1:3]
        (_, top, _), (_, left, _) = map(span, (h, w), W.shape[:2], (1, 1), repeat("same"))
        self.W, self.before, self.size = W, (top, left), (h, w, W.shape[3])
        self.sum_shape, self.planes = W.shape, h * w * prod(W.shape[:2])
        self.numbers = self.planes + 2 * h * w * W.shape[3]

    def form(self, k: Maker) -> tuple[Any, ...]:
        """W, and where the image begins."""
        return k.contiguous(self.W), self.before

    def form_back(self, k: Maker) -> tuple[Any, ...]:
        """Where the image begins."""
        return (self.before,)

    def room(self, images: int) -> list[tuple[int, ...]]:
        """Planes."""
        return [(images * self.planes,)]

    def gradient(self, k: Maker, total: Array) -> Array:
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

    forward = staticmethod(compiled_maps.winograd)
    backward = staticmethod(compiled_maps.winograd_backward)

    G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    G_BOTH = np.kron(G, G)  # (16, 9): along both axes at once

    def __init__(self, x: Array, W: Array) -> None:
        h, w, c_in = x.shape[1:]
        self.half = (h + 1) // 2, (w + 1) // 2
        self.both = self.G_BOTH.astype(W.dtype)
        self.W, self.size = W, (h, w, W.shape[3])
        self.sum_shape = 16, *W.shape[2:]
        self.numbers = 16 * prod(self.half) * (c_in + W.shape[3])

    def form(self, k: Maker) -> tuple[Any, ...]:
        """U."""
        return (self._tiles(k, self.W),)

    def form_back(self, k: Maker) -> tuple[Any, ...]:
        """U of the kernel that takes g to dx."""
        return (self._tiles(k, turned(self.W)),)

    def _tiles(self, k: Maker, W: Array) -> Array:
        """U (16, c_in, c_out)."""
        U = k.empty((16, *W.shape[2:]), W.dtype)
        k.call(product, self.both, k.contiguous(W).reshape(9, -1), False, U.reshape(16, -1), False)
        return U

    def room(self, images: int) -> list[tuple[int, ...]]:
        """Phases of x, tiles of both sides."""
        phases, _, *tiles = self.room_back(images)
        return [phases, *tiles]

    def room_back(self, images: int) -> list[tuple[int, ...]]:
        """Phases and tiles of both sides."""
        rows, columns = self.half
        channels = self.W.shape[2:]
        phases = [(images, 2 * rows + 2, 2, columns + 1, c) for c in channels]
        return [*phases, *((16, images, rows, columns, c) for c in channels)]

    def gradient(self, k: Maker, total: Array) -> Array:
        """dW = (G ⊗ G)ᵀ dU."""
        dW = k.empty(self.W.shape, self.W.dtype)
        k.call(product_of_columns, self.both, total.reshape(16, -1), dW.reshape(9, -1), False)
        return dW


class Upsampled(ImageMap):
    """conv2d of upsample(x), stride 1: the product comes first, at the low resolution, and is upsampled after.

    To upsample is to repeat pixels, channel by channel, and the product is by pixels, so they may change places:

        h_rs = Σ_ab upsample(x)_(r - p + a),(s - q + b) W_ab = Σ_ab (x W_ab)_(r - p + a) // f,(s - q + b) // g

    u = x W, every pixel times every cell of the kernel, is one product with x as it lies, no windows gathered, and for
    a factor of 2 a quarter of the multiplications; the sum over a b is then of c_out numbers (`spread`). With the
    transpose of that sum, du = spreadᵀ(g):  dW = xᵀ du,  dx = du Wᵀ.
    """

    forward = staticmethod(compiled_maps.upsampled)
    backward = staticmethod(compiled_maps.upsampled_backward)

    def __init__(self, x: Array, W: Array, padding: str, factor: Pair) -> None:
        h, w = (size * f for size, f in zip(x.shape[1:3], factor, strict=True))
        (i, top, _), (j, left, _) = map(span, (h, w), W.shape[:2], (1, 1), repeat(padding))
        self.W, self.size = W.transpose(self.axes), (i, j, W.shape[3])
        self.sum_shape = self.W.shape
        self.pixels, self.settings = x.shape[1:3], (factor, (top, left))
        self.cells = W.size // W.shape[2]
        self.numbers = prod(self.pixels) * self.cells

    axes = (2, 0, 1, 3)  # of W, as it is laid out for the product

    def form(self, k: Maker) -> tuple[Any, ...]:
        """W (c_in, kh kw c_out)."""
        return k.contiguous(self.W).reshape(-1, self.cells), *self.settings

    def room(self, images: int) -> list[tuple[int, ...]]:
        """u (n, i, j, kh, kw, c_out), and a row of sums."""
        _, kh, kw, c_out = self.sum_shape
        return [(images, *self.pixels, kh, kw, c_out), (self.pixels[1], kw * c_out)]

    def gradient(self, k: Maker, total: Array) -> Array:
        """Its axes back in their places."""
        return total.transpose(*map(self.axes.index, range(4)))


class UpsampledPlanes(Upsampled):
    """`Upsampled` for few channels out: u as planes, whose rows are longer runs than a pixel's channels."""

    forward = staticmethod(compiled_maps.upsampled_planes)
    backward = staticmethod(compiled_maps.upsampled_planes_backward)

    axes = (3, 0, 1, 2)

    def form(self, k: Maker) -> tuple[Any, ...]:
        """W (c_out, kh, kw, c_in)."""
        return k.contiguous(self.W), *self.settings

    def room(self, images: int) -> list[tuple[int, ...]]:
        """u (c_out, kh, kw, n, i, j), flat, and a row of sums."""
        return [(images * prod(self.pixels) * self.cells,), (self.pixels[1],)]
