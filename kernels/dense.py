"""The dense layer's kernels: a product, and everything that can be done while its operands are at hand.

Each kernel is shared out by columns (or, for dx, by columns of x): a share needs no number that another one computes.

| kernel          | computes                                             | a share is          |
| --------------- | ---------------------------------------------------- | ------------------- |
| `forward`       | y = f(x W + Σ_p W[label_p] + b)                      | columns of y, W, b  |
| `backward`      | g = dy ⊙ f'(h), db = Σ_n g_n, dW = xᵀ g, and gᵀ      | columns of g, W, b  |
| `input_gradient`| dx = g Wᵀ, as (W gᵀ)ᵀ: W is read as it lies          | columns of dx       |

Loops run over `row[start:stop]`, from 0: of a slice of a row the compiler knows that its numbers are adjacent, of a
slice of columns it does not; and a loop that does not begin at 0 stays scalar, because Numba must ask at each index
whether it is negative.
"""

from __future__ import annotations

import numpy as np

from minicvae.kernels.compiled import kernel
from minicvae.kernels.team import bounds, shared
from minicvae.kernels.tiles import product, transpose
from minicvae.kernels.vector_math import exp

# Numba compiles small integers better than strings.
ACTIVATION = {"linear": 0, "relu": 1, "tanh": 2, "elu": 3, "sigmoid": 4}
UNIT = 16  # shares begin at multiples of so many columns, so that whole vectors stay whole


@kernel
def _forward_share(x, W_x, W, labels, b, activation, y, first, last, share, shares):
    """`forward` for a share of the columns."""
    start, stop = bounds(y.shape[1], UNIT, share, shares)
    if first:
        b_here = b[start:stop]
        for n in range(len(y)):
            y_n = y[n][start:stop]
            for j in range(len(y_n)):
                y_n[j] = b_here[j]
            for p in range(len(labels)):
                W_label = W[labels[p, n]][start:stop]
                for j in range(len(y_n)):
                    y_n[j] += W_label[j]
    product(x, W_x[:, start:stop], y[:, start:stop], True)
    if last:
        for n in range(len(y)):
            _activate(y[n][start:stop], activation)


@kernel
def _activate(y, activation):
    """y = f(y) in place; y (d,)."""
    one, zero = y.dtype.type(1), y.dtype.type(0)
    if activation == 1:
        for j in range(len(y)):
            y[j] = zero if y[j] < zero else y[j]
    elif activation == 2:
        for j in range(len(y)):
            y[j] = np.tanh(y[j])
    elif activation == 3:
        for j in range(len(y)):
            y[j] = y[j] if y[j] > zero else np.expm1(y[j])
    elif activation == 4:
        for j in range(len(y)):
            t = exp(-abs(y[j]))
            y[j] = (one if y[j] >= zero else t) / (one + t)


@kernel
def _slope_times(dy, y, g, activation):
    """g = dy ⊙ f'(h), told from y = f(h); all (d,)."""
    one, zero = y.dtype.type(1), y.dtype.type(0)
    if activation == 0:
        for j in range(len(y)):
            g[j] = dy[j]
    elif activation == 1:
        for j in range(len(y)):
            g[j] = dy[j] if y[j] > zero else zero
    elif activation == 2:
        for j in range(len(y)):
            g[j] = dy[j] * (one - y[j] * y[j])
    elif activation == 3:
        for j in range(len(y)):
            g[j] = dy[j] * (one if y[j] > zero else y[j] + one)
    else:
        for j in range(len(y)):
            g[j] = dy[j] * (y[j] * (one - y[j]))


@kernel
def _add_to(total, numbers):
    """total += numbers; both (d,)."""
    for j in range(len(total)):
        total[j] += numbers[j]


@kernel
def _backward_share(dy, y, activation, x, dW_x, dW, labels, label_rows, db, g, gT, first, add, share, shares):
    """`backward` for a share of the columns."""
    start, stop = bounds(y.shape[1], UNIT, share, shares)
    if first:
        if not add:
            db[start:stop] = 0
            for p in range(len(labels)):
                dW[label_rows[p, 0] : label_rows[p, 1], start:stop] = 0
        for n in range(len(g)):
            g_n = g[n][start:stop]
            _slope_times(dy[n][start:stop], y[n][start:stop], g_n, activation)
            _add_to(db[start:stop], g_n)
            for p in range(len(labels)):
                _add_to(dW[labels[p, n]][start:stop], g_n)
        if len(gT):
            transpose(g[:, start:stop], gT[start:stop])
    product(x.T, g[:, start:stop], dW_x[:, start:stop], add)


@kernel
def _input_share(W_x, gT, dxT, dx, share, shares):
    """`input_gradient` for a share of the columns of x."""
    start, stop = bounds(len(W_x), UNIT, share, shares)
    product(W_x[start:stop], gT, dxT[start:stop], False)
    transpose(dxT[start:stop], dx[:, start:stop])


_share_forward, _share_backward, _share_input = map(shared, (_forward_share, _backward_share, _input_share))


@kernel
def forward(board, shares, x, W_x, W, labels, b, activation, y, first, last):
    """y = f(Σ_parts x W_x + Σ_p W[labels[p]] + b), one float part x at a time.

    x (n, d_x), W_x (d_x, d) its rows of W; labels (p, n), rows of W for each example; b (d,); y (n, d). The first
    call starts y with the bias and the labelled rows, the last one applies the activation.
    """
    _share_forward(board, shares, (x, W_x, W, labels, b, activation, y, first, last))


@kernel
def backward(board, shares, dy, y, activation, x, dW_x, dW, labels, label_rows, db, g, gT, first, add):
    """dW_x (+)= xᵀ g for one float part x. The first call makes g (n, d), gᵀ (if it has room), db and the labels' dW.

    label_rows (p, 2): where each one-hot part's rows of W begin and end. `add`: add to what is in dW and db.
    """
    _share_backward(board, shares, (dy, y, activation, x, dW_x, dW, labels, label_rows, db, g, gT, first, add))


@kernel
def input_gradient(board, shares, W_x, gT, dxT, dx):
    """dx = g W_xᵀ; W_x (d_x, d), gT (d, n) -> dx (n, d_x), by way of dxT (d_x, n)."""
    _share_input(board, shares, (W_x, gT, dxT, dx))
