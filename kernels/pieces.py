"""Kernels of `compiled.py` in pieces of some rows, which each of the threads that share the work takes from a queue."""

from __future__ import annotations

from minicvae.kernels import compiled
from minicvae.kernels.compiler import kernel
from minicvae.kernels.spread import take

ROWS, NUMBERS = 8, 2**14  # of a piece: rows of pixels, numbers of a flat array


@kernel
def gather_pixels(queue, index, x, images):
    """As `compiled.gather_pixels`."""
    i = ROWS * take(queue)
    while i < len(x):
        j = i + ROWS
        compiled.gather_pixels(index[i:j], x[i:j], images)
        i = ROWS * take(queue)


@kernel
def bernoulli(queue, logits, x, nll, derivative):
    """As `compiled.bernoulli`."""
    i = ROWS * take(queue)
    while i < len(x):
        j = i + ROWS
        compiled.bernoulli(logits[i:j], x[i:j], nll[i:j], derivative[i:j])
        i = ROWS * take(queue)


@kernel
def gaussian(queue, logits, x, nll, derivative, precision, constant):
    """As `compiled.gaussian`."""
    i = ROWS * take(queue)
    while i < len(x):
        j = i + ROWS
        compiled.gaussian(logits[i:j], x[i:j], nll[i:j], derivative[i:j], precision, constant)
        i = ROWS * take(queue)


@kernel
def sigmoid(queue, h, y):
    """As `compiled.sigmoid`."""
    i = NUMBERS * take(queue)
    while i < len(h):
        j = i + NUMBERS
        compiled.sigmoid(h[i:j], y[i:j])
        i = NUMBERS * take(queue)


@kernel
def scale_rows(queue, rows, scale, y):
    """As `compiled.scale_rows`."""
    i = ROWS * take(queue)
    while i < len(y):
        j = i + ROWS
        compiled.scale_rows(rows[i:j], scale[i:j], y[i:j])
        i = ROWS * take(queue)


@kernel
def sgd(queue, value, grad, velocity, rate, momentum, nesterov, decay, tiny):
    """As `compiled.sgd`."""
    i = NUMBERS * take(queue)
    while i < len(value):
        j = i + NUMBERS
        compiled.sgd(value[i:j], grad[i:j], velocity[i:j], rate, momentum, nesterov, decay, tiny)
        i = NUMBERS * take(queue)


@kernel
def adam(queue, value, grad, m, v, rate, beta1, rest1, beta2, rest2, epsilon, m_scale, v_scale, decay, tiny):
    """As `compiled.adam`."""
    i = NUMBERS * take(queue)
    while i < len(value):
        j = i + NUMBERS
        compiled.adam(
            value[i:j],
            grad[i:j],
            m[i:j],
            v[i:j],
            rate,
            beta1,
            rest1,
            beta2,
            rest2,
            epsilon,
            m_scale,
            v_scale,
            decay,
            tiny,
        )
        i = NUMBERS * take(queue)
