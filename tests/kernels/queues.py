"""What the tests of kernels with a queue share: a queue that nobody else takes from, and lists of terms."""

import numpy as np

from minicvae.kernels import zeros
from minicvae.kernels.compiled_products import part
from minicvae.kernels.spread import LINE
from minicvae.kernels.tiles import ROWS


def own_queue(taken=0, shares=1, own=0):
    """A queue, whose first word counts what was asked of its first share, and the thread's own share of it."""
    counts = np.zeros(shares * LINE, np.int64)
    counts[0] = taken
    return counts, own


def kept_terms(x, columns):
    """The terms of x W, or of xᵀ g, in which not all rows of a tile are zero, however many they are."""
    left = x.T if columns else x
    terms, counts = (np.zeros(*wanted) for wanted in zeros.room(*left.shape))
    for t in range(len(terms)):
        lit = (left[t * ROWS : (t + 1) * ROWS] != 0).any(axis=0)
        for block in range(counts.shape[1]):
            begin, end = part(block, counts.shape[1], left.shape[1], 1)
            kept = np.flatnonzero(lit[begin:end])
            terms[t, begin : begin + len(kept)], counts[t, block] = kept, len(kept)
    return terms, counts
