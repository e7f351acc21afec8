"""The kernels of a step that are shared out: each in pieces, and on all threads that are free (`spread.py`).

What belongs to one layer is one call, for a call from Python takes ten microseconds.

Numbers come as Python's and are rounded here: it takes Numba microseconds to look at one of NumPy's.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from minicvae.kernels import compiled_products, pieces, zeros
from minicvae.kernels.compiler import FLAGS, kernel
from minicvae.kernels.spread import spread

PARTS = 4  # of the examples, whose gradients of a bias are added up apart


@njit(**FLAGS)
def kept(state, listed, x, rows, terms, width):
    """The terms that are not left out of a product of x, in so many rows and terms, where the other factor has `width`.

    listed: `zeros.of_rows` or `zeros.of_columns`; for a function is among the arguments it is kept on disk within its
    callers only.
    """
    if not zeros.worth_listing(x, width):
        return compiled_products.all_terms()
    lists = zeros.room(rows, terms)
    spread(state, listed, (x, *lists))
    return lists


@kernel
def dense(state, x, W, h, accumulate, last, gathered, rows, b, activation):
    """As `compiled_products.dense`, without the terms that are zero."""
    listed = kept(state, zeros.of_rows, x, x.shape[0], x.shape[1], W.shape[1])
    spread(state, compiled_products.dense, (x, listed, W, h, accumulate, last, gathered, rows, b, activation))


@kernel
def slopes(state, dy, y, g, db, accumulate, activation):
    """As `compiled_products.slopes`, with db = Σ_n g_n, or db += Σ_n g_n."""
    sums = np.empty((PARTS, len(db)), db.dtype)
    spread(state, compiled_products.slopes, (dy, y, g, sums, activation))
    for k in range(len(db)):
        total = sums[0, k]
        for i in range(1, PARTS):
            total += sums[i, k]
        db[k] = db[k] + total if accumulate else total


@kernel
def dense_backward(state, first, dy, y, g, db, accumulate, activation, x, W, dW, dx, need_dx):
    """The `slopes`, with the `first` part of a joined input; then as `compiled_products.dense_backward`."""
    if first:
        slopes(state, dy, y, g, db, accumulate, activation)
    listed = kept(state, zeros.of_columns, x, x.shape[1], x.shape[0], W.shape[1])
    spread(state, compiled_products.dense_backward, (x, listed, g, W, dW, accumulate, dx, need_dx))


@kernel
def gather_pixels(state, index, x, images):
    """As `compiled.gather_pixels`."""
    spread(state, pieces.gather_pixels, (index, x, images))


@kernel
def bernoulli(state, logits, x, nll, derivative):
    """As `compiled.bernoulli`."""
    spread(state, pieces.bernoulli, (logits, x, nll, derivative))


@kernel
def gaussian(state, logits, x, nll, derivative, precision, constant):
    """As `compiled.gaussian`."""
    real = x.dtype.type
    spread(state, pieces.gaussian, (logits, x, nll, derivative, real(precision), real(constant)))


@kernel
def sigmoid(state, h, y):
    """As `compiled.sigmoid`."""
    spread(state, pieces.sigmoid, (h, y))


@kernel
def scale_rows(state, rows, scale, y):
    """As `compiled.scale_rows`."""
    spread(state, pieces.scale_rows, (rows, scale, y))


@kernel
def sgd(state, value, grad, velocity, rate, momentum, nesterov, decay):
    """As `compiled.sgd`."""
    real = value.dtype.type
    scalars = real(rate), real(momentum), nesterov, real(decay), np.finfo(value.dtype).tiny
    spread(state, pieces.sgd, (value, grad, velocity, *scalars))


@kernel
def adam(state, value, grad, m, v, rate, beta1, rest1, beta2, rest2, epsilon, m_scale, v_scale, decay):
    """As `compiled.adam`."""
    real = value.dtype.type
    rates = real(rate), real(beta1), real(rest1), real(beta2), real(rest2), real(epsilon), real(m_scale), real(v_scale)
    spread(state, pieces.adam, (value, grad, m, v, *rates, real(decay), np.finfo(value.dtype).tiny))
