"""How a product of matrices is laid out on a GPU (`product.cuh`): the size of its tiles, and who shares a sum."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minicvae.kernels.cuda.launch import Launcher, blocks
from minicvae.kernels.reference import Array

__all__ = ["Plan", "Products", "Tile", "tile_for"]

Sizes = tuple[int, int, int]


class Tile(NamedTuple):
    """A kind of tile: its name in `product.cuh`, its rows and columns, and the threads of a block that makes one.

    enough: blocks that keep a large GPU busy, of 132 multiprocessors.
    """

    name: int
    m: int
    n: int
    threads: int
    enough: int


SMALL, LARGE, NARROW = Tile(32, 32, 32, 256, 264), Tile(64, 64, 64, 64, 528), Tile(8, 64, 8, 64, 528)
MANY = 2**26  # multiplications, from which on large tiles are worth it
LONG = 2**22  # the same for each column, of few columns
ALONE = 256  # terms that a block sums in the time that it takes to add up what others have
LEAST = 128  # of the terms of a sum that is shared, for each block
GROUP = 16  # pieces of a sum that one block adds up
TICKETS = 3 * LARGE.enough  # more than any product takes


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

    def launch(self, kernel: str, dtype: Any, grid: int, *arguments: Any, tile: Tile) -> None:
        """Launch a kernel that is made of products, with such tiles."""
        defines = f"TILE={tile.name}", *(["TF32"] if self.tf32 and dtype == np.float32 else [])
        self._launch(kernel, dtype, grid, *arguments, threads=tile.threads, defines=defines)

    def plan(self, sizes: Sizes, dtype: Any, tile: Tile, which: int = 0) -> Plan:
        """For a product (m, k) (k, n), of sizes m, n, k, with such tiles.

        which: 0, or 1 for the second product of a launch, which has tickets of its own. Into how many pieces a sum is
        cut depends on the sizes alone, and so do the bits of the result.
        """
        m, n, k = sizes
        tiles = blocks(m, tile.m) * blocks(n, tile.n)
        pieces = max(1, min(tile.enough // max(tiles, 1), blocks(k, LEAST), GROUP**2)) if k > ALONE else 1
        planes = self._xp.empty(tiles * pieces * tile.m * tile.n, dtype) if pieces > 1 else None
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


def tile_for(*products: Sizes) -> Tile:
    """The tiles for products that share a launch."""
    m, n, k = max(products, key=lambda sizes: sizes[0] * sizes[1] * sizes[2])
    if m * n * k >= MANY and min(m, n) > SMALL.n:
        return LARGE
    return NARROW if m * k >= LONG and n <= NARROW.n else SMALL
