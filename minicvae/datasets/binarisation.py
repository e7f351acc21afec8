"""Grey images as black and white ones, drawn at random."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicvae.randomness import Purpose, generator

__all__ = ["binarise"]

ROWS = 1000  # images at a time, so that the random numbers need little memory


def binarise(x: Any, seed: int = 0) -> NDArray[np.uint8]:
    """Every pixel 255 with probability x / 255, else 0: x uint8 of any shape (n, ...) -> uint8 of the same shape.

    Drawn once, as a function of the seed and of the pixel's place; `fit(..., binarise=True)` draws anew at each epoch.

    Raises TypeError for images that are not uint8, or a seed that is no integer.
    """
    images = np.asarray(x)
    if images.dtype != np.uint8:
        raise TypeError(f"x: expected uint8 images in 0..255, got type {images.dtype}")
    drawn = np.empty_like(images)
    for step, start in enumerate(range(0, len(images), ROWS)):
        grey = images[start : start + ROWS]
        u = generator(seed, Purpose.SAMPLE_PIXELS, step=step).random(grey.shape)
        drawn[start : start + ROWS] = np.where(255 * u < grey, 255, 0)
    return drawn
