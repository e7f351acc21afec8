"""The compiled convolutions: a thread's images, block by block, each block from its pixels to its activations.

Everything that there is to do to a block is done in one call, products included. Threads that came back to Python
between the steps of a block would wait for each other at its lock.

The arguments that all share, in their order, are those of `Forward` and `Backward` in `image_maps.py`, where the
formulas stand too. h and g are as long as a block of images; the last arguments are room to lay things out in.
"""

from __future__ import annotations

import numpy as np

from minicvae.kernels.compiled import add_rows_activate, slope_times
from minicvae.kernels.compiled_images import max_pool_2x2, max_pool_2x2_backward
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
from minicvae.kernels.compiler import kernel


@kernel
def finish(h, y, first, b, activation):
    """y = f(h + b) of y = h, or y = f(max h + b) where the places of the maxima are asked for."""
    if first.size:
        max_pool_2x2(h, y, first)
    rows = y.reshape(-1, len(b))
    add_rows_activate(rows, rows, np.empty((len(rows), 0), np.int64), b, activation, 0, len(rows), 0, len(b))


@kernel
def slope(dy, y, first, g, of_maxima, db, activation):
    """g = dy ⊙ f', and db += Σ g; where y is of maxima g is as large as what they were taken from."""
    rows = (-1, len(db))
    if first.size:
        slope_times(dy.reshape(rows), y.reshape(rows), of_maxima.reshape(rows), db, activation)
        max_pool_2x2_backward(of_maxima, first, g)
    else:
        slope_times(dy.reshape(rows), y.reshape(rows), g.reshape(rows), db, activation)


@kernel
def increase(total, part):
    """total += part, number by number: Numba takes seconds to compile what could broadcast."""
    sums, numbers = total.reshape(-1), part.reshape(-1)
    for i in range(len(sums)):
        sums[i] += numbers[i]


@kernel
def tile_products(V, U, M, n):
    """M_p = V_p U_p for the n images' tiles and each p; V (16, n or more, ..., c_in), M (16, n or more, ..., c_out)."""
    _, _, rows, columns, c_in = V.shape
    pixels, results = V.reshape(16, -1, c_in), M.reshape(16, -1, M.shape[4])
    count = n * rows * columns
    for p in range(16):
        np.dot(pixels[p, :count], U[p], results[p, :count])


@kernel
def winograd(x, y, first, b, activation, h, U, P, V, M):
    """y of `Winograd`."""
    for start in range(0, len(x), len(h)):
        block = slice(start, min(start + len(h), len(x)))
        n = block.stop - start
        to = h[:n] if first.size else y[block]
        phases(x[block], P[:n])
        tiles(P[:n], V, WINDOW)
        tile_products(V, U, M, n)
        untile(M, to)
        finish(to, y[block], first[block], b, activation)


@kernel
def winograd_backward(x, dy, y, first, activation, total, db, dx, need_dx, g, of_maxima, U_back, P, Q, V, M, dU):
    """total += Vᵀ M, V the tiles of x and M those of g; dx is the convolution of g by the kernel U_back."""
    pixels, gradients = V.reshape(16, -1, x.shape[3]), M.reshape(16, -1, g.shape[3])
    for start in range(0, len(x), len(g)):
        block = slice(start, min(start + len(g), len(x)))
        n = block.stop - start
        slope(dy[block], y[block], first[block], g[:n], of_maxima[:n], db, activation)
        phases(x[block], P[:n])
        phases(g[:n], Q[:n])
        tiles(P[:n], V, WINDOW)
        tiles(Q[:n], M, PLACES)
        count = n * V.shape[2] * V.shape[3]
        for p in range(16):
            np.dot(pixels[p, :count].T, gradients[p, :count], dU)
            increase(total[p], dU)
        if need_dx:
            tiles(Q[:n], M, WINDOW)
            tile_products(M, U_back, V, n)
            untile(V, dx[block])


@kernel
def upsampled(x, y, first, b, activation, h, W, factor, before, u, line):
    """y of `Upsampled`; W (c_in, kh kw c_out)."""
    for start in range(0, len(x), len(h)):
        block = slice(start, min(start + len(h), len(x)))
        n = block.stop - start
        to = h[:n] if first.size else y[block]
        np.dot(x[block].reshape(-1, len(W)), W, u[:n].reshape(-1, W.shape[1]))
        spread(u[:n], to, line, factor, before)
        finish(to, y[block], first[block], b, activation)


@kernel
def upsampled_backward(
    x, dy, y, first, activation, total, db, dx, need_dx, g, of_maxima, W_T, factor, before, u, line, dW
):
    """With du = spreadᵀ(g): total += xᵀ du, dx = du Wᵀ."""
    cells, c_in = W_T.shape
    for start in range(0, len(x), len(g)):
        block = slice(start, min(start + len(g), len(x)))
        n = block.stop - start
        slope(dy[block], y[block], first[block], g[:n], of_maxima[:n], db, activation)
        spread_back(g[:n], u[:n], line, factor, before)
        du = u[:n].reshape(-1, cells)
        np.dot(x[block].reshape(-1, c_in).T, du, dW)
        increase(total, dW)
        if need_dx:
            np.dot(du, W_T, dx[block].reshape(-1, c_in))


@kernel
def upsampled_planes(x, y, first, b, activation, h, W, factor, before, room, line):
    """y of `UpsampledPlanes`; W (c_out, kh, kw, c_in)."""
    channels, kh, kw, c_in = W.shape
    _, i_size, j_size, _ = x.shape
    cells = channels * kh * kw
    for start in range(0, len(x), len(h)):
        block = slice(start, min(start + len(h), len(x)))
        n = block.stop - start
        to, pixels = h[:n] if first.size else y[block], n * i_size * j_size
        u = room[: cells * pixels]
        np.dot(W.reshape(cells, c_in), x[block].reshape(pixels, c_in).T, u.reshape(cells, pixels))
        spread_planes(u.reshape(channels, kh, kw, n, i_size, j_size), to, line, factor, before)
        finish(to, y[block], first[block], b, activation)


@kernel
def upsampled_planes_backward(
    x, dy, y, first, activation, total, db, dx, need_dx, g, of_maxima, W, factor, before, room, line, dW
):
    """With du = spreadᵀ(g): total += du x, dx = duᵀ W."""
    channels, kh, kw, c_in = W.shape
    _, i_size, j_size, _ = x.shape
    cells = channels * kh * kw
    for start in range(0, len(x), len(g)):
        block = slice(start, min(start + len(g), len(x)))
        n = block.stop - start
        slope(dy[block], y[block], first[block], g[:n], of_maxima[:n], db, activation)
        pixels = n * i_size * j_size
        u = room[: cells * pixels]
        spread_planes_back(g[:n], u.reshape(channels, kh, kw, n, i_size, j_size), line, factor, before)
        du = u.reshape(cells, pixels)
        np.dot(du, x[block].reshape(pixels, c_in), dW)
        increase(total, dW)
        if need_dx:
            np.dot(du.T, W.reshape(cells, c_in), dx[block].reshape(pixels, c_in))


@kernel
def shifted(x, y, first, b, activation, h, W, before, room):
    """y of `Planes`; W (kh, kw, 1, c_out)."""
    cells, n_rows = W.shape[0] * W.shape[1], x.shape[1] * x.shape[2]
    for start in range(0, len(x), len(h)):
        block = slice(start, min(start + len(h), len(x)))
        n = block.stop - start
        to = h[:n] if first.size else y[block]
        P = room[: cells * n * n_rows].reshape(cells, n * n_rows)
        planes(x[block], P, W.shape[:2], before)
        np.dot(P.T, W.reshape(cells, -1), to.reshape(n * n_rows, -1))
        finish(to, y[block], first[block], b, activation)


@kernel
def shifted_backward(x, dy, y, first, activation, total, db, dx, need_dx, g, of_maxima, before, room, dW):
    """total += Pᵀ g, P the windows of x."""
    cells, n_rows = total.shape[0] * total.shape[1], x.shape[1] * x.shape[2]
    for start in range(0, len(x), len(g)):
        block = slice(start, min(start + len(g), len(x)))
        n = block.stop - start
        slope(dy[block], y[block], first[block], g[:n], of_maxima[:n], db, activation)
        P = room[: cells * n * n_rows].reshape(cells, n * n_rows)
        planes(x[block], P, total.shape[:2], before)
        np.dot(P, g[:n].reshape(n * n_rows, -1), dW)
        increase(total, dW)
