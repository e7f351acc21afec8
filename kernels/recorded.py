"""A function that a loop calls again and again, recorded while it runs once and from then on played back.

Between two kernels of a step Python makes views, asks for memory and looks functions up, the same at every step, and
slowly, for the kernels have driven it out of the processor's caches meanwhile: 0.5 ms of a step of 3. So it is done
once. What goes through `Notes.call` is noted down with its arguments, whose memory belongs to the recording; the steps
that follow put new arguments into their places and call what stands in the notes.

Whoever is recorded may not look at numbers, which are others at the next step, nor compute with them unseen. So it is
given `Noted` arrays, of which only shapes can be asked, and views, and NumPy's ufuncs, which are noted too. Whatever
else is wanted of them fails, and a function that fails so is run as it is at every step. What it computes from arrays
that are not `Noted`, such as a model's weights, has to go through `Notes.call` as well: nobody could notice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from math import isfinite
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numba.core.errors import NumbaError

from minicvae.kernels.steps import signature
from minicvae.kernels.workspace import Workspace, aligned

__all__ = ["NotRecordableError", "Noted", "Notes", "Recorded", "Recording", "assign"]


class NotRecordableError(TypeError):
    """What was asked for depends on numbers, or cannot be done again from notes."""


# How arrays, NumPy and Numba say that they cannot do what they are asked for.
REFUSALS = (TypeError, ValueError, AttributeError, IndexError, NumbaError)


def assign(out: np.ndarray, x: Any) -> None:
    """out ← x."""
    out[...] = x


def plain(x: Any) -> Any:
    """What lies behind a `Noted` array, or behind those of a list; anything else as it is."""
    if isinstance(x, list):
        return [plain(item) for item in x]
    return x.array if isinstance(x, Noted) else x


class Notes:
    """What is called while a function is recorded. memory: gives the arrays that belong to the recording."""

    def __init__(self, memory: Workspace) -> None:
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._memory = memory

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """function(*args), now and whenever the notes are played."""
        known = tuple(map(plain, args))
        function(*known)
        self.calls.append((function, known))

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Noted:
        """An uninitialised array."""
        return Noted(self._memory.empty(shape, np.dtype(dtype)), self)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> NoReturn:
        """Refused."""
        raise NotRecordableError("it would not be zero again at the next step")


class Recording(threading.local):
    """The notes of what this thread records at the moment, or None."""

    notes: Notes | None = None


class Noted(np.lib.mixins.NDArrayOperatorsMixin):
    """An array whose place is known and whose numbers are not."""

    __slots__ = ("array", "notes")

    def __init__(self, array: np.ndarray, notes: Notes) -> None:
        self.array, self.notes = array, notes

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

    def transpose(self, *axes: int) -> Noted:
        """A view with its axes in another order."""
        return self._view(self.array.transpose(*axes))

    def _view(self, found: np.ndarray) -> Noted:
        if found.size and not np.may_share_memory(found, self.array):
            raise NotRecordableError("not a view: its numbers would be those of this step")
        return Noted(found, self.notes)

    def astype(self, dtype: Any) -> Noted:
        """The numbers in another type."""
        out = self.notes.empty(self.shape, dtype)
        self.notes.call(assign, out, self)
        return out

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (None,), **kwargs: Any) -> Any:
        if method != "__call__" or ufunc.nout != 1 or kwargs:
            return NotImplemented
        (place,) = out
        if place is None:
            like = np.asarray(ufunc(*map(plain, inputs)))  # for its shape and type
            place = self.notes.empty(like.shape, like.dtype)
        elif not isinstance(place, Noted):
            return NotImplemented  # an array that was filled unseen would not be filled again
        self.notes.call(partial(ufunc, out=place.array), *inputs)
        return place

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise NotRecordableError("an array of a recording is not NumPy's: its numbers would be those of this step")

    def __bool__(self) -> bool:
        raise NotRecordableError("what a recording does cannot depend on its numbers")


class _Number(Noted):
    """The place of a Python number, for `Notes.call` alone: NumPy would make float64 of float32 arrays times it."""

    __slots__ = ()
    __array_ufunc__ = None  # type: ignore[assignment]


class _Tape(NamedTuple):
    """What belongs to arguments of one signature: their places, what is called, and where it leaves the results."""

    places: list[np.ndarray]
    calls: list[tuple[Callable[..., Any], tuple[Any, ...]]]
    kind: Callable[..., Any]
    results: list[np.ndarray]

    def take(self, arguments: tuple[Any, ...]) -> None:
        """Put the arguments where the calls read them."""
        for x, place in zip(arguments, self.places, strict=True):
            place[...] = x

    def play(self) -> None:
        """Call all again."""
        for function, args in self.calls:
            function(*args)

    def numbers(self) -> Any:
        """The results as they are now."""
        return self.kind(*map(float, self.results))


class Recorded:
    """run(arrays and numbers) -> a named tuple of single numbers, the same but quicker from the second call on.

    For each signature the first call is recorded. What `run` does on the host happens in that call only, and anew where
    a result is not finite: it may have something to say. Signatures share their memory, as the steps of a `Workspace`.
    """

    def __init__(self, recording: Recording, run: Callable[..., Any]) -> None:
        self._recording, self._run = recording, run
        self._tapes: dict[tuple[Any, ...], _Tape | None] = {}
        self._memory = Workspace()

    def __call__(self, *arguments: Any) -> Any:
        """The results."""
        key = signature(arguments)
        if key not in self._tapes:
            tape = self._tapes[key] = self._record(arguments)
        elif (tape := self._tapes[key]) is not None:
            tape.take(arguments)
            tape.play()
        if tape is not None:
            numbers = tape.numbers()
            if all(map(isfinite, numbers)):
                return numbers
        return self._run(*arguments)

    def _record(self, arguments: tuple[Any, ...]) -> _Tape | None:
        """Run and note down what is done; None where that cannot be noted."""
        self._memory.begin()
        notes = self._recording.notes = Notes(self._memory)
        try:
            given = [self._place(x, notes) for x in arguments]
            found = self._run(*given)
            return _Tape([x.array for x in given], notes.calls, type(found), [x.array for x in found])
        except REFUSALS:  # of the recording, or of `run` itself, which then fails without it too
            self._memory = Workspace()
            return None
        finally:
            self._recording.notes = None

    @staticmethod
    def _place(x: Any, notes: Notes) -> Noted:
        """A place of its own for an argument, which stands there already."""
        place = aligned(np.shape(x), getattr(x, "dtype", np.float64))
        place[...] = x
        return Noted(place, notes) if hasattr(x, "shape") else _Number(place, notes)
