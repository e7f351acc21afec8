"""One operation in two precisions, or on two devices: is the difference no more than rounding?"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np

from minicvae.gradcheck.differences import norm
from minicvae.gradcheck.report import Report, Row

__all__ = ["compare"]

GROWTH = {"sqrt": sqrt, "linear": float}


def compare(
    result: Any,
    truth: Any,
    length: int | Mapping[str, int] = 1,
    *,
    terms: Any = None,
    units: float = 8.0,
    growth: str = "sqrt",
    title: str = "rounding",
) -> Report:
    """|result - truth| <= units · f(length) · eps/2 · max(|truth|, rms(truth), terms), element by element.

    eps/2 is the unit of rounding of the result's own type (6e-8 for float32). Adding `length` numbers errs by at most
    `length` units and, as rounding errors mostly cancel, by about its square root: f(k) = √k for growth="sqrt", and k
    for "linear" (Higham 2002, Accuracy and Stability of Numerical Algorithms, sections 2.8 and 3.1). The root mean
    square of the truth stands in for an element that is small because large terms cancelled; `terms` says it exactly.

    result, truth: an array each, or a mapping name -> array each. The result may be float32 or float64 and may live on
    another device (an array with `.get()`, as CuPy's have, is fetched); the truth is the same operation in float64.
    length: terms in the longest sum behind an element (d_in for x W, n for a gradient of W); one for all, or by name.
    terms: the sum of the absolute values behind each element, as |x| |W| + |b| for x W + b; a number, an array, or a
    mapping. To be given where whole arrays may cancel.
    units: rounding errors for each term: 8 allows for a few elementary functions.

    The report's column `relative` is ‖result - truth‖ / ‖truth‖. Raises ValueError or TypeError where the two do not
    belong together.
    """
    if growth not in GROWTH:
        raise ValueError(f"growth: expected one of {', '.join(GROWTH)}, got {growth!r}")
    results, truths = _by_name(result), _by_name(truth)
    if results.keys() != truths.keys() or not truths:
        raise ValueError(f"result: expected the arrays {', '.join(truths)}, got {', '.join(results)}")
    lengths = length if isinstance(length, Mapping) else dict.fromkeys(truths, length)
    sizes = terms if isinstance(terms, Mapping) else dict.fromkeys(truths, 0.0 if terms is None else terms)
    rows = []
    for name, exact in truths.items():
        if exact.dtype != np.float64:
            raise TypeError(f"truth {name}: expected float64, got {exact.dtype}")
        if name not in lengths or lengths[name] < 1:
            raise ValueError(f"length: expected a number of at least 1 for {name}, got {lengths.get(name)}")
        size = np.broadcast_to(np.asarray(sizes.get(name, 0.0), np.float64), exact.shape)
        rows.append(_row(name, results[name], exact, size, units * GROWTH[growth](lengths[name])))
    return Report(tuple(rows), title=title, headings=("result", "truth"))


def _by_name(arrays: Any) -> dict[str, np.ndarray]:
    named = arrays if isinstance(arrays, Mapping) else {"result": arrays}
    return {name: np.asarray(a.get() if hasattr(a, "get") else a) for name, a in named.items()}


def _row(name: str, result: np.ndarray, truth: np.ndarray, terms: np.ndarray, units: float) -> Row:
    if result.dtype.kind != "f":
        return Row(name, truth.shape, "type", f"the result is {result.dtype}, not a float")
    if result.shape != truth.shape:
        return Row(name, truth.shape, "shape", f"the result has the shape {result.shape}, not {truth.shape}")
    for label, array in (("result", result), ("truth", truth)):
        if not np.isfinite(array).all():
            return Row(name, truth.shape, "not finite", f"the {label} holds NaN or infinity")
    if truth.size == 0:
        return Row(name, truth.shape, "vacuous", "there is no element to compare")
    unit = float(np.finfo(result.dtype).eps) / 2
    error = np.abs(result.astype(np.float64) - truth)
    tolerance = units * unit * np.maximum(np.maximum(np.abs(truth), np.sqrt(np.mean(truth**2))), terms)
    ratios = np.divide(error, tolerance, out=np.where(error > 0, np.inf, 0.0), where=tolerance > 0)
    worst = tuple(int(k) for k in np.unravel_index(np.argmax(ratios), truth.shape))
    size = norm(np.ravel(truth))
    return Row(
        name,
        truth.shape,
        "ok" if np.all(error <= tolerance) else "WRONG",
        f"{units:.3g} units of {unit:.0e} allowed, {units * ratios[worst]:.3g} needed",
        checked=truth.size,
        worst=worst,
        value=float(result[worst]),
        truth=float(truth[worst]),
        error=float(error[worst]),
        tolerance=float(tolerance[worst]),
        relative=norm(np.ravel(error)) / size if size > 0 else float(np.max(ratios)),
        errors=result.astype(np.float64) - truth,
    )
