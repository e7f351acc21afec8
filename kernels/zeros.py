"""Terms of a product that are zero for certain, and so need not be added.

Four pixels in five of a handwritten digit are empty. A register tile (`tiles.py`) adds a term k of some rows at once,

    c_ij += a_ik b_kj,      i = i0, ..., i0 + ROWS - 1,

so it may leave out every k for which all these a_ik are 0. For x W the rows are images that came together by chance,
and half of the pixels are lit in one of them; for dW = xᵀ g they are neighbouring pixels of one image, which are mostly
lit together. What is added does not change by a bit, unless b_kj is not finite: 0 times that counts as 0 here.

    terms[t, k0 : k0 + counts[t, block]]      what rows t ROWS, ..., (t + 1) ROWS - 1 add up of the block of terms that
                                              begins at k0, counted from there
    counts[0, 0] = ALL                        nothing is listed, and nothing left out: x is not mostly zero
"""

from __future__ import annotations

import numpy as np

from minicvae.kernels.compiled_products import ALL, TERMS, part
from minicvae.kernels.compiler import inlined, kernel
from minicvae.kernels.spread import take
from minicvae.kernels.tiles import ROWS

WORTH_LISTING = 3_000_000  # multiply-adds: from here on a list of terms that are not zero is sooner made than not
TILES = 8  # of rows or columns that make a piece
SAMPLE = 251  # numbers that are looked at, or a few more
MOSTLY = 3  # of these one in so many at most is not zero, for a product to be worth it


def room(rows, terms):
    """Shape and type of `terms` and of `counts` for a product of so many rows and terms."""
    tiles, blocks = -(-rows // ROWS), -(-terms // TERMS)
    return ((tiles, terms), np.int32), ((tiles, blocks), np.int64)


@inlined
def mostly(x):
    """Whether most of x is zero, by a sample."""
    flat = x.reshape(x.size)
    step = flat.size // SAMPLE + 1
    lit = looked_at = 0
    for i in range(0, flat.size, step):
        looked_at += 1
        lit += flat[i] != 0
    return lit * MOSTLY <= looked_at


@kernel
def of_rows(queue, x, terms, counts):
    """(terms, counts) of x W: of `ROWS` rows of x at a time, the columns in which not all are zero; x (n, d)."""
    if not mostly(x):
        counts[0, 0] = ALL
        return
    n, d = x.shape
    size = np.empty(TERMS, x.dtype)
    t = take(queue, len(terms))
    while t < len(terms):
        for block in range(counts.shape[1]):
            begin, end = part(block, counts.shape[1], d, 1)
            size[:] = 0
            for i in range(t * ROWS, min((t + 1) * ROWS, n)):
                row = x[i, begin:end]
                for k in range(end - begin):
                    size[k] += abs(row[k])
            counts[t, block] = keep(size[: end - begin], terms[t, begin:end])
        t = take(queue, len(terms))


@kernel
def of_columns(queue, x, terms, counts):
    """(terms, counts) of xᵀ g: of `ROWS` columns of x at a time, the rows in which not all are zero; x (n, d)."""
    if not mostly(x):
        counts[0, 0] = ALL
        return
    n, d = x.shape
    size = np.empty((TERMS, TILES), x.dtype)
    pieces = (len(terms) + TILES - 1) // TILES
    piece = take(queue, pieces)
    while piece < pieces:
        t0 = piece * TILES
        tiles = min(TILES, len(terms) - t0)
        whole = min(tiles, d // ROWS - t0)
        for block in range(counts.shape[1]):
            begin, end = part(block, counts.shape[1], n, 1)
            for k in range(begin, end):
                row, of_tile = x[k, t0 * ROWS : (t0 + tiles) * ROWS], size[k - begin]
                for t in range(whole):
                    total = abs(row[t * ROWS])
                    for i in range(1, ROWS):
                        total += abs(row[t * ROWS + i])
                    of_tile[t] = total
                if whole < tiles:
                    of_tile[whole] = 0
                    for i in range(whole * ROWS, len(row)):
                        of_tile[whole] += abs(row[i])
            for t in range(tiles):
                counts[t0 + t, block] = keep(size[: end - begin, t], terms[t0 + t, begin:end])
        piece = take(queue, pieces)


@inlined
def keep(size, kept):
    """The places of what is not zero, and how many there are; no branch, for nobody can foresee it."""
    count = 0
    for k in range(len(size)):
        kept[count] = k
        count += size[k] != 0
    return count
