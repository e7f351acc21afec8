"""What was asked for, beside what came."""

import numpy as np
import pytest

from minicvae import plots
from minicvae.conditions import Classes, Parts
from minicvae.diagnostics import diagnose
from minicvae.randomness import Purpose, standard_normal


@pytest.fixture(scope="module")
def by_two(tiny):
    return tiny(Parts({"digit": Classes(3), "grade": Classes(2)}))


def test_every_value_of_one_condition_meets_every_value_of_the_other(by_two, tile, headings):
    names = {"digit": ["nought", "one", "two"], "grade": ["thin", "thick"]}
    axes = plots.crossed(by_two, latents=2, names=names, seed=5).axes[0]
    assert headings(axes) == (["nought", "one", "two"], ["thin", "thick", "thin", "thick"])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("digit", "grade")
    z = standard_normal((2, 2), "float32", 5, Purpose.GENERATE)
    for row in range(4):
        for column in range(3):
            decoded = by_two.decode(z[row // 2 : row // 2 + 1], {"digit": [column], "grade": [row % 2]})[0]
            np.testing.assert_allclose(tile(axes, row, column), decoded, rtol=1e-6)


def test_a_single_condition_cannot_be_crossed(by_class):
    with pytest.raises(ValueError, match=r"^crossed: needs a model with two conditions"):
        plots.crossed(by_class)


def test_dots_lie_where_asked_and_measured_meet_and_the_title_has_their_correlation():
    asked, measured = np.array([0.0, 1.0, 2.0]), np.array([0.5, 0.0, 3.0])
    figure = plots.asked_and_measured(asked, measured, name="slant", unit="pixels")
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), np.stack([asked, measured], axis=1))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("slant asked for (pixels)", "slant measured (pixels)")
    assert "r = 0.778" in axes.get_title()  # 2.5 / √(2 · 5.1667)


@pytest.mark.parametrize(
    ("asked", "measured", "message"),
    [
        ([1, 2], [1, 2, 3], "expected shape"),
        ([1], [1], "n >= 2"),
        ([[1, 2]], [[1, 2]], "expected shape"),
        ([1, 2], [1, np.nan], "finite"),
    ],
)
def test_what_is_no_pair_of_columns_is_refused(asked, measured, message):
    with pytest.raises(ValueError, match=message):
        plots.asked_and_measured(asked, measured, name="slant")


def test_models_are_compared_a_panel_each_on_one_scale(by_class, deep, x, labels):
    found = {"two": diagnose(by_class, x, labels), "three": diagnose(deep, x, labels)}
    panels = plots.compared_dimensions(found).axes
    assert [axes.get_title().splitlines()[0] for axes in panels] == ["two", "three"]
    assert panels[0].get_ylim() == panels[1].get_ylim()
    for axes, diagnosis in zip(panels, found.values(), strict=True):
        order = np.argsort(-diagnosis.kl)
        assert [bar.get_height() for bar in axes.patches] == diagnosis.kl[order].tolist()
        assert [segment[0, 1] for segment in axes.collections[0].get_segments()] == diagnosis.information[
            order
        ].tolist()


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match=r"^diagnoses: expected at least one"):
        plots.compared_dimensions({})
