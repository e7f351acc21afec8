"""What the condition c may be, and how it reaches the networks.

A condition says what users hand in, refuses what is wrong, and turns it into the parts that a network's first layer
joins: `OneHot` labels or a float matrix. Where a class is embedded, the networks carry the embedding (one in the
encoder, one in the decoder), and `joined` puts it in front of them. `Nothing` makes a plain VAE of a CVAE.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minicvae.checks import whole
from minicvae.kernels import Array, OneHot, Reference
from minicvae.kernels.reference import Part
from minicvae.layers import Embedding, Layer, Pathways

__all__ = [
    "CONDITIONS",
    "Classes",
    "Condition",
    "Nothing",
    "Parts",
    "Vector",
    "count",
    "draw",
    "groups",
    "joined",
    "repeat",
    "select",
]


class Condition:
    """The base of all conditions; `name` is what an error calls the argument."""

    @property
    def widths(self) -> list[int]:
        """Columns that each part adds to the joined input of a network."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """Columns that the condition adds in all."""
        return sum(self.widths)

    def encode(self, c: Any, kernels: Reference, dtype: Any, name: str = "c") -> tuple[Part, ...]:
        """c as users give it -> the parts that the networks join, on the device.

        Raises TypeError or ValueError for a wrong type, shape, range or length, and for numbers that are not finite.
        """
        raise NotImplementedError

    def example(self, n: int) -> Any:
        """A valid c for n examples, to see what shapes the networks give."""
        raise NotImplementedError

    def embeddings(self) -> list[Layer | None]:
        """For each part, a new layer that embeds it, or None where it enters as it is."""
        raise NotImplementedError


@dataclass(frozen=True)
class Classes(Condition):
    """One of `classes` labels 0, 1, ...; one-hot, or embedded in `embedding` dimensions where that is above 0."""

    classes: int
    embedding: int = 0

    def __post_init__(self) -> None:
        whole("classes", self.classes)
        whole("embedding", self.embedding, least=0)

    @property
    def widths(self) -> list[int]:
        """The one-hot's or the embedding's width."""
        return [self.embedding or self.classes]

    def encode(self, c: Any, kernels: Reference, dtype: Any, name: str = "c") -> tuple[Part, ...]:
        """Labels (n,) of any integer type, or a list of integers."""
        labels = np.asarray(c)
        if labels.size == 0:  # an empty list has no type of its own
            labels = labels.astype(np.int64)
        if labels.ndim != 1:
            raise ValueError(f"{name}: expected labels of shape (n,), got shape {labels.shape}")
        if not np.issubdtype(labels.dtype, np.integer):
            raise TypeError(f"{name}: expected integer labels, got type {labels.dtype}")
        wrong = np.flatnonzero((labels < 0) | (labels >= self.classes))
        if len(wrong):
            i = wrong[0]
            raise ValueError(f"{name}: expected labels 0 to {self.classes - 1}, got {labels[i]} at index {i}")
        return (OneHot(kernels.array(labels.astype(np.int64)), self.classes),)

    def example(self, n: int) -> np.ndarray:
        """Label 0."""
        return np.zeros(n, np.int64)

    def embeddings(self) -> list[Layer | None]:
        """A new embedding, or nothing for one-hot."""
        return [Embedding(self.classes, self.embedding) if self.embedding else None]


@dataclass(frozen=True)
class Vector(Condition):
    """A vector of `dim` real numbers; best standardised to mean 0 and variance 1."""

    dim: int

    def __post_init__(self) -> None:
        whole("dim", self.dim)

    @property
    def widths(self) -> list[int]:
        """The vector's length."""
        return [self.dim]

    def encode(self, c: Any, kernels: Reference, dtype: Any, name: str = "c") -> tuple[Part, ...]:
        """Numbers (n, dim)."""
        vector = np.asarray(c)
        if vector.ndim != 2 or vector.shape[1] != self.dim:
            raise ValueError(f"{name}: expected vectors of shape (n, {self.dim}), got shape {vector.shape}")
        if not np.issubdtype(vector.dtype, np.number) or np.iscomplexobj(vector):
            raise TypeError(f"{name}: expected real numbers, got type {vector.dtype}")
        finite = np.isfinite(vector)
        if not finite.all():
            i, j = np.argwhere(~finite)[0]
            raise ValueError(f"{name}: expected finite numbers, got {vector[i, j]} at index ({i}, {j})")
        with np.errstate(over="ignore"):
            numbers = vector.astype(dtype)
        if not np.isfinite(numbers).all():
            raise ValueError(f"{name}: expected numbers finite in {np.dtype(dtype)}, got {np.abs(vector).max()}")
        return (kernels.array(numbers),)

    def example(self, n: int) -> np.ndarray:
        """Zeros."""
        return np.zeros((n, self.dim))

    def embeddings(self) -> list[Layer | None]:
        """A vector enters as it is."""
        return [None]


@dataclass(frozen=True)
class Nothing(Condition):
    """No condition: a part without columns, which adds nothing to what it is joined with.

    c then says only how many examples there are: the number itself, or anything that has a length, such as labels,
    which are not looked at. So whatever trains and shows a conditional model does the same for this one.
    """

    @property
    def widths(self) -> list[int]:
        """No columns."""
        return [0]

    def encode(self, c: Any, kernels: Reference, dtype: Any, name: str = "c") -> tuple[Part, ...]:
        """A whole number, or something with a length."""
        try:
            n = len(c) if hasattr(c, "__len__") else operator.index(c)
        except TypeError:
            n = -1
        if n < 0:
            raise TypeError(f"{name}: expected how many examples there are, or something with a length, got {c!r}")
        return (kernels.xp.zeros((n, 0), dtype),)

    def example(self, n: int) -> np.ndarray:
        """Numbers without columns."""
        return np.zeros((n, 0))

    def embeddings(self) -> list[Layer | None]:
        """There is nothing to embed."""
        return [None]


@dataclass(frozen=True)
class Parts(Condition):
    """Several conditions together, by name: `Parts({"digit": Classes(10), "thickness": Classes(3)})`.

    c is then a dict with the same names: `{"digit": labels, "thickness": labels}`.
    """

    parts: Mapping[str, Condition]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("parts: expected at least one condition by name, got none")

    @property
    def widths(self) -> list[int]:
        """The widths of all parts, in order."""
        return [width for part in self.parts.values() for width in part.widths]

    def encode(self, c: Any, kernels: Reference, dtype: Any, name: str = "c") -> tuple[Part, ...]:
        """A mapping with one entry for each part."""
        if not isinstance(c, Mapping):
            raise TypeError(f"{name}: expected a dict with the names {', '.join(self.parts)}, got {type(c).__name__}")
        if set(c) != set(self.parts):
            raise ValueError(f"{name}: expected the names {', '.join(self.parts)}, got {', '.join(map(str, c))}")
        encoded = {key: part.encode(c[key], kernels, dtype, f"{name}[{key!r}]") for key, part in self.parts.items()}
        lengths = {key: count(parts) for key, parts in encoded.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{name}: expected parts of one length, got {lengths}")
        return tuple(part for parts in encoded.values() for part in parts)

    def example(self, n: int) -> dict[str, Any]:
        """The parts' examples."""
        return {name: part.example(n) for name, part in self.parts.items()}

    def embeddings(self) -> list[Layer | None]:
        """The parts' embeddings, in order."""
        return [layer for part in self.parts.values() for layer in part.embeddings()]


CONDITIONS = (Classes, Vector, Nothing, Parts)


def draw(condition: Condition, n: int, rng: np.random.Generator) -> Any:
    """A random c for n examples, as users hand it in: labels drawn evenly, numbers from N(0, 1)."""
    if isinstance(condition, Classes):
        return rng.integers(0, condition.classes, n)
    if isinstance(condition, Parts):
        return {name: draw(part, n, rng) for name, part in condition.parts.items()}
    return rng.normal(size=(n, condition.width))


def take(c: Any, index: Any) -> Any:
    """The entries c[index] of a condition as users hand it in: an array, or a dict of them."""
    if isinstance(c, Mapping):
        return {name: take(part, index) for name, part in c.items()}
    return np.asarray(c)[index]


def _arrays(parts: tuple[Part, ...]) -> Iterator[Array]:
    return (part.labels if isinstance(part, OneHot) else part for part in parts)


def count(parts: tuple[Part, ...]) -> int:
    """How many examples the encoded condition has."""
    return len(next(_arrays(parts)))


def groups(parts: tuple[Part, ...], kernels: Reference) -> np.ndarray:
    """(n,) numbers, equal where all classes of the encoded condition are; the class itself where there is only one."""
    classes = [kernels.to_numpy(part.labels) for part in parts if isinstance(part, OneHot)]
    if len(classes) == 1:
        return classes[0]
    if not classes:
        return np.zeros(count(parts), np.int64)
    return np.unique(np.stack(classes, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def repeat(parts: tuple[Part, ...], times: int) -> tuple[Part, ...]:
    """The encoded condition `times` over, one whole copy after the other."""

    def again(a: Array) -> Array:  # by methods that the arrays of every device have
        return a[None].repeat(times, axis=0).reshape(times * len(a), *a.shape[1:])

    return parts if times == 1 else _with_rows(parts, again)


def select(parts: tuple[Part, ...], index: Any) -> tuple[Part, ...]:
    """The encoded condition of some examples: parts[index]."""
    return _with_rows(parts, lambda rows: rows[index])


def gather(kernels: Reference, parts: tuple[Part, ...], index: Array) -> tuple[Part, ...]:
    """The encoded condition of a batch of a training: parts[index], index (n,) on the device."""
    return _with_rows(parts, lambda rows: kernels.take(rows, index))


def _with_rows(parts: tuple[Part, ...], change: Callable[[Array], Array]) -> tuple[Part, ...]:
    """The encoded condition with other rows: `change` makes them of each part's labels or floats."""
    return tuple(
        OneHot(change(part.labels), part.classes) if isinstance(part, OneHot) else change(part) for part in parts
    )


def joined(condition: Condition, trunk: Layer, *, alone: bool = False) -> Layer:
    """A network on (x, c): `trunk`, with new embeddings in front of it where the condition asks for them.

    alone: a network on c.
    """
    embeddings = condition.embeddings()
    if all(layer is None for layer in embeddings):
        return trunk
    return Pathways(embeddings if alone else [None, *embeddings], trunk)
