"""What contestants have in common: how they are spoken to, and the images that they train on.

A line "TASK N" comes in, the seconds that N rounds of the task took go out. The first line that goes out is "ready",
written when everything is loaded, compiled and warm.
"""

import sys
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np

from minicvae import datasets

__all__ = ["serve", "training_images"]


@cache
def training_images() -> np.ndarray:
    """MNIST's, uint8 (60,000, 28, 28), read once: to unpack them takes a second. To be left as they are."""
    return datasets.load("mnist")[0].x


def serve(tasks: Mapping[str, Callable[[int], float]]) -> None:
    """Answer lines until the input ends. tasks: name -> a function of N that returns seconds."""
    print("ready", flush=True)
    for line in sys.stdin:
        name, n = line.split()
        print(tasks[name](int(n)), flush=True)
