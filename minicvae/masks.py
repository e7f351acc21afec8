"""Which pixels of an image are hidden: quadrants, rectangles, and masks of one's own.

A mask is a bool array, true where a pixel is hidden; (h, w) for all images alike, or (n, h, w) with one for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minicvae.randomness import Purpose, generator

__all__ = ["check_hidden", "quadrants", "random_rectangles", "rectangle"]


def quadrants(shown: int, image_shape: Sequence[int] = (28, 28)) -> np.ndarray:
    """The mask (h, w) that leaves so many quadrants to be seen.

    1: the lower left; 2: the left half; 3: all but the lower right. Sohn, Lee, Yan 2015, section 5.1. Where a side is
    odd, the lower or right part has the pixel more.

    Raises ValueError for another number of quadrants, or an image too small to have any.
    """
    if shown not in (1, 2, 3):
        raise ValueError(f"shown: expected 1, 2 or 3 quadrants, got {shown!r}")
    h, w = _check_shape(image_shape)
    if min(h, w) < 2:
        raise ValueError(f"image_shape: expected sides of at least 2 pixels, got {(h, w)}")
    lower, right = np.arange(h)[:, None] >= h // 2, np.arange(w) >= w // 2
    if shown == 1:
        return right | ~lower
    return np.broadcast_to(right, (h, w)).copy() if shown == 2 else right & lower


def rectangle(top: int, left: int, height: int, width: int, image_shape: Sequence[int] = (28, 28)) -> np.ndarray:
    """The mask (h, w) that hides a rectangle of `height` by `width` pixels whose first row and column are top, left.

    Raises ValueError for a rectangle that is empty or reaches beyond the image.
    """
    h, w = _check_shape(image_shape)
    if not (0 <= top < top + height <= h and 0 <= left < left + width <= w):
        raise ValueError(
            f"top, left, height, width: expected a rectangle within {h}x{w} pixels, "
            f"got {top}, {left}, {height}, {width}"
        )
    mask = np.zeros((h, w), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def random_rectangles(
    n: int, image_shape: Sequence[int] = (28, 28), *, share: tuple[float, float] = (0.25, 0.75), seed: int = 0
) -> np.ndarray:
    """n masks (n, h, w), each hiding a rectangle drawn at random: size first, then place, all equally likely.

    share: the least and the greatest height and width, as a share of the image's.

    Raises ValueError for n below 1, or shares that are not 0 <= least <= greatest <= 1.
    """
    if n < 1:
        raise ValueError(f"n: expected at least 1, got {n!r}")
    least, greatest = share
    if not 0 <= least <= greatest <= 1:
        raise ValueError(f"share: expected 0 <= least <= greatest <= 1, got {share!r}")
    rng = generator(seed, Purpose.MASK)
    inside = []
    for side in _check_shape(image_shape):
        low, high = (max(1, round(part * side)) for part in share)
        length = rng.integers(low, high, n, endpoint=True)
        start = rng.integers(0, side - length, endpoint=True)
        at = np.arange(side)
        inside.append((at >= start[:, None]) & (at < (start + length)[:, None]))
    rows, columns = inside
    return rows[:, :, None] & columns[:, None, :]


def check_hidden(hidden: Any, n: int, image_shape: Sequence[int], name: str = "hidden") -> np.ndarray:
    """The masks of n images as (n, d) bool, a view where one mask is for all.

    Raises TypeError for anything but bools, ValueError for another shape or an image of which nothing is hidden.
    """
    masks, shape = np.asarray(hidden), tuple(image_shape)
    if masks.dtype != np.bool_:
        raise TypeError(f"{name}: expected bools, true where a pixel is hidden, got type {masks.dtype}")
    if masks.shape == shape:
        masks = masks[None]
    elif masks.shape != (n, *shape):
        raise ValueError(f"{name}: expected a mask of shape {shape}, or {(n, *shape)}, got shape {masks.shape}")
    masks = masks.reshape(len(masks), -1)
    if not masks.any(axis=1).all():
        i = np.flatnonzero(~masks.any(axis=1))[0]
        raise ValueError(f"{name}: expected something hidden in every image, got nothing hidden in mask {i}")
    return np.broadcast_to(masks, (n, masks.shape[1]))


def _check_shape(image_shape: Sequence[int]) -> tuple[int, int]:
    if len(image_shape) != 2 or min(image_shape) < 1:
        raise ValueError(f"image_shape: expected (h, w), both at least 1, got {tuple(image_shape)}")
    h, w = image_shape
    return h, w
