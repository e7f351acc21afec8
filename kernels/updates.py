"""Optimisers: one pass over the flat buffers, which the memory's speed limits. A share is a part of the parameters."""

from __future__ import annotations

import numpy as np

from minicvae.kernels.compiled import kernel
from minicvae.kernels.team import bounds, shared

UNIT = 64  # numbers: shares begin where a cache line does


@kernel
def _sgd_share(value, grad, velocity, rate, momentum, nesterov, decay, share, shares):
    """`sgd` for a share of the parameters."""
    start, stop = bounds(len(value), UNIT, share, shares)
    value, grad, velocity = value[start:stop], grad[start:stop], velocity[start:stop]
    for i in range(len(value)):
        g = grad[i] + decay * value[i]
        v = momentum * velocity[i] + g
        velocity[i] = v
        value[i] -= rate * (g + momentum * v if nesterov else v)


@kernel
def _adam_share(value, grad, m, v, scalars, share, shares):
    """`adam` for a share of the parameters."""
    rate, keep1, take1, keep2, take2, epsilon, m_scale, v_scale, decay = scalars
    start, stop = bounds(len(value), UNIT, share, shares)
    value, grad, m, v = value[start:stop], grad[start:stop], m[start:stop], v[start:stop]
    for i in range(len(value)):
        g = grad[i]
        m_i = keep1 * m[i] + take1 * g
        v_i = keep2 * v[i] + take2 * g * g
        m[i] = m_i
        v[i] = v_i
        value[i] -= rate * (m_i * m_scale / (np.sqrt(v_i * v_scale) + epsilon) + decay * value[i])


_share_sgd, _share_adam = shared(_sgd_share), shared(_adam_share)


@kernel
def sgd(board, shares, value, grad, velocity, rate, momentum, nesterov, decay):
    """v ← momentum v + g;  value ← value - rate (v, or g + momentum v with Nesterov)."""
    _share_sgd(board, shares, (value, grad, velocity, rate, momentum, nesterov, decay))


@kernel
def adam(board, shares, value, grad, m, v, scalars):
    """m ← keep1 m + take1 g;  v ← keep2 v + take2 g²;  value ← value - rate (m̂ / (√v̂ + epsilon) + decay value).

    scalars: rate, keep1, take1, keep2, take2, epsilon, then m̂ / m and v̂ / v, then decay.
    """
    _share_adam(board, shares, (value, grad, m, v, scalars))
