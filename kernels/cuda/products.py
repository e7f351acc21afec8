"""How a product of matrices is laid out on a GPU (`product.cuh`): the size of its tiles, and who shares a sum."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minicvae.kernels.cuda.launch import Launcher, blocks
from minicvae.kernels.reference import Array

__all__ = ["Plan", "Products"]

Sizes = tuple[int, int, int]
SMALL, LARGE = 32, 64  # rows and columns of a tile
THREADS = {SMALL: 256, LARGE: 64}
MANY = 2**26  # multiplications, from which on large tiles are worth it
ENOUGH = 264  # blocks that keep a GPU busy: two for each multiprocessor of a large one
LEAST = 128  # of the terms of a sum, below which it is not shared
GROUP = 16  # pieces of a sum that one block adds up
TICKETS = 4 * ENOUGH  # more than any product takes


class Plan(NamedTuple):
    """How a product is made: `blocks` of `threads`; pieces, planes and tickets as the kernels take them."""

    blocks: int
    shares: tuple[int, Array, Array]


class Products:
    """What all products have in common: tickets, and memory for the pieces of sums.

    tf32: whether products of float32 may be made by tensor cores, of operands rounded to 10 bits behind the point.
    """

    def __init__(self, xp: Any, launch: Launcher, tf32: bool = False) -> None:
        self._xp, self._launch, self.tf32 = xp, launch, tf32
        self._tickets = xp.zeros((2, TICKETS), "int32")

    def launch(self, kernel: str, dtype: Any, grid: int, *arguments: Any, tile: int) -> None:
        """Launch a kernel that is made of products, with tiles of that size."""
        defines = f"TILE={tile}", *(["TF32"] if self.tf32 and dtype == np.float32 else [])
        self._launch(kernel, dtype, grid, *arguments, threads=THREADS[tile], defines=defines)

    def plan(self, sizes: Sizes, dtype: Any, tile: int, which: int = 0) -> Plan:
        """For a product (m, k) (k, n), of sizes m, n, k, with tiles of that size.

        which: 0, or 1 for the second product of a launch, which has tickets of its own. Into how many pieces a sum is
        cut depends on the sizes alone, and so do the bits of the result.
        """
        m, n, k = sizes
        tiles = blocks(m, tile) * blocks(n, tile)
        pieces = max(1, min(ENOUGH // max(tiles, 1), blocks(k, LEAST)))
        planes = self._xp.empty(tiles * pieces * tile * tile, dtype) if pieces > 1 else None
        return Plan(tiles * pieces, (pieces, planes, self._tickets[which]))

    def product(self, a: Array, b: Array, out: Array | None = None, accumulate: bool = False) -> Array:
        """AB, written to `out` or added to it where there is one."""
        (m, k), n = a.shape, b.shape[1]
        out = self._xp.empty((m, n), a.dtype) if out is None else out
        tile = tile_for((m, n, k))
        plan = self.plan((m, n, k), a.dtype, tile)
        steps = [step // x.itemsize for x in (a, b) for step in x.strides]
        given = a, *steps[:2], b, *steps[2:], out, m, n, k, accumulate
        self.launch("product", a.dtype, plan.blocks, *given, *plan.shares, tile=tile)
        return out


def tile_for(*products: Sizes) -> int:
    """The rows and columns of the tiles of products that share a launch."""
    m, n, k = max(products, key=lambda sizes: sizes[0] * sizes[1] * sizes[2])
    return LARGE if m * n * k >= MANY and min(m, n) > SMALL else SMALL
