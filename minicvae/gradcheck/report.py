"""What a check found: a table with a row for each array, for the terminal, the notebook and the eye."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from math import prod
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report", "Row"]

WIDTH = 100  # columns of the plain table


@dataclass(frozen=True, eq=False)
class Row:
    """The verdict on one array, and its worst element: that of the largest error, or of the largest part of its bound.

    verdict: "ok", or what is wrong in a word or two; note: the same in a sentence.
    checked: elements compared; kinks, noisy: those left out, because F has a kink there or because rounding hides the
    slope.
    worst: index of the worst element; None where the numbers are those of a direction through the whole array.
    value, truth: the two gradients there (of `compare`: the two results). error = |value - truth|, held to `tolerance`.
    step: the smallest step of the finite differences there; nan for the complex step.
    relative: ‖value - truth‖ / ‖truth‖ over all elements that count.
    errors: value - truth of every element, nan where it was not compared.
    """

    name: str
    shape: tuple[int, ...]
    verdict: str
    note: str = ""
    checked: int = 0
    kinks: int = 0
    noisy: int = 0
    worst: tuple[int, ...] | None = None
    value: float = np.nan
    truth: float = np.nan
    error: float = np.nan
    tolerance: float = np.nan
    step: float = np.nan
    relative: float = np.nan
    errors: np.ndarray | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether this array passed."""
        return self.verdict == "ok"


@dataclass(frozen=True, eq=False)
class Report:
    """All rows of a check, and the problems that concern no single array.

    `print(report)` gives a table, and a notebook shows one by itself; `report["W"]` is a row, `report.figure("W")` a
    picture. rows are those of the arguments and, where there are several, one for a direction through all of them.
    """

    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()
    title: str = "gradients"
    headings: tuple[str, str] = ("analytic", "numeric")

    @property
    def ok(self) -> bool:
        """Whether everything passed, and there was something to pass."""
        return not self.problems and bool(self.rows) and all(row.ok for row in self.rows)

    def raise_for_failure(self) -> Self:
        """The report itself if all is well; else an AssertionError with the table as its message."""
        if not self.ok:
            raise AssertionError(f"\n{self}")
        return self

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"{name!r} is none of {', '.join(row.name for row in self.rows)}")

    def __str__(self) -> str:
        columns = self._columns()
        lines = [self._headline(), *self._sentences()]
        if self.rows:
            cells = [[title for title, _ in columns], *([cell(row) for _, cell in columns] for row in self.rows)]
            lines[1:1] = _aligned(cells)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        columns = self._columns()
        head = "".join(f"<th>{escape(title)}</th>" for title, _ in columns)
        body = ""
        for row in self.rows:
            colour = "" if row.ok else " style='background:#fde0dc;color:#7f1d1d'"
            body += f"<tr{colour}>" + "".join(f"<td>{escape(cell(row))}</td>" for _, cell in columns) + "</tr>"
        sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in self._sentences())
        return (
            f"<p><b>{escape(self._headline())}</b></p>"
            "<table style='font-variant-numeric:tabular-nums'>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<ul>{sentences}</ul>"
        )

    def figure(self, name: str) -> Figure:
        """A heat map of the error over one array; the worst element in a square, grey where none was compared.

        The colours reach to the largest error, and to the bound at least: an array that passes is pale. Arrays of more
        than two dimensions are laid out as rows of their last one. Raises KeyError for an unknown name and ValueError
        where no element was compared.
        """
        row = self[name]
        if row.errors is None or np.isnan(row.errors).all():
            raise ValueError(f"{name}: no element was compared ({row.note or row.verdict})")
        return _heat_map(row, row.errors, " − ".join(self.headings))

    def _headline(self) -> str:
        failed = sum(not row.ok for row in self.rows)
        checked = sum(row.checked for row in self.rows)
        left_out = sum(row.kinks + row.noisy for row in self.rows)
        verdict = "ok" if self.ok else "FAILED"
        counts = f"{checked} elements compared" + (f", {left_out} left out" if left_out else "")
        return f"{self.title}: {verdict}" + (f" ({failed} of {len(self.rows)} rows)" if failed else "") + f"; {counts}"

    def _sentences(self) -> list[str]:
        return [*self.problems, *(f"{row.name}: {row.note}" for row in self.rows if row.note)]

    def _columns(self) -> list[tuple[str, Callable[[Row], str]]]:
        """Title and cell of every column; that of the step only where differences were taken."""
        columns: list[tuple[str, Callable[[Row], str]]] = [
            ("name", lambda row: row.name),
            ("shape", lambda row: "×".join(map(str, row.shape)) or "scalar"),
            ("checked", _count),
            ("worst", _place),
            (self.headings[0], lambda row: _number(row.value, ".3e")),
            (self.headings[1], lambda row: _number(row.truth, ".3e")),
            ("error", lambda row: _number(row.error, ".0e")),
            ("bound", lambda row: _number(row.tolerance, ".0e")),
            ("step", lambda row: _number(row.step, ".0e")),
            ("rel.", lambda row: _number(row.relative, ".0e")),
            ("verdict", lambda row: row.verdict),
        ]
        return [(t, cell) for t, cell in columns if t != "step" or any(cell(row) for row in self.rows)]


def _count(row: Row) -> str:
    """How many elements were compared, and of how many where some were left out."""
    left_out = row.kinks + row.noisy
    return f"{row.checked}/{row.checked + left_out}" if left_out else str(row.checked or "")


def _place(row: Row) -> str:
    if row.worst is None:
        return "whole" if np.isfinite(row.value) else ""
    return ",".join(map(str, row.worst)) or "-"


def _number(x: float, style: str) -> str:
    if np.isnan(x):
        return ""
    return "0" if x == 0 else f"{x:{style}}"


def _aligned(cells: list[list[str]]) -> list[str]:
    """Lines of at most `WIDTH` where that can be: first and last column from the left, numbers from the right.

    Where the columns are too wide they move together, and then long names lose their beginning.
    """
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    gaps = len(widths) - 1
    gap = 2 if sum(widths) + 2 * gaps <= WIDTH else 1
    widths[0] = min(widths[0], max(8, WIDTH - sum(widths[1:]) - gaps))
    lines = []
    for name, *numbers, verdict in cells:
        first = name if len(name) <= widths[0] else "…" + name[1 - widths[0] :]
        middle = [cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True)]
        lines.append((" " * gap).join([first.ljust(widths[0]), *middle, verdict]).rstrip())
    return lines


def _heat_map(row: Row, errors: np.ndarray, difference: str) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    errors = np.atleast_2d(errors)
    errors = errors.reshape(prod(errors.shape[:-1]), errors.shape[-1])
    height, width = errors.shape
    figure = Figure(figsize=(7.2, float(np.clip(7.2 * height / width, 1.6, 7.2)) + 0.9), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("0.85")
    largest = max(float(np.nanmax(np.abs(errors))), row.tolerance)
    image = axes.imshow(errors, cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest")
    figure.colorbar(image, ax=axes, pad=0.02, format="%.2g", label=f"{difference}   (bound {row.tolerance:.0e})")
    if row.worst is not None:
        at = int(np.ravel_multi_index(row.worst, row.shape))
        for colour, breadth in (("white", 3.0), ("black", 1.2)):
            axes.plot(at % width, at // width, "s", ms=9, mfc="none", mec=colour, mew=breadth)
    axes.set_xlabel("last axis")
    axes.set_ylabel("first axis" if len(row.shape) <= 2 else "all other axes")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"{row.name}: {row.verdict}, relative error {row.relative:.1e}", fontsize=11)
    return figure
