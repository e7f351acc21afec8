"""The report as text, as HTML and as a picture."""

import re

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


def test_names_too_long_for_the_table_keep_their_end():
    report = Report(tuple(Row("encoder.0.paths.1." * 6 + name, (3, 3, 32, 64), "not finite") for name in "Wb"))
    lines = str(report).splitlines()[1:4]
    assert all(len(line) <= WIDTH for line in lines)
    assert [line.split()[0][-3:] for line in lines[1:]] == ["1.W", "1.b"]


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
