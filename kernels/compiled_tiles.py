"""The compiled loops of the convolutions that gather no windows: shifted planes, Winograd's tiles, upsampled sums.

`image_maps.py` says what they are for. All runs are over adjacent numbers, as long as can be had: a loop over the
channels of one pixel alone is half start and end.
"""

from __future__ import annotations

from minicvae.kernels.compiler import kernel

# Of Winograd's transforms along an axis, each of four results as two terms: (pixel, factor, pixel, factor). The pixels
# 0 1 2 3 are those under a tile of two places and its margins.
WINDOW = ((0, 1, 2, -1), (1, 1, 2, 1), (2, 1, 1, -1), (1, 1, 3, -1))  # Bᵀ
PLACES = ((1, 1, 2, 0), (1, 1, 2, 1), (1, 1, 2, -1), (2, -1, 1, 0))  # A, on the two places of the tile, 1 and 2


@kernel
def planes(x, P, kernel_size, before):
    """P_(a b),(n i j) = x_n,(i - p + a),(j - q + b), and 0 outside of the image; x (n, h, w), `before` = (p, q)."""
    n, h, w = x.shape
    (kh, kw), (top, left) = kernel_size, before
    shifted = P.reshape(kh, kw, n, h, w)
    for a in range(kh):
        for b in range(kw):
            start, stop = max(left - b, 0), max(w + left - b, 0)
            for image in range(n):
                for i in range(h):
                    row, line = i - top + a, shifted[a, b, image, i]
                    if row < 0 or row >= h:
                        line[:] = 0
                        continue
                    line[:start] = 0
                    line[stop:] = 0
                    source, inner = x[image, row][start - left + b :], line[start:stop]
                    for j in range(len(inner)):
                        inner[j] = source[j]


@kernel
def phases(x, P):
    """P = x with a margin of zeros, its even columns before its odd ones; x (n, h, w, c).

    P (n, 2 ⌈h/2⌉ + 2, 2, ⌈w/2⌉ + 1, c): P_n,r,s,j = x_n,(r - 1),(2 j + s - 1), so that what lies two columns apart in
    the image is adjacent.
    """
    n, h, w, c = x.shape
    rows = P.shape[1]
    for image in range(n):
        for r in range(rows):
            if r < 1 or r > h:
                P[image, r] = 0
                continue
            line, even, odd = x[image, r - 1].reshape(-1), P[image, r, 0].reshape(-1), P[image, r, 1].reshape(-1)
            even[:c] = 0
            for j in range(w // 2):
                for k in range(c):
                    even[(j + 1) * c + k] = line[(2 * j + 1) * c + k]
            even[(w // 2 + 1) * c :] = 0
            for j in range((w + 1) // 2):
                for k in range(c):
                    odd[j * c + k] = line[2 * j * c + k]
            odd[(w + 1) // 2 * c :] = 0


@kernel
def tiles(P, V, transform):
    """V_ab = (T d Tᵀ)_ab of every 4x4 tile d of the images in `phases`, 2 apart; T: the rows of `transform`.

    V (16, n or more, ⌈h/2⌉, ⌈w/2⌉, c), its first axis a and b.
    """
    n, padded, _, _, c = P.shape
    _, images, rows, columns, _ = V.shape
    lines, runs, run = P.reshape(n, padded, 2, -1), V.reshape(16, images, rows, columns * c), columns * c
    for image in range(n):
        for i in range(rows):
            for a in range(4):
                row0, factor0, row1, factor1 = transform[a]
                f0, f1 = V.dtype.type(factor0), V.dtype.type(factor1)
                upper, lower = lines[image, 2 * i + row0], lines[image, 2 * i + row1]
                for b in range(4):
                    column0, factor0, column1, factor1 = transform[b]
                    g0, g1 = V.dtype.type(factor0), V.dtype.type(factor1)
                    start0, start1 = column0 // 2 * c, column1 // 2 * c
                    d00 = upper[column0 % 2][start0 : start0 + run]
                    d01 = upper[column1 % 2][start1 : start1 + run]
                    d10 = lower[column0 % 2][start0 : start0 + run]
                    d11 = lower[column1 % 2][start1 : start1 + run]
                    v = runs[4 * a + b, image, i]
                    for k in range(run):
                        v[k] = f0 * (g0 * d00[k] + g1 * d01[k]) + f1 * (g0 * d10[k] + g1 * d11[k])


@kernel
def untile(M, y):
    """Each 2x2 tile of y = Aᵀ M A; M (16, n or more, ⌈h/2⌉, ⌈w/2⌉, c), y (n, h, w, c).

    Aᵀ takes m0 + m1 + m2 for the first place and m1 - m2 - m3 for the second.
    """
    n, h, w, c = y.shape
    one = y.dtype.type(1)
    for image in range(n):
        for row in range(h):
            for column in range(w):
                i, j, r, s = row // 2, column // 2, row % 2, column % 2
                fr, fs, p = (-one if r else one), (-one if s else one), 4 * r + s
                m00, m01, m02 = M[p, image, i, j], M[p + 1, image, i, j], M[p + 2, image, i, j]
                m10, m11, m12 = M[p + 4, image, i, j], M[p + 5, image, i, j], M[p + 6, image, i, j]
                m20, m21, m22 = M[p + 8, image, i, j], M[p + 9, image, i, j], M[p + 10, image, i, j]
                pixel = y[image, row, column]
                for k in range(c):
                    first = m00[k] + fs * (m01[k] + m02[k])
                    second = m10[k] + fs * (m11[k] + m12[k])
                    third = m20[k] + fs * (m21[k] + m22[k])
                    pixel[k] = first + fr * (second + third)


@kernel
def spread(u, h, line, factor, before):
    """h_n,r,s,k = Σ_ab u_n,(r - p + a) // f,(s - q + b) // g,a,b,k, as far as these lie in the small image.

    u (n, i, j, kh, kw, c): what each cell of the kernel makes of each pixel; h (n, f i, g j, c) or its inner part;
    line (j, kw c): room for a row of h before its columns are added up; `factor` = (f, g), `before` = (p, q).
    """
    n, i_size, j_size, kh, kw, c = u.shape
    _, rows, columns, _ = h.shape
    (f, g), (top, left) = factor, before
    pixels = u.reshape(n, i_size, j_size, kh, kw * c)
    for image in range(n):
        for r in range(rows):
            line[:] = 0
            for a in range(kh):
                row = r - top + a
                if row < 0 or row >= i_size * f:
                    continue
                for j in range(j_size):
                    source, to = pixels[image, row // f, j, a], line[j]
                    for k in range(kw * c):
                        to[k] += source[k]
            for s in range(columns):
                pixel = h[image, r, s]
                pixel[:] = 0
                for b in range(kw):
                    column = s - left + b
                    if column < 0 or column >= j_size * g:
                        continue
                    cell = line[column // g, b * c : (b + 1) * c]
                    for k in range(c):
                        pixel[k] += cell[k]


@kernel
def spread_back(dh, du, line, factor, before):
    """du = the transpose of `spread` on dh: each number of dh is added up wherever it was a term."""
    n, i_size, j_size, kh, kw, c = du.shape
    _, rows, columns, _ = dh.shape
    (f, g), (top, left) = factor, before
    pixels = du.reshape(n, i_size, j_size, kh, kw * c)
    for image in range(n):
        du[image] = 0
        for r in range(rows):
            line[:] = 0
            for s in range(columns):
                pixel = dh[image, r, s]
                for b in range(kw):
                    column = s - left + b
                    if column < 0 or column >= j_size * g:
                        continue
                    cell = line[column // g, b * c : (b + 1) * c]
                    for k in range(c):
                        cell[k] += pixel[k]
            for a in range(kh):
                row = r - top + a
                if row < 0 or row >= i_size * f:
                    continue
                for j in range(j_size):
                    source, to = line[j], pixels[image, row // f, j, a]
                    for k in range(kw * c):
                        to[k] += source[k]


@kernel
def spread_planes(u, h, line, factor, before):
    """As `spread`, for few channels: u (c, kh, kw, n, i, j), whose runs are rows of the small image; line (j,)."""
    channels, kh, kw, n, i_size, j_size = u.shape
    _, rows, columns, _ = h.shape
    (f, g), (top, left) = factor, before
    for image in range(n):
        for r in range(rows):
            pixels = h[image, r]
            pixels[:] = 0
            for c in range(channels):
                for b in range(kw):
                    line[:] = 0
                    for a in range(kh):
                        row = r - top + a
                        if 0 <= row < i_size * f:
                            source = u[c, a, b, image, row // f]
                            for j in range(j_size):
                                line[j] += source[j]
                    for t in range(g):
                        first = t + left - b
                        for j in range(j_size):
                            s = j * g + first
                            if 0 <= s < columns:
                                pixels[s, c] += line[j]


@kernel
def spread_planes_back(dh, du, line, factor, before):
    """du = the transpose of `spread_planes` on dh."""
    channels, kh, kw, n, i_size, j_size = du.shape
    _, rows, columns, _ = dh.shape
    (f, g), (top, left) = factor, before
    du[:] = 0
    for image in range(n):
        for r in range(rows):
            pixels = dh[image, r]
            for c in range(channels):
                for b in range(kw):
                    line[:] = 0
                    for t in range(g):
                        first = t + left - b
                        for j in range(j_size):
                            s = j * g + first
                            if 0 <= s < columns:
                                line[j] += pixels[s, c]
                    for a in range(kh):
                        row = r - top + a
                        if 0 <= row < i_size * f:
                            to = du[c, a, b, image, row // f]
                            for j in range(j_size):
                                to[j] += line[j]
