"""The dense layer's kernels: a product, and everything that can be done while its operands are at hand.

Each kernel is shared out by columns (or, for dx, by columns of x): a share needs no number that another one computes.

| kernel          | computes                                             | a share is          |
| --------------- | ---------------------------------------------------- | ------------------- |
| `forward`       | y = f(x W + Σ_p W[label_p] + b)                      | columns of y, W, b  |
| `backward`      | g = dy ⊙ f'(h), db = Σ_n g_n, dW = xᵀ g, and gᵀ      | columns of g, W, b  |
| `input_gradient`| dx = g Wᵀ, as (W gᵀ)ᵀ: W is read as it lies          | columns of dx       |

An array whose columns are shared is passed whole, with `range(first, stop)` in the loops: a slice of columns would
hide from the compiler that a row's numbers are adjacent.
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
        for n in range(len(y)):
            y_n = y[n]
            for j in range(start, stop):
                y_n[j] = b[j]
            for p in range(len(labels)):
                W_label = W[labels[p, n]]
                for j in range(start, stop):
                    y_n[j] += W_label[j]
    product(x, W_x[:, start:stop], y[:, start:stop], True)
    if last:
        _activate(y, activation, start, stop)


@kernel
def _activate(y, activation, start, stop):
    """y = f(y) in place, in the columns from `start` to `stop`."""
    one, zero = y.dtype.type(1), y.dtype.type(0)
    for n in range(len(y)):
        y_n = y[n]
        if activation == 1:
            for j in range(start, stop):
                y_n[j] = zero if y_n[j] < zero else y_n[j]
        elif activation == 2:
            for j in range(start, stop):
                y_n[j] = np.tanh(y_n[j])
        elif activation == 3:
            for j in range(start, stop):
                y_n[j] = y_n[j] if y_n[j] > zero else np.expm1(y_n[j])
        elif activation == 4:
            for j in range(start, stop):
                t = exp(-abs(y_n[j]))
                y_n[j] = (one if y_n[j] >= zero else t) / (one + t)


@kernel
def _slope_times(dy, y, g, activation, start, stop):
    """g = dy ⊙ f'(h), told from y = f(h), in the columns from `start` to `stop`."""
    one, zero = y.dtype.type(1), y.dtype.type(0)
    for n in range(len(y)):
        dy_n, y_n, g_n = dy[n], y[n], g[n]
        if activation == 0:
            for j in range(start, stop):
                g_n[j] = dy_n[j]
        elif activation == 1:
            for j in range(start, stop):
                g_n[j] = dy_n[j] if y_n[j] > zero else zero
        elif activation == 2:
            for j in range(start, stop):
                g_n[j] = dy_n[j] * (one - y_n[j] * y_n[j])
        elif activation == 3:
            for j in range(start, stop):
                g_n[j] = dy_n[j] * (one if y_n[j] > zero else y_n[j] + one)
        else:
            for j in range(start, stop):
                g_n[j] = dy_n[j] * (y_n[j] * (one - y_n[j]))


@kernel
def _backward_share(dy, y, activation, x, dW_x, dW, labels, label_rows, db, g, gT, first, add, share, shares):
    """`backward` for a share of the columns."""
    start, stop = bounds(y.shape[1], UNIT, share, shares)
    zero = g.dtype.type(0)
    if first:
        _slope_times(dy, y, g, activation, start, stop)
        if not add:
            for j in range(start, stop):
                db[j] = zero
            for p in range(len(labels)):
                for row in range(label_rows[p, 0], label_rows[p, 1]):
                    dW_row = dW[row]
                    for j in range(start, stop):
                        dW_row[j] = zero
        for n in range(len(g)):
            g_n = g[n]
            for j in range(start, stop):
                db[j] += g_n[j]
            for p in range(len(labels)):
                dW_label = dW[labels[p, n]]
                for j in range(start, stop):
                    dW_label[j] += g_n[j]
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
