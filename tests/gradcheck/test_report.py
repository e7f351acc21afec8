"""The report as text, as HTML and as a picture."""

import re
from dataclasses import replace

import numpy as np
import pytest

from minicvae.gradcheck import Report, Row, check_gradients
from minicvae.gradcheck.report import WIDTH

RNG = np.random.default_rng(0)


def scaled(factor):
    def forward(inputs, the_second_weight):
        W = the_second_weight
        return inputs @ W, lambda dy: (dy @ W.T, factor * inputs.T @ dy)

    return check_gradients(forward, (RNG.normal(size=(3, 150)), RNG.normal(size=(150, 120))), elements=50)


@pytest.mark.parametrize("factor", [1, 1.5])
def test_the_table_is_aligned_and_fits_a_hundred_columns(factor):
    lines = str(scaled(factor)).splitlines()
    table = lines[1:5]
    assert all(len(line) <= WIDTH for line in table)
    verdicts = ["verdict", "ok", "ok", "ok"] if factor == 1 else ["verdict", "ok", "WRONG", "WRONG"]
    assert len({line.rindex(verdict) for line, verdict in zip(table, verdicts, strict=True)}) == 1
    assert table[2].startswith("the_second_weight ")
    assert lines[0] == (
        "gradients: ok; 100 elements compared"
        if factor == 1
        else "gradients: FAILED (2 of 3 rows); 100 elements compared"
    )


ROWS = (
    Row("W", (3, 4), "WRONG", "1 of 9 is wrong", 9, 2, 1, (1, 2), 1.5, -20.0, 21.5, 3e-8, 0.0625, 0.25),
    Row("b", (), "ok", "", 1, 0, 0, (), 0.0, 0.0, 0.0, 1e-9, 0.125, 0.0),
    Row("together", (13,), "ok", "", 0, 0, 0, None, 1e3, 1e3, 0.0, 2e-6, 0.125, 0.0),
    Row("c", (5,), "missing", "backward gives no gradient"),
)
TABLE = """\
name       shape  checked  worst   analytic     numeric  error  bound   step   rel.  verdict
W            3×4     9/12    1,2  1.500e+00  -2.000e+01  2e+01  3e-08  6e-02  2e-01  WRONG
b         scalar        1      -          0           0      0  1e-09  1e-01      0  ok
together      13           whole  1.000e+03   1.000e+03      0  2e-06  1e-01      0  ok
c              5                                                                     missing"""


def test_a_table_to_the_letter():
    assert str(Report(ROWS, ("forward gives float32",))) == (
        "gradients: FAILED (2 of 4 rows); 10 elements compared, 3 left out\n"
        f"{TABLE}\nforward gives float32\nW: 1 of 9 is wrong\nc: backward gives no gradient"
    )
    assert "step" not in str(Report((replace(ROWS[0], step=np.nan),)))  # of the complex step
    assert str(Report(())) == "gradients: FAILED; 0 elements compared"


def named(name, **changes):
    """The line of a table for a row of that name, above the other rows."""
    return str(Report((replace(ROWS[0], name=name, verdict="missing", **changes), *ROWS))).splitlines()[2]


def test_columns_move_together_only_where_the_table_would_be_too_wide():
    fits = WIDTH - max(map(len, TABLE.splitlines())) + len("together")
    line = named("n" * fits)
    assert line == "n" * fits + "     3×4     9/12    1,2  1.500e+00  -2.000e+01  2e+01  3e-08  6e-02  2e-01  missing"
    assert len(line) == WIDTH
    line = named("n" * (fits + 1))
    assert line == "n" * (fits + 1) + "    3×4    9/12   1,2 1.500e+00 -2.000e+01 2e+01 3e-08 6e-02 2e-01 missing"


def test_names_too_long_for_the_table_keep_their_end():
    room = WIDTH - max(map(len, TABLE.splitlines())) + len("together") + 10  # each of ten gaps is a column narrower
    name = "".join(str(i % 10) for i in range(room + 1))
    for given, shown in ((name[:room], name[:room]), (name, "…" + name[2:])):
        line = named(given)
        assert line.split()[0] == shown
        assert len(line) == WIDTH
    assert named(name, shape=(10**9,) * 9).startswith("…" + name[-7:] + " ")  # eight columns are left in any case


def test_the_numbers_of_the_table_are_those_of_the_rows():
    report = scaled(1.5)
    row = report.rows[1]
    cells = str(report).splitlines()[3].split()
    assert cells[1:4] == ["150×120", "50", ",".join(map(str, row.worst))]
    assert [float(c) for c in cells[4:6]] == [pytest.approx(row.value, rel=1e-3), pytest.approx(row.truth, rel=1e-3)]
    assert row.value == pytest.approx(1.5 * row.truth)
    assert row.error == pytest.approx(abs(row.value - row.truth))
    assert row.relative == pytest.approx(0.5)
    assert row.error > row.tolerance


def test_a_failure_raises_with_the_table_and_a_success_returns_the_report():
    report = scaled(1)
    assert report.raise_for_failure() is report
    with pytest.raises(AssertionError, match=r"1\.5 times the numeric one"):
        scaled(1.5).raise_for_failure()


def test_a_report_of_nothing_is_no_success():
    assert not Report(()).ok
    assert not Report((Row("x", (1,), "ok"),), problems=("forward changes its argument x",)).ok
    assert Report((Row("x", (1,), "ok"),)).ok


def test_a_row_is_found_by_its_name():
    report = scaled(1)
    assert report["inputs"] is report.rows[0]
    with pytest.raises(KeyError, match="'dx' is none of inputs, the_second"):
        report["dx"]


def test_the_html_has_a_line_for_each_row_and_escapes_names():
    report = Report((Row("<W>", (2,), "WRONG", "1 & 2"), Row("b", (), "ok")), problems=("x < y",))
    html = report._repr_html_()
    assert html.count("<tr") == 3
    assert "&lt;W&gt;" in html
    assert "1 &amp; 2" in html
    assert "x &lt; y" in html
    assert "<W>" not in html
    for tag in ("table", "tr", "td", "th", "ul", "li", "p", "b"):
        assert len(re.findall(rf"<{tag}[ >]", html)) == html.count(f"</{tag}>")


def test_the_html_has_the_cells_of_the_table_and_a_colour_where_something_is_wrong():
    html = Report(ROWS)._repr_html_()
    lines = re.findall(r"<tr([^>]*)>(.*?)</tr>", html)
    cells = [[cell for cell in re.findall(r"<t[hd]>(.*?)</t[hd]>", line) if cell] for _, line in lines]
    assert cells == [line.split() for line in TABLE.splitlines()]
    assert ["background" in attributes for attributes, _ in lines] == [False, True, False, False, True]


@pytest.mark.parametrize("shape", [(), (5,), (4, 3), (3, 3, 2, 5)])
def test_the_picture_shows_every_error_where_it_is(shape, tmp_path):
    x = np.asarray(RNG.normal(size=shape))

    def wrong(x):
        def backward(dy):
            dx = np.array(2 * dy * x)
            dx.flat[-1] += dy if np.isscalar(dy) else dy.flat[-1]
            return dx

        return x**2, backward

    report = check_gradients(wrong, (x,))
    figure = report.figure("x")
    image = figure.axes[0].images[0].get_array()
    assert image.shape == (max(1, int(np.prod(shape[:-1]))), shape[-1] if shape else 1)
    assert np.unravel_index(np.abs(image).argmax(), image.shape) == (image.shape[0] - 1, image.shape[1] - 1)
    assert report["x"].worst == tuple(n - 1 for n in shape)
    figure.savefig(tmp_path / "errors.png")
    assert (tmp_path / "errors.png").stat().st_size > 1000


def test_elements_that_were_not_compared_are_blank_in_the_picture():
    x = RNG.normal(size=(4, 5))
    x[1, 2] = 0
    report = check_gradients(lambda x: (np.abs(x), lambda dy: dy * np.sign(x)), (x,))
    image = np.ma.filled(report.figure("x").axes[0].images[0].get_array(), np.nan)
    assert list(zip(*np.nonzero(np.isnan(image)), strict=True)) == [(1, 2)]


def test_there_is_no_picture_of_nothing():
    report = check_gradients(lambda x: (x**2, lambda dy: None), (np.ones(3),))
    with pytest.raises(ValueError, match="x: no element was compared"):
        report.figure("x")


def picture(shape, worst, *, reach=1.0, tolerance=0.25):
    errors = np.zeros(shape)
    errors[worst] = -reach
    row = Row("W", shape, "WRONG", worst=worst, tolerance=tolerance, relative=0.5, errors=errors)
    return Report((row,)).figure("W")


@pytest.mark.parametrize(
    ("shape", "worst", "place", "label"),
    [
        ((4, 5), (2, 3), (3, 2), "first axis"),
        ((5,), (3,), (3, 0), "first axis"),
        ((), (), (0, 0), "first axis"),
        ((2, 3, 4), (1, 0, 2), (2, 3), "all other axes"),
    ],
)
def test_a_square_is_around_the_worst_element_and_the_axes_are_named(shape, worst, place, label):
    axes, bar = picture(shape, worst).axes
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines] == [place] * 2
    below, above = axes.lines
    assert [below.get_markeredgecolor(), above.get_markeredgecolor()] == ["white", "black"]
    assert below.get_markeredgewidth() > above.get_markeredgewidth()  # black with a white border
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("last axis", label)
    assert axes.get_title() == "W: WRONG, relative error 5.0e-01"
    assert bar.get_ylabel() == "analytic − numeric   (bound 2e-01)"


@pytest.mark.parametrize(("reach", "tolerance"), [(3.0, 0.5), (0.5, 3.0)])
def test_the_colours_reach_to_the_largest_error_and_to_the_bound(reach, tolerance):
    assert picture((4, 5), (2, 3), reach=reach, tolerance=tolerance).axes[0].images[0].get_clim() == (-3, 3)


@pytest.mark.parametrize(("shape", "height"), [((10, 30), 2.4), ((1, 100), 1.6), ((30, 30), 7.2), ((90, 2), 7.2)])
def test_the_picture_is_as_high_as_the_array_within_limits(shape, height):
    assert picture(shape, (0, 0)).get_size_inches() == pytest.approx([7.2, height + 0.9])
