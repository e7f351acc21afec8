"""What the tests of kernels with a queue share: a queue that nobody else takes from, and lists of terms."""

import numpy as np

from minicvae.kernels import zeros
from minicvae.kernels.spread import LINE


def own_queue(taken=0, shares=1, own=0):
    """A queue, whose first word counts what was asked of its first share, and the thread's own share of it."""
    counts = np.zeros(shares * LINE, np.int64)
    counts[0] = taken
    return counts, own


def kept_terms(x, columns):
    """What `zeros.of_columns` or `zeros.of_rows` lists of x."""
    lists = zeros.room(*(x.shape[::-1] if columns else x.shape))
    (zeros.of_columns if columns else zeros.of_rows)(own_queue(), x, *lists)
    return lists
