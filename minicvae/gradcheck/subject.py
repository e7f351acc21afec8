"""The function under test: its arguments by name, its outputs as one vector, and what may not happen when it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from minicvae.gradcheck.differences import TINY, Line

__all__ = ["Forward", "Gradients", "Run", "Subject"]

Forward = Callable[..., tuple[Any, Callable[[Any], Any]]]
Gradients = Mapping[str, np.ndarray] | Callable[[], Mapping[str, np.ndarray]]


@dataclass
class Run:
    """One forward and one backward.

    y: the outputs, flat. dy: the upstream gradient, flat. gradients: what came back for every argument, copied; None
    where nothing came. problems: what the function did and should not have done.
    """

    y: np.ndarray
    dy: np.ndarray
    gradients: dict[str, np.ndarray | None]
    problems: list[str]


class Subject:
    """`forward(*inputs) -> (y, backward)` as a vector function of named float64 arrays.

    arguments: name -> array, for every float64 input (a copy of the caller's) and every parameter (the caller's own,
    changed in place and always restored). Inputs that are not float64 arrays or floats are passed through.
    """

    def __init__(
        self,
        forward: Forward,
        inputs: Sequence[Any] | np.ndarray,
        parameters: Mapping[str, np.ndarray] | None,
        gradients: Gradients | None,
        names: Sequence[str] | None,
    ) -> None:
        self._forward = forward
        if isinstance(inputs, (np.ndarray, float)):
            inputs = (inputs,)
        if not isinstance(inputs, Sequence) or isinstance(inputs, (str, bytes)):
            raise TypeError(f"inputs: expected an array, or a tuple of arrays and floats, got {type(inputs).__name__}")
        self._inputs = [np.asarray(x) if isinstance(x, float) else x for x in inputs]
        _require_fitting(forward, self._inputs)
        self._parameters = dict(parameters or {})
        self._gradients = gradients
        self.labels = _input_names(forward, self._inputs) if names is None else tuple(names)
        if len(self.labels) != len(self._inputs):
            raise ValueError(f"names: expected {len(self._inputs)}, one for each input, got {len(self.labels)}")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"names: expected one of its own for each input, got {', '.join(self.labels)}")
        if self._parameters and gradients is None:
            raise ValueError("gradients: expected a mapping name -> array, or a function that returns one, got None")
        self.positions = {
            name: i for i, (name, x) in enumerate(zip(self.labels, self._inputs, strict=True)) if _is_real(x)
        }
        self.arguments: dict[str, np.ndarray] = {
            name: np.array(self._inputs[i], order="C") for name, i in self.positions.items()
        }
        if doubled := set(self.arguments) & set(self._parameters):
            raise ValueError(f"names: {', '.join(sorted(doubled))} names both an input and a parameter")
        self.arguments.update(self._parameters)
        self._require_checkable()

    def _require_checkable(self) -> None:
        if not self.arguments:
            came = ", ".join(type(x).__name__ for x in self._inputs) or "none"
            raise ValueError(f"inputs: expected at least one float64 array to differentiate by, got {came}")
        for name, array in self.arguments.items():
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{name}: expected a NumPy array, got {type(array).__name__}")
            if array.dtype != np.float64:
                raise TypeError(
                    f"{name}: expected float64, got {array.dtype}; derivatives are checked in float64, "
                    "and `compare` then holds other types to float64"
                )
            if array.size == 0:
                raise ValueError(f"{name}: expected at least one element, got shape {array.shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: expected finite values, got NaN or infinity")
            if name in self._parameters and not array.flags.writeable:
                raise ValueError(f"{name}: expected an array that can be written to")

    def evaluate(self, replaced: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """The outputs at the current arguments as one vector of their own; `replaced` inputs take the place of some."""
        values = list(self._inputs)
        for name, i in self.positions.items():
            values[i] = (replaced or {}).get(name, self.arguments[name])
        with np.errstate(all="ignore"):
            return _flat(self._call(values)[0])

    def run(self, upstream: Callable[[int], np.ndarray]) -> Run:
        """Forward and backward on the caller's own arrays; `upstream(k)` is dL/dy for k outputs."""
        problems: list[str] = []
        with self._watch(problems, "forward"):
            y, backward = self._call(self._inputs)
        _require_numbers(y)
        flat_y, wrong_types = _flat(y), sorted({str(np.asarray(part).dtype) for part in _parts(y)} - {"float64"})
        if wrong_types:
            problems.append(f"forward gives {', '.join(wrong_types)} for float64 inputs")
        if not np.isfinite(flat_y).all():
            problems.append(f"forward gives {_first_bad(flat_y)}, the output number {_first_bad_index(flat_y)}")
        dy = upstream(flat_y.size)
        pieces, held = _like(y, dy), dy.copy()
        with self._watch(problems, "backward"):
            returned = backward(pieces)
        if not np.array_equal(np.concatenate([np.ravel(p) for p in _parts(pieces)]), held):
            problems.append("backward changes the upstream gradient dy that it is handed")
        return Run(flat_y, held, self._collect(returned, problems), problems)

    def direction_line(self, directions: Mapping[str, np.ndarray]) -> Line:
        """t -> F with t v added to every argument that `directions` has a v for."""
        held = {name: self.arguments[name].copy() for name in directions}

        def at(t: float) -> tuple[float, np.ndarray]:
            try:
                for name, v in directions.items():
                    np.add(held[name], t * v, out=self.arguments[name])
                return t, self.evaluate()
            finally:
                for name, x in held.items():
                    self.arguments[name][...] = x

        return at

    def element_line(self, name: str, i: int) -> Line:
        """t -> F with t added to element i (in C order) of an argument."""
        flat = self.arguments[name].flat
        x = float(flat[i])

        def at(t: float) -> tuple[float, np.ndarray]:
            flat[i] = x + t
            try:
                return (x + t) - x, self.evaluate()
            finally:
                flat[i] = x

        return at

    def complex_line(self, name: str, direction: np.ndarray | int) -> Callable[[], np.ndarray]:
        """F at x + i TINY v for an input; v an array, or the index of an element."""

        def at() -> np.ndarray:
            z = self.arguments[name].astype(complex)
            if isinstance(direction, np.ndarray):
                z += 1j * TINY * direction
            else:
                z.flat[direction] += 1j * TINY
            return self.evaluate({name: z})

        return at

    def _call(self, values: Sequence[Any]) -> tuple[Any, Callable[[Any], Any]]:
        result = self._forward(*values)
        if not (isinstance(result, tuple) and len(result) == 2 and callable(result[1])):
            raise TypeError(f"forward: expected to return (y, backward), got {type(result).__name__}")
        return result

    @contextmanager
    def _watch(self, problems: list[str], culprit: str) -> Iterator[None]:
        """Report every array of the caller's that changes meanwhile, and restore it."""
        watched = {label: x for label, x in zip(self.labels, self._inputs, strict=True) if isinstance(x, np.ndarray)}
        watched |= self._parameters
        before = {label: x.copy() for label, x in watched.items()}
        try:
            yield
        finally:
            for label, x in watched.items():
                if x.tobytes() != before[label].tobytes():
                    problems.append(f"{culprit} changes its argument {label}")
                    x[...] = before[label]

    def _collect(self, returned: Any, problems: list[str]) -> dict[str, np.ndarray | None]:
        """The gradient of every argument: of inputs by their position, of parameters by their name."""
        found: dict[str, np.ndarray | None] = dict.fromkeys(self.arguments)
        given = tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)
        if len(given) == len(self._inputs):
            found.update({name: given[i] for name, i in self.positions.items()})
        elif len(given) == len(self.positions) == 1:
            found.update(dict.fromkeys(self.positions, given[0]))
        elif self.positions:
            problems.append(f"backward returns {len(given)} gradients for {len(self._inputs)} inputs")
        if self._gradients is not None:
            mapping = self._gradients() if callable(self._gradients) else self._gradients
            found.update({name: mapping.get(name) for name in self._parameters})
        return {name: None if g is None else np.array(g) for name, g in found.items()}


def _is_real(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind in "fc"


def _require_fitting(forward: Forward, inputs: Sequence[Any]) -> None:
    """Refuse inputs that forward does not take: most often numbers in a list, which is one input for each."""
    try:
        signature = inspect.signature(forward)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*inputs)
    except TypeError as error:
        raise TypeError(
            f"inputs: expected one for each argument of forward{signature}, got {len(inputs)} ({error}); "
            "numbers that are one input belong in one array"
        ) from None


def _require_numbers(y: Any) -> None:
    """Refuse an output that is not made of numbers."""
    kinds = {np.asarray(part).dtype.kind for part in _parts(y)}
    if not kinds <= set("biufc"):
        came = ", ".join(type(part).__name__ for part in _parts(y))
        raise TypeError(f"forward: expected y to be a float64 array, a number, or a tuple of them, got {came}")
    if not any(np.size(part) for part in _parts(y)):
        shapes = ", ".join(str(np.shape(part)) for part in _parts(y)) or "()"
        raise ValueError(f"forward: expected y to have at least one element, got shape {shapes}")


def _input_names(forward: Forward, inputs: Sequence[Any]) -> tuple[str, ...]:
    """The names that `forward` gives to its parameters; x, or x0, x1, ... where it has none."""
    try:
        bound = inspect.signature(forward).bind(*inputs).arguments
    except (TypeError, ValueError):
        bound = {}
    if len(bound) == len(inputs):
        kinds = inspect.signature(forward).parameters
        if all(kinds[name].kind is not inspect.Parameter.VAR_POSITIONAL for name in bound):
            return tuple(bound)
    return ("x",) if len(inputs) == 1 else tuple(f"x{i}" for i in range(len(inputs)))


def _parts(y: Any) -> Sequence[Any]:
    return y if isinstance(y, (tuple, list)) else (y,)


def _flat(y: Any) -> np.ndarray:
    """All outputs as one vector, copied: a layer may reuse the memory of its output."""
    return np.concatenate([np.ravel(part) for part in _parts(y)])


def _like(y: Any, flat: np.ndarray) -> Any:
    """`flat` cut into arrays (or numbers) with the shapes of y."""
    parts = [np.asarray(part) for part in _parts(y)]
    ends = np.cumsum([part.size for part in parts])
    pieces = [
        flat[end - part.size : end].reshape(part.shape).copy()[() if np.isscalar(was) else ...]
        for part, end, was in zip(parts, ends, _parts(y), strict=True)
    ]
    return tuple(pieces) if isinstance(y, (tuple, list)) else pieces[0]


def _first_bad_index(y: np.ndarray) -> int:
    return int(np.flatnonzero(~np.isfinite(y))[0])


def _first_bad(y: np.ndarray) -> float:
    return float(y[_first_bad_index(y)])
