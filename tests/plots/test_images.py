"""Pictures of images: each tile holds what the model gives for it."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from minicvae import plots
from minicvae.plots.picks import in_turn
from minicvae.plots.values import SWEEP, groups, variables
from minicvae.randomness import Purpose, standard_normal

SWEPT = ["−2", "−1.5", "−1", "−0.5", "0", "0.5", "1", "1.5", "2"]
same = np.testing.assert_array_equal


def close(a, b):
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_generated_images_stand_in_the_column_of_their_class(by_class, tile, headings):
    figure = plots.generated(by_class, rows=4, seed=5)
    (axes,) = figure.axes
    assert headings(axes) == (["0", "1", "2"], [])
    assert axes.get_xlabel() == "class"
    assert figure.get_suptitle() == "Generated images by class"
    expected = by_class.generate([0, 1, 2] * 4, seed=5).reshape(4, 3, 6, 5)
    assert axes.images[0].get_array().shape == (4 * 7 - 1, 3 * 6 - 1)
    for row in range(4):
        for column in range(3):
            same(tile(axes, row, column), expected[row, column])


def test_class_names_head_the_columns(by_class, headings):
    for draw in (plots.generated, plots.one_latent):
        (axes,) = draw(by_class, names=["a", "b", "c"]).axes
        assert headings(axes)[0] == ["a", "b", "c"]


def test_one_latent_fills_a_row_and_the_label_changes_along_it(by_class, tile):
    (axes,) = plots.one_latent(by_class, rows=3, seed=2).axes
    z = standard_normal((3, 2), "float32", 2, Purpose.GENERATE)
    for row in range(3):
        for label in range(3):
            close(tile(axes, row, label), by_class.decode(z[[row]], [label])[0])


def test_numbers_are_varied_one_at_a_time_from_low_to_high(by_vector, tile, headings):
    names = ["ink", "slant", "width", "height"]
    figure = plots.one_latent(by_vector, rows=4, label=[1.0, 2.0, 3.0, 4.0], names=names)
    z = standard_normal((1, 2), "float32", 0, Purpose.GENERATE)
    assert [axes.get_xlabel() for axes in figure.axes] == [f"{name} (standard deviations)" for name in names]
    for j, axes in enumerate(figure.axes):
        assert headings(axes)[0] == SWEPT
        for column, value in enumerate(SWEEP):
            c = np.array([[1.0, 2.0, 3.0, 4.0]])
            c[0, j] = value
            close(tile(axes, 0, column), by_vector.decode(z, c)[0])


def test_each_part_of_a_dict_has_a_panel_and_shares_the_rows(by_parts, headings):
    figure = plots.generated(by_parts, rows=7)
    assert [axes.get_xlabel() for axes in figure.axes] == ["digit", "style (standard deviations)"]
    assert [headings(axes)[0] for axes in figure.axes] == [["0", "1", "2"], SWEPT]
    assert [axes.images[0].get_array().shape[0] for axes in figure.axes] == [3 * 7 - 1] * 2


@pytest.mark.parametrize("label", [None, 2, np.uint8(2)])
def test_many_latents_are_all_of_the_one_label(by_class, tile, label):
    figure = plots.many_latents(by_class, label, count=7, columns=3, seed=4, names=["a", "b", "c"])
    (axes,) = figure.axes
    expected = by_class.generate([label or 0] * 7, seed=4)
    assert figure.get_suptitle() == f"Many latents under one class: {'ac'[bool(label)]}"
    for i in range(7):
        same(tile(axes, i // 3, i % 3), expected[i])
    assert np.isnan(tile(axes, 2, 1)).all()


def test_reconstructions_stand_below_their_originals(by_class, x, labels, tile, headings):
    figure = plots.reconstructions(by_class, x, labels, count=8, columns=5)
    shown = in_turn(labels)[:8]
    expected = by_class.reconstruct(x[shown], labels[shown])
    assert len(figure.axes) == 2
    for i, source in enumerate(shown):
        axes = figure.axes[i // 5]
        close(tile(axes, 0, i % 5), x[source] / 255)
        same(tile(axes, 1, i % 5), expected[i])
        assert headings(axes)[0][i % 5] == str(labels[source])
    assert headings(figure.axes[1]) == ([str(label) for label in labels[shown[5:]]], ["original", "reconstruction"])


def test_floating_and_flat_images_are_shown_as_uint8_ones_are(by_class, x, labels):
    pictures = [
        plots.reconstructions(by_class, images, labels).axes[0].images[0].get_array()
        for images in (x, x / 255, (x / 255).reshape(len(x), -1))
    ]
    close(pictures[1], pictures[0])
    close(pictures[2], pictures[0])


def test_reconstructions_without_classes_have_no_headings(by_vector, x, vectors, tile, headings):
    (axes,) = plots.reconstructions(by_vector, x, vectors, count=3).axes
    assert headings(axes)[0] == []
    for i in range(3):
        close(tile(axes, 0, i), x[i] / 255)


def test_a_walk_goes_straight_from_mean_to_mean_between_two_originals(by_class, x, labels, tile, headings):
    figure = plots.walks(by_class, x, labels, rows=5, steps=4)
    (axes,) = figure.axes
    assert headings(axes)[0] == ["original", "0", "0.33", "0.67", "1", "original"]
    assert headings(axes)[1] == ["0", "1", "2", "0", "1"]
    assert axes.get_ylabel() == "class"
    assert figure.get_suptitle() == "Walks between two images of one class, one a row"
    for row, label in enumerate([0, 1, 2, 0, 1]):
        a, b = np.flatnonzero(labels == label)[2 * (row // 3) :][:2]
        means, _ = by_class.encode(x[[a, b]], labels[[a, b]])
        close(tile(axes, row, 0), x[a] / 255)
        close(tile(axes, row, 5), x[b] / 255)
        for step, t in enumerate([0, 1 / 3, 2 / 3, 1]):
            close(tile(axes, row, 1 + step), by_class.decode([(1 - t) * means[0] + t * means[1]], [label])[0])


def test_numbers_walk_along(by_parts, x, dicts, tile):
    (axes,) = plots.walks(by_parts, x, dicts, rows=1, steps=3).axes
    ends = np.flatnonzero(dicts["digit"] == 0)[:2]
    c = {key: value[ends] for key, value in dicts.items()}
    means, _ = by_parts.encode(x[ends], c)
    middle = {"digit": [0], "style": [c["style"].mean(axis=0)]}
    close(tile(axes, 0, 2), by_parts.decode([means.mean(axis=0)], middle)[0])
    close(tile(axes, 0, 3), by_parts.decode(means[1:], {key: value[1:] for key, value in c.items()})[0])


def test_a_walk_needs_two_images_of_one_class(by_class, x):
    with pytest.raises(ValueError, match="x: expected two images of one class"):
        plots.walks(by_class, x[:3], [2, 0, 1])
    with pytest.raises(ValueError, match="steps: expected at least 2, got 1"):
        plots.walks(by_class, x[:2], [1, 1], steps=1)


def test_a_latent_is_decoded_under_every_label_beside_its_original(by_class, x, labels, tile, headings):
    (axes,) = plots.relabelled(by_class, x, labels, rows=4).axes
    shown = in_turn(labels)[:4]
    means, _ = by_class.encode(x[shown], labels[shown])
    assert headings(axes)[0] == ["original", "0", "1", "2"]
    for row, i in enumerate(shown):
        close(tile(axes, row, 0), x[i] / 255)
        for label in range(3):
            close(tile(axes, row, 1 + label), by_class.decode(means[[row]], [label])[0])


def test_the_frame_is_around_the_image_s_own_label(by_class, x):
    (axes,) = plots.relabelled(by_class, x[:3], [2, 0, 0]).axes
    assert [patch.get_xy() for patch in axes.patches] == [(5, -1), (17, 6), (5, 13)]  # in the order 0, 2, 0


def test_numbers_that_are_varied_have_their_unit(by_vector, x, vectors):
    for axes in plots.relabelled(by_vector, x, vectors, names=["a", "b", "c", "d"]).axes:
        assert axes.get_xlabel() in [f"decoded with another {name} (standard deviations)" for name in "abcd"]


def test_walks_without_classes_have_no_title_of_rows(by_vector, x, vectors):
    figure = plots.walks(by_vector, x, vectors)
    assert figure.axes[0].get_ylabel() == ""
    assert figure.get_suptitle() == "Walks between two images, one a row"


def test_every_part_is_varied_and_the_others_are_the_image_s_own(by_parts, x, dicts, tile):
    digits, styles = plots.relabelled(by_parts, x, dicts, rows=4).axes
    shown = in_turn(groups(variables(by_parts.condition)[:1], dicts, len(x)))[:2]
    for axes, rows, key, values in ((digits, shown, "digit", range(3)), (styles, [0, 1], "style", SWEEP)):
        c = {name: value[rows] for name, value in dicts.items()}
        means, _ = by_parts.encode(x[rows], c)
        for column, value in enumerate(values, start=1):
            other = c | {key: np.full_like(c[key], value)}
            for row, image in enumerate(by_parts.decode(means, other)):
                close(tile(axes, row, column), image)


@pytest.mark.parametrize("kind", ["class", "vector", "parts"])
def test_every_picture_is_a_figure_with_a_title(kind, request, x):
    model = request.getfixturevalue(f"by_{kind}")
    c = request.getfixturevalue({"class": "labels", "vector": "vectors", "parts": "dicts"}[kind])
    figures = [
        plots.generated(model),
        plots.one_latent(model),
        plots.many_latents(model),
        plots.reconstructions(model, x, c),
        plots.walks(model, x, c),
        plots.relabelled(model, x, c),
        plots.posterior_means(model, x, c),
        plots.manifold(model, size=3),
    ]
    assert all(isinstance(figure, Figure) for figure in figures)
    assert len({figure.get_suptitle() for figure in figures} - {""}) == len(figures)


def test_wrong_arguments_are_refused_by_name(by_class, by_vector, x, labels):
    with pytest.raises(ValueError, match="label: expected labels 0 to 2, got 3"):
        plots.many_latents(by_class, 3)
    with pytest.raises(TypeError, match="label: expected integer labels"):
        plots.many_latents(by_class, "7")
    with pytest.raises(ValueError, match=r"label: expected vectors of shape \(n, 4\)"):
        plots.many_latents(by_vector, [1.0, 2.0])
    with pytest.raises(ValueError, match="x: expected images of shape"):
        plots.reconstructions(by_class, x[:, 1:], labels)
    with pytest.raises(ValueError, match="c: expected one entry for each of the 40"):
        plots.relabelled(by_class, x, labels[1:])
    with pytest.raises(ValueError, match="names: expected 3 names, got 2"):
        plots.generated(by_class, names=["a", "b"])
    for draw, name in (
        (lambda: plots.generated(by_class, rows=0), "rows"),
        (lambda: plots.one_latent(by_class, rows=0), "rows"),
        (lambda: plots.many_latents(by_class, 1, count=0), "count"),
        (lambda: plots.many_latents(by_class, 1, columns=0), "columns"),
        (lambda: plots.reconstructions(by_class, x, labels, count=0), "count"),
        (lambda: plots.reconstructions(by_class, x, labels, columns=-1), "columns"),
        (lambda: plots.walks(by_class, x, labels, rows=0), "rows"),
        (lambda: plots.relabelled(by_class, x, labels, rows=0), "rows"),
    ):
        with pytest.raises(ValueError, match=f"{name}: expected at least 1, got"):
            draw()
