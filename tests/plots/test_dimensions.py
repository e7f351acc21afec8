"""The bars of the latent's dimensions."""

import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex

import minicvae as mc
from minicvae import plots
from minicvae.diagnostics import ACTIVE, information, kl_by_dimension
from minicvae.plots.dimensions import INFORMED, KEY
from minicvae.plots.figures import ACCENT, PALETTE


def with_latent(latent_dim):
    sizes = {"encoder_widths": (8,), "decoder_widths": (8,), "image_shape": (6, 5)}
    return mc.build("mlp", device="numpy", classes=3, latent_dim=latent_dim, **sizes)


def test_each_dimension_has_a_bar_of_its_kl_the_largest_first(deep, x, labels):
    axes = plots.dimensions(deep, x, labels).axes[0]
    kl = kl_by_dimension(*deep.encode(x, labels))
    assert [bar.get_height() for bar in axes.patches] == sorted(kl, reverse=True)
    assert [int(tick.get_text()) for tick in axes.get_xticklabels()] == np.argsort(-kl).tolist()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("dimension of z", "KL, nats per image")


@pytest.mark.parametrize("enough", [INFORMED, 15])
def test_a_line_across_each_bar_says_what_of_it_tells_about_the_image(deep, x, labels, enough, monkeypatch):
    monkeypatch.setattr(sys.modules["minicvae.plots.dimensions"], "INFORMED", enough)
    axes = plots.dimensions(deep, x, labels).axes[0]
    mean, log_var = deep.encode(x, labels)
    order = np.argsort(-kl_by_dimension(mean, log_var))
    known = information(mean[:enough], log_var[:enough], labels[:enough])[order]
    (lines,) = axes.collections
    expected = [[(j - 0.4, value), (j + 0.4, value)] for j, value in enumerate(known)]
    np.testing.assert_allclose(lines.get_segments(), expected)
    assert to_hex(lines.get_color()[0]) == ACCENT
    assert axes.get_title() == f"{KEY},\nof {min(len(x), enough):,} images"


def test_a_dimension_that_is_not_active_is_pale(x, labels):
    model = with_latent(2)
    W, b = (f"encoder.1.{name}" for name in "Wb")
    model.parameters[W] = model.parameters[W] * np.array([0, 9, 1, 1])
    model.parameters[b] = np.array([9, 0, 0, 0])
    assert (model.encode(x, labels)[0].var(axis=0) > ACTIVE).tolist() == [False, True]
    axes = plots.dimensions(model, x, labels).axes[0]
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches] == ["#cccccc", PALETTE[0]]
    assert axes.figure.get_suptitle().endswith("1 of 2 dimensions active")


def test_many_dimensions_are_counted_rather_than_named(x, labels):
    axes = plots.dimensions(with_latent(60), x, labels).axes[0]
    assert len(axes.patches) == 60
    assert axes.get_xlabel() == "rank of the dimension of z"
    assert len(axes.get_xticks()) < 15


def test_wrong_images_are_refused(deep, x, labels):
    with pytest.raises(ValueError, match=r"^c: expected one entry for each"):
        plots.dimensions(deep, x, labels[1:])
