"""Is a hand-written backward the derivative of its forward? Every answer with a bound, and every doubt reported."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from minicvae.gradcheck.comparison import ROUNDING, Comparison, Settings, spread
from minicvae.gradcheck.report import Report
from minicvae.gradcheck.subject import Forward, Gradients, Run, Subject

__all__ = ["assert_gradients", "check_gradients"]

METHODS = ("auto", "differences", "complex")


def check_gradients(
    forward: Forward,
    inputs: Sequence[Any] | np.ndarray,
    parameters: Mapping[str, np.ndarray] | None = None,
    gradients: Gradients | None = None,
    *,
    names: Sequence[str] | None = None,
    linear: bool = False,
    vanishing: Collection[str] = (),
    method: str = "auto",
    elements: int = 1024,
    max_left_out: float = 0.25,
    seed: int | np.random.Generator = 0,
    title: str = "gradients",
) -> Report:
    """Hold |analytic - numeric| to the numeric estimate's own error bound, for every input and every parameter.

    forward(*inputs) -> (y, backward), y an array, a number, or a tuple of them; backward(dy), dy shaped as y, returns
    dL/dinput (a tuple where there are several inputs, None for one that is not differentiated).

    What is compared: with a random upstream gradient u, d/dt <u, F(x + t v)> at t = 0 by extrapolated differences
    (`differences.py`) or the complex step, against <dx, v>: first v a random direction through the whole array, then
    v = each element's unit vector. In float64 a direction is precise enough to betray one wrong element among
    thousands; if it does, halving the array finds that element. Sums such as L = Σ y are no check: for a normalised
    output their gradient is zero, and so is that of a backward that returns zeros.

    At a kink every slope between the one-sided ones is right, output by output: for several kinks that meet in one
    element each may follow a convention of its own. Of a y that is a single number only the sum of these slopes can be
    seen, and a gradient outside of it is called wrong; a forward that returns the terms as an array settles it.

    What else must hold: everything is finite, with the shapes and types of the inputs; neither inputs nor parameters
    nor dy are changed; the same call gives the same bits again; backward is linear in dy, and zero for dy = 0; and
    some gradient is not zero, for a check of zero against zero is void.

    Parameters
    ----------
    inputs: float64 arrays and floats are differentiated by, all else (labels, None, ...) is passed through.
    parameters: name -> float64 array that forward reads; changed in place for the estimate and always restored.
    gradients: name -> array, or a function that returns such a mapping, valid after backward.
    names: of the inputs; by default the names that forward gives to its arguments.
    linear: F is declared linear (affine) in each argument: <u, Jv> = <Jᵀu, v> must hold to rounding, in one big step.
    vanishing: names of arguments whose gradient is zero by design; for all others zero is an error.
    method: "differences"; "complex" for the complex step; "auto" takes the complex step by each input where forward
        can compute it and it agrees with differences along a random direction.
    elements: arrays of up to so many elements are checked whole; of larger ones so many elements, half of them those
        of the largest analytic gradient, half drawn at random.
    max_left_out: the share of elements that may be left out, for kinks or noise, before that is an error.
    seed: of the upstream gradient, the directions and the sample.

    Raises ValueError or TypeError for arguments that cannot be checked (not float64, nothing to differentiate, ...).
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if elements < 1:
        raise ValueError(f"elements: expected at least 1, got {elements}")
    if not 0 <= max_left_out < 1:
        raise ValueError(f"max_left_out: expected a share in [0, 1), got {max_left_out}")
    subject = Subject(forward, inputs, parameters, gradients, names)
    if unknown := set(vanishing) - set(subject.arguments):
        raise ValueError(f"vanishing: {', '.join(sorted(unknown))} is none of {', '.join(subject.arguments)}")
    rng = np.random.default_rng(seed)
    run = subject.run(lambda k: spread(rng, (k,)))
    problems = list(dict.fromkeys(run.problems)) or _unsteady(subject, run)
    if problems:
        return Report((), tuple(problems), title)
    comparison = Comparison(subject, run, rng, Settings(method, elements, max_left_out, frozenset(vanishing)))
    rows = [comparison.argument(name) for name in subject.arguments]
    problems = _nonlinear_backward(subject, run)
    if linear:
        problems += comparison.adjoint()
    return Report((*rows, *comparison.together()), tuple(problems), title)


def assert_gradients(*args: Any, **options: Any) -> Report:
    """`check_gradients` for tests: the same arguments; raises AssertionError with the table where it fails."""
    return check_gradients(*args, **options).raise_for_failure()


def _unsteady(subject: Subject, run: Run) -> list[str]:
    """What differs, bit for bit, when forward and backward run again."""
    again = subject.run(lambda _: run.dy)
    changed = [] if np.array_equal(run.y, again.y) else ["y"]
    for name, g in run.gradients.items():
        h = again.gradients[name]
        same = g is h or (g is not None and h is not None and np.array_equal(g, h, equal_nan=True))
        changed += [] if same else [f"the gradient of {name}"]
    return [f"run again, forward and backward give another result ({', '.join(changed)})"] if changed else []


def _nonlinear_backward(subject: Subject, run: Run) -> list[str]:
    """backward(0) = 0 exactly, and backward(-1024 dy) = -1024 backward(dy) to rounding."""
    problems = []
    for factor, message in ((0.0, "is not zero for dy = 0"), (-1024.0, "is not linear in dy")):
        scaled = subject.run(lambda _, factor=factor: factor * run.dy)  # type: ignore[misc]
        for name, g in run.gradients.items():
            h = scaled.gradients[name]
            if g is None or h is None or g.shape != h.shape or not np.isfinite(g).all():
                continue
            excess = np.abs(h - factor * g).max()
            if not excess <= ROUNDING * abs(factor) * np.abs(g).max():
                problems.append(f"the gradient of {name} {message}: it is off by {excess:.2g}")
    return problems
