"""Analytic against numeric: which directions and elements of an argument are compared, and what the numbers say."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from minicvae.gradcheck.differences import EPS, SAFETY, Estimates, complex_slopes, norm, rounding_noise, slopes
from minicvae.gradcheck.report import Row
from minicvae.gradcheck.subject import Run, Subject

__all__ = ["ROUNDING", "Comparison", "Settings", "spread"]

RESOLUTION = 1e-6  # a slope counts where its bound is below this part of it, or of its array's root mean square
DOUBT = 4  # how many times its bound a slope may err that is not sharp: where there is much noise it is uneven
ROUNDING = 64 * EPS  # what the analytic gradient's own rounding is allowed, relative to the same
HUGE = 2.0**1000  # what is added to an argument is smaller, lest it overflow
FIRST_STEP = 1 / 8  # relative to the size of an element or of its array


@dataclass(frozen=True)
class Settings:
    """What `check_gradients` was asked for; it explains them."""

    method: str = "auto"
    elements: int = 1024
    max_left_out: float = 0.25
    vanishing: frozenset[str] = frozenset()


@dataclass
class Compared:
    """Some claimed slopes (k,) beside their estimates; `rounding` (k,) is what the claims themselves may err by.

    error: |claimed - estimate|, allowed up to `tolerance`, which at a kink reaches from one one-sided slope to the
    other. resolved: whether that is sharp enough to count, measured by the slope or by `size`, that of a typical one;
    at_kink: those that are not, because the one-sided slopes differ. wrong: what lies outside, resolved or not; but
    of a `direction`, in which the kinks of many elements add up and no convention lies between the two slopes, only
    what is resolved.
    """

    claimed: np.ndarray
    estimates: Estimates
    rounding: np.ndarray
    size: float
    direction: bool = False

    @np.errstate(over="ignore", invalid="ignore")
    def __post_init__(self) -> None:
        jump = self.estimates.jump
        typical = np.fmax(np.abs(self.estimates.slope), self.size)
        scale = np.fmax(typical, np.abs(self.claimed))
        self.tolerance = self.estimates.bound + self.rounding + ROUNDING * scale
        self.noise = self.tolerance - jump
        known = np.isfinite(self.tolerance)
        self.resolved = known & (self.tolerance <= RESOLUTION * scale)
        self.at_kink = known & (self.tolerance > RESOLUTION * typical) & (jump >= self.tolerance / 2)
        self.tolerance = np.where(self.resolved, self.tolerance, DOUBT * self.noise + jump)
        self.error = np.abs(self.claimed - self.estimates.slope)
        self.wrong = (self.resolved if self.direction else known) & ~(self.error <= self.tolerance)
        self.compared = self.resolved | self.wrong
        self.ratio = np.divide(self.error, self.tolerance, out=np.zeros_like(self.error), where=self.error > 0)

    @property
    def vanishes(self) -> bool:
        """Whether neither the estimates nor the claimed slopes can be told from zero."""
        slope = np.abs(self.estimates.slope)
        return bool(np.all(slope <= self.noise) and np.all(np.abs(self.claimed) <= self.tolerance))

    @property
    def relative(self) -> float:
        """‖claimed - estimate‖ / ‖estimate‖ over all that are compared; nan where none is."""
        if not self.compared.any():
            return np.nan
        error = norm(self.error[self.compared])
        size = norm(self.estimates.slope[self.compared])
        return error / size if size > 0 else (np.inf if error > 0 else 0.0)

    def row(self, name: str, shape: tuple[int, ...], verdict: str, note: str, i: int) -> Row:
        """A row of a report with the numbers of slope `i`."""
        return Row(
            name,
            shape,
            verdict,
            note,
            value=float(self.claimed[i]),
            truth=float(self.estimates.slope[i]),
            error=float(self.error[i]),
            tolerance=float(self.tolerance[i]),
            step=float(self.estimates.step[i]),
            relative=self.relative,
        )

    def worst(self) -> int:
        """The largest error of a wrong slope; where none is wrong, the error that is the largest part of its bound."""
        if self.wrong.any():
            return int(np.argmax(np.where(self.wrong, self.error, -1)))
        return int(np.argmax(np.where(self.resolved, self.ratio, -1)))


def spread(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random signs with sizes in [½, 3/2): random vectors in which no component is hushed."""
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.5, shape)


class Comparison:
    """The slopes of <u, F> that `run` claims, against those of `subject`, for one u = run.dy and drawn directions."""

    def __init__(self, subject: Subject, run: Run, rng: np.random.Generator, settings: Settings) -> None:
        self.subject, self.run, self.rng, self.settings = subject, run, rng, settings
        self.base = subject.evaluate()
        self.flaws = {name: _flaw(run.gradients[name], x) for name, x in subject.arguments.items()}
        self.gradients = {name: g for name, g in run.gradients.items() if g is not None and not self.flaws[name]}
        arguments = subject.arguments.items()
        self.directions = {name: spread(rng, x.shape) * _unit(x) for name, x in arguments}
        nearby = {
            name: spread(rng, x.shape) * np.where(x == 0, _unit(x), np.fmin(np.abs(x), HUGE)) for name, x in arguments
        }
        self.noise = rounding_noise([subject.direction_line(v) for v in (nearby, self.directions)], self.base)
        # The tiny gradient of a saturated function comes from numbers of size one, or of the size of F: 1 - tanh² is
        # good to EPS, not to EPS of itself.
        least = SAFETY * EPS * float(np.abs(run.dy).max()) * (min(1.0, float(np.abs(self.base).max())) or 1.0)
        self.rounding = {name: least / np.minimum(1, np.fmax(_unit(x), np.abs(x))) for name, x in arguments}
        self.proven: set[str] = set()  # arguments of which every element was compared and found right
        self.blocked: set[str] = set()  # those of them whose direction says otherwise

    def argument(self, name: str) -> Row:
        """The verdict on one argument: a direction first, then elements."""
        if flaw := self.flaws[name]:
            return Row(name, self.subject.arguments[name].shape, *flaw)
        g, along = self.gradients[name], self._along({name: self.directions[name]})
        chosen = self._choose(g)
        elements = self._elements(name, chosen, complex_step=self._is_analytic(name, along))
        if elements.wrong.any() or along.wrong[0]:  # no failure rests on the complex step alone
            if len(chosen) < g.size and not elements.wrong.any():
                chosen = np.union1d(chosen, self._locate(name, g.size))
            elements = self._elements(name, chosen, complex_step=False)
        if len(chosen) == g.size and not elements.wrong.any():
            self.proven.add(name)
            if along.wrong[0]:  # its steps are those of the whole array, too large for some element
                self.blocked.add(name)
        return self._row(name, chosen, elements, along)

    def together(self) -> list[Row]:
        """The direction through all arguments at once, where there are several and no kink hides its slope."""
        directions = {name: v for name, v in self.directions.items() if name not in self.blocked}
        if len(directions) < 2 or any(self.flaws.values()):
            return []
        along = self._along(directions)
        if not along.resolved[0] or (along.wrong[0] and self.proven.issuperset(directions)):
            return []
        size = sum(v.size for v in directions.values())
        verdict = "WRONG" if along.wrong[0] else "ok"
        return [along.row("together", (size,), verdict, "", 0)]

    def adjoint(self) -> list[str]:
        """Where <u, J v> = <Jᵀ u, v> fails for a map declared linear, with J v = (F(x + v) - F(x - v)) / 2."""
        problems = []
        for name, g in self.gradients.items():
            v = self.directions[name]
            line = self.subject.direction_line({name: v})
            above, below = line(1.0)[1], line(-1.0)[1]
            local = np.maximum(self.noise, EPS * np.maximum(np.abs(above), np.abs(below)))
            allowed = 2 * SAFETY * norm(self.run.dy * local) + ROUNDING * norm(g * v)
            bend = float((above - 2 * self.base + below) @ self.run.dy)
            image, claimed = float((above - below) @ self.run.dy) / 2, float(np.sum(g * v))
            if not abs(bend) <= 2 * allowed:
                problems.append(f"{name}: declared linear, but <u, F(x+v) - 2 F(x) + F(x-v)> = {bend:.3g}, not 0")
            elif not abs(image - claimed) <= allowed:
                problems.append(f"{name}: <u, J v> = {image:.15g}, but <Jᵀ u, v> = {claimed:.15g} (± {allowed:.0e})")
        return problems

    def _along(self, directions: Mapping[str, np.ndarray]) -> Compared:
        """The slope along one direction; its size is what it would be if the signs of v fell otherwise."""
        line = self.subject.direction_line(directions)
        origin = min(_origin(self.subject.arguments[name], v) for name, v in directions.items())
        estimates = slopes([line], np.array([FIRST_STEP]), self.base, self.run.dy, self.noise, np.array([origin]))
        terms = np.concatenate([np.ravel(self.gradients[name] * v) for name, v in directions.items()])
        rounding = np.concatenate([np.ravel(self.rounding[name] * v) for name, v in directions.items()])
        with np.errstate(over="ignore", invalid="ignore"):
            claimed = np.array([terms.sum()])
        return Compared(claimed, estimates, np.array([norm(rounding)]), norm(terms), direction=True)

    def _choose(self, g: np.ndarray) -> np.ndarray:
        """Flat indices of the elements to compare: all, or half of them the largest and half drawn."""
        count = self.settings.elements
        if g.size <= count:
            return np.arange(g.size)
        order = np.argsort(-np.abs(g), axis=None, kind="stable")
        largest = (count + 1) // 2
        others = self.rng.choice(order[largest:], count - largest, replace=False)
        return np.concatenate([order[:largest], others])

    def _elements(self, name: str, chosen: np.ndarray, complex_step: bool) -> Compared:
        """The slopes by the chosen elements; their size is the root mean square of the estimates."""
        x, g = self.subject.arguments[name], self.gradients[name]
        first = FIRST_STEP * np.maximum(min(_unit(x), 1), np.abs(x.flat[chosen]))
        if complex_step:
            points = [self.subject.complex_line(name, int(i)) for i in chosen]
            estimates = complex_slopes(points, first, self.run.dy, self.noise)
        else:
            lines = [self.subject.element_line(name, int(i)) for i in chosen]
            origins = np.where(x.flat[chosen] == 0, np.inf, np.abs(x.flat[chosen]))
            estimates = slopes(lines, first, self.base, self.run.dy, self.noise, origins)
        known = estimates.slope[np.isfinite(estimates.slope)]
        size = norm(known) / np.sqrt(max(known.size, 1))
        return Compared(g.flat[chosen], estimates, self.rounding[name].flat[chosen], size)

    def _is_analytic(self, name: str, along: Compared) -> bool:
        """Whether the complex step can be trusted: forward takes complex numbers, and finds the slope of differences.

        It cannot at a kink, which it does not see, and by a parameter, whose array holds real numbers only.
        """
        if self.settings.method == "differences" or name not in self.subject.positions:
            return False
        trusted = False
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a cast that drops the imaginary part only warns
            try:
                y = self.subject.complex_line(name, self.directions[name])()
            except Exception:  # whatever forward says to complex numbers, it means no
                y = self.base
        if np.iscomplexobj(y) and np.all(
            np.abs(y.real - self.base) <= SAFETY * self.noise + ROUNDING * np.abs(self.base)
        ):
            scout = complex_slopes([lambda: y], np.array([FIRST_STEP]), self.run.dy, self.noise)
            pair = Compared(scout.slope, along.estimates, scout.bound, along.size, direction=True)
            trusted = bool(pair.resolved[0] and not pair.wrong[0])
        if self.settings.method == "complex" and not trusted:
            raise ValueError(f"method: the complex step does not find the slope of {name} that differences find")
        return trusted

    def _locate(self, name: str, size: int) -> int:
        """A wrong element of an array whose direction is wrong: halve the array, and keep a half that is wrong."""
        low, high = 0, size
        v = self.directions[name]
        while high - low > 1:
            middle = (low + high) // 2
            half = np.zeros(v.shape)
            half.flat[low:middle] = v.flat[low:middle]
            low, high = (low, middle) if self._along({name: half}).wrong[0] else (middle, high)
        return low

    def _row(self, name: str, chosen: np.ndarray, elements: Compared, along: Compared) -> Row:
        """The row of an argument whose gradient has the right form."""
        g = self.gradients[name]
        only_along = bool(along.wrong[0]) and not elements.wrong.any() and name not in self.blocked
        shown, i = (along, 0) if only_along else (elements, elements.worst())
        left_out = int(np.count_nonzero(~elements.compared))
        kinks = int(np.count_nonzero(elements.at_kink & ~elements.compared))
        errors = np.full(g.shape, np.nan)
        errors.flat[chosen[elements.compared]] = (elements.claimed - elements.estimates.slope)[elements.compared]
        verdict, note = self._verdict(name, g, chosen, elements, along)
        return replace(
            shown.row(name, g.shape, verdict, note, i),
            checked=len(chosen) - left_out,
            kinks=kinks,
            noisy=left_out - kinks,
            worst=None if only_along else tuple(int(k) for k in np.unravel_index(chosen[i], g.shape)),
            errors=errors,
        )

    def _verdict(
        self, name: str, g: np.ndarray, chosen: np.ndarray, elements: Compared, along: Compared
    ) -> tuple[str, str]:
        """The verdict in a word, and in a sentence."""
        vanishes = elements.vanishes and along.vanishes and np.abs(g).max() <= elements.tolerance.max()
        kinks, left_out = np.count_nonzero(elements.at_kink), np.count_nonzero(~elements.resolved)
        most = self.settings.max_left_out * len(chosen)
        if elements.wrong.any():
            return "WRONG", diagnose(g, elements)
        if along.wrong[0] and name not in self.blocked:
            return "WRONG", "a random direction through the whole array; the elements that were compared are right"
        if name in self.settings.vanishing:
            return ("ok", "zero, as declared") if vanishes else ("not zero", "declared to vanish, but it does not")
        if vanishes:
            return "vacuous", "both gradients vanish, so nothing was checked; is y constant, or this argument unused?"
        if kinks > most:
            return "kinks", f"{kinks} of {len(chosen)} elements lie at a kink: move the inputs off the ties"
        if left_out > most:
            return "noisy", (
                f"rounding or roughness hides the slope of {left_out - kinks} of {len(chosen)} elements: "
                "is something computed in float32, or badly scaled?"
            )
        remarks = [
            f"{count} left out {why}" for count, why in ((kinks, "at kinks"), (left_out - kinks, "for noise")) if count
        ]
        if name in self.blocked:
            remarks.append("every element is right, a direction through all is not: a pole or a jump may be in its way")
        if len(chosen) < g.size and not along.resolved[0]:
            remarks.append("no direction through the whole array could be compared: a kink is in the way")
        return "ok", "; ".join(remarks)


def diagnose(g: np.ndarray, elements: Compared) -> str:
    """What a wrong gradient g looks like beside the numeric one, in a sentence."""
    if not (elements.wrong & ~elements.at_kink).any():
        wrong, kinks = np.count_nonzero(elements.wrong), np.count_nonzero(elements.at_kink)
        return f"{wrong} of {kinks} elements at a kink lie outside of the slopes on its two sides"
    a, n = elements.claimed[elements.compared], elements.estimates.slope[elements.compared]
    count = f"{np.count_nonzero(elements.wrong)} of {len(a)} elements are wrong"
    if not a.any():
        return f"{count}: the analytic gradient is zero"
    largest = max(float(np.abs(a).max()), float(np.abs(n).max()))
    a, n, g, numeric = a / largest, n / largest, g / largest, elements.estimates.slope / largest
    small = 1e-3 * float(np.abs(a - n).max())  # what an explanation may leave unexplained
    length = norm(n)
    factor = float(a @ (n / length)) / length if length else 0.0
    if len(a) > 1 and np.abs(a - factor * n).max() <= small:
        return f"{count}: the analytic gradient is {factor:.6g} times the numeric one"
    if len(a) == g.size > 1:
        numeric = numeric.reshape(g.shape)
        if g.shape == g.T.shape and np.abs(g - numeric.T).max() <= small:
            return f"{count}: the analytic gradient is the transpose of the numeric one"
        for axis in range(g.ndim):
            if g.shape[axis] > 1 and np.ptp(g - numeric, axis=axis).max() <= small:
                return f"{count}: the error is the same all along axis {axis}; is a sum or a mean over it missing?"
    return count


def _flaw(g: np.ndarray | None, x: np.ndarray) -> tuple[str, str] | None:
    """What forbids to compare g with the slopes by x: a verdict and a sentence."""
    if g is None:
        return "missing", "backward gives no gradient"
    if g.shape != x.shape:
        return "shape", f"the gradient has the shape {g.shape}, not {x.shape}"
    if g.dtype != x.dtype:
        return "type", f"the gradient is {g.dtype}, not {x.dtype}"
    if not np.isfinite(g).all():
        i = int(np.flatnonzero(~np.isfinite(g))[0])
        place = ", ".join(str(k) for k in np.unravel_index(i, g.shape))
        return "not finite", f"the gradient is {g.flat[i]} at [{place}]"
    return None


def _origin(x: np.ndarray, v: np.ndarray) -> float:
    """The |t| nearest to 0 at which an element of x + t v that is not zero becomes zero; inf where there is none."""
    moved = (x != 0) & (v != 0)
    return float(np.abs(x[moved] / v[moved]).min(initial=np.inf))


def _unit(x: np.ndarray) -> float:
    """The size of a typical element, the root mean square; from 2^-10 to `HUGE`, and 1 for an array of zeros."""
    return min(max(norm(x) / float(np.sqrt(x.size)), 2.0**-10), HUGE) if x.any() else 1.0
