"""Numbers that change while a model is trained: learning rates, and the weight of the KL.

A schedule is a function of the progress of training, `progress = steps done / steps in all` in [0, 1), so that the
same schedule suits a short run and a long one. A plain number serves wherever a schedule does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from minicvae.checks import not_negative, whole

__all__ = [
    "SCHEDULES",
    "Constant",
    "Cosine",
    "Cyclical",
    "Exponential",
    "Linear",
    "Schedule",
    "Steps",
    "Tripling",
    "as_schedule",
]


class Schedule:
    """value = schedule(progress)."""

    def __call__(self, progress: float) -> float:
        """The value at `progress` in [0, 1]."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """Always `value`."""

    value: float

    def __post_init__(self) -> None:
        not_negative(value=self.value)

    def __call__(self, progress: float) -> float:
        """`value`."""
        return self.value


@dataclass(frozen=True)
class Linear(Schedule):
    """From `start` to `end` in a straight line over the first `over` of training, then `end`.

    Linear(0, 1, over=0.3) is the KL warm-up of Bowman et al. 2016; Linear(1e-3, 0) a decaying rate.
    """

    start: float
    end: float
    over: float = 1.0

    def __post_init__(self) -> None:
        not_negative(start=self.start, end=self.end)
        _check_share("over", self.over)

    def __call__(self, progress: float) -> float:
        """start + (end - start) min(progress / over, 1)."""
        return self.start + (self.end - self.start) * min(progress / self.over, 1.0)


@dataclass(frozen=True)
class Cosine(Schedule):
    """end + (start - end) ½ (1 + cos(π progress)), after a linear rise from 0 over the first `warmup` of training.

    Loshchilov and Hutter 2017, without restarts.
    """

    start: float
    end: float = 0.0
    warmup: float = 0.0

    def __post_init__(self) -> None:
        not_negative(start=self.start, end=self.end)
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup: expected a share of training, 0 <= warmup < 1, got {self.warmup!r}")

    def __call__(self, progress: float) -> float:
        """The cosine over what follows the warm-up."""
        if progress < self.warmup:
            return self.start * progress / self.warmup
        rest = (progress - self.warmup) / (1 - self.warmup)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * rest)) / 2


@dataclass(frozen=True)
class Exponential(Schedule):
    """start · (end / start)^progress: the same factor at every step."""

    start: float
    end: float

    def __post_init__(self) -> None:
        not_negative(start=self.start, end=self.end)
        if self.start == 0 or self.end == 0:
            raise ValueError(f"start, end: expected positive numbers, got {self.start!r}, {self.end!r}")

    def __call__(self, progress: float) -> float:
        """A straight line on a logarithmic scale."""
        return self.start * (self.end / self.start) ** progress


@dataclass(frozen=True)
class Steps(Schedule):
    """values[i] until progress reaches boundaries[i], then the next; one value more than boundaries."""

    values: tuple[float, ...]
    boundaries: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.boundaries) + 1 or list(self.boundaries) != sorted(self.boundaries):
            raise ValueError(
                "values, boundaries: expected rising boundaries and one value more than boundaries, "
                f"got {self.values}, {self.boundaries}"
            )
        for value in self.values:
            not_negative(values=value)

    def __call__(self, progress: float) -> float:
        """The value of the interval that progress lies in."""
        return self.values[sum(progress >= boundary for boundary in self.boundaries)]


@dataclass(frozen=True)
class Tripling(Schedule):
    """start · 10^(-i/7) in stage i = 0, 1, ..., stages - 1, each three times as long as the one before.

    With stage 0 an epoch long there are 1 + 3 + 9 + ... = (3^stages - 1) / 2 epochs: 3,280 in the eight stages of
    Burda, Grosse, Salakhutdinov 2016, section 5, over which the rate falls from 1e-3 to 1e-4.
    """

    start: float = 1e-3
    stages: int = 8

    def __post_init__(self) -> None:
        not_negative(start=self.start)
        whole("stages", self.stages)

    @property
    def ends(self) -> list[int]:
        """After how many epochs each stage is over."""
        return [(3**stage - 1) // 2 for stage in range(1, self.stages + 1)]

    def __call__(self, progress: float) -> float:
        """The rate of the stage that progress lies in."""
        *ends, epochs = self.ends
        return self.start * 10 ** (-sum(progress >= end / epochs for end in ends) / 7)


@dataclass(frozen=True)
class Cyclical(Schedule):
    """`cycles` times: from `start` to `end` in a straight line over the first `rise` of a cycle, then `end`.

    Cyclical annealing of the KL, Fu et al. 2019, equation 6.
    """

    start: float = 0.0
    end: float = 1.0
    cycles: int = 4
    rise: float = 0.5

    def __post_init__(self) -> None:
        _check_share("rise", self.rise)
        not_negative(start=self.start, end=self.end)
        whole("cycles", self.cycles)

    def __call__(self, progress: float) -> float:
        """The linear rise within the cycle that progress lies in."""
        return Linear(self.start, self.end, self.rise)((progress * self.cycles) % 1.0)


def _check_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{name}: expected a share of training, 0 < {name} <= 1, got {value!r}")


SCHEDULES = (Constant, Linear, Cosine, Exponential, Steps, Tripling, Cyclical)


def as_schedule(name: str, value: float | Schedule) -> Schedule:
    """A schedule as it is, a finite number of at least 0 as a constant one; `name` is the argument's, for the error."""
    if isinstance(value, Schedule):
        return value
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}: expected a finite number of at least 0 or a schedule, got {value!r}")
    return Constant(float(value))
