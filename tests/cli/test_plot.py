"""`minicvae plot`: the pictures of a run, drawn anew."""

import numpy as np


def test_pictures_show_test_images_and_all_that_is_known_of_them(digits, of_classes, monkeypatch, run_to_here):
    seen = {}

    def draw_all(model, x, c, folder, **settings):
        seen.update(settings, x=x, c=c, folder=folder)
        return []

    monkeypatch.setattr("minicvae.plots.draw_all", draw_all)
    run_to_here("plot", of_classes.folder, "--device", "numpy", "--seed", "3")
    x, y = digits(30, 1)
    np.testing.assert_array_equal(seen["x"], x)
    np.testing.assert_array_equal(seen["c"], y)
    assert seen["folder"] == of_classes.figures
    assert seen["history"] == of_classes.history()
    assert (seen["names"], seen["seed"], seen["label"]) == (("0", "1", "2"), 3, 0)


def test_plot_draws_every_picture_anew(of_classes, run_to_here):
    before = sorted(of_classes.figures.iterdir())
    assert before
    for path in before:
        path.unlink()
    text = run_to_here("plot", of_classes.folder, "--device", "numpy")
    assert sorted(of_classes.figures.iterdir()) == before == sorted(map(type(before[0]), text.splitlines()))
