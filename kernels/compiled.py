"""How kernels are compiled: one decorator with the compiler's flags and a cache on disk that notices every edit.

Numba's cache knows a kernel by the text of the file it stands in. A kernel also contains the code of the kernels it
calls, and those may stand in other files: after an edit or an upgrade of such a file, the old machine code would run
on. So the stamp of every kernel here is the text of all files of this folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import config, njit

# `error_model="numpy"`: Python's check for division by zero would keep loops from becoming vector code.
# `fastmath` without `nnan` and `ninf`: sums may be reordered, but NaN and infinity must come through.
FLAGS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz", "arcp", "afn"}}


@cache
def sources() -> str:
    """A hash of the text of every Python file of this folder."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def kernel(function: Callable[..., Any]) -> Any:
    """`function` compiled for the types that it is called with, without the interpreter's lock, cached on disk."""
    compiled = njit(cache=True, **FLAGS)(function)
    if not config.DISABLE_JIT:
        # Numba has no public name for this; tests/kernels/test_compiled.py tells when it moves.
        compiled._cache._cache_file._source_stamp = sources()
    return compiled
