"""All pictures at once, and what they leave alone."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from minicvae import plots

HISTORY = {"loss": [3.0, 2.0], "reconstruction": [2.5, 1.5], "kl": [0.5, 0.5]}
IMAGES = ["generated", "one_latent", "many_latents", "reconstructions", "relabelled", "walks", "dimensions"]


@pytest.fixture(autouse=True)
def small_manifolds(monkeypatch):
    from minicvae.plots import gallery

    monkeypatch.setattr(gallery, "manifold", lambda *args, **kwargs: plots.manifold(*args, size=3, **kwargs))


@pytest.mark.parametrize(
    ("kind", "c", "latent"),
    [
        ("by_class", "labels", ["posterior_means", "posterior_means_of_one", *(f"manifold_{k}" for k in range(3))]),
        ("by_vector", "vectors", ["posterior_means", "manifold"]),
        ("by_parts", "dicts", ["posterior_means", "manifold"]),
        ("deep", "labels", []),
    ],
)
def test_all_pictures_that_suit_the_model_are_drawn(kind, c, latent, request, tmp_path, x):
    model, c = request.getfixturevalue(kind), request.getfixturevalue(c)
    paths = plots.draw_all(model, x, c, tmp_path / "figures", history=HISTORY)
    assert [path.stem for path in paths] == ["losses", *IMAGES, *latent]
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {path.name for path in paths}
    for path in paths:
        assert np.ptp(imread(path)[..., :3]) > 0.5  # not blank


def test_what_there_is_no_data_for_is_left_out(by_class, tmp_path, x):
    paths = plots.draw_all(by_class, x[:2], [1, 2], tmp_path)
    left_out = {"losses", "walks", "posterior_means_of_one"}
    assert not left_out & {path.stem for path in paths}
    paths = plots.draw_all(by_class, x[:2], [1, 2], tmp_path, label=2)
    assert {"losses", "walks"} == left_out - {path.stem for path in paths}


def test_a_wrong_argument_is_refused_before_anything_is_drawn(by_class, tmp_path, x, labels):
    for wrong in ({"label": 3}, {"names": ["a"]}, {"history": {"loss": [1.0]}}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            plots.draw_all(by_class, x, labels, tmp_path, **wrong)
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_draws_the_same_files_and_another_does_not(deep, tmp_path, x, labels):
    first, again, other = (
        plots.draw_all(deep, x, labels, tmp_path / str(i), seed=seed)[0].read_bytes()
        for i, seed in enumerate((1, 1, 2))
    )
    assert first == again
    assert first != other


def test_pictures_need_no_pyplot_and_change_no_settings():
    code = """
import sys
import matplotlib as mpl
def settings():
    return {name: mpl.rcParams[name] for name in mpl.rcParams if name != "backend"}  # to read that loads pyplot
before = settings()
import minicvae as mc
model = mc.build("latent2d", device="numpy", image_shape=(6, 5), encoder_widths=(8,), decoder_widths=(8,))
mc.plots.generated(model)._repr_png_()
mc.plots.manifold(model, 3, size=2)._repr_png_()
mc.plots.curves({"loss": [1.0], "reconstruction": [1.0], "kl": [0.0]})._repr_png_()
assert "matplotlib.pyplot" not in sys.modules
assert before == settings()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
