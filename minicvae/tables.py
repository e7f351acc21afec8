"""Plain-text tables, aligned by column."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["table"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    """Lines of text: the header, a rule and the rows; align has "<" or ">" for each column (default all "<")."""
    align = align or "<" * len(header)
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True)) for row in [header, *rows]
    ]
    return "\n".join(line.rstrip() for line in [lines[0], "─" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])
