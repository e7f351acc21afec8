"""The kernels of a step that are shared out: each in pieces, and on all threads that are free (`spread.py`)."""

from __future__ import annotations

import numpy as np

from minicvae.kernels import compiled_products, pieces, zeros
from minicvae.kernels.compiler import kernel
from minicvae.kernels.spread import spread
from minicvae.kernels.tiles import ROWS


@kernel
def terms_of(state, x, columns):
    """The terms of x W, or of xᵀ g by x's columns, that are not left out (`zeros.py`)."""
    if not zeros.mostly(x):
        return compiled_products.all_kept()
    rows, terms = (x.shape[1], x.shape[0]) if columns else x.shape
    tiles = (rows + ROWS - 1) // ROWS
    kept = np.empty((tiles, terms), np.int32), np.empty((tiles, compiled_products.blocks_of(terms)), np.int64)
    if columns:
        spread(state, zeros.list_columns, (x, *kept))
    else:
        spread(state, zeros.list_rows, (x, *kept))
    return kept


@kernel
def dense(state, x, W, h, accumulate, last, gathered, rows, b, activation):
    """As `compiled_products.dense`."""
    kept = terms_of(state, x, False)
    spread(state, compiled_products.dense, (x, kept, W, h, accumulate, last, gathered, rows, b, activation))


@kernel
def slopes(state, dy, y, g, sums, activation):
    """As `compiled_products.slopes`."""
    spread(state, compiled_products.slopes, (dy, y, g, sums, activation))


@kernel
def dense_backward(state, x, g, W, dW, accumulate, dx, need_dx):
    """As `compiled_products.dense_backward`."""
    kept = terms_of(state, x, True)
    spread(state, compiled_products.dense_backward, (x, kept, g, W, dW, accumulate, dx, need_dx))


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
    spread(state, pieces.gaussian, (logits, x, nll, derivative, precision, constant))


@kernel
def scale_rows(state, rows, scale, y):
    """As `compiled.scale_rows`."""
    spread(state, pieces.scale_rows, (rows, scale, y))


@kernel
def sgd(state, value, grad, velocity, rate, momentum, nesterov, decay, tiny):
    """As `compiled.sgd`."""
    spread(state, pieces.sgd, (value, grad, velocity, rate, momentum, nesterov, decay, tiny))


@kernel
def adam(state, value, grad, m, v, rate, beta1, rest1, beta2, rest2, epsilon, m_scale, v_scale, decay, tiny):
    """As `compiled.adam`."""
    spread(
        state,
        pieces.adam,
        (value, grad, m, v, rate, beta1, rest1, beta2, rest2, epsilon, m_scale, v_scale, decay, tiny),
    )
