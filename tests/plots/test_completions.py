"""The picture of completed images: each tile holds what it says."""

import numpy as np
import pytest

import minicvae as mc
from minicvae import plots

SHAPE = (6, 5)


@pytest.fixture(scope="module")
def completing():
    return mc.ImageCVAE.build(mc.BaselineNet.build((8,), image_shape=SHAPE, device="numpy"), (8,), latent_dim=3)


def test_each_row_shows_input_truth_the_single_answer_and_the_many(completing, x, tile, headings):
    hidden = mc.masks.random_rectangles(len(x), SHAPE)
    (axes,) = plots.completions(completing, x, hidden, rows=4, samples=3, seed=2).axes
    assert headings(axes) == (["input", "truth", "baseline", "1", "2", "3"], [])
    ink = x[:4] / np.float32(255)
    answers = completing.complete(ink, hidden[:4], samples=3, seed=2)
    single = completing.baseline.complete(ink, hidden[:4])
    for row in range(4):
        np.testing.assert_allclose(tile(axes, row, 0), np.where(hidden[row], 0.3, ink[row]), atol=1e-6)
        for column, image in enumerate((ink, single, *answers), start=1):
            np.testing.assert_allclose(tile(axes, row, column), image[row], atol=1e-6)


def test_one_mask_may_be_for_all_and_fewer_images_make_fewer_rows(completing, x):
    (axes,) = plots.completions(completing, x[:2], mc.masks.quadrants(2, SHAPE), samples=1).axes
    assert axes.images[0].get_array().shape == (2 * 7 - 1, 4 * 6 - 1)


def test_what_cannot_be_drawn_is_refused(completing, x):
    mask = mc.masks.quadrants(1, SHAPE)
    for wrong in ({"rows": 0}, {"samples": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            plots.completions(completing, x, mask, **wrong)
    with pytest.raises(ValueError, match="hidden"):
        plots.completions(completing, x, mask[:2])
