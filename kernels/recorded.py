"""A function that a loop calls again and again, recorded while it runs once and from then on played back.

Between two kernels of a step Python makes views, asks for memory and looks functions up, the same at every step, and
slowly, for the kernels have driven it out of the processor's caches meanwhile: 0.5 ms of a step of 3. So it is done
once. What goes through `Cpu.call` is noted down with its arguments, whose memory belongs to the recording; the steps
that follow put new arguments into their places and call what stands in the notes.

Whoever is recorded may not look at numbers, which are others at the next step, nor compute with them unseen. So it is
given `Noted` arrays, of which only shapes can be asked, and views, and what NumPy does element by element, which is
noted too. Whatever else is wanted of them fails, and a function that fails so is run as it is at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from minicvae.kernels.workspace import Workspace, aligned

__all__ = ["Noted", "Recorded", "signature"]

Call = tuple[Callable[..., Any], tuple[Any, ...]]


def signature(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shape and type of each argument: what a recording depends on."""
    return tuple([(x.shape, x.dtype) if hasattr(x, "shape") else type(x) for x in arguments])


def plain(x: Any) -> Any:
    """What lies behind a `Noted` array, or behind those of a list; anything else as it is."""
    if isinstance(x, list):
        return [plain(item) for item in x]
    return x.array if isinstance(x, Noted) else x


def assign(out: np.ndarray, x: np.ndarray) -> None:
    """out ← x."""
    out[...] = x


class Noted(np.lib.mixins.NDArrayOperatorsMixin):
    """An array whose place is known and whose numbers are not."""

    __slots__ = ("array", "calls")

    def __init__(self, array: np.ndarray, calls: list[Call]) -> None:
        self.array, self.calls = array, calls

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)
    ndim = property(lambda self: self.array.ndim)
    size = property(lambda self: self.array.size)
    flags = property(lambda self: self.array.flags)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, key: Any) -> Noted:
        return self._view(self.array[(*key, ...) if isinstance(key, tuple) else (key, ...)])

    def reshape(self, *shape: Any) -> Noted:
        """A view of another shape."""
        return self._view(self.array.reshape(*shape))

    def _view(self, found: np.ndarray) -> Noted:
        if found.size and not np.may_share_memory(found, self.array):
            raise TypeError("not a view: its numbers would be those of this step")
        return Noted(found, self.calls)

    def astype(self, dtype: Any) -> Noted:
        """Another type's numbers."""
        out = aligned(self.shape, dtype)
        note(self.calls, assign, out, self)
        return Noted(out, self.calls)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (None,), **kwargs: Any) -> Any:
        if method != "__call__" or ufunc.nout != 1 or kwargs:
            return NotImplemented
        (place,) = out
        if place is None:
            found = np.asarray(ufunc(*map(plain, inputs)))
            place = aligned(found.shape, found.dtype)
        note(self.calls, partial(ufunc, out=plain(place)), *inputs)
        return Noted(plain(place), self.calls)

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("an array of a recording is not NumPy's: its numbers would be those of this step")

    def __bool__(self) -> bool:
        raise TypeError("what a recording does cannot depend on its numbers")


class _Number(Noted):
    """A number, which NumPy would not combine with arrays as it does Python's: it is for `Cpu.call` alone."""

    __slots__ = ()
    __array_ufunc__ = None  # type: ignore[assignment]


def note(calls: list[Call], function: Callable[..., Any], *args: Any) -> None:
    """function(*args), now and whenever the calls are repeated."""
    known = tuple(map(plain, args))
    function(*known)
    calls.append((function, known))


class _Recording(NamedTuple):
    """What belongs to arguments of one signature: their places, what is called, and where it leaves the results."""

    inputs: list[np.ndarray]
    calls: list[Call]
    kind: Callable[..., Any]
    results: list[np.ndarray]

    def take(self, arguments: tuple[Any, ...]) -> None:
        """Put the arguments where the calls read them."""
        for x, place in zip(arguments, self.inputs, strict=True):
            place[...] = x

    def numbers(self) -> Any:
        """The results as they are now."""
        return self.kind(*map(float, self.results))


class Recorded:
    """run(arrays and numbers) -> a named tuple of single numbers, the same but quicker from the second call on.

    For each signature the first call is recorded. What `run` does on the host happens in that call only, and anew where
    a result is not finite: it may have something to say.
    """

    def __init__(self, workspace: Workspace, run: Callable[..., Any]) -> None:
        self._workspace, self._run = workspace, run
        self._recordings: dict[tuple[Any, ...], _Recording | None] = {}

    def __call__(self, *arguments: Any) -> Any:
        """The results."""
        key = signature(arguments)
        if key not in self._recordings:
            recording = self._recordings[key] = self._record(arguments)
        else:
            recording = self._recordings[key]
            if recording is not None:
                recording.take(arguments)
                for function, args in recording.calls:
                    function(*args)
        if recording is not None:
            numbers = recording.numbers()
            if all(map(isfinite, numbers)):
                return numbers
        return self._run(*arguments)

    def _record(self, arguments: tuple[Any, ...]) -> _Recording | None:
        """Run and note down what is done; None where that cannot be noted, or fails."""
        inputs = [aligned(np.shape(x), getattr(x, "dtype", np.float64)) for x in arguments]
        calls: list[Call] = []
        self._workspace.calls = calls
        try:
            for x, place in zip(arguments, inputs, strict=True):
                place[...] = x
            kinds = (Noted if hasattr(x, "shape") else _Number for x in arguments)
            found = self._run(*(kind(place, calls) for kind, place in zip(kinds, inputs, strict=True)))
            return _Recording(inputs, calls, type(found), [x.array for x in found])
        except Exception:  # of the recording, or of `run` itself, which then fails without it too
            return None
        finally:
            self._workspace.calls = None
