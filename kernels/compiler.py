"""How a loop is compiled, and where what came of it is kept until the sources change.

Compiler flags, each for a reason: `error_model="numpy"` (a check for division by zero would keep loops from
vectorising), `fastmath` without `nnan` and `ninf` (sums may be reordered, but NaN and infinity must come through,
but for what `zeros.py` leaves out).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core import caching


@cache
def sources(folder: Path = Path(__file__).parent) -> str:
    """A short name for all modules of a folder as they are."""
    return sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()


class WithAllSources:
    """A place for compiled code that is out of date as soon as any kernel's file is another.

    Numba looks at the function's own file alone, but what it compiles holds all that the function calls, from other
    files too: it would go on with code whose sources are gone.
    """

    def get_source_stamp(self) -> str:
        """What must be as it was for the code to be used."""
        return sources()


class Chosen(WithAllSources, caching.UserProvidedCacheLocator):
    """The folder NUMBA_CACHE_DIR, where that is set."""


class Beside(WithAllSources, caching.InTreeCacheLocator):
    """__pycache__ beside the sources."""


class Home(WithAllSources, caching.UserWideCacheLocator):
    """The user's cache, where the sources' folder cannot be written."""


PLACES = ",".join(f"{__name__}.{place.__name__}" for place in (Chosen, Beside, Home))


FLAGS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz", "arcp", "afn"}}


def kernel(function: Callable[..., Any]) -> Any:
    """`function` compiled, and kept on disk where there is a place for it; elsewhere compiled anew in every process."""
    before, config.CACHE_LOCATOR_CLASSES = config.CACHE_LOCATOR_CLASSES, PLACES
    try:
        return njit(cache=True, **FLAGS)(function)
    except RuntimeError:  # no folder of these can be written
        return njit(**FLAGS)(function)
    finally:
        config.CACHE_LOCATOR_CLASSES = before
