"""Plain-text tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.tables import table

cells = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=9)


@st.composite
def tables(draw):
    columns = draw(st.integers(1, 4))
    row = st.lists(cells, min_size=columns, max_size=columns)
    return (
        draw(row),
        draw(st.lists(row, max_size=4)),
        "".join(draw(st.lists(st.sampled_from("<>"), min_size=columns, max_size=columns))),
    )


@given(case=tables())
def test_every_cell_stands_in_its_column_on_its_side(case):
    header, rows, align = case
    lines = table(header, rows, align).split("\n")
    assert len(lines) == 2 + len(rows)
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    assert lines[1] == "─" * (sum(widths) + 2 * (len(widths) - 1))
    for line, row in zip([lines[0], *lines[2:]], [header, *rows], strict=True):
        assert line == line.rstrip()
        start = 0
        for cell, width, side in zip(row, widths, align, strict=True):
            expected = cell.rjust(width) if side == ">" else cell.ljust(width)
            assert line.ljust(len(lines[1]))[start : start + width] == expected
            start += width + 2


def test_columns_stand_to_the_left_unless_it_is_said():
    assert table(["a", "bcd"], [["xyz", "1"]]) == "a    bcd\n────────\nxyz  1"


def test_a_row_of_another_length_is_refused():
    with pytest.raises((ValueError, IndexError)):
        table(["a", "b"], [["1"]])
