"""A GPU that every machine has: CuPy's arrays and kernels, held to CuPy's rules and carried out by the host.

`arrays.py` is the array module: it refuses what CuPy refuses, lacks what CuPy lacks, counts what crosses between host
and device, and poisons fresh memory. `host.h` and `compiler.py` let a `.cu` file run, its threads one after the other.
"""

import sys

from standin.arrays import CROSSINGS, crossings, module, ndarray
from standin.compiler import LAUNCHES, ORDER, RawModule, missing

__all__ = ["CROSSINGS", "LAUNCHES", "ORDER", "RawModule", "crossings", "install", "missing", "module", "ndarray"]


def install():
    """Let `import cupy` find the stand-in."""
    sys.modules["cupy"] = module(RawModule)
