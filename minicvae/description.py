"""Objects of the library as plain JSON data, and back: what a saved model is rebuilt from.

Layers, conditions, likelihoods, objectives and schedules are dataclasses, so their fields say all there is to say:
`{"type": "Dense", "d_in": 794, "d_out": 256, ...}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

__all__ = ["describe", "restore"]


def describe(value: Any) -> Any:
    """`value` as JSON data: a dataclass becomes its type's name and its fields.

    Raises
    ------
    TypeError
        If something in it has no description.
    """
    if is_dataclass(value) and not isinstance(value, type):
        described = {f.name: describe(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"type": type(value).__name__, **described}
    if isinstance(value, Mapping):
        return {str(key): describe(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(f"{type(value).__name__} {value!r} cannot be described: expected a dataclass, or plain JSON data")


def restore(data: Any, classes: Iterable[type]) -> Any:
    """The object that `describe` was given, built from one of `classes` by name, and from no other.

    Raises
    ------
    ValueError
        If the data names a type that is not among `classes`.
    """
    by_name = {c.__name__: c for c in classes}

    def build(data: Any) -> Any:
        if isinstance(data, list):
            return [build(v) for v in data]
        if not isinstance(data, dict):
            return data
        name = data.get("type")
        if not isinstance(name, str):  # a mapping of the object's own, in which "type" may be a name like any other
            return {key: build(v) for key, v in data.items()}
        if name not in by_name:
            raise ValueError(
                f"the description names the type {name!r}, which is none of {', '.join(by_name)}; "
                "hand classes of your own to `load(path, classes=[...])`"
            )
        return by_name[name](**{key: build(v) for key, v in data.items() if key != "type"})

    return build(data)
