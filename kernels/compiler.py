"""How a loop is compiled, and where what came of it is kept until the sources change.

A `kernel` has code of its own, which is there once however many others call it (`linking.py`); what is `inlined`, as
small helpers are, is compiled into each of them.

Compiler flags, each for a reason: `error_model="numpy"` (a check for division by zero would keep loops from
vectorising), `fastmath` without `nnan` and `ninf` (sums may be reordered, but NaN and infinity must come through,
but for what `zeros.py` leaves out), `no_cfunc_wrapper` (nobody calls kernels from C).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core import caching
from numba.extending import register_jitable

from minicvae.kernels.linking import linked


@cache
def sources(folder: Path = Path(__file__).parent) -> str:
    """A short name for all modules of a folder as they are."""
    return sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()


class WithAllSources:
    """A place for compiled code that is out of date as soon as its own file, or any file in this folder, is another.

    Numba looks at the function's own file alone, but what it compiles holds what is `inlined` from other files too: it
    would go on with code whose sources are gone. And it writes an index before the code that the index names: a process
    that ends in between would leave the names of new sources on the code of old ones. So these names have a stamp.
    """

    @cached_property
    def stamp(self) -> str:
        """A short name for all these files as they are."""
        own = Path(self._py_file).read_bytes()  # type: ignore[attr-defined]
        return sha256(sources().encode() + own).hexdigest()[:16]

    def get_source_stamp(self) -> str:
        """What must be as it was for the code to be used."""
        return self.stamp

    def get_disambiguator(self) -> str:
        """What the names of the files have beside the function's."""
        return f"{self.stamp}-{self._lineno}"  # type: ignore[attr-defined]


class Chosen(WithAllSources, caching.UserProvidedCacheLocator):
    """The folder NUMBA_CACHE_DIR, where that is set."""


class Beside(WithAllSources, caching.InTreeCacheLocator):
    """__pycache__ beside the sources."""


class Home(WithAllSources, caching.UserWideCacheLocator):
    """The user's cache, where the sources' folder cannot be written."""


PLACES = ",".join(f"{__name__}.{place.__name__}" for place in (Chosen, Beside, Home))


FLAGS = {
    "nogil": True,
    "no_cfunc_wrapper": True,
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "nsz", "arcp", "afn"},
}


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """No other process writes compiled code into the folder meanwhile: Numba reads an index, adds to it, writes it.

    On Windows, and where the folder cannot be written or locked, others are not kept out.
    """
    try:
        import fcntl

        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "minicvae.lock", "w")  # noqa: SIM115
    except (ImportError, OSError):
        yield
        return
    with lock:
        with suppress(OSError):  # there are file systems without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the end: while it compiles, Numba would lose it, or take it for an error."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    pressed = threading.Event()
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed.is_set():
            signal.raise_signal(signal.SIGINT)


def _compiled_in_one_go(compiled: Any) -> Any:
    """The function, which Ctrl-C does not interrupt while it is compiled."""
    compile_for = compiled.compile

    def compile_uninterrupted(signature: Any) -> Any:
        with uninterrupted():
            return compile_for(signature)

    compiled.compile = compile_uninterrupted
    return compiled


def _kept_by_one_at_a_time(compiled: Any) -> Any:
    """The function, which no other process keeps on disk while this one does; code of its old sources goes.

    Where it cannot be written, for want of room, it is not kept.
    """
    cache = compiled._cache
    save, folder, stamp = cache.save_overload, Path(cache.cache_path), cache._impl.locator.stamp
    name, _, _ = cache._impl.filename_base.partition(stamp)

    def save_overload(*args: Any) -> None:
        with only_writer(folder), suppress(OSError):
            for path in folder.glob(f"{escape(name)}*"):
                if not path.name.startswith(f"{name}{stamp}"):
                    path.unlink(missing_ok=True)
            save(*args)

    cache.save_overload = save_overload
    return compiled


def inlined(function: Callable[..., Any]) -> Any:
    """`function`, a copy of which goes into each kernel that calls it, and is not kept on disk; elsewhere Python's."""
    return register_jitable(**FLAGS)(function)


def kernel(function: Callable[..., Any]) -> Any:
    """`function` compiled, and kept on disk where there is a place for it; elsewhere compiled anew in every process."""
    if config.DISABLE_JIT:
        return function
    before, config.CACHE_LOCATOR_CLASSES = config.CACHE_LOCATOR_CLASSES, PLACES
    try:
        compiled = _kept_by_one_at_a_time(njit(cache=True, **FLAGS)(function))
    except RuntimeError:  # no folder of these can be written
        compiled = njit(**FLAGS)(function)
    finally:
        config.CACHE_LOCATOR_CLASSES = before
    return _compiled_in_one_go(linked(compiled))
