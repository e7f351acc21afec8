"""Kernels that go example by example: pixels in, likelihoods and their derivatives out. A share is some examples.

Each walks its arrays once and does everything there is to do at an element while it is in a register: the likelihood
and its derivative share their exponential.
"""

from __future__ import annotations

import numpy as np

from minicvae.kernels.compiled import kernel
from minicvae.kernels.team import bounds, shared
from minicvae.kernels.vector_math import exp

CHUNK = 56  # factors of at most 2 in one product: 2^56 is far from overflow, and 14 chunks make 784


@kernel
def scatter_add(g, labels, dW):
    """dW[labels_n] += g_n for every n; repeated labels add up."""
    for i in range(len(labels)):
        row = dW[labels[i]]
        for j in range(g.shape[1]):
            row[j] += g[i, j]


@kernel
def _gather_share(images, index, x, share, shares):
    """`gather_pixels` for a share of the examples."""
    scale = x.dtype.type(255)
    start, stop = bounds(len(index), 1, share, shares)
    for i in range(start, stop):
        row, x_i = images[index[i]], x[i]
        for j in range(len(x_i)):
            x_i[j] = row[j] / scale


@kernel
def _bernoulli_share(logits, x, nll, derivative, share, shares):
    """`bernoulli` for a share of the examples.

    Σ log(1 + t_d) = log Π (1 + t_d): one logarithm for every `CHUNK` factors, each of which lies in (1, 2].
    """
    n, d = logits.shape
    one = logits.dtype.type(1)
    zero = logits.dtype.type(0)
    whole = d // CHUNK
    first, last = bounds(n, 1, share, shares)
    for i in range(first, last):
        total = zero
        for chunk in range(whole + 1):
            start = chunk * CHUNK
            product = one
            linear = zero
            # A constant trip count is what lets LLVM vectorise the loop over a whole chunk.
            if chunk < whole:
                for j in range(CHUNK):
                    v = logits[i, start + j]
                    target = x[i, start + j]
                    t = exp(-abs(v))
                    product *= one + t
                    linear += (v if v > zero else zero) - target * v
                    derivative[i, start + j] = (one if v >= zero else t) / (one + t) - target
            else:
                for j in range(start, d):
                    v = logits[i, j]
                    target = x[i, j]
                    t = exp(-abs(v))
                    product *= one + t
                    linear += (v if v > zero else zero) - target * v
                    derivative[i, j] = (one if v >= zero else t) / (one + t) - target
            total += np.log(product) + linear
        nll[i] = total


@kernel
def _gaussian_share(logits, x, nll, derivative, precision, constant, share, shares):
    """`gaussian` for a share of the examples."""
    n, d = logits.shape
    one = logits.dtype.type(1)
    zero = logits.dtype.type(0)
    half = logits.dtype.type(0.5)
    start, stop = bounds(n, 1, share, shares)
    for i in range(start, stop):
        total = zero
        for j in range(d):
            v = logits[i, j]
            t = exp(-abs(v))
            mu = (one if v >= zero else t) / (one + t)
            r = mu - x[i, j]
            total += r * r
            derivative[i, j] = r * precision * mu * (one - mu)
        nll[i] = half * precision * total + constant


@kernel
def _scale_share(rows, scale, y, share, shares):
    """`scale_rows` for a share of the examples."""
    start, stop = bounds(len(rows), 1, share, shares)
    for i in range(start, stop):
        row, s, y_i = rows[i], scale[i], y[i]
        for j in range(len(y_i)):
            y_i[j] = row[j] * s


_share_gather, _share_bernoulli, _share_gaussian, _share_scale = map(
    shared, (_gather_share, _bernoulli_share, _gaussian_share, _scale_share)
)


@kernel
def gather_pixels(board, shares, images, index, x):
    """x = images[index] / 255."""
    _share_gather(board, shares, (images, index, x))


@kernel
def bernoulli(board, shares, logits, x, nll, derivative):
    """nll_n = Σ_d softplus(l) - x l and derivative = sigmoid(l) - x, with one exponential for both."""
    _share_bernoulli(board, shares, (logits, x, nll, derivative))


@kernel
def gaussian(board, shares, logits, x, nll, derivative, precision, constant):
    """nll_n = Σ_d ½ (mu - x)² precision + constant, mu = sigmoid(l), and its derivative by l."""
    _share_gaussian(board, shares, (logits, x, nll, derivative, precision, constant))


@kernel
def scale_rows(board, shares, rows, scale, y):
    """y_nd = scale_n rows_nd."""
    _share_scale(board, shares, (rows, scale, y))
