"""The compiled convolutions: images block by block, each block from its pixels to its activations.

All threads that share the work call a kernel with the same arguments, and take images from the `queue` (`spread.py`):
forward block by block, backward in parts with gradients of their own, which are added up afterwards. Everything that
there is to do to a block is done while it is in the cache, products included.

The arguments that all share, in their order, are those of `Forward` and `Backward` in `image_maps.py`, where the
formulas stand too. Then come those of the map, and room to lay a block out in, for each thread its own, as h and g.
"""

from __future__ import annotations

import numpy as np

from minicvae.kernels.compiled import add_rows_activate, slope_times
from minicvae.kernels.compiled_images import max_pool_2x2, max_pool_2x2_backward, overlap_add, windows
from minicvae.kernels.compiled_products import part, product, product_of_columns
from minicvae.kernels.compiled_tiles import (
    PLACES,
    WINDOW,
    phases,
    planes,
    spread,
    spread_back,
    spread_planes,
    spread_planes_back,
    tiles,
    untile,
)
from minicvae.kernels.compiler import inlined, kernel
from minicvae.kernels.pieces import next_start
from minicvae.kernels.spread import take


@inlined
def pooled(first):
    """Whether the places of the maxima are asked for: what is not pooled has none, in no channel."""
    return first.shape[3] > 0


@kernel
def finish(h, y, first, b, activation):
    """y = f(h + b) of y = h, or y = f(max h + b) where the places of the maxima are asked for."""
    if pooled(first):
        max_pool_2x2(h, y, first)
    rows = y.reshape(len(y) * y.shape[1], len(b))
    add_rows_activate(rows, rows, np.empty((len(rows), 0), np.int64), b, activation, 0, len(rows), 0, len(b))


@kernel
def slope(dy, y, first, g, of_maxima, db, activation):
    """g = dy ⊙ f', and db += Σ g; where y is of maxima g is as large as what they were taken from."""
    rows = (len(y) * y.shape[1], len(db))
    if pooled(first):
        slope_times(dy.reshape(rows), y.reshape(rows), of_maxima.reshape(rows), db, activation)
        max_pool_2x2_backward(of_maxima, first, g)
    else:
        slope_times(dy.reshape(rows), y.reshape(rows), g.reshape(rows), db, activation)


@inlined
def blocks(queue, x, y, first, h):
    """The blocks of images that this thread takes: where in x and y, how many, and where their sums go."""
    start = next_start(queue, len(x), len(h))
    while start < len(x):
        block = slice(start, min(start + len(h), len(x)))
        n = block.stop - start
        yield block, n, h[:n] if pooled(first) else y[block]
        start = next_start(queue, len(x), len(h))


@inlined
def parts(queue, x, total, db, g):
    """The parts of the images that this thread takes, block by block: the part's number, where in x, and how many.

    The sums of a part, total[number] and db[number], are zero at its beginning.
    """
    number = take(queue, len(total))
    while number < len(total):
        sums, row = total[number].reshape(-1), db[number]
        sums[:] = 0
        row[:] = 0
        begin, end = part(number, len(total), len(x), 1)
        for start in range(begin, end, len(g)):
            block = slice(start, min(start + len(g), end))
            yield number, block, block.stop - start
        number = take(queue, len(total))


@kernel
def tile_products(V, U, M, n):
    """M_p = V_p U_p for the n images' tiles and each p; V (16, n or more, ..., c_in), M (16, n or more, ..., c_out)."""
    _, _, rows, columns, c_in = V.shape
    pixels, results = V.reshape(16, -1, c_in), M.reshape(16, -1, M.shape[4])
    count = n * rows * columns
    for p in range(16):
        product(pixels[p, :count], U[p], False, results[p, :count], False)


@kernel
def winograd(queue, x, y, first, b, activation, h, U, P, V, M):
    """y of `Winograd`."""
    own = queue[1]
    h, P, V, M = h[own], P[own], V[own], M[own]
    for block, n, to in blocks(queue, x, y, first, h):
        phases(x[block], P[:n])
        tiles(P[:n], V, WINDOW)
        tile_products(V, U, M, n)
        untile(M, to)
        finish(to, y[block], first[block], b, activation)


@kernel
def winograd_backward(queue, x, dy, y, first, activation, total, db, dx, need_dx, g, of_maxima, U_back, P, Q, V, M):
    """total += Vᵀ M, V the tiles of x and M those of g; dx is the convolution of g by the kernel U_back."""
    own = queue[1]
    g, of_maxima, P, Q, V, M = g[own], of_maxima[own], P[own], Q[own], V[own], M[own]
    pixels, gradients = V.reshape(16, -1, x.shape[3]), M.reshape(16, -1, g.shape[3])
    for number, block, n in parts(queue, x, total, db, g):
        slope(dy[block], y[block], first[block], g[:n], of_maxima[:n], db[number], activation)
        phases(x[block], P[:n])
        phases(g[:n], Q[:n])
        tiles(P[:n], V, WINDOW)
        tiles(Q[:n], M, PLACES)
        count = n * V.shape[2] * V.shape[3]
        for p in range(16):
            product_of_columns(pixels[p, :count], gradients[p, :count], total[number, p], True)
        if need_dx:
            tiles(Q[:n], M, WINDOW)
            tile_products(M, U_back, V, n)
            untile(V, dx[block])


@kernel
def upsampled(queue, x, y, first, b, activation, h, W, factor, before, u, line):
    """y of `Upsampled`; W (c_in, kh kw c_out)."""
    own = queue[1]
    h, u, line = h[own], u[own], line[own]
    for block, n, to in blocks(queue, x, y, first, h):
        product(x[block].reshape(-1, len(W)), W, False, u[:n].reshape(-1, W.shape[1]), False)
        spread(u[:n], to, line, factor, before)
        finish(to, y[block], first[block], b, activation)


@kernel
def upsampled_backward(
    queue, x, dy, y, first, activation, total, db, dx, need_dx, g, of_maxima, W, factor, before, u, line
):
    """With du = spreadᵀ(g): total += xᵀ du, dx = du Wᵀ."""
    own = queue[1]
    g, of_maxima, u, line = g[own], of_maxima[own], u[own], line[own]
    c_in, cells = W.shape
    for number, block, n in parts(queue, x, total, db, g):
        slope(dy[block], y[block], first[block], g[:n], of_maxima[:n], db[number], activation)
        spread_back(g[:n], u[:n], line, factor, before)
        du = u[:n].reshape(-1, cells)
        product_of_columns(x[block].reshape(-1, c_in), du, total[number].reshape(c_in, cells), True)
        if need_dx:
            product(du, W, True, dx[block].reshape(-1, c_in), False)


@kernel
def upsampled_planes(queue, x, y, first, b, activation, h, W, factor, before, room, line):
    """y of `UpsampledPlanes`; W (c_out, kh, kw, c_in)."""
    own = queue[1]
    h, room, line = h[own], room[own], line[own]
    channels, kh, kw, c_in = W.shape
    _, i_size, j_size, _ = x.shape
    cells = channels * kh * kw
    for block, n, to in blocks(queue, x, y, first, h):
        pixels = n * i_size * j_size
        u = room[: cells * pixels]
        product(W.reshape(cells, c_in), x[block].reshape(pixels, c_in), True, u.reshape(cells, pixels), False)
        spread_planes(u.reshape(channels, kh, kw, n, i_size, j_size), to, line, factor, before)
        finish(to, y[block], first[block], b, activation)


@kernel
def upsampled_planes_backward(
    queue, x, dy, y, first, activation, total, db, dx, need_dx, g, of_maxima, W, factor, before, room, line
):
    """With du = spreadᵀ(g): total += du x, dx = duᵀ W."""
    own = queue[1]
    g, of_maxima, room, line = g[own], of_maxima[own], room[own], line[own]
    channels, kh, kw, c_in = W.shape
    _, i_size, j_size, _ = x.shape
    cells = channels * kh * kw
    for number, block, n in parts(queue, x, total, db, g):
        slope(dy[block], y[block], first[block], g[:n], of_maxima[:n], db[number], activation)
        pixels = n * i_size * j_size
        u = room[: cells * pixels]
        spread_planes_back(g[:n], u.reshape(channels, kh, kw, n, i_size, j_size), line, factor, before)
        du = u.reshape(cells, pixels)
        product(du, x[block].reshape(pixels, c_in), False, total[number].reshape(cells, c_in), True)
        if need_dx:
            product_of_columns(du, W.reshape(cells, c_in), dx[block].reshape(pixels, c_in), False)


@kernel
def shifted(queue, x, y, first, b, activation, h, W, before, room):
    """y of `Planes`; W (kh, kw, 1, c_out)."""
    own = queue[1]
    h, room = h[own], room[own]
    cells, n_rows = W.shape[0] * W.shape[1], x.shape[1] * x.shape[2]
    pixels = x.reshape(x.shape[:3])
    for block, n, to in blocks(queue, x, y, first, h):
        P = room[: cells * n * n_rows].reshape(cells, n * n_rows)
        planes(pixels[block], P, W.shape[:2], before)
        product_of_columns(P, W.reshape(cells, -1), to.reshape(n * n_rows, -1), False)
        finish(to, y[block], first[block], b, activation)


@kernel
def shifted_backward(queue, x, dy, y, first, activation, total, db, dx, need_dx, g, of_maxima, before, room):
    """total += Pᵀ g, P the windows of x."""
    own = queue[1]
    g, of_maxima, room = g[own], of_maxima[own], room[own]
    cells, n_rows = total.shape[1] * total.shape[2], x.shape[1] * x.shape[2]
    pixels = x.reshape(x.shape[:3])
    for number, block, n in parts(queue, x, total, db, g):
        slope(dy[block], y[block], first[block], g[:n], of_maxima[:n], db[number], activation)
        P = room[: cells * n * n_rows].reshape(cells, n * n_rows)
        planes(pixels[block], P, total.shape[1:3], before)
        product(P, g[:n].reshape(n * n_rows, -1), False, total[number].reshape(cells, -1), True)


@kernel
def windowed(queue, x, y, first, b, activation, h, W, form, room):
    """y of `Windows`; W (kh kw c_in, c_out), P a row for each window."""
    own = queue[1]
    h, room = h[own], room[own]
    rows = form[0][0] * form[0][1]
    for block, n, to in blocks(queue, x, y, first, h):
        P = room[: n * rows]
        windows(x[block], P, *form)
        product(P, W, False, to.reshape(n * rows, -1), False)
        finish(to, y[block], first[block], b, activation)


@kernel
def windowed_backward(queue, x, dy, y, first, activation, total, db, dx, need_dx, g, of_maxima, W, form, room):
    """total += Pᵀ g, dx = Pᵀ(g Wᵀ); the windows anew, for to keep them would take nine times the memory of x."""
    own = queue[1]
    g, of_maxima, room = g[own], of_maxima[own], room[own]
    rows = form[0][0] * form[0][1]
    for number, block, n in parts(queue, x, total, db, g):
        slope(dy[block], y[block], first[block], g[:n], of_maxima[:n], db[number], activation)
        P, of_places = room[: n * rows], g[:n].reshape(n * rows, -1)
        windows(x[block], P, *form)
        product_of_columns(P, of_places, total[number], True)
        if need_dx:
            product(of_places, W, True, P, False)
            overlap_add(P, dx[block], *form)


@kernel
def stamped(queue, x, y, first, b, activation, h, W, form, room):
    """y of `Stamps`; W (kh kw c_out, c_in), P a row for each pixel of x."""
    own = queue[1]
    h, room = h[own], room[own]
    pixels = x.shape[1] * x.shape[2]
    for block, n, to in blocks(queue, x, y, first, h):
        P = room[: n * pixels]
        product(x[block].reshape(n * pixels, -1), W, True, P, False)
        overlap_add(P, to, *form)
        finish(to, y[block], first[block], b, activation)


@kernel
def stamped_backward(queue, x, dy, y, first, activation, total, db, dx, need_dx, g, of_maxima, W, form, room):
    """With P = P(g): total += Pᵀ x, dx = P W."""
    own = queue[1]
    g, of_maxima, room = g[own], of_maxima[own], room[own]
    pixels = x.shape[1] * x.shape[2]
    for number, block, n in parts(queue, x, total, db, g):
        slope(dy[block], y[block], first[block], g[:n], of_maxima[:n], db[number], activation)
        P = room[: n * pixels]
        windows(g[:n], P, *form)
        product_of_columns(P, x[block].reshape(n * pixels, -1), total[number], True)
        if need_dx:
            product(P, W, False, dx[block].reshape(n * pixels, -1), False)
