"""The slope of a computed function, with a bound on its error: central differences, extrapolated to h = 0.

A line is a function t -> F(t) with values in Rᵐ, met only by calling it; u in Rᵐ is the upstream gradient. Wanted:
d/dt <u, F(t)> at t = 0.

**Why central differences, and why extrapolate.** Where F is smooth, the central difference

    D(h) = <u, F(h) - F(-h)> / 2h  =  F' + a₁ h² + a₂ h⁴ + ...

errs by even powers of h only, and by rounding noise of the size sigma / h. A single step must trade one for the other
and keeps ten digits at best. Instead take h, h/r, h/r², ... and let Neville's scheme cancel one power after another,

    T_i0 = D(h_i),      T_ij = T_i,j-1 + (T_i,j-1 - T_i-1,j-1) / (r^2j - 1),

so that large steps, which are hardly noisy, already give all digits (Richardson 1911; Ridders 1982).

**The bound.** T_ij is believed to within the sum of

    max(c_i,j-1, c_i-1,j-1 / r^2j), c_ij = |T_ij - T_i-1,j|    truncation: what the last step changed (Ridders), but no
                                                               less than theory makes of the change before it
    8 sigma / 2h for each D(h), carried through the scheme     rounding, see below
    ½ max(|J_ij|, |J_i,j+1|)                                   half the jump of the slope, see below

and the entry with the least bound is the estimate: every line finds its own step and order, by seeing the error fall
as theory says. Steps get smaller until truncation has sunk below rounding, for then nothing is left to gain. Steps
that leave the domain of F (a value that is not finite, a ValueError, an ArithmeticError) fall out by themselves. Steps
that leap over a pole do not, and their bound is false: of two entries that exclude each other the later one, of smaller
steps, is believed, and steps go on well below the distance from 0, where poles are, of what they are added to.

**Kinks.** Central differences converge at a kink too, to the mean of the two slopes. The one-sided slopes tell:

    G(h) = <u, F(h) - 2 F(0) + F(-h)> / h  =  J + b₁ h + b₂ h³ + ...

is the slope on the right less the slope on the left. The same scheme (odd powers) extrapolates the jump J: zero for a
smooth F, while at a kink the bound cannot fall below half of it (two orders are asked, lest a small jump be hidden by
the truncation error of one). A kink nearby is outrun by smaller steps; one that the smallest still show is at 0.
There a backward may take the slope on the right for one output and on the left for another: the bound cannot fall
below half the sum, over the outputs, of |u| times the jump of each.

**The noise** sigma of every output is measured: at 16 points so close together that any smooth F is a parabola through
them, what third differences show is noise (Hamming 1962; Moré and Wild 2011, Estimating computational noise). So a sum
of large terms that cancel is known to be noisy. Outputs that no step moves add none.

**The complex step.** An analytic F on the complex numbers has F' = Im F(ih) / h - O(h²) with no subtraction, hence no
cancellation: with h = 1e-30 it is exact to rounding (Squire and Trapp 1998).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

__all__ = ["EPS", "TINY", "Estimates", "Line", "complex_slopes", "norm", "rounding_noise", "slopes"]

Line = Callable[[float], tuple[float, np.ndarray]]
"""t -> (the t that the arithmetic took, F(t) as a flat float64 array)."""

EPS = float(np.finfo(np.float64).eps)
TINY = 2.0**-100  # the complex step
RATIO = 2.2  # of a step to the next; not 2, lest all steps be multiples of one period of an oscillating F
LEVELS = 23  # step sizes at most: from h down to h / 2.2^22, a factor of 3e7
LEVELS_WITHIN, LEVELS_MOST = 12, 64  # at least so many that are smaller than the distance to the origin; in all
NOISE_POINTS = np.arange(1, 17) ** 1.5  # unevenly spaced, lest they fall in step with the last place of F
NOISE_SPACINGS = (2.0**-36, 2.0**-30, 2.0**-24, 2.0**-18, 2.0**-12, 2.0**-10)
ALTERNATIONS = 6  # changes of sign that noise has among 12 neighbouring differences at least; a bend has none, a kink 4
WIDE = 2.0**-12  # spacing: what moves over such distances and still shows no noise has none
GROWTH = 8  # how much further apart the points are that tell kinks, which show more there, from noise
FOURTH_LARGEST = 1.08  # of the 13 third differences of numbers from N(0, 1) at these points: the median
LASTING = 3  # steps, the smallest, that have to show a kink at 0, a jump that does not fall with them
SAFETY = 8  # standard deviations of noise that the bound allows for


@dataclass
class Estimates:
    """The slopes of m lines; all arrays (m,).

    slope: the estimates. bound: |slope - truth| is at most this. jump: the part of the bound that is half the
    difference between the one-sided slopes. step: the smallest step that the estimate used (nan: the complex step).
    """

    slope: np.ndarray
    bound: np.ndarray
    jump: np.ndarray
    step: np.ndarray


def norm(x: np.ndarray) -> float:
    """The Euclidean length, also where the squares would overflow or vanish."""
    largest = float(np.abs(x).max(initial=0.0))
    return largest * float(np.linalg.norm(x / largest)) if 0 < largest < np.inf else largest


def rounding_noise(lines: Sequence[Line], base: np.ndarray) -> np.ndarray:
    """Standard deviation of the rounding errors of every output near t = 0; never below half a unit in the last place.

    base: F(0), (m,) -> (m,). The points lie on one side of 0, so that a kink at 0 is not taken for noise; a kink among
    them spoils three of the 13 differences, so the fourth largest is taken. Of the spacings each output has the first
    that shows any noise: what is computed in float32, or is small beside the numbers that it comes from, stands still
    at the finer ones. So does a term in float32 beside one in float64, which shows noise of its own: far more, shown by
    a spacing below `WIDE`, is taken instead, unless points further apart show more again. Noise has one size; where
    thousands of kinks lie close together, what they show grows with the distance. What stands still all along a line,
    but for a jump or two, is measured on the next, which reaches further. There, and where it is to be taken instead, a
    bend counts for noise unless the differences have to alternate.
    """
    contrasts = _third_differences(NOISE_POINTS)
    noise = np.full(base.shape, np.nan)
    for line, spacing in product(lines, NOISE_SPACINGS):
        if not np.isnan(noise).any() and (spacing >= WIDE or line is not lines[0]):
            break
        points = _along(line, spacing, base)
        with np.errstate(all="ignore"):
            change = points - points[0]
            differences = contrasts @ change
            measured = _loudness(differences)
            shows = measured > 8 * EPS * np.abs(change).max(axis=0)
            alternates = np.count_nonzero(differences[1:] * differences[:-1] < 0, axis=0) >= ALTERNATIONS
            moves = np.count_nonzero(np.diff(points, axis=0), axis=0) >= 4
            unknown = np.isnan(noise)
            if line is lines[0]:
                alternates |= unknown
            louder = unknown | (measured > SAFETY * noise) if spacing < WIDE else unknown
            heard = shows & alternates & louder
            if (instead := heard & ~unknown).any():
                further = _along(line, GROWTH * spacing, base)
                heard &= ~(instead & (_loudness(contrasts @ (further - further[0])) >= GROWTH / 2 * measured))
        np.copyto(noise, measured, where=heard)
        if spacing >= WIDE:
            np.copyto(noise, 0, where=moves & np.isnan(noise))
    return np.fmax(noise, EPS / 2 * np.abs(base))


def slopes(
    lines: Sequence[Line],
    first_steps: np.ndarray,
    base: np.ndarray,
    u: np.ndarray,
    noise: np.ndarray,
    origins: np.ndarray | float = np.inf,
) -> Estimates:
    """d/dt <u, F(t)> at t = 0 for each line, by extrapolated central differences.

    first_steps (m,): the largest step of each line. base (k,): F(0). u (k,): upstream gradient. noise (k,): standard
    deviation of the rounding errors of F. origins (m,): the |t| nearest to 0 at which something that t is added to is
    zero; steps become smaller than that.
    """
    m = len(lines)
    best = Estimates(np.full(m, np.nan), np.full(m, np.inf), np.full(m, np.inf), np.full(m, np.nan))
    history: list[np.ndarray] = []
    settled, stirred = np.zeros(m, bool), np.full(m, np.median(np.abs(u) * noise))
    central, jump, rounding = _Scheme(2), _Scheme(1), _Scheme(2)
    with np.errstate(divide="ignore"):  # an origin beside a subnormal number may be 0 from here
        outside = (np.log(first_steps) - np.log(origins)) / np.log(RATIO)
    levels = np.clip(outside + LEVELS_WITHIN, LEVELS, LEVELS_MOST).astype(int)
    for level in range(levels.max()):
        settled |= level >= levels
        steps = first_steps / RATIO**level
        taken = np.full((4, m), np.nan)
        for i in np.flatnonzero(~settled):
            taken[:, i], stirred[i] = _differences(lines[int(i)], float(steps[i]), base, u, noise, stirred[i])
        history.append(taken)
        with np.errstate(all="ignore"):
            central.extend(taken[0])
            jump.extend(taken[1])
            rounding.extend_magnitudes(taken[2])
            for j in range(1, level):
                truncation = central.error(j)
                half_jump = np.maximum(np.abs(jump.row[j]), np.abs(jump.row[j + 1])) / 2
                bound = truncation + rounding.row[j] + half_jump
                apart = np.abs(central.row[j] - best.slope) > bound + best.bound
                better = apart | (bound < best.bound)
                for held, new in (
                    (best.slope, central.row[j]),
                    (best.bound, bound),
                    (best.jump, half_jump),
                    (best.step, steps),
                ):
                    held[better] = new[better]
                settled |= truncation + half_jump <= rounding.row[j]
        if settled.all():
            break
    _settle_kinks(best, np.stack(history), first_steps, levels)
    return best


def complex_slopes(
    lines: Sequence[Callable[[], np.ndarray]], steps: np.ndarray, u: np.ndarray, noise: np.ndarray
) -> Estimates:
    """d/dt <u, F(t)> at t = 0 for each line, by the complex step; `lines[i]()` is F(i TINY), complex, (k,).

    steps (m,): differences of steps so large would have no truncation error; the rounding error that they would have is
    the bound, for even an exact slope of F is one of a computed F.
    """
    m = len(lines)
    out = Estimates(np.empty(m), np.empty(m), np.zeros(m), np.full(m, np.nan))
    for i, line in enumerate(lines):
        tangent = line().imag / TINY
        out.slope[i] = tangent @ u
        stirred = max(np.median(np.abs(u) * noise), norm((u * noise)[tangent != 0]))
        out.bound[i] = SAFETY * stirred / steps[i]
    return out


@np.errstate(over="ignore", invalid="ignore")
def _settle_kinks(best: Estimates, taken: np.ndarray, first_steps: np.ndarray, levels: np.ndarray) -> None:
    """Where the smallest steps still show a jump that does not fall with them, let them alone be the estimate.

    taken (k, 4, m): what `_differences` gave at every level, nan where a line had settled.
    """
    for i in np.flatnonzero(levels <= len(taken)):
        central, _, rounding, bends = taken[levels[i] - LASTING : levels[i], :, i].T
        jumps = bends / 2 - rounding
        if jumps.min() > jumps.max() / 2:  # and so all are above 0
            best.slope[i], best.jump[i] = central[-1], bends.max() / 2
            best.bound[i] = best.jump[i] + np.ptp(central) + rounding.max()
            best.step[i] = first_steps[i] / RATIO ** (levels[i] - 1)


def _third_differences(t: np.ndarray) -> np.ndarray:
    """The third differences of any four neighbours as rows of length one; zero for parabolas, (k - 3, k)."""
    rows = np.zeros((len(t) - 3, len(t)))
    for i in range(len(rows)):
        gaps = t[i : i + 4, None] - t[i : i + 4] + np.eye(4)
        weights = 1 / gaps.prod(axis=1)
        rows[i, i : i + 4] = weights / np.linalg.norm(weights)
    return rows


def _along(line: Line, spacing: float, base: np.ndarray) -> np.ndarray:
    """F at the points where noise is measured, (16, m)."""
    return np.stack([_at(line, t * spacing, base)[1] for t in NOISE_POINTS])


def _loudness(differences: np.ndarray) -> np.ndarray:
    """The standard deviation of noise with these third differences, (13, m) -> (m,)."""
    return np.sort(np.abs(differences), axis=0)[-4] / FOURTH_LARGEST


def _at(line: Line, t: float, base: np.ndarray) -> tuple[float, np.ndarray]:
    """The line at t; nan where t lies outside of the domain of F."""
    try:
        return line(t)
    except (ValueError, ArithmeticError):
        return t, np.full(base.shape, np.nan)


def _differences(
    line: Line, step: float, base: np.ndarray, u: np.ndarray, noise: np.ndarray, stirred: float
) -> tuple[tuple[float, float, float, float], float]:
    """D(h), G(h), the rounding error to allow for in D(h), and Σ |G(h)| of the outputs; and `stirred`.

    All are nan where F cannot be computed. Only outputs that the line moves are noisy. But a step may be too small for
    the last place of an output to show it: `stirred` is the most noise that <u, F> had at any step so far, and no less
    than that of a typical output.
    """
    right, above = _at(line, step, base)
    left, below = _at(line, -step, base)
    with np.errstate(all="ignore"):
        change = above - below
        central = float(change @ u) / (right - left)
        bends = u * ((above - base) / right - (below - base) / left)
        moved = (above != base) | (below != base)
        stirred = max(stirred, norm((u * noise)[moved]))
        local = EPS / 2 * np.maximum(np.abs(above), np.abs(below))
        rounding = SAFETY * max(stirred, norm((u * local)[moved])) / (right - left)
        return (central, float(bends.sum()), rounding, float(np.abs(bends).sum())), stirred


class _Scheme:
    """One row of Neville's scheme after the other, for many sequences at once.

    A sequence errs by h^p, h^(p+2), h^(p+4), ...; row[j] is free of the first j of them.
    """

    def __init__(self, power: int) -> None:
        self.power = power
        self.row: list[np.ndarray] = []
        self.changes: list[np.ndarray] = []  # |row[j] - row[j] of the row before|
        self.changes_before: list[np.ndarray] = []

    def fall(self, j: int) -> float:
        """How much the error of row[j] falls from one row to the next."""
        return RATIO ** (self.power + 2 * j)

    def extend(self, values: np.ndarray) -> None:
        """The row of the next step."""
        before, self.row, self.changes_before, self.changes = self.row, [values], self.changes, []
        for j, last in enumerate(before):
            change = self.row[j] - last
            self.changes.append(np.abs(change))
            self.row.append(self.row[j] + change / (self.fall(j) - 1))

    def extend_magnitudes(self, values: np.ndarray) -> None:
        """The same for the sizes of errors, which add up and never cancel."""
        before, self.row = self.row, [values]
        for j, last in enumerate(before):
            self.row.append((self.fall(j) * self.row[j] + last) / (self.fall(j) - 1))

    def error(self, j: int) -> np.ndarray:
        """What row[j] is wrong by at most: the last change of row[j-1], or what theory makes of the one before it."""
        return np.maximum(self.changes[j - 1], self.changes_before[j - 1] / self.fall(j - 1))
