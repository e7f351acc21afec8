"""Pictures of a latent of two dimensions."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Circle
from scipy.stats import norm

from minicvae import plots


def test_every_image_is_a_dot_at_its_posterior_mean_in_the_colour_of_its_class(by_class, x, labels):
    figure = plots.posterior_means(by_class, x, labels, names=["a", "b", "c"])
    (axes,) = figure.axes
    dots, *_ = axes.collections
    np.testing.assert_array_equal(dots.get_offsets(), by_class.encode(x, labels)[0])
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
    key = [handle.get_facecolor()[0, :3] for handle in legend.legend_handles]
    np.testing.assert_array_equal(dots.get_facecolors()[:, :3], [key[label] for label in labels])
    np.testing.assert_array_equal(key, [to_rgba(colour)[:3] for colour in plots.PALETTE[:3]])
    assert figure.get_suptitle() == "Posterior means of 40 images"


def test_a_class_without_images_is_in_the_legend_all_the_same(by_class, x):
    (axes,) = plots.posterior_means(by_class, x[:3], [1, 1, 0]).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0", "1", "2"]


def test_numbers_colour_the_dots_by_value_each_in_a_panel(by_vector, x, vectors):
    figure = plots.posterior_means(by_vector, x, vectors, names=["w", "x", "y", "z"])
    panels, bars = [a for a in figure.axes if a.get_xlabel()], [a for a in figure.axes if not a.get_xlabel()]
    assert [bar.get_ylabel() for bar in bars] == [f"{name} (standard deviations)" for name in "wxyz"]
    for j, axes in enumerate(panels):
        np.testing.assert_allclose(axes.collections[0].get_array(), vectors[:, j])


@pytest.mark.parametrize("label", [None, 1])
def test_the_plane_has_equal_scales_names_and_room_for_every_dot(by_class, x, labels, label):
    (axes,) = plots.posterior_means(by_class, x, labels, label).axes
    assert axes.get_aspect() == 1
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z[0]", "z[1]")
    low, high = axes.get_xlim()
    assert low == -high
    assert axes.get_ylim() == (low, high)
    assert high > 3
    assert np.abs(axes.collections[0].get_offsets()).max() < high


def test_far_means_widen_the_plane(by_class, x, labels):
    class Far:
        def __getattr__(self, name):
            return getattr(by_class, name)

        def encode(self, x, c):
            return np.array([[0.0, 0.0]] * (len(x) - 1) + [[-9.0, 1.0]]), None

    (axes,) = plots.posterior_means(Far(), x, labels).axes
    assert axes.get_xlim()[0] < -9


def test_one_class_is_shown_with_the_circles_of_the_prior(by_class, x, labels):
    figure = plots.posterior_means(by_class, x, labels, 1, names=["a", "b", "c"])
    (axes,) = figure.axes
    means = by_class.encode(x[labels == 1], labels[labels == 1])[0]
    np.testing.assert_allclose(axes.collections[0].get_offsets(), means, atol=1e-6)
    circles = [patch for patch in axes.patches if isinstance(patch, Circle)]
    assert [(circle.center, circle.radius) for circle in circles] == [((0, 0), 1), ((0, 0), 2), ((0, 0), 3)]
    for circle, text in zip(circles, axes.texts, strict=True):
        assert text.get_text() == f"{circle.radius:.0f}σ"
        assert np.hypot(*text.get_position()) == pytest.approx(circle.radius)
    radius = np.linalg.norm(means, axis=1)
    shares = ", ".join(f"{np.mean(radius < r):.0%}" for r in (1, 2, 3))
    assert axes.get_title() == f"inside the circles of N(0, I): {shares} (of the prior itself: 39%, 86%, 99%)"
    assert figure.get_suptitle() == f"Posterior means of {len(means)} images of one class: b"


def test_one_label_of_a_dict_is_that_of_all_its_parts(by_parts, x, dicts):
    label = {"digit": dicts["digit"][4], "style": dicts["style"][4]}
    (axes,) = plots.posterior_means(by_parts, x, dicts, label).axes
    assert len(axes.collections[0].get_offsets()) == 1


def test_a_label_that_no_image_has_is_refused(by_class, x):
    with pytest.raises(ValueError, match="label: expected one that an image has, got 2"):
        plots.posterior_means(by_class, x[:3], [1, 1, 0], 2)
    with pytest.raises(ValueError, match="label: expected labels 0 to 2, got 9"):
        plots.posterior_means(by_class, x[:3], [1, 1, 0], 9)


@pytest.mark.parametrize("size", [1, 4, 5])
def test_the_manifold_decodes_quantiles_of_the_prior_with_its_second_number_upwards(by_class, tile, headings, size):
    figure = plots.manifold(by_class, 2, size=size, names=["a", "b", "c"])
    (axes,) = figure.axes
    quantiles = norm.ppf((np.arange(size) + 0.5) / size)
    for row in range(size):
        for column in range(size):
            z = [[quantiles[column], quantiles[size - 1 - row]]]
            np.testing.assert_allclose(tile(axes, row, column), by_class.decode(z, [2])[0], atol=1e-6)
    written = [f"{quantile:z.1f}".replace("-", "−") for quantile in quantiles]
    assert headings(axes) == (written, written[::-1])
    assert (axes.get_xlabel(), axes.get_ylabel()) == tuple(f"z[{i}], at even quantiles of N(0, 1)" for i in (0, 1))
    assert figure.get_suptitle() == "The latent plane under one class: c"


def test_another_number_of_latent_dimensions_is_refused_with_the_picture_s_name(deep, x, labels):
    with pytest.raises(ValueError, match="posterior_means: needs a model with latent_dim 2, this one has 3"):
        plots.posterior_means(deep, x, labels)
    with pytest.raises(ValueError, match="manifold: needs a model with latent_dim 2, this one has 3"):
        plots.manifold(deep, 1)


def test_a_manifold_needs_a_label_that_the_model_knows_and_a_size(by_class):
    with pytest.raises(ValueError, match="label: expected labels 0 to 2, got -1"):
        plots.manifold(by_class, -1)
    with pytest.raises(ValueError, match="size: expected at least 1, got 0"):
        plots.manifold(by_class, 1, size=0)
