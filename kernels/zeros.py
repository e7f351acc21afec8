"""Terms of a product that are zero for certain, and so need not be added.

Four pixels in five of a handwritten digit are empty. A register tile (`tiles.py`) adds a term k of some rows at once,

    c_ij += a_ik b_kj,      i = i0, ..., i0 + ROWS - 1,

so it may leave out every k for which all these a_ik are 0. For x W the rows are images that came together by chance,
and half of the pixels are lit in one of them; for dW = xᵀ g they are neighbouring pixels of one image, which are mostly
lit together. What is added does not change by a bit, unless b_kj is not finite: 0 times that counts as 0 here.

    terms[t, k0 : k0 + counts[t, block]]      what rows t ROWS, ..., (t + 1) ROWS - 1 add up of the block of terms that
                                              begins at k0, counted from there
"""

from __future__ import annotations

import numpy as np

from minicvae.kernels.compiled_products import TERMS, part
from minicvae.kernels.compiler import kernel
from minicvae.kernels.spread import take
from minicvae.kernels.tiles import ROWS

SAMPLE = 251  # numbers that are looked at, or a few more
TILES = 14  # of columns that are listed together
MOSTLY = 3  # of these one in so many at most is not zero, for a product to be worth it


@kernel
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
def list_rows(queue, x, terms, counts):
    """Of `ROWS` rows of x at a time, in which columns not all are zero: the terms of x W; x (n, d)."""
    n, d = x.shape
    size = np.empty(TERMS, x.dtype)
    t = take(queue)
    while t < len(terms):
        for block in range(counts.shape[1]):
            begin, end = part(block, counts.shape[1], d, 1)
            size[:] = 0
            for i in range(t * ROWS, min((t + 1) * ROWS, n)):
                row = x[i, begin:end]
                for k in range(end - begin):
                    size[k] += abs(row[k])
            counts[t, block] = keep(size[: end - begin], terms[t, begin:end])
        t = take(queue)


@kernel
def list_columns(queue, x, terms, counts):
    """Of `ROWS` columns of x at a time, in which rows not all are zero: the terms of xᵀ g; x (n, d)."""
    n, d = x.shape
    tiles, whole = len(terms), d // ROWS
    size = np.empty((TERMS, TILES), x.dtype)
    first = TILES * take(queue)
    while first < tiles:
        last = min(first + TILES, tiles)
        for block in range(counts.shape[1]):
            begin, end = part(block, counts.shape[1], n, 1)
            for k in range(begin, end):
                row = x[k, first * ROWS :]
                for t in range(min(last, whole) - first):
                    total = abs(row[t * ROWS])
                    for i in range(1, ROWS):
                        total += abs(row[t * ROWS + i])
                    size[k - begin, t] = total
                if whole < last:
                    size[k - begin, whole - first] = np.abs(x[k, whole * ROWS :]).sum()
            for t in range(first, last):
                counts[t, block] = keep(size[: end - begin, t - first], terms[t, begin:end])
        first = TILES * take(queue)


@kernel
def keep(size, kept):
    """The places of what is not zero, and how many there are; no branch, for nobody can foresee it."""
    count = 0
    for k in range(len(size)):
        kept[count] = k
        count += size[k] != 0
    return count
