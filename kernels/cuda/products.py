"""How a product of matrices is laid out on a GPU (`product.cuh`): the size of its tiles, and who shares a sum."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from minicvae.kernels.cuda.launch import Launcher, blocks
from minicvae.kernels.reference import Array

__all__ = ["Layout", "Products", "Tile", "layout"]

Sizes = tuple[int, int, int]  # m, n, k of a product (m, k) (k, n)


class Tile(NamedTuple):
    """A kind of tile: its name in `product.cuh`, its rows and columns, and the threads of a block that makes one.

    resident: blocks that a multiprocessor works on at a time; cycles: that it takes for a term of a tile's sums, and
    that pass for one even where it has nothing else to do, since numbers have to come from memory.
    """

    name: int
    m: int
    n: int
    threads: int
    resident: int
    cycles: tuple[int, int]


TILES = (
    Tile(32, 32, 32, 256, 2, (16, 11)),
    Tile(64, 64, 64, 64, 4, (32, 44)),
    Tile(8, 64, 8, 64, 4, (8, 22)),
)
# What layouts are chosen by, in cycles: of a GPU with so many multiprocessors, a block's beginning and end, and the
# adding up of pieces. An estimate, to be measured; another GPU gets the same layouts, and so the same bits.
MULTIPROCESSORS, ENDS, ADDING = 132, 4000, 3000
LEAST = 64  # of the terms of a sum that is shared, for each block
GROUP = 16  # pieces of a sum that one block adds up
TICKETS = 2 * MULTIPROCESSORS * max(tile.resident for tile in TILES)  # one for each tile, one for each of its groups


class Layout(NamedTuple):
    """The tiles of the products of a launch, and into how many pieces the sums of each are cut."""

    tile: Tile
    pieces: tuple[int, ...]


@cache
def layout(*products: Sizes) -> Layout:
    """The layout that should take least; a function of the sizes alone, so that the bits of a result are too.

    Of those that take about as long it is that of the first kind of tile: each kind has to be compiled.
    """
    known = list(_layouts(products))
    least = min(cycles for cycles, _ in known)
    return next(found for cycles, found in known if cycles <= 1.1 * least)


def _layouts(products: tuple[Sizes, ...]) -> Iterator[tuple[float, Layout]]:
    """All that are worth a thought, with what they should take."""
    for tile in TILES:
        best = [min((_cycles(sizes, tile, pieces), pieces) for pieces in _pieces(sizes, tile)) for sizes in products]
        yield sum(cycles for cycles, _ in best), Layout(tile, tuple(pieces for _, pieces in best))


def _tiles(sizes: Sizes, tile: Tile) -> int:
    m, n, _ = sizes
    return blocks(m, tile.m) * blocks(n, tile.n)


def _pieces(sizes: Sizes, tile: Tile) -> set[int]:
    """One; or as many as let every multiprocessor have one block, or all that it can work on."""
    most = max(1, min(blocks(sizes[2], LEAST), GROUP**2))
    room = MULTIPROCESSORS // max(1, _tiles(sizes, tile))
    return {1, *(min(most, max(1, room * each)) for each in (1, tile.resident))}


def _cycles(sizes: Sizes, tile: Tile, pieces: int) -> float:
    """Whole waves of blocks, and a last one that may have fewer for each multiprocessor."""
    count, depth = _tiles(sizes, tile) * pieces, blocks(sizes[2], pieces)
    waves, rest = divmod(count, MULTIPROCESSORS * tile.resident)
    work = [tile.resident] * waves + ([blocks(rest, MULTIPROCESSORS)] if rest else [])
    busy, waiting = tile.cycles
    return sum(ENDS + depth * max(busy * each, waiting) for each in work) + ADDING * (pieces > 1)


class Products:
    """What all products have in common: tickets, and memory for the pieces of sums.

    tf32: whether products of float32 may be made by tensor cores, of operands rounded to 10 bits behind the point.
    """

    def __init__(self, xp: Any, launch: Launcher, tf32: bool = False) -> None:
        self._xp, self._launch, self.tf32 = xp, launch, tf32
        self._tickets = xp.zeros((2, TICKETS), "int32")

    def launch(self, kernel: str, dtype: Any, products: tuple[Sizes, ...], *arguments: Any) -> None:
        """Launch a kernel that makes such products.

        arguments: all but the last three for each product, pieces, planes and tickets, which are found here.
        """
        tile, pieces = layout(*products)
        grid = 0
        shares: list[Any] = []
        for sizes, count, tickets in zip(products, pieces, self._tickets, strict=False):
            tiles = _tiles(sizes, tile) * count
            planes = self._xp.empty(tiles * tile.m * tile.n, dtype) if count > 1 else None
            grid += tiles
            shares += count, planes, tickets
        defines = f"TILE={tile.name}", *(["TF32"] if self.tf32 and dtype == np.float32 else [])
        self._launch(kernel, dtype, grid, *arguments, *shares, threads=tile.threads, defines=defines)

    def product(self, a: Array, b: Array, out: Array | None = None, accumulate: bool = False) -> Array:
        """AB, written to `out` or added to it where there is one."""
        (m, k), n = a.shape, b.shape[1]
        out = self._xp.empty((m, n), a.dtype) if out is None else out
        steps = [step // x.itemsize for x in (a, b) for step in x.strides]
        self.launch("product", a.dtype, ((m, n, k),), a, *steps[:2], b, *steps[2:], out, m, n, k, accumulate)
        return out
