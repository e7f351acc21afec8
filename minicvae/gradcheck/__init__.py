"""Check hand-written gradients: of our layers, and of anybody's.

Start with `check.py`, which says what is checked; how a slope is found, and how sure it is, stands in `differences.py`.

y, backward = forward(x)        # any function of float64 arrays that returns its own backward
dx = backward(dy)

print(check_gradients(forward, (x,)))
"""

from minicvae.gradcheck.adapters import check_layer, check_model, check_pair
from minicvae.gradcheck.check import assert_gradients, check_gradients
from minicvae.gradcheck.report import Report, Row
from minicvae.gradcheck.rounding import compare

__all__ = [
    "Report",
    "Row",
    "assert_gradients",
    "check_gradients",
    "check_layer",
    "check_model",
    "check_pair",
    "compare",
]
