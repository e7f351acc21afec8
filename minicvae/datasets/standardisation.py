"""Columns of numbers brought to mean 0 and standard deviation 1, and back."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclasses.dataclass(frozen=True)
class Standardisation:
    """(values - mean) / scale, column by column: mean and scale hold one number per column of (n, d) values.

    Plain numbers, so that `dataclasses.asdict` goes into JSON and back without loss. The training set's own
    Standardisation must serve every later set: what a model was taught as 0 has to stay 0.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.scale):
            lengths = f"{len(self.mean)} and {len(self.scale)}"
            raise ValueError(f"mean, scale: expected one length, got {lengths}")

    @classmethod
    def fit(cls, values: ArrayLike) -> "Standardisation":
        """Mean and standard deviation of the columns of values (n, d); a constant column gets the scale 1.

        Raises ValueError for values of another shape, without rows, or not finite.
        """
        values = np.asarray(values, np.float64)
        if values.ndim != 2 or len(values) == 0:
            raise ValueError(f"values: expected the shape (n, d) with at least one row, got {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError("values: expected finite numbers, got NaN or infinity")
        mean, deviation = values.mean(axis=0), values.std(axis=0)
        # Rounding leaves a constant column a deviation of about 1e-16 of its mean.
        scale = np.where(deviation > 1e-12 * np.abs(mean), deviation, 1.0)
        return cls(tuple(mean.tolist()), tuple(scale.tolist()))

    def apply(self, values: ArrayLike) -> NDArray[np.float32]:
        """Standardised values, (..., d) -> (..., d)."""
        return ((self._columns(values) - self.mean) / self.scale).astype(np.float32)

    def invert(self, values: ArrayLike) -> NDArray[np.float32]:
        """What `apply` was given, from what it returned, (..., d) -> (..., d)."""
        return (self._columns(values) * self.scale + self.mean).astype(np.float32)

    def _columns(self, values: ArrayLike) -> NDArray[np.float64]:
        values = np.asarray(values, np.float64)
        if values.shape[-1:] != (len(self.mean),):
            raise ValueError(f"values: expected {len(self.mean)} columns, got the shape {values.shape}")
        return values
