"""What every source of data hands over: images and their labels, checked once."""

import dataclasses

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """n grey images with one label each.

    x uint8 (n, h, w) in 0..255; y integer (n,). `class_names[k]` is what label k is called; it is empty where
    the numbers are the names, as with digits.

    Raises TypeError for other element types and ValueError for other shapes or no examples at all.
    """

    x: NDArray[np.uint8]
    y: NDArray[np.integer]
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.x.dtype != np.uint8:
            raise TypeError(f"x: expected uint8 images in 0..255, got {self.x.dtype}")
        if self.x.ndim != 3 or self.x.size == 0:
            raise ValueError(f"x: expected the shape (n, h, w) with nothing empty, got {self.x.shape}")
        if not np.issubdtype(self.y.dtype, np.integer):
            raise TypeError(f"y: expected integer labels, got {self.y.dtype}")
        if self.y.shape != self.x.shape[:1]:
            raise ValueError(f"y: expected one label for each of {len(self.x)} images, got the shape {self.y.shape}")

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"Dataset(x={self.x.dtype}{self.x.shape}, y={self.y.dtype}{self.y.shape})"

    def hold_out(self, n: int) -> tuple["Dataset", "Dataset"]:
        """(all but the last n examples, the last n examples), both views: nothing is copied.

        For validation without touching the test set. Raises ValueError unless both parts get an example.
        """
        if not 0 < n < len(self):
            raise ValueError(f"n: expected 1 to {len(self) - 1} of {len(self)} examples, got {n}")
        return (
            dataclasses.replace(self, x=self.x[:-n], y=self.y[:-n]),
            dataclasses.replace(self, x=self.x[-n:], y=self.y[-n:]),
        )
