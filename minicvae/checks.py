"""Numbers that users hand in: each check returns the value, or raises an error that names the argument."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

__all__ = ["not_negative", "whole"]


def whole(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int of at least `least`; NumPy's integers will do, True and 2.0 will not. Raises ValueError."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return number


def not_negative(**settings: Any) -> None:
    """Raises ValueError for a setting that is no number, negative, NaN or infinite, by its name."""
    for name, value in settings.items():
        if not (isinstance(value, Real) and math.isfinite(value) and float(value) >= 0):
            raise ValueError(f"{name}: expected a number of at least 0, got {value!r}")
