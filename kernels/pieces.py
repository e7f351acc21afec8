"""Kernels of `compiled.py` and `compiled_images.py` in pieces, which all threads that share the work take from a queue.

Numbers come as Python's, in double precision, and are rounded here.
"""

from __future__ import annotations

import numpy as np

from minicvae.kernels import compiled, compiled_images
from minicvae.kernels.compiler import inlined, kernel
from minicvae.kernels.spread import take

ROWS, NUMBERS = 8, 2**14  # of a piece: rows of pixels, numbers of a flat array; of images one is a piece


@inlined
def next_start(queue, length, unit):
    """Where the next piece of `range(length)` begins, or a number that is not below `length`."""
    return unit * take(queue, (length + unit - 1) // unit)


@kernel
def gather_pixels(queue, index, x, images):
    """As `compiled.gather_pixels`."""
    i = next_start(queue, len(x), ROWS)
    while i < len(x):
        j = i + ROWS
        compiled.gather_pixels(index[i:j], x[i:j], images)
        i = next_start(queue, len(x), ROWS)


@kernel
def bernoulli(queue, logits, x, nll, derivative):
    """As `compiled.bernoulli`."""
    i = next_start(queue, len(x), ROWS)
    while i < len(x):
        j = i + ROWS
        compiled.bernoulli(logits[i:j], x[i:j], nll[i:j], derivative[i:j])
        i = next_start(queue, len(x), ROWS)


@kernel
def gaussian(queue, logits, x, nll, derivative, precision, constant):
    """As `compiled.gaussian`."""
    real = x.dtype.type
    i = next_start(queue, len(x), ROWS)
    while i < len(x):
        j = i + ROWS
        compiled.gaussian(logits[i:j], x[i:j], nll[i:j], derivative[i:j], real(precision), real(constant))
        i = next_start(queue, len(x), ROWS)


@kernel
def sigmoid(queue, h, y):
    """As `compiled.sigmoid`."""
    i = next_start(queue, len(h), NUMBERS)
    while i < len(h):
        j = i + NUMBERS
        compiled.sigmoid(h[i:j], y[i:j])
        i = next_start(queue, len(h), NUMBERS)


@kernel
def scale_rows(queue, rows, scale, y):
    """As `compiled.scale_rows`."""
    i = next_start(queue, len(y), ROWS)
    while i < len(y):
        j = i + ROWS
        compiled.scale_rows(rows[i:j], scale[i:j], y[i:j])
        i = next_start(queue, len(y), ROWS)


@kernel
def add_parts(queue, sums, total, accumulate):
    """As `compiled.add_parts`."""
    i = next_start(queue, len(total), NUMBERS)
    while i < len(total):
        compiled.add_parts(sums, total, accumulate, i, i + NUMBERS)
        i = next_start(queue, len(total), NUMBERS)


@kernel
def max_pool(queue, x, y, pool, stride):
    """As `compiled_images.max_pool`."""
    i = take(queue, len(x))
    while i < len(x):
        compiled_images.max_pool(x[i : i + 1], y[i : i + 1], pool, stride)
        i = take(queue, len(x))


@kernel
def max_pool_backward(queue, dy, x, y, dx, pool, stride):
    """As `compiled_images.max_pool_backward`."""
    i = take(queue, len(x))
    while i < len(x):
        j = i + 1
        compiled_images.max_pool_backward(dy[i:j], x[i:j], y[i:j], dx[i:j], pool, stride)
        i = take(queue, len(x))


@kernel
def upsample(queue, x, y, factor):
    """As `compiled_images.upsample`."""
    i = take(queue, len(x))
    while i < len(x):
        compiled_images.upsample(x[i : i + 1], y[i : i + 1], factor)
        i = take(queue, len(x))


@kernel
def upsample_backward(queue, dy, dx, factor):
    """As `compiled_images.upsample_backward`."""
    i = take(queue, len(dx))
    while i < len(dx):
        compiled_images.upsample_backward(dy[i : i + 1], dx[i : i + 1], factor)
        i = take(queue, len(dx))


@kernel
def sgd(queue, value, grad, velocity, rate, momentum, nesterov, decay):
    """As `compiled.sgd`."""
    real, tiny = value.dtype.type, np.finfo(value.dtype).tiny
    scalars = real(rate), real(momentum), nesterov, real(decay), tiny
    i = next_start(queue, len(value), NUMBERS)
    while i < len(value):
        j = i + NUMBERS
        compiled.sgd(value[i:j], grad[i:j], velocity[i:j], *scalars)
        i = next_start(queue, len(value), NUMBERS)


@kernel
def adam(queue, value, grad, m, v, rate, beta1, rest1, beta2, rest2, epsilon, m_scale, v_scale, decay):
    """As `compiled.adam`."""
    real, tiny = value.dtype.type, np.finfo(value.dtype).tiny
    rates = real(rate), real(beta1), real(rest1), real(beta2), real(rest2), real(epsilon), real(m_scale), real(v_scale)
    i = next_start(queue, len(value), NUMBERS)
    while i < len(value):
        j = i + NUMBERS
        compiled.adam(value[i:j], grad[i:j], m[i:j], v[i:j], *rates, real(decay), tiny)
        i = next_start(queue, len(value), NUMBERS)
