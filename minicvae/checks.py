"""Numbers that users hand in: each check returns the value, or raises an error that names the argument."""

from __future__ import annotations

import operator
from typing import Any

__all__ = ["whole"]


def whole(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int of at least `least`; NumPy's integers will do, True and 2.0 will not. Raises ValueError."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return number
