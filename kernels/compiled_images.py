"""The compiled loops for images: windows gathered and added back, pooling and upsampling.

Images come as (n, h, w, c), windows as rows of (places, kh kw c). Where a whole row of a window lies in the image, its
kw c numbers are adjacent in both, and one loop copies or adds them all. The loops of the convolutions that need no
windows stand in `compiled_tiles.py`.
"""

from __future__ import annotations

import numpy as np

from minicvae.kernels.compiler import kernel


@kernel
def windows(x, P, places, kernel_size, stride, before):
    """P_(n i j),(a b c) = x_n,(i s - p + a),(j t - q + b),c, and 0 outside of the image; `before` = (p, q)."""
    n, h, w, c = x.shape
    (i_places, j_places), (kh, kw), (s, t), (top, left) = places, kernel_size, stride, before
    zero = x.dtype.type(0)
    run = kw * c
    lines = x.reshape(n, h, w * c)
    for image in range(n):
        for i in range(i_places):
            for j in range(j_places):
                window = P[(image * i_places + i) * j_places + j]
                first = (j * t - left) * c
                for a in range(kh):
                    row = i * s - top + a
                    cell = window[a * run : (a + 1) * run]
                    if row < 0 or row >= h:
                        for k in range(run):
                            cell[k] = zero
                    elif first >= 0 and first + run <= w * c:
                        line = lines[image, row][first : first + run]
                        for k in range(run):
                            cell[k] = line[k]
                    else:
                        line = lines[image, row]
                        for k in range(run):
                            inside = first + k >= 0 and first + k < w * c
                            cell[k] = line[first + k] if inside else zero


@kernel
def overlap_add(P, x, places, kernel_size, stride, before):
    """x = Pᵀ(u), the transpose of `windows`: every number of the windows P is added to the pixel that it came from."""
    n, h, w, c = x.shape
    (i_places, j_places), (kh, kw), (s, t), (top, left) = places, kernel_size, stride, before
    run = kw * c
    lines = x.reshape(n, h, w * c)
    for image in range(n):
        lines[image] = 0
        for i in range(i_places):
            for j in range(j_places):
                window = P[(image * i_places + i) * j_places + j]
                first = (j * t - left) * c
                for a in range(kh):
                    row = i * s - top + a
                    if row < 0 or row >= h:
                        continue
                    cell = window[a * run : (a + 1) * run]
                    if first >= 0 and first + run <= w * c:
                        line = lines[image, row][first : first + run]
                        for k in range(run):
                            line[k] += cell[k]
                    else:
                        line = lines[image, row]
                        for k in range(run):
                            if first + k >= 0 and first + k < w * c:
                                line[first + k] += cell[k]


@kernel
def max_pool(x, y, pool, stride):
    """y_nijc = max over a b of x_n,(i s + a),(j t + b),c; NaN is larger than all."""
    n, i_places, j_places, c = y.shape
    for image in range(n):
        for i in range(i_places):
            for j in range(j_places):
                largest = y[image, i, j]
                for a in range(pool[0]):
                    for b in range(pool[1]):
                        pixel = x[image, i * stride[0] + a, j * stride[1] + b]
                        if a == 0 and b == 0:
                            for k in range(c):
                                largest[k] = pixel[k]
                        else:
                            for k in range(c):
                                largest[k] = (
                                    largest[k] if largest[k] >= pixel[k] or largest[k] != largest[k] else pixel[k]
                                )


@kernel
def max_pool_backward(dy, x, y, dx, pool, stride):
    """dx = dy at the first maximum of each window, row by row; what is NaN counts as a maximum."""
    n, i_places, j_places, c = y.shape
    zero = dy.dtype.type(0)
    left = np.empty(c, dy.dtype)  # of dy, what no pixel of the window has taken yet
    for image in range(n):
        dx[image] = 0
        for i in range(i_places):
            for j in range(j_places):
                largest, gradient = y[image, i, j], dy[image, i, j]
                for k in range(c):
                    left[k] = gradient[k]
                for a in range(pool[0]):
                    for b in range(pool[1]):
                        row, column = i * stride[0] + a, j * stride[1] + b
                        pixel, slope = x[image, row, column], dx[image, row, column]
                        for k in range(c):
                            smaller = pixel[k] < largest[k]
                            slope[k] += zero if smaller else left[k]
                            left[k] = left[k] if smaller else zero


@kernel
def upsample(x, y, factor):
    """y_n,(i s + a),(j t + b),c = x_nijc."""
    n, h, w, c = x.shape
    for image in range(n):
        for i in range(h):
            for j in range(w):
                pixel = x[image, i, j]
                for a in range(factor[0]):
                    for b in range(factor[1]):
                        copy = y[image, i * factor[0] + a, j * factor[1] + b]
                        for k in range(c):
                            copy[k] = pixel[k]


@kernel
def upsample_backward(dy, dx, factor):
    """dx_nijc = Σ_ab dy_n,(i s + a),(j t + b),c."""
    n, h, w, c = dx.shape
    for image in range(n):
        for i in range(h):
            for j in range(w):
                total = dx[image, i, j]
                for k in range(c):
                    total[k] = 0
                for a in range(factor[0]):
                    for b in range(factor[1]):
                        copy = dy[image, i * factor[0] + a, j * factor[1] + b]
                        for k in range(c):
                            total[k] += copy[k]


@kernel
def max_pool_2x2(h, y, first):
    """y = the largest pixel of each 2x2 window, the windows side by side, and `first` where it lies: 0 1 over 2 3.

    Of equal ones the first; what is NaN counts as the largest.
    """
    n, i_places, j_places, c = y.shape
    for image in range(n):
        for i in range(i_places):
            for j in range(j_places):
                h0, h1 = h[image, 2 * i, 2 * j], h[image, 2 * i, 2 * j + 1]
                h2, h3 = h[image, 2 * i + 1, 2 * j], h[image, 2 * i + 1, 2 * j + 1]
                largest, place = y[image, i, j], first[image, i, j]
                for k in range(c):
                    v, p = h0[k], np.uint8(0)
                    stays = v >= h1[k] or v != v
                    v, p = (v if stays else h1[k]), (p if stays else np.uint8(1))
                    stays = v >= h2[k] or v != v
                    v, p = (v if stays else h2[k]), (p if stays else np.uint8(2))
                    stays = v >= h3[k] or v != v
                    largest[k], place[k] = (v if stays else h3[k]), (p if stays else np.uint8(3))


@kernel
def max_pool_2x2_backward(dy, first, dh):
    """dh = dy where the largest pixel of its window lies, and 0 elsewhere."""
    n, i_places, j_places, c = dy.shape
    zero = dy.dtype.type(0)
    dh[:, 2 * i_places :] = 0
    dh[:, :, 2 * j_places :] = 0
    for image in range(n):
        for i in range(i_places):
            for j in range(j_places):
                gradient, place = dy[image, i, j], first[image, i, j]
                for cell in range(4):
                    slope = dh[image, 2 * i + cell // 2, 2 * j + cell % 2]
                    for k in range(c):
                        slope[k] = gradient[k] if place[k] == cell else zero
