"""Products of matrices by register tiles (`tiles.py`), and the loops of a dense layer around them.

    y = x W          dx = g Wᵀ          dW = xᵀ g

are one loop over blocks of the sum and tiles of rows, for each strip of columns. What differs is how the left factor
lies, which a tile is told, and that the columns of Wᵀ are rows of W, which are transposed first, a piece at a time.

Every kernel here is called by all threads that share its work, with the same arguments: each takes pieces of the result
from the `queue` until none is left.
"""

from __future__ import annotations

import numpy as np

from minicvae.kernels.compiled import add_rows_activate, slope_times
from minicvae.kernels.compiler import kernel
from minicvae.kernels.spread import take
from minicvae.kernels.tiles import ROWS, VECTOR_BYTES, VECTORS, tile, transpose

TERMS = 160  # of the sum at a time: as many rows of a strip stay in the first cache while all tiles of rows pass by
CACHE = 2**18  # bytes of the left factor at a time
PIECES = 8  # into which a result is cut at least, where it is large enough
FEWEST = 4 * ROWS  # rows of a piece, so that a strip is read often enough


@kernel
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


@kernel
def part(number, parts, length, unit):
    """Where a part of `range(length)` begins and ends, in whole units."""
    units = (length + unit - 1) // unit
    return min(units * number // parts * unit, length), min(units * (number + 1) // parts * unit, length)


@kernel
def multiply(a, a_row, a_step, b, turned, b_row, terms, c, c_row, bounds, accumulate):
    """c = a b, or c += a b, within `bounds`: where the rows begin and end, and the columns of one strip. All flat.

    a_ik = a[i a_row + k a_step], k < terms; b_kj = b[k b_row + j], or b[j b_row + k] where it is turned;
    c_ij = c[i c_row + j].
    """
    i0, i1, j0, j1 = bounds
    lanes = VECTOR_BYTES // c.itemsize
    vectors = (j1 - j0) // lanes
    whole = vectors * lanes
    piece = np.empty(TERMS * VECTORS * lanes if turned else 0, c.dtype)
    blocks = (terms + TERMS - 1) // TERMS
    if blocks == 0 and not accumulate:
        for i in range(i0, i1):
            c[i * c_row + j0 : i * c_row + j1] = 0
    for block in range(blocks):
        k, end = part(block, blocks, terms, 1)
        more = accumulate or block > 0
        if turned:
            transpose_piece(b, j0 * b_row + k, b_row, j1 - j0, end - k, piece, VECTORS * lanes)
            strip, at, row = piece, 0, VECTORS * lanes
        else:
            strip, at, row = b, k * b_row + j0, b_row
        i = i0
        while i < i1:
            rows = ROWS if i + ROWS <= i1 else 1
            left, right = i * a_row + k * a_step, i * c_row + j0
            if vectors:
                tile(rows, vectors, a, left, a_row, a_step, strip, at, row, end - k, c, right, c_row, whole, more)
            if whole < j1 - j0:  # what is left of a vector
                rest = j1 - j0 - whole
                at_rest = at + whole
                right += whole
                tile(rows, 1, a, left, a_row, a_step, strip, at_rest, row, end - k, c, right, c_row, rest, more)
            i += rows


@kernel
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


@kernel
def piece_of(number, strips, groups, m, n, lanes):
    """Where the rows of a piece of an (m, n) result begin and end, and where its columns do."""
    i0, i1 = part(number // strips, groups, m, ROWS)
    j0, j1 = part(number % strips, strips, n, lanes)
    return i0, i1, j0, j1


@kernel
def dense(queue, x, W, h, accumulate, last, gathered, rows, b, activation):
    """h = x W, or h += x W; after the `last` product of a joined input h = f(h + Σ_p gathered[rows[:, p]] + b).

    x (n, d_in), W (d_in, d_out), h (n, d_out); gathered (·, d_out), rows (n, parts), b (d_out,).
    """
    (n, d_in), d_out, lanes = x.shape, W.shape[1], VECTOR_BYTES // h.itemsize
    flat_x, flat_W, flat_h = x.reshape(x.size), W.reshape(W.size), h.reshape(h.size)
    strips, groups = cut(n, d_out, d_in, h.itemsize)
    number = take(queue)
    while number < strips * groups:
        bounds = piece_of(number, strips, groups, n, d_out, lanes)
        multiply(flat_x, d_in, 1, flat_W, False, d_out, d_in, flat_h, d_out, bounds, accumulate)
        if last:
            add_rows_activate(h, gathered, rows, b, activation, *bounds)
        number = take(queue)


@kernel
def slopes(queue, dy, y, g, sums, activation):
    """g = dy ⊙ f'(h) and sums_p = Σ_n g_n over a part of the examples; dy, y, g (n, d), sums (parts, d).

    Where f is linear g is dy itself, and is not written.
    """
    piece = take(queue)
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
        piece = take(queue)


@kernel
def dense_backward(queue, x, g, W, dW, accumulate, dx, need_dx):
    """dW = xᵀ g, or dW += xᵀ g, and dx = g Wᵀ where it is needed.

    x, dx (n, d_in), g (n, d_out), W, dW (d_in, d_out).
    """
    (n, d_in), d_out, lanes = x.shape, g.shape[1], VECTOR_BYTES // g.itemsize
    flat_x, flat_g, flat_W, flat_dW = x.reshape(x.size), g.reshape(g.size), W.reshape(W.size), dW.reshape(dW.size)
    flat_dx = dx.reshape(dx.size)
    strips, groups = cut(d_in, d_out, n, g.itemsize)
    dx_strips, dx_groups = cut(n, d_in, d_out, g.itemsize)
    first = dx_strips * dx_groups if need_dx else 0
    number = take(queue)
    while number < first + strips * groups:
        if number < first:
            bounds = piece_of(number, dx_strips, dx_groups, n, d_in, lanes)
            multiply(flat_g, d_out, 1, flat_W, True, d_out, d_out, flat_dx, d_in, bounds, False)
        else:
            bounds = piece_of(number - first, strips, groups, d_in, d_out, lanes)
            multiply(flat_x, 1, d_in, flat_g, False, d_out, n, flat_dW, d_out, bounds, accumulate)
        number = take(queue)
