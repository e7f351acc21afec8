"""Conditions taken apart, so that one picture serves labels, vectors and dicts of them alike.

A `Variable` is one thing that a condition says: the class, or one number of a vector. Pictures vary one variable
at a time and hold the others. A batch of conditions is `c` as models take it; a single one, here called a label,
is one entry of it: an integer, a vector, or a dict of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minicvae.conditions import Classes, Condition, Nothing, Parts, Vector

__all__ = ["Variable", "called", "first", "groups", "matter", "repeat", "signed", "take", "variables"]

SWEEP = np.linspace(-2, 2, 9)  # standard deviations from the mean of a number that is standardised: from low to high


@dataclass(frozen=True)
class Variable:
    """One thing that a condition says, and the values that pictures give it, with their names."""

    name: str
    values: np.ndarray
    labels: Sequence[str]
    is_class: bool
    read: Callable[[Any], np.ndarray]
    """Batch of conditions -> the variable's value in each, (n,)."""
    write: Callable[[Any, np.ndarray], Any]
    """Batch of conditions and values (n,) -> the conditions with those values in their place."""

    @property
    def title(self) -> str:
        """What an axis with the values is called, with their unit."""
        return self.name if self.is_class else f"{self.name} (standard deviations)"

    def vary(self, label: Any) -> Any:
        """The single condition `label`, once with each of `values`."""
        return self.write(repeat(label, len(self.values)), self.values)


def variables(condition: Condition, names: Any = None) -> list[Variable]:
    """All that a condition says.

    names: what the classes are called, or the numbers of a vector; for a dict of conditions, a dict of these; None or
    nothing for 0, 1, 2, ...

    Raises ValueError for another number of names, TypeError for names or a condition of another kind.
    """
    if isinstance(condition, Classes):
        labels = _names(names, condition.classes) or [str(i) for i in range(condition.classes)]
        return [
            Variable(
                "class",
                np.arange(condition.classes),
                labels,
                True,
                lambda c: np.asarray(c, np.int64),  # so that sums with small unsigned labels do not wrap around
                lambda c, values: values,
            )
        ]
    if isinstance(condition, Nothing):
        only = np.zeros(1, np.int64)  # as if all images were of one class
        return [Variable("class", only, ["any"], True, lambda c: np.repeat(only, len(c)), lambda c, values: values)]
    if isinstance(condition, Vector):
        titles = _names(names, condition.dim) or [f"c[{j}]" for j in range(condition.dim)]
        labels = [signed(value, "g") for value in SWEEP]
        return [Variable(title, SWEEP, labels, False, _reader(j), _writer(j)) for j, title in enumerate(titles)]
    if isinstance(condition, Parts):
        names = names or {}
        if not isinstance(names, Mapping) or not set(names) <= set(condition.parts):
            raise TypeError(f"names: expected a dict with names for {', '.join(condition.parts)}, got {names!r}")
        inside = {key: variables(part, names.get(key)) for key, part in condition.parts.items()}
        return [_inside(key, one, len(part) == 1) for key, part in inside.items() for one in part]
    raise TypeError(f"no picture knows conditions of the type {type(condition).__name__}")


def signed(value: float, form: str = ".1f") -> str:
    """A number for people to read: with a true minus, and never a minus zero."""
    return format(value, "z" + form).replace("-", "−")


def repeat(label: Any, n: int) -> Any:
    """A batch that holds one condition n times."""
    if isinstance(label, Mapping):
        return {key: repeat(value, n) for key, value in label.items()}
    return np.repeat(np.asarray(label)[None], n, axis=0)


def take(c: Any, index: Any) -> Any:
    """The conditions c[index]: a batch for several indices, a single one for one."""
    if isinstance(c, Mapping):
        return {key: take(value, index) for key, value in c.items()}
    return np.asarray(c)[index]


def first(condition: Condition) -> Any:
    """The condition that is shown where none is asked for: class 0, and the middle of a vector's numbers."""
    return take(condition.example(1), 0)


def matter(asked: Sequence[Variable]) -> str:
    """What a title calls the condition."""
    return "class" if len(asked) == 1 and asked[0].is_class else "condition"


def called(asked: Sequence[Variable], label: Any) -> str:
    """What a single condition is called: the class's name, and every number."""
    c = repeat(label, 1)
    said = []
    for variable in asked:
        value = variable.read(c)[0]
        if variable.is_class:
            said.append(variable.labels[value] if len(asked) == 1 else f"{variable.name} {variable.labels[value]}")
        else:
            said.append(f"{variable.name} {signed(value)}")
    return ", ".join(said)


def groups(asked: Sequence[Variable], c: Any, n: int) -> np.ndarray:
    """(n,) numbers, equal where two of the n conditions name the same classes, in the order of the classes."""
    classes = [variable.read(c) for variable in asked if variable.is_class]
    if not classes:
        return np.zeros(n, np.int64)
    return np.unique(np.stack(classes, axis=1), axis=0, return_inverse=True)[1].reshape(n)


def _reader(j: int) -> Callable[[Any], np.ndarray]:
    return lambda c: np.asarray(c)[:, j]


def _writer(j: int) -> Callable[[Any, np.ndarray], np.ndarray]:
    def write(c: Any, values: np.ndarray) -> np.ndarray:
        vectors = np.array(c, np.float64)
        vectors[:, j] = values
        return vectors

    return write


def _inside(key: str, variable: Variable, alone: bool) -> Variable:
    """A variable of the part `key` as a variable of the dict; `alone`: the part says nothing else."""
    return replace(
        variable,
        name=key if alone else f"{key}: {variable.name}",
        read=lambda c: variable.read(c[key]),
        write=lambda c, values: {**c, key: variable.write(c[key], values)},
    )


def _names(names: Any, n: int) -> list[str]:
    if names is None:
        return []
    if isinstance(names, (str, Mapping)):
        raise TypeError(f"names: expected a list of {n} names, got {names!r}")
    found = [str(name) for name in names]
    if found and len(found) != n:
        raise ValueError(f"names: expected {n} names, got {len(found)}")
    return found
