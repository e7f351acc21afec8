"""The kernels of a step that are shared out: each in pieces, and on all threads that are free (`spread.py`)."""

from __future__ import annotations

from minicvae.kernels import compiled_products, pieces
from minicvae.kernels.compiler import kernel
from minicvae.kernels.spread import spread


@kernel
def dense(state, x, W, h, accumulate, last, gathered, rows, b, activation):
    """As `compiled_products.dense`."""
    spread(state, compiled_products.dense, (x, W, h, accumulate, last, gathered, rows, b, activation))


@kernel
def slopes(state, dy, y, g, sums, activation):
    """As `compiled_products.slopes`."""
    spread(state, compiled_products.slopes, (dy, y, g, sums, activation))


@kernel
def dense_backward(state, x, g, W, dW, accumulate, dx, need_dx):
    """As `compiled_products.dense_backward`."""
    spread(state, compiled_products.dense_backward, (x, g, W, dW, accumulate, dx, need_dx))


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
