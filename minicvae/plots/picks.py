"""What a picture is asked to show: its arguments, checked, and the examples that it picks."""

from __future__ import annotations

from typing import Any

import numpy as np

from minicvae.models.cvae import ConditionalVAE
from minicvae.plots.values import first, repeat, take

__all__ = ["as_ink", "check_images_of", "check_label", "check_positive", "in_turn", "pairs"]


def check_images_of(model: ConditionalVAE, x: Any, c: Any) -> np.ndarray:
    """x as (n, h, w), still of its own type; or the model's own error that says what is wrong with x or c."""
    images, _ = model.check_data(x, c)
    return images.reshape(len(images), *model.image_shape)


def check_label(model: ConditionalVAE, label: Any) -> Any:
    """One entry of a condition, `first` for None; or an error that says what the model knows."""
    if label is None:
        return first(model.condition)
    model.condition.encode(repeat(label, 1), model.kernels, model.dtype, "label")
    return take(repeat(label, 1), 0)


def check_positive(value: int, name: str) -> int:
    """`value`, or an error if it is below 1."""
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value!r}")
    return value


def as_ink(images: np.ndarray) -> np.ndarray:
    """uint8 in 0..255 as floats in [0, 1]; other numbers as they are."""
    return images / np.float32(255) if images.dtype == np.uint8 else images


def in_turn(group: np.ndarray) -> np.ndarray:
    """Indices (n,): the first of each group, then the second of each, ...; group (n,)."""
    return np.lexsort((group, _rank(group)))


def pairs(group: np.ndarray) -> np.ndarray:
    """(m, 2) indices of the pairs first and second, third and fourth, ... of each group, the groups taking turns."""
    rank = _rank(group)
    order = np.lexsort((group, rank // 2))  # stable: within a pair the earlier comes first
    a, b = order[:-1], order[1:]
    paired = (group[a] == group[b]) & (rank[a] // 2 == rank[b] // 2)
    return np.stack([a[paired], b[paired]], axis=1)


def _rank(group: np.ndarray) -> np.ndarray:
    """How many of the same group come before each entry, (n,)."""
    order = np.argsort(group, kind="stable")
    _, starts, counts = np.unique(group[order], return_index=True, return_counts=True)
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(starts, counts)
    return rank
