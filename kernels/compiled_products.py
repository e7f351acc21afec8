"""Products of matrices by register tiles (`tiles.py`), and the loops of a dense layer around them.

    y = x W          dx = g Wᵀ          dW = xᵀ g

are loops over blocks of the sum and tiles of rows. The first two go through a strip of columns at a time (`multiply`);
the columns of Wᵀ are rows of W, which are transposed first, a piece at a time. A piece of dW is written row by row,
over all of its strips (`multiply_examples`).

The kernels with a `queue` are called by all threads that share their work, with the same arguments: each takes pieces
of the result until none is left (`spread.py`).
"""

from __future__ import annotations

import numpy as np

from minicvae.kernels.compiled import add_rows_activate, slope_times
from minicvae.kernels.compiler import inlined, kernel
from minicvae.kernels.spread import take
from minicvae.kernels.tiles import ROWS, VECTOR_BYTES, VECTORS, tile, transpose
from minicvae.kernels.workspace import LINE

TERMS = 160  # of the sum at a time: as many rows of a strip stay in the first cache while all tiles of rows pass by
CACHE = 2**19  # bytes of the left factor at a time, or of what is copied for a piece of dW
PIECES = 8  # into which a result is cut at least, where it is large enough
FEWEST = 4 * ROWS  # rows of a piece, so that a strip is read often enough
SUMS = 2**18  # bytes of a piece of dW at most: they stay in the second cache from block to block of the examples
WIDE = 4  # times as wide as high a piece of dW may be: it is written row by row
ALL = -1  # in place of the first count of a list of terms: nothing is listed, and none left out


@inlined
def all_terms():
    """Says to `multiply` that no term is left out."""
    return np.empty((0, 0), np.int32), np.empty((0, 0), np.int64)


@inlined
def cut(m, n, terms, size):
    """How many strips of columns and groups of rows an (m, n) result of numbers of that size is cut into.

    What the left factor has for a group stays in the second cache for one strip after the other.
    """
    width = VECTORS * VECTOR_BYTES // size
    strips = (n + width - 1) // width
    groups = 1
    while (strips * groups < PIECES or m * terms * size > groups * CACHE) and m >= 2 * groups * FEWEST:
        groups *= 2
    return strips, groups


@inlined
def cut_sums(m, n, size):
    """How many columns and rows of pieces (m, n) sums over the examples are cut into, numbers of that size.

    Of pieces about as wide as high the least is read: each reads x where its rows are, and g where its columns are.
    Neither a piece nor what is copied for it, a block of examples at a time, is too large for the second cache.
    """
    width = VECTORS * VECTOR_BYTES // size
    tiles, strips = (m + ROWS - 1) // ROWS, (n + width - 1) // width
    columns = groups = 1
    while (
        columns * groups < PIECES
        or m * n * size > columns * groups * SUMS
        or (m // groups + n // columns) * TERMS * size > CACHE
    ):
        if 2 * groups <= tiles and (WIDE * m * columns >= n * groups or 2 * columns > strips):
            groups *= 2
        elif 2 * columns <= strips:
            columns *= 2
        else:
            break
    return columns, groups


@inlined
def part(number, parts, length, unit):
    """Where a part of `range(length)` begins and ends, in whole units."""
    units = (length + unit - 1) // unit
    return min(units * number // parts * unit, length), min(units * (number + 1) // parts * unit, length)


@inlined
def blocks_of(terms):
    """Into how many blocks a sum is cut; block i is `part(i, blocks, terms, 1)`."""
    return (terms + TERMS - 1) // TERMS


@inlined
def at_a_line(size, dtype):
    """An uninitialised array (size,) that begins at a cache line, lest each vector of it lie on two."""
    room = np.empty(size + LINE, dtype)
    start = -room.ctypes.data % LINE // room.itemsize
    return room[start : start + size]


@kernel
def multiply(a, kept, b, turned, c, bounds, accumulate):
    """c = a b, or c += a b, or with bᵀ where it is turned.

    bounds: where the rows of c begin and end, and the columns of the one strip that are computed. kept: the terms that
    are not left out (`zeros.py`), where the first count is not `ALL`; or `all_terms()`.
    """
    (listed, counts), (i0, i1, j0, j1) = kept, bounds
    some = listed.size > 0 and counts[0, 0] != ALL
    terms, b_row, c_row = a.shape[1], b.shape[1], c.shape[1]
    flat_a, flat_b, flat_c = a.reshape(a.size), b.reshape(b.size), c.reshape(c.size)
    flat_terms = listed.reshape(listed.size) if some else np.arange(TERMS).astype(np.int32)
    width = VECTORS * VECTOR_BYTES // c.itemsize
    piece = at_a_line(TERMS * width if turned else 0, c.dtype)
    blocks = blocks_of(terms)
    if blocks == 0 and not accumulate:
        c[i0:i1, j0:j1] = 0
    for block in range(blocks):
        k, end = part(block, blocks, terms, 1)
        if turned:
            transpose_piece(flat_b, j0 * b_row + k, b_row, j1 - j0, end - k, piece, width)
            strip, at, row = piece, 0, width
        else:
            strip, at, row = flat_b, k * b_row + j0, b_row
        i, more = i0, accumulate or block > 0
        while i < i1:
            rows = ROWS if i + ROWS <= i1 else 1
            first, count = 0, end - k
            if some:
                first, count = i // ROWS * terms + k, counts[i // ROWS, block]
            # fmt: off
            tile(rows, j1 - j0, flat_a, i * terms + k, terms, 1, strip, at, row,
                 flat_terms, first, count, flat_c, i * c_row + j0, c_row, more)
            # fmt: on
            i += rows


@kernel
def multiply_examples(x, kept, g, dW, bounds, accumulate):
    """dW = xᵀ g, or dW += xᵀ g. kept: as for `multiply`; bounds: where the rows and the columns begin and end.

    dW is out of the cache since the last step: it is written row by row, so that the processor sees what comes next.
    With more than one block of examples x and g may be, too: what the block has for these rows and columns is copied
    together first.
    """
    (listed, counts), (n, d_in), d_out, (i0, i1, j0, j1) = kept, x.shape, g.shape[1], bounds
    some = listed.size > 0 and counts[0, 0] != ALL
    flat_x, flat_g, flat_dW = x.reshape(x.size), g.reshape(g.size), dW.reshape(dW.size)
    flat_terms = listed.reshape(listed.size) if some else np.arange(TERMS).astype(np.int32)
    width, blocks = VECTORS * VECTOR_BYTES // dW.itemsize, blocks_of(n)
    x_row, g_row = apart(i1 - i0, dW.itemsize), apart(j1 - j0, dW.itemsize)
    room = TERMS if blocks > 1 else 0
    near_x, near_g = at_a_line(room * x_row, dW.dtype), at_a_line(room * g_row, dW.dtype)
    if blocks == 0 and not accumulate:
        dW[i0:i1, j0:j1] = 0
    for block in range(blocks):
        k, end = part(block, blocks, n, 1)
        a, a_at, a_row, b, b_at, b_row = flat_x, k * d_in + i0, d_in, flat_g, k * d_out + j0, d_out
        if blocks > 1:
            copy_piece(a, a_at, a_row, i1 - i0, end - k, near_x, x_row)
            copy_piece(b, b_at, b_row, j1 - j0, end - k, near_g, g_row)
            a, a_at, a_row, b, b_at, b_row = near_x, 0, x_row, near_g, 0, g_row
        i, more = i0, accumulate or block > 0
        while i < i1:
            rows = ROWS if i + ROWS <= i1 else 1
            first, count = 0, end - k
            if some:
                first, count = i // ROWS * n + k, counts[i // ROWS, block]
            for j in range(j0, j1, width):
                # fmt: off
                tile(rows, min(width, j1 - j), a, a_at + i - i0, 1, a_row, b, b_at + j - j0, b_row,
                     flat_terms, first, count, flat_dW, i * d_out + j, d_out, more)
                # fmt: on
            i += rows


@inlined
def apart(columns, size):
    """How far apart the rows of a copied piece are: whole vectors, and not a power of two of them.

    Rows a power of two apart would fall into few places of the first cache.
    """
    lanes = VECTOR_BYTES // size
    return ((columns + lanes - 1) // lanes | 1) * lanes


@inlined
def copy_piece(b, at, row, columns, depth, piece, width):
    """piece_kj = b[at + k row + j], j < columns, k < depth; its rows are `width` apart."""
    for k in range(depth):
        source, copy = b[at + k * row :], piece[k * width : k * width + columns]
        for j in range(len(copy)):
            copy[j] = source[j]


@inlined
def transpose_piece(b, at, row, columns, depth, piece, width):
    """piece_kj = b[at + j row + k], j < columns, k < depth; its rows are `width` apart."""
    lanes = VECTOR_BYTES // b.itemsize
    for j in range(0, columns, lanes):
        for k in range(0, depth, lanes):
            if j + lanes <= columns and k + lanes <= depth:
                transpose(b, at + j * row + k, row, piece, k * width + j, width)
            else:
                for u in range(j, min(j + lanes, columns)):
                    for v in range(k, min(k + lanes, depth)):
                        piece[v * width + u] = b[at + u * row + v]


@inlined
def piece_of(number, columns, groups, m, n, unit):
    """Where the rows of a piece of an (m, n) result begin and end, and where its columns do, in whole units."""
    i0, i1 = part(number // columns, groups, m, ROWS)
    j0, j1 = part(number % columns, columns, n, unit)
    return i0, i1, j0, j1


@kernel
def product(a, b, turned, c, accumulate):
    """c = a b, or c += a b, or with bᵀ where it is turned; here and now, by this thread."""
    (m, n), lanes = c.shape, VECTOR_BYTES // c.itemsize
    strips = (n + VECTORS * lanes - 1) // (VECTORS * lanes)
    groups = max(min(a.size * a.itemsize // CACHE, m // FEWEST), 1)
    for number in range(strips * groups):
        multiply(a, all_terms(), b, turned, c, piece_of(number, strips, groups, m, n, lanes), accumulate)


@kernel
def product_of_columns(a, b, c, accumulate):
    """c = aᵀ b, or c += aᵀ b, as `product`."""
    m, n = c.shape
    multiply_examples(a, all_terms(), b, c, piece_of(0, 1, 1, m, n, 1), accumulate)


@kernel
def dense(queue, x, kept, W, h, accumulate, last, gathered, rows, b, activation):
    """h = x W, or h += x W; after the `last` product of a joined input h = f(h + Σ_p gathered[rows[:, p]] + b).

    x (n, d_in), W (d_in, d_out), h (n, d_out); gathered (·, d_out), rows (n, parts), b (d_out,). kept: of x's rows.
    """
    (n, d_in), d_out, lanes = x.shape, W.shape[1], VECTOR_BYTES // h.itemsize
    strips, groups = cut(n, d_out, d_in, h.itemsize)
    number = take(queue, strips * groups)
    while number < strips * groups:
        bounds = piece_of(number, strips, groups, n, d_out, lanes)
        multiply(x, kept, W, False, h, bounds, accumulate)
        if last:
            add_rows_activate(h, gathered, rows, b, activation, *bounds)
        number = take(queue, strips * groups)


@kernel
def slopes(queue, dy, y, g, sums, activation):
    """g = dy ⊙ f'(h) and sums_p = Σ_n g_n over a part of the examples; dy, y, g (n, d), sums (parts, d).

    Where f is linear g is dy itself, and is not written.
    """
    piece = take(queue, len(sums))
    while piece < len(sums):
        i, j = part(piece, len(sums), len(dy), 1)
        total = sums[piece]
        total[:] = 0
        if activation == 0:
            for n in range(j - i):
                row = dy[i + n]
                for k in range(len(total)):
                    total[k] += row[k]
        else:
            slope_times(dy[i:j], y[i:j], g[i:j], total, activation)
        piece = take(queue, len(sums))


@kernel
def dense_backward(queue, x, kept, g, W, dW, accumulate, dx, need_dx):
    """dW = xᵀ g, or dW += xᵀ g, and dx = g Wᵀ where it is needed.

    x, dx (n, d_in), g (n, d_out), W, dW (d_in, d_out). kept: of x's columns.
    """
    (n, d_in), d_out, lanes = x.shape, g.shape[1], VECTOR_BYTES // g.itemsize
    columns, groups = cut_sums(d_in, d_out, g.itemsize)
    strips, dx_groups = cut(n, d_in, d_out, g.itemsize)
    first = strips * dx_groups if need_dx else 0
    number = take(queue, first + columns * groups)
    while number < first + columns * groups:
        if number < first:
            bounds = piece_of(number, strips, dx_groups, n, d_in, lanes)
            multiply(g, all_terms(), W, True, dx, bounds, False)
        else:
            bounds = piece_of(number - first, columns, groups, d_in, d_out, VECTORS * lanes)
            multiply_examples(x, kept, g, dW, bounds, accumulate)
        number = take(queue, first + columns * groups)
