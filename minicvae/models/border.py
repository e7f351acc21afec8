"""The border: what users hand in is checked here, once, and deep inside nothing is checked again."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from minicvae.kernels import Array

__all__ = ["check_count", "check_images", "check_matrix"]


def check_images(x: Any, image_shape: Sequence[int], name: str = "x") -> np.ndarray:
    """Images as a flat view (n, d), d = h w: uint8 as they are, numbers in [0, 1] as they are, bool as 0 and 1.

    x: (n, d), (n, h, w) or (n, h, w, 1), NumPy or anything that NumPy makes an array of.

    Raises
    ------
    ValueError
        For another shape, no images at all, numbers outside [0, 1] or NaN.
    TypeError
        For another type of number.
    """
    images = np.asarray(x)
    shape, d = tuple(image_shape), prod(image_shape)
    if images.shape[1:] not in ((d,), shape, (*shape, 1)):
        expected = " or ".join(f"(n, {', '.join(map(str, s))})" for s in ((d,), shape))
        raise ValueError(f"{name}: expected images of shape {expected}, got shape {images.shape}")
    if len(images) == 0:
        raise ValueError(f"{name}: expected at least one image, got none")
    if images.dtype == np.bool_:
        images = images.astype(np.float32)
    elif images.dtype != np.uint8:
        if not np.issubdtype(images.dtype, np.floating):
            raise TypeError(f"{name}: expected uint8 in 0..255 or floats in [0, 1], got type {images.dtype}")
        low, high = images.min(), images.max()
        if not (low >= 0 and high <= 1):
            finite = "not finite (NaN)" if np.isnan(low) else f"from {low:g} to {high:g}"
            hint = " (255 is for uint8)" if high > 1 else ""
            raise ValueError(f"{name}: expected floats in [0, 1], got numbers {finite}{hint}")
    return images.reshape(len(images), d)


def check_matrix(values: Any, columns: int, name: str, dtype: Any) -> np.ndarray:
    """Finite real numbers (n, columns) with n >= 1, as `dtype`; or an error that names the argument."""
    matrix = np.asarray(values)
    if matrix.ndim != 2 or matrix.shape[1] != columns or len(matrix) == 0:
        raise ValueError(f"{name}: expected shape (n, {columns}) with n >= 1, got shape {matrix.shape}")
    if not np.issubdtype(matrix.dtype, np.number) or np.iscomplexobj(matrix):
        raise TypeError(f"{name}: expected real numbers, got type {matrix.dtype}")
    with np.errstate(over="ignore"):
        matrix = matrix.astype(dtype)
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name}: expected numbers that are finite in {np.dtype(dtype)}, got NaN or infinity")
    return matrix


def check_count(n: int, found: int, name: str, other: str = "x") -> None:
    """Refuse `name` if it has not one entry for each of the n examples of `other`."""
    if n != found:
        raise ValueError(f"{name}: expected one entry for each of the {n} examples of {other}, got {found}")


def as_rows(values: Array, image_shape: Sequence[int]) -> Array:
    """(n, d) as images (n, h, w)."""
    return values.reshape(len(values), *image_shape)
